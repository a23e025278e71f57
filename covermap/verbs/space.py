"""`space`: the look at an embedding space: how far regions lie apart, what that costs, and what position tells.

embeddings of one encoder -> chips in regions -> distances of all pairs of regions
                          -> ridge probes from region to region -> extra error against distance -> page

OUT/distances.csv   a row for each pair of regions: centroid, frechet, mmd (squared), knn (metrics.distances)
OUT/transfer.csv    a row for each region learnt in and told: error, r2, extra error
OUT/points.csv      a row for each chip: region, class, principal components, UMAP where it is installed
OUT/space.json      everything else       OUT/LOG.md       in sentences       OUT/space.html   to look at
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from covermap.core.errors import DataError, OutputError
from covermap.core.output import replacing, require_no_input, write_text, writing
from covermap.core.progress import Tick, unseen
from covermap.core.run import checksum, plain
from covermap.data.chip_regions import ChipRegions, chip_classes
from covermap.data.embeddings import facts_of, parquet
from covermap.data.labelled_chips import Kind
from covermap.geo.legend_files import csv_text
from covermap.metrics.group_distances import DISTANCES, GroupDistances, group_distances
from covermap.metrics.mantel import Rising, mantel
from covermap.metrics.positional import positional_sentence
from covermap.ml.projection import umap_of
from covermap.report.space_figures import Groups, region_colours
from covermap.report.space_page import SpaceFound, Words, write_space_page
from covermap.verbs.space_transfer import Transfer, transfer
from covermap.verbs.space_words import doubts_of, methods, words_of
from covermap.verbs.study_log import keep_log

_COMPONENTS = 4
"""Principal components that points.csv tells."""
_MANY = 40
"""Regions above which fewer relabellings are drawn: each takes as many pairs as there are."""


@dataclass(frozen=True)
class SpaceSettings:
    """How regions are made and compared. by: scene, place, part, class, a column of the files, or auto.

    least: chips of a region. block: side of the blocks of ground that are held out, in chips. seed: of what is drawn.
    """

    by: str = "auto"
    target: Kind = "auto"
    least: int = 20
    block: int = 4
    seed: int = 0


@dataclass
class Space:
    """What was found: rows of the tables, rank correlations by distance, sentences, and what speaks against them."""

    out: Path
    by: str
    regions: dict[str, int]
    distances: list[dict[str, Any]]
    transfer: list[dict[str, Any]]
    rising: dict[str, dict[str, Any]]
    positional: dict[str, Any]
    num_undefined: int
    sentences: list[str]
    doubts: list[str]
    notes: list[str]
    files: list[Path] = field(default_factory=list)


class _Looked(NamedTuple):
    """What was computed, before it is told."""

    regions: ChipRegions
    far: GroupDistances
    probed: Transfer | None
    rising: dict[str, Rising]
    umap: Any
    positional: dict[str, Any]
    words: Words
    notes: list[str]


def space(
    paths: Sequence[str | Path], out: str | Path, settings: SpaceSettings | None = None, *, overwrite: bool = False,
    on_progress: Tick = unseen,
) -> Space:  # fmt: skip
    """Compare the regions of embeddings by one encoder; raises DataError, ConfigError, OutputError, MissingExtra."""
    settings, out = settings or SpaceSettings(), Path(out)
    require_no_input([out], paths)
    _claim(out, overwrite=overwrite)
    looked = _look(paths, settings, on_progress)
    found = _told(looked, out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    found.files = _write(looked, found, paths, settings)
    return found


def _claim(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder of something else, and one of a look that is not to be replaced."""
    if out.is_file():
        raise OutputError(f"{out} is a file", fix="name a folder: covermap space EMBEDDINGS.parquet OUT/")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "space.json").is_file():
        raise OutputError(f"{out} exists and is no look at a space", fix="name a new folder")
    if not overwrite:
        raise OutputError(f"{out} exists already", fix="choose another name or add --overwrite")


