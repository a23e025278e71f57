"""Files that lie side by side as one raster, and parts of files: virtual rasters (VRT) whose text is their path."""

from __future__ import annotations

import html
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from dataclasses import dataclass

import rasterio
from rasterio.enums import ColorInterp

from covermap.core.errors import BandError, DataError, GridError, UnreadableError
from covermap.geo.damage import GDAL_ERRORS
from covermap.geo.grid import Grid, Window

_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip
_NUDGE_PX = 0.01


@dataclass(frozen=True)
class _Tile:
    path: str
    grid: Grid
    names: tuple[str | None, ...]
    dtypes: tuple[str, ...]
    nodata: float | None


def mosaic(paths: Sequence[str], *, gaps: bool = False, overlap: bool = False) -> str:
    """The path of the raster that files make together; nothing is written or resampled.

    All must have one CRS, pixel size, bands and nodata value, and pixels in one lattice; they may leave gaps only where
    a nodata value can say so, or a mask that `gaps` adds. They must not overlap; with `overlap` and a nodata value they
    may, and the first one that holds something counts. Raises GridError, BandError or
    DataError that names the file.
    """
    tiles = [_look(path) for path in paths]
    first = tiles[0]
    for tile in tiles[1:]:
        _require_same_kind(first, tile)
    places = [_place(first, tile) for tile in tiles]
    top, left = min(place.row for place in places), min(place.col for place in places)
    height = max(place.row + place.height for place in places) - top
    width = max(place.col + place.width for place in places) - left
    placed = sorted(zip(places, tiles, strict=True), key=lambda pair: (pair[0].row, pair[0].col))
    over = overlap and first.nodata is not None
    if over:
        placed = list(zip(places, tiles, strict=True))[::-1]  # what is drawn later lies on top
    else:
        _require_no_overlap(placed)
    covered = sum(place.height * place.width for place in places)
    mask = not over and covered < height * width and first.nodata is None
    if mask and not gaps:
        raise GridError(
            f"{len(tiles)} files such as {first.path} cover only {covered / (height * width):.1%} of their rectangle",
            fix="download the missing files; only files with a nodata value may leave gaps",
        )
    whole = Window(top, left, height, width)
    parts = [(place.within(whole), Window(0, 0, place.height, place.width), tile) for place, tile in placed]
    return _text(first.grid.window_grid(whole), parts, mask=mask, over=over)


def part_of(path: str, bounds: tuple[float, float, float, float]) -> str:
    """The path of the part of a file within left, bottom, right, top, to the nearest whole pixels; nothing is written.

    Raises GridError for a part that does not lie inside of the file.
    """
    tile = _look(path)
    window = nearest_window(tile.grid, bounds)
    if window.is_empty or window.intersect(tile.grid.window) != window:
        raise GridError(
            f"the part {', '.join(f'{value:.8g}' for value in bounds)} (left, bottom, right, top) does not lie inside "
            f"of {path} ({tile.grid.describe()})",
            fix="check the CRS of the bounds",
        )
    return _text(tile.grid.window_grid(window), [(Window(0, 0, window.height, window.width), window, tile)])


def nearest_window(grid: Grid, bounds: tuple[float, float, float, float]) -> Window:
    """The pixels nearest to left, bottom, right, top in the grid's CRS; they may lie outside of it."""
    left, bottom, right, top = bounds
    corners = [~grid.transform * (x, y) for x in (left, right) for y in (bottom, top)]
    cols, rows = ([corner[axis] for corner in corners] for axis in (0, 1))
    row, col = round(min(rows)), round(min(cols))
    return Window(row, col, round(max(rows)) - row, round(max(cols)) - col)


def _look(path: str) -> _Tile:
    try:
        with rasterio.open(path) as file:
            grid = Grid(file.crs, file.transform, file.height, file.width)
            alpha = [path for kind in file.colorinterp if kind == ColorInterp.alpha]
            tile = _Tile(path, grid, tuple(file.descriptions), tuple(file.dtypes), file.nodata)
    except GDAL_ERRORS as error:
        raise UnreadableError(f"{path} is not a raster that can be read: {error}", fix="download it again") from error
    if alpha or set(tile.dtypes) - set(_TYPES) or grid.transform.is_identity:
        what = "an alpha band" if alpha else "no place" if grid.transform.is_identity else f"numbers {tile.dtypes[0]}"
        raise DataError(f"{path} has {what}: it cannot be joined with others", fix="join the files with gdalbuildvrt")
    return tile


