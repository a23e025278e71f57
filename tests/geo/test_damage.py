"""Files that libraries stumble over are refused with their name: a regression for each class that fuzzing found."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from covermap.core.errors import CovermapError, DataError, GridError, UnreadableError
from covermap.data.unpack import unpack
from covermap.geo.granule import Package
from covermap.geo.grid import Grid, Window
from covermap.geo.raster import open_dataset, open_raster
from covermap.geo.vector import read_table, without_place

UTM = CRS.from_epsg(32631)
LOCAL = CRS.from_wkt('LOCAL_CS["field",LOCAL_DATUM["d",0],UNIT["metre",1],AXIS["E",EAST],AXIS["N",NORTH]]')


def test_a_tag_of_the_wrong_type_is_no_bug(write_tif):
    """GDAL tells of it late, by an error that is none of rasterio's."""
    path = write_tif("a.tif", np.ones((3, 20, 20), "uint8"), bands=["a", "b", "c"])
    data = bytearray(Path(path).read_bytes())
    first = int.from_bytes(data[4:8], "little")
    for entry in range(int.from_bytes(data[first : first + 2], "little")):
        at = first + 2 + 12 * entry
        if int.from_bytes(data[at : at + 2], "little") == 273:  # StripOffsets
            data[at + 2 : at + 4] = struct.pack("<H", 2)
    Path(path).write_bytes(data)
    said = []
    for _ in range(3):  # it is told of with the next question, whatever that is
        try:
            open_raster(path).read(Window(0, 0, 8, 8))
        except DataError as error:
            said.append(str(error))
    assert said
    assert all("a.tif" in each for each in said)


@pytest.mark.parametrize("numbers", ["0, 0, 0, 0, 0, -10", "nan, 10, 0, 0, 0, -10", "0, inf, 0, 0, 0, -10"])
def test_pixels_without_a_size_or_place_are_refused(write_tif, tmp_path, numbers):
    path = write_tif("a.tif", np.ones((1, 4, 4), "uint8"), bands=["a"])
    source = f"<SimpleSource><SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    text = f'<VRTDataset rasterXSize="4" rasterYSize="4"><GeoTransform>{numbers}</GeoTransform>{band}</VRTDataset>'
    (tmp_path / "a.vrt").write_text(text)
    with pytest.raises(UnreadableError, match=r"a\.vrt.*pixels have no size or place"):
        open_dataset(str(tmp_path / "a.vrt"))


def test_bands_of_several_types_are_read_together(write_tif, tmp_path):
    one = write_tif("a.tif", np.full((1, 6, 8), 200, "uint8"), bands=["a"])
    other = write_tif("b.tif", np.full((1, 6, 8), -3.5, "float32"), bands=["b"])
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><Description>{name}</Description><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{path}</SourceFilename><SourceBand>1</SourceBand>'
        f"</SimpleSource></VRTRasterBand>"
        for i, (kind, name, path) in enumerate((("Byte", "a", one), ("Float32", "b", other)), 1)
    )
    text = f'<VRTDataset rasterXSize="8" rasterYSize="6"><SRS>EPSG:32631</SRS>{bands}</VRTDataset>'
    text = text.replace("<SRS>", "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform><SRS>")
    (tmp_path / "all.vrt").write_text(text)
    raster = open_raster(tmp_path / "all.vrt")
    for window in (raster.grid.window, Window(-2, -2, 5, 5)):
        values, valid = raster.read(window)
        assert values[0, 0][valid[0]].tolist() == [200] * int(valid.sum())
        assert values[0, 1][valid[0]].tolist() == [-3.5] * int(valid.sum())
    other = Grid(UTM, Affine(20, 0, 500_000, 0, -20, 5_000_000), 3, 4)
    assert raster.on(other).read()[0][0, :, 0, 0].tolist() == [200, -3.5]


def test_a_vrt_that_is_no_utf8(tmp_path):
    (tmp_path / "a.vrt").write_bytes(b'<VRTDataset rasterXSize="8" rasterYSize="\xc3">')
    with pytest.raises(UnreadableError, match=r"a\.vrt"):
        open_dataset(str(tmp_path / "a.vrt"))


def test_a_tag_of_a_map_that_is_no_json(write_tif):
    from covermap.data.class_map import open_class_map

    path = write_tif("a.tif", np.ones((4, 4), "uint8"))
    for tag, text in (("COVERMAP_LEGEND", "{"), ("COVERMAP_LEGEND", "5"), ("COVERMAP_HISTORY", "[1]")):
        with rasterio.open(path, "r+") as file:
            file.update_tags(COVERMAP_LEGEND="", COVERMAP_HISTORY="[]")
            file.update_tags(**{tag: text})
        with pytest.raises(DataError, match=tag):
            open_class_map(path, infer=True)


def test_a_crs_that_lies_nowhere():
    place = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    local, utm = (Grid(crs, place, 10, 10) for crs in (LOCAL, UTM))
    assert local.lat_lon() is None
    with pytest.raises(GridError, match="no way is known"):
        utm.overlap(local)
    with pytest.raises(GridError, match="no way is known"):
        utm.window_of(local, local.window)


