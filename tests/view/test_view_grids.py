"""Rasters that do not lie as the frame does: in degrees, turned, shifted, around the world."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

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
