"""A folder of scenes, a VRT, and lists of STAC items: the same maps as of the files themselves."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from covermap.core.config import CloudConfig, DataConfig, ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, DataError, GridError
from covermap.core.registry import find
from covermap.core.train_config import PredictConfig
from covermap.core.types import InputSpec, SensorInput
from covermap.data.scene import open_scenes
from covermap.infer import open_all_for, open_for
from covermap.models import read_card
from covermap.verbs.map_job import MapJob
from covermap.verbs.predict import predict, predict_scenes
from covermap.verbs.train import train
from tests.conftest import landscape
from tests.data.test_given import vrt
from tests.data.test_stac import item
from tests.verbs.test_predict import outputs

pytest.importorskip("pystac", reason="needs pystac: pip install 'covermap[stac]'")
SMALL = PredictConfig(size_px=32, block_px=32, workers=2)
BANDS = ["green", "red", "nir"]


def trained_on(root, **image):
    """A model of three bands, trained for a moment."""
    codes, values = landscape()
    for name, array in (("image", values), ("labels", codes[None])):
        profile = {"driver": "GTiff", "count": len(array), "height": 96, "width": 128, "dtype": array.dtype,
                   "crs": "EPSG:32631", "nodata": 0}  # fmt: skip
        where = rasterio.transform.from_origin(5e5, 5e6, 10, 10)
        with rasterio.open(root / f"{name}.tif", "w", transform=where, **profile) as dataset:
            dataset.write(array)
            for i, band in enumerate(BANDS if name == "image" else [], 1):
                dataset.set_band_description(i, band)
    return train(parse_config({
        "name": "m", "output": str(root / "runs"), "baseline": False,
        "data": {"image": [{"path": str(root / "image.tif"), **image}], "labels": str(root / "labels.tif")},
        "split": {"val": {"cols": [64, 80]}, "test": {"cols": [82, 128]}, "buffer_px": 2},
        "model": {"backbone_options": {"widths": [8, 16]}},
        "train": {"epochs": 1, "steps_per_epoch": 4, "size_px": 32, "batch_size": 2},
    })).path("model")  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return trained_on(tmp_path_factory.mktemp("trained"), sensor="sentinel2")


@pytest.fixture
def scenes(write_tif, tmp_path):
    """Two scenes of 96 x 128 px that share 40 columns, each a folder of bands: scenes/a, scenes/b."""
    _, image = landscape(96, 216, seed=3)
    first, second = image[..., :128].copy(), image[..., 88:]
    first[:, :30, 100:] = 0
    for name, values, left in (("a", first, 500_000), ("b", second, 500_880)):
        for band, native, layer in zip(BANDS, ("B03", "B04", "B08"), values, strict=True):
            write_tif(f"scenes/{name}/{native}.tif", layer, bands=[band], nodata=0, origin=(left, 5_000_000))
    return tmp_path / "scenes"


def items_of(scenes, base="./{}", keys=("B03", "B04", "B08"), **properties):
    """Items of both scenes, on two days; hrefs count from the folder of the scenes."""
    made = []
    for name, day in (("a", "2023-07-10"), ("b", "2023-07-05")):
        assets = {key: {"href": f"{base.format(name)}/{key}.tif", "roles": ["data"]} for key in keys}
        assets["thumbnail"] = {"href": "https://example.org/t.jpg", "roles": ["thumbnail"]}
        made.append(item(name, day, assets, **properties))
    return made


def save(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def collected(scenes, items, name="search.json"):
    return save(scenes / name, {"type": "FeatureCollection", "features": items})


@pytest.fixture
def expected(model, scenes, tmp_path):
    """The maps of the files themselves."""
    predict_scenes(model, str(scenes / "*/"), tmp_path / "expected", settings=SMALL)
    return pixels(tmp_path / "expected")


def pixels(folder):
    """Bytes of what is mapped: the date, which only items say, is in the side files."""
    found = {}
    for path in sorted(Path(folder).glob("*.tif")):
        with rasterio.open(path) as dataset:
            found[path.name] = (dataset.read().tobytes(), dataset.transform, dataset.crs)
    return found


def test_a_folder_of_scenes_is_mapped_as_the_pattern(model, scenes, expected, tmp_path, write_tif):
    predict_scenes(model, str(scenes), tmp_path / "maps", settings=SMALL)
    assert outputs(tmp_path / "maps") == outputs(tmp_path / "expected")
    for name in ("a", "b"):
        layers = [rasterio.open(path) for path in sorted((scenes / name).glob("*.tif"))]
        origin = layers[0].transform.c, layers[0].transform.f
        write_tif(f"files/{name}.tif", [layer.read(1) for layer in layers], bands=BANDS, nodata=0, origin=origin)
        [layer.close() for layer in layers]
    predict_scenes(model, str(tmp_path / "files"), tmp_path / "again", settings=SMALL)
    assert pixels(tmp_path / "again") == expected
    with pytest.raises(DataError, match="names 2 scenes") as caught:
        predict(model, str(scenes), tmp_path / "map.tif", settings=SMALL)
    assert "name a folder" in caught.value.fix
    (only,) = predict_scenes(model, str(scenes / "a"), tmp_path / "one", settings=SMALL)
    assert only.path.name == "a.tif"


def test_what_of_many_scenes_cannot_be_read_is_said(model, scenes, tmp_path):
    (scenes / "b/B04.tif").write_bytes(b"II*\0")
    (done,) = predict_scenes(model, str(scenes), tmp_path / "maps", settings=SMALL)
    assert "left out 1 of 2 scenes that cannot be read" in done.notes[0]


def test_a_vrt_is_one_scene(model, scenes, tmp_path, write_tif):
    _, image = landscape(96, 216, seed=3)
    for name, part, left in (("a", image[..., :100], 500_000), ("b", image[..., 100:], 501_000)):
        write_tif(f"tiles/{name}.tif", part, bands=BANDS, nodata=0, origin=(left, 5_000_000))
    whole = write_tif("whole.tif", image, bands=BANDS, nodata=0)
    path = tmp_path / "tiles/all.vrt"
    path.write_text(vrt({"a.tif": 0, "b.tif": 100}, 96, 216))
    predict(model, str(path), tmp_path / "vrt/map.tif", settings=SMALL)
    predict(model, whole, tmp_path / "tif/map.tif", settings=SMALL)
    assert outputs(tmp_path / "vrt") == outputs(tmp_path / "tif")
    with pytest.raises(BandError, match="VRTs and other rasters"):
        predict(model, str(tmp_path / "tiles"), tmp_path / "map.tif", settings=SMALL)
    with rasterio.open(tmp_path / "tiles/b.tif", "r+") as dataset:  # the VRT's own bytes stay
        dataset.write(np.zeros((3, 96, 116), "uint16"))
    predict(model, str(path), tmp_path / "changed/map.tif", settings=SMALL)
    assert pixels(tmp_path / "changed") != pixels(tmp_path / "vrt")


@pytest.mark.parametrize("form", ["search.json", "search.geojson", "catalog.json", "collection.json", "folder",
                                  "items", "pattern"])  # fmt: skip
def test_every_form_of_a_list_gives_the_maps_of_the_files(model, scenes, expected, tmp_path, form):
    items = items_of(scenes)
    if form.startswith("search"):
        given = collected(scenes, items, form)
    elif form in ("items", "pattern"):
        base = {"items": "../scenes/{}", "pattern": "./{}"}[form]
        folder = {"items": tmp_path / "items", "pattern": scenes}[form]
        folder.mkdir(exist_ok=True)
        for one in items_of(scenes, base):
            save(folder / f"{one['id']}.json", one)
        # Files lie in the folder that is given; and beside folders of rasters it is not plain what is meant.
        message = {"items": r"names .*B0\d\.tif, which lies outside of the catalogue", "pattern": "folders of rasters"}
        with pytest.raises(DataError, match=message[form]):
            predict_scenes(model, str(folder), tmp_path / "maps", settings=SMALL)
        given = str({"items": tmp_path / "*" / "?.json", "pattern": scenes / "*.json"}[form])
    else:
        name = "collection.json" if form == "collection.json" else "catalog.json"
        links = []
        for one in items_of(scenes, "."):
            save(scenes / one["id"] / "item.json", one)
            links.append({"rel": "item", "href": f"./{one['id']}/item.json"})
        top = {"type": "Catalog", "id": "top", "stac_version": "1.0.0", "description": "x", "links": links}
        if form == "collection.json":
            extent = {"spatial": {"bbox": [[2, 45, 4, 46]]}, "temporal": {"interval": [["2023-01-01T00:00:00Z", None]]}}
            top |= {"type": "Collection", "license": "other", "extent": extent}
        given = save(scenes / name, top)
        given = str(scenes) if form == "folder" else given
    found = predict_scenes(model, given, tmp_path / "maps", settings=SMALL)
    assert [done.path.name for done in found] == ["a.tif", "b.tif"]  # by name, though b is of an earlier day
    assert pixels(tmp_path / "maps") == expected
    assert "2023-07-05" in (tmp_path / "maps/b.stac.json").read_text()


def test_one_item_and_hrefs_from_another_folder(model, scenes, expected, tmp_path, monkeypatch, covermap):
    """What is relative counts from the item's file, wherever the call is made."""
    one = items_of(scenes, ".")[0]
    save(scenes / "a/a.json", one)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    small = ["--size", "32", "--block", "32"]
    code, out, err = covermap("predict", model, "../scenes/a/a.json", "map.tif", *small)
    assert code == 0, err
    assert [pixels(".")["map.tif"]] == [expected["a.tif"]]
    code, out, err = covermap("predict", model, "../scenes/a/a.json", "maps.v1/", *small)
    assert code == 0, err
    assert pixels("maps.v1")["a.tif"] == expected["a.tif"]
    listed = collected(scenes, items_of(scenes))
    code, _, err = covermap("predict", model, listed, "both.tif", *small)
    assert (code, "names 2 scenes" in err) == (1, True)
    code, out, err = covermap("predict", model, listed, "both", *small, "--dry-run")
    assert code == 0, err
    assert "2 scenes" in out
    code, out, err = covermap("predict", model, listed, "both", *small, "--json", "--engine", "processes")
    assert code == 0, err
    assert [Path(done["map"]).name for done in json.loads(out)["maps"]] == ["a.tif", "b.tif"]
    assert pixels("both") == expected


