"""Every family with every decoder, as a miniature: four generated tiles are learnt by heart.

A pair that cannot do that has a broken path between image and logits: a map at the wrong place, features that no gradient
reaches, a norm that differs between training and use. Weights are random, so nothing but training can give the answer.
"""

import math

import pytest
import torch
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.registry import find, names
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.nn.adapt import parameter_groups
from covermap.nn.backbones.plain_vit import PlainViT
from covermap.nn.build import build_model, make_part
from covermap.nn.layers import channels_last, fold_norms

CLASSES, TILES, MAX_PARAMETERS = 4, 4, 2_000_000


class ViTMini(PlainViT):
    """A plain ViT of four blocks."""

    width, depth, heads = 64, 4, 4


def spec(sensor, *bands):
    return InputSpec((SensorInput(sensor, bands, (0.0,) * len(bands), (1.0,) * len(bands)),), 10, 64)


OPTICAL = spec("sentinel2", "blue", "green", "red", "nir_narrow")
RADAR = spec("sentinel1", "vv", "vh")
BLOCKS = {"width": 64, "depth": 4, "heads": 4}
STAGES = {"hidden_sizes": (16, 32, 48, 64), "depths": (1, 1, 1, 1)}
TOKENS = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def library(**config):
    return {"sizes": {"config": config}}


FAMILIES = {
    "unet": ("unet", {"widths": [16, 32, 48, 64]}),
    "vit": (ViTMini, {}),
    "resnet": ("resnet18", library(**STAGES, layer_type="basic", embedding_size=16)),
    "segformer": ("segformer_b0", library(**STAGES, num_attention_heads=(1, 2, 3, 4), drop_path_rate=0.0)),
    "swin": (
        "swin_tiny",
        library(embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=7, drop_path_rate=0.0),
    ),
    "convnext": ("convnext_tiny", library(**STAGES)),
    "dinov2": ("dinov2_small", library(**TOKENS, patch_size=14, image_size=70, use_mask_token=False)),
    "hf_vit": ("vit_base_in21k", library(**TOKENS, intermediate_size=256, patch_size=16, image_size=64)),
    "dinov3": (
        "dinov3_sat_vitl16",
        library(**TOKENS, intermediate_size=256, patch_size=16, num_register_tokens=4, pos_embed_rescale=None),
    ),
    "prithvi": ("prithvi_eo_v2_tiny", {"sizes": BLOCKS}),
    "terramind": ("terramind_v1_base", {"sizes": BLOCKS}),
    "clay": ("clay_v1", {"sizes": BLOCKS}),
    "galileo": ("galileo_nano", {"sizes": BLOCKS, "patch_px": 8}),
    "presto": ("presto", {}),
}
DECODERS = {name: find("decoder", name).miniature for name in names("decoder")}
SIDES = {"presto": 16}
"""Pixels of a tile, where it is not 64: each pixel is a series of its own to Presto, and costs as much as a patch."""


def tiles(inputs, *, side):
    """Four windows of four classes and the smooth fields (B, K, H, W) whose highest is the class.

    The fields go from corner to corner, so one value for each patch of 16 of 64 px still draws their borders (tested
    below): a decoder that only enlarges can be right. What is at a place differs from tile to tile, so that the place alone
    does not tell. Each class has its own mean in each band, with noise of a seventh of their distance.
    """
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randn(TILES, CLASSES, 2, 2, generator=generator)
    fields = functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)
    label = fields.argmax(1)
    image = {}
    for entry in inputs.sensors:
        corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
        means = torch.cat([corners] * (len(entry.bands) // 2), 1)
        clean = means[label].permute(0, 3, 1, 2)
        image[entry.sensor] = (clean + 0.3 * torch.randn(clean.shape, generator=generator))[:, None]
    valid = torch.ones(TILES, 1, side, side, dtype=torch.bool)
    return Batch(image, valid, label, keys=tuple("abcd")), fields


def make(family, decoder, **settings):
    backbone, options = FAMILIES[family]
    torch.manual_seed(0)
    return build_model(
        RADAR if family == "presto" else OPTICAL, CLASSES, backbone=backbone, backbone_options=options,
        decoder=decoder, decoder_options=DECODERS[decoder], **settings,
    )  # fmt: skip


def accuracy(model, batch):
    """As it is used: evaluation mode, norms folded."""
    with torch.inference_mode():
        found = fold_norms(model)(batch).argmax(1)
    return float((found == batch.label).float().mean())


def require_gradients(model):
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"no gradient reaches {len(idle)} tensors: {idle[:4]}"


def overfit(model, batch, *, steps=160, lr=3e-3):
    """Accuracy after as many steps as it takes to come over 96 %, with the pieces of the training loop."""
    loss = make_part("loss", "cross_entropy", {}, torch.ones(CLASSES))
    channels_last(model)
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=lr, weight_decay=0.01))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 8) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    score = 0.0
    for step in range(1, steps + 1):
        model.train()
        if model.decoder.has_own_loss:
            total, mass = model(batch, own_loss=True)
        else:
            total, mass = loss(model(batch), batch.label), loss.mass(batch.label)
        (total / mass).backward()
        if step == 1:
            require_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if step % 10 == 0:
            score = accuracy(model.eval(), batch)
            if score > 0.96:
                break
    return score


