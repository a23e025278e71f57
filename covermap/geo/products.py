"""The map as users expect it: one call turns class codes into files that GIS programs, catalogues and people read.

    map.tif          cloud-optimised GeoTIFF: codes, nodata, colour table, overviews of the most frequent class
    map.tif.aux.xml  class names and attribute table (GDAL, QGIS)
    map.tif.vat.dbf  the same table for ArcGIS, with .vat.cpg where names are not of Latin letters
    map.qml map.clr  colours for QGIS and ArcGIS
    map.stac.json    STAC 1.1 Item: classes, place, date, checksums, origin
    areas.csv        class, code, pixels, hectares, share  (other.areas.csv for a map called other.tif)
    confidence.tif   made by predict, like probs.tif       (other_confidence.tif, other_probs.tif)

Nothing in them depends on when or where they were made: the same input gives the same bytes.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import shapely
from rasterio.io import DatasetReader

from covermap.core.engine import cores
from covermap.core.errors import OutputError
from covermap.core.legend import IGNORE, LandClass, Legend
from covermap.core.output import claim, only_with, replacing, scratch, write_text
from covermap.core.parsing import as_written, parse_json
from covermap.core.stac_item import stac_classes, stac_dates, stac_file, stac_item
from covermap.geo.damage import GDAL_ERRORS, naming_file
from covermap.geo.grid import Grid, partition
from covermap.geo.legend_files import aux_xml_text, clr_text, csv_text, qml_text
from covermap.geo.raster import grid_of
from covermap.geo.vat import write_vat

_BLOCK_PX = 512
_CACHE_BYTES = 64 << 20  # rasterio hands the number to GDAL as it is: 64 would be 64 bytes
_COUNT_ROWS = 64
_SIDE_FILES = {
    "attributes": ("application/xml", "Class names and attribute table (GDAL)"),
    "table": ("application/dbf", "Class names and attribute table (ArcGIS)"),
    "style": ("application/xml", "Colours (QGIS)"),
    "colours": ("text/plain", "Colours (value red green blue)"),
    "areas": ("text/csv", "Area of each class"),
    "transitions": ("text/csv", "Area of each transition"),
}
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
LAYERS = {
    "confidence": "Confidence in percent",
    "probs": "Probability of each class",
    "entropy": "Entropy in percent of the most that is possible",
    "set_size": "Classes in the conformal set",
    "sets": "Classes of the conformal set, a bit each",
    "applicability": "Distance from the training data in percent of the usual",
    "change": "Change between two dates",
    "before": "Classes of the earlier date",
    "after": "Classes of the later date",
    "probability": "Probability of change in percent",
}
"""All layers that verbs write beside a map, and what they hold; layer_beside knows no others."""


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


@dataclass(frozen=True)
class CodeTable:
    """What the codes of a raster mean and how much there is of each: all that its side files are made of.

    columns: further texts of each class in the attribute table, by name. content: SHA-256 of the codes, row by row,
    little-endian. band, title: what the raster is called.
    """

    classes: tuple[LandClass, ...]
    nodata: int
    dtype: str
    num_pixels: tuple[int, ...]
    areas_ha: tuple[float, ...]
    num_nodata: int
    content: str
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    band: str = "land_cover"
    title: str = "Land cover"


def finish_map(
    plain: str | Path, out: str | Path, legend: Legend, *, date: str | None = None,
    derived_from: Sequence[str | Path] = (), layers: Mapping[str, str | Path] | None = None,
    tags: Mapping[str, str] | None = None, overwrite: bool = False,
) -> MapSummary:  # fmt: skip
    """Turn a tiled GeoTIFF of class codes into the finished map `out` and its side files; `plain` is left as it is.

    plain: one band in `legend.map_dtype`, nodata `legend.map_nodata`. date: acquisition, `2019`, `2019-07`,
    `2019-07-27` or `first/last`; without it no STAC item is written and a note says so. derived_from: model and
    images. layers: finished rasters of the map's grid, by name. The tag COVERMAP_CONTENT is the SHA-256 of the codes,
    row by row, little-endian. Memory: 64 MB of cache and some rows of pixels.
    Raises OutputError, LabelError (codes that the legend does not know) and ConfigError (date).
    """
    if date:
        stac_dates(date)  # says so before the pixels are read
    out = claim(out, overwrite=overwrite)
    with small_cache(), rasterio.open(plain) as dataset:
        table = _count(dataset, grid_of(dataset), legend)
    areas = names_beside(out)["areas"]
    with only_with(write_text(areas, _areas_text(table))):
        files, notes = finish_codes(
            plain, out, table, date=date, derived_from=derived_from, layers=layers, tables={"areas": areas},
            tags={"COVERMAP_LEGEND": json.dumps(legend.to_dict()), **dict(tags or {})},
        )  # fmt: skip
    return MapSummary(out, files, legend, table.num_pixels, table.areas_ha, table.num_nodata, notes)


def finish_codes(
    plain: str | Path, out: Path, table: CodeTable, *, date: str | None, derived_from: Sequence[str | Path],
    layers: Mapping[str, str | Path] | None, tables: Mapping[str, Path], tags: Mapping[str, str], spend: bool = False,
) -> tuple[tuple[Path, ...], tuple[str, ...]]:  # fmt: skip
    """`finish_map` of a raster whose codes are counted already, of any number of classes; files and notes.

    tables: CSV files beside it that are written already, by role (`areas` ...). spend: `plain` may be written to, and
    is of no further use. Replaces files.
    """
    when = stac_dates(date) if date else None
    with rasterio.open(plain) as dataset:
        grid = grid_of(dataset)
    beside = {key: path for key, path in names_beside(out).items() if key != "areas"}
    all_tags = {"COVERMAP_CONTENT": f"sha256:{table.content}", **({"COVERMAP_DATE": date} if date else {}), **tags}
    colours = {c.code: (*c.rgb, 255) for c in table.classes} | {table.nodata: (0, 0, 0, 0)}
    notes: tuple[str, ...] = ()
    new = [path for path in beside.values() if not path.exists()]
    # The map itself appears last: where it stands, its side files are complete.
    with only_with(*new), replacing(out) as partial, no_gdal_leftovers(partial):
        _copy_as_cog(
            plain,
            partial,
            table.nodata,
            [table.band],
            all_tags,
            "mode",
            colours,
            spend=spend,
            statistics=_statistics(table),
        )
        write_text(beside["attributes"], aux_xml_text(table.classes, table.num_pixels, table.areas_ha, table.columns))
        pages = write_vat(table.classes, table.num_pixels, table.areas_ha, beside["table"], table.columns)[1:]
        write_text(beside["style"], qml_text(table.classes))
        write_text(beside["colours"], clr_text(table.classes))
        if when:
            assets = {"map": _stac_map(partial, out, table, grid)}
            assets |= {key: _stac_layer(key, Path(path), out) for key, path in (layers or {}).items()}
            assets |= {
                key: stac_file(path, *_SIDE_FILES[key], "metadata")
                for key, path in {**beside, **tables}.items()
                if key in _SIDE_FILES
            }
            write_text(beside["item"], _stac_item(out.stem, grid, when, derived_from, assets))
        else:
            beside.pop("item").unlink(missing_ok=True)
            notes = (
                "no STAC item was written: the date of the image is not known (state it: --date, or FILE@2019-07-27)",
            )
    return (out, *beside.values(), *tables.values(), *pages), notes


def legend_of_map(path: str | Path) -> Legend | None:
    """The legend that a finished map holds, also of classes without a pixel; None of other rasters."""
    with naming_file(path), rasterio.open(path) as dataset:
        text = dataset.tags().get("COVERMAP_LEGEND")
    if not text:
        return None
    with as_written(f"{path} (tag COVERMAP_LEGEND)", fix=f"remove it: gdal_edit.py -unsetmd {path}"):
        return Legend.from_dict(parse_json(text), where=str(path))


def summary_beside(out: Path, legend: Legend) -> MapSummary:
    """What a finished map holds, by the table of areas beside it; raises OutputError where that is gone."""
    try:
        rows = names_beside(out)["areas"].read_text(encoding="utf-8").splitlines()[1:]
        counts = [row.rsplit(",", 3)[1:3] for row in rows]
        with rasterio.open(out) as dataset:
            pixels = [int(count) for count, _ in counts]
            nodata = dataset.height * dataset.width - sum(pixels)
        files = [file for file in (out, *names_beside(out).values()) if file.exists()]
        return MapSummary(out, tuple(files), legend, tuple(pixels), tuple(float(ha) for _, ha in counts), nodata)
    except (*GDAL_ERRORS, ValueError, IndexError) as error:
        raise OutputError(f"{out} lacks its table of areas", fix="delete the map, or add --overwrite") from error


def finish_cog(
    plain: str | Path, out: str | Path, *, nodata: float | None, description: str | Sequence[str],
    tags: Mapping[str, str] | None = None, resampling: str = "average", overwrite: bool = False,
) -> Path:  # fmt: skip
    """Turn a tiled GeoTIFF (confidence, probabilities) into a cloud-optimised one; `plain` is left as it is.

    description: the name of each band. resampling: how overviews are made. Raises OutputError.
    """
    names = [description] if isinstance(description, str) else list(description)
    out = claim(out, overwrite=overwrite)
    with replacing(out) as partial, no_gdal_leftovers(partial):
        _copy_as_cog(plain, partial, nodata, names, tags or {}, resampling)
    return out


def _copy_as_cog(
    plain: str | Path, out: Path, nodata: float | None, names: Sequence[str], tags: Mapping[str, str],
    resampling: str, colours: Mapping[int, tuple[int, ...]] | None = None, *, spend: bool = False,
    statistics: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Copy a raster with GDAL's COG driver, which takes nodata, names, tags and colours from its source only.

    spend: they are written into `plain` itself, which is read faster than a view of it. statistics: of its one band, so
    that the pixels are not read for them.
    """
    with small_cache(), scratch(out) as folder:
        view = Path(plain) if spend else folder / "view.vrt"
        if not spend:
            with rasterio.open(plain) as source:
                rasterio.shutil.copy(source, view, driver="VRT")
        with rasterio.open(view, "r+") as dataset:
            dataset.nodata = nodata
            dataset.update_tags(TIFFTAG_SOFTWARE=f"covermap {version('covermap')}", **tags)
            for band, name in enumerate(names, 1):
                dataset.set_band_description(band, name)
            if colours:
                dataset.write_colormap(1, dict(colours))
            if statistics:
                dataset.update_tags(1, **statistics)
        options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": _BLOCK_PX, "OVERVIEW_RESAMPLING": resampling.upper()}
        options |= {"STATISTICS": "YES", "NUM_THREADS": cores()}  # of any number of threads the bytes are the same
        with rasterio.open(view) as dataset:
            rasterio.shutil.copy(dataset, out, driver="COG", BIGTIFF="IF_SAFER", **options)