@pytest.mark.parametrize("how", ["stopped", "half"])
def test_a_list_goes_on_where_it_was_left(model, scenes, tmp_path, monkeypatch, how):
    given = collected(scenes, items_of(scenes))
    whole = predict_scenes(model, given, tmp_path / "whole", settings=SMALL)
    compute, seen = MapJob.compute, []

    def three(job, *arguments):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(job)
        return compute(job, *arguments)

    if how == "half":
        predict_scenes(model, given, tmp_path / "maps", settings=SMALL, part="1/2")
    else:
        with monkeypatch.context() as patch:
            patch.setattr(MapJob, "compute", three)
            with pytest.raises(KeyboardInterrupt):
                predict_scenes(model, given, tmp_path / "maps", settings=SMALL.model_copy(update={"workers": 1}))
    assert not list((tmp_path / "maps").glob("*.tif"))
    found = predict_scenes(model, given, tmp_path / "maps", settings=SMALL)
    assert sum(done.num_blocks for done in whole) == 8
    assert sum(done.num_resumed for done in found) == (4 if how == "half" else 3)
    assert outputs(tmp_path / "maps") == outputs(tmp_path / "whole")


def test_only_the_models_bands_are_opened(model, scenes, tmp_path):
    """Others may lie on finer pixels, or anywhere."""
    items = items_of(scenes)
    for one in items:
        one["assets"]["blue"] = {"href": "./nowhere.tif", "roles": ["data"]}
        one["assets"]["scl"] = {"href": "./nowhere_SCL.tif"}
    image = ImageConfig(path=collected(scenes, items), clouds="none")
    first, second = open_all_for(read_card(model).spec, [image], any_gsd=False)
    assert (first.name, first.rasters["sentinel2"].bands, first.dates) == ("a", tuple(BANDS), ("2023-07-10",))
    assert [Path(path).name for path in second.paths] == ["B03.tif", "B04.tif", "B08.tif"]


