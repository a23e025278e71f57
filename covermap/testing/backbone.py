"""What every backbone must keep: any size, any number of dates, missing data, frozen or trained."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor

from covermap.core.errors import BandError, ConfigError, DataError
from covermap.core.legend import load_legend
from covermap.core.registry import find
from covermap.core.sensors import SENSORS
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.models import NetworkModel
from covermap.nn.build import build_model, make_backbone
from covermap.nn.layers import channels_last
from covermap.nn.model import Backbone, Model
from covermap.nn.published import Modality
from covermap.testing.outcome import Outcome, require, run_checks

MAX_PARAMETERS = 700_000_000
"""Larger ones are not run: they would not fit into the memory of an ordinary machine."""


@dataclass(frozen=True)
class Case:
    """A backbone by name with options, an input spec that suits it, the settings of the process before it was found."""

    name: str | Callable[..., Backbone]
    spec: InputSpec
    options: Mapping[str, Any]
    before: Mapping[str, Any]

    def backbone(self, spec: InputSpec | None = None) -> Backbone:
        """The same one each time, in evaluation mode."""
        torch.manual_seed(0)
        return make_backbone(self.name, spec or self.spec, self.options).eval()

    def model(self, spec: InputSpec | None = None, *, decoder: str = "linear", dates: str | None = None) -> Model:
        """With a decoder for three classes."""
        torch.manual_seed(0)
        spec = spec or self.spec
        return build_model(
            spec, 3, backbone=self.name, backbone_options=self.options, decoder=decoder, dates=dates
        ).eval()


def check_backbone(
    backbone: str | Callable[..., Backbone], *, spec: InputSpec | None = None, options: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Run all checks on a backbone, by name or as a class; weights are random.

    spec: an input that it takes; default: what it was published for, or six Landsat bands. Raises ConfigError for an
    unknown name or one too large to be run here, and whatever building it raises.
    """
    before = _settings()
    case = Case(backbone, spec or suitable_spec(backbone), options or {}, before)
    with init_empty_weights():
        size = sum(p.numel() for p in case.backbone().parameters())
    if size > MAX_PARAMETERS:
        raise ConfigError(
            f"{backbone} has {size / 1e9:.1f} thousand million parameters, too many to be run for a check",
            fix="check a smaller one of its family",
        )
    return run_checks(CHECKS, case)


def suitable_spec(backbone: str | Callable[..., Backbone], *, num_dates: int = 1) -> InputSpec:
    """All sensors that a published backbone takes together, one modality for each; else six Landsat bands."""
    kind = find("backbone", backbone)
    published = getattr(kind, "published", None)
    if published is None:
        return InputSpec((_entry("landsat7", SENSORS["landsat7"].band_names, num_dates=num_dates),), 30, 64)
    entries: dict[str, SensorInput] = {}
    modalities: Sequence[Modality] = published.modalities
    for modality in modalities if kind.fuses else modalities[:1]:
        sensor = next(iter(modality.sensors), "image")
        if sensor not in entries:
            numbers = [modality.statistics(i) for i in range(len(modality.bands))]
            entries[sensor] = _entry(
                sensor, modality.bands, [m for m, _ in numbers], [s for _, s in numbers], num_dates
            )
    return InputSpec(tuple(entries.values()), published.gsd_m, 64)


def _entry(
    sensor: str, bands: Sequence[str], mean: Sequence[float] = (), std: Sequence[float] = (), num_dates: int = 1
) -> SensorInput:
    return SensorInput(
        sensor, tuple(bands), tuple(mean) or (0.0,) * len(bands), tuple(std) or (1.0,) * len(bands),
        num_dates=num_dates, optional=True,
    )  # fmt: skip


