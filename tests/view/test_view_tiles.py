"""Tiles: at the native zoom the raster's own pixels, beyond its edge nothing, in any CRS and of any type."""

import io

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform

from covermap.core.errors import DataError
from covermap.view.layers import open_view
from covermap.view.tiles import Handles, data_tile, image_tile, png, read_box
from tests.view.view_data import codes, grey


def opened(*paths):
    view = open_view([str(path) for path in paths])
    return view, Handles(view.frame)


def mosaic(view, handles, layer, z):
    """All tiles of a zoom as one array of indices."""
    num = 2**z
    rows = [
        np.hstack([grey(data_tile(handles, layer, view.frame.tile(z, x, y))[0]) for x in range(num)])
        for y in range(num)
    ]
    return np.vstack(rows)


def test_at_the_native_zoom_tiles_are_the_raster_itself(folder):
    view, handles = opened(folder / "map.tif")
    found = mosaic(view, handles, view.rasters[0], view.frame.native)
    expected = codes()
    index = np.where(expected == 0, 255, expected // 10 - 1)
    assert view.frame.native == 2
    np.testing.assert_array_equal(found[:600, :700], index)
    assert (found[600:] == 255).all()
    assert (found[:, 700:] == 255).all()


def test_zoomed_out_each_pixel_is_the_class_of_its_square_where_that_has_one_class(folder):
    view, handles = opened(folder / "map.tif")
    half = mosaic(view, handles, view.rasters[0], 1)[:300, :350]
    expected = codes().reshape(300, 2, 350, 2)  # patches are of 10 px, so squares of 2 px have one class
    np.testing.assert_array_equal(half, np.where(expected[:, 0, :, 0] == 0, 255, expected[:, 0, :, 0] // 10 - 1))
    whole = grey(data_tile(handles, view.rasters[0], view.frame.tile(0, 0, 0))[0])
    assert set(np.unique(whole).tolist()) == {0, 1, 2, 255}


def test_imagery_is_jpeg_where_whole_and_has_alpha_at_the_edge(folder):
    view, handles = opened(folder / "map.tif", folder / "image.tif")
    image = view.rasters[-1]
    data, kind = image_tile(handles, image, view.frame.tile(2, 0, 0), ("red", "green", "blue"), 2)
    assert (kind, Image.open(io.BytesIO(data)).size) == ("image/jpeg", (256, 256))
    data, kind = image_tile(handles, image, view.frame.tile(2, 2, 2), ("red", "green", "blue"), 2)
    assert kind == "image/png"
    alpha = grey(data)[..., 3]
    expected = np.zeros((256, 256), np.uint8)
    expected[: 600 - 512, : 700 - 512] = np.where(codes()[512:, 512:] == 0, 0, 255)
    np.testing.assert_array_equal(alpha, expected)
    assert image_tile(handles, image, view.frame.tile(2, 3, 3), ("red",), 2) is None


def test_zoomed_out_imagery_is_the_mean(write_tif):
    values = np.random.default_rng(0).integers(1, 1000, (1, 512, 512)).astype(np.float32)
    view, handles = opened(write_tif("image.tif", np.repeat(values, 3, 0), bands=["red", "green", "blue"]))
    found, _ = read_box(handles, view.rasters[0], [1], view.frame.tile(0, 0, 0))
    np.testing.assert_allclose(found[0], values[0].reshape(256, 2, 256, 2).mean((1, 3)), rtol=1e-4)


def test_coarser_pixels_are_repeated_where_they_lie(write_tif):
    fine = write_tif("fine.tif", np.ones((60, 60), np.uint8), nodata=0)
    coarse = np.arange(1, 26, dtype=np.uint8).reshape(5, 5)
    path = write_tif("coarse.tif", coarse, nodata=0, gsd=30.0, origin=(500_030, 4_999_970))
    view, handles = opened(fine, path)
    layer = next(one for one in view.rasters if one.name == "coarse.tif")
    found = grey(data_tile(handles, layer, view.frame.tile(0, 0, 0))[0])
    expected = np.full((256, 256), 255)
    expected[3:18, 3:18] = np.kron(coarse - 1, np.ones((3, 3)))
    np.testing.assert_array_equal(found, expected)


def test_a_raster_in_degrees_is_laid_on_the_frame_of_the_map(folder, write_tif):
    lon, lat = transform("EPSG:32631", "EPSG:4326", [500_000, 507_000], [5_000_000, 4_994_000])
    width, size = 400, (lon[1] - lon[0]) / 400
    height = int((lat[0] - lat[1]) / size)
    with rasterio.open(
        folder / "degrees.tif", "w", driver="GTiff", width=width, height=height, count=1, dtype="uint8", nodata=0,
        crs="EPSG:4326", transform=from_origin(lon[0], lat[0], size, size),
    ) as dataset:  # fmt: skip
        halves = np.full((height, width), 1, np.uint8)
        halves[:, 200:] = 2
        dataset.write(halves, 1)
    view, handles = opened(folder / "map.tif", folder / "degrees.tif")
    assert view.frame.crs.to_epsg() == 32631
    layer = next(one for one in view.rasters if one.name == "degrees.tif")
    found = mosaic(view, handles, layer, 2)[5:590, 20:690]
    assert ((found == 0).sum(1) > 300).all()
    assert set(np.unique(found[300]).tolist()) == {0, 1}
    border = np.argmax(found[300] == 1) + 20
    assert abs(border - 350) < 6


def test_a_map_in_degrees_alone_is_shown_in_web_mercator(tmp_path):
    values = np.kron([[1, 2], [3, 4]], np.ones((50, 50))).astype(np.uint8)
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", width=100, height=100, count=1, dtype="uint8", nodata=0,
        crs="EPSG:4326", transform=from_origin(10, 50, 0.001, 0.001),
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    view, handles = opened(tmp_path / "map.tif")
    told = view.to_dict()
    assert told["frame"]["crs"] == "EPSG:3857"
    assert told["frame"]["hectares_per_px"] is None
    classes = told["layers"][0]["classes"]
    assert [one["pixels"] for one in classes] == [2500] * 4
    assert classes[0]["hectares"] == pytest.approx(2500 * 0.796, rel=0.01)
    tile = grey(data_tile(handles, view.rasters[0], view.frame.tile(0, 0, 0))[0])
    assert set(np.unique(tile).tolist()) == {0, 1, 2, 3, 255}


def test_one_pixel_is_shown(write_tif):
    view, handles = opened(write_tif("one.tif", np.array([[7]], np.uint8), nodata=0))
    tile = grey(data_tile(handles, view.rasters[0], view.frame.tile(0, 0, 0))[0])
    assert view.frame.native == 0
    assert tile[0, 0] == 0
    assert (tile.ravel()[1:] == 255).all()


def test_nan_is_no_data_and_numbers_run_from_low_to_high(write_tif):
    values = np.linspace(-5, 20, 100 * 100, dtype=np.float32).reshape(100, 100)
    values[:10] = np.nan
    view, handles = opened(write_tif("height.tif", values))
    layer = view.rasters[0]
    assert layer.kind == "number"
    assert -5 < layer.scale.low < 0 < 19 < layer.scale.high <= 20
    tile = grey(data_tile(handles, layer, view.frame.tile(0, 0, 0))[0])[:100, :100]
    assert (tile[:10] == 255).all()
    assert tile[10:].max() == 254
    assert (np.diff(tile[10:].ravel().astype(int)) >= 0).all()


def test_more_than_254_classes_are_told_by_two_channels(write_tif):
    values = np.arange(300 * 300).reshape(300, 300) % 301
    path = write_tif("many.tif", values.astype(np.uint16), nodata=0, bands=["class"])
    view, handles = opened(path)
    layer = view.rasters[0]
    assert len(layer.classes) == 300
    tile = grey(data_tile(handles, layer, view.frame.tile(view.frame.native, 0, 0))[0]).astype(int)
    index = tile[..., 0] * 256 + tile[..., 1]
    expected = values[:256, :256]
    np.testing.assert_array_equal(index, np.where(expected == 0, 65535, expected - 1))


def test_a_file_without_crs_or_turned_is_shown_in_its_own_pixels(write_tif, tmp_path):
    values = codes(300, 300)
    view, handles = opened(write_tif("plain.tif", values, nodata=0, crs=None))
    assert view.to_dict()["frame"] | {"origin": 0} == view.frame.to_dict() | {"origin": 0}
    assert (view.frame.crs, view.frame.to_dict()["unit"]) == (None, "px")
    np.testing.assert_array_equal(mosaic(view, handles, view.rasters[0], 1)[:200, :150], values[:200, :150] // 10 - 1)


def test_a_raster_without_crs_is_skipped_beside_one_that_has_it(folder, write_tif):
    write_tif("data/plain.tif", codes(), nodata=0, crs=None)
    view, _ = opened(folder)
    assert "plain.tif" not in [one.name for one in view.rasters]
    assert any(line.startswith("plain.tif: has no CRS") for line in view.skipped)


def test_a_file_that_changes_is_read_anew(folder):
    view, handles = opened(folder / "map.tif")
    layer = view.rasters[0]
    before = grey(data_tile(handles, layer, view.frame.tile(2, 0, 0))[0])
    with rasterio.open(folder / "map.tif") as dataset:
        profile, tags = dataset.profile, dataset.tags()
    swapped = codes()
    swapped[swapped == 10] = 20
    (folder / "map.tif").unlink()
    with rasterio.open(folder / "map.tif", "w", **{**profile, "driver": "GTiff"}) as dataset:
        dataset.write(swapped, 1)
        dataset.update_tags(**tags)
    new = view.raster("map")
    assert new.version != layer.version
    after = grey(data_tile(handles, new, view.frame.tile(2, 0, 0))[0])
    assert (before == 0).any()
    assert not (after == 0).any()
    assert new.classes[0].pixels == 0  # areas.csv of before no longer counts
    (folder / "map.tif").unlink()
    with pytest.raises(DataError, match="gone"):
        view.raster("map")


def test_png_holds_what_it_was_given():
    for shape in ((5, 7), (5, 7, 3), (5, 7, 4)):
        values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        np.testing.assert_array_equal(grey(png(values)), values)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(values)))), values)


