"""Every command of README and docs is parsed, and run: doc_pages says how.

Commands of the hub talk to one on this machine. Real weights come from ../shared; blocks that need them skip without it.
"""

import pytest
from doc_hub import stock
from doc_pages import OWN, ROOT, read_page
from doc_run import parse, run_part

from tests.verbs.test_fetch import host as host

WITH_COMMANDS = [path for path in OWN if any(block.commands() for block in read_page(path).blocks)]
NAMES = [path.relative_to(ROOT).as_posix() for path in WITH_COMMANDS]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=NAMES)
def test_verbs_and_options_exist(path):
    for block in read_page(path).blocks:
        for command in block.commands():
            parse(command)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_commands_of_recipes_exist(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# command:")]
    assert lines, f"{path.name} states no command"
    for line in lines:
        text = line.removeprefix("# command:").split("   (")[0].strip()
        parse(text[text.index("covermap ") :])


def parts(*, slow):
    """Each part of a page with commands that are slow, or quick."""
    chosen = [
        pytest.param(page, part, id=part.name)
        for page in map(read_page, WITH_COMMANDS)
        for part in page.parts()
        if any(block.is_slow(command) == slow for block, command in part.commands())
    ]
    return pytest.mark.parametrize(("page", "part"), chosen)


@pytest.fixture
def machine(tmp_path, monkeypatch, host):
    """Weights of its own, hosts of its own in place of the network's, and a number from Slurm."""
    stock(host)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", host.base)
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")


@parts(slow=False)
def test_quick_commands_run_in_their_order(page, part, tmp_path, machine):
    assert run_part(page, part, tmp_path, slow=False)


@pytest.mark.slow
@parts(slow=True)
def test_all_commands_run_in_their_order(page, part, tmp_path, machine):
    assert len(run_part(page, part, tmp_path, slow=True)) == len(part.commands())


def test_no_command_is_left_out():
    for page in map(read_page, WITH_COMMANDS):
        run = [command for part in page.parts() for _, command in part.commands()]
        assert sorted(run) == sorted(command for block in page.blocks for command in block.commands())
