"""M3LEO chips and radar products. Folders, band names and their order are those of the data set's pages, written here.

gunw.nc holds three variables in the group /science/grids/data, four pairs of dates each: pair k of variable i starts
with the number 100 i + 20 k in its first pixel.
"""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from rasterio.transform import from_origin

from covermap.core.config import DataConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import find
from covermap.data.sar import choose_pair
from covermap.data.scene import open_scenes
from covermap.geo.raster import open_raster

GRD = [
    "winter_vvasc", "winter_vvdes", "winter_vhasc", "winter_vhdes", "spring_vvasc", "spring_vvdes", "spring_vhasc",
    "spring_vhdes", "summer_vvasc", "summer_vvdes", "summer_vhasc", "summer_vhdes", "fall_vvasc", "fall_vvdes",
    "fall_vhasc", "fall_vhdes",
]  # fmt: skip
NAME = "europe_partitions_aschips_3c1fd21a9b2e0"
PLACE = {"crs": "EPSG:32631", "transform": from_origin(400_000, 4_600_000, 10, 10)}


def put(path, values, *, names=None, **extra):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype, "driver": "GTiff"}
    with rasterio.open(path, "w", **{**profile, **PLACE, **extra}) as file:
        file.write(values)
        for i, name in enumerate(names or (), 1):
            file.set_band_description(i, name)


def grd():
    """Band i holds 100 i + the pixel's row, as int16."""
    return np.stack([np.full((4, 5), 100 * i, "int16") + np.arange(4, dtype="int16")[:, None] for i in range(16)])


def put_coherence(path):
    """coherence(season, deltadays): the number 10 x season + delta; seasons stand in another order than elsewhere."""
    values = np.stack([np.full((4, 5), 10 * s + d, "float32") for s in range(4) for d in range(4)])
    values[:, 0, 0] += 0.5
    put(path.with_suffix(".tif"), values)
    with rasterio.open(path.with_suffix(".tif"), "r+") as file:
        file.update_tags(
            NETCDF_DIM_EXTRA="{season,deltadays}",
            NETCDF_DIM_season_DEF="{4,12}",
            NETCDF_DIM_season_VALUES="{fall,spring,summer,winter}",
            NETCDF_DIM_deltadays_DEF="{4,4}",
            NETCDF_DIM_deltadays_VALUES="{12,24,36,48}",
        )
        file.update_tags(1, NETCDF_VARNAME="coherence")
    copy(str(path.with_suffix(".tif")), str(path), driver="netCDF", FORMAT="NC4")
    path.with_suffix(".tif").unlink()


@pytest.fixture
def root(tmp_path):
    """Three chips of one region in a table that is not in alphabetical order."""
    chips = tmp_path / "europe" / NAME
    for number, chip in enumerate(("3c200000000a1", "1f000000000b2", "2a000000000c3")):
        put(chips / "s1grd-2020" / f"{chip}.tif", grd() + number)
        codes = np.full((1, 4, 5), 10, "uint8")
        codes[0, 0], codes[0, 1, 0] = 95, 0
        put(chips / "esaworldcover-2020" / f"{chip}.tif", codes)
        put_coherence(chips / "gssic-2020" / f"{chip}.nc")
        shutil.copy(Path(__file__).parent / "gunw.nc", chips / "gssic-2020" / "left.txt")
        (chips / "gunw-20200301").mkdir(exist_ok=True)
        shutil.copy(Path(__file__).parent / "gunw.nc", chips / "gunw-20200301" / f"{chip}.nc")
    table(tmp_path, [("3c200000000a1", "train"), ("1f000000000b2", "val"), ("2a000000000c3", "test")])
    return tmp_path


def table(root, rows, columns=("identifier", "split")):
    path = root / "europe" / f"{NAME}_splits_60bands_angle09_60-20-20.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def source(root, **options):
    return find("source", "m3leo")(root, **options)


def first(root, **inputs):
    return open_scenes(DataConfig(source="m3leo", root=str(root), options={"inputs": inputs}))[0]


def test_chips_come_in_the_tables_order_with_their_parts(root):
    scenes = open_scenes(DataConfig(source="m3leo", root=str(root)))
    assert [(s.name, s.part) for s in scenes] == [
        ("europe_3c200000000a1", "train"), ("europe_1f000000000b2", "val"), ("europe_2a000000000c3", "test"),
    ]  # fmt: skip
    label = scenes[0].read_labels(scenes[0].grid.window)
    assert (len(scenes[0].legend), scenes[0].legend.names[label[0, 0]]) == (11, "Mangroves")
    assert scenes[0].legend.names[label[3, 3]] == "Tree cover"
    assert label[1, 0] == 255  # WorldCover's 0 is no class


