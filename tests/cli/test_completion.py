"""Tab in a shell: verbs, options, values of options and files, asked as a shell asks."""

import re
import shutil
import subprocess
import sys

import pytest
import typer

from covermap.cli import app

TAB = """
eval "$(covermap completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_covermap_completion covermap && printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def in_bash(words):
    """What Tab offers after these words."""
    done = subprocess.run(["bash", "-c", TAB.format(words=words)], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """PATH with a covermap of this interpreter."""
    program = tmp_path / "bin" / "covermap"
    program.parent.mkdir()
    start = f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'covermap'\nfrom covermap.cli import main\nmain()\n"
    program.write_text(start)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("covermap pre", ["prepare", "pretrain", "predict"]),
        ("covermap models p", ["pull", "push"]),
        ("covermap predict a b c --en", ["--engine", "--entropy"]),
        ("covermap predict a b c --engine ''", ["threads", "serial", "processes", "ray"]),
        ("covermap schema pretrain", ["pretraining", "pretrain"]),
        ("covermap legend show esa", ["esa_worldcover"]),
        ("covermap event a b c --sensor sentinel2", ["sentinel2"]),
        ("covermap completion ''", ["bash", "zsh", "fish"]),
        ("covermap predict ''", []),
    ],
)
def test_bash_offers(words, offered, environment):
    assert in_bash(words) == offered


def test_bash_offers_files_where_nothing_else_fits(covermap):
    assert "complete -o default -F" in covermap("completion", "bash")[1]


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        (
            "zsh",
            'autoload -Uz compinit; compinit -u -d DUMP; eval "$(covermap completion zsh)"; print ${_comps[covermap]}',
        ),
        ("fish", "covermap completion fish | source; complete -C 'covermap predict a b c --engine '"),
    ],
)
def test_other_shells_read_it(shell, code, environment, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, "-c", code.replace("DUMP", str(tmp_path / "dump"))], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert ("_covermap_completion" if shell == "zsh" else "threads") in done.stdout


def test_torch_is_not_imported_by_tab():
    code = (
        "import os, sys\nsys.argv = ['covermap']\n"
        "os.environ |= {'_COVERMAP_COMPLETE': 'complete_bash', 'COMP_WORDS': 'covermap event a b c --sensor ', 'COMP_CWORD': '6'}\n"
        "from covermap.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'rasterio', 'scipy', 'pandas'} & set(sys.modules), 'too much is imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sentinel2" in done.stdout.split()


def test_words_that_tab_offers_are_those_of_the_help():
    def parts(group):
        for one in group.commands.values():
            yield from parts(one) if hasattr(one, "commands") else one.params

    seen = 0
    for param in parts(typer.main.get_command(app)):
        words = getattr(param, "_custom_shell_complete", None)
        if words is None or not param.help or re.search("egend|ensor |Shipped name", param.help):
            continue
        seen += 1
        for item in words(None, param, ""):
            assert re.search(rf"\b{re.escape(item.value)}\b", param.help), f"{param.name}: {item.value}"
    assert seen > 20
