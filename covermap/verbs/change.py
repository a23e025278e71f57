"""`change`: what became what between maps of two or more dates (post-classification comparison).

    OUT.tif              code of each transition: 0 unchanged, 65535 nodata (core/from_to.py), with all side files
    OUT.transitions.csv  pixels and hectares of each pair of classes (transitions.csv for a map called change.tif)
    OUT.matrix.csv       hectares: a row for each class before, a column for each after
    OUT.classes.csv      gains, losses, net change and swap of each class
    OUT.change.json      everything

Of three or more maps OUT is a folder: change_1_2.tif, change_2_3.tif, ... and, from the first to the last,
change_1_3.tif, each with these files; trajectories.csv has every sequence of classes, series.json how steady they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from covermap.core.config import parse_date, split_date
from covermap.core.crosswalk import read_crosswalk
from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.output import claim, write_text
from covermap.core.progress import Tick, unseen
from covermap.core.run import plain
from covermap.data.class_map import ClassMap, open_class_map, require_same_place
from covermap.data.one_legend import ways_to_one_legend
from covermap.geo.change_product import FROM_TO
from covermap.geo.raster import open_dataset
from covermap.verbs.change_pair import claimed, compare_pair, part_of
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.trajectories import Trajectories, find_trajectories
from covermap.verbs.transitions import Change, Pair


@dataclass(frozen=True)
class Changes:
    """The change between neighbouring dates, then from the first to the last; with three dates or more also the
    sequences of classes. notes: of all.
    """

    pairs: tuple[Change, ...]
    trajectories: Trajectories | None = None
    notes: tuple[str, ...] = ()
    more_files: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return (*(file for pair in self.pairs for file in pair.files), *self.more_files)

    def to_dict(self) -> dict[str, Any]:
        """Of two maps as it stands in change.json, of more as in series.json."""
        if self.trajectories is None:
            found = self.pairs[0].to_dict()
            return {**found, "notes": [*self.notes, *found["notes"]]}
        return {
            "pairs": [pair.to_dict() for pair in self.pairs], "trajectories": len(self.trajectories.counted),
            "rates": self.trajectories.rates, "not_everywhere_px": self.trajectories.num_lost,
            "notes": list(self.notes), "files": [str(file) for file in self.files],
        }  # fmt: skip


def change(
    maps: Sequence[str | Path], out: str | Path, *, legends: Sequence[str] = (), target: str | None = None,
    crosswalks: Sequence[str | Path] = (), rules: ChangeRules | None = None, accuracy: Sequence[str | float] = (),
    overwrite: bool = False, on_progress: Tick = unseen,
) -> Changes:  # fmt: skip
    """Compare maps of classes in the order of time and write what became what.

    maps: files, or folders of the tiles of one; PATH@DATE states a date. out: the map; of three or more a folder.
    legends: of maps that do not say theirs, one for all or one each. target, crosswalks: the legend to compare in, and
    ways of one's own, for maps of different legends. accuracy: overall accuracy of each map, a share or the
    assessment.json of `assess`. Maps lie on the grid of the first by nearest neighbour. Memory: some windows of 2
    million pixels; with rules.min_area strips of 4 million and about 50 bytes for each patch of change.
    Raises ConfigError, DataError, GridError (no overlap, no CRS on one side), LabelError, OutputError.
    """
    rules = rules or ChangeRules()
    opened, dates = _open(maps, legends)
    out = Path(out)
    accuracies = [_accuracy(given) for given in accuracy]
    if accuracies and len(accuracies) != len(opened):
        raise ConfigError(f"{len(accuracies)} accuracies for {len(opened)} maps", fix="give one for each map")
    own = [read_crosswalk(path) for path in crosswalks]
    ways = ways_to_one_legend(opened, target=target, own=own)
    merging = rules.merged(ways[0].target)
    ways = [way.then(merging) if rules.merge else way for way in ways]
    goal = ways[0].target
    rules.asked(goal), rules.forbidden(goal)  # unknown classes are named before any work
    for other in opened[1:]:
        require_same_place(opened[0], other)
    steps = [(i, i + 1) for i in range(len(opened) - 1)]
    if len(opened) > 2:
        steps.append((0, len(opened) - 1))
    pairs = [Pair(opened[i], opened[j], ways[i], ways[j], (dates[i], dates[j])) for i, j in steps]
    of_pairs = [(accuracies[i], accuracies[j]) if accuracies else None for i, j in steps]
    by_number = not legends and not any(map(_says, opened))
    notes = _notes(opened, dates, by_number=by_number)
    if len(opened) == 2:
        done = compare_pair(pairs[0], out, rules, accuracy=of_pairs[0], overwrite=overwrite, on_progress=on_progress)
        return Changes((done,), None, notes)
    files = {step: _folder(out) / f"change_{step[0] + 1}_{step[1] + 1}.tif" for step in steps}
    more = [out / name for name in ("trajectories.csv", "series.json")]
    for path in (
        *more,
        *(path for pair, file in zip(pairs, files.values(), strict=True) for path in claimed(file, pair)),
    ):
        claim(path, overwrite=overwrite)
    made = [
        compare_pair(
            pair, file, rules, accuracy=of, overwrite=overwrite, on_progress=part_of(on_progress, n, len(pairs) + 1)
        )
        for n, (pair, file, of) in enumerate(zip(pairs, files.values(), of_pairs, strict=True), 1)
    ]
    last = part_of(on_progress, len(pairs) + 1, len(pairs) + 1)
    found = find_trajectories(opened, ways, rules.forbidden(goal), on_progress=last)
    write_text(more[0], found.csv)
    done_all = Changes(tuple(made), found, notes, tuple(more))
    write_text(more[1], json.dumps(plain(done_all.to_dict()), indent=2) + "\n")
    return done_all


def _open(maps: Sequence[str | Path], legends: Sequence[str]) -> tuple[list[ClassMap], list[str | None]]:
    """The maps with their dates; raises where they are too few, the same, images, or in the wrong order."""
    if len(maps) < 2:
        raise ConfigError(
            f"change is between two maps or more, {len(maps)} is given",
            fix="covermap change BEFORE.tif AFTER.tif OUT.tif",
        )
    stated = [split_date(str(each)) for each in maps]
    paths = [path for path, _ in stated]
    places = [Path(path).resolve() for path in paths]
    if double := next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None):
        raise ConfigError(f"{double} is given twice", fix="name the map of another date")
    if len(legends) not in (0, 1, len(maps)):
        raise ConfigError(f"{len(legends)} legends for {len(maps)} maps", fix="give one for all, or one for each")
    named: list[str | None] = [*legends] * (len(maps) if len(legends) == 1 else 1) or [None] * len(maps)
    opened = [_open_one(path, legend) for path, legend in zip(paths, named, strict=True)]
    unknown = [each for each, legend in zip(opened, named, strict=True) if not legend and not _says(each)]
    if 0 < len(unknown) < len(opened):
        raise LabelError(
            f"{unknown[0].name} does not say what its codes mean, other maps do",
            fix="state the legend: --legend NAME (or a file), once for all maps or once for each",
        )
    dates = [date or each.date for (_, date), each in zip(stated, opened, strict=True)]
    _require_order(paths, dates)
    return opened, dates


def _says(one: ClassMap) -> bool:
    """Whether a map tells its legend itself."""
    return "COVERMAP_LEGEND" in one.tags


def _open_one(path: str, legend: str | None) -> ClassMap:
    """A map, by its numbers where nothing says what they mean; raises DataError for an image or a change map."""
    model = "map images first (covermap predict MODEL IMAGE map.tif), or find their change without labels: "
    model += "covermap event BEFORE AFTER OUT.tif --kind change"
    if Path(path).is_file():
        dataset = open_dataset(path)
        if dataset.count > 2:
            raise DataError(f"{path} has {dataset.count} bands: it is an image, not a map of classes", fix=model)
        if FROM_TO in dataset.tags():
            raise DataError(f"{path} is a change map already", fix="give the maps that it was made of")
    try:
        return open_class_map(path, legend=legend, infer=True)
    except LabelError as error:
        if "different values" in error.message or "no class codes" in error.message:
            raise DataError(f"{error.message}: if it is an image, it is not a map of classes", fix=model) from error
        raise


def _require_order(paths: Sequence[str], dates: Sequence[str | None]) -> None:
    """Raise ConfigError where the dates that are known do not rise."""
    known = [(path, date, parse_date(date)) for path, date in zip(paths, dates, strict=True) if date]
    for (path, date, span), (other, later, then) in pairwise(known):
        if span == then:
            raise ConfigError(
                f"{path} and {other} are both of {date}",
                fix="give maps of two dates, or state the right ones: A.tif@2018 B.tif@2022; two maps of one date are "
                "compared by: covermap compare",
            )
        if span > then:
            raise ConfigError(
                f"{path} is of {date}, after {other} of {later}", fix="give the maps in the order of their dates"
            )


def _accuracy(given: str | float) -> float:
    """A share, or the overall accuracy in a file that `assess` wrote; raises ConfigError."""
    try:
        value = float(given)
    except ValueError:
        try:
            value = float(json.loads(Path(str(given)).read_text(encoding="utf-8"))["overall"]["value"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{given!r} is neither a share nor the assessment of a map",
                fix="write 0.9, or name the assessment.json that covermap assess keeps beside the map of a run",
            ) from error
    if not 0 < value <= 1:
        raise ConfigError(f"an accuracy of {value:g}", fix="give a share between 0 and 1, such as 0.9")
    return value


def _folder(out: Path) -> Path:
    if out.suffix or out.is_file():
        raise ConfigError(
            f"{out} is no folder, three maps or more make several change maps", fix="name a folder: changes/"
        )
    return out


def _notes(opened: Sequence[ClassMap], dates: Sequence[str | None], *, by_number: bool) -> tuple[str, ...]:
    """What is to be known of the maps together."""
    found = []
    if by_number:
        found.append("no map says what its codes mean: the same number is taken for the same class")
    if None in dates:
        found.append("not every map has a date: they are taken to be in the order of time")
    contents = [each.tags.get("COVERMAP_CONTENT") for each in opened]
    if any(each and contents.count(each) > 1 for each in contents):
        found.append("two of the maps hold the very same pixels: is one a copy of the other?")
    return tuple(found)
