"""What flows from a window to a network, with the shapes in one place.

B batch   T dates   C bands of one sensor   H, W rows and columns   K classes
image   {sensor: (B, T, C, H, W)}   normalised float32, 0 where not valid
valid   (B, T, H, W)                bool, False where the image holds nothing
label   (B, H, W)                   class index int64, IGNORE where unknown
target  (B, C, h, w) or (B, C)      numbers to learn, float32 in their unit, NaN where unknown; h, w may be coarser
maps    (B, C_i, H / S_i, W / S_i)  features, finest first
logits  (B, K, H, W)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
OwnStatistics = Mapping[str, Mapping[str, tuple[float, float]]]
"""{sensor: {band: (mean, std)}} of a scene or place, in physical units."""


@dataclass(frozen=True)
class SensorInput:
    """What a model wants from one sensor: bands in order, and how its numbers become network input.

    value = (file number * scale + offset - mean) / std, band by band, then cut to +-`clip`. With `auto_offset` the
    +1000 of newer Sentinel-2 products is first taken off each file that has it. An optional sensor may be absent, or
    lack bands, which then count as if they had their mean everywhere. indices: those of the bands that are made of
    others (data.indices), in the same unit. quantity: of radar numbers (power or amplitude) that are taken in dB.
    per_scene: mean and std are those of each scene or place itself, which the sample brings along.
    """

    sensor: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1.0
    offset: float = 0.0
    clip: float = 10.0
    num_dates: int = 1
    auto_offset: bool = False
    optional: bool = False
    indices: tuple[str, ...] = ()
    quantity: Literal["power", "amplitude"] | None = None
    per_scene: bool = False

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.mean) == len(self.std) > 0 or not all(s > 0 for s in self.std):
            raise ValueError(f"{self.sensor}: bands, mean and std do not go together")


class Statistic(NamedTuple):
    """Mean and std of a band in a physical unit."""

    mean: float
    std: float
    unit: str


@dataclass(frozen=True)
class InputSpec:
    """All inputs of a model: its sensors in order, ground size of a pixel, window size in px.

    fixed_size: whether prediction should use windows of `size_px` too, and not larger ones. uses: of `dates` and
    `location`, what the model takes into account.
    """

    sensors: tuple[SensorInput, ...]
    gsd_m: float = 0.0
    size_px: int = 256
    fixed_size: bool = False
    uses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sensors or self.size_px < 1:
            raise ValueError("an input needs a sensor and a window size")

    @property
    def num_channels(self) -> int:
        """Channels when all sensors and dates are stacked."""
        return sum(s.num_dates * len(s.bands) for s in self.sensors)

    @property
    def num_dates(self) -> int:
        """Dates of the sensor with the most; the others have as many, or one."""
        return max(s.num_dates for s in self.sensors)

    def required(self) -> InputSpec:
        """The same with no sensor optional."""
        return replace(self, sensors=tuple(replace(entry, optional=False) for entry in self.sensors))

    def one_date(self) -> InputSpec:
        """The same for each date by itself."""
        return replace(self, sensors=tuple(replace(entry, num_dates=1) for entry in self.sensors))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> InputSpec:
        def whole(entry: Mapping[str, Any]) -> SensorInput:
            values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
            return SensorInput(**values)

        sensors = tuple(whole(entry) for entry in raw["sensors"])
        fixed, uses = bool(raw.get("fixed_size", False)), tuple(raw.get("uses", ()))
        return InputSpec(sensors, float(raw["gsd_m"]), int(raw["size_px"]), fixed, uses)


def mask_for(valid: npt.NDArray[np.bool_], num_dates: int) -> npt.NDArray[np.bool_]:
    """The part of a mask (T, H, W) that goes with a sensor: its dates, or for a sensor of one date any of them."""
    return valid if len(valid) == num_dates else np.asarray(valid.any(0))[None]


@dataclass
class Sample:
    """One window as read: raw numbers per sensor (T, C, H, W), valid (T, H, W), label (H, W) or None.

    bands: names of the channels of each sensor. statistics: of its scene or place, for
    models that are normalised by them. target: (C, h, w), or (C,) of a window as a whole.
    """

    image: dict[str, Array]
    valid: npt.NDArray[np.bool_]
    label: npt.NDArray[np.uint8] | None = None
    dates: tuple[str | None, ...] = (None,)
    location: tuple[float, float] | None = None
    key: str = ""
    bands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    statistics: OwnStatistics = field(default_factory=dict)
    target: npt.NDArray[np.float32] | None = None


@dataclass
class Batch:
    """Windows as a network takes them; shapes at the top of the file.

    location: (B, 2) latitude, longitude in degrees, NaN where it is not known.
    """

    image: dict[str, torch.Tensor]
    valid: torch.Tensor
    label: torch.Tensor | None = None
    dates: tuple[tuple[str | None, ...], ...] = ()
    location: torch.Tensor | None = None
    keys: tuple[str, ...] = field(default=())
    target: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.valid.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors = {key: getattr(self, key) for key in ("valid", "label", "location", "target")}
        moved: dict[str, Any] = {key: x if x is None else x.to(device) for key, x in tensors.items()}
        return replace(self, image={name: x.to(device) for name, x in self.image.items()}, **moved)


@dataclass(frozen=True)
class Features:
    """A backbone's output: maps from fine to coarse and the stride in px of each (3.5 for a quarter of a 14 px patch).

    Of equal strides, the map of the earliest block comes first.
    """

    maps: tuple[torch.Tensor, ...]
    strides: tuple[float, ...]
