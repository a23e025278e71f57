"""Images of several dates -> the maps that `change` compares, by a model of classes or of semantic change."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from covermap.card import ModelCard
from covermap.core.config import ImageConfig
from covermap.core.crosswalk import Crosswalk
from covermap.core.errors import ConfigError, ModelError, OutputError
from covermap.core.progress import Tick, unseen
from covermap.core.train_config import PredictConfig
from covermap.data.class_map import require_same_ground
from covermap.data.one_legend import legend_to_compare_in
from covermap.geo.patches import MappingUnit
from covermap.geo.products import layer_beside
from covermap.hub import model_folder
from covermap.infer import open_for
from covermap.models import read_card
from covermap.verbs.change_joint import NO_PRIOR, PriorRule
from covermap.verbs.change_maps import require_dates, require_order
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.map_job import work_beside
from covermap.verbs.predict import predict_dates

SEMANTIC = "semantic_change"
_OF_PREDICT = "no STAC item was written"
"""A note whose remedy is an option of predict; change says the same with its own."""
_FITTING = {
    "change": "map the change: covermap predict {model} {first} OUT.tif --add {sensor}={second}",
    "hazard": "map what was hit: covermap event {first} {second} OUT.tif --model {model}",
}


@dataclass(frozen=True)
class MappedDates:
    """A map of each date, PATH@DATE where it was stated, and the image that it is of; probability: the layer of
    P(change) of a model that decides both dates itself.
    """

    maps: tuple[str, ...]
    images: tuple[str, ...]
    probability: Path | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    works: tuple[Path, ...]

    def close(self) -> None:
        """Forget that the maps are there: a call that fails before is gone on with by the next one."""
        for work in self.works:
            shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class DatesToMap:
    """Images that fit a model and each other. groups: those of a map. outs: the maps that `predict` writes of them."""

    model: Path
    paths: tuple[str, ...]
    groups: tuple[tuple[ImageConfig, ...], ...]
    outs: tuple[Path, ...]
    semantic: bool

    @property
    def folder(self) -> Path:
        return self.outs[0].parent

    def map(self, *, overwrite: bool = False, on_progress: Tick = unseen) -> MappedDates:
        """Write date_1.tif, date_2.tif, ... as `predict` does, with probabilities where they are used.

        An interrupted call is continued by the same one, and maps that are finished stay until `close`. Raises as
        `predict`.
        """
        settings = PredictConfig(probabilities=not self.semantic)
        done = predict_dates(
            self.model, self.groups, self.outs, settings=settings, overwrite=overwrite, keep=True,
            on_progress=on_progress,
        )  # fmt: skip
        maps = (layer_beside(self.outs[0], "before"), self.outs[0]) if self.semantic else self.outs
        dates = [image.date for group in self.groups for image in group]
        return MappedDates(
            tuple(f"{path}@{date}" if date else str(path) for path, date in zip(maps, dates, strict=True)), self.paths,
            layer_beside(self.outs[0], "change") if self.semantic else None,
            tuple(file for one in done for file in one.files),
            tuple(dict.fromkeys(note for one in done for note in one.notes if not note.startswith(_OF_PREDICT))),
            tuple(map(work_beside, self.outs)),
        )  # fmt: skip


def maps_folder(out: Path, num_dates: int) -> Path:
    """Where maps of images lie: in the folder of a series, else in one beside the change map."""
    return out.with_name(f"{out.stem}_maps") if num_dates == 2 else out / "maps"


def dates_to_map(
    model: str | Path, given: Sequence[str | Path], out: Path, rules: ChangeRules, prior: str | None = None, *,
    target: str | None = None, own: Sequence[Crosswalk] = (), bands: Sequence[str] | None = None,
) -> DatesToMap:  # fmt: skip
    """The images, after all is refused that can be before one is mapped.

    given: images, PATH@DATE states a date. rules, prior, target, own: what is asked of the maps. Raises ConfigError,
    ModelError, LabelError, GridError, OutputError, and as opening images does.
    """
    stated = require_dates([str(each) for each in given], "images")
    where = model_folder(model)
    card = read_card(where)
    paths = [path for path, _ in stated]
    _require_classes(card, model, paths)
    semantic = card.task.name == SEMANTIC
    goal = rules.merged(legend_to_compare_in(card.legend, target=target, own=own)).target
    rules.asked(goal), rules.forbidden(goal), PriorRule(prior or NO_PRIOR).read(goal)
    if semantic and prior is not None:
        raise ConfigError(f"{model} decides both dates itself: a prior has no effect", fix="leave --prior out")
    folder = maps_folder(out, len(paths))
    if semantic and len(paths) > 2:
        raise ConfigError(
            f"{model} tells change between two dates, {len(paths)} images are given",
            fix="map each step by a call of its own",
        )
    if folder.is_file():
        raise OutputError(
            f"{folder} is a file: the maps of the images go into a folder of that name",
            fix=f"move it, or choose another name than {out.name}",
        )
    images = tuple(ImageConfig(path=path, date=date, bands=[*bands] if bands else None) for path, date in stated)
    groups = (images,) if semantic else tuple((image,) for image in images)
    _require_place(card, groups, paths, rules)
    numbers = (2,) if semantic else range(1, len(images) + 1)
    return DatesToMap(where, tuple(paths), groups, tuple(folder / f"date_{number}.tif" for number in numbers), semantic)


def _require_place(
    card: ModelCard, groups: Sequence[Sequence[ImageConfig]], paths: Sequence[str], rules: ChangeRules
) -> None:  # fmt: skip
    """Raise where images do not fit the model, do not overlap, are in disorder, or have too large pixels."""
    scenes = [open_for(card.spec, group, any_gsd=False) for group in groups]
    first = scenes[0].grid
    if len(scenes) > 1:  # where both dates are one scene, opening it looks at their ground, and predict at their order
        for scene, path in zip(scenes[1:], paths[1:], strict=True):
            require_same_ground(first, paths[0], scene.grid, path)
        require_order(paths, [next(filter(None, scene.dates), None) for scene in scenes], "images")
    if rules.min_area:
        MappingUnit.parse(rules.min_area).on(first)


def _require_classes(card: ModelCard, model: str | Path, paths: Sequence[str]) -> None:
    """Raise ModelError for a model whose answers are no map of classes of a date, with the verb that fits."""
    if card.task.name in ("segmentation", SEMANTIC):
        return
    fitting = _FITTING.get(card.task.name)
    if card.task.kind.chips:
        fix = f"map each date: covermap predict {model} {paths[0]} chips.csv"
    elif fitting:
        sensor = card.spec.sensors[0].sensor
        fix = fitting.format(model=model, first=paths[0], second=paths[1], sensor=sensor)
    else:
        fix = f"map each date: covermap predict {model} {paths[0]} OUT.tif"
    raise ModelError(
        f"{model} was trained for {card.task.name}: change takes a model of segmentation or of {SEMANTIC}",
        fix=fix,
    )
