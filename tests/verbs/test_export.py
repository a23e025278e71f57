"""Models in other forms: read back as the others would, with the same answers; and refusals."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
import torch

from covermap.core.errors import ConfigError, ModelError, OutputError
from covermap.core.legend import load_legend
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.models import NetworkModel, load_model, save_model
from covermap.nn.build import build_model
from covermap.verbs.export import export
from tests.geo.test_products import stac_faults
from tests.verbs.test_export_onnx import BANDS, SPEC, write

LEGEND = load_legend({1: "water", 2: "trees", 3: "town"})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained network whose answers are brought to one level, so that each class is somewhere the largest."""
    torch.manual_seed(0)
    options = {"widths": [8, 16, 24]}
    network = build_model(SPEC, 3, backbone="unet", decoder="unet", backbone_options=options).eval()
    batch = Batch({"sentinel2": torch.rand(1, 1, 4, 64, 64) * 8 - 4}, torch.ones(1, 1, 64, 64, dtype=torch.bool))
    with torch.no_grad():
        bias = [p for p in network.parameters() if p.shape == (3,)][-1]
        bias -= network(batch).mean((0, 2, 3))
    build = {"backbone": "unet", "decoder": "unet", "backbone_options": options, "decoder_options": {}}
    return save_model(NetworkModel(SPEC, LEGEND, network, {}), tmp_path / "model", build=build)


