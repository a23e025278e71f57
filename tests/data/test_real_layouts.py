"""Layouts of real data: their own names and numbers, from the files in ../shared or written here letter by letter."""

import datetime
import json
import pickle
import shutil

import numpy as np
import pytest
import rasterio

from covermap.core.config import DataConfig
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import find
from covermap.data.scene import open_scenes
from covermap.geo.cube import open_patch_array


def data(shared, name):
    folder = shared / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/data/{name}")
    return folder


def scenes(source, root, **options):
    return open_scenes(DataConfig(source=source, root=str(root), options=options))


def whole(scene):
    return scene.read(scene.grid.window, labels=True)


def raw(path, band=1):
    with rasterio.open(path) as file:
        return file.read(band)


def copy(folder, target):
    """A copy that tests may change, whatever the mode of the original."""
    shutil.copytree(folder, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


# ------------------------------------------------------------------ BigEarthNet


def test_bigearthnet_chips_have_bands_at_three_resolutions_and_all_their_classes(shared):
    root = data(shared, "bigearthnet_tiny")
    files = {s.name: s for s in find("source", "bigearthnet")(root).scenes()}
    assert len(files) == 11
    # Coniferous forest, Transitional woodland/shrub; Coniferous forest, Peatbogs: codes of CORINE land cover
    assert files["S2B_MSIL2A_20170924T093019_43_47"].chip_classes == (312, 324)
    assert files["S2A_MSIL2A_20180510T94033_19_86"].chip_classes == (312, 412)
    opened = {scene.name: scene for scene in scenes("bigearthnet", root)}
    scene = opened["S2B_MSIL2A_20170924T093019_43_47"]
    sample = whole(scene)
    assert (scene.dates, scene.grid.gsd_m) == (("2017-09-24",), 10)
    assert sample.image["sentinel2"].shape == (1, 12, 120, 120)
    red = raw(root / f"tiny/{scene.name}/{scene.name}_B04.tif")
    swir = raw(root / f"tiny/{scene.name}/{scene.name}_B11.tif")
    values = dict(zip(sample.bands["sentinel2"], sample.image["sentinel2"][0], strict=True))
    assert np.array_equal(values["red"], red)
    assert values["swir1"].mean() == pytest.approx(swir.mean(), rel=0.01)


def test_bigearthnet_radar_is_a_scene_of_its_own_or_goes_with_its_partner(shared, tmp_path):
    root = data(shared, "bigearthnet_tiny")
    radar = scenes("bigearthnet", root, sensors="sentinel1")
    assert [scene.dates for scene in radar] == [("2017-06-13",)] * 3
    first = find("source", "bigearthnet")(root, sensors="sentinel1").scenes()[0]
    assert first.chip_classes == (211, 311, 511)
    values = whole(radar[0]).image["sentinel1"][0]
    assert np.array_equal(values[1], raw(root / f"s1-tiny/{first.name}/{first.name}_VH.tif"))
    with pytest.raises(DataError, match="has no patches: pair of"):
        find("source", "bigearthnet")(root, sensors="both").scenes()
    own = copy(root, tmp_path / "ben")
    side = own / f"s1-tiny/{first.name}/{first.name}_labels_metadata.json"
    about = json.loads(side.read_text()) | {"corresponding_s2_patch": "S2B_MSIL2A_20180421T114349_41_4"}
    side.write_text(json.dumps(about))
    source = find("source", "bigearthnet")(own, sensors="both")
    (pair,) = source.scenes()
    assert [image.sensor for image in pair.images] == ["sentinel2", "sentinel1"]
    assert source.notes == ["left out 12 patches without a partner of the other sensor"]
    side.write_text(json.dumps({"labels": ["Moon dust"]}))
    with pytest.raises(DataError, match="the label 'Moon dust', no class of CORINE"):
        find("source", "bigearthnet")(own, sensors="sentinel1").scenes()
    (own / "tiny/S2B_MSIL2A_20180421T114349_41_4/S2B_MSIL2A_20180421T114349_41_4_B8A.tif").unlink()
    with pytest.raises(DataError, match=r"lacks S2B_MSIL2A_20180421T114349_41_4_B8A\.tif"):
        find("source", "bigearthnet")(own).scenes()
    with pytest.raises(ConfigError, match="sensors: 'all'"):
        find("source", "bigearthnet")(own, sensors="all")


# ------------------------------------------------------------------ TerraMesh


def test_terramesh_tiles_have_their_sensors_and_the_offset_is_found_in_each(shared):
    root = data(shared, "terramesh_examples")
    l1c = {scene.name: scene for scene in scenes("terramesh", root, inputs=["S2L1C"])}
    assert {name for name, scene in l1c.items() if scene.added["sentinel2"] == (-1000.0,)} == {
        "282D_485L_3_3", "433D_629L_3_1", "609U_541L_3_0",
    }  # fmt: skip
    assert l1c["38D_378R_2_3"].rasters["sentinel2"].bands[10] == "cirrus"
    l2a = {scene.name: scene for scene in scenes("terramesh", root)}
    assert {name for name, scene in l2a.items() if scene.added["sentinel2"] == (-1000.0,)} == {"433D_629L_3_1"}
    scene = l2a["433D_629L_3_1"]
    sample = whole(scene)
    assert {key: x.shape[1] for key, x in sample.image.items()} == {"sentinel2": 12, "sentinel1": 2, "dem": 1}
    swir2 = raw(root / "S2L2A/433D_629L_3_1.tif", 12)
    assert np.array_equal(sample.image["sentinel2"][0, 11], swir2.astype("float32") - 1000)
    counts = dict(zip(*np.unique(sample.label, return_counts=True), strict=True))
    assert counts[scene.legend.names.index("crops")] == 21_213  # code 4
    assert scene.place == "433D_629L"


def test_terramesh_tiles_pair_by_name(shared, tmp_path):
    own = copy(data(shared, "terramesh_examples"), tmp_path / "mesh")
    (own / "S1RTC/38D_378R_2_3.tif").unlink()
    with pytest.raises(DataError, match=r"1 S2L2A tiles without S1RTC tiles: .*38D_378R_2_3\.tif"):
        find("source", "terramesh")(own).scenes()
    assert len(find("source", "terramesh")(own, inputs=["S2L1C", "DEM"], labels=False).scenes()) == 4
    with pytest.raises(ConfigError, match="name a sensor twice"):
        find("source", "terramesh")(own, inputs=["S2L1C", "S2L2A"])
    with pytest.raises(ConfigError, match="S2L3A"):
        find("source", "terramesh")(own, inputs=["S2L3A"])


# ------------------------------------------------------------------ CropHarvest


def test_cropharvest_holds_twelve_months_of_three_sensors_and_terrain(shared, tmp_path):
    root = data(shared, "cropharvest_togo")
    (scene,) = scenes("cropharvest", root)
    path = root / "98-togo_2019-02-06_2020-02-01.tif"
    sample = whole(scene)
    assert scene.name == "98-togo"
    assert (scene.dates[0], scene.dates[11]) == ("2019-02-06/2019-03-07", "2020-01-02/2020-01-31")
    assert {key: x.shape[:2] for key, x in sample.image.items()} == {
        "sentinel1": (12, 2), "sentinel2": (12, 13), "era5": (12, 2), "dem": (1, 2),
    }  # fmt: skip
    # 17 bands a month, in the file's order: VV VH B1 ... B12 temperature precipitation; then elevation and slope.
    inside = sample.valid[7]
    for sensor, band, index in (
        ("sentinel1", "vh", 2),
        ("sentinel2", "nir_narrow", 11),
        ("era5", "total_precipitation", 17),
    ):
        at = sample.bands[sensor].index(band)
        expected = raw(path, 7 * 17 + index)
        assert np.array_equal(sample.image[sensor][7, at][inside], expected[inside])
    slope = raw(path, 206)
    assert np.array_equal(np.isnan(sample.image["dem"][0, 1]), np.isnan(slope))
    assert not sample.valid[:, np.isnan(slope)].any()
    shutil.copyfile(path, tmp_path / "98-togo_2019-02-06_2020-02-07.tif")
    with pytest.raises(DataError, match="are no months of 30 days"):
        find("source", "cropharvest")(tmp_path).scenes()


# ------------------------------------------------------------------ EOPatch


def test_eopatch_arrays_are_a_series_with_its_place_and_dates(shared):
    root = data(shared, "eolearn_slovenia_eopatch")
    (scene,) = scenes("eolearn", root, timeless={"DEM": ["elevation"]}, sensors={"DEM": "dem"})
    sample = whole(scene)
    ndvi = np.load(root / "data/NDVI.npy")
    assert (len(scene.dates), scene.dates[0]) == (68, "2015-07-11T10:00:08")
    assert np.array_equal(sample.image["image"][:, 0], ndvi[..., 0])
    assert sample.image["dem"][0, 0].min() == 664
    assert scene.grid.crs.to_epsg() == 32633
    assert scene.grid.bounds == pytest.approx((465181.0522, 5079244.8912, 466180.5315, 5080254.6335), abs=1e-3)
    counts = dict(zip(*np.unique(sample.label, return_counts=True), strict=True))
    assert counts == {0: 11, 1: 7601, 2: 1777, 3: 358, 7: 198, 255: 155}
    assert scene.legend.names[7] == "artificial surface"
    (short,) = scenes("eolearn", root, dates=["2017-01-01", "2017-01-31"])
    assert short.dates == ("2017-01-01T10:04:07", "2017-01-11T10:03:51")
    at = json.loads((root / "timestamps.json").read_text()).index("2017-01-11T10:03:51")
    assert np.array_equal(whole(short).image["image"][1, 0], ndvi[at, ..., 0])


def patch(root):
    """A patch of two dates of two bands, and labels; the number is 100 x date + 10 x band + row."""
    (root / "data").mkdir(parents=True)
    (root / "mask_timeless").mkdir()
    values = np.arange(2).reshape(2, 1, 1, 1) * 100 + np.arange(2) * 10 + np.arange(4).reshape(1, 4, 1, 1)
    np.save(root / "data/BANDS.npy", np.broadcast_to(values, (2, 4, 3, 2)).astype("int16"))
    np.save(root / "mask_timeless/LULC.npy", np.full((4, 3, 1), 2, "uint16"))
    ring = [[500000, 5000000], [500000, 5000040], [500030, 5000040], [500030, 5000000], [500000, 5000000]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    (root / "bbox.geojson").write_text(json.dumps({"crs": crs, "type": "Polygon", "coordinates": [ring]}))


def test_eopatch_axes_are_dates_rows_columns_bands(tmp_path):
    patch(tmp_path / "one")
    (tmp_path / "one/timestamps.json").write_text('["2017-03-01T10:00:00", "2017-04-01T10:00:00"]')
    (scene,) = scenes("eolearn", tmp_path, features={"BANDS": ["red", "nir"]})
    assert whole(scene).image["image"][:, :, 3, 0].tolist() == [[3, 13], [103, 113]]  # the last row is the southern
    assert scene.grid.transform.f == 5000040
    with pytest.raises(DataError, match="holds 4 layers, not 2 dates of 1 bands"):
        scenes("eolearn", tmp_path, features={"BANDS": ["red"]})
    with pytest.raises(DataError, match=r"has no data/NDVI\.npy"):
        scenes("eolearn", tmp_path)
    with pytest.raises(DataError, match="leads out of"):
        scenes("eolearn", tmp_path, features={"../../../NDVI": ["ndvi"]})
    np.save(tmp_path / "one/data/OBJECTS.npy", np.array([[[{"a": 1}]]], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"is no \.npy file of numbers"):
        scenes("eolearn", tmp_path, features={"OBJECTS": ["a"]})


def test_eopatch_numbers_stay_what_they_are(tmp_path):
    patch(tmp_path)
    counts = np.arange(24).reshape(2, 4, 3, 1) + 2**24  # float32 would hold every second one
    path = tmp_path / "data/COUNTS.npy"
    for kind, more in (("int64", 2**53), (">i8", 2**53), ("uint64", 2**62), ("float64", 2**33), ("float16", -(2**24))):
        values = (counts + more).astype(kind)
        np.save(path, values)
        np.testing.assert_array_equal(open_patch_array(str(path)).read(), values[..., 0])
    np.save(path, counts)
    (tmp_path / "timestamps.json").write_text('["2017-03-01T10:00:00", "2017-04-01T10:00:00"]')
    (scene,) = scenes("eolearn", tmp_path, features={"COUNTS": ["count"]})
    np.testing.assert_array_equal(whole(scene).image["image"][:, 0], counts[..., 0])
    if np.dtype(np.longdouble).itemsize > 8:
        np.save(path, counts.astype(np.longdouble))
        with pytest.raises(DataError, match=r"COUNTS\.npy holds \w+, which no raster does"):
            open_patch_array(str(path))


def test_eopatch_pickles_are_not_read_unless_asked(tmp_path):
    patch(tmp_path)
    flag = tmp_path / "ran"
    (tmp_path / "timestamp.pkl").write_bytes(pickle.dumps(Trap(str(flag))))
    with pytest.raises(DataError, match=r"timestamp\.pkl is a pickle, which can run code"):
        scenes("eolearn", tmp_path, features={"BANDS": ["red", "nir"]})
    assert not flag.exists()
    days = [datetime.datetime(2017, 3, 1), datetime.datetime(2017, 4, 1)]
    (tmp_path / "timestamp.pkl").write_bytes(pickle.dumps(days))
    (scene,) = scenes("eolearn", tmp_path, features={"BANDS": ["red", "nir"]}, pickle=True)
    assert scene.dates == ("2017-03-01T00:00:00", "2017-04-01T00:00:00")


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


# ------------------------------------------------------------------ MODIS cube of Mato Grosso


def test_matogrosso_series_in_the_sinusoidal_projection_with_points(shared, tmp_path):
    root = data(shared, "matogrosso_modis")
    (scene,) = scenes("matogrosso", root)
    assert (scene.name, scene.grid.height, scene.grid.width) == ("012010", 147, 255)
    assert (len(scene.dates), scene.dates[0], scene.dates[11]) == (12, "2013-09-14", "2014-08-29")
    sample = whole(scene)
    expected = raw(root / "mod13q1/TERRA_MODIS_012010_NDVI_2014-01-17.jp2")
    assert np.array_equal(sample.image["image"][scene.dates.index("2014-01-17"), 0], expected)
    assert scene.images[0].scale == 1e-4
    # The 18 points of the table, no two in one pixel of 232 m.
    names = [scene.legend.names[k] for k in sample.label[sample.label != 255]]
    assert {name: names.count(name) for name in set(names)} == {"Pasture": 4, "Forest": 3, "Soy_Corn": 8, "Cerrado": 3}
    # The first point is pasture at 55.65931 W, 11.76267 S: of the sphere's sinusoidal projection (radius 6371007.181 m).
    lat, lon = np.radians([-11.76267, -55.65931])
    col, row = ~scene.grid.transform * (6371007.181 * lon * np.cos(lat), 6371007.181 * lat)
    assert scene.legend.names[sample.label[int(row), int(col)]] == "Pasture"
    own = copy(root, tmp_path / "mt")
    (own / "samples_b.csv").write_text("id\n")
    with pytest.raises(DataError, match=r"has 2 tables samples\*\.csv"):
        find("source", "matogrosso")(own).scenes()
