"""The map as users expect it: one call turns class codes into files that GIS programs, catalogues and people read.

    map.tif          cloud-optimised GeoTIFF: codes, nodata, colour table, overviews of the most frequent class
    map.tif.aux.xml  class names and attribute table (GDAL, QGIS, ArcGIS)
    map.qml map.clr  colours for QGIS and ArcGIS
    map.stac.json    STAC 1.1 Item: classes, place, date, checksum, origin
    areas.csv        class, code, pixels, hectares, share  (other.areas.csv for a map called other.tif)
    confidence.tif   made by predict, like probs.tif       (other_confidence.tif, other_probs.tif)

Nothing in them depends on when or where they were made: the same input gives the same bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import shapely
from rasterio._err import CPLE_BaseError  # what GDAL's copy raises; rasterio has no public name for it
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from covermap.core.errors import OutputError
from covermap.core.legend import IGNORE, Legend
from covermap.core.output import claim, replacing, write_text
from covermap.core.stac_item import stac_classes, stac_dates, stac_file, stac_item
from covermap.geo.grid import Grid, partition
from covermap.geo.legend_files import aux_xml_text, csv_text, write_legend
from covermap.geo.raster import grid_of

_BLOCK_PX = 512
_CACHE_MB = 64
_SIDE_FILES = {
    "attributes": ("application/xml", "metadata", "Class names and attribute table (GDAL)"),
    "style": ("application/xml", "metadata", "Colours (QGIS)"),
    "colours": ("text/plain", "metadata", "Colours (value red green blue)"),
    "areas": ("text/csv", "metadata", "Area of each class"),
    "confidence": ("image/tiff; application=geotiff; profile=cloud-optimized", "data", "Confidence in percent"),
}


@dataclass(frozen=True)
class MapSummary:
    """What a finished map holds: per class, in legend order, pixels and hectares; `files` are all that were written.

    `notes` say in sentences what could not be written, and why.
    """

    path: Path
    files: tuple[Path, ...]
    legend: Legend
    num_pixels: tuple[int, ...]
    areas_ha: tuple[float, ...]
    num_nodata: int
    notes: tuple[str, ...] = ()


def finish_map(
    plain: str | Path, out: str | Path, legend: Legend, *, date: str | None = None,
    derived_from: Sequence[str | Path] = (), confidence: str | Path | None = None,
    tags: Mapping[str, str] | None = None, overwrite: bool = False,
) -> MapSummary:  # fmt: skip
    """Turn a tiled GeoTIFF of class codes into the finished map `out` and its side files; `plain` is left as it is.

    plain: one band in `legend.map_dtype`, nodata `legend.map_nodata`. date: acquisition, `2019`, `2019-07`,
    `2019-07-27` or `first/last`; without it no STAC item is written and a note says so. derived_from: model and
    images. confidence: a finished raster beside the map. Memory: 64 MB of cache and some rows of blocks.
    Raises OutputError, LabelError (codes that the legend does not know) and ConfigError (date).
    """
    when = stac_dates(date) if date else None
    out = claim(out, overwrite=overwrite)
    with small_cache(), rasterio.open(plain) as dataset:
        grid = grid_of(dataset)
        num_pixels, areas_ha, num_nodata = _count(dataset, grid, legend)
    beside = names_beside(out)
    all_tags = {"COVERMAP_LEGEND": json.dumps(legend.to_dict()), **({"COVERMAP_DATE": date} if date else {})}
    colours = {c.code: (*c.rgb, 255) for c in legend.classes} | {legend.map_nodata: (0, 0, 0, 0)}
    notes: tuple[str, ...] = ()
    # The map itself appears last: where it stands, its side files are complete.
    with replacing(out) as partial, _gdal_failures(out, partial):
        _copy_as_cog(plain, partial, legend.map_nodata, ["land_cover"], all_tags | dict(tags or {}), "mode", colours)
        write_text(beside["attributes"], aux_xml_text(legend, num_pixels, areas_ha))
        write_legend(legend, beside["style"])
        write_legend(legend, beside["colours"])
        write_text(beside["areas"], _areas_text(legend, num_pixels, areas_ha))
        if when:
            assets = {"map": _stac_map(partial, out, legend, num_pixels, num_nodata)}
            others = beside | ({"confidence": Path(confidence)} if confidence else {})
            assets |= {key: _stac_side(key, path, out) for key, path in others.items() if key != "item"}
            write_text(beside["item"], _stac_item(out.stem, grid, when, derived_from, assets))
        else:
            beside.pop("item").unlink(missing_ok=True)
            notes = (
                "no STAC item was written: the date of the image is not known (state it: --date, or FILE@2019-07-27)",
            )
    return MapSummary(out, (out, *beside.values()), legend, num_pixels, areas_ha, num_nodata, notes)


def legend_of_map(path: str | Path) -> Legend | None:
    """The legend that a finished map holds, also of classes without a pixel; None of other rasters."""
    with rasterio.open(path) as dataset:
        text = dataset.tags().get("COVERMAP_LEGEND")
    return Legend.from_dict(json.loads(text), where=str(path)) if text else None


def finish_cog(
    plain: str | Path, out: str | Path, *, nodata: float | None, description: str | Sequence[str],
    tags: Mapping[str, str] | None = None, resampling: str = "average", overwrite: bool = False,
) -> Path:  # fmt: skip
    """Turn a tiled GeoTIFF (confidence, probabilities) into a cloud-optimised one; `plain` is left as it is.

    description: the name of each band. resampling: how overviews are made. Raises OutputError.
    """
    names = [description] if isinstance(description, str) else list(description)
    out = claim(out, overwrite=overwrite)
    with replacing(out) as partial, _gdal_failures(out, partial):
        _copy_as_cog(plain, partial, nodata, names, tags or {}, resampling)
    return out


def _copy_as_cog(
    plain: str | Path, out: Path, nodata: float | None, names: Sequence[str], tags: Mapping[str, str],
    resampling: str, colours: Mapping[int, tuple[int, ...]] | None = None,
) -> None:  # fmt: skip
    """Copy a raster with GDAL's COG driver, which takes nodata, names, tags and colours from its source only."""
    with small_cache(), tempfile.TemporaryDirectory(dir=out.parent, prefix=".cog.") as folder:
        view = Path(folder) / "view.vrt"
        with rasterio.open(plain) as source:
            rasterio.shutil.copy(source, view, driver="VRT")
        with rasterio.open(view, "r+") as dataset:
            dataset.nodata = nodata
            dataset.update_tags(TIFFTAG_SOFTWARE=f"covermap {version('covermap')}", **tags)
            for band, name in enumerate(names, 1):
                dataset.set_band_description(band, name)
            if colours:
                dataset.write_colormap(1, dict(colours))
        options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": _BLOCK_PX, "OVERVIEW_RESAMPLING": resampling.upper()}
        with rasterio.open(view) as dataset:
            rasterio.shutil.copy(dataset, out, driver="COG", BIGTIFF="IF_SAFER", **options)


