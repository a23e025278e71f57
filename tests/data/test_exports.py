"""Exports of Earth Engine and chips cut by a grid. File names are those that Earth Engine writes."""

import json

import numpy as np
import pytest

from covermap.core.config import DataConfig
from covermap.core.errors import BandError, ConfigError, DataError, GridError
from covermap.core.registry import find
from covermap.data.scene import open_scenes
from covermap.data.sources.chip_grid import bands_at_angle

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


# ------------------------------------------------------------------ chips by a grid


def squares(path, corners, *, epsg=32631, side=80, name="identifier"):
    shapes = []
    for i, (left, top) in enumerate(corners):
        ring = [[left, top], [left + side, top], [left + side, top - side], [left, top - side], [left, top]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        shapes.append({"type": "Feature", "properties": {name: f"{i:x}" * 3}, "geometry": geometry})
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": shapes}))


@pytest.fixture
def grid(write_tif, tmp_path):
    """24 x 40 px at 10 m with another number in each pixel, elevation at 20 m, labels; 3 x 5 chips of 8 px."""
    where = {"origin": (500_000, 5_000_000)}
    fine = np.arange(24 * 40, dtype="uint16").reshape(1, 24, 40)
    write_tif("g/image.tif", fine, bands=["nir"], **where)
    write_tif("g/dem.tif", fine[:, ::2, ::2], gsd=20.0, **where)
    write_tif("g/labels.tif", 1 + (fine[0] % 40 // 8).astype("uint8"), nodata=0, **where)
    corners = [(500_000 + 80 * (i % 5), 5_000_000 - 80 * (i // 5)) for i in range(15)]
    squares(tmp_path / "g/chips.geojson", corners)
    return tmp_path / "g"


def test_rasters_are_cut_into_the_chips_of_a_grid(grid):
    images = [{"path": "image.tif"}, {"path": "dem.tif", "sensor": "dem", "bands": ["elevation"]}]
    options = {"images": images, "bands": 5, "angle": 0}
    scenes = open_scenes(DataConfig(source="chip_grid", root=str(grid), options=options))
    assert len(scenes) == 15
    chip = scenes[6]  # second row, second column
    assert (chip.name, chip.grid.height, chip.grid.width) == ("666", 8, 8)
    assert (chip.grid.transform.c, chip.grid.transform.f) == (500_080, 4_999_920)
    sample = chip.read(chip.grid.window, labels=True)
    assert sample.image["image"][0, 0, 0, 0] == 8 * 40 + 8
    assert sample.image["image"][0, 0, 7, 7] == 15 * 40 + 15
    assert sample.image["dem"].shape[-2:] == (8, 8)
    assert (sample.label == 1).all()  # the second column of chips holds code 2
    # West to east: the part that is furthest behind its share of 60, 20 and 20 of 100 bands.
    assert [scene.part for scene in scenes[:5]] == ["train", "val", "train", "test", "train"]
    assert [scene.part for scene in scenes[5:10]] == [scene.part for scene in scenes[:5]]


def test_bands_of_chips_stand_at_an_angle_and_keep_their_shares():
    row, col = np.mgrid[:100, :100]
    x, y = 4480.0 * col.ravel(), -4480.0 * row.ravel()
    parts = np.array(bands_at_angle(x, y, num_bands=60, angle=9.0))
    shares = [(parts == part).mean() for part in ("train", "val", "test")]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.02)
    at = parts.reshape(100, 100)
    # Along a band, 9 degrees clockwise of north, nothing changes: 40 chips north are 6.34 east.
    inner = at[50, 20]
    across = 20 * np.cos(np.radians(9)) + 50 * np.sin(np.radians(9))
    others = [(r, round((across - r * np.sin(np.radians(9))) / np.cos(np.radians(9)))) for r in range(0, 100, 10)]
    same = np.mean([at[r, c] == inner for r, c in others])
    straight = np.array(bands_at_angle(x, y, num_bands=60, angle=0.0)).reshape(100, 100)
    assert same >= 0.7
    assert (straight == straight[:1]).all()
    assert not (at == at[:1]).all()
    again = bands_at_angle(x[::-1], y[::-1], num_bands=60, angle=9.0)
    assert again[::-1] == parts.tolist()  # whatever the order of the chips
    with pytest.raises(DataError, match="2 bands leave no chips for test"):
        bands_at_angle(x, y, num_bands=2, angle=0.0)
    with pytest.raises(ConfigError, match="are no split"):
        bands_at_angle(x, y, num_bands=60, angle=0.0, shares=(0.6, 0.2, 0.3))


def test_chips_that_do_not_fit_are_counted_or_refused(grid):
    inner = [(500_000, 5_000_000), (500_080, 5_000_000), (500_160, 5_000_000), (500_240, 5_000_000)]
    squares(grid / "chips.geojson", [*inner, (500_360, 5_000_000), (600_000, 5_000_000)])
    source = find("source", "chip_grid")(grid, bands=4, angle=0)
    assert [files.name for files in source.scenes()] == ["000", "111", "222", "333"]
    assert source.notes == ["left out 2 chips that do not lie whole inside of all rasters"]
    (grid / "split.csv").write_text("identifier,split\n000,test\n222,train\n")
    source = find("source", "chip_grid")(grid, splits="split.csv")
    assert [(files.name, files.part) for files in source.scenes()] == [("000", "test"), ("222", "train")]
    assert "left out 2 chips that split.csv does not name" in source.notes
    squares(grid / "chips.geojson", inner, name="id")
    with pytest.raises(DataError, match="has no field identifier"):
        find("source", "chip_grid")(grid).scenes()
    for options, message in (
        ({"images": [{"path": "../image.tif"}]}, "leads out of"),
        ({"images": [{"path": "image.tif", "band": 1}]}, "unknown key band"),
        ({"images": [{"sensor": "dem"}]}, "needs one path"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            find("source", "chip_grid")(grid, **options)
