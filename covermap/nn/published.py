"""Published models: what each takes, where its file is, under which licence; and the user's bands matched to its own.

scene bands -> match() -> channels of a modality, by name -> kernels adapted -> the published weights fit
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from covermap.core.errors import BandError, ConfigError, suggest
from covermap.core.registry import find
from covermap.core.sensors import SENSORS
from covermap.core.types import InputSpec, Statistic

POLICIES = ("mean", "zeros", "random", "drop", "error")
STAND_INS = {"nir": "nir_narrow", "nir_narrow": "nir"}
"""A band of nearly the same wavelengths, taken where the exact one is not there."""


@dataclass(frozen=True)
class Modality:
    """A kind of image that a model was trained on: bands in order, mean and std of the published numbers.

    A published number times `scale`, plus `offset`, is in `unit`, as in core.sensors: reflectance, 8-bit brightness
    (0 to 1), dB, m. sensors: those that it is of.
    """

    name: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1e-4
    offset: float = 0.0
    unit: str = "reflectance"
    sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.bands) == len(self.mean) == len(self.std), self.name

    def statistics(self, index: int) -> tuple[float, float]:
        """Mean and std of a band in the physical unit."""
        return self.mean[index] * self.scale + self.offset, self.std[index] * self.scale


@dataclass(frozen=True)
class Published:
    """Facts about a published model; `file` lies in `repo` on the Hugging Face hub. sha256: of the file, if known.

    An empty repo: the architecture is known, weights have not been published.
    """

    title: str
    repo: str
    file: str
    licence: str
    modalities: tuple[Modality, ...]
    gsd_m: float
    sha256: str = ""
    gated: bool = False
    uses: tuple[str, ...] = ()
    """Of `dates` and `location`, what the model takes into account."""


def published_of(backbone: str | Callable[..., Any]) -> Published | None:
    """What has been published of a backbone by name, if anything; raises ConfigError for an unknown name."""
    found: Published | None = getattr(find("backbone", backbone), "published", None)
    return found


@dataclass(frozen=True)
class Variant:
    """One size of a family, as it is registered: calling it builds the backbone.

    sizes (as an option): other ones than published, for models that were trained with them elsewhere.
    """

    kind: Any
    published: Published
    sizes: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, spec: InputSpec, *, sizes: Mapping[str, Any] | None = None, **options: Any) -> Any:
        fixed = sorted(set(options) & set(self.sizes))
        if fixed:
            raise ConfigError(f"{', '.join(fixed)} is fixed by the published weights", fix="leave it out")
        return self.kind(spec, self.published, **{**self.sizes, **(sizes or {})}, **options)

    def __getattr__(self, name: str) -> Any:
        """What holds for the whole family: dates, max_dates, ..."""
        return getattr(object.__getattribute__(self, "kind"), name)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return self.published.title


@dataclass(frozen=True)
class Channel:
    """A band of the scene: its position in its sensor, and the modality and channel that it stands for, if any."""

    sensor: str
    band: str
    position: int
    modality: str = ""
    source: int | None = None


def match(
    spec: InputSpec, modalities: Sequence[Modality], *, wanted: Mapping[str, str] | None = None
) -> tuple[Channel, ...]:
    """All bands of a scene with what they are to a model, by name; each band of a modality is taken once.

    A sensor gets a modality of its own, else one of its unit, else any, of these the one of which it has most bands;
    `wanted` {sensor: modality} decides otherwise. Raises BandError when no band at all is known to the model.
    """
    wanted = wanted or {}
    _require_known(wanted, spec, modalities)
    taken: dict[str, set[int]] = {modality.name: set() for modality in modalities}
    channels = []
    for entry in spec.sensors:
        choice = [m for m in modalities if m.name == wanted.get(entry.sensor, m.name)]
        unit = SENSORS[entry.sensor].unit if entry.sensor in SENSORS else ""
        plans = [(_sources(entry.bands, m.bands, taken[m.name]), m) for m in choice]
        plan, modality = max(
            plans,
            key=lambda each: (
                _count(each[0]) > 0, entry.sensor in each[1].sensors, each[1].unit == unit, _count(each[0])
            ),
        )  # fmt: skip
        found = _count(plan) > 0
        taken[modality.name] |= {source for source in plan if source is not None}
        channels += [
            Channel(entry.sensor, band, i, modality.name if found else "", source)
            for i, (band, source) in enumerate(zip(entry.bands, plan, strict=True))
        ]
    if not any(channel.modality for channel in channels):
        have = ", ".join(channel.band for channel in channels)
        takes = "; ".join(f"{m.name}: {', '.join(m.bands)}" for m in modalities)
        raise BandError(
            f"the model knows none of the bands {have}; it takes {takes}",
            fix="name the bands (data.bands) or the sensor (data.sensor), or use a model that takes them",
        )
    return tuple(channels)


def _require_known(wanted: Any, spec: InputSpec, modalities: Sequence[Modality]) -> None:
    names = [modality.name for modality in modalities]
    if not isinstance(wanted, Mapping) or not all(isinstance(name, str) for name in wanted.values()):
        raise ConfigError(f"modalities: {wanted} is no choice", fix="write {sensor: modality}, e.g. {sentinel1: S1RTC}")
    for sensor, name in wanted.items():
        if sensor not in [entry.sensor for entry in spec.sensors]:
            raise ConfigError(
                f"modalities: the data has no sensor {sensor!r}", fix=suggest(sensor, [e.sensor for e in spec.sensors])
            )
        if name not in names:
            raise ConfigError(f"modalities: {name!r} is not known", fix=suggest(name, names))


def _sources(bands: Sequence[str], known: Sequence[str], taken: Iterable[int]) -> list[int | None]:
    """Exact names first, so that a stand-in never takes the place of the band itself."""
    free = {name: i for i, name in enumerate(known) if i not in set(taken)}
    found = {band: free.pop(band) for band in bands if band in free}
    for band in bands:
        if band not in found and STAND_INS.get(band) in free:
            found[band] = free.pop(STAND_INS[band])
    return [found.get(band) for band in bands]


def _count(plan: Sequence[int | None]) -> int:
    return sum(source is not None for source in plan)


def statistics(channels: Sequence[Channel], modalities: Sequence[Modality]) -> dict[str, dict[str, Statistic]]:
    """{sensor: {band: statistic}} for the bands that the model knows, of sensors in the unit that it was trained on."""
    by_name = {modality.name: modality for modality in modalities}
    found: dict[str, dict[str, Statistic]] = {}
    for channel in channels:
        if channel.source is not None and _same_unit(channel.sensor, by_name[channel.modality]):
            modality = by_name[channel.modality]
            found.setdefault(channel.sensor, {})[channel.band] = Statistic(
                *modality.statistics(channel.source), modality.unit
            )
    return found


def unit_notes(channels: Sequence[Channel], modalities: Sequence[Modality]) -> tuple[str, ...]:
    """What to say of sensors in another unit than the model was trained on."""
    by_name = {modality.name: modality for modality in modalities}
    pairs = dict.fromkeys((c.sensor, c.modality) for c in channels if c.source is not None)
    return tuple(
        f"{sensor} is {SENSORS[sensor].unit}, {name} was {by_name[name].unit}: the data's own mean and std are used"
        for sensor, name in pairs
        if not _same_unit(sensor, by_name[name])
    )


def _same_unit(sensor: str, modality: Modality) -> bool:
    return sensor not in SENSORS or SENSORS[sensor].unit == modality.unit


def unknown(channels: Sequence[Channel]) -> list[str]:
    """Bands that a model does not know."""
    return [channel.band for channel in channels if channel.source is None]


def leave_out(channels: Sequence[Channel], extra: str, *, owner: str = "the model") -> tuple[str, ...]:
    """For models whose first layers take no further bands: notes on those left out. extra: drop or error."""
    if extra not in ("drop", "error"):
        raise ConfigError(f"extra_bands: {extra} is not possible here", fix="drop or error")
    surplus = unknown(channels)
    if surplus and extra == "error":
        raise BandError(f"{owner} does not know {', '.join(surplus)}", fix="name the bands to use (data.use)")
    return (f"{owner} does not know {', '.join(surplus)}: not used",) if surplus else ()


@dataclass(frozen=True)
class Selection:
    """The channels that reach a network's first layer, and how its kernels are made from the `known` published ones."""

    channels: tuple[Channel, ...]
    new: str
    known: int
    notes: tuple[str, ...]

    def without(self, spec: InputSpec) -> frozenset[str]:
        """Sensors of which no band is among the channels."""
        return frozenset(entry.sensor for entry in spec.sensors) - {channel.sensor for channel in self.channels}

    @property
    def sources(self) -> tuple[int | None, ...]:
        """For each channel the published one, or None for a new one."""
        return tuple(channel.source for channel in self.channels)


