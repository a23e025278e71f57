"""What a raster file says of its bands, and whether it can be read to its end: a look before many files are listed."""

from __future__ import annotations

from dataclasses import dataclass

from covermap.core.errors import DataError, UnreadableError
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.netcdf import address, band_dimensions
from covermap.geo.raster import open_dataset


@dataclass(frozen=True)
class Layers:
    """The bands of a file: their names (empty where it has none), and places along a netCDF variable's dimensions."""

    names: tuple[str, ...]
    places: tuple[dict[str, str], ...]

    def named(self, published: tuple[str, ...], *, where: str) -> tuple[str, ...]:
        """The file's own names where each band has one, else the published ones in their order; raises DataError."""
        if all(self.names) and len(set(self.names)) == len(self.names):
            return self.names
        if len(self.names) != len(published):
            raise DataError(
                f"{where} has {len(self.names)} bands without names, the data set has {len(published)}",
                fix="is it the data set's own file?",
            )
        return published


def read_layers(path: str, variable: str | None = None) -> Layers:
    """Names and places of the bands; raises DataError for a file that is damaged at its start or its end.

    The first and the last pixel of the first and the last band are read: a file that was cut short lacks one of them.
    """
    dataset = open_dataset(path if variable is None else address(path, variable))
    try:
        for row, col in ((0, 0), (dataset.height - 1, dataset.width - 1)):
            dataset.read([1, dataset.count], window=((row, row + 1), (col, col + 1)))
    except GDAL_ERRORS as error:
        raise UnreadableError(f"{path} is damaged: {error}", fix="copy it again from its source") from error
    places = tuple(band_dimensions(dataset)) if variable is not None else ()
    return Layers(tuple(name or "" for name in dataset.descriptions), places)
