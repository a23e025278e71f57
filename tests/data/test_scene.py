from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from rasterio.warp import transform as warp_points
from shapely import box

from covermap.core.config import DataConfig, ImageConfig
from covermap.core.errors import BandError, ConfigError, DataError, GridError, LabelError
from covermap.core.legend import IGNORE
from covermap.data.labels import infer_legend
from covermap.data.scene import open_scenes
from covermap.geo.grid import Window

RNG = np.random.default_rng(0)


def test_sensors_on_other_grids_are_brought_to_the_finest(write_tif):
    optical = write_tif("s2.tif", RNG.integers(1, 99, (2, 40, 40)).astype("uint16"), bands=["red", "nir"])
    dem = write_tif(
        "dem.tif", np.kron([[10.0, 90.0]], np.ones((20, 10))).astype("float32"), bands=["elevation"], gsd=20.0
    )
    images = [ImageConfig(path=optical, sensor="sentinel2", offset=0.0), ImageConfig(path=dem, sensor="dem")]
    scene = open_scenes(DataConfig(image=images))[0]
    sample = scene.read(Window(0, 0, 40, 40))
    assert {k: v.shape for k, v in sample.image.items()} == {"sentinel2": (1, 2, 40, 40), "dem": (1, 1, 40, 40)}
    assert sample.image["dem"][0, 0, 0].tolist()[::39] == [10, 90]
    assert any("dem.tif is brought" in note for note in scene.notes)


def test_a_pixel_counts_only_where_every_sensor_is_valid(write_tif):
    one, two = np.full((1, 8, 8), 5, "int16"), np.full((1, 8, 8), 5, "int16")
    one[0, 0], two[0, :, 0] = -1, -1
    images = [
        ImageConfig(path=write_tif("a.tif", one, bands=["red"], nodata=-1), sensor="rgb"),
        ImageConfig(path=write_tif("b.tif", two, bands=["vv"], nodata=-1), sensor="sentinel1"),
    ]
    valid = open_scenes(DataConfig(image=images))[0].read(Window(0, 0, 8, 8)).valid
    assert valid.sum() == 49


def test_labels_on_another_grid_are_refused_unless_asked_and_then_aligned(write_tif):
    image = write_tif("i.tif", np.ones((1, 20, 20), "uint8"), bands=["red"])
    fine = np.kron(np.array([[1, 2], [2, 1]], "uint8"), np.ones((100, 100), "uint8"))
    labels = write_tif("l.tif", fine, gsd=1.0)
    with pytest.raises(GridError, match="their pixels differ"):
        open_scenes(DataConfig(image=image, labels=labels))
    for method in ("nearest", "mode", "weighted_mode"):
        scene = open_scenes(DataConfig(image=image, labels=labels, align=method))[0]
        assert np.array_equal(scene.read_labels(scene.grid.window), fine[5::10, 5::10] - 1)


def test_labels_in_another_crs_or_place_are_refused(write_tif):
    image = write_tif("i.tif", np.ones((1, 20, 20), "uint8"), bands=["red"])
    x, y = warp_points("EPSG:32631", "EPSG:32632", [500_000], [5_000_000])
    other = write_tif("o.tif", np.ones((20, 20), "uint8"), crs="EPSG:32632", origin=(x[0], y[0]))
    far = write_tif("f.tif", np.ones((20, 20), "uint8"), origin=(800_000, 5_000_000))
    with pytest.raises(GridError, match=r"(?s)EPSG:32632.*align"):
        open_scenes(DataConfig(image=image, labels=other))
    with pytest.raises(GridError, match="does not overlap"):
        open_scenes(DataConfig(image=image, labels=far))


def test_labels_without_a_crs_are_aligned_where_corners_are_those_of_the_image(write_tif):
    image = ImageConfig(path=write_tif("i.tif", np.ones((1, 20, 20), "uint8"), bands=["red"], crs=None), gsd_m=30)
    codes = np.kron(np.array([[1, 2], [2, 1]], "uint8"), np.ones((10, 10), "uint8"))
    labels, short = (write_tif(f"{n}.tif", codes[:n], crs=None) for n in (20, 16))
    scene = open_scenes(DataConfig(image=[image], labels=labels, align="mode"))[0]
    assert (scene.grid.height, scene.grid.width) == (7, 7)
    assert scene.read_labels(scene.grid.window)[[0, 0, 5, 5], [0, 5, 0, 5]].tolist() == [0, 1, 1, 0]
    with pytest.raises(GridError, match="corners differ"):
        open_scenes(DataConfig(image=[image], labels=short, align="mode"))


