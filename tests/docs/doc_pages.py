"""What the pages of README.md and docs/ say: headings, links, files to save, commands, and how tests run them.

A fenced block without a language, or of sh, console or bash, holds commands: its lines that begin with covermap or python,
also in eval or until. All are run: those of a page in their order, in one folder. Comments before a block say how:

    <!-- setup: NAME -->            a function of doc_setups.py makes the data (once, for the page)
    <!-- in: NAME -->               the block runs in a folder of its own, whose data the function makes
    <!-- each: NAME -->             each of its commands does, in a fresh copy: they are alternatives, of one output perhaps
    <!-- file: NAME -->             the block is a file: it is saved under this name, before anything runs
    <!-- then: NAME "TEXT" -->      after the commands that hold the text the function does what a person would
    <!-- run: slow -->              the block runs with the slow tests only; slow "TEXT": its commands that hold the text
    <!-- run: server "TEXT" -->     a command that holds the text serves a page until Ctrl-C: it is asked for it, then ended

Several comments with texts may stand above each other.
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
_COMMENT = re.compile(r"<!--\s*(setup|in|each|file|then|run):\s*(.*?)\s*-->")
_SAID = re.compile(r'(\w+)(?: "([^"]+)")?$')


@dataclass
class Block:
    """A fenced block: its language, lines, the line where it begins, and what comments say of it."""

    language: str
    line: int
    text: str = ""
    file: str | None = None
    setup: str | None = None
    fresh: bool = False
    """Its own setup, where it has a folder of its own; fresh: so has each of its commands."""
    slow: list[str] = field(default_factory=list)
    servers: list[str] = field(default_factory=list)
    then: dict[str, str] = field(default_factory=dict)
    """Texts that a command holds, "" for all: what is slow, what serves, what a person does after."""

    def commands(self) -> list[str]:
        """Lines of covermap or python, continued ones joined; here documents are none."""
        if self.language not in SHELL or self.file:
            return []
        lines = re.sub(r"\\\n\s*", "", self.text).split("\n")
        return [
            line.removeprefix("$ ") for line in lines if re.match(r'(\$ )?(until |eval "\$\()?(covermap|python) ', line)
        ]

    def is_slow(self, command: str) -> bool:
        """Whether a command runs with the slow tests only."""
        return any(text in command for text in self.slow)

    def serves(self, command: str) -> bool:
        """Whether a command goes on until Ctrl-C."""
        return any(text in command for text in self.servers)

    def after(self, command: str) -> list[str]:
        """Functions that do what a person does after a command."""
        return [name for text, name in self.then.items() if text in command]


@dataclass
class Part:
    """Blocks that run in one folder (fresh: each command in a copy of it), with what makes its data."""

    name: str
    blocks: list[Block]
    setups: list[str]
    fresh: bool = False

    def commands(self) -> list[tuple[Block, str]]:
        """All in their order."""
        return [(block, one) for block in self.blocks for one in block.commands()]


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

    def parts(self) -> list[Part]:
        """What runs in a folder of its own: the blocks of the page in their order, and each with its own setup."""
        shared = Part(self.name, [block for block in self.blocks if not block.setup], self.setups)
        own = [block for block in self.blocks if block.setup]
        parts = [shared, *(Part(f"{self.name}:{one.setup}", [one], [str(one.setup)], one.fresh) for one in own)]
        return [part for part in parts if part.commands()]

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
        for text in filter(None, [*block.slow, *block.servers, *block.then]):
            assert any(text in one for one in block.commands()), f"{path}:{block.line}: no command has {text!r}"
    return page


def _heed(block: Block, said: list[tuple[str, str]]) -> None:
    for kind, value in said:
        if kind == "file":
            block.file = value
            continue
        match = _SAID.match(value)
        assert match, f"line {block.line}: {kind}: {value} is not understood"
        word, text = match.groups(default="")
        if kind in ("in", "each"):
            block.setup, block.fresh = word, kind == "each"
        elif kind == "then":
            block.then[text] = word
        else:
            {"slow": block.slow, "server": block.servers}[word].append(text)
