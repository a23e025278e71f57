"""Layouts of data sets. Paths and codes are those of the data sets' pages, written here, not by our miniature writers."""

import csv
import itertools
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from covermap.core.config import DataConfig, SplitConfig
from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.registry import find, names
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.source import inside
from covermap.data.split import Split, part_counts
from covermap.testing import check_source


def put(path, values, *, alpha=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    profile = {
        "driver": "PNG" if path.suffix == ".png" else "GTiff",
        "count": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
    }
    with rasterio.open(path, "w", **profile, dtype=values.dtype) as file:
        file.write(values)
        if alpha:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]


@pytest.mark.parametrize("name", names("source"))
def test_every_layout_keeps_its_promises(name):
    assert [outcome for outcome in check_source(name) if outcome.failure] == []


# ------------------------------------------------------------------ WUSU


@pytest.fixture
def wusu(tmp_path):
    """Two tiles of one city and three years, as OpenWUSU512 is laid out; the fourth band is called alpha by many tools."""
    image = np.arange(4 * 16, dtype="uint8").reshape(4, 4, 4)
    for tile in (2, 10):
        for year, code in (("15", 3), ("16", 4), ("18", 12)):
            put(tmp_path / f"train/HS/imgs/HS{year}_{tile}.tif", image + tile, alpha=True)
            put(tmp_path / f"train/HS/class/HS{year}_{tile}.tif", np.full((4, 4), code, "uint8"))
        for pair in ("1516", "1618"):
            for kind in ("BCD", "SCD"):
                put(tmp_path / f"train/HS/change/{kind}/HS{pair}_{tile}.tif", np.ones((4, 4), "uint8"))
    return tmp_path


def test_wusu_tiles_by_year(wusu):
    scenes = open_scenes(DataConfig(source="wusu", root=str(wusu)))
    assert [s.name for s in scenes] == [
        f"train_HS{name}" for name in ("15_2", "15_10", "16_2", "16_10", "18_2", "18_10")
    ]
    first = scenes[1]
    assert first.rasters["gaofen2"].bands == ("blue", "green", "red", "nir")
    assert (first.part, first.place, first.dates) == ("train", "train HS", ("2015-04-22",))
    sample = first.read(first.grid.window, labels=True)
    assert sample.image["gaofen2"][0, 3, 0, 0] == 48 + 10  # the fourth band is near infrared, not a mask
    assert sample.valid.all()
    assert (sample.label == 3).all()  # code 3 is the fourth class
    assert len(first.legend) == 12
    assert [first.legend.codes[i] for i in (4, 5, 11)] == [4, 6, 12]  # 5 does not occur


def test_wusu_series_and_the_merged_variant(wusu):
    config = DataConfig(source="wusu", root=str(wusu), options={"dates": "series", "merged": True})
    scenes = open_scenes(config)
    assert [s.name for s in scenes] == ["train_HS_2", "train_HS_10"]
    assert scenes[0].dates == ("2015-04-22", "2016-09-01", "2018-11-23")
    assert len(scenes[0].legend) == 10
    files = find("source", "wusu")(wusu, dates="series").scenes()[0]
    assert files.labels["change:2015-2016"].path.endswith("change/BCD/HS1516_2.tif")
    assert files.labels["scd:2016-2018"].path.endswith("change/SCD/HS1618_2.tif")
    assert files.labels["class:2016"].path.endswith("class/HS16_2.tif")


