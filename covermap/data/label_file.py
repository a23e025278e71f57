"""How class codes are written in a label raster: as numbers, as colours, or a band for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.io import DatasetReader

from covermap.core.errors import LabelError
from covermap.geo.grid import Window
from covermap.geo.mosaic import part_of
from covermap.geo.raster import read_plain

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelFile:
    """A label raster and the form of its codes, or polygons or points with their class in the column `field`.

    bounds: only the part left, bottom, right, top in the raster's CRS, to the nearest whole pixels.
    band: of plain codes. colours: {(red, green, blue): code} of a picture. one_hot: the codes of its bands, of which
    exactly one is not 0 in each labelled pixel. codes: {number in the file: code}, all that it may hold.
    placeless: a file without a CRS whose pixels are those of the image, if it has as many.
    """

    path: str
    band: int = 1
    colours: Mapping[Colour, int] | None = None
    one_hot: tuple[int, ...] | None = None
    field: str | None = None
    bounds: tuple[float, float, float, float] | None = None
    codes: Mapping[int, int] | None = None
    placeless: bool = False

    @property
    def source(self) -> str:
        """What to open: the file, or its part within `bounds`."""
        return self.path if self.bounds is None else part_of(self.path, self.bounds)

    @property
    def is_plain(self) -> bool:
        """Whether it is an ordinary raster of codes in its first band."""
        return self.band == 1 and self.colours is None and self.one_hot is None and self.codes is None

    def read(
        self, dataset: DatasetReader, window: Window, nodata: float | None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Codes (H, W) and where there are any (H, W); raises LabelError for a colour or pattern that means nothing."""
        if self.colours is not None:
            values, valid = read_plain(dataset, [1, 2, 3], window, nodata)
            return self._of_colours(values, valid), valid
        if self.one_hot is not None:
            values, valid = read_plain(dataset, list(range(1, len(self.one_hot) + 1)), window, nodata)
            return self._of_bands(values, valid)
        values, valid = read_plain(dataset, [self.band], window, nodata)
        return (values[0] if self.codes is None else self._of_numbers(values[0], valid)), valid

    def _of_numbers(self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        assert self.codes is not None
        codes = np.full(values.shape, -1, np.int64)
        for number, code in self.codes.items():
            codes[values == number] = code
        if (unknown := (codes < 0) & valid).any():
            raise LabelError(
                f"{self.path}: {int(unknown.sum())} pixels hold numbers that mean nothing here, such as "
                f"{values[unknown][0]:g}; known are {', '.join(map(str, self.codes))}",
                fix="is it the right file? a mask of change holds 0 for unchanged, 1 or 255 for changed",
            )
        return codes

    def _of_colours(self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        assert self.colours is not None
        packed = (values[0].astype(np.int64) << 16) | (values[1].astype(np.int64) << 8) | values[2].astype(np.int64)
        codes = np.full(packed.shape, -1, np.int64)
        for (red, green, blue), code in self.colours.items():
            codes[packed == (red << 16 | green << 8 | blue)] = code
        if (unknown := (codes < 0) & valid).any():
            colour = int(packed[unknown][0])
            raise LabelError(
                f"{self.path}: {int(unknown.sum())} pixels have colours that mean no class, such as "
                f"({colour >> 16}, {colour >> 8 & 255}, {colour & 255})",
                fix="is it the data set's own file? pictures that were resized or saved as JPEG hold mixed colours",
            )
        return codes

    def _of_bands(
        self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        hit = values > 0
        count = hit.sum(0)
        if ((count > 1) & valid).any():
            raise LabelError(
                f"{self.path}: {int(((count > 1) & valid).sum())} pixels belong to several classes at once",
                fix="is it the data set's own file?",
            )
        return np.asarray(self.one_hot)[hit.argmax(0)], valid & (count == 1)
