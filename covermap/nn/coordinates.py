"""Dates and places of a batch as numbers; what is not known is NaN (or -1), never a guess."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable

import torch
from torch import Tensor

from covermap.core.config import parse_date
from covermap.core.types import Batch


def day_codes(batch: Batch) -> Tensor:
    """(B, T, 2): year and day of year 1-366 of each date, the middle of a period; NaN where it is not known."""
    return _each_date(batch, lambda day: [day.year, day.timetuple().tm_yday], missing=torch.nan, width=2)


def months(batch: Batch) -> Tensor:
    """(B, T) int64, 0-11, -1 where the date is not known."""
    return _each_date(batch, lambda day: [day.month - 1], missing=-1, width=1)[..., 0].long()


def week_codes(batch: Batch) -> Tensor:
    """(B, 4): sine and cosine of the ISO week of 52 and of the hour of the first date; 0 where they are not known."""

    def code(day: datetime.datetime) -> list[float]:
        week = 2 * math.pi * day.isocalendar().week / 52
        hour = 2 * math.pi * day.hour / 24
        return [math.sin(week), math.cos(week), math.sin(hour), math.cos(hour)]

    codes = _each_date(batch, code, missing=0, width=4)[:, 0]
    # Of a day without a time the middle was taken: the hour is not known.
    moments = torch.tensor([[_is_moment(dates[0])] * 2 for dates in batch.dates] or [[False] * 2])
    codes[:, 2:] *= moments.to(codes)
    return codes


def _is_moment(date: str | None) -> bool:
    return date is not None and len(set(parse_date(date))) == 1


def _each_date(batch: Batch, code: Callable[[datetime.datetime], list[float]], *, missing: float, width: int) -> Tensor:
    """(B, T, width) float64 on the batch's device."""
    codes = torch.full((*batch.valid.shape[:2], width), missing, dtype=torch.float64)
    for i, dates in enumerate(batch.dates):
        for t, date in enumerate(dates):
            if date is not None:
                first, last = parse_date(date)
                codes[i, t] = torch.tensor(code(first + (last - first) / 2), dtype=torch.float64)
    return codes.to(batch.valid.device)


def locations(batch: Batch) -> Tensor:
    """(B, 2) latitude and longitude in degrees, NaN where they are not known."""
    if batch.location is None:
        return torch.full((batch.valid.shape[0], 2), torch.nan, device=batch.valid.device)
    return batch.location


def unit_sphere(location: Tensor) -> Tensor:
    """(N, 2) latitude and longitude in degrees -> (N, 3) x, y, z."""
    lat, lon = torch.deg2rad(location).unbind(1)
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], 1)
