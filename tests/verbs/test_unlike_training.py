"""`predict --applicability`: the model keeps what it was trained on, maps say where they are unlike it."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, ModelError
from covermap.core.train_config import PredictConfig
from covermap.verbs.predict import predict
from covermap.verbs.train import train
from tests.conftest import landscape

SETTINGS = PredictConfig(size_px=64, block_px=64, applicability=True)


BANDS = ["green", "red", "nir"]


def config(root, write_tif, **more):
    codes, image = landscape(192, 256)
    return parse_config({
        "name": "m", "output": str(root / "runs"), "baseline": False,
        "data": {"image": write_tif("image.tif", image, bands=BANDS), "labels": write_tif("labels.tif", codes, nodata=0)},
        "split": {"val": {"cols": [128, 180]}, "test": {"cols": [184, 256]}, "buffer_px": 2},
        "model": {"backbone_options": {"widths": [8, 16]}},
        "train": {"epochs": 1, "steps_per_epoch": 4, "size_px": 32, "batch_size": 2}, **more,
    })  # fmt: skip


def test_a_half_that_is_unlike_the_training_data_is_flagged(tmp_path, write_tif):
    folder = train(config(tmp_path, write_tif)).path("model")
    _, image = landscape(192, 256, seed=4)
    image[:, :, 128:] = image[::-1, :, 128:]  # bands mixed up
    image[:, :20, :20] = 0
    place = write_tif("new.tif", image, bands=BANDS, nodata=0)
    done = predict(folder, place, tmp_path / "map.tif", settings=SETTINGS)
    with rasterio.open(tmp_path / "applicability.tif") as dataset:
        found = dataset.read(1)
        assert dataset.nodata == 255
        assert "percent of the usual" in dataset.descriptions[0]
    assert (found[:20, :20] == 255).all()
    seen = found != 255
    assert (found[:, :120][seen[:, :120]] > 100).mean() < 0.3
    assert (found[:, 136:] > 100).mean() > 0.9
    share = (found[seen] > 100).mean()
    assert any(f"{share:.1%} of the map is unlike the training data" in note for note in done.notes)
    assert tmp_path / "applicability.tif" in done.files
    other = tmp_path / "other" / "map.tif"  # other blocks and engine, the same windows
    predict(folder, place, other, settings=SETTINGS.model_copy(update={"block_px": 160, "engine": "serial"}))
    with rasterio.open(other.with_name("applicability.tif")) as dataset:
        assert np.array_equal(dataset.read(1), found)


def test_a_model_that_does_not_know_says_so(tmp_path, write_tif):
    cfg = config(tmp_path, write_tif, decision={"applicability": False})
    folder = train(cfg).path("model")
    with pytest.raises(ModelError, match="does not know what it was trained on"):
        predict(folder, str(tmp_path / "image.tif"), tmp_path / "map.tif", settings=SETTINGS)
    assert not list(tmp_path.glob("map.tif*"))


def test_numbers_have_it_too_and_chips_do_not(tmp_path, write_tif):
    _, image = landscape(192, 256)
    data = {
        "image": write_tif("image.tif", image, bands=BANDS),
        "target": {"path": write_tif("y.tif", image[:1].astype("float32"))},
    }
    folder = train(config(tmp_path, write_tif, task="regression", data=data)).path("model")
    done = predict(folder, data["image"], tmp_path / "y_map.tif", settings=SETTINGS)
    assert [path.name for path in done.files] == ["y_map.tif", "y_map_applicability.tif"]
    with pytest.raises(ConfigError, match=r"predict.applicability has no effect with task classification"):
        config(tmp_path, write_tif, task="classification", predict={"applicability": True})
