"""Fine-tuned TerraTorch checkpoints give the same logits here."""

import pytest
import torch

from covermap.core.errors import ModelError
from covermap.core.types import Batch
from covermap.nn.model import build_model
from covermap.nn.terratorch import read_terratorch

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
    again = build_model(found.spec, found.num_classes, **found.build)
    again.load_state_dict(found.model.state_dict())


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


def test_a_file_without_settings_is_refused(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "plain.ckpt")
    with pytest.raises(ModelError, match="no checkpoint of TerraTorch"):
        read_terratorch(tmp_path / "plain.ckpt")
