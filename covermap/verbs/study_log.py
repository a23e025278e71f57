"""LOG.md of a study: hypothesis, method, result and conclusion, made of the runs and open to a person's words.

Generated text stands between `<!-- generated NAME: CHECKSUM -->` and `<!-- end -->`. It is written anew with each call,
unless somebody changed it; whatever stands outside of the marks is kept.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from covermap.core.output import write_text
from covermap.verbs.study_kinds import conclude, main_rows
from covermap.verbs.study_table import Table

_BLOCK = re.compile(r"<!-- generated (\w+): (\w+) -->\n(.*?)\n?<!-- end -->", re.DOTALL)


def write_log(path: Path, table: Table, failed: int, notes: list[str]) -> Path:
    """Write LOG.md, or renew what is generated in the one that is there."""
    return keep_log(path, table.loaded.plan.title, _blocks(path.parent, table, failed, notes))


def keep_log(path: Path, title: str, blocks: Mapping[str, str]) -> Path:
    """A log of these blocks, {name: text}; of one that is there what is generated and nobody changed is renewed."""
    if not path.is_file():
        return write_text(path, _fresh(title, blocks))
    return write_text(path, renewed(path.read_text(encoding="utf-8"), blocks))


def renewed(text: str, blocks: Mapping[str, str]) -> str:
    """The text with its generated blocks in their new words; those that a person changed stay."""

    def replace(found: re.Match[str]) -> str:
        name, mark, said = found.groups()
        return _marked(name, blocks[name]) if name in blocks and _checksum(said) == mark else found[0]

    return _BLOCK.sub(replace, text)


def _fresh(title: str, blocks: Mapping[str, str]) -> str:
    parts = [f"## Experiment: {title}", "Write anywhere: what you add or change is kept when the study is run again."]
    for name in blocks:
        parts += [f"### {name.capitalize()}", _marked(name, blocks[name])]
    return "\n\n".join(parts) + "\n"


def _marked(name: str, text: str) -> str:
    return f"<!-- generated {name}: {_checksum(text)} -->\n{text}\n<!-- end -->"


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _blocks(out: Path, table: Table, failed: int, notes: list[str]) -> dict[str, str]:
    loaded, plan = table.loaded, table.loaded.plan
    first = loaded.cells[0].config
    images = [str(image.path) for image in first.data.images] or [str(first.data.root)]
    varied = [
        f"- {axis}: {'; '.join(f'{level} ({_settings(said)})' for level, said in levels.items())}"
        for axis, levels in loaded.axes.items()
    ]
    again = " and the labels' share" if plan.resample else ""
    command = f"- command: `covermap study run {shlex.quote(loaded.source)} {shlex.quote(str(out))}`"
    method = [
        "What varies:", *varied, "", f"- data: {', '.join(images[:3])}{' ...' if len(images) > 3 else ''}",
        f"- seeds of training{again}: {', '.join(map(str, plan.all_seeds))}; val and test are the same in all", command,
    ]  # fmt: skip
    done = f"{len(table.done)} of {len(loaded.cells)} runs are finished; {failed} failed."
    result = [markdown(*main_rows(table)), "", done, *(f"- {note}" for note in notes)]
    return {
        "hypothesis": plan.hypothesis.strip() or "None was stated.", "method": "\n".join(method),
        "result": "\n".join(result), "conclusion": conclude(table),
    }  # fmt: skip


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a bar in a cell would end it."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in lines)


def _settings(said: object) -> str:
    return ", ".join(f"{key}={value}" for key, value in said.items()) if isinstance(said, Mapping) else str(said)
