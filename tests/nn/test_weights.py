"""Files of weights: every form that is published, and every way to be damaged."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from covermap.core.errors import ModelError
from covermap.nn.weights import Layout, fill, load, read_tensors

STATE = {"net.weight": torch.arange(6.0).view(2, 3), "net.bias": torch.zeros(2)}


class Small(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        self.net = nn.Linear(3, outputs)


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "teacher"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
def test_tensors_are_found_wherever_they_lie(tmp_path, nest, suffix):
    path = tmp_path / f"weights{suffix}"
    torch.save({nest: STATE, "epoch": 3} if nest else STATE, path)
    assert torch.equal(read_tensors(path)["net.weight"], STATE["net.weight"])


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "weights.safetensors")
    assert torch.equal(read_tensors(tmp_path / "weights.safetensors")["net.weight"], STATE["net.weight"])


def test_a_file_written_before_memory_maps_is_read_too(tmp_path):
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert set(read_tensors(tmp_path / "old.pt")) == set(STATE)


class Payload:
    def __reduce__(self):
        return (print, ("this would have run",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pt", None, "there is no checkpoint"),
        ("weights.h5", b"x", "does not end like a checkpoint"),
        ("text.pt", b"not a checkpoint", "no checkpoint or damaged|holds Python objects"),
        ("text.safetensors", b"not a checkpoint", "is damaged"),
        ("empty.pt", b"", "no checkpoint or damaged"),
        ("pickled.pt", pickle.dumps(Payload()), "holds Python objects|no checkpoint or damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, name, content, message, capsys):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_tensors(tmp_path / name)
    assert "this would have run" not in capsys.readouterr().out


def test_an_object_among_the_tensors_is_never_run(tmp_path, capsys):
    torch.save({"state_dict": STATE, "hook": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(ModelError, match=r"\(\S*print\), which could run code when read"):
        read_tensors(tmp_path / "evil.ckpt")
    assert "this would have run" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_refused(tmp_path, suffix, keep):
    path = tmp_path / f"whole{suffix}"
    state = {"a": torch.randn(300, 300)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ModelError, match="damaged"):
        read_tensors(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "settings.pt")
    with pytest.raises(ModelError, match="holds no state dict"):
        read_tensors(tmp_path / "settings.pt")


def test_a_prefix_is_taken_off_the_front_only():
    """The peer replaces `encoder.` anywhere in a key (checkpoints.md, section 1)."""
    module = nn.Module()
    module.encoder = nn.Linear(1, 1)
    state = {"model.encoder.encoder.weight": torch.ones(1, 1), "model.encoder.encoder.bias": torch.ones(1)}
    report = fill(module, state, Layout(prefixes=("model.encoder.",)), path="p")
    assert [row.name for row in report.rows] == ["encoder.weight", "encoder.bias"]


def test_nothing_is_filled_by_chance(tmp_path):
    """The peer starts from random numbers where a shape differs, with a warning (checkpoints.md, 2.2)."""
    torch.save(STATE, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"2 of another shape: net\.weight \(2, 3\) instead of \(5, 3\)"):
        load(Small(5), tmp_path / "w.pt", Layout())
    torch.save({**STATE, "more": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"1 left over: more \(1,\)"):
        load(Small(), tmp_path / "w.pt", Layout())
    torch.save({"net.weight": STATE["net.weight"]}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"1 missing: net\.bias \(2,\)"):
        load(Small(), tmp_path / "w.pt", Layout())


def test_half_precision_becomes_the_models_own(tmp_path):
    torch.save({name: tensor.bfloat16() for name, tensor in STATE.items()}, tmp_path / "w.pt")
    module = Small()
    load(module, tmp_path / "w.pt", Layout())
    assert module.net.weight.dtype == torch.float32
    assert torch.equal(module.net.weight, STATE["net.weight"])


def test_a_checkpoint_in_parts(tmp_path):
    save_file({"net.weight": STATE["net.weight"]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"net.bias": STATE["net.bias"]}, tmp_path / "model-00002-of-00002.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {
        "net.weight": "model-00001-of-00002.safetensors", "net.bias": "model-00002-of-00002.safetensors",
    }}))  # fmt: skip
    assert set(read_tensors(index)) == set(STATE)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there is no checkpoint .*model-00002"):
        read_tensors(index)
    index.write_text("{}")
    with pytest.raises(ModelError, match="no index of a checkpoint"):
        read_tensors(index)
