"""Every command of README and docs is parsed; it is run too, but where a comment in the page gives a reason."""

import doc_setups
import pytest
from doc_pages import OWN, ROOT, read_page
from doc_run import parse, run_page

WITH_COMMANDS = [path for path in OWN if any(block.commands() for block in read_page(path).blocks)]
NAMES = [path.relative_to(ROOT).as_posix() for path in WITH_COMMANDS]
SLOW = [path for path in WITH_COMMANDS if any(block.slow for block in read_page(path).blocks)]
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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(path, slow=...) -> the commands of a page that ran, in a folder with what the page's setup makes."""

    def run(path, *, slow):
        page = read_page(path)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COVERMAP_WEIGHTS", str(tmp_path / "weights"))
        for setup in page.setups:
            getattr(doc_setups, setup)(slow=slow)
        return run_page(page, slow=slow)

    return run


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=NAMES)
def test_quick_commands_run_in_their_order(path, run):
    page = read_page(path)
    if all(block.is_slow(one) or block.reason(one) for block in page.blocks for one in block.commands()):
        pytest.skip("all its commands are slow, or not run")
    assert run(path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("path", SLOW, ids=lambda path: path.stem)
def test_all_commands_run_in_their_order(path, run):
    assert run(path, slow=True)


def test_commands_that_are_not_run_are_few_and_have_a_reason(capsys):
    rows = []
    count = 0
    for path in WITH_COMMANDS:
        page = read_page(path)
        for block in page.blocks:
            for command in block.commands():
                count += 1
                if reason := block.reason(command):
                    rows.append(f"  {page.name}:{block.line}: {command.split(' # ')[0].strip()}  ({reason})")
    with capsys.disabled():
        print(f"\n{len(rows)} of {count} commands of the docs are parsed, but not run:")
        print("\n".join(rows))
    assert len(rows) < count / 2
