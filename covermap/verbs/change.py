"""`change`: what became what between maps of two or more dates (post-classification comparison).

    OUT.tif              code of each transition: 0 unchanged, or not what is asked for, 65535 nodata (core/from_to.py),
                         with all side files
    OUT.transitions.csv  pixels and hectares of each pair of classes (transitions.csv for a map called change.tif)
    OUT.matrix.csv       hectares: a row for each class before, a column for each after
    OUT.classes.csv      gains, losses, net change and swap of each class
    OUT.change.json      everything

Of three or more maps OUT is a folder: change_1_2.tif, change_2_3.tif, ... and, from the first to the last,
change_1_3.tif, each with these files; trajectories.csv has every sequence of classes, series.json how steady they are.

With probabilities there is P(change), and with a prior the classes of all dates are decided together. More files then:

    OUT_before.tif, OUT_after.tif  the classes that are compared, as maps (of more dates date_1.tif, date_2.tif, ...)
    OUT_probability.tif            probability of change in percent
    OUT.prior.csv                  the prior, shares of pairs of classes; --prior reads it (prior.csv for change.tif)
    OUT_maps/                      with a model: its maps of the images (of more dates maps/ in the folder)
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covermap.core.crosswalk import Crosswalk, read_crosswalk
from covermap.core.errors import ConfigError, OutputError
from covermap.core.notebook import told
from covermap.core.output import claim_with, no_empty, only_with, require_no_input, scratch, write_text
from covermap.core.parsing import parse_json
from covermap.core.progress import Tick, unseen
from covermap.core.run import plain
from covermap.core.table import Tables
from covermap.data.class_map import ClassMap, require_same_place
from covermap.data.one_legend import ways_to_one_legend
from covermap.geo.products import layer_beside, names_beside
from covermap.metrics.temporal import Violations
from covermap.verbs.change_joint import NO_PRIOR, Joint, PriorRule, decide_together, remove_decided
from covermap.verbs.change_maps import open_maps, says
from covermap.verbs.change_pair import before_decision, claimed, compare_pair, part_of
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.trajectories import Trajectories, contradictions, find_trajectories
from covermap.verbs.transitions import Change, ChangeProbability, Pair, sides, steps_of, table_beside

if TYPE_CHECKING:
    from covermap.verbs.change_model import MappedDates


@dataclass(frozen=True)
class Changes:
    """The change between neighbouring dates, then from the first to the last; with three dates or more also the
    sequences of classes, alone: those of the maps, where they were decided together. notes: of all. contradictions: of
    three dates, between the change maps of both steps and of the whole.
    """

    pairs: tuple[Change, ...]
    trajectories: Trajectories | None = None
    notes: tuple[str, ...] = ()
    more_files: tuple[Path, ...] = ()
    alone: Trajectories | None = None
    contradictions: Violations | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (*(file for pair in self.pairs for file in pair.files), *self.more_files)

    @property
    def tables(self) -> Tables:
        """Those of all pairs."""
        return Tables(table for pair in self.pairs for table in pair.tables)

    def _repr_html_(self) -> str:
        return "".join(pair._repr_html_() for pair in self.pairs) + told([], [], self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Of two maps as it stands in change.json, of more as in series.json."""
        if self.trajectories is None:
            found = self.pairs[0].to_dict()
            return {**found, "notes": [*self.notes, *found["notes"]], "files": [str(file) for file in self.files]}
        return {
            "pairs": [pair.to_dict() for pair in self.pairs], "trajectories": len(self.trajectories.counted),
            "rates": self.trajectories.rates, "not_everywhere_px": self.trajectories.num_lost,
            "contradictions": self.contradictions._asdict() if self.contradictions else None,
            "decision": self.pairs[0].decision, "notes": list(self.notes), "files": [str(file) for file in self.files],
        }  # fmt: skip


