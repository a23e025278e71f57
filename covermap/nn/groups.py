"""Bands in groups, as Galileo and Presto take them: a token for each group, and any group may be absent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covermap.core.types import Batch, InputSpec
from covermap.nn.model import Backbone
from covermap.nn.published import Channel, Modality, Published, leave_out, match, statistics, unit_notes

BANDS = {
    "S1": ("vv", "vh"), "S2_RGB": ("blue", "green", "red"), "S2_Red_Edge": ("rededge1", "rededge2", "rededge3"),
    "S2_NIR_10m": ("nir",), "S2_NIR_20m": ("nir_narrow",), "S2_SWIR": ("swir1", "swir2"),
    "SRTM": ("elevation", "slope"), "NDVI": ("ndvi",),
}  # fmt: skip
"""Groups and their bands, in the published order."""
MODALITIES = (
    Modality(
        "S2",
        ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir_narrow", "swir1", "swir2", "ndvi"),
        (1395.341, 1338.403, 1343.099, 1543.861, 2186.202, 2525.093, 2410.338, 2750.285, 2234.911, 1474.531, 2892.117),
        (917.704, 913.299, 1092.679, 1047.221, 1048.010, 1143.690, 1098.979, 1204.473, 1145.977, 980.243, 2720.939),
        sensors=("sentinel2",),
    ),
    Modality("S1", ("vv", "vh"), (-11.729, -18.856), (4.887, 5.730), scale=1, unit="dB", sensors=("sentinel1",)),
    Modality("SRTM", ("elevation", "slope"), (673.015, 5.930), (983.070, 8.167), scale=1, unit="m", sensors=("dem",)),
)
"""Galileo's normalization.json, that of NDVI times 1e4 as the other optical numbers. Presto has fixed divisors and no
statistics: these stand for it too, of a like training set by the same authors."""


class Groups:
    """The bands of a scene put into groups; NDVI is made from red and near infrared where the data has none.

    Values are standard scores, 0 (the mean) where a group lacks a band; NDVI is itself. `names` are the groups of which
    the data has a band.
    """

    def __init__(self, spec: InputSpec, channels: Sequence[Channel]) -> None:
        known = {modality.name: modality.bands for modality in MODALITIES}
        self._at = {known[c.modality][c.source]: c for c in channels if c.source is not None}
        self._scale = {
            (e.sensor, b): (m, s) for e in spec.sensors for b, m, s in zip(e.bands, e.mean, e.std, strict=True)
        }
        self.sensors = frozenset(channel.sensor for channel in self._at.values())
        nir = self._at.get("nir") or self._at.get("nir_narrow")
        self._pair = (nir, self._at["red"]) if nir and "red" in self._at else None
        self.names = tuple(name for name, bands in BANDS.items() if self._has(bands))

    def _has(self, bands: Sequence[str]) -> bool:
        return any(band in self._at for band in bands) or (bands == ("ndvi",) and self._pair is not None)

    def bands(self, group: str) -> tuple[tuple[str, int], ...]:
        """Sensor and position of each band of a group that the data has."""
        found = (self._at.get(band) for band in BANDS[group])
        return tuple((channel.sensor, channel.position) for channel in found if channel is not None)

    def sensors_of(self, group: str) -> tuple[str, ...]:
        """What a group is made of."""
        pair = [channel.sensor for channel in self._pair or ()] if group == "NDVI" else []
        return tuple(dict.fromkeys([*(sensor for sensor, _ in self.bands(group)), *pair]))

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """{group: (B, T, C, H, W)} of the sensors that the batch has."""
        found = {}
        for name in self.names:
            bands = BANDS[name]
            x = [self._ndvi(batch)] if bands == ("ndvi",) else [self._band(batch, band) for band in bands]
            given = next((each for each in x if each is not None), None)
            if given is not None:
                found[name] = torch.stack([torch.zeros_like(given) if each is None else each for each in x], 2)
        return found

    def _band(self, batch: Batch, band: str) -> Tensor | None:
        """(B, T, H, W), or None where the batch lacks the band."""
        channel = self._at.get(band)
        if channel is None or channel.sensor not in batch.image:
            return None
        return batch.image[channel.sensor][:, :, channel.position].expand(-1, batch.valid.shape[1], -1, -1)

    def _ndvi(self, batch: Batch) -> Tensor | None:
        if "ndvi" in self._at:
            return self._physical(batch, self._at["ndvi"])
        if self._pair is None:
            return None
        nir, red = (self._physical(batch, channel) for channel in self._pair)
        if nir is None or red is None:
            return None
        # As data.indices makes it: 0 where nothing is reflected.
        return torch.where(nir + red > 1e-6, (nir - red) / (nir + red).clamp(min=1e-6), 0.0).clamp(-1, 1)

    def _physical(self, batch: Batch, channel: Channel) -> Tensor | None:
        mean, std = self._scale[channel.sensor, channel.band]
        if channel.sensor not in batch.image:
            return None
        x = batch.image[channel.sensor][:, :, channel.position].expand(-1, batch.valid.shape[1], -1, -1)
        return x * std + mean


class GroupedBackbone(Backbone):
    """A backbone whose inputs are groups: bands that belong to none are left out, any sensor may be absent."""

    fuses = True

    def __init__(self, spec: InputSpec, published: Published, *, extra_bands: str) -> None:
        super().__init__()
        found = match(spec, published.modalities)
        self.notes = (*leave_out(found, extra_bands), *unit_notes(found, published.modalities))
        self.uses = published.uses
        self.statistics = statistics(found, published.modalities)
        self.groups = Groups(spec, found)
        self.optional = self.groups.sensors
        self.unused = frozenset(entry.sensor for entry in spec.sensors) - self.optional
