"""Statistics of the train part, in one streaming pass, and the one scaling of a whole data set that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.errors import BandError, DataError
from covermap.core.types import InputSpec, Sample, SensorInput, Statistic, mask_for
from covermap.data.scene import Scene, scaling
from covermap.data.split import Split
from covermap.geo.grid import Window, partition


def input_spec(
    scenes: Sequence[Scene], split: Split, *, normalise: str, size_px: int, max_px: int = 1 << 26, seed: int = 0
) -> InputSpec:
    """What a model trained on these scenes takes: bands by name, and mean and std of the train part's valid pixels.

    normalise: dataset (mean and std), scene (the same, for what `with_own_statistics` does not find), percentile (2nd
    and 98th to -1 and 1) or none. Windows beyond `max_px` pixels are left out at random. Raises DataError when the
    train part holds no valid pixel or a band is constant.
    """
    sums = {key: _Sums(len(bands)) for key, bands in scenes[0].bands.items()}
    for scene, window in _train_windows(scenes, split, size_px, max_px, seed):
        sample = scene.read(window)
        mask = split.part_mask(scene.name, window) == 1
        for key, values in sample.image.items():
            for values_t, valid in zip(values, mask_for(sample.valid, len(values)), strict=True):
                sums[key].add(values_t[:, valid & mask])
    if not any(total.count for total in sums.values()):
        raise _nowhere_valid(scenes, split)
    entries = []
    for key, raster in scenes[0].rasters.items():
        image = next(image for image in scenes[0].images if (image.sensor or "image") == key)
        scale, offset = scaling(image)
        bands, made = scenes[0].bands[key], scenes[0].channels.get(key)
        mean, std = sums[key].finish(normalise, where=raster.name, bands=bands)
        if normalise != "none":
            mean, std = mean * scale + offset, std * scale
        entries.append(
            SensorInput(
                key, bands, tuple(mean.tolist()), tuple(std.tolist()), scale, offset,
                num_dates=len(raster.sources), auto_offset=image.offset == "auto",
                indices=made.indices if made else (), quantity=image.quantity, per_scene=normalise == "scene",
            )
        )  # fmt: skip
    return InputSpec(tuple(entries), scenes[0].grid.gsd_m, size_px)


def _nowhere_valid(scenes: Sequence[Scene], split: Split) -> DataError:
    """Which sensor has no valid pixel in the train part, or that no pixel is valid in all of them."""
    empty = []
    for key, raster in scenes[0].rasters.items():
        windows = ((scene, window) for scene in scenes for window in split.windows(scene.name, "train"))
        parts = ((scene, part) for scene, window in windows for part in partition(window, 1024, 1024))
        if not any(scene.rasters[key].read(part)[1].any() for scene, part in parts):
            empty.append(raster.name)
    several = len(scenes[0].rasters) > 1 and not empty
    names = ", ".join(empty or [raster.name for raster in scenes[0].rasters.values()])
    what = "no pixel is valid in all of them" if several else "the train part holds no valid pixel"
    return DataError(f"{names}: {what}", fix="check nodata: covermap info IMAGE; leave out what is empty")


def _train_windows(
    scenes: Sequence[Scene], split: Split, size_px: int, max_px: int, seed: int, least: int = 256
) -> list[tuple[Scene, Window]]:
    side = max(least, size_px)
    found = [(s, w) for s in scenes for t in split.windows(s.name, "train") for w in partition(t, side, side)]
    return _at_most(found, max_px, seed)


def _at_most(windows: list[tuple[Scene, Window]], max_px: int, seed: int) -> list[tuple[Scene, Window]]:
    """As many windows, drawn at random, as hold `max_px` pixels."""
    total = np.cumsum([window.height * window.width for _, window in windows])
    if len(windows) == 0 or total[-1] <= max_px:
        return windows
    keep = max(1, len(windows) * max_px // int(total[-1]))
    return [windows[i] for i in sorted(np.random.default_rng(seed).permutation(len(windows))[:keep])]


class TargetStatistic(NamedTuple):
    """A channel of the target over the train part: numbers in its unit (NaN: nothing known), and the share unknown."""

    target: str
    unit: str
    mean: float
    std: float
    low: float
    high: float
    unknown: float


def target_statistics(
    scenes: Sequence[Scene], split: Split, *, size_px: int, max_px: int = 1 << 26, seed: int = 0
) -> list[TargetStatistic]:
    """One for each channel of the scenes' target, in one pass over windows of the train part; none without a target."""
    first = scenes[0].target
    if first is None:
        return []
    sums, count = [_Sums(1) for _ in first.names], 0
    ends = [(np.nan, np.nan) for _ in sums]
    for scene, window in _train_windows(scenes, split, size_px, max_px, seed, least=1):
        numbers = split.target(scene, window, "train").reshape(len(sums), -1)
        count += numbers.shape[1]
        for i, values in enumerate(numbers):
            if (known := values[np.isfinite(values)]).size:
                sums[i].add(known[None])
                ends[i] = float(np.fmin(ends[i][0], known.min())), float(np.fmax(ends[i][1], known.max()))
    found = []
    for name, unit, total, (low, high) in zip(first.names, first.units, sums, ends, strict=True):
        mean, std = (float(moment[0]) for moment in total.moments())
        found.append(TargetStatistic(name, unit, mean, std, low, high, 1 - total.count / max(count, 1)))
    return found