@pytest.mark.parametrize("dates", ["single", "series"])
def test_wusu_pixels_that_two_tiles_show_are_scored_once(tmp_path, dates):
    """Nine tiles at every half of a side, cut from a ground of 64 x 64 px, in any order; each pixel counts once."""
    rng = np.random.default_rng(0)
    grounds = {year: rng.integers(0, 255, (4, 64, 64)).astype("uint8") for year in ("15", "16", "18")}
    codes = rng.choice([1, 2, 3], (64, 64)).astype("uint8")
    corners = [(row, col) for row in (0, 16, 32) for col in (0, 16, 32)]
    for part in ("train", "test"):
        for number, at in enumerate(rng.permutation(len(corners)).tolist(), 1):
            row, col = corners[at]
            cut = slice(None), slice(row, row + 32), slice(col, col + 32)
            for year, ground in grounds.items():
                picture = ground[:, :, ::-1] if part == "train" else ground
                put(tmp_path / f"{part}/HS/imgs/HS{year}_{number}.tif", picture[cut])
                put(tmp_path / f"{part}/HS/class/HS{year}_{number}.tif", codes[cut[1:]])
            for pair, kind in itertools.product(("1516", "1618"), ("BCD", "SCD")):
                put(tmp_path / f"{part}/HS/change/{kind}/HS{pair}_{number}.tif", codes[cut[1:]])
    scenes = open_scenes(DataConfig(source="wusu", root=str(tmp_path), options={"dates": dates}))
    split = make_split(scenes, SplitConfig(method="source", val=0.0), size_px=16)
    times = 3 if dates == "single" else 1
    assert part_counts(split, scenes)["test"].sum() == times * codes.size
    assert part_counts(split, scenes)["train"].sum() == times * 9 * 32 * 32
    assert any("are scored once" in note for note in split.notes)
    split.save(tmp_path / "split.csv")
    assert part_counts(Split.load(tmp_path / "split.csv"), scenes)["test"].sum() == times * codes.size


def test_wusu_names_what_is_missing(wusu):
    (wusu / "train/HS/class/HS16_10.tif").unlink()
    with pytest.raises(DataError, match=r"1 images without class masks: .*HS16_10\.tif"):
        find("source", "wusu")(wusu).scenes()
    (wusu / "train/HS/imgs/HS16_10.tif").unlink()
    with pytest.raises(DataError, match=r"has no HS16_10\.tif"):
        find("source", "wusu")(wusu, dates="series").scenes()
    put(wusu / "train/HS/imgs/wuhan.tif", np.ones((4, 4, 4), "uint8"))
    with pytest.raises(DataError, match=r"wuhan\.tif is not named like"):
        find("source", "wusu")(wusu).scenes()
    with pytest.raises(ConfigError, match="dates: 'all' is not known"):
        find("source", "wusu")(wusu, dates="all")


# ------------------------------------------------------------------ LUCAS Italy


@pytest.fixture
def lucas(tmp_path):
    rows = [("44302554", "1"), ("40302448", "2"), ("46001234", "10")]
    for point, code in rows:
        put(tmp_path / code / f"{point}.tif", np.random.default_rng(int(code)).random((6, 8, 8)).astype("float32"))
    with open(tmp_path / "chips_LC_class.csv", "w", newline="") as file:
        csv.writer(file).writerows([("Point_ID", "STR18"), *rows])
    return tmp_path


def test_lucas_chips_have_the_class_of_the_table(lucas):
    scenes = find("source", "lucas")(lucas).scenes()
    assert {s.name: s.chip_class for s in scenes} == {"40302448": 2, "44302554": 1, "46001234": 10}
    (lucas / "2" / "._40302448.tif").write_bytes(b"left by a system")
    assert len(find("source", "lucas")(lucas).scenes()) == 3
    opened = open_scenes(DataConfig(source="lucas", root=str(lucas)))
    assert opened[0].rasters["hls"].bands == ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
    assert opened[0].images[0].scale == 1.0  # reflectance from 0 to 1


def test_lucas_tables_are_checked(lucas):
    table = lucas / "chips_LC_class.csv"
    good = table.read_text()
    for change, message in (
        (good + "44302554,1\n", "the point 44302554 twice"),
        (good.replace("46001234,10", "46001234,11"), "STR18 of 46001234 is '11'"),
        (good.replace("STR18", "class"), "no columns Point_ID and STR18"),
        (
            good.replace("46001234,10\r\n", "").replace("46001234,10\n", ""),
            r"1 chips without rows of the table: .*46001234",
        ),
        (good + "99999999,3\n", "1 rows of the table without chips"),
    ):
        table.write_text(change)
        with pytest.raises(DataError, match=message):
            find("source", "lucas")(lucas).scenes()
    table.unlink()
    with pytest.raises(DataError, match=r"has no chips_LC_class\.csv"):
        find("source", "lucas")(lucas).scenes()


# ------------------------------------------------------------------ Catalonia


@pytest.fixture
def catalonia(tmp_path):
    find("source", "catalonia").write_miniature(tmp_path)
    return tmp_path


