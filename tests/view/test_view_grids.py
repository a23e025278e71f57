"""Rasters that do not lie as the frame does: in degrees, turned, shifted, around the world."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.transform import from_origin

from covermap.core.errors import DataError
from covermap.view.layers import open_view
from covermap.view.point import value_at
from covermap.view.tiles import Handles, data_tile
from tests.view.view_data import grey


def opened(*paths):
    view = open_view([str(path) for path in paths])
    return view, Handles(view.frame)


def native(view, handles, layer):
    """All of the frame at its native zoom, as indices."""
    zoom, across, down = view.frame.native, -(-view.frame.width // 256), -(-view.frame.height // 256)
    rows = [
        np.hstack([grey(data_tile(handles, layer, view.frame.tile(zoom, x, y))[0]) for x in range(across)])
        for y in range(down)
    ]
    return np.vstack(rows)[: view.frame.height, : view.frame.width]


@pytest.fixture
def write(tmp_path):
    """write(name, values, transform, crs) -> path of a raster of codes without overviews."""

    def make(name, values, to, crs="EPSG:4326", **more):
        height, width = values.shape
        profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype.name, "nodata": 0, "crs": crs, "transform": to}
        with rasterio.open(tmp_path / name, "w", width=width, height=height, **profile | more) as dataset:
            dataset.write(values, 1)
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("north", "size", "shape"), [(70, 0.01, (600, 80)), (50, 0.001, (90, 90)), (86, 0.1, (60, 70))]
)
def test_in_degrees_every_column_is_seen_and_a_click_tells_what_the_picture_shows(write, north, size, shape):
    values = np.random.default_rng(0).integers(1, 50, shape).astype(np.uint8)
    view, handles = opened(write("degrees.tif", values, from_origin(10, north, size, size)))
    frame, layer = view.frame, view.rasters[0]
    assert frame.width == shape[1]
    seen = native(view, handles, layer)
    rows = [int(frame.of_grid(layer.grid, 0.5, y + 0.5)[1]) for y in range(frame.height)]
    inside = [row for row in rows if row < shape[0]]
    clamped = (0 if north < 85 else round((north - 85.05) / size)), shape[0]
    assert {*range(clamped[0] + 1, clamped[1])} <= {*inside}  # no row is lost either
    for y, row in enumerate(rows):
        if 0 <= row < shape[0]:
            np.testing.assert_array_equal(seen[y], values[row] - 1)
    for x, y in np.random.default_rng(1).uniform((0, 0), (frame.width, frame.height), (300, 2)):
        found = value_at(handles, layer, x, y)
        shown = int(seen[int(y), int(x)])
        assert (255 if found is None else found["code"] - 1) == shown


UTM = "EPSG:32631"
HALVES = np.kron([[1, 2], [3, 4]], np.ones((30, 30))).astype(np.uint8)


def exact(view):
    return {one["id"]: one["exact"] for one in view.to_dict()["layers"]}


@pytest.mark.parametrize("turned", [Affine(10, 0, 5e5, 0, 10, 5e6 - 600), Affine(7, 7, 5e5, 7, -7, 5e6)])
def test_a_turned_map_throws_no_other_out(write, turned):
    plain = write("image.tif", HALVES.astype(np.float32), from_origin(5e5, 5e6, 10, 10), UTM)
    view, _ = opened(write("map.tif", HALVES, turned, UTM), plain)
    assert {one.name for one in view.rasters} == {"map.tif", "image.tif"}
    assert view.skipped == []
    assert (view.frame.crs.to_epsg(), view.frame.resolution) == (32631, 10)
    assert exact(view) == {"map": False, "image": True}


def test_a_map_with_south_up_is_shown_with_north_up(write):
    view, handles = opened(write("south.tif", HALVES[::-1], Affine(10, 0, 5e5, 0, 10, 5e6 - 600), UTM))
    layer = view.rasters[0]
    np.testing.assert_array_equal(native(view, handles, layer), HALVES - 1)
    assert view.frame.crs.to_epsg() == 32631
    for x, y in ((1, 1), (59, 1), (1, 59), (59.9, 59.9), (29.5, 30.5)):
        assert value_at(handles, layer, x, y)["code"] == HALVES[int(y), int(x)]


def test_one_turned_grid_for_all_is_shown_in_its_pixels(write):
    turned = Affine(7, 7, 5e5, 7, -7, 5e6)
    view, _ = opened(write("a.tif", HALVES, turned, UTM), write("b.tif", HALVES, turned, UTM))
    assert (view.frame.crs, len(view.rasters)) == (None, 2)
    assert exact(view) == {"a": True, "b": True}


def test_layers_whose_pixels_are_the_frames_are_exact(write):
    fine = write("zzz.tif", HALVES, from_origin(5e5, 5e6, 10, 10), UTM)
    others = {
        "coarse.tif": (30, 30, UTM), "odd.tif": (25, 25, UTM), "wide.tif": (20, 10, UTM), "zone.tif": (10, 10, "EPSG:32632"),
    }  # fmt: skip
    paths = [write(name, HALVES, from_origin(5e5, 5e6, x, y), crs) for name, (x, y, crs) in others.items()]
    view, _ = opened(fine, *paths)
    assert exact(view) == {"zzz": True, "coarse": True, "odd": False, "wide": True, "zone": False}
    in_degrees, _ = opened(write("degrees.tif", HALVES, from_origin(10, 50, 0.01, 0.01)))
    assert exact(in_degrees) == {"degrees": False}


def test_half_a_pixel_off_is_told(write):
    near, off = (
        write(f"{name}.tif", HALVES, from_origin(x, 5e6, 10, 10), UTM) for name, x in (("a", 5e5), ("b", 500_005))
    )
    view, _ = opened(near, off)
    assert sum("lies 0.50 px off the grid" in note for note in view.notes) == 1
    assert sorted(exact(view).values()) == [False, True]


def test_a_raster_over_180_degrees_is_refused_with_advice(write):
    across = write("pacific.tif", HALVES, from_origin(179.9, 10, 0.01, 0.01))
    world = write("world.tif", HALVES, from_origin(-180, 90, 6, 3))
    with pytest.raises(DataError, match=r"180 degrees.*EPSG:3832"):
        opened(across)
    view, _ = opened(across, world)
    assert [one.name for one in view.rasters] == ["world.tif"]
    assert any(line.startswith("pacific.tif: reaches over 180 degrees") for line in view.skipped)
