"""What the pages of README.md and docs/ say: headings, links, files to save, commands, and how tests run them.

A fenced block without a language, or of sh, console or bash, holds commands: its lines that begin with covermap or python.
Comments before a block say how it is run:

    <!-- setup: NAME -->            a function of doc_setups.py makes the data (once, for the page)
    <!-- file: NAME -->             the block is a file: it is saved under this name, before anything runs
    <!-- run: slow -->              the block runs with the slow tests only; slow "TEXT": its commands that hold the text
    <!-- run: no (REASON) -->       the block is not run, its commands are parsed
    <!-- run: not "TEXT" (REASON) -->   the same of its commands that hold the text; several may stand above each other
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OWN = [page for page in PAGES if page.parent.name not in ("decisions", "reference") and page.name != "LOG.md"]
"""Pages for readers, whose commands are run; decisions and the log tell of what was."""
SHELL = ("", "sh", "console", "bash")
_COMMENT = re.compile(r"<!--\s*(setup|file|run):\s*(.*?)\s*-->")
_RUN = re.compile(r'(?:(slow)(?: "([^"]+)")?|(no)|not "([^"]+)")(?:\s*\((.+)\))?$')


@dataclass
class Block:
    """A fenced block: its language, lines, the line where it begins, and what comments say of it."""

    language: str
    line: int
    text: str = ""
    file: str | None = None
    slow: list[str] = field(default_factory=list)
    skipped: str | None = None
    skipped_with: dict[str, str] = field(default_factory=dict)
    also: list[str] = field(default_factory=list)
    """Texts that comments name: each is in a command."""

    def commands(self) -> list[str]:
        """Lines that begin with covermap or python, continued ones joined; here documents are none."""
        if self.language not in SHELL or self.file:
            return []
        lines = re.sub(r"\\\n\s*", "", self.text).split("\n")
        return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?(covermap|python) ", line)]

    def is_slow(self, command: str) -> bool:
        """Whether a command runs with the slow tests only."""
        return any(text in command for text in self.slow)

    def reason(self, command: str) -> str | None:
        """Why a command is not run; None where it is."""
        return self.skipped or next((why for text, why in self.skipped_with.items() if text in command), None)


@dataclass
class Page:
    """A page: its text without fenced blocks, its blocks, and the setups that it names."""

    path: Path
    prose: str
    blocks: list[Block]
    setups: list[str]

    @property
    def name(self) -> str:
        """Path from the root."""
        return self.path.relative_to(ROOT).as_posix()

    def anchors(self) -> set[str]:
        """Of its headings, as GitHub makes them; those that stand twice are numbered."""
        found: dict[str, int] = {}
        for title in re.findall(r"^#{1,6} +(.+?)\s*$", self.prose, re.M):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
            anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            found[anchor] = found.get(anchor, -1) + 1
        return {name if not n else f"{name}-{n}" for name, count in found.items() for n in range(count + 1)}

    def links(self) -> list[str]:
        """Targets of all links."""
        return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", self.prose))


def read_page(path: Path) -> Page:
    """Take a page apart; raises AssertionError for a comment that is not understood."""
    page = Page(path, "", [], [])
    block: Block | None = None
    said: list[tuple[str, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"```(\w*)$", line)
        if block is not None:
            if line == "```":
                block = None
            else:
                block.text += line + "\n"
        elif fence:
            block = Block(fence[1], number)
            _heed(block, said)
            page.blocks.append(block)
            said = []
        else:
            page.prose += line + "\n"
            for kind, value in _COMMENT.findall(line):
                if kind == "setup":
                    page.setups.append(value)
                else:
                    said.append((kind, value))
            assert not (said and line.startswith("#")), f"{path}:{number}: {said} belongs to no block"
    assert not said, f"{path}: {said} belongs to no block"
    for block in page.blocks:
        for text in block.also:
            assert any(text in one for one in block.commands()), f"{path}:{block.line}: no command has {text!r}"
    return page


def _heed(block: Block, said: list[tuple[str, str]]) -> None:
    for kind, value in said:
        if kind == "file":
            block.file = value
            continue
        match = _RUN.match(value)
        assert match, f"line {block.line}: run: {value} is not understood"
        slow, of, no, text, why = match.groups()
        assert slow or why, f"line {block.line}: run: {value} gives no reason"
        block.also = [*block.also, *filter(None, (of, text))]
        if slow:
            block.slow.append(of or "")
        elif no:
            block.skipped = why
        else:
            block.skipped_with[text] = why
