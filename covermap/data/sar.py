"""Radar products by name: seasonal and monthly backscatter, coherence, and interferograms of pairs of dates.

    file -> names of its bands (its own, or those of the product's page) -> the wanted ones as images of one scene

A season or month is a date of the scene, so that models of time series take it. A band is never counted from its place
where the file names it. Numbers stay as they are in the file; differences such as vv-vh are taken in floating point.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError, DataError, suggest
from covermap.geo.layers import read_layers

SEASONS = ("winter", "spring", "summer", "fall")
MIDDLE = {"winter": 1, "spring": 4, "summer": 7, "fall": 10}
"""A month in the middle of each season of the northern year (winter is December to February)."""
MONTHS = tuple(range(1, 13))
SEASONAL = tuple(f"{season}_{pol}{way}" for season in SEASONS for pol in ("vv", "vh") for way in ("asc", "des"))
MONTHLY = tuple(f"{month:02d}_{pol}" for month in MONTHS for pol in ("vv", "vh"))
BACKSCATTER = ("vv", "vh", "vv-vh", "vh-vv")


@dataclass(frozen=True)
class SeasonalBackscatter:
    """Medians of four seasons, two polarisations and two directions of flight; each season is a date.

    bands: of vv, vh, vv-vh. direction: asc or des.
    """

    seasons: Sequence[str] = SEASONS
    bands: Sequence[str] = ("vv", "vh")
    direction: str = "asc"

    def __post_init__(self) -> None:
        _require_known("seasons", self.seasons, SEASONS)
        _require_known("bands", self.bands, BACKSCATTER)
        _require_known("direction", [self.direction], ("asc", "des"))

    def images(self, path: Path, year: str) -> list[ImageConfig]:
        """The wanted bands, a date for each season; raises DataError."""
        names = read_layers(str(path)).named(SEASONAL, where=str(path))
        dates = [
            (_month(year, MIDDLE[season]), {f"{season}_{pol}{self.direction}": pol for pol in _sides(self.bands)})
            for season in self.seasons
        ]
        return by_name(path, names, dates, use=self.bands, sensor="sentinel1")


@dataclass(frozen=True)
class MonthlyBackscatter:
    """Medians of twelve months and two polarisations; each month is a date. bands: of vv, vh, vv-vh."""

    months: Sequence[int] = MONTHS
    bands: Sequence[str] = ("vv", "vh")

    def __post_init__(self) -> None:
        _require_known("months", self.months, MONTHS)
        _require_known("bands", self.bands, BACKSCATTER)

    def images(self, path: Path, year: str) -> list[ImageConfig]:
        """The wanted bands, a date for each month; raises DataError."""
        names = read_layers(str(path)).named(MONTHLY, where=str(path))
        dates = [
            (_month(year, month), {f"{month:02d}_{pol}": pol for pol in _sides(self.bands)}) for month in self.months
        ]
        return by_name(path, names, dates, use=self.bands, sensor="sentinel1")


@dataclass(frozen=True)
class Coherence:
    """Global seasonal coherence and backscatter (Kellndorfer et al. 2022) as netCDF; each season is a date.

    variable: coherence (of `deltadays` between both images: bands coherence12 to coherence48), amplitude (vv, vh),
    decaymodel (rho, tau, rmse) or geometry (inc, lsmap; it has no seasons). bands: of the last three, by name.
    """

    variable: str = "coherence"
    seasons: Sequence[str] = SEASONS
    deltadays: Sequence[int] = (12, 24, 36, 48)
    bands: Sequence[str] | None = None

    KNOWN = {"amplitude": ("vv", "vh"), "decaymodel": ("rho", "tau", "rmse"), "geometry": ("inc", "lsmap")}  # noqa: RUF012

    def __post_init__(self) -> None:
        _require_known("variable", [self.variable], ("coherence", *self.KNOWN))
        _require_known("seasons", self.seasons, SEASONS)
        _require_known("deltadays", self.deltadays, (12, 24, 36, 48))
        if self.variable == "coherence" and self.bands is not None:
            raise ConfigError("bands has no effect on coherence", fix="choose by deltadays: [12, 24, 36, 48]")
        if self.variable != "coherence" and self.bands is not None:
            _require_known("bands", self.bands, self.KNOWN[self.variable])

    def images(self, path: Path, year: str) -> list[ImageConfig]:
        """The wanted bands, a date for each season; raises DataError."""
        places = read_layers(str(path), self.variable).places
        names = [" ".join(sorted(_number(value) for value in place.values())) for place in places]
        if self.variable == "coherence":
            wanted = {str(days): f"coherence{days}" for days in self.deltadays}
        else:
            wanted = {name: name for name in self.bands or self.KNOWN[self.variable]}
        seasons = self.seasons if any("season" in place for place in places) else ("",)
        dates = [
            (
                _month(year, MIDDLE[season]) if season else None,
                {" ".join(sorted(filter(None, (season, name)))): band for name, band in wanted.items()},
            )
            for season in seasons
        ]
        sensor = "sentinel1" if self.variable == "amplitude" else "sentinel1_coherence"
        return by_name(path, names, dates, use=list(wanted.values()), sensor=sensor, variable=self.variable)


@dataclass(frozen=True)
class Interferograms:
    """Unwrapped interferograms (GUNW) as netCDF: pairs of dates, chosen anew in each file.

    pairs: {name: {days: [least, most], rule: close | far, before: DAY, after: DAY}}; the bands are VARIABLE_NAME.
    variables: amplitude, unwrappedPhase, coherence.
    """

    pairs: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"short": {"days": [0, 60], "rule": "far"}})
    variables: Sequence[str] = ("unwrappedPhase",)

    def __post_init__(self) -> None:
        _require_known("variables", self.variables, ("amplitude", "unwrappedPhase", "coherence"))
        if not self.pairs:
            raise ConfigError("pairs names no pair", fix="pairs: {short: {days: [0, 60], rule: close}}")
        for rule in self.pairs.values():
            choose_pair([], **rule)

    def images(self, path: Path, year: str) -> list[ImageConfig]:
        """One image without date, its bands each variable of each pair; raises DataError where no pair fits."""
        names: list[str] = []
        wanted: dict[str, str] = {}
        for variable in self.variables:
            pairs = [place["datepair"] for place in read_layers(str(path), variable).places]
            names += [f"{variable} {pair}" for pair in pairs]
            for name, rule in self.pairs.items():
                chosen = choose_pair(pairs, **rule)
                if chosen is None:
                    raise DataError(f"{path} has no pair of dates for {name}", fix="widen its days, before or after")
                wanted[f"{variable} {chosen}"] = f"{variable}_{name}".lower()
        use = [f"{variable}_{name}".lower() for variable in self.variables for name in self.pairs]
        if len(wanted) < len(use):
            raise DataError(f"{path} has one pair of dates for two of {', '.join(self.pairs)}", fix="part their days")
        every = list(self.variables)
        return by_name(path, names, [(None, wanted)], use=use, sensor="sentinel1_pairs", variable=every)


def choose_pair(
    pairs: Iterable[str],
    *,
    days: Sequence[int] | None = None,
    rule: str = "close",
    before: str | None = None,
    after: str | None = None,
) -> str | None:
    """The pair END_START (YYYYMMDD_YYYYMMDD) that a rule chooses, None where none fits; raises ConfigError, DataError.

    days: least and most days between both images. before: only pairs that end on this day or earlier; the one that ends
    last is taken. after: only pairs that start on this day or later; the one that starts first is taken. Else rule:
    close takes the fewest days, far the most; of equals the later one.
    """
    if days is not None and (isinstance(days, str) or len(days) != 2):
        raise ConfigError(f"days: {days!r} is no least and most number of days", fix="days: [0, 60]")
    _require_known("rule", [rule], ("close", "far"))
    last, first = (_day(limit, "%Y-%m-%d") if limit is not None else None for limit in (before, after))
    found = []
    for pair in pairs:
        end, start = (_day(text, "%Y%m%d") for text in pair.split("_"))
        span = (end - start).days
        if days is not None and not days[0] <= span <= days[1]:
            continue
        if (last is None or end <= last) and (first is None or start >= first):
            found.append((end, start, span, pair))
    length = 1 if rule == "far" else -1
    if last is not None:
        return max(found, key=lambda p: (p[0], length * p[2]))[3] if found else None
    if first is not None:
        return max(found, key=lambda p: (-p[1].toordinal(), length * p[2]))[3] if found else None
    return max(found, key=lambda p: (length * p[2], p[0]))[3] if found else None


def by_name(
    path: Path, names: Sequence[str], dates: Iterable[tuple[str | None, Mapping[str, str]]], **rest: Any
) -> list[ImageConfig]:
    """An image of a file for each date: {the file's name of a band: the scene's}; raises DataError for a missing one.

    names: of all bands in the file. Bands that nobody asks for get names that mean nothing.
    """
    found = []
    for date, bands in dates:
        lacking = [name for name in bands if name not in names]
        if lacking:
            raise DataError(f"{path} has no band {', '.join(lacking)}", fix=suggest(lacking[0], names))
        every = [bands.get(name, f"layer{i}") for i, name in enumerate(names)]
        found.append(ImageConfig(path=str(path), bands=every, date=date, **rest))
    return found


def _month(year: str, month: int) -> str | None:
    return f"{year}-{month:02d}" if year else None


def _sides(bands: Iterable[str]) -> list[str]:
    """The bands behind bands and differences: [vv, vv-vh] -> [vv, vh]."""
    return list(dict.fromkeys(side for band in bands for side in band.split("-")))


def _number(text: str) -> str:
    """12.0 -> 12; other texts as they are."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _day(text: Any, form: str) -> datetime.date:
    try:
        return datetime.datetime.strptime(str(text), form).date()
    except ValueError as error:
        raise DataError(f"{text} is no day", fix="write 2020-02-10; pairs of dates are YYYYMMDD_YYYYMMDD") from error


def _require_known(what: str, given: Sequence[Any], known: Sequence[Any]) -> None:
    """Raise ConfigError for a value that is not known, one given twice, or none at all."""
    values = [] if isinstance(given, str) else list(given)
    odd = [value for value in values if value not in known]
    if odd or not values or len(set(values)) < len(values):
        raise ConfigError(f"{what}: {odd[0] if odd else given!r} does not go", fix=f"of {', '.join(map(str, known))}")
