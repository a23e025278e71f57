"""What trains, at what rate; low-rank updates (E1 to E3, and the peer's defects 11 to 14 of checkpoints.md)."""

import copy

import pytest
import torch
from torch import nn

from covermap.core.errors import ConfigError, ModelError
from covermap.core.train_config import AdaptConfig
from covermap.core.types import InputSpec, SensorInput
from covermap.nn.adapt import (
    adapt,
    depths,
    load_adapter,
    merge_lora,
    named_blocks,
    parameter_groups,
    save_adapter,
)
from covermap.nn.build import build_model
from covermap.testing import random_batch

BANDS = ("blue", "green", "red", "nir")
SPEC = InputSpec((SensorInput("planetscope", BANDS, (0.0,) * 4, (1.0,) * 4),), 3, 64)
BASE = {"backbone": "vit_tiny", "weights": "abc"}


def make(backbone="vit_tiny", **settings):
    torch.manual_seed(0)
    options = {"vit_tiny": {"patch_px": 16}, "unet": {"widths": [8, 16]}}.get(backbone)
    model = build_model(SPEC, 3, backbone=backbone, backbone_options=options)
    if settings:
        adapt(model, AdaptConfig(**settings))
    return model


def train_a_little(model, steps=3, **groups):
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=0.01, weight_decay=0.1, **groups))
    model.train()
    for step in range(steps):
        batch = random_batch(SPEC, 64, 64, seed=step)
        model(batch).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return model


@pytest.mark.parametrize("backbone", ["vit_tiny", "resnet18", "segformer_b0", "unet"])
@pytest.mark.parametrize("method", ["frozen", "head"])
def test_what_does_not_train_stays_bit_for_bit(backbone, method):
    model = make(backbone, method=method)
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith("decoder.classify" if method == "head" else ("decoder", "neck")) for name in free)
    before = copy.deepcopy(model.state_dict())
    after = train_a_little(model).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert free <= moved
    held = "backbone." if method == "frozen" else ("backbone.", "neck.", "decoder.joins")
    assert not [name for name in moved if name.startswith(held)]


@pytest.mark.parametrize(("backbone", "blocks"), [("vit_tiny", 12), ("resnet18", 8), ("segformer_b0", 8), ("unet", 1)])
def test_blocks_are_found_from_input_to_output(backbone, blocks):
    model = make(backbone)
    assert len(named_blocks(model.backbone)) == blocks
    found, total = depths(model.backbone)
    assert set(found) == {name for name, _ in model.backbone.named_parameters()}
    assert total == blocks
    numbers = list(found.values())
    assert sorted(set(numbers)) == sorted({0, *range(1, blocks + 1), *([blocks + 1] if max(numbers) > blocks else [])})


@pytest.mark.parametrize("backbone", ["vit_tiny", "resnet18"])
def test_partial_trains_the_last_blocks_and_holds_the_norms_of_the_others(backbone):
    model = make(backbone, method="partial", blocks=3)
    names = named_blocks(model.backbone)
    before = copy.deepcopy(model.backbone.state_dict())
    after = train_a_little(model).backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    first, last = tuple(f"{n}." for n in names[:-3]), tuple(f"{n}." for n in names[-3:])
    assert not [name for name in moved if name.startswith(first)]
    assert all(any(name.startswith(block) for name in moved) for block in last)
    half = make(backbone, method="partial")
    free = {name.rpartition(".")[0] for name, p in half.backbone.named_parameters() if p.requires_grad}
    assert sum(any(n.startswith(f"{block}.") for n in free) for block in names) == len(names) // 2
    with pytest.raises(ConfigError, match="were asked for"):
        make(backbone, method="partial", blocks=40)


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
@pytest.mark.parametrize("settings", [{}, {"method": "frozen"}, {"method": "lora", "rank": 4}])
def test_groups_hold_every_trainable_tensor_once(settings, layer_decay):
    model = make(**settings)
    decay = layer_decay if settings.get("method") != "frozen" else 1.0
    groups = parameter_groups(model, lr=1e-3, weight_decay=0.1, rates={"decoder": 2.0}, layer_decay=decay)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters() if p.requires_grad}
    torch.optim.AdamW(groups)