def random_batch(spec: InputSpec, height: int, width: int, *, size: int = 2, seed: int = 0) -> Batch:
    """Random windows (B, T, C, H, W) as a network gets them, with dates and places."""
    generator = torch.Generator().manual_seed(seed)
    dates = spec.num_dates
    image = {
        e.sensor: torch.randn(size, e.num_dates, len(e.bands), height, width, generator=generator) for e in spec.sensors
    }
    return Batch(
        image,
        torch.ones(size, dates, height, width, dtype=torch.bool),
        dates=tuple(tuple(f"2019-{4 + t % 6:02d}-{1 + i:02d}" for t in range(dates)) for i in range(size)),
        location=torch.tensor([[46.5 + i, 7.25 - i] for i in range(size)]),
        keys=tuple(str(i) for i in range(size)),
    )


def _several(spec: InputSpec, num_dates: int) -> InputSpec:
    return replace(spec, sensors=tuple(replace(entry, num_dates=num_dates) for entry in spec.sensors))


# ---------------------------------------------------------------- the checks


def _gives_the_maps_that_it_announces(case: Case) -> None:
    backbone = case.backbone()
    m = backbone.multiple
    require(m >= 1, "multiple is below 1")
    require(len(backbone.channels) == len(backbone.strides) >= 1, "channels and strides differ in number")
    require(list(backbone.strides) == sorted(backbone.strides), f"strides {backbone.strides} are not finest first")
    for height, width in ((2 * m, 3 * m), (3 * m, 2 * m)):
        with torch.inference_mode():
            features = backbone(random_batch(case.spec.one_date(), height, width))
        require(
            len(features.maps) == len(backbone.channels), f"{len(features.maps)} maps instead of {backbone.channels}"
        )
        for x, channels, stride in zip(features.maps, backbone.channels, backbone.strides, strict=True):
            by_date = (1,) if backbone.dates == "each" else ()
            want = (2, *by_date, channels, round(height / stride), round(width / stride))
            require(tuple(x.shape) == want, f"a map is {tuple(x.shape)} instead of {want}")
            require(x.isfinite().all(), "features are not finite")


def _takes_any_size_with_any_decoder(case: Case) -> None:
    for decoder in ("linear", "unet"):
        model = case.model(decoder=decoder)
        m = model.backbone.multiple
        for height, width in ((m, m), (2 * m + 1, 3 * m - 1), (5, 2 * m)):
            with torch.inference_mode():
                logits = model(random_batch(case.spec, height, width))
            require(tuple(logits.shape) == (2, 3, height, width), f"{decoder}: logits are {tuple(logits.shape)}")
            require(logits.isfinite().all(), f"{decoder}: logits are not finite")


def _gives_each_window_the_same_result_alone_and_in_company(case: Case) -> None:
    model = case.model()
    m = model.backbone.multiple
    batch = random_batch(case.spec, 2 * m, 2 * m, size=3)
    with torch.inference_mode():
        together, again, alone = model(batch), model(batch), model(_pick(batch, 1))
    require(torch.equal(together, again), "the same batch gives two results in evaluation mode")
    apart = float((together[1:2] - alone).abs().max() / together.abs().max())
    require(apart < 1e-4, f"a window's result depends on the others of its batch (by {apart:.2g})")


