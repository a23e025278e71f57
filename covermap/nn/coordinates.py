"""Dates and places of a batch as numbers; what is not known is NaN (or -1), never a guess."""

from __future__ import annotations

import torch
from torch import Tensor

from covermap.core.config import parse_date
from covermap.core.types import Batch


def day_codes(batch: Batch) -> Tensor:
    """(B, T, 2): year and day of year 1-366 of each date, the middle of a period; NaN where it is not known."""
    size = (len(batch), batch.valid.shape[1])
    codes = torch.full((*size, 2), torch.nan, dtype=torch.float64)
    for i, dates in enumerate(batch.dates):
        for t, date in enumerate(dates):
            if date is not None:
                first, last = parse_date(date)
                middle = first + (last - first) / 2
                codes[i, t] = torch.tensor([middle.year, middle.timetuple().tm_yday], dtype=torch.float64)
    return codes.to(batch.valid.device)


def months(batch: Batch) -> Tensor:
    """(B, T) 0-11, -1 where the date is not known."""
    codes = torch.full(batch.valid.shape[:2], -1, dtype=torch.int64)
    for i, dates in enumerate(batch.dates):
        for t, date in enumerate(dates):
            if date is not None:
                first, last = parse_date(date)
                codes[i, t] = (first + (last - first) / 2).month - 1
    return codes.to(batch.valid.device)


def locations(batch: Batch) -> Tensor:
    """(B, 2) latitude and longitude in degrees, NaN where they are not known."""
    if batch.location is None:
        return torch.full((len(batch), 2), torch.nan, device=batch.valid.device)
    return batch.location
