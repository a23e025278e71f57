"""Accuracy and area from a probability sample of a map: what its design allows to be said, never counts of pixels.

units of a sample -> hectares that each stands for -> ratios of totals -> standard errors, as units of a stratum differ

One estimator serves all designs, a ratio of weighted totals, linearised (Stehman 2014,
doi:10.1080/01431161.2014.930207). Where strata are the map's classes it is that of Olofsson et al. (2014,
doi:10.1016/j.rse.2014.02.015, eq. 1 to 11). Units of a cluster are added up first, so that what they have in common
counts. Samples are taken as small beside the map: no correction for finite populations, which would make intervals
narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from covermap.core.errors import DataError
from covermap.metrics.confusion import ratio

Z95 = 1.96
"""Half the width of a 95 % interval in standard errors, as the literature has it."""
_NAN = float("nan")
Bits = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """A sample of N units (pixels): class on the map and in reality, stratum and cluster, all as index; hectares.

    weight: hectares that a unit stands for. pure: whether stratum s holds no map class but class s.
    """

    mapped: npt.NDArray[np.intp]
    reference: npt.NDArray[np.intp]
    stratum: npt.NDArray[np.intp]
    cluster: npt.NDArray[np.intp]
    weight: Floats
    pure: bool = False

    def __post_init__(self) -> None:
        if len({len(v) for v in (self.mapped, self.reference, self.stratum, self.cluster, self.weight)}) > 1:
            raise DataError("the columns of a sample differ in length", fix="give one value for each unit")
        if not (np.isfinite(self.weight).all() and (self.weight > 0).all()):
            raise DataError("a unit of a sample stands for no hectares", fix="check the design's numbers of pixels")


@dataclass(frozen=True)
class Estimate:
    """A share with its standard error and 95 % interval; `note` says why there is none, or of what kind it is.

    count: units that it rests on.
    """

    value: float
    se: float
    low: float
    high: float
    count: int
    note: str = ""

    @property
    def ci95(self) -> float:
        """Half the width of the interval: the larger side where it is not symmetrical."""
        return _NAN if np.isnan(self.low) else max(self.high - self.value, self.value - self.low)


@dataclass(frozen=True)
class Accuracy:
    """What a sample says of a map of K classes; shares of area, each an Estimate.

    counts, shares (K, K): units, and estimated shares of the area, by class on the map and in reality.
    """

    areas: tuple[Estimate, ...]
    overall: Estimate
    users: tuple[Estimate, ...]
    producers: tuple[Estimate, ...]
    counts: npt.NDArray[np.int64]
    shares: Floats

    @property
    def kappa(self) -> float:
        """Cohen's kappa of the estimated shares: without an interval, for those who must."""
        chance = float((self.shares.sum(0) * self.shares.sum(1)).sum())
        return float(ratio(np.trace(self.shares) - chance, 1 - chance))


def accuracy(units: Units, num_classes: int) -> Accuracy:
    """All estimates from a sample; raises DataError where it is empty."""
    if not len(units.weight):
        raise DataError("the sample holds no unit", fix="draw one: covermap sample MAP OUT.gpkg")
    everything = np.ones(len(units.weight), bool)
    hit = units.mapped == units.reference
    counts = np.zeros((num_classes, num_classes), np.int64)
    shares = np.zeros((num_classes, num_classes))
    np.add.at(counts, (units.mapped, units.reference), 1)
    np.add.at(shares, (units.mapped, units.reference), units.weight / units.weight.sum())
    classes = range(num_classes)
    return Accuracy(
        areas=tuple(share_of(units, units.reference == k, everything) for k in classes),
        overall=share_of(units, hit, everything),
        users=tuple(share_of(units, hit, units.mapped == k, stratum=k if units.pure else None) for k in classes),
        producers=tuple(share_of(units, hit, units.reference == k, by_reference=True) for k in classes),
        counts=counts,
        shares=shares,
    )


def share_of(
    units: Units, what: Bits, within: Bits, *, stratum: int | None = None, by_reference: bool = False
) -> Estimate:
    """The share of the area `within` that is `what` too, both (N,); not known where nothing is within.

    stratum: the only one that `within` can be in; others do not matter then. by_reference: only interpretation tells
    what is within, so strata in which no unit is may hold some of it.
    """
    count = int(within.sum())
    if not count:
        return Estimate(_NAN, _NAN, _NAN, _NAN, 0, "no unit of the sample is of this class")
    x = units.weight * within
    value = float((x * what).sum() / x.sum())
    residual = (what - value) * within / x.sum()
    variance, single = 0.0, 0
    for number in np.unique(units.stratum) if stratum is None else [stratum]:
        of = units.stratum == number
        found = _between(units, residual, of)
        single += np.isnan(found)
        variance += 0.0 if np.isnan(found) else found
    if single:
        note = f"{single} strata with one unit or cluster only: no interval can be told"
        return Estimate(value, _NAN, _NAN, _NAN, count, note)
    se, half = float(np.sqrt(variance)), _errors_in_half(units, within)
    if np.isnan(half):
        return Estimate(value, _NAN, _NAN, _NAN, count, "from one cluster only: no interval can be told")
    if se <= 1e-12:
        return _wilson(units, value, within, by_reference=by_reference)
    return Estimate(value, se, max(0.0, value - half * se), min(1.0, value + half * se), count)


def _errors_in_half(units: Units, within: Bits) -> float:
    """Half the width of a 95 % interval in standard errors: of clusters Student's, for few of them know it badly.

    Degrees of freedom: clusters that hold a unit that is within, less one; NaN where there is one only.
    """
    if len(np.unique(units.cluster)) == len(units.cluster):
        return Z95
    from scipy.special import stdtrit

    free = len(np.unique(units.cluster[within])) - 1
    return max(Z95, float(stdtrit(free, 0.975))) if free else _NAN