def change(
    maps: Sequence[str | Path], out: str | Path, *, legends: Sequence[str] = (), target: str | None = None,
    crosswalks: Sequence[str | Path] = (), rules: ChangeRules | None = None, accuracy: Sequence[str | float] = (),
    probabilities: bool = False, prior: str | None = None, model: str | Path | None = None,
    bands: Sequence[str] | None = None, overwrite: bool = False, on_progress: Tick = unseen,
) -> Changes:  # fmt: skip
    """Compare maps of classes in the order of time and write what became what.

    maps: files, or folders of the tiles of one; PATH@DATE states a date; images, if a model maps them. out: the map; of
    three or more a folder. legends: of maps that do not say theirs, one for all or one each. target, crosswalks: the
    legend to compare in, and ways of one's own, for maps of different legends. accuracy: overall accuracy of each map,
    a share or the assessment.json of `assess`. probabilities: read the layers beside the maps, for the probability of
    change; prior: by it the classes of all dates are decided together, see change_joint.PriorRule. Maps lie on the grid
    of the first by nearest neighbour. Memory: some windows of 2 million pixels; with rules.min_area strips of 4 million
    and about 50 bytes for each patch of change. Raises ConfigError, DataError, GridError (no overlap, no CRS on one
    side), LabelError, ModelError, OutputError.
    """
    rules, out = rules or ChangeRules(), Path(out)
    _require_probabilities(rules, prior, probabilities=probabilities or model is not None)
    shares, own = _accuracies(accuracy, len(maps)), [read_crosswalk(path) for path in crosswalks]
    files = _Files.of(out, len(maps))
    _require_images(legends, bands, of_model=model is not None)
    mapped: MappedDates | None = None
    if model is not None:
        from covermap.verbs.change_model import dates_to_map  # brings torch along, which maps need not

        planned = dates_to_map(model, maps, out, rules, prior, target=target, own=own, bands=bands)
        with no_empty(planned.folder, planned.folder.parent):
            files.claim(planned.paths, joint=True, overwrite=overwrite)  # of OUT_maps predict does so
            mapped = planned.map(overwrite=overwrite, on_progress=part_of(on_progress, 1, 2))
        on_progress = part_of(on_progress, 2, 2)
        maps, probabilities = mapped.maps, mapped.probability is None
    pairs, notes = _pairs(maps, legends, target, own, rules)
    if mapped is not None:
        pairs, notes = _of_images(pairs, mapped), (*notes, *mapped.notes)
    joint = None
    if probabilities:
        forbidden = rules.forbidden(pairs[0].legend)
        joint = Joint.of(pairs, PriorRule(prior or NO_PRIOR), forbidden, rules.tolerance)
    files.claim(_inputs(pairs, prior), joint=joint is not None, overwrite=overwrite)
    done = _compare(pairs, files, rules, joint, shares, overwrite=overwrite, on_progress=on_progress)
    found = replace(done, notes=(*notes, *done.notes), more_files=(*done.more_files, *(mapped.files if mapped else ())))
    if files.series is not None:
        write_text(files.series, json.dumps(plain(found.to_dict()), indent=2) + "\n")
    if mapped is not None:
        mapped.close()
    return found


def _of_images(pairs: Sequence[Pair], mapped: MappedDates) -> list[Pair]:
    """Pairs of maps by a model, with the images they are of and its own probability of change."""
    layer = ChangeProbability(mapped.probability) if mapped.probability else None
    names, steps = mapped.images, steps_of(len(mapped.images))
    return [
        replace(pair, probability=layer, images=(names[i], names[j])) for pair, (i, j) in zip(pairs, steps, strict=True)
    ]


