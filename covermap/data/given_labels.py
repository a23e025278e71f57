"""Labels that a person gave to chips of embeddings: tables with the columns id and reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.parsing import read_csv
from covermap.data.embeddings import Embeddings
from covermap.data.labelled_chips import Kind, targets_of
from covermap.geo.vector import read_table


def with_labels(
    found: Embeddings, paths: Sequence[str | Path], target: Kind = "auto"
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:  # fmt: skip
    """Class indices (N,) of chips, -1 where not known, and the names of classes: the tables' before the embeddings'.

    A reference is a code or a name of the legend; without a legend all names of the tables are classes. Raises
    ConfigError for targets that are numbers, DataError for ids that no chip has, LabelError for unknown classes,
    two of one chip, and tables without any.
    """
    if target in ("shares", "values"):
        raise ConfigError(f"--labels tells classes, --target {target} is numbers", fix="--target label, or majority")
    tables = {str(path): list(_references(Path(path))) for path in paths}
    if empty := [path for path, rows in tables.items() if not rows]:
        raise LabelError(f"{empty[0]} has no reference in any row", fix="fill its column reference, or leave it out")
    told = [(path, *one) for path, rows in tables.items() for one in rows]
    if found.labels is not None or found.class_pixels is not None:
        kind: Kind = target if target != "auto" else "label" if found.labels is not None else "majority"
        old, names, _, _ = targets_of(found, kind)
    else:
        old, names = np.full(len(found), -1, np.int64), tuple(sorted({text for _, _, text in told}))
    known = {name.lower(): i for i, name in enumerate(names)}
    if found.legend is not None:
        known |= {str(code): i for i, code in enumerate(found.legend.codes)}
    at = {name: i for i, name in enumerate(found.ids)}
    targets = np.asarray(old, np.int64).copy()
    given: dict[str, str] = {}
    for path, name, text in told:
        if name not in at:
            raise DataError(f"{path} labels {name}, which is no chip of {found.source}", fix="give its own plan")
        if text.lower() not in known:
            raise LabelError(f"{path} labels a chip {text!r}, which is no class", fix=f"use one of: {', '.join(names)}")
        if known[text.lower()] != known[given.setdefault(name, text).lower()]:
            raise LabelError(f"{path} labels {name} {text!r}, and before {given[name]!r}", fix="decide for one of them")
        targets[at[name]] = known[text.lower()]
    return targets, names


def _references(path: Path) -> Iterator[tuple[str, str]]:
    """Ids with their references, of rows that have one."""
    if path.suffix.lower() == ".csv":
        rows: Sequence[dict[str, Any]] = read_csv(path, fix="give the CSV of a plan")
        columns = list(rows[0]) if rows else []
    else:
        table = read_table(path)
        columns = [str(name) for name in table.columns]
        rows = table.drop(columns=table.geometry.name).to_dict("records")
    if not {"id", "reference"} <= set(columns):
        raise DataError(
            f"{path} has the columns {', '.join(map(str, columns)) or 'none'}, not id and reference",
            fix="give the table that covermap study plan wrote, with its column reference filled",
        )
    for row in rows:
        text = "" if row["reference"] is None or row["reference"] != row["reference"] else str(row["reference"]).strip()
        if text:
            yield str(row["id"]), text.removesuffix(".0")
