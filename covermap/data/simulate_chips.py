"""LUCAS-like chips whose Bayes rule is known: how much recall of rare classes a price in accuracy can buy at all.

    class -> cover (a mixture of materials) -> 8 statistics -> log reflectance -> chip (6, H, W)

The logarithm of a chip is written in an orthonormal basis, the discrete cosine transform: six band means, a coarse part
and a fine part, the parts as a length and a direction each. The class decides the distribution of the means and of the
two lengths, a mixture of Gaussians; the directions (what the texture looks like) are drawn alike for all classes and
apart from the statistics. Chip <-> (means, lengths, directions) is one to one and its Jacobian does not know the class:

    p(chip | class) = p(means, log lengths | class) p(directions) J(chip)

so that the 8 statistics are sufficient and the posterior of a chip is exact, up to the rounding of its float32 pixels.
A chip is a function of (seed, number); its size changes the texture's pixels, not its statistics.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError
from covermap.core.output import claim, replacing
from covermap.data import miniature
from covermap.data.simulate_sensors import CLOUD, MATERIALS, key_of
from covermap.data.sources.lucas import BANDS, TABLE
from covermap.data.split import Split, Tile
from covermap.geo.grid import Window

Reals = npt.NDArray[np.float64]
Chips = npt.NDArray[np.float32]

CLASS_COUNTS = (511, 178, 205, 704, 126, 57, 125, 43, 20, 25)
"""Chips of STR18 1 to 10 in LUCAS Italy as titocapovilla/Geospatial-Foundation-Models has it, 1,994 in all."""
TRAIN_COUNTS = (409, 142, 164, 563, 101, 46, 100, 34, 16, 20)
"""Of these the 1,595 that train there: the stratified 80 %, as the class weights it printed say."""
PRIOR: Reals = np.array(CLASS_COUNTS) / sum(CLASS_COUNTS)

# Difficulty. Class by class, equally likely covers: shares of materials, and the logarithms of their coarse and fine
# texture against the usual. Rare classes lie close to common ones, so that the argmax rule gives them away.
_COVERS: tuple[tuple[tuple[dict[str, float], float, float], ...], ...] = (
    (({"dark soil": 0.6, "light soil": 0.4}, -0.1, -0.2), ({"green crop": 0.6, "dark soil": 0.4}, -0.1, -0.2),
     ({"straw": 0.7, "dark soil": 0.3}, -0.1, -0.2)),
    (({"light soil": 0.5, "broadleaves": 0.5}, -0.2, 0.4), ({"dry grass": 0.5, "broadleaves": 0.5}, -0.2, 0.4)),
    (({"green grass": 0.7, "dry grass": 0.3}, -0.3, -0.3), ({"dry grass": 0.7, "green grass": 0.3}, -0.3, -0.3)),
    (({"broadleaves": 1.0}, 0.0, 0.2), ({"conifers": 0.6, "broadleaves": 0.4}, 0.2, 0.2)),
    (({"broadleaves": 0.6, "dry grass": 0.4}, 0.2, 0.3), ({"conifers": 0.6, "dry grass": 0.4}, 0.2, 0.3)),
    (({"light soil": 0.6, "dry grass": 0.4}, 0.3, -0.1), ({"concrete": 0.5, "dry grass": 0.5}, 0.3, -0.1)),
    (({"red roof": 0.4, "asphalt": 0.3, "green grass": 0.3}, 0.2, 0.6),
     ({"grey roof": 0.4, "asphalt": 0.3, "broadleaves": 0.3}, 0.2, 0.6)),
    (({"clear water": 0.3, "conifers": 0.5, "broadleaves": 0.2}, 0.3, 0.1),
     ({"turbid water": 0.35, "green grass": 0.4, "broadleaves": 0.25}, 0.3, 0.0)),
    (({"turbid water": 0.35, "green crop": 0.3, "dark soil": 0.35}, 0.2, -0.3),
     ({"clear water": 0.45, "dry grass": 0.55}, 0.2, -0.3)),
    (({"cloud": 0.05, "broadleaves": 0.95}, 0.2, -0.1),
     ({"cloud": 0.07, "green crop": 0.4, "dark soil": 0.53}, 0.2, -0.1)),
)  # fmt: skip
# Spreads within a cover, all of natural logarithms: light on the chip, its green against its soil, each band, texture.
_LIGHT, _GREEN, _OWN, _ROUGH = 0.24, 0.29, 0.13, 0.48
_COARSE, _FINE = np.log(0.08), np.log(0.05)  # usual texture, rms of log reflectance
_SHARED = 0.8  # share of the texture's variance that all bands have in common

_SPECTRA = {name: np.array(spectrum, np.float64) for name, spectrum in {**MATERIALS, "cloud": CLOUD}.items()}


def _means_and_factor() -> tuple[list[Reals], Reals]:
    """Means (M, 8) of the covers of each class, and the Cholesky factor (8, 8) of the covariance within all covers."""
    means = [
        np.array(
            [
                [*np.log(sum(share * _SPECTRA[name] for name, share in mix.items())), _COARSE + coarse, _FINE + fine]
                for mix, coarse, fine in covers
            ]
        )
        for covers in _COVERS
    ]
    green = np.log(_SPECTRA["broadleaves"] / _SPECTRA["light soil"])
    within: Reals = np.zeros((8, 8))
    within[:6, :6] = _LIGHT**2 + _GREEN**2 * np.outer(green, green) / np.mean(green**2) + _OWN**2 * np.eye(6)
    within[6:, 6:] = _ROUGH**2 * np.eye(2)
    return means, np.asarray(np.linalg.cholesky(within))


_MEANS, _FACTOR = _means_and_factor()


def chip_classes(seed: int, numbers: Iterable[int]) -> npt.NDArray[np.int64]:
    """Class indices (N,). Each 1,994 chips in a row hold CLASS_COUNTS, the first 1,595 of them TRAIN_COUNTS."""
    size = sum(CLASS_COUNTS)
    return np.array([_order(seed, number // size)[number % size] for number in numbers], np.int64)


@lru_cache(64)
def _order(seed: int, block: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(key_of(seed, "chip order", block))
    train = np.array(TRAIN_COUNTS)
    drawn = [rng.permutation(np.repeat(np.arange(len(n)), n)) for n in (train, np.array(CLASS_COUNTS) - train)]
    return np.concatenate(drawn)


def _begin(seed: int, number: int) -> tuple[np.random.Generator, Reals]:
    """A chip's random numbers and its statistics (8,)."""
    rng = np.random.default_rng(key_of(seed, "chip", number))
    covers = _MEANS[int(chip_classes(seed, [number])[0])]
    return rng, covers[rng.integers(len(covers))] + _FACTOR @ rng.standard_normal(8)