def _keeps_things_in_their_place(case: Case) -> None:
    """A changed patch changes the features most at its own place: no shifted, flipped or transposed map."""
    backbone = case.backbone()
    m = backbone.multiple
    batch = random_batch(case.spec.one_date(), 3 * m, 4 * m, size=1)
    changed = copy.deepcopy(batch)
    for x in changed.image.values():
        x[..., :m, 2 * m : 3 * m] += 3  # at another place when flipped, turned or shifted
    with torch.inference_mode():
        before, after = backbone(batch).maps[0], backbone(changed).maps[0]
    change = (after - before).abs().flatten(0, -3).sum(0)
    row, col = divmod(int(change.argmax()), change.shape[1])
    place = (3 * row // change.shape[0], 4 * col // change.shape[1])
    require(
        place == (0, 2), f"a change in row 0, column 2 (of 3 and 4) shows most in row {place[0]}, column {place[1]}"
    )


def _pick(batch: Batch, i: int) -> Batch:
    at = slice(i, i + 1)
    return Batch(
        {name: x[at] for name, x in batch.image.items()}, batch.valid[at], None, batch.dates[at],
        None if batch.location is None else batch.location[at], batch.keys[at],
    )  # fmt: skip


def _trains_every_parameter(case: Case) -> None:
    model = case.model().train()
    m = model.backbone.multiple
    logits = model(random_batch(case.spec, 2 * m, 2 * m))
    (logits * torch.randn_like(logits)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    require(not idle, f"no gradient reaches {len(idle)} tensors: {', '.join(idle[:4])}")


def _stays_as_it_is_when_frozen(case: Case) -> None:
    model = case.model()
    model.freeze()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.train()
    m = model.backbone.multiple
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    model(random_batch(case.spec, 2 * m, 2 * m)).square().mean().backward()
    optimiser.step()
    moved = [name for name, value in model.backbone.state_dict().items() if not torch.equal(value, before[name])]
    require(not moved, f"{', '.join(moved[:4])} changed although the backbone was frozen")


def _is_whole_in_its_state_dict(case: Case) -> None:
    first = case.backbone()
    torch.manual_seed(1)
    second = make_backbone(case.name, case.spec, case.options).eval()
    with torch.no_grad():
        for value in second.parameters():
            value.add_(0.1)
    second.load_state_dict(first.state_dict(), strict=True)
    batch = random_batch(case.spec.one_date(), 2 * first.multiple, 2 * first.multiple)
    with torch.inference_mode():
        same = [torch.equal(x, y) for x, y in zip(first(batch).maps, second(batch).maps, strict=True)]
    require(all(same), "a copy with the same state dict gives other features")


def _leaves_the_process_alone(case: Case) -> None:
    model = case.model()
    with torch.inference_mode():
        model(random_batch(case.spec, model.backbone.multiple, model.backbone.multiple))
    changed = [name for name, value in _settings().items() if case.before[name] != value]
    require(not changed, f"building or running it changes {', '.join(changed)} for the whole process")


def _settings() -> dict[str, Any]:
    return {
        "the default type": torch.get_default_dtype(),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
        "cuDNN's choices": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "gradients": torch.is_grad_enabled(),
        "the number of threads": torch.get_num_threads(),
        "TORCH_ variables": sorted((k, v) for k, v in os.environ.items() if k.startswith("TORCH_")),
    }


def _survives_missing_data(case: Case) -> None:
    model = case.model()
    m = model.backbone.multiple
    batch = random_batch(case.spec, 2 * m, 2 * m, size=3)
    batch.valid[0, :, :m] = False
    batch.valid[1] = False
    for x in batch.image.values():
        x[0, :, :, :m], x[1] = 0, 0
    unknown = replace(batch, dates=tuple((None,) * case.spec.num_dates for _ in range(3)), location=None)
    for each in (batch, unknown):
        with torch.inference_mode():
            logits = model(each)
        require(logits.isfinite().all(), "nodata, an unknown date or place makes the logits infinite")


def _is_used_as_in_training_and_prediction(case: Case) -> None:
    """Kernels in the order that is fastest, half precision, batch norms folded."""
    model = channels_last(case.model().train())
    assert isinstance(model, Model)
    batch = random_batch(case.spec, 2 * model.backbone.multiple, 2 * model.backbone.multiple)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch)
    require(logits.isfinite().all(), "logits in bfloat16 are not finite")
    logits.float().square().mean().backward()
    legend = load_legend({1: "a", 2: "b", 3: "c"})
    shares = NetworkModel(case.spec, legend, model.eval(), {}).answers(batch)
    require(bool((abs(shares.sum(1) - 1) < 1e-4).all()), "probabilities do not sum to 1")


def _takes_several_dates(case: Case) -> None:
    three = _several(case.spec, 3)
    backbone = case.backbone(three)
    m = backbone.multiple
    methods: Sequence[str | None] = (None,) if backbone.dates == "all" else ("mean", "concat", "attention")
    for dates in methods:
        with torch.inference_mode():
            logits = case.model(three, dates=dates)(random_batch(three, 2 * m, 2 * m))
        require(tuple(logits.shape) == (2, 3, 2 * m, 2 * m) and logits.isfinite().all(), f"dates: {dates} fails")
    if backbone.dates != "one" and backbone.max_dates < 1000:
        with suppress(DataError):
            case.backbone(_several(case.spec, backbone.max_dates + 1))
            raise AssertionError(f"more than {backbone.max_dates} dates are not refused")


def _takes_bands_by_name(case: Case) -> None:
    """One band fewer, one more and another order can be built and run, or are refused as a BandError."""
    first = case.spec.sensors[0]
    specs = [
        _with_bands(case.spec, [*first.bands[1:], first.bands[0]]),
        _with_bands(case.spec, [*first.bands, "ndvi"]) if "ndvi" not in first.bands else None,
        _with_bands(case.spec, first.bands[1:]) if len(first.bands) > 1 else None,
    ]
    for spec in filter(None, specs):
        try:
            backbone = case.backbone(spec)
        except BandError:
            continue  # refused, which is as good
        with torch.inference_mode():
            features = backbone(random_batch(spec.one_date(), 2 * backbone.multiple, backbone.multiple))
        require(all(x.isfinite().all() for x in features.maps), "features are not finite")


def _with_bands(spec: InputSpec, bands: Sequence[str]) -> InputSpec:
    """The same with other bands of the first sensor; numbers of new ones are 0 and 1."""
    entry = spec.sensors[0]
    known = {b: (m, s) for b, m, s in zip(entry.bands, entry.mean, entry.std, strict=True)}
    numbers = [known.get(band, (0.0, 1.0)) for band in bands]
    changed = replace(
        entry, bands=tuple(bands), mean=tuple(m for m, _ in numbers), std=tuple(s for _, s in numbers)
    )  # fmt: skip
    return replace(spec, sensors=(changed, *spec.sensors[1:]))


def _does_without_any_sensor_but_one(case: Case) -> None:
    model = case.model()
    if not model.backbone.optional:
        return
    m = model.backbone.multiple
    batch = random_batch(case.spec, 2 * m, 2 * m)
    always = [name for name in batch.image if name not in model.backbone.optional]
    for part in _subsets(list(model.backbone.optional)):
        names = [*always, *part]
        with torch.inference_mode():
            logits = model(replace(batch, image={name: batch.image[name] for name in names}))
        require(logits.isfinite().all(), f"with {', '.join(names)} alone the logits are not finite")


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for count in range(1, len(names) + 1):
        yield from itertools.combinations(names, count)


def _gives_one_date_what_it_gives_two_equal_ones(case: Case) -> None:
    """Features of the same image on the same date twice, averaged, are those of one."""
    backbone = case.backbone()
    if backbone.dates != "one":
        return  # a network that sees dates together may make something of their number
    two = _several(case.spec, 2)
    m = backbone.multiple
    batch = random_batch(case.spec, 2 * m, 2 * m)
    twice = replace(
        batch, image={name: x.expand(-1, 2, -1, -1, -1) for name, x in batch.image.items()},
        valid=batch.valid.expand(-1, 2, -1, -1), dates=tuple(dates * 2 for dates in batch.dates),
    )  # fmt: skip
    with torch.inference_mode():
        one: Tensor = case.model()(batch)
        both: Tensor = case.model(two, dates="mean")(twice)
    apart = float((one - both).abs().max() / one.abs().max())
    require(apart < 1e-4, f"the logits differ by {apart:.2g}")


CHECKS: tuple[Callable[[Case], None], ...] = (
    _gives_the_maps_that_it_announces,
    _takes_any_size_with_any_decoder,
    _gives_each_window_the_same_result_alone_and_in_company,
    _keeps_things_in_their_place,
    _trains_every_parameter,
    _stays_as_it_is_when_frozen,
    _is_whole_in_its_state_dict,
    _leaves_the_process_alone,
    _is_used_as_in_training_and_prediction,
    _survives_missing_data,
    _takes_several_dates,
    _gives_one_date_what_it_gives_two_equal_ones,
    _takes_bands_by_name,
    _does_without_any_sensor_but_one,
)