@dataclass(frozen=True)
class _Files:
    """Where everything goes. changes: a map of each pair. dates: the maps that are decided together."""

    changes: tuple[Path, ...]
    dates: tuple[Path, ...]
    trajectories: Path | None = None
    series: Path | None = None

    @staticmethod
    def of(out: Path, num_dates: int) -> _Files:
        if num_dates <= 2:
            if out.is_dir():
                raise OutputError(
                    f"{out} is a folder, the change between two dates is a map", fix=f"name it: {out / 'change.tif'}"
                )
            return _Files((out,), (layer_beside(out, "before"), layer_beside(out, "after")))
        if out.suffix or out.is_file():
            raise ConfigError(
                f"{out} is no folder, three maps or more make several change maps", fix="name a folder: changes/"
            )
        return _Files(
            tuple(out / f"change_{a + 1}_{b + 1}.tif" for a, b in steps_of(num_dates)),
            tuple(out / f"date_{number}.tif" for number in range(1, num_dates + 1)),
            out / "trajectories.csv", out / "series.json",
        )  # fmt: skip

    @property
    def priors(self) -> tuple[Path, ...]:
        """A table of each step."""
        return tuple(table_beside(each, "prior") for each in self.changes[: len(self.dates) - 1])

    def claim(self, inputs: Sequence[str | Path], *, joint: bool, overwrite: bool) -> None:
        """Check before any work that all may be written, and no input is; raises OutputError."""
        own = [path for path in (self.trajectories, self.series) if path]
        changes = {out: claimed(out)[1:] for out in self.changes}
        if joint:
            own += [path for date in self.dates for path in (date, *names_beside(date).values())]
            own += self.priors
        require_no_input([*own, *changes, *(path for each in changes.values() for path in each)], inputs)
        claim_with(self.changes[0], own, overwrite=overwrite)
        for out, beside in changes.items():
            claim_with(out, beside, overwrite=overwrite)


def _compare(
    pairs: Sequence[Pair], files: _Files, rules: ChangeRules, joint: Joint | None,
    accuracies: Sequence[float], *, overwrite: bool, on_progress: Tick,
) -> Changes:  # fmt: skip
    """The change map of each pair and, of three dates or more, the sequences."""
    forbidden, parts = rules.forbidden(pairs[0].legend), len(pairs) + (joint is not None) + 1
    steps = steps_of(len(files.dates))
    alone, found, notes, made, more = None, None, list[str](), list[Change](), list[Path]()
    decision: dict[str, Any] | None = None
    before = [before_decision(pair) if joint else None for pair in pairs]
    with scratch(files.changes[0]) as folder:
        if joint is not None:
            alone = None if joint.apart else find_trajectories(*_maps_and_ways(pairs), forbidden)
            joint = decide_together(joint, files.dates, folder, on_progress=part_of(on_progress, 1, parts))
            pairs, more, notes = joint.pairs, [*joint.files, *files.priors], joint.notes(rules.confidence)
            told = {"maps": files.dates, "prior_tables": files.priors}
            decision = {key: [*map(str, paths)] for key, paths in told.items()}
            decision |= {**joint.to_dict(), **({"alone": alone.rates} if alone else {})}
            for path, prior in zip(files.priors, joint.priors, strict=True):
                write_text(path, prior.csv(joint.legend))
        with only_with(*more):
            for number, (pair, path, step) in enumerate(zip(pairs, files.changes, steps, strict=True)):
                of = (accuracies[step[0]], accuracies[step[1]]) if accuracies else None
                tick = part_of(on_progress, number + 1 + (joint is not None), parts)
                one = compare_pair(
                    pair, path, rules, accuracy=of, decision=decision, alone=before[number],
                    on_progress=tick,
                )  # fmt: skip
                made.append(one)
            if files.trajectories is not None:
                last = part_of(on_progress, parts, parts)
                found = find_trajectories(*_maps_and_ways(pairs), forbidden, on_progress=last)
                write_text(files.trajectories, found.csv)
                more += [path for path in (files.trajectories, files.series) if path]
    if joint is None and overwrite:
        remove_decided(files.dates, files.priors, _inputs(pairs, None))
    logic = contradictions(files.changes[:2], files.changes[2]) if len(files.dates) == 3 else None
    return Changes(tuple(made), found, tuple(notes), tuple(more), alone, logic)


def _inputs(pairs: Sequence[Pair], prior: str | None) -> list[Path]:
    """What is read: maps with their layers of probabilities, and a prior that is a file."""
    maps = [Path(file) for side in sides(pairs) for file in side.map.files]
    return [*maps, *(layer_beside(path, "probs") for path in maps), *([Path(prior)] if prior else [])]


def _maps_and_ways(pairs: Sequence[Pair]) -> tuple[list[ClassMap], list[Crosswalk]]:
    of = sides(pairs)
    return [side.map for side in of], [side.way for side in of]