def raster_function(path: Path):
    """The class of a raster function as ArcGIS finds it: called as its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, path.stem)()


def ours(model: Path, numbers: np.ndarray) -> np.ndarray:
    scaled = (torch.from_numpy(numbers)[None, None] * 1e-4 - torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]) / 0.05
    batch = Batch({"sentinel2": scaled.clamp(-10, 10)}, torch.ones(1, 1, *numbers.shape[1:], dtype=torch.bool))
    with torch.inference_mode():
        return np.array(LEGEND.codes)[load_model(model).forward(batch)[0].argmax(0).numpy()]


def test_an_esri_model_definition_and_its_function_give_the_same_codes(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    told = export(model, str(tmp_path / "out" / "gewata.emd"))
    assert any("has not been run in ArcGIS" in line for line in told)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gewata.emd", "gewata.onnx", "gewata.py"}
    definition = json.loads((tmp_path / "out" / "gewata.emd").read_text())
    assert definition["ModelType"] == "ImageClassification"
    assert (definition["ImageHeight"], definition["ExtractBands"]) == (64, [0, 1, 2, 3])
    assert definition["BandNames"] == list(BANDS)
    assert definition["Classes"][0] == {"Value": 1, "Name": "water", "Color": list(LEGEND.classes[0].rgb)}
    function = raster_function(tmp_path / "out" / definition["InferenceFunction"])
    function.initialize(model=str(tmp_path / "out" / "gewata.emd"))
    asked = {row["name"]: row["value"] for row in function.getParameterInfo()}
    assert asked["padding"] == definition["ModelPadding"] == 8
    frame = function.getConfiguration(padding=8)
    assert (frame["tx"], frame["ty"], frame["padding"], frame["extractBands"]) == (48, 48, 8, (0, 1, 2, 3))
    info = function.updateRasterInfo(output_info={"bandCount": 4})["output_info"]
    assert (info["bandCount"], info["pixelType"]) == (1, "u1")
    rows = json.loads(info["rasterAttributeTable"])["features"]
    assert [row["attributes"]["Class"] for row in rows] == list(LEGEND.names)
    assert [row["attributes"]["Value"] for row in rows] == list(LEGEND.codes)
    numbers = np.rint(np.random.default_rng(0).uniform(0, 6000, (4, 64, 64))).astype(np.float32)
    mask = np.ones((4, 64, 64), np.uint8)
    mask[2, 20:30, 20:40] = 0
    blocks = function.updatePixels(
        (0, 0),
        (1, 48, 48),
        {"pixelType": "u1"},
        raster_pixels=np.where(mask.min(0) > 0, numbers, 32000).astype(np.int16),
        raster_mask=mask,
    )
    means = np.array([0.1, 0.2, 0.3, 0.4], np.float32)[:, None, None] / 1e-4
    filled = np.where(mask.min(0) > 0, numbers, means).astype(np.float32)
    expected = np.where(mask.min(0) > 0, ours(model, filled), 0)[8:56, 8:56]
    np.testing.assert_array_equal(blocks["output_pixels"][0], expected)
    np.testing.assert_array_equal(blocks["output_mask"][0], mask.min(0)[8:56, 8:56])
    assert blocks["output_pixels"].dtype == np.uint8
    assert len(np.unique(expected)) > 2


def test_a_tile_that_the_border_of_the_image_cuts(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    export(model, str(tmp_path / "m.emd"), size_px=32)
    function = raster_function(tmp_path / "m.py")
    function.initialize(model=str(tmp_path / "m.emd"))
    function.getConfiguration(padding=0)
    numbers = np.random.default_rng(1).uniform(0, 6000, (4, 20, 27)).astype(np.float32)
    blocks = function.updatePixels((0, 0), (1, 20, 27), {"pixelType": "u1"}, raster_pixels=numbers)
    filled = np.pad(numbers, ((0, 0), (0, 12), (0, 5)), mode="edge")
    np.testing.assert_array_equal(blocks["output_pixels"][0], ours(model, filled)[:20, :27])
    with pytest.raises(ValueError, match="leaves nothing"):
        function.getConfiguration(padding=16)


def test_a_stac_item_elsewhere_points_at_the_files_of_the_model(model: Path, tmp_path: Path) -> None:
    told = export(model, str(tmp_path / "catalogue" / "m.json"))
    assert "STAC 1.1.0 item" in told[0]
    raw = json.loads((tmp_path / "catalogue" / "m.json").read_text())
    assert stac_faults(raw) == []
    item = pystac.Item.from_dict(raw)
    assert item.properties["mlm:tasks"] == ["semantic-segmentation"]
    for asset in item.assets.values():
        assert (tmp_path / "catalogue" / asset.href).resolve().parent == model.resolve()
        assert (tmp_path / "catalogue" / asset.href).stat().st_size == asset.extra_fields["file:size"]


def test_a_folder_and_a_network(model: Path, tmp_path: Path) -> None:
    export(model, str(tmp_path / "shared"))
    assert load_model(tmp_path / "shared").legend.names == LEGEND.names
    pytest.importorskip("onnxruntime")
    assert "logits agree" in export(model, str(tmp_path / "m.onnx"))[0]


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("m.pt", {}, "is no form that a model is exported to"),
        ("m.onnx", {"to": "onxx"}, "onxx is no form"),
        ("m.onnx", {"to": "emd"}, r"does not end in \.emd"),
        ("m.json", {"private": True}, "--private has no effect with --to mlm"),
        ("m.json", {"size_px": 64}, "--size-px has no effect with --to mlm"),
        ("m-1.emd", {}, "no name of a Python class"),
        ("m.onnx", {"size_px": 0}, "windows of 0 px hold nothing"),
        ("shared", {"private": True}, "--private is for the hub"),
    ],
)
def test_refused_settings(model: Path, tmp_path: Path, out: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export(model, str(tmp_path / "new" / out), **options)
    assert not list(tmp_path.glob("new/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_dates": 2}, "several dates"), ({"indices": ("nir",)}, "takes indices"), ({"quantity": "power"}, "takes dB"),
        (None, "several sensors"),
    ],
)  # fmt: skip
def test_models_that_are_no_esri_model(tmp_path: Path, change: dict[str, object] | None, message: str) -> None:
    (entry,) = SPEC.sensors
    radar = SensorInput("sentinel1", ("vv", "vh"), (0.0, 0.0), (1.0, 1.0))
    sensors = (replace(entry, **change),) if change else (entry, radar)
    folder = write(tmp_path / "model", InputSpec(sensors, 10, 64), options={"widths": [8, 16]})
    with pytest.raises(ModelError, match=message):
        export(folder, str(tmp_path / "m.emd"))
    assert not list(tmp_path.glob("m.*"))


def test_nothing_is_overwritten(model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("mine")
    with pytest.raises(OutputError, match=r"m\.py exists already"):
        export(model, str(tmp_path / "m.emd"))
    with pytest.raises(OutputError, match="is an input"):
        export(model, str(model / "item.stac.json"), overwrite=True)


def test_by_the_command_line(covermap, model: Path, tmp_path: Path) -> None:
    code, out, _ = covermap("export", model, tmp_path / "m.json", "--to", "mlm")
    assert (code, "STAC" in out) == (0, True)
    code, _, err = covermap("export", model, tmp_path / "m.tflite")
    assert (code, "--to" in err) == (1, True)
