"""What the tokens of a backbone stand for, so that some of them can be hidden, or looked at, by sensor, date and place.

N patch tokens   P extra tokens that are always seen (class, location)   D width   p side of a patch, px
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from covermap.core.types import Batch

STATIC = -1
"""Date of tokens that belong to all dates, such as those of elevation beside a time series."""


@dataclass(frozen=True)
class Group:
    """Bands that share tokens. bands: (sensor, position in it) of each. sensors: what a token of it is made of."""

    name: str
    bands: tuple[tuple[str, int], ...]
    sensors: tuple[str, ...]


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch, or a part of them, before the first block.

    x (B, N, D): patches with all codes added. there (B, N) bool: which hold data; padding does not. group, date, row,
    col (B, N) int64: what each shows; group counts in the backbone's `token_groups`, date from 0 or STATIC.
    extra (B, P, D), extra_there (B, P). grid: rows and columns of patches in a window.
    """

    x: Tensor
    there: Tensor
    group: Tensor
    date: Tensor
    row: Tensor
    col: Tensor
    extra: Tensor
    extra_there: Tensor
    grid: tuple[int, int]

    @property
    def seen(self) -> Tensor:
        """(B, P + N) bool: what attention may look at, the extra tokens first; all where nothing is there."""
        seen = torch.cat([self.extra_there, self.there], 1)
        return seen | ~seen.any(1, keepdim=True)

    @property
    def place(self) -> Tensor:
        """(B, N) int64: number of the place, rows first."""
        return self.row * self.grid[1] + self.col

    def take(self, chosen: Tensor) -> tuple[Tokens, Tensor]:
        """The tokens of which chosen (B, N) bool is true, as (B, k, D) with k the most of a window, and their places.

        Windows with fewer are padded at the end; the places (B, k) int64 are positions in N, of padding any.
        """
        count = chosen.sum(1)
        where = torch.argsort((~chosen).to(torch.uint8), dim=1, stable=True)[:, : int(count.max())]
        real = torch.arange(where.shape[1], device=where.device) < count[:, None]

        def pick(values: Tensor) -> Tensor:
            return values.gather(1, where)

        x = self.x.gather(1, where[..., None].expand(-1, -1, self.x.shape[2]))
        part = replace(
            self, x=x, there=pick(self.there) & real, group=pick(self.group), date=pick(self.date), row=pick(self.row),
            col=pick(self.col),
        )  # fmt: skip
        return part, where

    def joined(self, more: Tokens) -> Tokens:
        """With further patch tokens behind them."""

        def both(one: Tensor, two: Tensor) -> Tensor:
            return torch.cat([one, two], 1)

        return replace(
            self, x=both(self.x, more.x), there=both(self.there, more.there), group=both(self.group, more.group),
            date=both(self.date, more.date), row=both(self.row, more.row), col=both(self.col, more.col),
        )  # fmt: skip


def lay_out(
    parts: list[tuple[int, Tensor]],
    there: list[Tensor],
    grid: tuple[int, int],
    *,
    static: tuple[bool, ...] = (),
    extra: Tensor | None = None,
    extra_there: Tensor | None = None,
) -> Tokens:
    """Tokens of several groups, one after the other, each in the order date, row, column.

    parts: number of the group and its tokens (B, T h w, D). there: (B, T h w) of each. static: whether a part belongs
    to all dates; default: none does.
    """
    x = torch.cat([part for _, part in parts], 1) if len(parts) > 1 else parts[0][1]
    size, cells = len(x), grid[0] * grid[1]
    codes = []
    for i, (group, part) in enumerate(parts):
        number = torch.arange(part.shape[1], device=x.device)
        place = number % cells
        date = torch.full_like(number, STATIC) if static and static[i] else number // cells
        codes.append(torch.stack([torch.full_like(number, group), date, place // grid[1], place % grid[1]]))
    group, date, row, col = (code.expand(size, -1) for code in torch.cat(codes, 1))
    extra = x[:, :0] if extra is None else extra
    extra_there = there[0].new_ones(extra.shape[:2]) if extra_there is None else extra_there
    return Tokens(x, torch.cat(there, 1), group, date, row, col, extra, extra_there, grid)


def patches_there(batch: Batch, sensors: tuple[str, ...], patch_px: int, num_dates: int) -> Tensor:
    """(B, T h w) bool: patches with a valid pixel, of dates on which one of the sensors holds anything but zeros.

    num_dates: T, or 1 for what belongs to all dates.
    """
    valid = batch.valid if batch.valid.shape[1] == num_dates else batch.valid.any(1, keepdim=True)
    seen = functional.max_pool2d(valid.float(), patch_px) > 0
    return (seen & holds_data(batch, sensors, num_dates)[..., None, None]).flatten(1)


def holds_data(batch: Batch, sensors: tuple[str, ...], num_dates: int) -> Tensor:
    """(B, T) bool: whether one of the sensors is in the batch, and not zero everywhere on a date."""
    found = batch.valid.new_zeros(batch.valid.shape[0], num_dates)
    for name in sensors:
        if name in batch.image:
            there = (batch.image[name] != 0).flatten(2).any(2)
            found = found | (there if there.shape[1] in (1, num_dates) else there.any(1, keepdim=True))
    return found