def test_clouds_of_the_items_are_left_out(model, scenes, tmp_path, write_tif):
    items = items_of(scenes)
    for one, left in zip(items, (500_000, 500_880), strict=True):
        codes = np.full((48, 64), 4, "uint8")
        codes[:10], codes[10:20] = 9, 3
        write_tif(f"scenes/{one['id']}/scl.tif", codes, gsd=20.0, origin=(left, 5_000_000))
        one["assets"]["SCL_20m"] = {"href": f"./{one['id']}/scl.tif", "roles": ["data"]}
    spec, path = read_card(model).spec, collected(scenes, items)
    for clouds, first in (("auto", 40), (CloudConfig(kinds=["cloud"]), 20), ("none", 0)):
        scene = open_all_for(spec, [ImageConfig(path=path, clouds=clouds)], any_gsd=False)[0]
        valid = scene.read(scene.grid.window).valid[0]
        assert int(np.argmax(valid.any(1))) == first
    write_tif("masks/a_mask.tif", np.ones((96, 128), "uint8"))
    write_tif("masks/b_mask.tif", np.zeros((96, 128), "uint8"), origin=(500_880, 5_000_000))
    own = CloudConfig(path=str(tmp_path / "masks/*.tif"), specification="mask")
    first, second = open_all_for(spec, [ImageConfig(path=path, clouds=own)], any_gsd=False)
    assert not first.read(first.grid.window).valid.any()
    assert second.read(second.grid.window).valid.all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda items: items[1]["assets"].pop("B04"), DataError,
         r"the item b lacks red; it has green, nir \(assets B03, B08, thumbnail\)"),
        (lambda items: items[1]["properties"].update(platform="landsat-9"), BandError, "items of several sensors: b is"),
        (lambda items: [one["properties"].update(platform="landsat-9") for one in items], BandError,
         "is of landsat8; the model takes sentinel2"),
        (lambda items: items[1]["properties"].update(platform="sentinel-1a"), BandError, "b is of sentinel-1a"),
        (lambda items: items[1].update(id="a"), DataError, "several items called a"),
        (lambda items: items.clear(), DataError, "holds no item"),
        (lambda items: items[0].pop("stac_version"), DataError, r"search\.json is no STAC catalogue that can be read"),
        (lambda items: items[0]["assets"]["B03"].update(href="../../B03.tif"), DataError, "lies outside"),
        (lambda items: items[0]["assets"]["B03"].update(href="a/none.tif"), DataError, r"there is no file .*none\.tif"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_are_refused_before_any_work(model, scenes, tmp_path, change, error, message):
    items = items_of(scenes)
    change(items)
    with pytest.raises(error, match=message) as caught:
        predict_scenes(model, collected(scenes, items), tmp_path / "maps", settings=SMALL)
    assert caught.value.fix
    assert not (tmp_path / "maps").exists()


def test_files_that_are_no_list(model, scenes, tmp_path):
    labels = {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": None, "properties": {"c": 1}}]}
    for name, text in (("bad.json", "{"), ("list.json", "[1]"), ("labels.geojson", json.dumps(labels)),
                       ("empty.json", "{}")):  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=rf"{name} is no STAC catalogue that can be read, no item"):
            predict_scenes(model, str(tmp_path / name), tmp_path / "maps", settings=SMALL)
    with pytest.raises(DataError, match="there is no file"):
        predict_scenes(model, str(tmp_path / "none.json"), tmp_path / "maps", settings=SMALL)
    with pytest.raises(ConfigError, match="name their bands and dates"):
        predict_scenes(model, collected(scenes, items_of(scenes)), tmp_path / "maps", settings=SMALL, bands=BANDS)


def test_a_page_of_a_search_says_so(model, scenes, tmp_path):
    page = {"type": "FeatureCollection", "features": items_of(scenes), "links": [{"rel": "next", "href": "https://x"}]}
    found = predict_scenes(model, save(scenes / "page.json", page), tmp_path / "maps", settings=SMALL)
    assert found[0].notes[0] == "page.json is one page of a search: further items are not in it"


def test_an_item_never_leads_out_of_the_folder_of_maps(model, scenes, tmp_path):
    items = items_of(scenes)
    items[0]["id"] = "../../a: b"
    found = predict_scenes(model, collected(scenes, items), tmp_path / "deep/er/maps", settings=SMALL)
    assert [done.path.name for done in found] == [".._.._a__b.tif", "b.tif"]
    assert {path.parent for done in found for path in done.files} == {tmp_path / "deep/er/maps"}


def test_a_model_without_a_sensor_refuses_items(model, scenes):
    spec = read_card(model).spec
    nameless = replace(spec, sensors=(replace(spec.sensors[0], sensor="image"),))
    with pytest.raises(BandError, match=r"trained without a sensor, so its unit is not known"):
        open_all_for(nameless, [ImageConfig(path=collected(scenes, items_of(scenes)))], any_gsd=False)


def test_the_scaling_that_items_state(tmp_path, scenes, monkeypatch):
    """Same scaling, same bytes; another one is brought to the model's. Also where the model has its own."""
    model = trained_on(tmp_path, sensor="landsat8", scale=2.75e-5, offset=-0.2)
    spec, keys = read_card(model).spec, ("green", "red", "nir08")
    for name in ("a", "b"):
        for native, key in zip(("B03", "B04", "B08"), keys, strict=True):
            os.rename(scenes / name / f"{native}.tif", scenes / name / f"{key}.tif")

    def listed(scale, offset, name):
        items = items_of(scenes, keys=keys, platform="landsat-9")
        for asset in (asset for one in items for key, asset in one["assets"].items() if key in keys):
            asset["raster:bands"] = [{"scale": scale, "offset": offset}]
        return collected(scenes, items, name)

    same, other = listed(2.75e-5, -0.2, "same.json"), listed(1e-4, 0.1, "other.json")
    files = [str(scenes / "a" / f"{key}.tif") for key in keys]
    plain = open_for(spec, [ImageConfig(path=files, bands=list(BANDS))], any_gsd=False)
    whole = plain.grid.window
    numbers = plain.read(whole).image["landsat8"]
    equal = open_all_for(spec, [ImageConfig(path=same)], any_gsd=False)[0]
    assert np.array_equal(equal.read(whole).image["landsat8"], numbers)
    assert equal.read(whole).image["landsat8"].dtype == numbers.dtype
    scaled = open_all_for(spec, [ImageConfig(path=other)], any_gsd=False)[0]
    physical = scaled.read(whole).image["landsat8"] * spec.sensors[0].scale + spec.sensors[0].offset
    assert physical == pytest.approx(numbers * 1e-4 + 0.1, abs=1e-4)
    # A worker opens the scene again from what the list said.
    again = open_for(spec, scaled.images, any_gsd=False)
    assert np.array_equal(again.read(whole).image["landsat8"], scaled.read(whole).image["landsat8"])
    predict_scenes(model, same, tmp_path / "same", settings=SMALL)
    predict(model, [ImageConfig(path=files, bands=list(BANDS))], tmp_path / "plain/a.tif", settings=SMALL)
    assert pixels(tmp_path / "same")["a.tif"] == pixels(tmp_path / "plain")["a.tif"]


def test_a_list_gives_the_numbers_of_the_training_source(tmp_path):
    """The offset of newer Sentinel-2 products is taken off by the same rule, date by date."""
    find("source", "stac").write_miniature(tmp_path)
    for path in (tmp_path / "S2B_31TCG_20230809_0_L2A").glob("*.tif"):
        with rasterio.open(path, "r+") as dataset:
            dataset.write(np.where(dataset.read() > 0, dataset.read() + 1000, 0).astype("uint16"))
    options = {"use": ["nir", "red"]}
    trained = open_scenes(DataConfig(source="stac", root=str(tmp_path / "catalog.json"), options=options))
    assert trained[0].added["sentinel2"] == (0.0, -1000.0)
    entry = SensorInput("sentinel2", ("nir", "red"), (0.0,) * 2, (1.0,) * 2, 1e-4, num_dates=2, auto_offset=True)
    spec = InputSpec((entry,), 10.0)
    (series,) = open_all_for(spec, [ImageConfig(path=str(tmp_path))], any_gsd=False)
    assert (series.name, series.dates, series.added) == ("31TCG", trained[0].dates, trained[0].added)
    whole = series.grid.window
    assert np.array_equal(series.read(whole).image["sentinel2"], trained[0].read(whole).image["sentinel2"])
    single = open_all_for(spec.one_date(), [ImageConfig(path=str(tmp_path))], any_gsd=False)
    assert [scene.name for scene in single] == ["S2B_31TCG_20230710_0_L2A", "S2B_31TCG_20230809_0_L2A"]
    assert np.array_equal(single[1].read(whole).image["sentinel2"][0], series.read(whole).image["sentinel2"][1])
    shutil.rmtree(tmp_path / "S2B_31TCG_20230809_0_L2A")
    given = str(tmp_path / "*/*.json")
    with pytest.raises(DataError, match="has 1 items of the tile 31TCG; the model takes 2 dates of sentinel2"):
        open_all_for(spec, [ImageConfig(path=given)], any_gsd=False)
    coarse = replace(spec.one_date(), gsd_m=30.0)
    with pytest.raises(GridError, match="pixels of 10 m, the model was trained at 30 m"):
        open_all_for(coarse, [ImageConfig(path=given)], any_gsd=False)


def test_further_sensors_go_with_the_items_by_name(model, scenes, tmp_path, write_tif):
    spec = read_card(model).spec
    dem = replace(spec.sensors[0], sensor="dem", bands=("elevation",), mean=(0.0,), std=(1.0,), scale=1.0)
    both, path = replace(spec, sensors=(*spec.sensors, dem)), collected(scenes, items_of(scenes))
    for name, left in (("a", 500_000), ("b", 500_880)):
        write_tif(f"dem/{name}.tif", np.full((96, 128), 7, "int16"), bands=["dem"], origin=(left, 5_000_000))
    further = ImageConfig(path=str(tmp_path / "dem"), sensor="dem", bands=["elevation"])
    found = open_all_for(both, [ImageConfig(path=path), further], any_gsd=False)
    assert [sorted(scene.rasters) for scene in found] == [["dem", "sentinel2"]] * 2
    (tmp_path / "dem/b.tif").rename(tmp_path / "dem/c.tif")
    with pytest.raises(DataError, match=r"1 files of .*search\.json without"):
        open_all_for(both, [ImageConfig(path=path), further], any_gsd=False)


def test_optional_bands_may_be_missing(model, scenes):
    spec = read_card(model).spec
    entry = replace(spec.sensors[0], bands=("green", "red", "nir", "swir1"), mean=(0.0,) * 4, std=(1.0,) * 4)
    path = collected(scenes, items_of(scenes))
    with pytest.raises(DataError, match="the item b lacks swir1"):
        open_all_for(replace(spec, sensors=(entry,)), [ImageConfig(path=path)], any_gsd=False)
    optional = replace(spec, sensors=(replace(entry, optional=True),))
    scene = open_all_for(optional, [ImageConfig(path=path)], any_gsd=False)[0]
    assert scene.rasters["sentinel2"].bands == tuple(BANDS)
    index = replace(entry, bands=("nir", "ndvi"), indices=("ndvi",), mean=(0.0,) * 2, std=(1.0,) * 2)
    scene = open_all_for(replace(spec, sensors=(index,)), [ImageConfig(path=path)], any_gsd=False)[0]
    assert scene.bands["sentinel2"] == ("nir", "ndvi")
    assert [Path(file).name for file in scene.paths] == ["B08.tif", "B04.tif"]
