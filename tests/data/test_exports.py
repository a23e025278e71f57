"""Exports of Earth Engine and chips cut by a grid. File names are those that Earth Engine writes."""

import numpy as np
import pytest

from covermap.core.config import DataConfig
from covermap.core.errors import BandError, DataError, GridError
from covermap.core.registry import find
from covermap.data.scene import open_scenes

VALUES = np.arange(3 * 24 * 20, dtype="uint16").reshape(3, 24, 20) + 1


@pytest.fixture
def export(write_tif, tmp_path):
    """An image in two files, and one in a single file."""
    bands = ["B2", "B8", "NDVI_median"]
    for row in (0, 16):
        name = f"ee/ghana_2020-{row:010d}-0000000000.tif"
        write_tif(name, VALUES[:, row : row + 16], bands=bands, origin=(500_000, 5_000_000 - 10 * row))
    write_tif("ee/togo.tif", VALUES[:, :8], bands=bands, origin=(700_000, 5_000_000))
    return tmp_path / "ee"


def test_parts_of_an_export_are_one_scene_with_the_exports_bands(export, write_tif):
    scenes = open_scenes(DataConfig(source="earth_engine", root=str(export), options={"date": "2020"}))
    assert [(s.name, s.grid.height) for s in scenes] == [("ghana_2020", 24), ("togo", 8)]
    assert scenes[0].rasters["image"].bands == ("b2", "b8", "ndvi")
    assert np.array_equal(scenes[0].read(scenes[0].grid.window).image["image"][0], VALUES)
    assert scenes[0].dates == ("2020",)
    write_tif("ee/togo_labels.tif", np.ones((8, 20), "uint8"), origin=(700_000, 5_000_000))
    with pytest.raises(DataError, match=r"do not pair: ghana_2020\.tif or ghana_2020_labels\.tif is not there"):
        find("source", "earth_engine")(export).scenes()
    write_tif("ee/ghana_2020_labels.tif", np.full((24, 20), 2, "uint8"))
    both = open_scenes(
        DataConfig(source="earth_engine", root=str(export), options={"sensor": "sentinel2", "use": ["nir"]})
    )
    assert [scene.read_labels(scene.grid.window).max() for scene in both] == [1, 0]
    assert both[0].rasters["sentinel2"].bands == ("nir",)


def test_parts_of_another_place_or_band_are_refused_by_name(export, write_tif):
    second = "ee/ghana_2020-0000000016-0000000000.tif"
    where = {"origin": (500_000, 4_999_840)}
    write_tif(second, VALUES[:, 16:], bands=["B2", "B8", "NDVI_median"], crs="EPSG:32632", **where)
    with pytest.raises(GridError, match=r"ghana_2020-0000000016-0000000000\.tif is EPSG:32632"):
        find("source", "earth_engine")(export).scenes()
    write_tif(second, VALUES[:, 16:], bands=["B2", "B4", "NDVI_median"], **where)
    with pytest.raises(BandError, match=r"0000000016-0000000000\.tif has the bands B2, B4, NDVI_median"):
        find("source", "earth_engine")(export).scenes()
    write_tif("ee/ghana_2020.tif", VALUES[:, :8])
    with pytest.raises(DataError, match="are one image twice"):
        find("source", "earth_engine")(export).scenes()