def test_a_season_polarisation_and_direction_give_that_band_by_value(root):
    scene = first(root, **{"s1grd-2020": {"seasons": ["fall", "winter"], "bands": ["vh", "vv"], "direction": "des"}})
    values = scene.read(scene.grid.window).image["sentinel1"]
    assert scene.dates == ("2020-10", "2020-01")
    assert values[:, :, 0, 0].tolist() == [[1500, 1300], [300, 100]]  # fall vh des is the 16th band
    plain = first(root, **{"s1grd-2020": {"seasons": ["winter"], "bands": ["vv"]}})
    assert (plain.read(plain.grid.window).image["sentinel1"][0, 0, :, 0] == [0, 1, 2, 3]).all()  # winter_vvasc


def test_a_file_that_names_its_bands_is_read_by_its_names(root):
    order = list(reversed(GRD))
    path = root / "europe" / NAME / "s1grd-2020" / "3c200000000a1.tif"
    put(path, grd()[::-1], names=order)
    scene = first(root, **{"s1grd-2020": {"seasons": ["summer"], "bands": ["vh"]}})
    assert scene.read(scene.grid.window).image["sentinel1"][0, 0, 0, 0] == 100 * GRD.index("summer_vhasc") == 1000


def test_vv_vh_is_the_difference_in_floating_point(root):
    path = root / "europe" / NAME / "s1grd-2020" / "3c200000000a1.tif"
    values = grd()
    values[4], values[6] = 30_000, -30_000  # spring vv and vh, ascending: the difference leaves int16
    put(path, values)
    scene = first(root, **{"s1grd-2020": {"seasons": ["spring"], "bands": ["vv", "vv-vh"]}})
    sample = scene.read(scene.grid.window)
    assert sample.bands["sentinel1"] == ("vv", "vv-vh")
    assert sample.image["sentinel1"].dtype == np.float32
    assert sample.image["sentinel1"][0, :, 2, 2].tolist() == [30_000, 60_000]


def test_coherence_is_chosen_by_season_and_days(root):
    scene = first(root, **{"gssic-2020": {"seasons": ["winter", "spring"], "deltadays": [36, 12]}})
    values = scene.read(scene.grid.window).image["sentinel1_coherence"]
    assert scene.rasters["sentinel1_coherence"].bands == ("coherence36", "coherence12")
    assert scene.dates == ("2020-01", "2020-04")
    # In these files winter is the fourth season and spring the second.
    assert values[:, :, 1, 1].tolist() == [[32, 30], [12, 10]]
    assert values[0, 0, 0, 0] == 32.5  # the upper left pixel stays the upper left one
    both = first(root, **{"s1grd-2020": {}, "gssic-2020": {"deltadays": [24]}})
    assert set(both.rasters) == {"sentinel1", "sentinel1_coherence"}


def test_interferograms_are_chosen_by_window_and_rule(root):
    pairs = {"short": {"days": [0, 60], "rule": "far"}, "near": {"days": [0, 20]}, "late": {"after": "2020-02-01"}}
    options = {"variables": ["unwrappedPhase", "coherence"], "pairs": pairs}
    scene = first(root, **{"gunw-20200301": options})
    raster = scene.rasters["sentinel1_pairs"]
    assert raster.bands == (
        "unwrappedphase_short", "unwrappedphase_near", "unwrappedphase_late", "coherence_short", "coherence_near",
        "coherence_late",
    )  # fmt: skip
    # The pairs span 60, 24, 12 and 48 days, in this order.
    assert raster.read()[0][0, :, 0, 0].tolist() == [100, 140, 160, 200, 240, 260]
    found = source(root, inputs={"gunw-20200301": {"pairs": {"long": {"days": [140, 216]}}}})
    with pytest.raises(DataError, match=r"has no pair of dates for long"):
        found.scenes()


def test_the_closest_pair_before_an_event_is_the_closest():
    pairs = ["20200101_20190901", "20200206_20200113", "20200206_20191101", "20200301_20200206", "20191201_20191101"]
    assert choose_pair(pairs, before="2020-02-10") == "20200206_20200113"
    assert choose_pair(pairs, before="2020-02-10", rule="far") == "20200206_20191101"
    assert choose_pair(pairs, before="2020-02-05") == "20200101_20190901"
    assert choose_pair(pairs, after="2020-01-20") == "20200301_20200206"
    assert choose_pair(pairs, before="2019-01-01") is None
    assert choose_pair(pairs) == "20200301_20200206"  # 24 days, and later than the other of 24
    assert choose_pair(pairs, rule="far") == "20200101_20190901"
    with pytest.raises(DataError, match="is no day"):
        choose_pair(pairs, before="spring")