def draw_statistics(seed: int, numbers: Iterable[int]) -> Reals:
    """(N, 8), without making the chips: mean log reflectance of six bands, log rms of coarse and of fine texture."""
    return np.stack([_begin(seed, number)[1] for number in numbers])


@lru_cache(4)
def _basis(size_px: int) -> tuple[Reals, Reals, Reals]:
    """The orthonormal DCT-II (S, S), masks (2, S, S) of its coarse and fine coefficients, their usual amplitude."""
    if size_px < 8:
        raise ConfigError(f"chips of {size_px} px hold no texture", fix="give a size of 8 px or more")
    k = np.arange(size_px)
    transform = np.sqrt(2 / size_px) * np.cos(np.pi * (k + 0.5) * k[:, None] / size_px)
    transform[0] /= np.sqrt(2)
    wave = np.hypot(k, k[:, None])
    amplitude = np.divide(1, wave, out=np.zeros_like(wave), where=wave > 0)
    coarse = (wave > 0) & (wave <= size_px / 4)
    return transform, np.stack([coarse, wave > size_px / 4]).astype(np.float64), amplitude


def draw_chips(seed: int, numbers: Iterable[int], *, size_px: int = 32) -> Chips:
    """Chips (N, 6, S, S) of reflectance; bands as in sources.lucas. Raises ConfigError below 8 px."""
    return np.stack([_chip(seed, number, size_px) for number in numbers])


def _chip(seed: int, number: int, size_px: int) -> Chips:
    rng, wanted = _begin(seed, number)
    transform, parts, amplitude = _basis(size_px)
    white = rng.standard_normal((7, size_px, size_px))
    waves = amplitude * (np.sqrt(_SHARED) * white[6] + np.sqrt(1 - _SHARED) * white[:6])
    waves *= np.tensordot(np.exp(wanted[6:] - _log_rms(waves, parts)), parts, 1)
    waves[:, 0, 0] = wanted[:6] * size_px  # the first coefficient is S times the band's mean
    return np.asarray(np.exp(transform.T @ waves @ transform), np.float32)