def test_catalonia_months_as_dates_or_as_train_and_test(catalonia):
    series = open_scenes(DataConfig(source="catalonia", root=str(catalonia), align="mode"))
    assert [s.name for s in series] == ["catalonia"]
    assert series[0].dates == ("2018-04", "2018-08")
    assert series[0].labels.grid.gsd_m == 10  # ten times finer labels on the image's grid
    options = {"dates": "single", "test": 8}
    single = open_scenes(DataConfig(source="catalonia", root=str(catalonia), align="mode", options=options))
    assert [(s.name, s.part, s.place) for s in single] == [
        ("catalonia_2018-04", "train", "catalonia"), ("catalonia_2018-08", "test", "catalonia"),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="there is no mosaic of month 6"):
        find("source", "catalonia")(catalonia, dates="single", test=6).scenes()
    (catalonia / "LC_2018_UTM_WGS84_31N_1m_12_Classes.tif").unlink()
    with pytest.raises(DataError, match=r"2 mosaics S2_CAT_YYYYMM_.* and 0 maps"):
        find("source", "catalonia")(catalonia).scenes()


# ------------------------------------------------------------------ OSCD


def test_oscd_as_it_is(shared):
    """Three resolutions on one grid, masks of 1 and 2 without a CRS, a second date of another size."""
    root = shared / "data/oscd"
    files = {f.name: f for f in find("source", "oscd")(root).scenes()}
    assert list(files) == ["aguasclaras", "bordeaux", "mumbai", "nantes", "norcia", "pisa", "rennes"]
    assert {name for name, f in files.items() if "change" not in f.labels} == {"norcia"}
    assert files["pisa"].labels["change"].path.endswith("pisa/cm/pisa-cm.tif")
    assert [image.date for image in files["pisa"].images] == ["2015-07-04", "2018-02-11"]
    scenes = open_scenes(DataConfig(source="oscd", root=str(root)))
    assert [s.name for s in scenes] == list(files)
    for scene in scenes:
        sample = scene.read(scene.grid.window)
        assert sample.image["sentinel2"].shape[:2] == (2, 13)
        with rasterio.open(files[scene.name].images[0].path[3]) as red:
            assert (scene.grid.height, scene.grid.width) == (red.height, red.width)
            values = sample.image["sentinel2"][0, 3]
            assert np.array_equal(values, red.read(1))  # 10 m bands are not touched


def test_oscd_bands_are_found_by_name(tmp_path):
    find("source", "oscd").write_miniature(tmp_path)
    (tmp_path / "images/norcia/imgs_2/S2A_norcia_B8A.tif").unlink()
    with pytest.raises(DataError, match=r"imgs_2 has not one file of each band: B8A"):
        find("source", "oscd")(tmp_path).scenes()
    (tmp_path / "images/bordeaux/dates.txt").write_text("date_1: 2015")
    with pytest.raises(DataError, match="does not name date_1 and date_2"):
        find("source", "oscd")(tmp_path).scenes()


# ------------------------------------------------------------------ LEVIR-CD


def test_levir_in_both_of_its_forms(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (3, 16, 16), dtype="uint8")
    for form, where in (("parts", "{part}/"), ("flat", "")):
        for part in ("train", "val", "test"):
            for number in (2, 10):
                for folder in ("A", "B", "label"):
                    path = tmp_path / form / where.format(part=part) / folder / f"{part}_{number}.png"
                    put(path, picture if folder != "label" else np.full((16, 16), 255, "uint8"))
        scenes = find("source", "levir")(tmp_path / form).scenes()
        assert sorted({scene.part for scene in scenes}) == ["test", "train", "val"]
        assert {scene.name for scene in scenes} == {f"{p}_{n}" for p in ("train", "val", "test") for n in (2, 10)}
        assert all(Path(scene.labels["change"].path).stem == scene.name for scene in scenes)
    opened = open_scenes(DataConfig(source="levir", root=str(tmp_path / "parts")))[0]
    assert opened.rasters["rgb"].bands == ("red", "green", "blue")
    assert opened.dates == (None, None)
    (tmp_path / "flat/B/val_10.png").unlink()
    with pytest.raises(DataError, match=r"1 pictures in A without a picture in B: .*val_10\.png"):
        find("source", "levir")(tmp_path / "flat").scenes()