def test_layers_far_apart_are_small_specks_of_one_frame(write_tif):
    near = write_tif("near.tif", np.ones((50, 50), np.uint8), nodata=0)
    far = write_tif("far.tif", np.full((50, 50), 2, np.uint8), nodata=0, crs="EPSG:32633", origin=(500_000, 1_000_000))
    view, handles = opened(near, far)
    assert view.frame.native > 8
    for layer in view.rasters:
        box = view.frame.box(layer.grid)
        side = 2 ** (view.frame.native + 8)
        x, y = (int(v * 256 / side) for v in box[:2])
        tile = grey(data_tile(handles, layer, view.frame.tile(0, 0, 0))[0])
        assert (tile != 255).sum() == 1
        assert tile[y, x] == 0


def test_numbers_below_nought_among_classes_are_no_class_and_counted(write_tif):
    values = np.kron([[-1, 0], [1, 1]], np.ones((10, 10))).astype(np.int16)
    view, handles = opened(write_tif("flood.tif", values))
    layer = view.rasters[0]
    assert [(one.code, one.pixels) for one in layer.classes] == [(0, 100), (1, 200)]
    assert layer.unknown_px == 100
    tile = grey(data_tile(handles, layer, view.frame.tile(0, 0, 0))[0])[:20, :20]
    np.testing.assert_array_equal(tile, np.where(values < 0, 255, values))