def _between(units: Units, residual: Floats, of: Bits) -> float:
    """A stratum's part of the variance: how much the sums of its clusters differ; NaN of a single one."""
    weight = units.weight[of]
    _, cluster = np.unique(units.cluster[of], return_inverse=True)
    num = int(cluster.max()) + 1
    if num < 2:
        return _NAN
    centred = residual[of] - np.average(residual[of], weights=weight)
    sums = np.bincount(cluster, weight * centred, num)
    return float(num / (num - 1) * ((sums - sums.mean()) ** 2).sum())


def _wilson(units: Units, value: float, within: Bits, *, by_reference: bool) -> Estimate:
    """Where no unit of a stratum differs from another: an interval of width 0 would say that nothing can be wrong.

    The far end of Wilson's (1927) interval of a share of 0 or 1 in each stratum, added up as independent.
    """
    total = float((units.weight * within).sum())

    def far(chosen: Bits) -> float:
        """By how much of `total` the strata of the chosen units can be wrong."""
        variance = 0.0
        for number in np.unique(units.stratum[chosen]):
            of = chosen & (units.stratum == number)
            num = len(np.unique(units.cluster[of]))
            variance += float(units.weight[of].sum() / total * Z95**2 / (num + Z95**2)) ** 2
        return float(np.sqrt(variance))

    half = far(within)
    unseen = far(~np.isin(units.stratum, units.stratum[within])) if by_reference else 0.0
    low, high = max(0.0, value - half) / (1 + unseen), min(1.0, (value + half + unseen) / (1 + unseen))
    note = "all units of each stratum agree: Wilson's interval"
    return Estimate(value, max(high - value, value - low) / Z95, low, high, int(within.sum()), note)


def weights_of(stratum: npt.NDArray[np.intp], area_ha: Sequence[float], pixel_ha: Floats) -> Floats:
    """Hectares that each unit (N,) stands for: those of its stratum, divided by the size of the units' own pixels.

    Raises DataError for a stratum without a unit: nothing would be known of its part of the map.
    """
    own = np.bincount(stratum, pixel_ha, len(area_ha))
    empty = [number for number, (n, ha) in enumerate(zip(own, area_ha, strict=True)) if not n and ha > 0]
    if empty:
        raise DataError(f"{len(empty)} strata hold no unit of the sample", fix="draw the sample of this map anew")
    return np.asarray(np.asarray(area_ha, np.float64)[stratum] * pixel_ha / own[stratum])


def poststrata(num_units: Sequence[int]) -> npt.NDArray[np.intp]:
    """Group (K,) of each class on the map, by units of a sample that was drawn without strata.

    A group needs two units; classes that have fewer are put together, with the next larger one if they must be.
    """
    order = np.argsort(num_units, kind="stable")
    sums = np.cumsum(np.asarray(num_units)[order])
    small = int(np.count_nonzero(np.asarray(num_units) < 2))
    while 0 < small < len(order) and sums[small - 1] < 2:
        small += 1
    group = np.arange(len(order))
    group[order[:small]] = order[0]
    return group


def sample_size(shares: npt.ArrayLike, users: npt.ArrayLike, target_se: float) -> int:
    """Units that overall accuracy needs for a standard error, by shares of area and expected user's accuracies (K,).

    Olofsson et al. (2014), eq. 13, without the correction for finite maps.
    """
    w, u = np.asarray(shares, np.float64), np.asarray(users, np.float64)
    return int(np.ceil(round(float((w * np.sqrt(u * (1 - u))).sum() / target_se) ** 2, 6)))


def allocate(num: int, num_pixels: Sequence[int], *, method: str, users: Sequence[float], floor: int) -> list[int]:
    """Units of each stratum, about `num` in all and never more than it has pixels.

    proportional (to pixels), equal, neyman (to pixels x expected standard deviation), or mixed: proportional, but at
    least `floor` each, the larger strata giving theirs (Olofsson et al. 2014, section 5.1.2), or as many as all can
    have alike. At least two each.
    """
    size = np.asarray(num_pixels, np.float64)
    spread = np.sqrt(np.asarray(users) * (1 - np.asarray(users)))
    share = {"equal": (size > 0) * 1.0, "neyman": size * spread}.get(method, size)
    alike = num // max(1, int(np.count_nonzero(size)))
    least = np.minimum(size, max(2, min(floor, alike) if method == "mixed" else 2))
    wanted, fixed = np.zeros(len(size)), size == 0
    while not fixed.all():
        wanted[~fixed] = max(0.0, num - wanted[fixed].sum()) * share[~fixed] / share[~fixed].sum()
        # What is too much for some is shared out among the others; then these give to those that have too little.
        beyond, short = ~fixed & (wanted > size), ~fixed & (wanted < least)
        if not (beyond | short).any():
            break
        over, under = (wanted - size)[beyond].sum(), (least - wanted)[short].sum()
        now = beyond if over >= under else short
        wanted[now] = np.clip(wanted, least, size)[now]
        fixed |= now
    return [int(n) for n in _whole(wanted, least)]


def _whole(wanted: Floats, least: Floats) -> npt.NDArray[np.int64]:
    """Whole numbers with the same sum: the largest remainders are rounded up."""
    down = np.floor(wanted + 1e-9)
    lacking = round(float(wanted.sum() - down.sum()))
    up = np.argsort(-(wanted - down), kind="stable")[:lacking]
    down[up] += 1
    return np.asarray(np.maximum(down, least), np.int64)
