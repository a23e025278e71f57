"""Networks from the names and options of their parts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights

from covermap.core.errors import ConfigError, CovermapError, DataError, suggest
from covermap.core.registry import find
from covermap.core.types import InputSpec
from covermap.nn.dates import MergeDates
from covermap.nn.heads import Pool
from covermap.nn.hybrid import Extra, Hybrid
from covermap.nn.model import Backbone, Model, PixelExpert
from covermap.nn.necks import make_neck
from covermap.nn.own import is_own, load_backbone
from covermap.nn.products import use_wide_products
from covermap.nn.siamese import Compare, Siamese, pixel_experts

Weights = str | Path | Mapping[str, Path] | None
"""Files that backbones start from; of several backbones by their names."""


def build_model(
    spec: InputSpec,
    num_classes: int,
    *,
    backbone: str | Callable[..., Backbone] = "unet",
    decoder: str = "unet",
    backbone_options: Mapping[str, Any] | None = None,
    decoder_options: Mapping[str, Any] | None = None,
    dates: str | None = None,
    neck: str = "auto",
    pixel_width: int = 0,
    extra: Mapping[str, Any] | None = None,
    pool: str | None = None,
    siamese: bool = False,
    weights: Weights = None,
) -> Model:
    """A model by the names of its parts. weights: the published file that the backbone starts from.

    backbone: a name, or several as one+other (Hybrid); options and weights are then {name: options}, {name: file}.
    neck: auto, pyramid, interpolate or none, between a backbone of one stride and a decoder that needs several.
    dates: how the features of several dates become one (mean, max, concat, difference, attention; default: mean).
    pixel_width > 0 adds a PixelExpert. extra: a trained network whose features are added, as {input, num_classes,
    build}. pool: mean, max or lse, for one answer of a window as a whole. siamese: two dates through one backbone
    (nn/siamese.py); num_classes is then 2 (unchanged, changed), or 2 K + 2 for K classes.
    Raises ConfigError for unknown names and settings without effect.
    """
    if siamese:
        if spec.num_dates != 2:
            raise DataError(f"the data has {spec.num_dates} dates, change needs two", fix="name an image for each date")
        if extra or pool:
            raise ConfigError(f"model.{'extra' if extra else 'pool'} does not go with change", fix="leave it out")
        parts = decoder, decoder_options, neck
        encoder = make_backbone(backbone, spec.one_date(), backbone_options, weights=weights)
        return _build_siamese(encoder, spec, num_classes, parts, dates or "difference", pixel_width)
    encoder = make_backbone(backbone, spec, backbone_options, weights=weights)
    merge = _merge(encoder, spec, dates, backbone)
    channels = tuple(c * merge.factor for c in encoder.channels) if merge else encoder.channels
    kind, pair = find("decoder", decoder), f"{getattr(backbone, '__name__', backbone)} with {decoder}"
    between = make_neck(neck, channels, encoder.strides, pyramid=kind.pyramid, min_maps=kind.min_maps, pair=pair)
    inputs = (between.channels, between.strides) if between else (channels, encoder.strides)
    head = make_part("decoder", decoder, decoder_options, *inputs, num_classes)
    if between:
        between.keep(head.uses(len(between.strides)))
    if pool and head.has_own_loss:
        raise ConfigError(
            f"decoder {decoder} is trained on maps, by a loss of its own: it gives no answer of a chip as a whole",
            fix="use decoder: linear",
        )
    if pixel_width and any(entry.optional for entry in spec.sensors):
        raise ConfigError("model.pixel_width needs every sensor in every window", fix="set it to 0")
    pixel = PixelExpert(spec, num_classes, width=pixel_width) if pixel_width else None
    earlier = None
    if extra:
        network = build_model(InputSpec.from_dict(extra["input"]), extra["num_classes"], **extra["build"])
        earlier = Extra(network, spec, *inputs, reads=head.uses(len(inputs[1])))
    return Model(
        encoder, head, spec, merge=merge, neck=between, pixel=pixel, extra=earlier, pool=Pool(pool) if pool else None
    )


def _build_siamese(
    encoder: Backbone, spec: InputSpec, num_classes: int, parts: tuple[str, Mapping[str, Any] | None, str], dates: str,
    pixel_width: int,
) -> Siamese:  # fmt: skip
    """A network of two dates of which the encoder is there already."""
    decoder, options, neck = parts
    kind, pair = find("decoder", decoder), f"a siamese network with {decoder}"
    if kind.has_own_loss:
        raise ConfigError(f"decoder {decoder} has a loss of its own, which knows no change", fix="use decoder: unet")
    between = make_neck(
        neck, encoder.channels, encoder.strides, pyramid=kind.pyramid, min_maps=kind.min_maps, pair=pair
    )
    channels, strides = (between.channels, between.strides) if between else (encoder.channels, encoder.strides)
    semantic = num_classes // 2 - 1
    head = make_part("decoder", decoder, options, tuple(c * (1 + (dates == "concat")) for c in channels), strides, 2)
    compare = Compare(dates, channels, head.uses(len(strides)))
    classes = make_part("decoder", decoder, options, channels, strides, semantic) if semantic else None
    if between:
        between.keep(head.uses(len(strides)))
    pixel, own = (
        pixel_experts(spec, semantic, width=pixel_width, semantic=semantic > 0) if pixel_width else (None, None)
    )
    return Siamese(
        encoder, head, spec, compare=compare, semantic=classes, neck=between, pixel=pixel, semantic_pixel=own
    )


def make_backbone(
    name: str | Callable[..., Backbone],
    spec: InputSpec,
    options: Mapping[str, Any] | None = None,
    *,
    weights: Weights = None,
) -> Backbone:
    """A backbone by name for an input spec, with published weights or random ones.

    Raises ConfigError, BandError, DataError for too many dates, ModelError for weights that do not fit.
    """
    use_wide_products()
    if len(backbone_names(name)) > 1:
        return _make_hybrid(str(name), spec, options or {}, weights)
    if isinstance(weights, Mapping):
        weights = weights.get(str(name))
    kind = find("backbone", name)
    if spec.num_dates > kind.max_dates and kind.dates != "one":
        raise DataError(
            f"the data has {spec.num_dates} dates, {name} takes at most {kind.max_dates}",
            fix="leave dates out, or use a backbone that takes one at a time: covermap models list",
        )
    # With weights to come, parameters take no memory and no time to fill with random numbers.
    with init_empty_weights(include_buffers=False) if weights else nullcontext():
        encoder: Backbone = make_part("backbone", name, options, spec.one_date() if kind.dates == "one" else spec)
    if weights:
        own = is_own(weights)
        encoder.reports = [
            load_backbone(encoder, weights, [e.sensor for e in spec.sensors]) if own else encoder.load(weights)
        ]
        empty = [key for key, value in encoder.named_parameters() if value.is_meta]
        assert not empty, f"{name}: load() left {empty[:3]} without values"
    encoder.trim()
    return encoder


def backbone_names(name: str | Callable[..., Any]) -> list[str | Callable[..., Any]]:
    """The names in one+other; a class or a single name by itself."""
    return [part.strip() for part in name.split("+")] if isinstance(name, str) else [name]


def _make_hybrid(name: str, spec: InputSpec, options: Mapping[str, Any], weights: Weights) -> Hybrid:
    names = [str(part) for part in backbone_names(name)]
    if len(set(names)) < len(names) or "" in names:
        raise ConfigError(f"model.backbone: {name} does not name different backbones", fix="write one+other")
    wrong = [key for key, value in options.items() if key not in names or not isinstance(value, Mapping)]
    if wrong:
        raise ConfigError(
            f"model.backbone_options: {wrong[0]!r} belongs to none of {', '.join(names)}",
            fix=f"write {{{names[0]}: {{option: value}}}}",
        )
    if isinstance(weights, str | Path):
        raise ConfigError(
            f"model.weights: {weights} is one file for {len(names)} backbones", fix="use weights: auto or none"
        )
    return Hybrid({n: make_backbone(n, spec, options.get(n), weights=weights) for n in names}, spec.num_dates)


def _merge(encoder: Backbone, spec: InputSpec, dates: str | None, name: object) -> MergeDates | None:
    if spec.num_dates > 1 and encoder.dates != "all":
        return MergeDates(dates or "mean", spec.num_dates, encoder.channels)
    if dates is not None:
        why = "the data has one date" if spec.num_dates == 1 else f"{name} joins the dates itself"
        raise ConfigError(f"model.dates: {dates} has no effect: {why}", fix="leave it out")
    return None


def make_part(kind: str, name: str | Callable[..., Any], options: Mapping[str, Any] | None, *arguments: Any) -> Any:
    """A registered backbone, decoder or loss with the config's options; raises ConfigError when they do not fit."""
    maker = find(kind, name)
    try:
        return maker(*arguments, **(options or {}))
    except CovermapError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, ZeroDivisionError) as error:
        unknown = next((option for option in options or {} if f"keyword argument '{option}'" in str(error)), None)
        if unknown:
            raise _no_option(kind, name, unknown, maker) from error
        section = "train" if kind == "loss" else "model"
        raise ConfigError(f"{kind} {name}: {error}", fix=f"check {section}.{kind}_options") from error


