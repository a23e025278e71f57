"""Networks side by side: backbones that are trained together, and the features of an earlier network beside one's own.

In both, the maps of the further network are added to those of the first through projections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import BandError, ConfigError
from covermap.core.types import Batch, Features, InputSpec, SensorInput
from covermap.nn.dates import one_date
from covermap.nn.layers import enlarge, nearest_stride
from covermap.nn.model import Backbone, Model


class AddMaps(nn.Module):
    """Adds another network's maps to ours, each through a 1 x 1 projection without bias.

    Each of ours gets the other's map of the nearest stride; what is left of the other's goes to the nearest of ours.
    This is what one gets from all of them side by side and a linear layer that reads them, ours with weight one. The
    other's channels are first brought to mean 0 and std 1 at each place: backbones differ in scale. Zeros add nothing.
    own, other: strides, and of which maps they are, by position.
    """

    def __init__(
        self,
        channels: Sequence[int],
        own: Mapping[int, float],
        other_channels: Sequence[int],
        other: Mapping[int, float],
    ) -> None:
        super().__init__()
        self.pairs = [(i, _nearest(other, stride)) for i, stride in own.items()]
        left = [j for j in other if j not in {source for _, source in self.pairs}]
        self.pairs += [(_nearest(own, other[j]), j) for j in left]
        self.projections = nn.ModuleList(
            nn.Conv2d(other_channels[source], channels[to], 1, bias=False) for to, source in self.pairs
        )

    def forward(self, features: Features, other: Features) -> Features:
        """Maps (B, C_i, h_i, w_i) and any others of the same windows -> maps of the first's shapes."""
        maps = list(features.maps)
        for (to, source), project in zip(self.pairs, self.projections, strict=True):
            x = other.maps[source]
            even = functional.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1)
            maps[to] = maps[to] + _resize(project(even), maps[to])
        return Features(tuple(maps), features.strides)


class Hybrid(Backbone):
    """Several backbones, all of them trained; shapes of maps and normalisation are those of the first."""

    def __init__(self, parts: Mapping[str, Backbone], num_dates: int) -> None:
        super().__init__()
        first, *others = parts.values()
        name, *further = parts
        modes = {part.dates for part in parts.values()}
        if num_dates > 1 and (len(modes) > 1 or "each" in modes):
            said = ", ".join(f"{name} takes {part.dates}" for name, part in parts.items())
            raise ConfigError(
                f"{'+'.join(parts)}: these backbones take {num_dates} dates in different ways ({said})",
                fix="join backbones of one way, or leave dates out",
            )
        for their_name, other in zip(further, others, strict=True):
            if min(other.strides) < min(first.strides):
                raise ConfigError(
                    f"{name}+{their_name}: {their_name} gives finer maps (stride {min(other.strides):g} px) than "
                    f"{name} ({min(first.strides):g} px), which would be lost",
                    fix=f"name the finer one first: {their_name}+{name}",
                )
        self.first, self.others = first, nn.ModuleList(others)
        self.channels, self.strides = first.channels, first.strides
        own = dict(enumerate(self.strides))
        self.add = nn.ModuleList(AddMaps(self.channels, own, o.channels, dict(enumerate(o.strides))) for o in others)
        self.dates = first.dates if num_dates > 1 else "all"
        self.local = all(part.local for part in parts.values())
        self.fuses = all(part.fuses for part in parts.values())
        self.optional = frozenset.intersection(*(part.optional for part in parts.values()))
        self.unused = frozenset.intersection(*(part.unused for part in parts.values()))
        self.uses = tuple(dict.fromkeys(use for part in parts.values() for use in part.uses))
        self.notes = tuple(f"{name}: {note}" for name, part in parts.items() for note in part.notes)
        self.reports = [report for part in parts.values() for report in part.reports]
        self.statistics = dict(first.statistics)
        self.multiple_px = math.lcm(*(part.multiple for part in parts.values()))

    @property
    def multiple(self) -> int:
        return self.multiple_px

    def named_parts(self) -> list[tuple[str, Backbone]]:
        """All backbones by the beginning of their tensors' names, the first first."""
        parts: dict[str, Any] = {"first": self.first} | {f"others.{i}": part for i, part in enumerate(self.others)}
        return list(parts.items())

    def forward(self, batch: Batch) -> Features:
        """Batch whose height and width are multiples of `multiple` -> Features of the first one's shapes."""
        features, *others = (_one_set(part, part(batch)) for _, part in self.named_parts())
        for add, other in zip(self.add, others, strict=True):
            features = add(features, other)
        return features


