"""Backbones side by side (C10), and the features of an earlier network beside one's own (E5)."""

import copy
from dataclasses import replace

import pytest
import torch

from covermap.core.errors import BandError, ConfigError
from covermap.core.train_config import AdaptConfig
from covermap.core.types import Features, InputSpec, SensorInput
from covermap.nn.adapt import adapt, lora_targets, parameter_groups
from covermap.nn.build import build_model
from covermap.nn.hybrid import AddMaps
from covermap.testing import random_batch

BANDS = ("blue", "green", "red", "nir")
SPEC = InputSpec((SensorInput("planetscope", BANDS, (0.1,) * 4, (0.2,) * 4),), 3, 64)
SMALL = {"unet": {"widths": [8, 16, 24]}, "segformer_b0": {}, "resnet18": {}}


def hybrid(name, **options):
    torch.manual_seed(0)
    return build_model(
        SPEC, 3, backbone=name, backbone_options={k: SMALL[k] for k in name.split("+") if SMALL[k]}, **options
    )


@pytest.mark.parametrize("name", ["segformer_b0+resnet18", "unet+segformer_b0", "unet+resnet18+segformer_b0"])
def test_all_of_them_learn(name):
    model = hybrid(name)
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=1e-2, weight_decay=0.0))
    before = copy.deepcopy(model.backbone.state_dict())
    batch = random_batch(SPEC, 70, 50)
    for _ in range(2):
        logits = model(batch)
        assert logits.shape == (2, 3, 70, 50)
        logits.square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    after = model.backbone.state_dict()
    still = [key for key, _ in model.backbone.named_parameters() if torch.equal(before[key], after[key])]
    assert not [key for key in still if "position" not in key], "every part of each of them learns"


def test_maps_of_the_nearest_stride_are_added_in_the_size_of_ours():
    add = AddMaps((4, 6), {0: 4, 1: 8}, (3, 5), {0: 8})  # the other's second map is read by nothing
    assert add.pairs == [(0, 0), (1, 0)]
    assert AddMaps((4, 6), {0: 4, 1: 8}, (3, 5), {0: 8, 1: 32}).pairs == [(0, 0), (1, 0), (1, 1)]
    assert AddMaps((4, 6, 9), {0: 4, 2: 16}, (3, 5), {1: 16}).pairs == [(0, 1), (2, 1)]
    own = Features((torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4)), (4, 8))
    other = Features((torch.randn(2, 3, 4, 4), torch.randn(2, 5, 1, 1)), (8, 32))
    found = add(own, other)
    x = other.maps[0].double()
    even = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    wanted = own.maps[1].double() + torch.einsum("oc,bchw->bohw", add.projections[1].weight[..., 0, 0].double(), even)
    assert torch.allclose(found.maps[1].double(), wanted, atol=1e-5)
    nothing = Features(tuple(torch.zeros_like(x) for x in other.maps), other.strides)
    assert all(torch.equal(a, b) for a, b in zip(add(own, nothing).maps, own.maps, strict=True))


def test_pairs_without_sense_are_refused_by_name():
    for name, said in {
        "unet+unet": "different backbones",
        "unet+": "different backbones",
        "segformer_b0+unet": "unet gives finer maps",
        "unet+segforme_b0": "no backbone called",
    }.items():
        with pytest.raises(ConfigError, match=said):
            build_model(SPEC, 3, backbone=name)
    with pytest.raises(ConfigError, match="'widths' belongs to none"):
        build_model(SPEC, 3, backbone="unet+resnet18", backbone_options={"widths": [8, 16]})
    with pytest.raises(ConfigError, match="one file for 2 backbones"):
        build_model(SPEC, 3, backbone="unet+resnet18", weights="x.pt")
    dates = replace(SPEC, sensors=(replace(SPEC.sensors[0], num_dates=2),))
    with pytest.raises(ConfigError, match="2 dates in different ways"):
        build_model(dates, 3, backbone="unet+resnet18")


def test_a_copy_can_be_made_for_validation():
    spec = InputSpec((SensorInput("landsat7", ("blue", "green", "red", "nir"), (0.1,) * 4, (0.2,) * 4),), 30, 64)
    model = build_model(spec, 3, backbone="presto+galileo_nano", decoder="linear")
    same = copy.deepcopy(model).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())


def test_two_dates_through_backbones_that_take_one():
    spec = replace(SPEC, sensors=(replace(SPEC.sensors[0], num_dates=2),))
    model = build_model(spec, 3, backbone="resnet18+segformer_b0").eval()
    batch = random_batch(spec, 64, 64)
    with torch.inference_mode():
        assert model(batch).shape == (2, 3, 64, 64)


def test_low_rank_updates_reach_all_of_them_and_layers_have_no_order():
    model = hybrid("unet+segformer_b0")
    assert all(name.startswith("others.0.") for name in lora_targets(model.backbone, "attention"))
    adapt(model, AdaptConfig(method="lora", rank=4))
    free = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in free} == {"others", "add"}, "what joins them has no published weights"
    with pytest.raises(ConfigError, match="no common order"):
        adapt(hybrid("unet+segformer_b0"), AdaptConfig(method="partial"))
    with pytest.raises(ConfigError, match="no common order"):
        parameter_groups(model, lr=1.0, weight_decay=0.0, layer_decay=0.9)