def require_options(kind: str, name: str | Callable[..., Any], options: Mapping[str, Any] | None) -> None:
    """Raise ConfigError for an option of a part that its signature does not have; nothing is built."""
    maker = find(kind, name)
    takes = _arguments(maker)
    anything = not inspect.isclass(getattr(maker, "kind", maker)) and any(one.kind is one.VAR_KEYWORD for one in takes)
    for option in options or {}:
        if not anything and option not in {each.name for each in takes}:
            raise _no_option(kind, name, option, maker)


def _no_option(kind: str, name: object, option: str, maker: Callable[..., Any]) -> ConfigError:
    place = f"{'train' if kind == 'loss' else 'model'}.{kind}_options"
    return ConfigError(
        f"{kind} {name} has no option {option!r} ({place})",
        fix=f"{suggest(option, _options_of(maker))}; where the options are those of another {kind}, set {place}: {{}}",
    )


def _options_of(maker: Callable[..., Any]) -> set[str]:
    """Arguments with a default, but for those that the name stands for."""
    named = {each.name for each in _arguments(maker) if each.default is not each.empty}
    return named - set(getattr(maker, "sizes", ()))


def _arguments(maker: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those of a class and of the classes that it passes the rest on to."""
    kind = getattr(maker, "kind", maker)
    makers = inspect.getmro(kind)[:-1] if inspect.isclass(kind) else [kind]
    return [argument for each in makers for argument in inspect.signature(each).parameters.values()]