def _log_rms(waves: Reals, parts: Reals) -> Reals:
    """(..., 2): log of the root mean square, over bands and pixels, of both parts of coefficients (..., 6, S, S)."""
    power = (waves**2).mean(-3)
    return np.asarray(np.log(np.tensordot(power, parts, ((-2, -1), (-2, -1))) / parts[0].size) / 2)


def measure_statistics(chips: Chips) -> Reals:
    """The statistics (N, 8) of chips (N, 6, S, S), from their pixels; raises ConfigError for what is no such chips."""
    usual = chips.ndim == 4 and chips.shape[1] == 6 and chips.shape[2] == chips.shape[3] and len(chips) > 0
    if not usual or not (np.isfinite(chips) & (chips > 0)).all():
        raise ConfigError(f"chips {chips.shape} are not reflectance (N, 6, S, S)", fix="give those of draw_chips")
    transform, parts, _ = _basis(chips.shape[-1])
    found = []
    for some in np.split(chips, range(512, len(chips), 512)):  # in float64 all would need gigabytes
        waves = transform @ np.log(some.astype(np.float64)) @ transform.T
        found.append(np.concatenate([waves[..., 0, 0] / chips.shape[-1], _log_rms(waves, parts)], 1))
    return np.concatenate(found)


def log_likelihood(statistics: Reals) -> Reals:
    """log p(statistics | class), (N, 8) -> (N, K), up to a number that is the same for all classes."""
    found = []
    for covers in _MEANS:
        away = np.linalg.solve(_FACTOR, (statistics[:, None] - covers).reshape(-1, 8).T)
        squares = (away**2).sum(0).reshape(len(statistics), len(covers))
        found.append(np.logaddexp.reduce(-squares / 2, 1) - np.log(len(covers)))
    return np.stack(found, 1)


def bayes_log_posterior(chips: Chips, prior: npt.ArrayLike = PRIOR) -> Reals:
    """The generator's own log p(class | chip), (N, 6, S, S) -> (N, K), where classes occur as `prior` (K,) says.

    Raises ConfigError for chips that are none, or a prior that is not positive for every class.
    """
    share = np.asarray(prior, np.float64)
    if share.shape != PRIOR.shape or not (share > 0).all():
        raise ConfigError(
            f"the prior {share.tolist()} is not a positive number for each class", fix=f"give {len(PRIOR)} shares"
        )
    joint = log_likelihood(measure_statistics(chips)) + np.log(share)
    return np.asarray(joint - np.logaddexp.reduce(joint, 1, keepdims=True))


def write_chips(
    folder: Path | str,
    *,
    seed: int = 0,
    size_px: int = 32,
    num_train: int = sum(TRAIN_COUNTS),
    num_val: int = 399,
    num_test: int = 20_000,
    overwrite: bool = False,
) -> Path:
    """Write the layout `lucas` and split.csv (for split.method csv) into a new folder; returns the split's path.

    The first num_train chips train, the next num_val select, the next num_test score; Point_ID is 44,000,000 + number.
    They lie 2 km apart in the order of their numbers, as LUCAS points do. Raises OutputError when the folder is there,
    ConfigError for counts or sizes that make no set.
    """
    if num_train < 1 or num_val < 0 or num_test < 0:
        raise ConfigError(
            f"{num_train} chips to train, {num_val} to select, {num_test} to score", fix="give 1, 0, 0 or more"
        )
    _basis(size_px)  # refuses the size before any work
    parts = ["train"] * num_train + ["val"] * num_val + ["test"] * num_test
    codes = (chip_classes(seed, range(len(parts))) + 1).tolist()
    columns = int(np.ceil(len(parts) ** 0.5))
    folder = claim(folder, overwrite=overwrite)
    points = [str(44_000_000 + number) for number in range(len(parts))]
    with replacing(folder) as new:
        for number, (point, code) in enumerate(zip(points, codes, strict=True)):
            place = (300_000 + 2000 * (number % columns), 5_100_000 - 2000 * (number // columns))
            chip = _chip(seed, number, size_px)
            miniature.write(new / str(code) / f"{point}.tif", chip, origin=place, epsg=32632, bands=BANDS)
        with open(new / TABLE, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("Point_ID", "STR18"), *zip(points, codes, strict=True)])
        whole = Window(0, 0, size_px, size_px)
        tiles = tuple(Tile(point, whole, part) for point, part in zip(points, parts, strict=True))
        Split(tiles, 0, "csv").save(new / "split.csv")
    return folder / "split.csv"