def test_rates_and_layer_decay_are_those_of_the_papers():
    model = make()
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, rates={"decoder": 10.0}, layer_decay=0.5)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    found, total = depths(model.backbone)
    assert total == 12
    for name, parameter in named.items():
        inner = name.removeprefix("backbone.")
        expected = 0.5 ** (13 - found[inner]) if inner != name else 10.0 if name.startswith("decoder") else 1.0
        assert rate[id(parameter)] == pytest.approx(expected), name
        assert decay[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0)
    blocks = named_blocks(model.backbone)
    assert found[f"{blocks[0]}.attn.qkv.weight"] == 1
    assert found[f"{blocks[11]}.mlp.fc1.weight"] == 12


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"encoder": 0.1}, "is no part of the model"),
        ({"backbone": 0.1, "backbone.trunk": 0.2}, "both mean"),
        ({"decode": 0.1}, "is no part of the model"),
    ],
)
def test_rates_that_match_nothing_or_twice_are_refused(rates, message):
    with pytest.raises(ConfigError, match=message):
        parameter_groups(make(), lr=1e-3, weight_decay=0, rates=rates)


def test_a_rate_for_what_does_not_train_is_refused():
    with pytest.raises(ConfigError, match="does not train"):
        parameter_groups(make(method="frozen"), lr=1e-3, weight_decay=0, rates={"backbone": 0.1})


@pytest.mark.parametrize(("targets", "linears"), [("all", 48), ("attention", 24), ("mlp", 24), (["qkv$"], 12)])
def test_low_rank_updates_have_their_size_and_all_train(targets, linears):
    plain = make()
    model = make(method="lora", rank=4, targets=targets)
    added = {name: p for name, p in model.named_parameters() if ".lora_" in name}
    assert len(added) == 2 * linears
    sizes = sum(4 * (layer.in_features + layer.out_features) for layer in _chosen(plain.backbone, targets))
    assert sum(p.numel() for p in added.values()) == sizes
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_a_little(model)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert set(added) <= moved
    assert not [name for name in moved if name.startswith("backbone.") and ".lora_" not in name]


def _chosen(backbone, targets):
    import re

    words = {"all": "", "attention": "attn", "mlp": "mlp"}
    pattern = words[targets] if isinstance(targets, str) else targets[0]
    blocks = tuple(named_blocks(backbone))
    return [
        m
        for n, m in backbone.named_modules()
        if isinstance(m, nn.Linear) and n.startswith(blocks) and re.search(pattern, n)
    ]


@pytest.mark.parametrize("backbone", ["vit_tiny", "segformer_b0"])
def test_merged_equals_unmerged(backbone):
    model = train_a_little(make(backbone, method="lora", rank=8, alpha=16), steps=5).eval()
    keys = set(make(backbone).state_dict())
    batch = random_batch(SPEC, 64, 64)
    with torch.inference_mode():
        apart = model(batch)
        merged = merge_lora(copy.deepcopy(model)).eval()
        assert (apart - merged(batch)).abs().max() < 1e-5 * apart.abs().max()
        assert not torch.allclose(apart, make(backbone).eval()(batch), atol=1e-3)
    assert set(merged.state_dict()) == keys


def test_an_adapter_file_is_small_and_fits_only_its_model(tmp_path):
    model = train_a_little(make(method="lora", rank=4)).eval()
    path = tmp_path / "adapter.safetensors"
    save_adapter(model, path, base=BASE)
    assert path.stat().st_size < 0.1 * sum(4 * p.numel() for p in model.parameters())
    other = make(method="lora", rank=4).eval()
    other.decoder.load_state_dict(model.decoder.state_dict())
    other.neck.load_state_dict(model.neck.state_dict())
    load_adapter(other, path, base=BASE)
    batch = random_batch(SPEC, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(batch), other(batch))
    with pytest.raises(ModelError, match="was trained for weights abc"):
        load_adapter(other, path, base={**BASE, "weights": "def"})
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(make(method="lora", rank=8), path, base=BASE)
    (tmp_path / "not.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="no adapter file"):
        load_adapter(other, tmp_path / "not.safetensors", base=BASE)


def test_targets_that_match_nothing_are_refused():
    with pytest.raises(ConfigError, match="matches no linear layer"):
        make(method="lora", targets=["query"])
    with pytest.raises(ConfigError, match="matches no linear layer"):
        make("resnet18", method="lora")


def test_settings_of_another_method_are_refused():
    whole = AdaptConfig(method="lora", rank=4)
    assert AdaptConfig(**whole.model_dump()) == whole
    with pytest.raises(ValueError, match="goes with method lora"):
        AdaptConfig(method="frozen", rank=4)