def test_what_is_missing_or_damaged_is_left_out_and_named(root):
    chips = root / "europe" / NAME
    (chips / "s1grd-2020" / "3c200000000a1.tif").unlink()
    put(chips / "s1grd-2020" / "999.tif", grd())
    whole = (chips / "s1grd-2020" / "1f000000000b2.tif").read_bytes()
    (chips / "s1grd-2020" / "1f000000000b2.tif").write_bytes(whole[: len(whole) // 2])
    found = source(root)
    assert [s.name for s in found.scenes()] == ["europe_2a000000000c3"]
    notes = " | ".join(found.notes)
    assert "left out 1 chips of the table that s1grd-2020 lacks: 3c200000000a1" in notes
    assert "left out 1 files of s1grd-2020 that the table does not name: 999" in notes
    assert "left out 1 chips that cannot be used: 1f000000000b2" in notes
    assert "999" not in str(found.scenes())
    scene = open_scenes(DataConfig(source="m3leo", root=str(root)))[0]
    assert any("3c200000000a1" in note for note in scene.notes)  # and reaches the report


@pytest.mark.parametrize("keep", [0, 3000, -200])
def test_a_damaged_netcdf_is_left_out_and_named(root, keep):
    path = root / "europe" / NAME / "gssic-2020" / "1f000000000b2.nc"
    path.write_bytes(path.read_bytes()[:keep] if keep else b"not a netCDF file")
    found = source(root, inputs={"gssic-2020": {}})
    assert [s.name for s in found.scenes()] == ["europe_3c200000000a1", "europe_2a000000000c3"]
    assert any("cannot be used: 1f000000000b2" in note for note in found.notes)


def test_tables_and_folders_are_checked(root):
    for rows, message in (
        ([("../../../elsewhere/a", "train")], "leads out of"),
        ([("3c200000000a1", "train"), ("3c200000000a1", "test")], "'3c200000000a1' twice"),
        ([("3c200000000a1", "holdout")], "the split of 3c200000000a1 is 'holdout'"),
    ):
        table(root, rows)
        with pytest.raises(DataError, match=message):
            source(root).scenes()
    table(root, [("3c200000000a1", "train")], columns=("id", "split"))
    with pytest.raises(DataError, match="has no columns identifier and split"):
        source(root).scenes()
    table(root, [("3c200000000a1", "train")])
    with pytest.raises(DataError, match="did you mean 's1grd-2020'"):
        source(root, inputs={"s1grd-2021": {}}).scenes()
    with pytest.raises(DataError, match="leads out of"):
        source(root, labels="../../../other").scenes()
    shutil.copy(
        root / "europe" / NAME / "s1grd-2020" / "3c200000000a1.tif",
        root / "europe" / NAME / "gssic-2020" / "3c200000000a1.tif",
    )
    with pytest.raises(DataError, match="have one name"):
        source(root, inputs={"gssic-2020": {}}).scenes()
    with pytest.raises(DataError, match="no region asia"):
        source(root, aois=["asia"]).scenes()
    other = f"{NAME}_splits_60bands_angle15_60-20-20.csv"
    shutil.copy(root / "europe" / f"{NAME}_splits_60bands_angle09_60-20-20.csv", root / "europe" / other)
    with pytest.raises(DataError, match="several tables of splits"):
        source(root).scenes()
    assert len(source(root, splits="*angle15*").scenes()) == 1


def test_wrong_settings_are_refused_at_once(root):
    for inputs, message in (
        ({"s2msi-2020": {}}, "s2msi-2020 is no known data set"),
        ({"s1grd-2020": {"season": ["winter"]}}, "season"),
        ({"s1grd-2020": {"seasons": ["autumn"]}}, "autumn"),
        ({"s1grd-2020": {"direction": "up"}}, "up"),
        ({"gssic-2020": {"deltadays": [6]}}, "6"),
        ({"gunw-20200301": {"pairs": {"a": {"days": "short"}}}}, "days: 'short'"),
        ({}, "names no data set"),
    ):
        with pytest.raises(ConfigError, match=message):
            source(root, inputs=inputs)
    shutil.copytree(root / "europe" / NAME / "s1grd-2020", root / "europe" / NAME / "s1grd-2021")
    with pytest.raises(ConfigError, match="both give sentinel1"):
        source(root, inputs={"s1grd-2020": {}, "s1grd-2021": {}}).scenes()


def test_a_variable_without_coordinates_is_refused(tmp_path):
    put(tmp_path / "plain.tif", np.ones((1, 4, 5), "float32"), crs=None, transform=None)
    copy(str(tmp_path / "plain.tif"), str(tmp_path / "plain.nc"), driver="netCDF", FORMAT="NC4")
    with pytest.raises(DataError, match="has no regular x and y coordinates"):
        open_raster(tmp_path / "plain.nc", variable="Band1", bands=["a"])
    with pytest.raises(DataError, match=r"has no variable 'phase'"):
        open_raster(Path(__file__).parent / "gunw.nc", variable="phase")
    with pytest.raises(DataError, match="there is no file"):
        open_raster(tmp_path / "gone.nc", variable="phase")
