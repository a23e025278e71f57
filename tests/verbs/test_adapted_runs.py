"""Runs in which only a part of a published network trains: what stays, what is resumed, whose adapter it is."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file

from covermap.core.config_file import parse_config
from covermap.models import load_model
from covermap.nn.adapt import named_blocks
from covermap.nn.build import make_backbone
from covermap.verbs.export_onnx import export_onnx
from covermap.verbs.train import Loop, train

RESNET = {
    "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1], "layer_type": "basic", "embedding_size": 8,
}  # fmt: skip
LORA = {"method": "lora", "rank": 4, "dropout": 0.1}


@pytest.fixture
def galileo(shared, tmp_path, monkeypatch):
    """The folder of weights, with a copy of Galileo nano."""
    folder = tmp_path / "weights"
    shutil.copytree(shared / "weights/galileo_nano", folder / "galileo_nano")
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(folder))
    return folder / "galileo_nano/encoder.pt"


@pytest.fixture
def resnet(tmp_path):
    """A published ResNet in miniature whose norms have seen something."""
    import transformers

    torch.manual_seed(5)
    whole = transformers.ResNetForImageClassification(transformers.ResNetConfig(**RESNET))
    with torch.no_grad():
        for value in whole.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.05)
    whole.save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet/model.safetensors"


def config_of(tiny, tmp_path, name="run", **model):
    """Two epochs of a few steps with a linear decoder; Galileo nano unless said."""
    raw = json.loads(json.dumps(tiny)) | {"name": name, "baseline": False, "output": str(tmp_path / "runs")}
    raw["data"]["sensor"] = "sentinel2"
    raw["model"] = {"backbone": "galileo_nano", "decoder": "linear"} | model
    raw["train"] |= {"epochs": 2, "steps_per_epoch": 3, "size_px": 16, "lr": 0.02}
    raw["predict"] = {"size_px": 16}
    raw["split"]["val"] = 0  # the model of the last epoch is kept
    return raw


def trained(tiny, tmp_path, name="run", **model):
    return train(parse_config(config_of(tiny, tmp_path, name, **model)))


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.mark.parametrize("there", [True, False])
def test_a_resumed_run_of_low_rank_updates_equals_an_uninterrupted_one(galileo, tiny, tmp_path, monkeypatch, there):
    """Also where the published file is gone by then, or lies in the cache of the Hugging Face hub."""
    whole = trained(tiny, tmp_path, "whole", adapt=LORA)
    original = Loop._train_epoch

    def stop(self):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return original(self)

    config = parse_config(config_of(tiny, tmp_path, "parts", adapt=LORA))
    monkeypatch.setattr(Loop, "_train_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(Loop, "_train_epoch", original)
    if not there:
        galileo.unlink()
    parts = train(config, resume=True)
    assert without_time(parts.read_log()) == without_time(whole.read_log())
    for name in ("model.safetensors", "adapter.safetensors"):
        one, two = load_file(whole.path(f"model/{name}")), load_file(parts.path(f"model/{name}"))
        assert set(one) == set(two)
        assert all(np.array_equal(one[key], two[key]) for key in one)
    metas = [safe_open(run.path("model/adapter.safetensors"), "np").metadata() for run in (whole, parts)]
    assert metas[0] == metas[1]
    assert metas[0]["weights"].startswith("eab6acac")


def test_an_adapter_of_other_weights_is_refused_by_the_command_line(galileo, tiny, tmp_path, covermap):
    adapter = trained(tiny, tmp_path, "first", adapt=LORA).path("model/adapter.safetensors")
    raw = config_of(tiny, tmp_path, "second", adapt={**LORA, "adapter": str(adapter)})
    file = tmp_path / "second.yaml"
    file.write_text(yaml.safe_dump(raw))
    assert covermap("train", file, "--quiet")[0] == 0
    tensors = torch.load(galileo, map_location="cpu", weights_only=True)
    tensors["norm.bias"] += 0.1
    torch.save(tensors, galileo)
    code, _, told = covermap("train", file, "--overwrite")
    assert code == 1
    assert "was trained for weights eab6acac" in told
    assert "fix: use its own model" in told


@pytest.mark.slow
def test_a_run_of_low_rank_updates_becomes_an_onnx_file(galileo, tiny, tmp_path):
    pytest.importorskip("onnxruntime")
    run = trained(tiny, tmp_path, adapt=LORA)
    assert not any(".lora_" in name for name in load_model(run.path("model")).arrays())
    assert "logits agree" in export_onnx(run.path("model"), tmp_path / "model.onnx")[0]


@pytest.mark.parametrize("method", ["frozen", "partial"])
@pytest.mark.parametrize("backbone", ["galileo_nano", "resnet18"])
def test_what_does_not_train_is_the_published_file_bit_for_bit(request, tiny, tmp_path, backbone, method):
    """Tensors, and buffers of norms, after training with averaged weights."""
    if backbone == "resnet18":
        options = {"weights": str(request.getfixturevalue("resnet")), "backbone_options": {"sizes": {"config": RESNET}}}
    else:
        options = {"weights": str(request.getfixturevalue("galileo"))}
    raw = config_of(tiny, tmp_path, backbone=backbone, adapt=method, **options)
    raw["train"] |= {"ema": 0.9, "size_px": 32}
    run = train(parse_config(raw))
    model = load_model(run.path("model"))
    published = make_backbone(backbone, model.spec, options.get("backbone_options"), weights=options["weights"])
    blocks = named_blocks(published)
    moving = tuple(f"{name}." for name in blocks[-(len(blocks) // 2) :]) if method == "partial" else ()
    behind = ("encoder.trunk.norm.",) if method == "partial" else ()
    found, expected = model.arrays(), published.state_dict()
    moved = {name for name, x in expected.items() if not np.array_equal(found[f"backbone.{name}"], x.numpy())}
    assert not [name for name in moved if not name.startswith(moving + behind)]
    assert all(any(name.startswith(block) for name in moved) for block in moving)
    assert any("running_mean" in name for name in expected) == (backbone == "resnet18")