def _look(paths: Sequence[str | Path], settings: SpaceSettings, on_progress: Tick) -> _Looked:
    regions = ChipRegions.read(paths, by=settings.by, least=settings.least)
    notes, steps, done = list(regions.notes), 2 * len(regions.names) + 1, 0

    def step() -> None:
        nonlocal done
        done += 1
        on_progress(done, steps)

    on_progress(0, steps)
    far = group_distances(regions.chips.values, regions.region, seed=settings.seed, on_row=step)
    if far.constant:
        notes.append(f"{far.constant:,} features are constant within every region and left out of distances")
    probed = _probed(regions, settings, notes, step)
    rising = {}
    if probed is not None:
        draws = 4999 if len(regions.names) <= _MANY else 499
        for name in DISTANCES:
            rising[name] = mantel(far.matrices[name], probed.extra, draws=draws, seed=settings.seed)
    coordinates, why = umap_of(far.scores[far.sample], seed=settings.seed)
    if why:
        notes.append(why)
    on_progress(steps, steps)
    positional = {}
    for path in paths:
        facts = facts_of(parquet().ParquetFile(path))
        positional[str(path)] = facts.get("positional_share") or {"share": None, "why": "the file does not say"}
    words = words_of(regions, far, probed, rising, positional)
    return _Looked(regions, far, probed, rising, coordinates, positional, words, notes)


def _probed(
    regions: ChipRegions, settings: SpaceSettings, notes: list[str], step: Callable[[], None]
) -> Transfer | None:
    """Transfer from region to region; None and a note where nothing is there to be told."""
    chips = regions.chips
    if regions.by == "class" and settings.target == "auto" and chips.numbers is None:
        notes.append("regions are the classes themselves: no probe is carried from one to another")
        return None
    if settings.target == "auto" and chips.numbers is None and chips.labels is None and chips.class_pixels is None:
        notes.append("the embeddings have no labels: what distance costs is not told (embed a config that has labels)")
        return None
    try:
        found = transfer(regions, target=settings.target, block=settings.block, seed=settings.seed, on_region=step)
    except DataError as error:
        if settings.target != "auto":
            raise
        notes.append(f"no transfer: {error.message}")
        return None
    notes += found.notes
    return found


def _told(looked: _Looked, out: Path) -> Space:
    regions, far, probed = looked.regions, looked.far, looked.probed
    names = regions.names
    sizes = dict(zip(names, regions.sizes.tolist(), strict=True))
    distances = [
        {"region_a": a, "region_b": b, "n_a": sizes[a], "n_b": sizes[b],
         **{name: float(far.matrices[name][i, j]) for name in DISTANCES}}
        for i, a in enumerate(names) for j, b in enumerate(names) if i < j
    ]  # fmt: skip
    pairs = [] if probed is None else [
        {"train": a, "test": b, "error": float(probed.error[i, j]), "r2": float(probed.r2[i, j]),
         "extra_error": float(probed.extra[i, j]), "n_train": int(probed.num_train[i, j]),
         "n_test": int(probed.num_test[j])}
        for i, a in enumerate(names) for j, b in enumerate(names)
    ]  # fmt: skip
    undefined = 0 if probed is None else int(np.isnan([probed.error, probed.r2]).sum())
    notes = list(looked.notes)
    if undefined:
        notes.append(f"{undefined:,} of {2 * len(pairs):,} errors and R2 of the transfer are undefined, and empty")
    return Space(
        out, regions.by, sizes, distances, pairs, {name: one._asdict() for name, one in looked.rising.items()},
        looked.positional, undefined, looked.words.lines,
        doubts_of(regions, probed), notes,
    )  # fmt: skip


def _write(looked: _Looked, found: Space, paths: Sequence[str | Path], settings: SpaceSettings) -> list[Path]:
    out, regions, far = found.out, looked.regions, looked.far
    files = [write_text(out / "distances.csv", _csv(found.distances))]
    if found.transfer:
        files.append(write_text(out / "transfer.csv", _csv(found.transfer)))
    else:
        (out / "transfer.csv").unlink(missing_ok=True)  # of the look before
    files.append(_points(looked, out / "points.csv"))
    facts = {
        "embeddings": {str(path): checksum(path) for path in paths}, "settings": asdict(settings), "by": found.by,
        "encoder": dict(regions.chips.encoder), "regions": found.regions,
        "targets": [] if looked.probed is None else list(looked.probed.targets),
        "error": "" if looked.probed is None else looked.probed.unit, "correlations": found.rising,
        "positional_share": found.positional, "num_undefined": found.num_undefined,
        "components": far.components, "variance": far.variance[:_COMPONENTS], "bandwidth": far.bandwidth,
        "shrunk": dict(zip(regions.names, far.shrunk.tolist(), strict=True)), "sampled": len(far.sample),
        "sampled_each": far.each, "sentences": found.sentences, "doubts": found.doubts, "notes": found.notes,
    }  # fmt: skip
    files.append(write_text(out / "space.json", json.dumps(plain(facts), indent=2) + "\n"))
    log = {
        "method": f"{methods(far)}\n- command: `covermap space {' '.join(map(str, paths))} {out} --by {found.by}`",
        "result": "\n".join(f"- {line}" for line in [*found.sentences, *found.notes]),
        "doubts": "\n".join(f"- {line}" for line in found.doubts) or "None was found.",
    }
    files.append(keep_log(out / "LOG.md", f"embedding space by {found.by}", log))
    return [*files, write_space_page(out / "space.html", _page(looked, found))]


