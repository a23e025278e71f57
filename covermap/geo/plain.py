"""Plain GeoTIFFs: uncompressed squares, written in place, so that a stopped writer goes on and readers map the file.

Any program reads them. Squares of the file that hold nothing take no space.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp

from covermap.core.output import writing
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid, Window

SIDE_PX = 256


@dataclass(frozen=True)
class PlainFile:
    """A file to write: bands (C) of one type on a grid, with a nodata value.

    nodata None: an alpha band says where the file holds something (8 and 16 bits without sign only).

    While it is written it stands beside its name, as NAME.partial.tif.
    """

    path: Path
    grid: Grid
    bands: tuple[str, ...]
    dtype: str
    nodata: float | None

    @property
    def partial(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}")

    @property
    def num_bytes(self) -> int:
        """Size when every square is filled."""
        bands = len(self.bands) + (self.nodata is None)
        return self.grid.height * self.grid.width * bands * np.dtype(self.dtype).itemsize

    def write(
        self, blocks: Iterable[tuple[Window, npt.NDArray[Any], npt.NDArray[np.bool_]]]
    ) -> list[tuple[Window, int]]:
        """Write values (C, H, W) where valid (H, W) at windows; returns each with the CRC-32 of what was written.

        Blocks are on disk when this returns. Raises OutputError for a full or read-only disk.
        """
        sums = []
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._open() as file:
                    for window, values, valid in blocks:
                        stored = self._stored(values, valid)
                        file.write(stored, window=window.rasterio)
                        sums.append((window, zlib.crc32(np.ascontiguousarray(stored).data)))
            except GDAL_ERRORS as error:
                raise OSError(str(error)) from error
            # GDAL does not say that the disk was full when it closed the file.
            if not self._reads(self.partial, dict(sums)):
                raise OSError("what was written cannot be read again")
            with open(self.partial, "rb+") as written:
                os.fsync(written.fileno())
        return sums

    def _stored(self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        if np.dtype(self.dtype).kind in "iu" and values.dtype.kind == "f":
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(np.where(valid, values, 0)), limits.min, limits.max)
        kind = np.dtype(self.dtype).type  # a plain number would turn the block into float64
        numbers = values.astype(self.dtype, copy=False)
        if self.nodata is not None:
            return np.where(valid, numbers, kind(self.nodata))
        alpha = np.where(valid, kind(np.iinfo(self.dtype).max), kind(0))
        return np.concatenate([np.where(valid, numbers, kind(0)), alpha[None]])

    def _open(self) -> Any:
        if self.partial.exists():
            return rasterio.open(self.partial, "r+")
        count = len(self.bands) + (self.nodata is None)
        side = min(SIDE_PX, 16 * -(-max(self.grid.height, self.grid.width) // 16))
        file = rasterio.open(
            self.partial, "w", driver="GTiff", count=count, dtype=self.dtype, height=self.grid.height,
            width=self.grid.width, crs=self.grid.crs, transform=self.grid.transform, nodata=self.nodata, tiled=True,
            blockxsize=side, blockysize=side, interleave="band", bigtiff="IF_SAFER", SPARSE_OK="TRUE",
        )  # fmt: skip
        for i, name in enumerate(self.bands, 1):
            file.set_band_description(i, name)
        if self.nodata is None:
            grey = [ColorInterp.gray, *(ColorInterp.undefined for _ in self.bands[1:])]
            file.colorinterp = [*grey, ColorInterp.alpha]
        return file

    def finish(self) -> None:
        """Give the file its name."""
        with writing(self.path):
            os.replace(self.partial, self.path)

    def read_sum(self, window: Window) -> int:
        """CRC-32 of a window of the finished file, as `write` gave it."""
        return self._sum(self.path, window)

    def holds(self, blocks: Mapping[Window, int], whole: Window) -> bool:
        """Whether what is there can be gone on with, given the CRC-32 of its blocks: a killed writer tears files.

        A finished file has to have all blocks of `whole`; the sums of one that is not are checked.
        """
        if self.path.is_file():
            return sum(block.height * block.width for block in blocks) == whole.height * whole.width
        return bool(blocks) and self.partial.is_file() and self._reads(self.partial, blocks)

    def remove(self) -> None:
        """Remove what is there, finished or not."""
        with writing(self.path):
            for path in (self.path, self.partial):
                path.unlink(missing_ok=True)

    def _reads(self, path: Path, blocks: Mapping[Window, int]) -> bool:
        try:
            return all(self._sum(path, block) == crc for block, crc in blocks.items())
        except GDAL_ERRORS:
            return False

    def _sum(self, path: Path, window: Window) -> int:
        with rasterio.open(path) as file:
            return zlib.crc32(file.read(window=window.rasterio))
