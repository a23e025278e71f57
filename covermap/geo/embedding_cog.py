"""A raster of embeddings as a cloud-optimised GeoTIFF whose overviews are means brought to length 1 again.

plain GeoTIFF -> plain.tif.ovr, plain.tif.ovr.ovr ... (each half of the one before) -> COG with them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import rasterio
import rasterio.shutil

from covermap.core.engine import cores
from covermap.core.output import replacing
from covermap.geo.embedding_codes import NODATA, decode, encode, halved
from covermap.geo.grid import Grid, Window, partition
from covermap.geo.products import no_gdal_leftovers, small_cache
from covermap.geo.raster import grid_of
from covermap.geo.writer import RasterWriter

_MEMORY = 1 << 24
"""Numbers that are held at once."""
_NAME = "A{:02d}"


def band_names(dimensions: int) -> list[str]:
    """A00, A01, ... as AlphaEarth calls them."""
    return [_NAME.format(i) for i in range(dimensions)]


def nodata_of(dtype: str) -> float:
    """NODATA of codes, NaN of floats."""
    return float(NODATA) if dtype == "int8" else float("nan")


def plain_writer(path: Path, grid: Grid, dimensions: int, dtype: str) -> RasterWriter:
    """A plain GeoTIFF for unit vectors as `encode` gives them."""
    stored = "int8" if dtype == "int8" else "float32"
    return RasterWriter(
        path, grid, bands=band_names(dimensions), dtype=stored, nodata=nodata_of(dtype), overwrite=True,
        compress="none", block_px=128, lasting=False,
    )  # fmt: skip


@contextmanager
def finished_embeddings(plain: Path, out: Path, dtype: str, *, tags: Mapping[str, str]) -> Iterator[Path]:
    """Turn a plain GeoTIFF of unit vectors into the finished one; overviews are written beside `plain`.

    Gives the file, which is called `out` when the block ends: what belongs beside it is written before.
    Memory: 64 MB of cache and about 200 MB. Raises OutputError.
    """
    with small_cache():
        _write_overviews(plain, dtype)
        with rasterio.open(plain, "r+") as dataset:
            dataset.update_tags(TIFFTAG_SOFTWARE=f"covermap {version('covermap')}", **tags)
            side = 512 if dataset.count <= 64 else 256
        options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": side, "OVERVIEWS": "FORCE_USE_EXISTING", "BIGTIFF": "IF_SAFER"}
        options |= {"NUM_THREADS": cores()} | ({"NBITS": 16} if dtype == "float16" else {})
        with replacing(out) as partial, no_gdal_leftovers(partial):
            with rasterio.open(plain) as dataset:
                rasterio.shutil.copy(dataset, partial, driver="COG", **options)
            yield partial


def _write_overviews(plain: Path, dtype: str) -> None:
    """Rasters of half the size each, until one fits into 256 px."""
    above = plain
    while True:
        with rasterio.open(above) as source:
            grid, count = grid_of(source), source.count
            if max(grid.height, grid.width) <= 256:
                return
            below = grid.coarsen(2)
            side = max(16, int((_MEMORY / 4 / count) ** 0.5))
            target = above.with_name(f"{above.name}.ovr")
            target.unlink(missing_ok=True)
            with plain_writer(target, below, count, dtype) as writer:
                for window in partition(below.window, side, side):
                    twice = Window(*(2 * n for n in window)).intersect(grid.window)
                    values = halved(decode(source.read(window=twice.rasterio), source.nodata))
                    writer.write(window, encode(values, dtype))
        above = target


def embedding_bands(names: Sequence[str], dtype: str, grid: Grid) -> list[dict[str, object]]:
    """The bands of a STAC asset."""
    nodata: object = NODATA if dtype == "int8" else "nan"
    size = round(grid.gsd_m, 3)
    return [
        {"name": name, "data_type": dtype, "nodata": nodata, "raster:sampling": "area",
         "raster:spatial_resolution": size}
        for name in names
    ]  # fmt: skip
