"""Fine-tuned TerraTorch checkpoints give the same logits here."""

import numpy as np
import pytest
import rasterio
import torch

from covermap.core.errors import ModelError
from covermap.core.types import Batch, Features
from covermap.data import miniature
from covermap.models import load_model
from covermap.nn.build import build_model
from covermap.nn.terratorch import read_terratorch
from covermap.testing import random_batch
from covermap.verbs.predict import predict

GOLDENS = ("prithvi_fcn", "prithvi_unet", "prithvi_upernet", "terramind_unet")


def checkpoint(shared, name):
    path = shared / f"checkpoints/golden_terratorch_{name}.pt"
    return path, torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", GOLDENS)
def test_logits_equal_those_of_the_reference(shared, name):
    path, golden = checkpoint(shared, name)
    found = read_terratorch(path)
    x = golden["input"].float()[:, None]
    batch = Batch({found.spec.sensors[0].sensor: x}, torch.ones(len(x), 1, *x.shape[-2:], dtype=torch.bool))
    with torch.inference_mode():
        logits = found.model(batch)
    assert (logits - golden["output"]).abs().max() < 1e-4 * golden["output"].abs().max()


def test_it_is_built_again_from_its_settings(shared):
    path, _ = checkpoint(shared, "prithvi_upernet")
    found = read_terratorch(path)
    again = build_model(found.spec, found.num_classes, **found.build).eval()
    again.load_state_dict(found.model.state_dict())
    batch = random_batch(found.spec, 224, 224)
    with torch.inference_mode():
        assert torch.equal(again(batch), found.model(batch))


def test_of_a_neck_before_an_fcn_nothing_but_the_pooling_counts(shared, tmp_path):
    """That decoder reads the last map alone, so the neck's weights for the other maps have never learnt anything."""
    path, golden = checkpoint(shared, "prithvi_fcn")
    _, other = checkpoint(shared, "prithvi_upernet")
    golden["state_dict"] |= {name: x for name, x in other["state_dict"].items() if name.startswith("model.neck.")}
    golden["hyper_parameters"]["model_args"]["necks"] = other["hyper_parameters"]["model_args"]["necks"]
    torch.save(golden, tmp_path / "necked.ckpt")
    plain, necked = read_terratorch(path).model, read_terratorch(tmp_path / "necked.ckpt")
    assert necked.build["neck"] == "interpolate"
    batch = random_batch(necked.spec, 224, 224)
    with torch.inference_mode():
        last = torch.nn.functional.max_pool2d(plain.features(batch).maps[-1], 2)
        expected = plain.decoder(Features((last,), (32,)), (224, 224))
        assert torch.allclose(necked.model(batch), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder": "ASPPDecoder"}, "ASPPDecoder"),
        ({"backbone": "clay_v1_base"}, "cannot be imported"),
        ({"necks": [{"name": "MaxpoolToPyramidal"}]}, "MaxpoolToPyramidal"),
        ({"decoder_channels": 64}, "of another shape"),
        ({"backbone_depth": 5}, "missing"),
    ],
)
def test_what_is_not_known_is_named(shared, tmp_path, change, message):
    _, golden = checkpoint(shared, "prithvi_upernet")
    golden["hyper_parameters"]["model_args"] |= change
    torch.save(golden, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match=message):
        read_terratorch(tmp_path / "other.ckpt")


def test_an_imported_folder_maps_an_image(shared, tmp_path, covermap):
    path, golden = checkpoint(shared, "terramind_unet")
    (tmp_path / "legend.yaml").write_text("{1: water, 2: trees, 3: crops, 4: town, 5: bare}")
    arguments = ["models", "import", str(path), str(tmp_path / "model")]
    code, out, _ = covermap(*arguments, "--legend", tmp_path / "legend.yaml")
    assert code == 0
    assert "published ones" in out
    model = load_model(tmp_path / "model")
    entry = model.spec.sensors[0]
    mean, std = (np.array(values)[:, None, None] for values in (entry.mean, entry.std))
    numbers = golden["input"][0].float().numpy() * std + mean
    miniature.write(tmp_path / "image.tif", numbers.astype(np.float32), bands=entry.bands)
    predict(tmp_path / "model", str(tmp_path / "image.tif"), tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        expected = golden["output"][0].float().numpy().argmax(0) + 1
        assert (file.read(1) == expected).mean() > 0.999
    assert "exists already" in covermap(*arguments)[2]
    assert "has 5 classes" in covermap("models", "import", path, tmp_path / "other", "--legend", "esa_worldcover")[2]


def test_a_file_without_settings_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "plain.ckpt")
    with pytest.raises(ModelError, match="no checkpoint of TerraTorch"):
        read_terratorch(tmp_path / "plain.ckpt")