def _require_same_kind(first: _Tile, tile: _Tile) -> None:
    if not tile.grid.same_crs(first.grid):
        raise GridError(
            f"{tile.path} is {tile.grid.describe()}, {first.path} is {first.grid.describe()}",
            fix="files of one image share a CRS: export it again, or give them as scenes of their own",
        )
    if tile.names != first.names:
        raise BandError(
            f"{tile.path} has the bands {_list(tile.names)}, {first.path} has {_list(first.names)}",
            fix="files of one image share their bands: is one of another export?",
        )
    if (tile.dtypes, tile.nodata) != (first.dtypes, first.nodata):
        raise DataError(
            f"{tile.path} holds {tile.dtypes[0]} with nodata {tile.nodata}, {first.path} {first.dtypes[0]} with "
            f"{first.nodata}",
            fix="files of one image share type and nodata: is one of another export?",
        )


def _list(names: Sequence[str | None]) -> str:
    return ", ".join(name or "(no name)" for name in names)


def _place(first: _Tile, tile: _Tile) -> Window:
    """The rectangle of a file in the pixels of the first; raises GridError where they do not fall on each other."""
    height, width = tile.grid.height, tile.grid.width
    upper, lower = (~first.grid.transform * (tile.grid.transform * xy) for xy in ((0, 0), (width, height)))
    col, row = round(upper[0]), round(upper[1])
    off = max(abs(upper[0] - col), abs(upper[1] - row), abs(lower[0] - col - width), abs(lower[1] - row - height))
    if off > _NUDGE_PX:
        raise GridError(
            f"the pixels of {tile.path} ({tile.grid.describe()}) do not continue those of {first.path} "
            f"({first.grid.describe()})",
            fix="export the whole image at one scale, or align the files first: covermap prepare",
        )
    return Window(row, col, height, width)


def _require_no_overlap(placed: Sequence[tuple[Window, _Tile]]) -> None:
    for i, (place, tile) in enumerate(placed):
        for other, second in placed[i + 1 :]:
            if other.row >= place.row + place.height:
                break
            if not place.intersect(other).is_empty:
                raise GridError(
                    f"{tile.path} and {second.path} lie on each other", fix="keep one of them: are there two exports?"
                )


def _text(grid: Grid, placed: Sequence[tuple[Window, Window, _Tile]], *, mask: bool = False, over: bool = False
) -> str:  # fmt: skip
    """The virtual raster: rectangles of it, those of the files that lie there, and the files.

    mask: where any lies. over: later files lie on earlier ones, but for their nodata.
    """
    root = xml.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs:
        xml.SubElement(root, "SRS", dataAxisToSRSAxisMapping="1,2").text = grid.crs.to_wkt()
    xml.SubElement(root, "GeoTransform").text = ", ".join(map(repr, grid.transform.to_gdal()))
    first = placed[0][2]
    for i, (name, dtype) in enumerate(zip(first.names, first.dtypes, strict=True), 1):
        band = xml.SubElement(root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(i))
        if name:
            xml.SubElement(band, "Description").text = name
        if first.nodata is not None:
            xml.SubElement(band, "NoDataValue").text = repr(first.nodata)
        _add_sources(band, placed, str(i), over=over)
    if mask:
        beside = xml.SubElement(root, "MaskBand")
        _add_sources(xml.SubElement(beside, "VRTRasterBand", dataType="Byte"), placed, "mask,1")
    return xml.tostring(root, encoding="unicode")


def _add_sources(band: xml.Element, placed: Sequence[tuple[Window, Window, _Tile]], number: str, *, over: bool = False
) -> None:  # fmt: skip
    for place, own, tile in placed:
        source = xml.SubElement(band, "ComplexSource" if over else "SimpleSource")
        xml.SubElement(source, "SourceFilename", relativeToVRT="0").text = tile.path
        xml.SubElement(source, "SourceBand").text = number
        height, width = str(place.height), str(place.width)
        xml.SubElement(source, "SrcRect", xOff=str(own.col), yOff=str(own.row), xSize=width, ySize=height)
        xml.SubElement(source, "DstRect", xOff=str(place.col), yOff=str(place.row), xSize=width, ySize=height)
        if over:
            xml.SubElement(source, "NODATA").text = repr(tile.nodata)


def is_mosaic(path: str) -> bool:
    """Whether a path is the text of a virtual raster."""
    return path.startswith("<VRTDataset")


def first_file(path: str) -> str:
    """The first file of a mosaic."""
    start = path.index(">", path.index("<SourceFilename")) + 1
    return html.unescape(path[start : path.index("</SourceFilename>")])