def test_fields_of_one_name_and_values_that_are_lists(tmp_path):
    points = [{"type": "Feature", "properties": {"class": {"a": [1]}, "tags": ["x"]},
               "geometry": {"type": "Point", "coordinates": [1.5, 41]}}]  # fmt: skip
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": points}))
    table = read_table(tmp_path / "a.geojson")
    assert [isinstance(table[name].iloc[0], str) for name in ("class", "tags")] == [True, True]
    double = gpd.GeoDataFrame({"number": [1], "names_b": ["x"]}, geometry=[shapely.Point(1, 2)], crs=UTM)
    double.to_file(tmp_path / "b.shp", engine="pyogrio")
    data = (tmp_path / "b.dbf").read_bytes()
    (tmp_path / "b.dbf").write_bytes(data.replace(b"names_b\0", b"number\0\0"))
    with pytest.raises(DataError, match="'number' twice"):
        read_table(tmp_path / "b.shp")


def test_shapes_that_are_none(tmp_path):
    ring = [[1, 41], [1.1, 41], [1.1, 41.1], [1, 41.2]]
    text = {"type": "Feature", "properties": {"class": "a"}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [text]}))
    with pytest.raises(DataError, match=r"a\.geojson is not a vector file"):
        read_table(tmp_path / "a.geojson")
    with np.errstate(invalid="ignore"):
        odd = shapely.polygons([[0, 0], [1, 0], [1, float("nan")], [0, 0]])
    assert without_place(np.array([odd, shapely.box(0, 0, 1, 1), None], object)).tolist() == [True, False, True]


def test_a_dbf_that_is_no_utf8(tmp_path):
    table = gpd.GeoDataFrame({"class": ["wood"]}, geometry=[shapely.Point(1, 2)], crs=UTM)
    table.to_file(tmp_path / "a.shp", engine="pyogrio")
    (tmp_path / "a.cpg").write_text("UTF-8")
    data = (tmp_path / "a.dbf").read_bytes()
    (tmp_path / "a.dbf").write_bytes(data.replace(b"wood", b"w\xa0\xffd"))
    with pytest.raises(DataError, match=r"a\.shp is not a vector file"):
        read_table(tmp_path / "a.shp")


def test_a_code_of_no_crs(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,class\n1,2,a\n")
    with pytest.raises(GridError, match="EPSG:999999 is no CRS"):
        read_table(tmp_path / "a.csv", epsg=999_999)


@pytest.mark.parametrize(
    "shape", ["(4611686018427387904, 2, 2)", "(1099511627776, 4, 3)", "(0, 0, 0)", "(-1, 2, 3)", "(", "()"]
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_heads_of_arrays_that_tell_of_too_much(tmp_path, shape, ending):
    """They take no memory: the head is believed only as far as there are bytes."""
    import zipfile

    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + b"\0" * 96
    path = tmp_path / "eopatch" / "data" / f"a.{ending}"
    path.parent.mkdir(parents=True)
    crs = {"properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
    ring = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    (tmp_path / "eopatch" / "bbox.geojson").write_text(json.dumps({"crs": crs, "coordinates": [ring]}))
    if ending == "npy":
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as pack:
            pack.writestr("arr_0.npy", data)
    with pytest.raises(DataError, match=rf"a\.{ending}"):
        open_dataset(str(path))


@pytest.mark.parametrize(
    "about", [{"bounds": [1, 2, 3], "crs": "EPSG:32631"}, {"bounds": [0, 0, 0, 0], "crs": "EPSG:32631"},
              {"bounds": [0, 0, 9, 9], "crs": "EPSG:x"}, {"bounds": "abcd", "crs": 5}],
)  # fmt: skip
def test_a_cube_whose_place_is_none(tmp_path, about):
    np.savez(tmp_path / "a.npz", np.ones((1, 4, 4), "float32"))
    (tmp_path / "a.metadata.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="tells no place"):
        open_dataset(str(tmp_path / "a.npz"))


def test_a_damaged_netcdf(tmp_path):
    from covermap.geo.layers import read_layers

    (tmp_path / "a.nc").write_bytes(b"CDF\1" + b"\0" * 40)
    with pytest.raises(CovermapError, match=r"a\.nc"):
        read_layers(str(tmp_path / "a.nc"), "x")


def test_a_damaged_archive_that_is_packed(tmp_path):
    path = tmp_path / "product.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MTD.xml", "".join(f"<a>{i * i}</a>" for i in range(5000)))
    damaged = bytearray(path.read_bytes())
    damaged[60:400] = bytes(range(255, 0, -1)) + bytes(85)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"MTD\.xml in .* cannot be read"):
        Package.open(path).text("MTD.xml")
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, tmp_path)


def test_what_leads_out_of_a_product_is_said_as_it_is(tmp_path):
    (tmp_path / "product").mkdir()
    (tmp_path / "outside.xml").write_text("<a/>")
    (tmp_path / "product/MTD.xml").symlink_to(tmp_path / "outside.xml")
    with pytest.raises(DataError, match="leads out of") as caught:
        Package(tmp_path / "product", ("MTD.xml",)).text("MTD.xml")
    assert "cannot be read" not in str(caught.value)