# ------------------------------------------------------------------ HRSCD


def test_hrscd_pairs_by_department_and_corner(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (3, 16, 16), dtype="uint8")
    codes = np.full((16, 16), 5, "uint8")
    codes[0] = 0
    names = {"2006": "14-2005-0415-6890-LA93.tif", "2012": "14-2012-0415-6890-LA93-0M50-E080.tif"}
    for year, name in names.items():
        put(tmp_path / f"images_{year}/{year}/D14/{name}", picture)
        put(tmp_path / f"labels_land_cover_{year}/{year}/D14/{name}", codes)
    put(tmp_path / f"labels_change/change/D14/{names['2012']}", (codes > 0).astype("uint8"))
    scene = open_scenes(DataConfig(source="hrscd", root=str(tmp_path)))[0]
    assert (scene.name, scene.dates, scene.place) == ("D14_0415-6890", ("2006", "2012"), "D14_0415-6890")
    label = scene.read_labels(scene.grid.window)
    assert (label[0] == 255).all()  # 0 is no information
    assert scene.legend.names[label[1, 0]] == "water"
    single = find("source", "hrscd")(tmp_path, dates="single").scenes()
    assert [files.name for files in single] == ["D14_0415-6890_2006", "D14_0415-6890_2012"]
    put(tmp_path / "images_2006/2006/D14/14-2006-0415-6890-LA93.tif", picture)
    with pytest.raises(DataError, match="show one place"):
        find("source", "hrscd")(tmp_path).scenes()


# ------------------------------------------------------------------ HLS with Esri / IO labels


def test_hls_of_both_satellites_by_the_names_of_their_bands(tmp_path):
    image = np.random.default_rng(0).integers(1, 3000, (8, 8)).astype("int16")
    for number, (product, bands) in enumerate(
        {"S30.T31TCG.2018123T105031": ("B02", "B03", "B04", "B8A", "B11", "B12"),
         "L30.T31TCG.2018365T103512": ("B02", "B03", "B04", "B05", "B06", "B07")}.items()
    ):  # fmt: skip
        for i, band in enumerate(bands):
            put(tmp_path / f"a/HLS.{product}.v2.0.{band}.tif", image + 1000 * i + number)
    put(tmp_path / "a/HLS.S30.T31TCG.2018123T105031.v2.0.B08.tif", image)  # not one of the six
    put(tmp_path / "lulc/31T_20180101-20190101.tif", np.full((8, 8), 11, "uint8"))
    put(tmp_path / "lulc/31T_20190101-20200101.tif", np.full((8, 8), 2, "uint8"))
    single = open_scenes(DataConfig(source="hls", root=str(tmp_path)))
    assert [scene.name for scene in single] == ["31TCG_2018-05-03", "31TCG_2018-12-31"]
    series = open_scenes(DataConfig(source="hls", root=str(tmp_path), options={"dates": "series"}))[0]
    values = series.read(series.grid.window).image["hls"]
    assert (values[1, 3] - values[1, 0] == 3000).all()  # B05 of Landsat is the narrow near infrared
    assert find("source", "hls")(tmp_path).scenes()[0].images[0].clouds == "auto"
    fmask = np.array([[0, 2, 4, 8, 16, 32, 192, 255]] * 8, "uint8")
    put(tmp_path / "a/HLS.S30.T31TCG.2018123T105031.v2.0.Fmask.tif", fmask)
    source = find("source", "hls")(tmp_path, dates="series")
    assert source.scenes()
    assert source.notes == ["1 products have no Fmask: their clouds are not masked"]
    for clouds, clear in (("auto", [0, 4, 5, 6]), ("none", range(8))):
        options = {"dates": "series", "clouds": clouds}
        series = open_scenes(DataConfig(source="hls", root=str(tmp_path), options=options))[0]
        valid = series.read(series.grid.window).valid
        assert np.flatnonzero(valid[0, 3]).tolist() == list(clear)
        assert valid[1].all()
    with pytest.raises(ConfigError, match=r"clouds: 'b.tif' is not known"):
        find("source", "hls")(tmp_path, clouds="b.tif")
    label = series.read_labels(series.grid.window)
    assert series.legend.names[label[0, 0]] == "Rangeland"
    (tmp_path / "a/HLS.L30.T31TCG.2018365T103512.v2.0.B06.tif").unlink()
    with pytest.raises(DataError, match="the tile 31TCG of 2018-12-31 lacks swir1"):
        find("source", "hls")(tmp_path).scenes()
    put(tmp_path / "a/HLS.L30.T31TCG.2018365T103512.v2.0.B06.tif", image)
    (tmp_path / "lulc/31T_20180101-20190101.tif").unlink()
    with pytest.raises(DataError, match=r"there is no land-cover map 31T_20180101-20190101\.tif"):
        find("source", "hls")(tmp_path).scenes()


