"""Images of several dates -> the maps that `change` compares, by a model of classes or of semantic change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from covermap.card import ModelCard
from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, ModelError
from covermap.core.progress import Tick, unseen
from covermap.core.train_config import PredictConfig
from covermap.geo.products import layer_beside
from covermap.hub import model_folder
from covermap.models import read_card
from covermap.verbs.change_joint import NO_PRIOR, PriorRule
from covermap.verbs.change_maps import require_dates
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.predict import predict_dates

SEMANTIC = "semantic_change"
_FITTING = {
    "change": "map the change: covermap predict {model} {first} OUT.tif --add {sensor}={second}",
    "hazard": "map what was hit: covermap event {first} {second} OUT.tif --model {model}",
}


@dataclass(frozen=True)
class MappedDates:
    """A map of each date; probability: the layer of P(change) of a model that decides both dates itself."""

    maps: tuple[Path, ...]
    probability: Path | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def maps_folder(out: Path, num_dates: int) -> Path:
    """Where maps of images lie: in the folder of a series, else in one beside the change map."""
    return out.with_name(f"{out.stem}_maps") if num_dates == 2 else out / "maps"


def map_dates(
    model: str | Path, given: Sequence[str | Path], out: Path, rules: ChangeRules, prior: str | None = None, *,
    own_legend: bool = True, overwrite: bool = False, on_progress: Tick = unseen,
) -> MappedDates:  # fmt: skip
    """Write date_1.tif, date_2.tif, ... into `maps_folder` as `predict` does, with probabilities where they are used.

    given: images, PATH@DATE states a date. rules, prior: what is asked of the maps, refused before any work where they
    are to be compared in the model's own legend. An interrupted call is continued by the same one. Raises ConfigError,
    ModelError, and as `predict`.
    """
    stated = require_dates([str(each) for each in given], "images")
    where = model_folder(model)
    card = read_card(where)
    _require_classes(card, model, [path for path, _ in stated])
    semantic = card.task.name == SEMANTIC
    if own_legend:
        goal = rules.merged(card.legend).target
        rules.asked(goal), rules.forbidden(goal), PriorRule(prior or NO_PRIOR).read(goal)
    if semantic and prior is not None:
        raise ConfigError(f"{model} decides both dates itself: a prior has no effect", fix="leave --prior out")
    images = [ImageConfig(path=path, date=date) for path, date in stated]
    folder = maps_folder(out, len(images))
    if semantic and len(images) > 2:
        raise ConfigError(
            f"{model} tells change between two dates, {len(images)} images are given",
            fix="map each step by a call of its own",
        )
    groups = [images] if semantic else [[image] for image in images]
    outs = [folder / f"date_{number}.tif" for number in ((2,) if semantic else range(1, len(images) + 1))]
    settings = PredictConfig(probabilities=not semantic)
    done = predict_dates(where, groups, outs, settings=settings, overwrite=overwrite, on_progress=on_progress)
    files = tuple(file for one in done for file in one.files)
    notes = tuple(dict.fromkeys(note for one in done for note in one.notes))
    if not semantic:
        return MappedDates(tuple(outs), None, files, notes)
    maps = layer_beside(outs[0], "before"), outs[0]
    return MappedDates(maps, layer_beside(outs[0], "change"), files, notes)


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
