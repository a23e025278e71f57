"""What a run holds, read once, as all sections of the page take it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from covermap.card import ModelCard
from covermap.core.errors import CovermapError
from covermap.core.from_to import CHANGE
from covermap.core.legend import PALETTE, Legend
from covermap.core.run import Run
from covermap.core.task import KINDS, SIAMESE
from covermap.data.reference import with_reference
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import Split
from covermap.geo import pictures
from covermap.models import read_card
from covermap.report import scene_pictures
from covermap.report.areas import Assessment, assessments_of
from covermap.report.changes import Comparison, comparisons_of
from covermap.report.doubts import find_doubts

MAX_SCENES = 3
"""Scenes shown as pictures; tables count all of them."""
OVERVIEW_PX = 560
_WHEN = ("before", "after")


@dataclass
class Pieces:
    """What a run holds, read once; `problem` says why its data could not be opened."""

    run: Run
    problem: str = ""
    scenes: list[Scene] = field(default_factory=list)
    shown: dict[tuple[str, int], pictures.Composite] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.scenes, _ = with_reference(open_scenes(self.run.config.data), self.run.config)
        except CovermapError as error:
            self.problem = error.message
        self.metrics: dict[str, Any] | None = read_json(self.run, "metrics.json") or read_json(
            self.run, "metrics_val.json"
        )
        self.log = self.run.read_log()
        self.split = Split.load(self.run.path("split.csv")) if self.run.path("split.csv").is_file() else None
        has_model = self.run.path("model/config.json").is_file()
        self.card: ModelCard | None = read_card(self.run.path("model")) if has_model else None

    @cached_property
    def legend(self) -> Legend | None:
        """The classes of the model, or of the data where there is none yet."""
        mine = self.scenes[0].legend if self.scenes else None
        return self.card.legend if self.card else mine

    @property
    def maps_classes(self) -> bool:
        """Whether maps are of classes, pixel by pixel: others are not shown as pictures."""
        kind = KINDS[self.task]
        return self.card is None or (kind.takes in ("classes", "transitions") and not kind.chips)

    @property
    def task(self) -> str:
        """Its name."""
        return self.card.task.name if self.card else self.run.config.task_section.name

    @property
    def is_pair_of_maps(self) -> bool:
        """Whether the model maps both of two dates."""
        return KINDS[self.task].takes == "transitions"

    @property
    def dates(self) -> tuple[int, ...]:
        """Numbers of the dates whose images are shown: both where change is told, else the first."""
        return (0, 1) if self.task in SIAMESE else (0,)

    @cached_property
    def colours(self) -> dict[str, str]:
        """One colour for each class name, written anew from its numbers so that nothing else gets into the page."""
        if self.legend is not None:
            more = CHANGE.classes if self.is_pair_of_maps else ()
            found = {c.name: "#{:02x}{:02x}{:02x}".format(*c.rgb) for c in (*more, *self.legend.classes)}
            return found | {f"{name}, {when}": found[name] for name in self.legend.names for when in _WHEN if more}
        names = self.metrics["classes"] if self.metrics else []
        return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}

    @cached_property
    def doubts(self) -> list[str]:
        of_change = {name for one in self.comparisons for name in one.files}
        found = find_doubts(
            self.run.config,
            split=self.split,
            notes=read_json(self.run, "notes.json") or [],
            metrics=self.metrics,
            log=self.log,
            chosen_epoch=self.chosen_epoch,
            areas={
                one.map: one.found["areas"] for one in self.assessments if one.is_current and one.map not in of_change
            },
            changes=self.comparisons,
        )
        return ([f"The data of this run cannot be opened: {self.problem}."] if self.problem else []) + found

    @property
    def chosen_epoch(self) -> int | None:
        return self.card.facts.get("epoch") if self.card else None

    @property
    def shown_part(self) -> str:
        """The part that examples are taken from: that of the scores, else test."""
        return self.metrics["part"] if self.metrics else "test"

    def composite(self, scene: Scene, date: int = 0) -> pictures.Composite:
        """How a scene is shown on a date; its overview is read once."""
        if (scene.name, date) not in self.shown:
            self.shown[scene.name, date] = scene_pictures.composite(scene, self.overview_px, date)
        return self.shown[scene.name, date]

    @property
    def overview_px(self) -> int:
        return OVERVIEW_PX if len(self.scenes) == 1 else OVERVIEW_PX * 3 // 4

    @cached_property
    def assessments(self) -> list[Assessment]:
        """What samples say of the run's maps."""
        return assessments_of(self.run)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """What `change` says of the run's maps."""
        return comparisons_of(self.run, self.assessments)

    def map_path(self, scene: Scene) -> Path | None:
        """The map of a scene, or None."""
        path = self.run.map_path(scene.name, len(self.scenes))
        return path if path.is_file() else None


def read_json(run: Run, name: str) -> Any:
    """What a file of a run holds; None where it is not there."""
    return run.read_json(name) if run.path(name).is_file() else None