# ------------------------------------------------------------------ landslide cubes


def test_landslide_cubes_before_and_after_the_event(tmp_path):
    layers = ["TS::vh::20160901", "TS::vv::20160901", "TS::vh::20161101", "TS::vv::20161101", "ST::dem",
              "TS::vh::20161201", "TS::vv::20161201", "ST::landslides"]  # fmt: skip
    folder = tmp_path / "landslides-kaikoura/chips_128x128"
    folder.mkdir(parents=True)
    cube = np.stack([np.full((8, 8), i, "float32") + np.eye(8, dtype="float32") / 10 for i in range(8)])
    cube[7] = np.eye(8)
    np.savez(folder / "chip_7.npz", cube)
    pickled = folder / "chip_7.metadata.pkl"
    pickled.write_bytes(pickle.dumps({"variables": layers, "bounds": None, "crs": None}))
    with pytest.raises(DataError, match="is a pickle, which can run code"):
        find("source", "landslide")(tmp_path).scenes()
    scene = open_scenes(DataConfig(source="landslide", root=str(tmp_path), options={"pickle": True}))[0]
    assert (scene.name, scene.dates) == ("kaikoura_chip_7", ("2016-11-01", "2016-12-01"))
    values = scene.read(scene.grid.window).image["sentinel1"]
    assert values[:, :, 0, 1].tolist() == [[3, 2], [6, 5]]  # vv, vh: the last before, the first after
    label = scene.read_labels(scene.grid.window)
    assert np.array_equal(label, np.eye(8))
    about = {"variables": layers, "bounds": [600000, 4700000, 600080, 4700080], "crs": "EPSG:32654"}
    (folder / "chip_7.metadata.json").write_text(json.dumps(about))
    os.utime(folder / "chip_7.npz", (1, 1))  # an open file is kept until it changes
    placed = open_scenes(DataConfig(source="landslide", root=str(tmp_path)))[0]
    assert placed.grid.gsd_m == 10
    options = {"event": ["2016-10-01", "2016-10-02"], "variables": ["vh"]}
    other = find("source", "landslide")(tmp_path, **options).scenes()[0]
    assert [image.date for image in other.images] == ["2016-09-01", "2016-11-01"]
    with pytest.raises(DataError, match="none after 2017-01-02"):
        find("source", "landslide")(tmp_path, event=["2017-01-01", "2017-01-02"]).scenes()
    (folder / "chip_7.npz").write_bytes(b"not a cube")
    with pytest.raises(DataError, match=r"is no \.npz file"):
        open_scenes(DataConfig(source="landslide", root=str(tmp_path)))


# ------------------------------------------------------------------ labels that are not plain codes


def test_second_colours_are_classes_and_a_wrong_one_is_refused(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (3, 16, 16), dtype="uint8")
    colours = np.full((3, 16, 16), 255, "uint8")
    colours[:, 0] = np.array([128, 0, 0])[:, None]  # building
    colours[:, 1] = np.array([0, 255, 0])[:, None]  # tree
    for folder in ("im1", "im2", "label1", "label2"):
        put(tmp_path / "test" / folder / "00003.png", picture if folder.startswith("im") else colours)
    scene = open_scenes(DataConfig(source="second", root=str(tmp_path)))[0]
    assert (scene.name, scene.part) == ("test_00003", "test")
    label = scene.read_labels(scene.grid.window)
    assert scene.legend.names[label[0, 0]] == "building"
    assert scene.legend.names[label[1, 5]] == "tree"
    assert (label[2:] == 255).all()  # white: unchanged, so unknown
    colours[:, 9, 9] = (1, 2, 3)
    put(tmp_path / "test/label2/00003.png", colours)
    again = open_scenes(DataConfig(source="second", root=str(tmp_path)))[0]
    with pytest.raises(LabelError, match=r"1 pixels have colours that mean no class, such as \(1, 2, 3\)"):
        again.read_labels(again.grid.window)