@contextmanager
def small_cache() -> Iterator[None]:
    """GDAL with little memory."""
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        yield


@contextmanager
def _gdal_failures(out: Path, partial: Path) -> Iterator[None]:
    """Turn GDAL's own errors into OutputError, and clear away what it leaves behind."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        # GDAL tells where it stopped, not why: nearly always because the disk is full.
        free_mb = shutil.disk_usage(out.parent).free / 1e6
        raise OutputError(
            f"{out} cannot be written: {error}", fix=f"{free_mb:,.0f} MB are free there: make room and run it again"
        ) from error
    finally:
        for rest in out.parent.glob(f"{partial.name}.*"):
            rest.unlink()


def _count(dataset: DatasetReader, grid: Grid, legend: Legend) -> tuple[tuple[int, ...], tuple[float, ...], int]:
    """Pixels and hectares per class, and pixels without one; rows weigh by the ground size of their own pixels."""
    num_pixels, areas_ha = np.zeros(256, np.int64), np.zeros(256)
    for block in partition(grid.window, _BLOCK_PX, 8 * _BLOCK_PX):
        codes = dataset.read(1, window=block.rasterio)
        index = np.full(codes.shape, IGNORE, np.uint8)
        mapped = codes != legend.map_nodata
        index[mapped] = legend.encode(codes[mapped], where=dataset.name)
        in_row = count_rows(index)
        num_pixels += in_row.sum(0)
        areas_ha += np.asarray(grid.row_areas_ha(block.row, block.height)) @ in_row
    classes = slice(0, len(legend))
    return tuple(num_pixels[classes].tolist()), tuple(areas_ha[classes].tolist()), int(num_pixels[IGNORE])


def count_rows(index: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(H, W) -> (H, 256): pixels of each index in each row."""
    keys = index + 256 * np.arange(len(index))[:, None]
    return np.bincount(keys.ravel(), minlength=256 * len(index)).reshape(len(index), 256)


