"""Networks as ONNX files: the same logits from file numbers, any number of windows, refusals by name."""

import json

import numpy as np
import pytest
import torch

from covermap.core.errors import ModelError
from covermap.core.legend import load_legend
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.models import NetworkModel, load_model, save_model
from covermap.nn.build import build_model
from covermap.testing import suitable_spec
from covermap.verbs.export_onnx import export_onnx

onnxruntime = pytest.importorskip("onnxruntime")
LEGEND = load_legend({1: "water", 2: "trees", 3: "town"})
BANDS = ("blue", "green", "red", "nir")
SPEC = InputSpec((SensorInput("sentinel2", BANDS, (0.1, 0.2, 0.3, 0.4), (0.05,) * 4, scale=1e-4),), 10, 64)


def write(folder, spec=SPEC, *, backbone="unet", decoder="unet", options=None):
    torch.manual_seed(0)
    model = build_model(spec, 3, backbone=backbone, decoder=decoder, backbone_options=options).eval()
    build = {"backbone": backbone, "decoder": decoder, "backbone_options": options or {}, "decoder_options": {}}
    return save_model(NetworkModel(spec, LEGEND, model, {}), folder, build=build)


def test_it_takes_file_numbers_of_any_number_of_windows(tmp_path):
    folder = write(tmp_path / "model", options={"widths": [8, 16, 24]})
    told = export_onnx(folder, tmp_path / "model.onnx")
    assert "logits agree" in told[0]
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    numbers = np.random.default_rng(0).uniform(0, 6000, (3, 1, 4, 64, 64)).astype(np.float32)
    (logits,) = session.run(None, {"sentinel2": numbers})
    scaled = (torch.from_numpy(numbers) * 1e-4 - torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]) / 0.05
    batch = Batch({"sentinel2": scaled.clamp(-10, 10)}, torch.ones(3, 1, 64, 64, dtype=torch.bool))
    with torch.inference_mode():
        ours = load_model(folder).forward(batch).numpy()
    assert np.abs(logits - ours).max() < 1e-4 * np.abs(ours).max()
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["water", "trees", "town"]
    assert json.loads(facts["bands"]) == {"sentinel2": list(BANDS)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "decoder"),
    [
        ("resnet18", "upernet"), ("segformer_b0", "segformer"), ("vit_tiny", "unet"), ("galileo_nano", "linear"),
        ("prithvi_eo_v2_tiny_tl", "fcn"), ("terramind_v1_tiny", "unet"), ("presto", "linear"), ("swin_tiny", "fpn"),
        ("convnext_tiny", "deeplabv3plus"), ("sensor_vit_nano", "unet"),
    ],
)  # fmt: skip
def test_families_agree(tmp_path, backbone, decoder):
    spec = suitable_spec(backbone)
    small = InputSpec(spec.sensors, spec.gsd_m, 32 if backbone == "presto" else 64)
    told = export_onnx(write(tmp_path / "model", small, backbone=backbone, decoder=decoder), tmp_path / "model.onnx")
    assert "logits agree" in told[0]


@pytest.mark.slow
def test_sensors_with_blocks_of_their_own_agree(tmp_path):
    parts = (("sentinel2", ("blue", "red")), ("sentinel1", ("vv", "vh")))
    spec = InputSpec(tuple(SensorInput(name, bands, (0.0,) * 2, (1.0,) * 2) for name, bands in parts), 10, 64)
    options = {"own_blocks": 1, "class_token": True}
    folder = write(tmp_path / "model", spec, backbone="sensor_vit_nano", decoder="linear", options=options)
    assert "logits agree" in export_onnx(folder, tmp_path / "model.onnx")[0]


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    folder = write(tmp_path / "model", options={"widths": [8, 16]})

    def strange(self, features, size):
        return torch.special.bessel_j0(features.maps[0][:, :3])

    monkeypatch.setattr("covermap.nn.decoders.unet.UNetDecoder.forward", strange)
    with pytest.raises(ModelError, match="bessel_j0"):
        export_onnx(folder, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