class _Sums:
    """Running sums per band in float64 around the first value seen, and a sample for percentiles."""

    def __init__(self, num_bands: int) -> None:
        self.count = 0
        self.shift: npt.NDArray[np.float64] | None = None
        self.first = np.zeros(num_bands)
        self.second = np.zeros(num_bands)
        self.kept: list[npt.NDArray[np.float32]] = []

    def add(self, values: npt.NDArray[np.generic]) -> None:
        """values (C, N)."""
        if values.shape[1] == 0:
            return
        exact = values.astype(np.float64)
        if self.shift is None:
            self.shift = exact[:, :1].copy()
        moved = exact - self.shift
        self.count += values.shape[1]
        self.first += moved.sum(1)
        self.second += (moved**2).sum(1)
        self.kept.append(values[:, :: max(1, values.shape[1] // 4096)].astype(np.float32))

    def moments(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and std of each band; NaN where nothing was added."""
        if self.shift is None:
            return np.full_like(self.first, np.nan), np.full_like(self.first, np.nan)
        mean = self.shift[:, 0] + self.first / self.count
        return mean, np.sqrt(np.maximum(self.second / self.count - (self.first / self.count) ** 2, 0))

    def finish(
        self, normalise: str, *, where: str, bands: Sequence[str]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and std in file numbers by the chosen policy."""
        if normalise == "none":
            return np.zeros(len(bands)), np.ones(len(bands))
        mean, std = self.moments()
        if normalise == "percentile":
            low, high = np.percentile(np.concatenate(self.kept, 1), (2, 98), axis=1)
            mean, std = (low + high) / 2, (high - low) / 2
        flat = [name for name, s in zip(bands, std, strict=True) if s <= 1e-12]
        if flat:
            raise DataError(
                f"{where}: band {', '.join(flat)} is constant in the train part", fix="leave it out: data.use: [...]"
            )
        return mean, std


def normalise_sample(sample: Sample, spec: InputSpec) -> dict[str, npt.NDArray[np.float32]]:
    """{sensor: (T, C, H, W)} float32 network input: scaled, standardised, cut to +-clip, 0 where not valid."""
    out = {}
    for entry in spec.sensors:
        if entry.optional and entry.sensor not in sample.image:
            continue
        values = sample.image[entry.sensor]
        have = sample.bands.get(entry.sensor, entry.bands)
        if have != entry.bands:
            out[entry.sensor] = _spread(normalise_sample(sample, _only(spec, entry, have))[entry.sensor], entry, have)
            continue
        entry = _own_numbers(entry, sample) if entry.per_scene else entry
        std = np.asarray(entry.std, np.float32)[:, None, None]
        gain = np.float32(entry.scale) / std
        shift = (np.float32(entry.offset) - np.asarray(entry.mean, np.float32)[:, None, None]) / std
        scaled = values.astype(np.float32)
        scaled *= gain
        scaled += shift
        np.clip(scaled, -entry.clip, entry.clip, out=scaled)
        if not sample.valid.all():
            # Also replaces the NaN and inf of pixels that are not valid, which clip lets through.
            scaled = np.where(mask_for(sample.valid, len(values))[:, None], scaled, np.float32(0))
        out[entry.sensor] = scaled
    return out


def with_own_statistics(
    scenes: Sequence[Scene], spec: InputSpec, *, max_px: int = 1 << 24, seed: int = 0
) -> list[Scene]:
    """The scenes with mean and std of their own numbers, where the model is normalised by them; else as they are.

    Scenes that have them keep them.
    Scenes of one place (the chips of one event) share them. All valid pixels count, whatever part they are in: labels
    are not looked at. Windows beyond `max_px` pixels of a place are left out at random.
    """
    entries = [entry for entry in spec.sensors if entry.per_scene]
    if not entries or all(scene.statistics for scene in scenes):
        return list(scenes)
    found: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for place in dict.fromkeys(scene.place or scene.name for scene in scenes):
        members = [scene for scene in scenes if (scene.place or scene.name) == place]
        windows = [(scene, window) for scene in members for window in partition(scene.grid.window, 256, 256)]
        found[place] = _measure(_at_most(windows, max_px, seed), entries)
    return [replace(scene, statistics=found[scene.place or scene.name]) for scene in scenes]


def _measure(
    windows: Sequence[tuple[Scene, Window]], entries: Sequence[SensorInput]
) -> dict[str, dict[str, tuple[float, float]]]:
    """{sensor: {band: (mean, std)}} in physical units; a band that is constant here, or nowhere valid, is left out."""
    sums: dict[str, _Sums] = {}
    bands: dict[str, tuple[str, ...]] = {}
    for scene, window in windows:
        sample = scene.read(window)
        for entry in entries:
            values = sample.image.get(entry.sensor)
            if values is None:
                continue
            bands[entry.sensor] = sample.bands[entry.sensor]
            total = sums.setdefault(entry.sensor, _Sums(values.shape[1]))
            for values_t, valid in zip(values, mask_for(sample.valid, len(values)), strict=True):
                total.add(values_t[:, valid])
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for entry in entries:
        if entry.sensor in sums and sums[entry.sensor].count:
            mean, std = sums[entry.sensor].moments()
            numbers = zip(bands[entry.sensor], mean * entry.scale + entry.offset, std * entry.scale, strict=True)
            found[entry.sensor] = {band: (float(m), float(s)) for band, m, s in numbers if s > 1e-12}
    return found


def _own_numbers(entry: SensorInput, sample: Sample) -> SensorInput:
    """The entry with the mean and std of the sample's scene; bands that are constant there keep the data set's."""
    own = sample.statistics.get(entry.sensor, {})
    both = [own.get(band, pair) for band, *pair in zip(entry.bands, entry.mean, entry.std, strict=True)]
    return replace(entry, mean=tuple(pair[0] for pair in both), std=tuple(pair[1] for pair in both))


def _only(spec: InputSpec, entry: SensorInput, bands: Sequence[str]) -> InputSpec:
    """The spec of some bands of one sensor, in the order given; raises BandError where the sensor is not optional."""
    lost = [band for band in entry.bands if band not in bands]
    if lost and not entry.optional:
        raise BandError(f"{entry.sensor} lacks {', '.join(lost)}", fix="give images with all bands of the model")
    at = [entry.bands.index(band) for band in bands]
    mean, std = tuple(entry.mean[i] for i in at), tuple(entry.std[i] for i in at)
    return replace(spec, sensors=(replace(entry, bands=tuple(bands), mean=mean, std=std),))


def _spread(values: npt.NDArray[np.float32], entry: SensorInput, bands: Sequence[str]) -> npt.NDArray[np.float32]:
    """Bands (T, c, H, W) put at their places among all of the sensor's; those that are missing are 0, their mean."""
    out = np.zeros((values.shape[0], len(entry.bands), *values.shape[2:]), np.float32)
    out[:, [entry.bands.index(band) for band in bands]] = values
    return out


def with_statistics(spec: InputSpec, published: Mapping[str, Mapping[str, Statistic]]) -> tuple[InputSpec, list[str]]:
    """A measured spec with published means and stds, {sensor: {band: statistic}}, and notes.

    Bands without published numbers keep their own. Raises BandError where the data is on another scale altogether.
    """
    notes = []
    sensors = []
    for entry in spec.sensors:
        known = published.get(entry.sensor, {})
        own = {band: (m, s) for band, m, s in zip(entry.bands, entry.mean, entry.std, strict=True)}
        if known:
            notes += _require_scale(entry, [(own[band], known[band]) for band in entry.bands if band in known])
        both = [known[band][:2] if band in known else own[band] for band in entry.bands]
        sensors.append(replace(entry, mean=tuple(m for m, _ in both), std=tuple(s for _, s in both)))
    return replace(spec, sensors=tuple(sensors)), notes


def _require_scale(entry: SensorInput, pairs: Sequence[tuple[tuple[float, float], Statistic]]) -> list[str]:
    """Refuse data on another scale: where another factor would clearly fit, or radar that is not in dB.

    A scene may well be darker or flatter than what the weights were trained on: that alone is only noted.
    """
    mean, std = np.median([own for own, _ in pairs], axis=0)
    usual, spread = np.median([known[:2] for _, known in pairs], axis=0)
    unit = pairs[0][1].unit
    numbers = f"mean {mean:.3g}, std {std:.3g}; the weights were trained with mean {usual:.3g}, std {spread:.3g}"
    trouble = f"{entry.sensor} is on another scale than the weights: {numbers} ({unit})"
    if unit == "dB" and usual < 0 < mean:
        raise BandError(
            trouble, fix="set quantity: power (or amplitude) in the image's entry, or train.normalise: dataset"
        )

    def fits(factor: float, ratio: float, shift: float) -> bool:
        apart = abs(factor * mean - usual) / spread
        return bool(1 / ratio <= factor * std / spread <= ratio and apart <= shift)

    if unit in _FACTORED and not fits(1, 30, 10):
        likely = [factor for factor in _FACTORS if fits(factor, 8, 3)]
        if likely or not fits(1, np.inf, 10):
            scale = f"set scale: {entry.scale * likely[0]:.4g} in the image's entry" if likely else "check its unit"
            raise BandError(
                trouble,
                fix=f"name the right sensor, or {scale}; or use the data's own numbers (train.normalise: dataset)",
            )
    flat = std < spread / 10
    return [f"{entry.sensor} varies little ({numbers}): if it looks wrong, try normalise: dataset"] if flat else []


_FACTORED = ("reflectance", "8-bit brightness")
_FACTORS = (1e4, 1e-4, 255, 1 / 255, 1e3, 1e-3, 100, 1e-2)