def test_hiucd_masks_hold_both_years_and_change(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (3, 16, 16), dtype="uint8")
    mask = np.stack([np.full((16, 16), code, "uint8") for code in (2, 3, 2)])
    mask[1, 0] = 0
    for year in ("2018", "2019"):
        put(tmp_path / f"train/image/{year}/9.png", picture)
    put(tmp_path / "train/mask/2018_2019/9.png", mask)
    put(tmp_path / "test/image/2018/9.png", picture)
    source = find("source", "hiucd")(tmp_path)
    files = source.scenes()[0]
    assert source.notes == ["test has no masks: it is left out"]
    assert (files.labels["class:2018"].band, files.labels["class:2019"].band, files.labels["change"].band) == (1, 2, 3)
    scene = open_scenes(DataConfig(source="hiucd", root=str(tmp_path)))[0]
    label = scene.read_labels(scene.grid.window)
    assert scene.legend.names[label[5, 5]] == "building"
    assert (label[0] == 255).all()


def test_dynamicearthnet_bands_are_classes(tmp_path):
    image = np.random.default_rng(0).integers(1, 3000, (4, 16, 16)).astype("uint16")
    label = np.zeros((7, 16, 16), "uint8")
    label[2], label[2, 0], label[6, 0] = 255, 0, 255  # forest, and snow in the first row
    put(tmp_path / "planet/1311/PF-SR/2018-01-01.tif", image)
    put(tmp_path / "labels/1311_2018_01.tif", label)
    (tmp_path / "train.txt").write_text("planet/1311/PF-SR labels/1311_2018_01.tif 2018-01\n")
    scene = open_scenes(DataConfig(source="dynamicearthnet", root=str(tmp_path)))[0]
    assert (scene.name, scene.dates) == ("planet_1311_PF-SR_2018-01", ("2018-01-01",))
    assert scene.rasters["planetscope"].bands == ("blue", "green", "red", "nir")
    index = scene.read_labels(scene.grid.window)
    assert scene.legend.names[index[5, 5]] == "forest"
    assert (index[0] == 255).all()  # snow is not scored
    label[3, 5] = 255
    put(tmp_path / "labels/1311_2018_01.tif", label)
    again = open_scenes(DataConfig(source="dynamicearthnet", root=str(tmp_path)))[0]
    with pytest.raises(LabelError, match="16 pixels belong to several classes at once"):
        again.read_labels(again.grid.window)
    (tmp_path / "train.txt").write_text("../elsewhere labels/1311_2018_01.tif 2018-01\n")
    with pytest.raises(DataError, match="leads out of"):
        find("source", "dynamicearthnet")(tmp_path).scenes()


# ------------------------------------------------------------------ all


def test_a_config_names_either_files_or_a_layout(wusu):
    for raw, message in (
        ({}, "name either data.image, or data.source"),
        ({"image": "a.tif", "source": "wusu", "root": "."}, "name either data.image, or data.source"),
        ({"source": "wusu"}, "data.source and data.root go together"),
        ({"source": "wusu", "root": ".", "labels": "l.tif"}, "data.labels has no effect"),
        ({"image": "a.tif", "options": {"a": 1}}, "data.options has no effect"),
    ):
        with pytest.raises(ValueError, match=message):
            DataConfig(**raw)
    with pytest.raises(ConfigError, match="did you mean 'wusu'"):
        open_scenes(DataConfig(source="wuso", root=str(wusu)))
    with pytest.raises(ConfigError, match=r"data\.options: .*colour"):
        open_scenes(DataConfig(source="wusu", root=str(wusu), options={"colour": 1}))
    with pytest.raises(DataError, match="there is no folder"):
        open_scenes(DataConfig(source="wusu", root=str(wusu / "gone")))


def test_paths_in_tables_never_leave_the_root(tmp_path):
    assert inside(tmp_path, "a/b.tif") == tmp_path.resolve() / "a/b.tif"
    with pytest.raises(DataError, match="leads out of"):
        inside(tmp_path, "../other/b.tif")