def reaches(family, decoder):
    model = make(family, decoder)
    count = sum(p.numel() for p in model.parameters())
    assert count <= MAX_PARAMETERS, f"{count:,} parameters"
    return overfit(model, tiles(model.spec, side=SIDES.get(family, 64))[0])


@pytest.mark.parametrize(
    ("family", "decoder"),
    [
        ("unet", "unet"), ("vit", "linear"), ("resnet", "mask2former"), ("segformer", "segformer"), ("swin", "fpn"),
        ("convnext", "upernet"), ("dinov2", "deeplabv3plus"), ("hf_vit", "fcn"), ("dinov3", "mlp"),
        ("prithvi", "segformer"), ("terramind", "upernet"), ("clay", "fpn"), ("galileo", "fcn"), ("presto", "mlp"),
    ],
)  # fmt: skip
def test_each_family_and_each_decoder_learns_four_tiles_by_heart(family, decoder):
    assert reaches(family, decoder) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_pair_learns_four_tiles_by_heart(family, decoder):
    assert reaches(family, decoder) > 0.95


def test_the_tiles_need_the_image_and_one_value_for_a_patch_is_enough():
    batch, fields = tiles(OPTICAL, side=64)
    shares = torch.bincount(batch.label.flatten(), minlength=CLASSES) / batch.label.numel()
    assert 0.15 < shares.min() < shares.max() < 0.4
    by_place = functional.one_hot(batch.label, CLASSES).sum(0).amax(-1).float().mean() / TILES
    assert by_place < 0.5
    enlarged = functional.interpolate(functional.avg_pool2d(fields, 16), size=(64, 64), mode="bilinear")
    assert (enlarged.argmax(1) == batch.label).float().mean() > 0.97


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("family", ["unet", "vit", "presto"])
def test_every_neck_learns_or_is_refused_with_the_pair_and_the_way_out(family, decoder):
    """A backbone of several strides, one of a patch, one of a pixel."""
    pyramid = find("decoder", decoder).pyramid
    for neck in ("auto", "none", "pyramid", "interpolate"):
        wrong = (
            neck in ("pyramid", "interpolate") if family == "unet"
            else (neck == "none" and pyramid) or (neck == "interpolate" and family == "presto")
        )  # fmt: skip
        if wrong:
            name = "ViTMini" if family == "vit" else family
            with pytest.raises(ConfigError, match=rf"{name} with {decoder}: .*\n  fix: .*(use|neck)"):
                make(family, decoder, neck=neck)
            continue
        model = make(family, decoder, neck=neck)
        batch, _ = tiles(model.spec, side=SIDES.get(family, 32))
        own = model.decoder.has_own_loss
        (model(batch, own_loss=True)[0] if own else model(batch).square().sum()).backward()
        require_gradients(model)


def test_too_few_maps_are_refused_with_the_pair_and_the_way_out():
    with pytest.raises(
        ConfigError, match=r"unet with mask2former: .*3 maps or more, .* gives 2\n  fix: use the decoder"
    ):
        build_model(OPTICAL, CLASSES, backbone_options={"widths": [8, 16]}, decoder="mask2former")