class Extra(nn.Module):
    """The features of a trained network, which stay as they are, added to one's own (two-stage, arXiv 2211.09927)."""

    def __init__(
        self,
        network: Model,
        spec: InputSpec,
        channels: Sequence[int],
        strides: Sequence[float],
        *,
        reads: Sequence[int],
    ) -> None:
        """reads: positions of our maps that the decoder reads."""
        super().__init__()
        self.entries = [(entry, _entry_of(spec, entry)) for entry in network.spec.sensors]
        self.required = frozenset(entry.sensor for entry, _ in self.entries if not entry.optional)
        theirs = {i: network.strides[i] for i in network.decoder.uses(len(network.strides))}
        self.add = AddMaps(channels, {i: strides[i] for i in reads}, network.channels, theirs)
        # What comes after the features is never asked.
        network.decoder, network.pixel = nn.Identity(), None  # type: ignore[assignment]
        self.network = network.requires_grad_(False).eval()

    @property
    def multiple(self) -> int:
        """As of a Model."""
        return self.network.multiple

    @property
    def sensors(self) -> frozenset[str]:
        """Sensors that the network takes."""
        return frozenset(entry.sensor for entry, _ in self.entries)

    def forward(self, features: Features, batch: Batch) -> Features:
        """Our features of a batch -> the same with those of the network added, where any of its sensors is there."""
        if not any(ours.sensor in batch.image for _, ours in self.entries):
            return features
        with torch.no_grad():
            other = self.network.features(self._as_trained(batch))
        added: Features = self.add(features, other)
        return added

    def train(self, mode: bool = True) -> Extra:
        super().train(mode)
        self.network.eval()
        return self

    def _as_trained(self, batch: Batch) -> Batch:
        """The batch in the network's own bands and normalisation; 0 stays 0 where the image holds nothing."""
        image = {}
        for theirs, ours in self.entries:
            if theirs.optional and ours.sensor not in batch.image:
                continue
            x = batch.image[ours.sensor]
            where = [ours.bands.index(band) for band in theirs.bands]
            known = batch.valid if x.shape[1] == batch.valid.shape[1] else batch.valid.any(1, keepdim=True)
            value = x[:, :, where]
            if not ours.per_scene:  # of such both have the scene's own numbers already
                std, mean = ([numbers[i] for i in where] for numbers in (ours.std, ours.mean))
                raw = value * _column(x, std) + _column(x, mean)
                value = ((raw - _column(x, theirs.mean)) / _column(x, theirs.std)).clamp(-theirs.clip, theirs.clip)
            image[theirs.sensor] = value * known.unsqueeze(2)
        return replace(batch, image=image, label=None, target=None)


def _entry_of(spec: InputSpec, wanted: SensorInput) -> SensorInput:
    """Our input that holds a trained network's bands, read in the same way; raises BandError, ConfigError."""
    entry = next((entry for entry in spec.sensors if entry.sensor == wanted.sensor), None)
    missing = [band for band in wanted.bands if entry is None or band not in entry.bands]
    if entry is None or missing:
        raise BandError(
            f"model.extra was trained on {wanted.sensor} with {', '.join(wanted.bands)}; the data lacks "
            f"{', '.join(missing)}",
            fix="use the same bands, or train the first network on those that are here",
        )
    for key in ("scale", "offset", "auto_offset", "quantity", "per_scene", "num_dates"):
        ours, theirs = getattr(entry, key), getattr(wanted, key)
        if ours != theirs:
            raise ConfigError(
                f"model.extra was trained with {key} {theirs} of {wanted.sensor}; the data has {ours}",
                fix="read the images in the same way in both stages",
            )
    return entry


def _column(x: Tensor, numbers: Sequence[float]) -> Tensor:
    return x.new_tensor(numbers).view(1, 1, -1, 1, 1)


def _nearest(strides: Mapping[int, float], wanted: float) -> int:
    positions = list(strides)
    return positions[nearest_stride(list(strides.values()), wanted)]


def _one_set(part: Backbone, features: Features) -> Features:
    return one_date(features) if part.dates == "each" else features


def _resize(x: Tensor, to: Tensor) -> Tensor:
    """Bilinear where it grows, means where it shrinks."""
    if x.shape[-2] > to.shape[-2] or x.shape[-1] > to.shape[-1]:
        return functional.adaptive_avg_pool2d(x, (to.shape[-2], to.shape[-1]))
    return enlarge(x, to)
