"""The headers of recipes, and the table of docs/recipes.md that is made of them: python -m tests.recipe_headers."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "recipes.md"
BEGIN = "| system | recipe | command | what works here | what its authors reported | measured here |"
_KEY = re.compile(r"# (\w+): +(.*)")


@dataclass(frozen=True)
class Header:
    """What the comment at the top of a recipe states. about: {key: text of one line}."""

    path: Path
    title: str
    about: dict[str, str]

    @property
    def name(self) -> str:
        """Path below recipes/, without its ending."""
        return self.path.relative_to(ROOT / "recipes").with_suffix("").as_posix()

    @property
    def verb(self) -> str:
        """What of the command line takes the recipe: run, study, change-study or pretrain."""
        return self.about["command"].partition("covermap ")[2].split()[0]

    @property
    def needs(self) -> str | None:
        """The recipe of the same folder whose small run this one's goes on from."""
        found = re.match(r"after (\w+)\.yaml's", self.about["small"])
        return f"{self.path.parent.name}/{found[1]}" if found else None

    def small(self, root: Path) -> list[str]:
        """The overrides with which it runs on a miniature; $PWD/mini is `root`."""
        text = self.about["small"]
        words = shlex.split(text[text.index("with --set") + 5 :].replace("$PWD/mini", str(root)))
        return words[1::2]


def read_header(path: Path) -> Header:
    """The comment lines before the first other line; a line without a key goes on with the one before."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    about: dict[str, str] = {}
    key = ""
    for line in lines[1:]:
        if found := _KEY.fullmatch(line):
            key = found[1]
            about[key] = found[2].strip()
        else:
            about[key] += " " + line[1:].strip()
    return Header(path, lines[0].removeprefix("# "), about)


def all_headers() -> list[Header]:
    """Of the recipes of experiments, in the order of their systems."""
    found = [read_header(path) for path in (ROOT / "recipes").rglob("*.yaml")]
    return sorted((header for header in found if "system" in header.about), key=lambda h: (h.about["system"], h.name))


def table() -> str:
    """A row for each recipe of an experiment."""
    rows = [BEGIN, "|---|---|---|---|---|---|"]
    for header in all_headers():
        about = header.about
        cells = [
            about["system"], f"[{header.name}](../recipes/{header.name}.yaml): {header.title}",
            f"`{about['command']}`", about["works"], about["authors"], about["measured"],
        ]  # fmt: skip
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def main() -> None:
    text = TABLE.read_text(encoding="utf-8")
    TABLE.write_text(text[: text.index(BEGIN)] + table(), encoding="utf-8")


if __name__ == "__main__":
    main()