EARLIER = {"backbone": "unet", "backbone_options": {"widths": [8, 16]}}


def two_stages(spec=SPEC, earlier_spec=SPEC, **build):
    torch.manual_seed(0)
    description = {"input": earlier_spec.to_dict(), "num_classes": 2, "build": EARLIER}
    return build_model(spec, 3, backbone="unet", backbone_options={"widths": [8, 16, 24]}, extra=description, **build)


def test_with_features_at_zero_it_is_the_plain_model():
    model = two_stages().eval()
    plain = build_model(SPEC, 3, backbone="unet", backbone_options={"widths": [8, 16, 24]}).eval()
    own = {key: value for key, value in model.state_dict().items() if not key.startswith("extra.")}
    plain.load_state_dict(own)
    batch = random_batch(SPEC, 48, 32)
    with torch.inference_mode():
        assert not torch.allclose(model(batch), plain(batch), atol=1e-3)
        model.extra.network.features = lambda batch: zeros(EARLIER, batch)
        assert torch.equal(model(batch), plain(batch))


def zeros(build, batch):
    height, width = batch.valid.shape[-2:]
    sizes = [(c, height // 2**i, width // 2**i) for i, c in enumerate(build["backbone_options"]["widths"])]
    return Features(tuple(torch.zeros(len(batch), *size) for size in sizes), (1, 2))


def test_the_earlier_network_stays_bit_for_bit_and_sees_its_own_normalisation():
    earlier = replace(SPEC, sensors=(replace(SPEC.sensors[0], bands=("nir", "red"), mean=(0.4, 0.3), std=(0.5, 0.1)),))
    model = two_stages(earlier_spec=earlier)
    before = copy.deepcopy(model.extra.network.state_dict())
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=1e-2, weight_decay=0.1))
    batch = random_batch(SPEC, 32, 32)
    for _ in range(2):
        model.train()
        model(batch).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert all(torch.equal(before[key], value) for key, value in model.extra.network.state_dict().items())
    seen = model.extra._as_trained(batch).image["planetscope"]
    raw = batch.image["planetscope"].double() * 0.2 + 0.1
    for position, (band, mean, std) in enumerate(((3, 0.4, 0.5), (2, 0.3, 0.1))):
        wanted = ((raw[:, :, band] - mean) / std).clamp(-10, 10) * batch.valid
        assert torch.allclose(seen[:, :, position].double(), wanted, atol=1e-5)


def test_own_numbers_of_scenes_are_the_same_to_both():
    own = replace(SPEC, sensors=(replace(SPEC.sensors[0], per_scene=True),))
    other = replace(own, sensors=(replace(own.sensors[0], mean=(7.0,) * 4, std=(3.0,) * 4),))
    batch = random_batch(own, 32, 32)
    seen = two_stages(spec=own, earlier_spec=other).extra._as_trained(batch)
    assert torch.equal(seen.image["planetscope"], batch.image["planetscope"])


@pytest.mark.parametrize(("decoder", "earlier"), [("deeplabv3plus", "vit_tiny"), ("unet", "unet"), ("fcn", "vit_tiny")])
def test_only_maps_that_are_read_are_added(decoder, earlier):
    build = {"backbone": earlier, "decoder": "deeplabv3plus" if earlier == "vit_tiny" else "unet"}
    described = {"input": SPEC.to_dict(), "num_classes": 2, "build": build}
    model = build_model(SPEC, 3, backbone="vit_tiny", decoder=decoder, extra=described)
    model(random_batch(SPEC, 64, 64)).square().mean().backward()
    assert all(p.grad is not None for p in model.extra.add.parameters())
    assert not [
        name for name in model.state_dict() if name.startswith(("extra.network.decoder", "extra.network.pixel"))
    ]


def test_without_its_sensor_the_earlier_network_adds_nothing():
    sensors = [replace(SPEC.sensors[0], sensor=name, optional=True) for name in ("planetscope", "other")]
    spec = replace(SPEC, sensors=tuple(sensors))
    model = two_stages(spec=spec, earlier_spec=replace(SPEC, sensors=(sensors[1],)))
    batch = random_batch(spec, 32, 32)
    features = model.encode(batch)
    del batch.image["other"]
    assert model.extra(features, batch) is features


def test_an_earlier_network_of_other_inputs_is_refused():
    entry = SPEC.sensors[0]
    others = {
        "lacks swir1": replace(entry, bands=("nir", "red", "swir1", "blue")),
        "lacks blue, green, red, nir": replace(entry, sensor="sentinel2"),
        "scale 0.5": replace(entry, scale=0.5),
    }
    for said, changed in others.items():
        with pytest.raises((BandError, ConfigError), match=said):
            two_stages(earlier_spec=replace(SPEC, sensors=(changed,)))