def _pairs(
    maps: Sequence[str | Path], legends: Sequence[str], target: str | None, crosswalks: Sequence[Crosswalk],
    rules: ChangeRules,
) -> tuple[list[Pair], tuple[str, ...]]:  # fmt: skip
    """Neighbouring dates, then from the first to the last, in one legend; and what is to be known of the maps."""
    opened, dates = open_maps(maps, legends)
    ways = ways_to_one_legend(opened, target=target, own=crosswalks)
    merging = rules.merged(ways[0].target)
    ways = [way.then(merging) if rules.merge else way for way in ways]
    rules.asked(ways[0].target), rules.forbidden(ways[0].target)  # unknown classes are named before any work
    for other in opened[1:]:
        require_same_place(opened[0], other)
    pairs = [Pair(opened[i], opened[j], ways[i], ways[j], (dates[i], dates[j])) for i, j in steps_of(len(opened))]
    return pairs, _notes(opened, dates, by_number=not legends and not any(map(says, opened)))


def _require_probabilities(rules: ChangeRules, prior: str | None, *, probabilities: bool) -> None:
    """Raise ConfigError for what needs probabilities, where there are none."""
    odd = {"a prior": prior, "a confidence": rules.confidence}
    if not probabilities and (idle := [name for name, given in odd.items() if given is not None]):
        raise ConfigError(
            f"{idle[0]} is of probabilities, here maps are compared as they are",
            fix="add --probabilities (of maps by: covermap predict MODEL IMAGE MAP.tif --probabilities), or --model",
        )


def _require_images(legends: Sequence[str], bands: Sequence[str] | None, *, of_model: bool) -> None:
    """Raise ConfigError for what is of maps where a model maps images, or the other way round."""
    if of_model and legends:
        raise ConfigError("--legend does not go with --model: its maps are of its own legend", fix="leave it out")
    if bands and not of_model:
        raise ConfigError("--bands are of images that a model maps", fix="name the model: --model, or leave them out")


def _accuracies(given: Sequence[str | float], num_maps: int) -> list[float]:
    """One for each map, or none."""
    if given and len(given) != num_maps:
        raise ConfigError(
            f"{len(given)} {'accuracy' if len(given) == 1 else 'accuracies'} for {num_maps} maps",
            fix="give one for each map, with commas: 0.9,0.85 or a/assessment.json,b/assessment.json",
        )
    return [_accuracy(each) for each in given]


def _accuracy(given: str | float) -> float:
    """A share, or the overall accuracy in a file that `assess` wrote; raises ConfigError."""
    try:
        value = float(given)
    except ValueError:
        if not Path(str(given)).is_file():
            raise ConfigError(
                f"{given!r} is no share, and there is no such file",
                fix="write shares with commas, 0.9,0.85, or name the assessment.json of each map by covermap assess",
            ) from None
        try:
            value = float(parse_json(Path(str(given)).read_text(encoding="utf-8"))["overall"]["value"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{given!r} is neither a share nor the assessment of a map",
                fix="write 0.9, or name the assessment.json that covermap assess keeps beside the map of a run",
            ) from error
    if not 0 < value <= 1:
        raise ConfigError(f"an accuracy of {value:g}", fix="give a share between 0 and 1, such as 0.9")
    return value


def _is_copied(opened: Sequence[ClassMap]) -> bool:
    """Whether two maps that are one file each have the same bytes."""
    files = [each.files[0] for each in opened if len(each.files) == 1]
    local = [file for file in files if Path(file).is_file()]
    return any(filecmp.cmp(one, other, shallow=False) for one, other in combinations(local, 2))


def _notes(opened: Sequence[ClassMap], dates: Sequence[str | None], *, by_number: bool) -> tuple[str, ...]:
    """What is to be known of the maps together."""
    found = [note for each in opened for note in each.notes]
    if by_number:
        found.append("no map says what its codes mean: the same number is taken for the same class")
    if None in dates:
        found.append("not every map has a date: they are taken to be in the order of time")
    contents = [each.tags.get("COVERMAP_CONTENT") for each in opened]
    if any(each and contents.count(each) > 1 for each in contents) or _is_copied(opened):
        found.append("two of the maps hold the very same pixels: is one a copy of the other?")
    return tuple(found)
