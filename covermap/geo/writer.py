"""The block writer: a tiled, compressed GeoTIFF that appears whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from covermap.core.output import claim, replacing, require_room
from covermap.geo.grid import Grid, Window


class RasterWriter:
    """Write a tiled GeoTIFF window by window; the file appears under its name only when all went well.

    lasting: see core.output.replacing. Memory: GDAL's block cache. Raises OutputError (exists, read-only, full).
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        *,
        bands: Sequence[str],
        dtype: str,
        nodata: float | None = None,
        overwrite: bool = False,
        tags: dict[str, str] | None = None,
        compress: str = "deflate",
        block_px: int = 512,
        scale: float = 1.0,
        lasting: bool = True,
    ) -> None:
        self.path = claim(path, overwrite=overwrite)
        self._replacing = replacing(self.path, lasting=lasting)
        self._bands, self._tags, self._scale = list(bands), tags or {}, scale
        side = min(block_px, 16 * max(1, min(grid.height, grid.width) // 16))
        self._profile = {
            "driver": "GTiff", "height": grid.height, "width": grid.width, "count": len(bands), "dtype": dtype,
            "crs": grid.crs, "transform": grid.transform, "nodata": nodata, "tiled": True, "blockxsize": side,
            "blockysize": side, "compress": compress, "bigtiff": "IF_SAFER",
            "interleave": "pixel" if len(bands) < 20 else "band",
        }  # fmt: skip
        if compress == "deflate":
            self._profile["predictor"] = 2 if np.dtype(dtype).kind in "iu" else 3

    def __enter__(self) -> RasterWriter:
        self._partial = self._replacing.__enter__()
        self._dataset = rasterio.open(self._partial, "w", **self._profile)
        self._dataset.update_tags(**self._tags)
        for i, name in enumerate(self._bands, 1):
            self._dataset.set_band_description(i, name)
        if self._scale != 1:
            self._dataset.scales = (self._scale,) * len(self._bands)
        return self

    def write(self, window: Window, values: npt.NDArray[Any]) -> None:
        """Write values (C, H, W) or (H, W) at a window."""
        values = values[None] if values.ndim == 2 else values
        self._dataset.write(values, window=window.rasterio)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._dataset.close()
                require_room(self._partial)  # GDAL does not say that the disk was full when it closed the file
            except BaseException as failed:
                self._replacing.__exit__(type(failed), failed, failed.__traceback__)
                raise
        else:
            self._dataset.close()
        self._replacing.__exit__(kind, error, trace)


class HashingWriter(RasterWriter):
    """Takes windows of one band in reading order; then knows the SHA-256 of all pixels.

    Memory: the windows of one row of them.
    """

    def __enter__(self) -> HashingWriter:
        super().__enter__()
        self._content = hashlib.sha256()
        self._rows = np.zeros((0, 0))
        return self

    def write(self, window: Window, values: npt.NDArray[Any]) -> None:
        """Take values (H, W) at a window; those of one row of windows have one height."""
        super().write(window, values)
        width = self._dataset.width
        if len(self._rows) < window.height:
            self._rows = np.empty((window.height, width), np.dtype(self._dataset.dtypes[0]).newbyteorder("<"))
        self._rows[: window.height, window.col : window.col + window.width] = values
        if window.col + window.width == width:
            self._content.update(self._rows[: window.height].data)

    @property
    def content(self) -> str:
        """SHA-256 of the pixels, row by row, little-endian."""
        return self._content.hexdigest()
