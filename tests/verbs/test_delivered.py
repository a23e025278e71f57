"""From products as delivered to a model and a map, with clouds left out on the way."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import BandError
from covermap.core.legend import IGNORE
from covermap.core.registry import find
from covermap.core.train_config import AugmentConfig, PredictConfig
from covermap.data import miniature
from covermap.data.chips import TrainWindows
from covermap.infer import open_for
from covermap.models import read_card
from covermap.start import prepare_run
from covermap.verbs.predict import predict
from covermap.verbs.train import train

SMALL = PredictConfig(size_px=32, block_px=64, workers=1)


def small_run(name, folder, data):
    return parse_config(
        {
            "name": name, "output": str(folder), "data": data, "split": {"block_px": 16, "buffer_px": 2},
            "model": {"backbone_options": {"widths": [8, 16]}}, "baseline": False,
            "train": {"epochs": 1, "steps_per_epoch": 4, "batch_size": 4, "size_px": 32, "lr": 0.01},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    """Two tiles of two dates, with labels of the first."""
    root = tmp_path_factory.mktemp("safe")
    find("source", "safe").write_miniature(root)
    codes = miniature.patches(range(1, 4), 120, 120, seed=0, cell_px=12)
    miniature.write(root / "labels.tif", codes, origin=(600_000, 5_700_000), epsg=32632)
    folder = next(root.glob("*20230710*32UNE*.SAFE"))
    data = {
        "image": [{"path": str(folder), "use": ["B02", "B03", "B04", "B08"]}],
        "labels": str(root / "labels.tif"),
        "legend": {1: "field", 2: "water", 3: "town"},
    }
    return root, folder, small_run("safe", root / "runs", data)


@pytest.fixture(scope="module")
def model(safe):
    return train(safe[2]).folder / "model"


def corner_is_empty(path):
    """The cloud of the miniature covers the first 40 x 40 px at 10 m."""
    with rasterio.open(path) as dataset:
        values, nodata = dataset.read(1), dataset.nodata
    cloudy = np.zeros(values.shape, bool)
    cloudy[:40, :40] = True
    return np.array_equal(values == nodata, cloudy)


def test_nothing_is_learnt_under_clouds(safe):
    ready = prepare_run(safe[2])
    assert any("SCL_20m.jp2: about 11% is masked" in note for note in ready.notes)
    config = safe[2].train.model_copy(update={"augment": AugmentConfig(flips=False)})
    dataset = TrainWindows(ready.scenes, ready.split, ready.survey.cells, ready.spec, config, length=40)
    seen = 0
    for item in (dataset[i] for i in range(40)):
        cloudy = ~item["valid"][0]
        seen += cloudy.sum()
        assert (item["label"][cloudy] == IGNORE).all()
        assert (item["image"]["sentinel2"][0][:, cloudy] == 0).all()
    assert seen > 0


def test_a_folder_and_a_zip_are_mapped_by_one_command(safe, model, tmp_path, covermap):
    root, folder, _ = safe
    packed = shutil.make_archive(str(tmp_path / folder.name), "zip", root, folder.name)

    def run(*arguments):
        code, out, err = covermap(*arguments)
        assert not code, err
        return out

    said = run("predict", model, folder, tmp_path / "a.tif", "--size", 32, "--workers", 1)
    assert "masked as cloud, cirrus, shadow, defective" in said
    run("predict", model, packed, tmp_path / "b.tif", "--size", 32, "--workers", 1)
    run("predict", model, folder, tmp_path / "c.tif", "--size", 32, "--workers", 1, "--clouds", "none")
    assert corner_is_empty(tmp_path / "a.tif")
    assert corner_is_empty(tmp_path / "b.tif")
    with rasterio.open(tmp_path / "a.tif") as one, rasterio.open(tmp_path / "b.tif") as two:
        assert np.array_equal(one.read(), two.read())
        assert "2023-07-10" in str(one.tags()) + (tmp_path / "a.stac.json").read_text()
    with rasterio.open(tmp_path / "c.tif") as dataset:
        assert (dataset.read(1) != dataset.nodata).all()


def test_another_product_of_before_the_offset_gives_the_same_numbers(safe, model):
    """Both products of a place hold the same landscape; one has +1000, taken off by its metadata."""
    root, folder, _ = safe
    old = next(root.glob("*20210710*32UNE*.SAFE"))
    means = []
    for path in (old, folder):
        scene = open_for(read_card(model).spec, [ImageConfig(path=str(path))], any_gsd=False)
        means.append(scene.read(scene.grid.window).image["sentinel2"][0].mean((1, 2)))
    assert means[0] == pytest.approx(means[1], rel=0.01)


def test_landsat_fits_a_model_of_its_raw_numbers_too(tmp_path):
    """A model that was trained on plain files with a scale of its own gets the product's numbers in that scale."""
    find("source", "landsat").write_miniature(tmp_path / "data")
    folder = tmp_path / "data/LC09_L2SP_193024_20230710_20230820_02_T1"
    raw = [str(folder / f"{folder.name}_SR_B{n}.TIF") for n in (2, 3, 4)]
    codes = miniature.patches(range(1, 4), 96, 96, seed=0, cell_px=12)
    miniature.write(tmp_path / "labels.tif", codes, gsd_m=30, origin=(400_000, 5_700_000), epsg=32632)
    image = {"path": raw, "sensor": "landsat8", "bands": ["blue", "green", "red"], "scale": 2.75e-5, "offset": -0.2}
    data = {"image": [image], "labels": str(tmp_path / "labels.tif"), "legend": {1: "a", 2: "b", 3: "c"}}
    model = train(small_run("raw", tmp_path, data)).folder / "model"
    spec = read_card(model).spec
    product = open_for(spec, [ImageConfig(path=str(folder))], any_gsd=False)
    plain = open_for(spec, [ImageConfig(path=raw, bands=["blue", "green", "red"])], any_gsd=False)
    whole = plain.grid.window
    numbers = product.read(whole).image["landsat8"]
    assert numbers == pytest.approx(plain.read(whole).image["landsat8"], rel=1e-4)
    assert numbers.min() > 7000
    predict(model, str(folder), tmp_path / "map.tif", settings=SMALL)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        values = dataset.read(1)
        assert (values[:20, :20] == dataset.nodata).all()
        assert (values != dataset.nodata).sum() == 96 * 96 - 400


def test_a_model_without_a_sensor_refuses_a_product(safe, model):
    _, folder, _ = safe
    spec = read_card(model).spec
    nameless = replace(spec, sensors=(replace(spec.sensors[0], sensor="image"),))
    with pytest.raises(BandError, match=r"trained without a sensor, so its unit is not known"):
        open_for(nameless, [ImageConfig(path=str(folder))], any_gsd=False)
