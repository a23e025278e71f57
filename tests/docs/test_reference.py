"""docs/reference/ says what the code says."""

import runpy

from doc_pages import ROOT


def test_the_reference_is_that_of_the_code():
    pages = runpy.run_path(str(ROOT / "packaging/reference.py"))["pages"]()
    assert len(pages) == 2
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: make docs"


def test_every_verb_and_every_key_has_words():
    """An option without a meaning is a hole in the reference."""
    cli = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert not [line for line in cli.splitlines() if line.startswith("| `") and line.endswith("|  |")]
