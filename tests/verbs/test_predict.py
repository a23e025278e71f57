import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from shapely.geometry import Polygon

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, CovermapError, DataError, GridError, ModelError, OutputError
from covermap.core.run import Run
from covermap.core.train_config import PredictConfig
from covermap.data.scene import open_scenes
from covermap.data.split import Split
from covermap.geo.grid import Window
from covermap.infer import open_for
from covermap.models import load_model, read_card
from covermap.verbs.evaluate import evaluate
from covermap.verbs.map_job import MapJob
from covermap.verbs.predict import predict
from covermap.verbs.train import train
from tests.conftest import landscape

SMALL = PredictConfig(size_px=32, block_px=32, workers=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A trained run and the folder of its data."""
    folder = tmp_path_factory.mktemp("model")
    codes, image = landscape()
    write(folder / "image.tif", image, ["green", "red", "nir"], nodata=0)
    write(folder / "labels.tif", codes, None, nodata=0)
    raw = {
        "name": "m", "output": str(folder), "split": {"block_px": 16, "buffer_px": 2},
        "data": {"image": str(folder / "image.tif"), "labels": str(folder / "labels.tif"), "legend": {10: "field", 20: "water", 30: "town"}},
        "model": {"backbone_options": {"widths": [8, 16]}}, "baseline": {"trees": 5, "samples": 1000},
        "train": {"epochs": 4, "steps_per_epoch": 6, "batch_size": 4, "size_px": 32, "lr": 0.01},
    }  # fmt: skip
    write(folder / "labels.tif", codes * 10, None, nodata=0)
    return train(parse_config(raw)).folder


def write(path, array, bands, nodata=None, gsd=10.0, crs="EPSG:32631"):
    array = array if array.ndim == 3 else array[None]
    count, height, width = array.shape
    transform = rasterio.transform.from_origin(500_000, 5_000_000, gsd, gsd)
    profile = {"count": count, "height": height, "width": width, "dtype": array.dtype, "nodata": nodata, "crs": crs}
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile) as dataset:
        dataset.write(array)
        for i, name in enumerate(bands or (), 1):
            dataset.set_band_description(i, name)
    return str(path)


@pytest.fixture
def image(tmp_path):
    _, values = landscape(200, 150, seed=3)
    values[:, 40:60, 30:70] = 0
    return write(tmp_path / "scene.tif", values, ["green", "red", "nir"], nodata=0)


def test_a_map_opens_with_codes_colours_names_and_nodata(model, image, tmp_path):
    done = predict(model / "model", [ImageConfig(path=image, date="2020-05-01")], tmp_path / "map.tif", settings=SMALL)
    codes, _ = landscape(200, 150, seed=3)
    with rasterio.open(tmp_path / "map.tif") as dataset, rasterio.open(image) as source:
        values = dataset.read(1)
        assert (dataset.crs, dataset.transform, dataset.shape) == (source.crs, source.transform, source.shape)
        assert dataset.nodata == 0
        assert dataset.tags()["COVERMAP_RUN"] == "m"
        assert dataset.colormap(1)[10][:3] == load_model(model / "model").legend.classes[0].rgb
    hole = np.zeros(values.shape, bool)
    hole[40:60, 30:70] = True
    assert (values[hole] == 0).all()
    assert set(np.unique(values[~hole])) == {10, 20, 30}
    assert (values == codes * 10)[~hole].mean() > 0.8
    assert "water" in (tmp_path / "map.tif.aux.xml").read_text()
    assert sum(row["pixels"] for row in done.areas) == (~hole).sum()
    assert sum(row["mapped_ha"] for row in done.areas) == pytest.approx((~hole).sum() / 100)
    assert json.loads((tmp_path / "map.stac.json").read_text())["properties"]["datetime"].startswith("2020-05-01")
    with rasterio.open(tmp_path / "confidence.tif") as confidence:
        percent = confidence.read(1)
        assert confidence.nodata == 255
        assert (percent[hole] == 255).all()
        assert 33 <= percent[~hole].min() <= percent[~hole].max() <= 100
    assert not (tmp_path / "map.tif.work").exists()


def test_the_map_is_the_argmax_of_the_probabilities(model, image, tmp_path):
    settings = SMALL.model_copy(update={"probabilities": True})
    predict(model / "model", image, tmp_path / "map.tif", settings=settings)
    with rasterio.open(tmp_path / "probs.tif") as probs, rasterio.open(tmp_path / "map.tif") as land:
        shares, codes = probs.read(), land.read(1)
        assert probs.descriptions == ("field", "water", "town")
        assert probs.scales == (1 / 200,) * 3
    valid = codes > 0
    assert (shares[:, ~valid] == 255).all()
    assert np.abs(shares[:, valid].sum(0, dtype=int) - 200).max() <= 2
    chosen = np.take_along_axis(shares, (codes.astype(int) // 10 - 1).clip(0)[None], 0)[0]
    assert (chosen[valid] >= shares.max(0)[valid] - 1).all()


def outputs(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def test_any_number_of_workers_gives_the_same_bytes(model, image, tmp_path):
    found = []
    for workers in (1, 2, 4):
        folder = tmp_path / str(workers)
        predict(model / "model", image, folder / "map.tif", settings=SMALL.model_copy(update={"workers": workers}))
        found.append(outputs(folder))
    assert found[0] == found[1] == found[2]
    assert "map.tif" in found[0]


def test_lower_precision_where_the_device_has_it(model, image, tmp_path, monkeypatch):
    def probabilities(name, precision):
        settings = SMALL.model_copy(update={"probabilities": True, "precision": precision})
        predict(model / "model", image, tmp_path / name / "map.tif", settings=settings)
        with rasterio.open(tmp_path / name / "probs.tif") as dataset:
            return dataset.read().astype(float) / 200

    plain, low = probabilities("plain", "float32"), probabilities("low", "bf16")
    assert 0 < np.abs(low - plain).max() < 0.1
    for able, same in (({}, plain), ({"amx_bf16": True}, low)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert np.array_equal(probabilities(f"auto_{len(able)}", "auto"), same)


def test_a_killed_prediction_is_continued_with_the_same_bytes(model, image, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    predict(model / "model", image, whole / "map.tif", settings=SMALL)
    code = (
        "import sys, time, covermap.verbs.predict as p\n"
        "from covermap.core.train_config import PredictConfig\n"
        "real = p.MapJob.compute\n"
        "def slow(*a):\n    time.sleep(0.3)\n    return real(*a)\n"
        "p.MapJob.compute = slow\n"
        "p.predict(sys.argv[1], sys.argv[2], sys.argv[3], settings=PredictConfig(size_px=32, block_px=32, workers=1))"
    )
    command = [sys.executable, "-c", code, str(model / "model"), image, str(killed / "map.tif")]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    work = killed / "map.tif.work"
    while len(list(work.glob("*_*.npz"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = [p for p in work.glob("*_*.npz") if not p.name.startswith(".")]  # a half block may lie beside them
    assert not (killed / "map.tif").exists()
    (work / ".0_0.partial.npz").write_bytes(b"half a block")
    done = predict(model / "model", image, killed / "map.tif", settings=SMALL)
    assert done.num_resumed == len(there) < done.num_blocks
    assert outputs(killed) == outputs(whole)


def test_a_changed_image_or_setting_is_not_continued(model, image, tmp_path):
    out = tmp_path / "o" / "map.tif"
    predict(model / "model", image, out, settings=SMALL)
    work = out.with_name("map.tif.work")
    work.mkdir()
    (work / "job.json").write_text('{"fingerprint": "another", "sums": {}}')
    out.unlink()
    with pytest.raises(OutputError, match=r"interrupted prediction with other .*input"):
        predict(model / "model", image, out, settings=SMALL)
    predict(model / "model", image, out, settings=SMALL, overwrite=True)
    assert out.exists()


def test_an_existing_map_stays_without_overwrite(model, image, tmp_path):
    (tmp_path / "map.tif").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        predict(model / "model", image, tmp_path / "map.tif", settings=SMALL)
    assert (tmp_path / "map.tif").read_text() == "mine"


def test_only_the_polygons_are_mapped_on_the_scenes_own_pixels(model, image, tmp_path):
    whole = tmp_path / "whole" / "map.tif"
    predict(model / "model", image, whole, settings=SMALL)
    triangle = Polygon([(500_205, 4_999_000), (500_800, 4_999_000), (500_205, 4_998_300)])
    gpd.GeoSeries([triangle], crs="EPSG:32631").to_crs(4326).to_file(tmp_path / "aoi.gpkg")
    predict(model / "model", image, tmp_path / "part.tif", settings=SMALL, aoi=tmp_path / "aoi.gpkg")
    with rasterio.open(tmp_path / "part.tif") as part:
        values = part.read(1)
        row, col = part.index(500_300, 4_998_700)
        assert values[row, col] > 0
        row, col = part.index(500_780, 4_998_320)
        assert values[row, col] == 0
        assert (values > 0).sum() == pytest.approx(triangle.area / 100, rel=0.03)
        assert ((part.transform.c - 500_000) % 10, (5_000_000 - part.transform.f) % 10) == (0, 0)
    gpd.GeoSeries([Polygon([(0, 0), (1, 0), (0, 1)])], crs=4326).to_file(tmp_path / "far.gpkg")
    with pytest.raises(GridError, match="does not overlap"):
        predict(model / "model", image, tmp_path / "far.tif", settings=SMALL, aoi=tmp_path / "far.gpkg")


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 9), (31, 33), (100, 5)])
def test_scenes_of_any_size_are_mapped_whole(model, tmp_path, shape):
    _, values = landscape(*shape)
    path = write(tmp_path / "s.tif", values, ["green", "red", "nir"], nodata=0)
    for name in ("model", "baseline"):
        predict(model / name, path, tmp_path / f"{name}.tif", settings=SMALL)
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            assert dataset.shape == shape
            assert (dataset.read(1) > 0).all()


def test_a_scene_of_nodata_gives_a_map_of_nodata(model, tmp_path):
    path = write(tmp_path / "s.tif", np.zeros((3, 50, 60), "uint16"), ["green", "red", "nir"], nodata=0)
    done = predict(model / "model", path, tmp_path / "m.tif", settings=SMALL)
    with rasterio.open(tmp_path / "m.tif") as dataset:
        assert (dataset.read(1) == 0).all()
    assert sum(row["pixels"] for row in done.areas) == 0


def test_bands_are_taken_by_name_from_another_order(model, image, tmp_path):
    with rasterio.open(image) as dataset:
        values = dataset.read()
    shuffled = write(tmp_path / "b.tif", np.concatenate([values[[2, 0]], values[:1] * 0 + 9, values[[1]]]), ["NIR", "Green", "ndvi", "B_red"], nodata=0)  # fmt: skip
    predict(model / "model", image, tmp_path / "one.tif", settings=SMALL)
    predict(model / "model", shuffled, tmp_path / "two.tif", settings=SMALL)
    with rasterio.open(tmp_path / "one.tif") as one, rasterio.open(tmp_path / "two.tif") as two:
        assert np.array_equal(one.read(1), two.read(1))


def test_a_difference_of_bands_that_the_model_takes_is_made_from_the_image(model, image):
    spec = read_card(model / "model").spec
    bands = ("green", "nir-red", "nir")
    wanted = replace(spec, sensors=(replace(spec.sensors[0], bands=bands),))
    scene = open_for(wanted, [ImageConfig(path=image)], any_gsd=False)
    whole = open_for(spec, [ImageConfig(path=image)], any_gsd=False).read(Window(0, 0, 9, 9)).image["image"]
    made = scene.read(Window(0, 0, 9, 9)).image["image"]
    green, red, nir = whole[0].astype("float32")
    assert np.array_equal(made[0], np.stack([green, nir - red, nir]))


def test_wrong_bands_or_pixel_size_are_refused(model, tmp_path):
    _, values = landscape(40, 40)
    wrong = write(tmp_path / "w.tif", values, ["green", "red", "swir1"])
    with pytest.raises(BandError, match="lacks the bands nir"):
        predict(model / "model", wrong, tmp_path / "m.tif", settings=SMALL)
    nameless = write(tmp_path / "n.tif", values[:2], None)
    with pytest.raises(BandError, match="without names"):
        predict(model / "model", nameless, tmp_path / "m.tif", settings=SMALL)
    coarse = write(tmp_path / "c.tif", values, ["green", "red", "nir"], gsd=30.0)
    with pytest.raises(GridError, match=r"pixels of 30 m, the model was trained at 10 m"):
        predict(model / "model", coarse, tmp_path / "m.tif", settings=SMALL)
    predict(model / "model", coarse, tmp_path / "m.tif", settings=SMALL, any_gsd=True)
    assert (tmp_path / "m.tif").exists()


@pytest.mark.parametrize("name", ["model", "baseline"])
def test_damaged_model_folders_are_refused(model, image, tmp_path, name):
    def broken(change):
        folder = tmp_path / f"broken{len(list(tmp_path.iterdir()))}"
        shutil.copytree(model / name, folder)
        change(folder)
        return folder

    def cut(folder):
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])

    changes = [
        cut,
        lambda f: (f / "model.safetensors").unlink(),
        lambda f: (f / "config.json").unlink(),
        lambda f: (f / "config.json").write_text("{}"),
        lambda f: (f / "config.json").write_text("not json"),
    ]
    for change in changes:
        with pytest.raises(ModelError) as caught:
            predict(broken(change), image, tmp_path / "m.tif", settings=SMALL)
        assert caught.value.fix
    with pytest.raises(ModelError, match="cannot be read"):
        predict(broken(cut), image, tmp_path / "m.tif", settings=SMALL.model_copy(update={"workers": 2}))
    other = broken(lambda f: None)
    raw = json.loads((other / "config.json").read_text())
    raw["legend"]["classes"] = raw["legend"]["classes"][:2]
    (other / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="fit"):
        predict(other, image, tmp_path / "m.tif", settings=SMALL)


def test_what_cannot_be_read_or_written_is_said_before_any_work(model, image, tmp_path):
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(DataError, match="not a raster"):
        predict(model / "model", str(tmp_path / "text.tif"), tmp_path / "m.tif")
    with pytest.raises(OutputError, match=r"does not end in \.tif"):
        predict(model / "model", image, tmp_path / "m.png")
    with pytest.raises(OutputError, match="cannot be written"):
        predict(model / "model", image, "/proc/nowhere/m.tif")
    with pytest.raises(ModelError, match="not a model folder"):
        predict(tmp_path, image, tmp_path / "m.tif")


def test_an_error_in_one_worker_ends_the_others_and_finished_blocks_stay(model, image, tmp_path, monkeypatch):
    failed = []

    compute = MapJob.compute

    def failing(job, model_, block, *rest):
        if len(list(job.work.glob("*_*.npz"))) >= 2 and not failed:
            failed.append(block)
            raise MemoryError
        compute(job, model_, block, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(MapJob, "compute", failing)
        with pytest.raises(MemoryError):
            predict(model / "model", image, tmp_path / "m.tif", settings=SMALL.model_copy(update={"workers": 2}))
    done = predict(model / "model", image, tmp_path / "m.tif", settings=SMALL)
    assert 2 <= done.num_resumed < done.num_blocks


def test_errors_of_workers_come_back_as_themselves(model, image, tmp_path):
    data = Path(image).read_bytes()
    Path(image).write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(CovermapError, match=r"scene\.tif"):
        predict(model / "model", image, tmp_path / "m.tif", settings=SMALL.model_copy(update={"workers": 2}))


def test_a_pattern_of_several_scenes_is_refused(model, image, tmp_path):
    shutil.copy(image, tmp_path / "scene2.tif")
    with pytest.raises(DataError, match="names 2 scenes"):
        predict(model / "model", str(tmp_path / "scene*.tif"), tmp_path / "m.tif", settings=SMALL)


def test_the_map_never_takes_the_place_of_its_image(model, image, tmp_path):
    before = Path(image).read_bytes()
    with pytest.raises(OutputError, match="is an input of this call"):
        predict(model / "model", image, image, settings=SMALL, overwrite=True)
    assert Path(image).read_bytes() == before


def test_a_part_of_the_map_is_the_map_there(model, image, tmp_path):
    predict(model / "model", image, tmp_path / "whole.tif", settings=SMALL)
    square = Polygon([(500_331, 4_998_911), (500_920, 4_998_911), (500_920, 4_998_402), (500_331, 4_998_402)])
    gpd.GeoSeries([square], crs="EPSG:32631").to_file(tmp_path / "aoi.gpkg")
    predict(model / "model", image, tmp_path / "part.tif", settings=SMALL, aoi=tmp_path / "aoi.gpkg")
    for layer in ("", "_confidence"):
        with rasterio.open(tmp_path / f"whole{layer}.tif") as a, rasterio.open(tmp_path / f"part{layer}.tif") as b:
            there = rasterio.windows.from_bounds(*b.bounds, transform=a.transform).round_offsets().round_lengths()
            whole, part = a.read(1, window=there), b.read(1)
        inside = part != (255 if layer else 0)
        assert inside.sum() > 2000
        assert np.array_equal(part[inside], whole[inside])


def test_an_area_of_the_world_is_the_whole_scene_and_a_splinter_is_refused(model, image, tmp_path):
    world = Polygon([(-180, -90), (180, -90), (180, 90), (-180, 90)])
    gpd.GeoSeries([world], crs=4326).to_file(tmp_path / "world.gpkg")
    predict(model / "model", image, tmp_path / "a.tif", settings=SMALL)
    predict(model / "model", image, tmp_path / "b.tif", settings=SMALL, aoi=tmp_path / "world.gpkg")
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert np.array_equal(a.read(1), b.read(1))
    splinter = Polygon([(500_101, 4_999_001), (500_103, 4_999_001), (500_103, 4_999_003)])
    gpd.GeoSeries([splinter], crs="EPSG:32631").to_file(tmp_path / "s.gpkg")
    with pytest.raises(GridError, match="holds no pixel's centre"):
        predict(model / "model", image, tmp_path / "c.tif", settings=SMALL, aoi=tmp_path / "s.gpkg")


@pytest.mark.parametrize("name", ["map.qml", "map.clr", "map.tif.aux.xml", "confidence.tif", "map.stac.json"])
def test_side_files_stay_without_overwrite(model, image, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        predict(model / "model", image, tmp_path / "map.tif", settings=SMALL)
    assert (tmp_path / name).read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["scene.tif", name])


def test_a_foreign_folder_is_not_taken_for_work(model, image, tmp_path):
    work = tmp_path / "map.tif.work"
    work.mkdir()
    (work / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is in the way"):
            predict(model / "model", image, tmp_path / "map.tif", settings=SMALL, overwrite=overwrite)
    assert (work / "notes.txt").read_text() == "mine"


def test_a_wrong_date_is_said_first_and_another_one_goes_on(model, image, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no date"):
        ImageConfig(path=image, date="27.7.2019")
    with monkeypatch.context() as patch:
        patch.setattr("covermap.verbs.map_job.finish_map", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(model / "model", [ImageConfig(path=image, date="2019")], tmp_path / "m.tif", settings=SMALL)
    done = predict(model / "model", [ImageConfig(path=image, date="2020")], tmp_path / "m.tif", settings=SMALL)
    assert done.num_resumed == done.num_blocks
    assert json.loads((tmp_path / "m.stac.json").read_text())["properties"]["start_datetime"].startswith("2020")


def test_a_call_that_fails_at_once_leaves_nothing_in_the_way(model, image, tmp_path, monkeypatch):
    monkeypatch.setattr(MapJob, "compute", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(model / "model", image, tmp_path / "m.tif", settings=SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


def test_a_changed_source_of_a_vrt_is_noticed(model, image, tmp_path, monkeypatch):
    with rasterio.open(image) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "scene.vrt", driver="VRT")
    with monkeypatch.context() as patch:
        patch.setattr("covermap.verbs.map_job.finish_map", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(model / "model", str(tmp_path / "scene.vrt"), tmp_path / "m.tif", settings=SMALL)
    _, values = landscape(200, 150, seed=4)
    write(tmp_path / "scene.tif", values, ["green", "red", "nir"], nodata=0)
    with pytest.raises(OutputError, match=r"interrupted prediction with other .*input"):
        predict(model / "model", str(tmp_path / "scene.vrt"), tmp_path / "m.tif", settings=SMALL)


@pytest.mark.parametrize("device", ["cuda", "cuda:99"])
def test_a_device_that_is_not_there_is_said(model, image, tmp_path, device):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=f"no device {device}"):
        predict(model / "model", image, tmp_path / "m.tif", settings=SMALL.model_copy(update={"device": device}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input", {"sensors": [], "gsd_m": 1, "size_px": 2}), ("input", {"sensors": [{}], "gsd_m": 1, "size_px": 2}),
        ("input.gsd_m", "far"), ("input.sensors", [{"sensor": "image", "bands": ["a"], "mean": [0, 1], "std": [1]}]),
        ("legend", {"classes": "none"}), ("legend", {1: 2}), ("build", {"backbone": "nothing"}), ("build", {"colour": 1}),
        ("build", None), ("format", "new"), ("kind", 3),
    ],
)  # fmt: skip
def test_wrong_values_in_a_models_config_are_refused(model, image, tmp_path, key, value):
    shutil.copytree(model / "model", tmp_path / "broken")
    raw = json.loads((tmp_path / "broken/config.json").read_text())
    *parents, last = key.split(".")
    place = raw
    for parent in parents:
        place = place[parent]
    place[last] = value
    (tmp_path / "broken/config.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError):
        predict(tmp_path / "broken", image, tmp_path / "m.tif", settings=SMALL)


def test_the_offset_rule_of_training_holds_for_the_map(model, tmp_path):
    """A model that was trained with a fixed offset never has one taken off by itself, and the other way round."""
    card = read_card(model / "model")
    _, values = landscape(40, 40)
    path = write(tmp_path / "s2.tif", values + 2000, ["green", "red", "nir"])
    for automatic, added in ((True, -1000.0), (False, 0.0)):
        entry = replace(card.spec.sensors[0], sensor="sentinel2", auto_offset=automatic)
        scene = open_for(replace(card.spec, sensors=(entry,)), [ImageConfig(path=path)], any_gsd=False)
        assert scene.added["sentinel2"] == (added,)


def test_scores_come_from_the_windows_of_the_map(model, tmp_path):
    """The confusion matrix of all labels equals that of the map with them."""
    folder = model.parent
    run = Run.open(model)
    result = evaluate(run, part="test")["models"]["network"]["confusion"]
    predict(model / "model", str(folder / "image.tif"), tmp_path / "m.tif", settings=run.config.predict)
    scene = open_scenes(run.config.data)[0]
    index = Split.load(run.path("split.csv")).labels(scene, scene.grid.window, "test")
    with rasterio.open(tmp_path / "m.tif") as dataset:
        mapped = dataset.read(1) // 10 - 1
    known = index != 255
    counts = np.bincount(index[known].astype(int) * 3 + mapped[known], minlength=9).reshape(3, 3)
    assert counts.tolist() == result