def layer_beside(out: Path, layer: str) -> Path:
    """Where a layer (confidence, probs) of a map lies."""
    return out.with_name(f"{layer}.tif" if out.stem == "map" else f"{out.stem}_{layer}.tif")


def names_beside(out: Path) -> dict[str, Path]:
    """The side files of a map, by role."""
    return {
        "attributes": out.with_name(out.name + ".aux.xml"),
        "style": out.with_suffix(".qml"),
        "colours": out.with_suffix(".clr"),
        "areas": out.with_name("areas.csv" if out.stem == "map" else f"{out.stem}.areas.csv"),
        "item": out.with_suffix(".stac.json"),
    }


def _areas_text(legend: Legend, num_pixels: Sequence[int], areas_ha: Sequence[float]) -> str:
    total = sum(areas_ha) or 1.0
    rows = zip(legend.classes, num_pixels, areas_ha, strict=True)
    header = ("class", "code", "pixels", "area_ha", "share")
    return csv_text(header, [(c.name, c.code, n, f"{area:.4f}", f"{area / total:.6f}") for c, n, area in rows])


def _stac_item(
    name: str, grid: Grid, when: dict[str, str | None], derived_from: Sequence[str | Path], assets: dict[str, Any]
) -> str:  # fmt: skip
    """A STAC 1.1 Item as text, with the extension projection 2.0 beside those of all items."""
    epsg = grid.crs.to_epsg() if grid.crs else None
    crs = {"proj:code": f"EPSG:{epsg}" if epsg else None}
    if grid.crs and not epsg:
        crs["proj:wkt2"] = grid.crs.to_wkt(version="WKT2_2019")
    place = {"proj:shape": [grid.height, grid.width], "proj:transform": list(grid.transform)[:6]}
    properties = {**when, "gsd": round(grid.gsd_m, 3), **crs, **place}
    links = [{"rel": "derived_from", "href": str(href)} for href in derived_from]
    ground = shapely.Polygon(grid.outline) if grid.outline else None
    return stac_item(name, ground, properties, assets, "projection/v2.0.0", links=links)


def _stac_map(file: Path, out: Path, legend: Legend, num_pixels: Sequence[int], num_nodata: int) -> dict[str, Any]:
    """The map as a STAC asset, with its classes and checksum."""
    classes = [{**each, "count": n} for each, n in zip(stac_classes(legend), num_pixels, strict=True)]
    classes.append({"value": legend.map_nodata, "name": "nodata", "nodata": True, "count": num_nodata})
    band = {"name": "land_cover", "data_type": legend.map_dtype, "nodata": legend.map_nodata}
    kind = "image/tiff; application=geotiff; profile=cloud-optimized"
    bands = [band | {"classification:classes": classes}]
    return {**stac_file(file, kind, "Land cover", "data"), "href": f"./{out.name}", "bands": bands}


def _stac_side(key: str, path: Path, out: Path) -> dict[str, Any]:
    kind, role, title = _SIDE_FILES[key]
    href = f"./{path.name}" if path.parent == out.parent else path.as_posix()
    return {"href": href, "type": kind, "title": title, "roles": [role]}