def elsewhere(write_tif, values, nodata=None, **extra):
    """A view of a raster in another UTM zone than the map beside it, which lies around it; its layer and handles."""
    (x,), (y,) = transform("EPSG:32631", "EPSG:32632", [500_100], [4_999_900])
    size = {"gsd": 13.0, "origin": (x, y), "crs": "EPSG:32632"}
    names = [f"band {number}" for number in range(len(values))]
    path = write_tif("image.tif", values, nodata=nodata, bands=names, **size, **extra)
    view, handles = opened(write_tif("map.tif", np.ones((100, 100), np.uint8), nodata=0), path)
    layer = next(one for one in view.rasters if one.name == "image.tif")
    return view.frame.tile(view.frame.native, 0, 0), layer, handles


@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 9999), ("int16", -9999), ("float32", -9999), ("uint8", 0)])
@pytest.mark.parametrize("alpha", [False, True])
def test_what_a_band_lacks_changes_neither_its_neighbours_nor_other_bands(write_tif, dtype, nodata, alpha):
    values = np.full((2, 50, 50), 100, dtype)
    values[0, 20:26, 20:26] = nodata
    if alpha:  # GDAL makes it the second band
        values = np.stack([values[0], np.full((50, 50), 255, dtype), values[1]])
    box, layer, handles = elsewhere(write_tif, values, nodata, alpha="yes" if alpha else "no", photometric="minisblack")
    (lacking, whole), (one, other) = zip(*(read_box(handles, layer, [n], box) for n in layer.indexes), strict=True)
    assert (set(lacking[0, one].tolist()), set(whole[0, other].tolist())) == ({100}, {100})
    hole = other & ~one
    assert 20 <= hole.sum() <= 60  # 36 px of 13 m are 61 of 10 m
    assert not (one & ~other).any()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize(("count", "alpha"), [(1, False), (3, False), (5, False), (4, True), (6, True)])
def test_beyond_the_edge_of_a_raster_in_another_crs_is_nothing(write_tif, dtype, count, alpha):
    values = np.full((count, 50, 50), 100, dtype)
    values[:, :25] = 50
    if alpha:  # GDAL makes it the second band
        values[1] = 255
    box, layer, handles = elsewhere(write_tif, values, alpha="yes" if alpha else "no", photometric="minisblack")
    assert len(layer.indexes) == count - alpha
    found, valid = read_box(handles, layer, layer.indexes, box)
    assert found[:, valid].min() == 50
    assert abs(valid.sum() - 65 * 65) < 100