@contextmanager
def small_cache() -> Iterator[None]:
    """GDAL with little memory."""
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        yield


@contextmanager
def no_gdal_leftovers(partial: Path) -> Iterator[None]:
    """Clear away what GDAL's COG driver leaves beside a file that it could not finish."""
    try:
        yield
    finally:
        for rest in partial.parent.glob(f"{glob.escape(partial.name)}.*"):
            if rest.is_file():
                rest.unlink()


def _count(dataset: DatasetReader, grid: Grid, legend: Legend) -> CodeTable:
    """Pixels and hectares of each class, in rows that weigh by the ground size of their own pixels, and the SHA-256."""
    num_pixels, areas_ha, content = np.zeros(256, np.int64), np.zeros(256), hashlib.sha256()
    stored = np.dtype(legend.map_dtype).newbyteorder("<")
    for strip in partition(grid.window, _COUNT_ROWS, grid.width):
        codes = dataset.read(1, window=strip.rasterio)
        content.update(codes.astype(stored).tobytes())
        index = np.full(codes.shape, IGNORE, np.uint8)
        mapped = codes != legend.map_nodata
        index[mapped] = legend.encode(codes[mapped], where=dataset.name)
        in_row = count_rows(index)
        num_pixels += in_row.sum(0)
        areas_ha += np.asarray(grid.row_areas_ha(strip.row, strip.height)) @ in_row
    pixels, areas = (tuple(values[: len(legend)].tolist()) for values in (num_pixels, areas_ha))
    return CodeTable(
        legend.classes, legend.map_nodata, legend.map_dtype, pixels, areas, int(num_pixels[IGNORE]), content.hexdigest()
    )