def _page(looked: _Looked, found: Space) -> SpaceFound:
    regions, far, probed = looked.regions, looked.far, looked.probed
    sample = far.sample
    one, two = (f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate([*far.variance, 0.0][:2]))
    pca = np.column_stack([far.scores[sample], np.zeros(len(sample))])[:, :2]  # one feature has one component
    coordinates = {"principal components": (pca, (one, two))}
    if looked.umap is not None:
        coordinates["UMAP"] = (looked.umap, ("UMAP 1", "UMAP 2"))
    panels = [Groups(f"by {found.by}", regions.region[sample], regions.names, region_colours(len(regions.names)))]
    index, names, colours = chip_classes(regions.chips)
    if names and found.by != "class":
        panels.append(Groups("by class", index[sample], names, colours, "no class has the majority"))
    elif names:
        own = dict(zip(names, colours, strict=True))
        panels = [panels[0]._replace(colours=[own[name] for name in regions.names])]
    encoder = regions.chips.encoder
    facts = [
        ("Regions", f"{len(regions.names):,}"), ("Chips", f"{len(regions.chips):,}"),
        ("Features", f"{regions.chips.values.shape[1]:,}"), ("Encoder", str(encoder.get("backbone", "not told"))),
        ("Weights", str(encoder.get("weights", "not told"))),
    ]  # fmt: skip
    positional = [
        (Path(path).name, positional_sentence(told) or f"not known: {told.get('why', '')}")
        for path, told in looked.positional.items()
    ]
    return SpaceFound(
        f"Embedding space by {found.by}", regions.names, regions.sizes.tolist(), far.matrices, methods(far),
        None if probed is None else probed.error, None if probed is None else probed.r2,
        None if probed is None else probed.extra, "" if probed is None else probed.unit, looked.rising, coordinates,
        panels, positional, looked.words, found.doubts, found.notes, facts,
    )  # fmt: skip


def _points(looked: _Looked, path: Path) -> Path:
    """A row for each chip, written piece by piece: there may be very many."""
    regions, far = looked.regions, looked.far
    index, names, _ = chip_classes(regions.chips)
    shown = far.scores[:, :_COMPONENTS]
    head = ["chip", "region", "class", *(f"pc{i + 1}" for i in range(shown.shape[1]))]
    mapped = dict[int, Any]()
    if looked.umap is not None:
        head += ["umap1", "umap2"]
        mapped = dict(zip(far.sample.tolist(), looked.umap.tolist(), strict=True))
    with replacing(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        file.write(csv_text(head, []))
        for start in range(0, len(shown), 10_000):
            rows = [
                [regions.chips.ids[i], regions.chips.place[i], names[index[i]] if index[i] >= 0 else "",
                 *(f"{value:.6g}" for value in shown[i]),
                 *((f"{value:.6g}" for value in mapped[i]) if i in mapped else ["", ""] if mapped else [])]
                for i in range(start, min(start + 10_000, len(shown)))
            ]  # fmt: skip
            file.write("".join(csv_text(head, rows).splitlines(keepends=True)[1:]))
    return path


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """A table; numbers that are not known are empty."""

    def cell(value: Any) -> Any:
        return (
            "" if isinstance(value, float) and value != value else f"{value:.6g}" if isinstance(value, float) else value
        )

    return csv_text(list(rows[0]), [[cell(value) for value in row.values()] for row in rows])