def select(
    channels: Sequence[Channel], modality: Modality, *, extra: str, missing: str, owner: str = "the model"
) -> Selection:
    """Apply the policies for bands that the model does not know and for bands that the scene lacks.

    extra: mean, zeros or random (a kernel for the new band), drop, error. missing: drop (as if the band had its mean
    everywhere) or error. What was done is in `notes`. Raises BandError.
    """
    if extra not in POLICIES or missing not in ("drop", "error"):
        raise ConfigError(
            f"extra_bands: {extra}, missing_bands: {missing} is not known",
            fix=f"extra_bands: {', '.join(POLICIES)}; missing_bands: drop, error",
        )
    surplus = unknown(channels)
    present = {channel.source for channel in channels}
    absent = [band for i, band in enumerate(modality.bands) if i not in present]
    for what, names, policy in (("does not know", surplus, extra), ("also expects", absent, missing)):
        if names and policy == "error":
            raise BandError(
                f"{owner} {what} {', '.join(names)}",
                fix="name the bands to use (data.use), or choose another policy: "
                + ("extra_bands: mean" if what == "does not know" else "missing_bands: drop"),
            )
    kept = tuple(c for c in channels if c.source is not None or extra != "drop")
    notes = []
    if surplus:
        done = "not used" if extra == "drop" else f"new kernels ({extra})"
        notes.append(f"{owner} does not know {', '.join(surplus)}: {done}")
    if absent:
        notes.append(f"{owner} was trained with {', '.join(absent)} too, which the data lacks")
    stand_ins = [
        f"{c.band} as {modality.bands[c.source]}"
        for c in kept
        if c.source is not None and c.band != modality.bands[c.source]
    ]
    if stand_ins:
        notes.append(f"{owner} takes {', '.join(stand_ins)}")
    return Selection(kept, extra if extra != "drop" else "mean", len(modality.bands), tuple(notes))