def count_rows(index: npt.NDArray[Any], size: int = 256) -> npt.NDArray[np.int64]:
    """(H, W) -> (H, size): pixels of each index in each row."""
    keys = index + size * np.arange(len(index))[:, None]
    return np.bincount(keys.ravel(), minlength=size * len(index)).reshape(len(index), size)


def layer_beside(out: Path, layer: str) -> Path:
    """Where a layer (of LAYERS) of a map lies."""
    assert layer in LAYERS, layer
    return out.with_name(f"{layer}.tif" if out.stem == "map" else f"{out.stem}_{layer}.tif")


def without_layers(files: Sequence[Path]) -> list[Path]:
    """The files that are no layer of another one of them."""
    layers = {layer_beside(file, layer) for file in files for layer in LAYERS}
    return [file for file in files if file not in layers]


def names_beside(out: Path) -> dict[str, Path]:
    """The side files of a map, by role."""
    return {
        "attributes": out.with_name(out.name + ".aux.xml"),
        "table": out.with_name(out.name + ".vat.dbf"),
        "style": out.with_suffix(".qml"),
        "colours": out.with_suffix(".clr"),
        "areas": out.with_name("areas.csv" if out.stem == "map" else f"{out.stem}.areas.csv"),
        "item": out.with_suffix(".stac.json"),
    }