def test_unknown_codes_are_listed_and_never_become_a_class(write_tif):
    image = write_tif("i.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    codes = np.ones((8, 8), "uint8")
    codes[0, :3], codes[1, 0] = 7, 9
    config = DataConfig(image=image, labels=write_tif("l.tif", codes), legend={1: "a", 2: "b"})
    with pytest.raises(LabelError, match=r"7 \(3 px\), 9 \(1 px\)"):
        open_scenes(config)[0].read_labels(Window(0, 0, 8, 8))
    scene = open_scenes(config.model_copy(update={"unknown_codes": "ignore"}))[0]
    index = scene.read_labels(Window(0, 0, 8, 8))
    assert (index == IGNORE).sum() == 4
    assert (index[index != IGNORE] == 0).all()


def test_a_code_that_is_nodata_and_class_is_refused(write_tif):
    image = write_tif("i.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    labels = write_tif("l.tif", np.zeros((8, 8), "uint8"), nodata=0)
    with pytest.raises(LabelError, match="both the file's nodata and the class 'water'"):
        open_scenes(DataConfig(image=image, labels=labels, legend={0: "water", 1: "land"}))
    with pytest.raises(LabelError, match="both nodata and the class"):
        open_scenes(DataConfig(image=image, labels=labels, legend={"nodata": 0, "classes": [{"code": 0, "name": "x"}]}))
    scene = open_scenes(DataConfig(image=image, labels=labels, legend={0: "water", 1: "land"}, label_nodata=-1))[0]
    assert (scene.read_labels(Window(0, 0, 8, 8)) == 0).all()


def test_patterns_pair_by_name_and_refuse_what_stands_alone(write_tif):
    for name in ("b", "a", "c"):
        path = write_tif(f"x/{name}.tif", np.full((1, 8, 8), ord(name), "uint8"), bands=["red"])
        label = write_tif(f"y/{name}.tif", np.full((8, 8), ord(name) - 96, "uint8"))
    x, y = path.rsplit("/", 1)[0] + "/*.tif", label.rsplit("/", 1)[0] + "/*.tif"
    for scene in open_scenes(DataConfig(image=x, labels=y)):
        sample = scene.read(Window(0, 0, 8, 8), labels=True)
        assert sample.image["image"][0, 0, 0, 0] == ord(scene.name)
    write_tif("y/d.tif", np.ones((8, 8), "uint8"))
    with pytest.raises(DataError, match=r"1 labels in .* without images: .*/y/d\.tif"):
        open_scenes(DataConfig(image=x, labels=y))


def test_scenes_with_different_bands_are_refused(write_tif):
    write_tif("x/a.tif", np.ones((2, 8, 8), "uint8"), bands=["red", "nir"])
    path = write_tif("x/b.tif", np.ones((2, 8, 8), "uint8"), bands=["red", "green"])
    with pytest.raises(BandError, match="scene b has red, green"):
        open_scenes(DataConfig(image=path.rsplit("/", 1)[0] + "/*.tif"))


def test_dates_of_one_sensor_are_stacked(write_tif):
    images = [
        ImageConfig(path=write_tif(f"d{i}.tif", np.full((1, 8, 8), i, "uint8"), bands=["red"]), date=f"2020-0{i}-01")
        for i in (1, 2)
    ]
    sample = open_scenes(DataConfig(image=images))[0].read(Window(0, 0, 2, 2))
    assert sample.image["image"][:, 0, 0, 0].tolist() == [1, 2]
    assert sample.dates == ("2020-01-01", "2020-02-01")


def test_polygons_without_a_named_field_list_the_fields(write_tif, tmp_path):
    image = write_tif("i.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    (tmp_path / "p.csv").write_text("lon,lat,land_cover,who\n3.0,45.1,wood,me\n")
    with pytest.raises(LabelError, match="lon, lat, land_cover, who"):
        open_scenes(DataConfig(image=image, labels=str(tmp_path / "p.csv")))


def test_a_legend_is_inferred_from_codes_and_the_files_colours(write_tif):
    import rasterio

    path = write_tif("l.tif", np.array([[1, 5, 0]], "uint8"), nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 0, 255), 5: (0, 0, 255, 255)})
    legend = infer_legend(path)
    assert (legend.codes, legend.names, legend.nodata) == ((1, 5), ("class 1", "class 5"), 0)
    assert [c.colour for c in legend.classes] == ["#ff0000", "#0000ff"]
    with pytest.raises(LabelError, match="no class codes"):
        infer_legend(write_tif("f.tif", np.array([[0.5, 1]], "float32")))
    with pytest.raises(LabelError, match="no labelled pixel"):
        infer_legend(write_tif("e.tif", np.zeros((4, 4), "uint8"), nodata=0))


def test_real_sentinel2_offsets_are_found_in_exactly_the_files_that_have_them(shared):
    """The data's README: L1C of 282D, 433D and 609U, L2A of 433D."""
    folder = shared / "data" / "terramesh_examples"
    with_offset = set()
    for product, bands in (("S2L1C", 13), ("S2L2A", 12)):
        names = [f"B{i:02d}" for i in range(1, 9)] + ["B8A", "B09", "B10", "B11", "B12"]
        names = [n for n in names if bands == 13 or n != "B10"]
        image = [ImageConfig(path=str(folder / product / "*.tif"), sensor="sentinel2", bands=names)]
        for scene in open_scenes(DataConfig(image=image)):
            if any(scene.added["sentinel2"]):
                with_offset.add((product, scene.name.split("_")[0]))
                assert scene.read(Window(0, 0, 9, 9)).image["sentinel2"].min() < 3000
    assert with_offset == {("S2L1C", "282D"), ("S2L1C", "433D"), ("S2L1C", "609U"), ("S2L2A", "433D")}


def test_scenes_with_bands_in_another_order_are_read_by_name(write_tif):
    values = np.stack([np.full((8, 8), v) for v in (1, 2, 3)]).astype("uint8")
    write_tif("x/a.tif", values, bands=["blue", "green", "red"])
    path = write_tif("x/b.tif", values[::-1], bands=["red", "green", "blue"])
    one, two = open_scenes(DataConfig(image=path.rsplit("/", 1)[0] + "/*.tif"))
    assert np.array_equal(one.read(Window(0, 0, 8, 8)).image["image"], two.read(Window(0, 0, 8, 8)).image["image"])


def test_files_of_one_name_in_several_folders_do_not_become_one_scene(write_tif):
    for folder in ("a", "b"):
        path = write_tif(f"r/{folder}/image.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    with pytest.raises(DataError, match="have one name"):
        open_scenes(DataConfig(image=path.rsplit("/", 2)[0] + "/*/image.tif"))


def test_bands_to_use_may_be_given_by_the_sensors_own_names(write_tif):
    values = np.stack([np.full((8, 8), v) for v in (1, 2, 3)]).astype("uint8")
    path = write_tif("a.tif", values, bands=["B02", "B03", "B04"])
    scene = open_scenes(DataConfig(image=path, sensor="sentinel2", use=["B04", "blue"]))[0]
    assert scene.read(Window(0, 0, 2, 2)).image["sentinel2"][0, :, 0, 0].tolist() == [3, 1]


def test_scenes_of_a_pattern_share_one_legend(write_tif):
    for name, codes in (("a", [[1, 2]]), ("b", [[2, 5]])):
        write_tif(f"i/{name}.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
        labels = write_tif(f"l/{name}.tif", np.kron(np.array(codes, "uint8"), np.ones((8, 4), "uint8")))
    config = DataConfig(image=labels.replace("l/b", "i/*"), labels=labels.replace("b.tif", "*.tif"))
    one, two = open_scenes(config)
    assert one.legend == two.legend
    assert one.legend.codes == (1, 2, 5)
    assert set(np.unique(one.read_labels(one.grid.window))) == {0, 1}
    assert set(np.unique(two.read_labels(two.grid.window))) == {1, 2}


def test_text_classes_of_several_files_make_one_legend(write_tif, tmp_path):
    for name, kinds in (("a", ["wood", "lake"]), ("b", ["lake", "town"])):
        image = write_tif(f"i/{name}.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
        squares = [box(500_000 + 40 * i, 4_999_920, 500_040 + 40 * i, 5_000_000) for i in (0, 1)]
        table = gpd.GeoDataFrame({"kind": kinds}, geometry=squares, crs="EPSG:32631")
        table.to_file(tmp_path / f"{name}.gpkg")
    config = DataConfig(image=image.replace("b.tif", "*.tif"), labels=str(tmp_path / "*.gpkg"), field="kind")
    one, two = open_scenes(config)
    assert one.legend.names == two.legend.names == ("lake", "town", "wood")
    assert [scene.read_labels(Window(0, 0, 1, 8))[0, [0, 7]].tolist() for scene in (one, two)] == [[2, 0], [0, 1]]
    merged = open_scenes(config.model_copy(update={"merge": {"open": ["lake", "town"]}}))
    assert merged[0].legend.names == ("open", "wood")
    assert [s.read_labels(Window(0, 0, 1, 8))[0, [0, 7]].tolist() for s in merged] == [[1, 0], [0, 0]]


def test_merging_needs_no_legend_and_uses_the_files_names(write_tif):
    image = write_tif("i.tif", np.ones((1, 1, 4), "uint8"), bands=["red"])
    labels = write_tif("l.tif", np.array([[1, 2, 3, 3]], "uint8"))
    Path(f"{labels}.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><CategoryNames><Category/><Category>wood</Category>"
        "<Category>lake</Category><Category>sea</Category></CategoryNames></PAMRasterBand></PAMDataset>"
    )
    scene = open_scenes(DataConfig(image=image, labels=labels))[0]
    assert scene.legend.names == ("wood", "lake", "sea")
    scene = open_scenes(DataConfig(image=image, labels=labels, merge={"water": ["lake", "sea"]}))[0]
    assert scene.legend.names == ("wood", "water")
    assert scene.read_labels(Window(0, 0, 1, 4)).tolist() == [[0, 1, 1, 1]]


def test_float_labels_with_nan_as_nodata(write_tif):
    image = write_tif("i.tif", np.ones((1, 1, 4), "uint8"), bands=["red"])
    labels = write_tif("l.tif", np.array([[1, np.nan, 2, 2]], "float32"), nodata=float("nan"))
    for legend in (None, {1: "a", 2: "b"}):
        scene = open_scenes(DataConfig(image=image, labels=labels, legend=legend))[0]
        assert scene.read_labels(Window(0, 0, 1, 4)).tolist() == [[0, IGNORE, 1, 1]]


def test_values_that_are_no_codes_are_named(write_tif):
    image = write_tif("i.tif", np.ones((1, 1, 4), "uint8"), bands=["red"])
    labels = write_tif("l.tif", np.array([[1, 1.5, 2, 2]], "float32"))
    with pytest.raises(LabelError, match=r"such as 1\.5"):
        open_scenes(DataConfig(image=image, labels=labels))
    with pytest.raises(LabelError, match=r"1\.5 \(1 px\)"):
        open_scenes(DataConfig(image=image, labels=labels, legend={1: "a", 2: "b"}))[0].read_labels(Window(0, 0, 1, 4))
    picture = write_tif("p.tif", np.ones((3, 1, 4), "uint8"))
    with pytest.raises(LabelError, match="3 bands; labels are one band"):
        open_scenes(DataConfig(image=image, labels=picture))


def test_labels_in_an_impossible_place_are_said(write_tif, tmp_path):
    image = write_tif("i.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    table = gpd.GeoDataFrame({"kind": ["a", "b"]}, geometry=[box(500_000, 4_999_950, 500_030, 5_000_000)] * 2, crs=4326)
    table.to_file(tmp_path / "p.gpkg")
    with pytest.raises(GridError, match="has a place in the image's CRS"):
        open_scenes(DataConfig(image=image, labels=str(tmp_path / "p.gpkg"), field="kind"))


def test_the_sentinel2_offset_is_found_whatever_bands_and_pixel_size_are_used(write_tif):
    bright, dark = RNG.integers(1100, 4000, (2, 3, 40, 40)).astype("uint16")
    dark[0] -= 900
    for values, offset in ((bright, -1000), (dark, 0)):
        path = write_tif("s2.tif", values, bands=["B02", "B03", "B04"])
        for changes in ({}, {"use": ["B03", "B04"]}, {"gsd_m": 20.0}):
            scene = open_scenes(DataConfig(image=[ImageConfig(path=path, sensor="sentinel2", **changes)]))[0]
            assert scene.added["sentinel2"] == (offset,)
            raw = scene.rasters["sentinel2"].read(Window(0, 0, 9, 9))[0].astype("float32")
            assert raw.min() > 0
            assert np.array_equal(scene.read(Window(0, 0, 9, 9)).image["sentinel2"], raw + offset)


def test_a_difference_of_bands_has_no_offset(write_tif):
    values = np.stack([np.full((8, 8), 3000), np.full((8, 8), 1800)]).astype("uint16")
    path = write_tif("s2.tif", values, bands=["B08", "B04"])
    image = ImageConfig(path=path, sensor="sentinel2", use=["nir", "nir-red"])
    scene = open_scenes(DataConfig(image=[image]))[0]
    assert scene.added == {"sentinel2": (-1000.0,)}
    assert scene.read(scene.grid.window).image["sentinel2"][0, :, 0, 0].tolist() == [2000, 1200]
    with pytest.raises(ConfigError, match=r"offset 0\.1 would be added to differences"):
        open_scenes(DataConfig(image=[image.model_copy(update={"offset": 0.1})]))


def test_dates_with_and_without_the_offset_are_brought_together(write_tif):
    paths = [write_tif(f"{i}.tif", np.full((1, 4, 4), v, "uint16"), bands=["B02"]) for i, v in enumerate((300, 1300))]
    scene = open_scenes(DataConfig(image=[ImageConfig(path=p, sensor="sentinel2") for p in paths]))[0]
    assert scene.read(Window(0, 0, 1, 1)).image["sentinel2"].ravel().tolist() == [300, 300]


def test_dates_of_one_sensor_must_share_scale_and_place(write_tif):
    one = write_tif("a.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    far = write_tif("b.tif", np.ones((1, 8, 8), "uint8"), bands=["red"], origin=(900_000, 5_000_000))
    with pytest.raises(GridError, match="does not overlap"):
        open_scenes(DataConfig(image=[ImageConfig(path=one), ImageConfig(path=far)]))
    for key, value in (("scale", 0.5), ("offset", 3.0), ("nodata", 7)):
        with pytest.raises(ConfigError, match=f"different values of {key}"):
            open_scenes(DataConfig(image=[ImageConfig(path=one), ImageConfig(path=one, **{key: value})]))


def test_whole_numbers_on_another_grid_keep_their_fractions(write_tif):
    one = write_tif("a.tif", np.zeros((1, 8, 8), "uint8"), bands=["red"])
    ramp = np.tile(np.arange(8, dtype="uint8"), (8, 1))
    moved = write_tif("b.tif", ramp, bands=["red"], origin=(500_005, 5_000_000))
    scene = open_scenes(DataConfig(image=[ImageConfig(path=one), ImageConfig(path=moved)]))[0]
    assert scene.read(Window(4, 3, 1, 1)).image["image"][1, 0, 0, 0] == pytest.approx(2.5)


def test_elevation_goes_with_every_date(write_tif):
    series = [write_tif(f"{i}.tif", np.full((1, 8, 8), i + 1, "int16"), bands=["red"], nodata=0) for i in range(2)]
    height = np.full((8, 8), 9, "float32")
    height[0] = np.nan
    dem = write_tif("dem.tif", height, bands=["elevation"])
    images = [*(ImageConfig(path=p, sensor="landsat7") for p in series), ImageConfig(path=dem, sensor="dem")]
    sample = open_scenes(DataConfig(image=images))[0].read(Window(0, 0, 8, 8))
    assert sample.valid.shape == (2, 8, 8)
    assert sample.valid.sum() == 2 * 56
    with pytest.raises(ConfigError, match="different numbers of dates"):
        open_scenes(
            DataConfig(image=[*images, ImageConfig(path=dem, sensor="dem"), ImageConfig(path=dem, sensor="dem")])
        )


def test_scenes_of_different_pixel_size_are_refused(write_tif):
    write_tif("i/a.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    path = write_tif("i/b.tif", np.ones((1, 8, 8), "uint8"), bands=["red"], gsd=30.0)
    with pytest.raises(GridError, match=r"scene b has pixels of 30 m, a of 10 m"):
        open_scenes(DataConfig(image=path.replace("b.tif", "*.tif")))