def _statistics(table: CodeTable) -> dict[str, str]:
    """What GDAL would find in the codes, as it writes it."""
    codes, counts = (np.array(values, np.float64) for values in ([c.code for c in table.classes], table.num_pixels))
    known = counts.sum()
    if not known:
        return {}
    mean = float(codes @ counts / known)
    there = codes[counts > 0]
    numbers = {
        "MAXIMUM": there.max(), "MEAN": mean, "MINIMUM": there.min(),
        "STDDEV": float(np.sqrt((codes - mean) ** 2 @ counts / known)),
    }  # fmt: skip
    found = {f"STATISTICS_{key}": f"{value:.14g}" for key, value in numbers.items()}
    return found | {"STATISTICS_VALID_PERCENT": f"{100 * known / (known + table.num_nodata):.4g}"}


def _areas_text(table: CodeTable) -> str:
    total = sum(table.areas_ha) or 1.0
    rows = zip(table.classes, table.num_pixels, table.areas_ha, strict=True)
    header = ("class", "code", "pixels", "area_ha", "share")
    return csv_text(header, [(c.name, c.code, n, f"{area:.4f}", f"{area / total:.6f}") for c, n, area in rows])


def _stac_item(
    name: str, grid: Grid, when: dict[str, str | None], derived_from: Sequence[str | Path], assets: dict[str, Any]
) -> str:  # fmt: skip
    """A STAC 1.1 Item as text, with the extensions projection and raster beside those of all items."""
    properties = {**when, **grid_properties(grid)}
    links = [{"rel": "derived_from", "href": str(href)} for href in derived_from]
    ground = shapely.Polygon(grid.outline) if grid.outline else None
    return stac_item(name, ground, properties, assets, ["projection/v2.0.0", "raster/v2.0.0"], links=links)


def grid_properties(grid: Grid) -> dict[str, Any]:
    """Where a raster lies, in the words of the projection extension."""
    epsg = grid.crs.to_epsg() if grid.crs else None
    crs = {"proj:code": f"EPSG:{epsg}" if epsg else None}
    if grid.crs and not epsg:
        crs["proj:wkt2"] = grid.crs.to_wkt(version="WKT2_2019")
    place = {"proj:shape": [grid.height, grid.width], "proj:transform": list(grid.transform)[:6]}
    return {"gsd": round(grid.gsd_m, 3), **crs, **place}


def _stac_map(file: Path, out: Path, table: CodeTable, grid: Grid) -> dict[str, Any]:
    """The map as a STAC asset, with its classes and checksum."""
    classes = [{**each, "count": n} for each, n in zip(stac_classes(table.classes), table.num_pixels, strict=True)]
    classes.append({"value": table.nodata, "name": "nodata", "nodata": True, "count": table.num_nodata})
    band = {"name": table.band, "data_type": table.dtype, "nodata": table.nodata, **_stac_pixels(grid)}
    bands = [band | {"classification:classes": classes}]
    return {**stac_file(file, COG, table.title, "data"), "href": f"./{out.name}", "bands": bands}


def _stac_layer(key: str, path: Path, out: Path) -> dict[str, Any]:
    """A further raster of the map's grid as a STAC asset: bands with type, nodata and scale."""
    with rasterio.open(path) as dataset:
        pixels = _stac_pixels(grid_of(dataset))
        names = [name or f"band {i}" for i, name in enumerate(dataset.descriptions, 1)]
        rows = zip(names, dataset.dtypes, dataset.nodatavals, dataset.scales, dataset.offsets, strict=True)
        bands = []
        for name, dtype, nodata, scale, offset in rows:
            band = {"name": name, "data_type": dtype, **pixels}
            if nodata is not None:
                band["nodata"] = "nan" if math.isnan(nodata) else nodata
            if (scale, offset) != (1.0, 0.0):
                band |= {"raster:scale": scale, "raster:offset": offset}
            bands.append(band)
    file = stac_file(path, COG, LAYERS.get(key, key.capitalize()), "data")
    return {**file, "href": f"./{path.name}" if path.parent == out.parent else path.as_posix(), "bands": bands}


def _stac_pixels(grid: Grid) -> dict[str, Any]:
    return {"raster:sampling": "area", "raster:spatial_resolution": round(grid.gsd_m, 3)}
