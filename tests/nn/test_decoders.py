"""Decoders: what all of them keep, and those whose arithmetic was rearranged against the plain form."""

import pytest
import torch
from torch.nn import functional

from covermap.core.registry import names
from covermap.core.types import InputSpec, SensorInput
from covermap.nn.build import build_model, make_part
from covermap.nn.layers import LenientNorm, enlarge
from covermap.testing import check_decoder, random_batch, require_conforming
from covermap.testing.decoder import PYRAMIDS, random_features

BANDS = ("blue", "green", "red", "nir")
SPEC = InputSpec((SensorInput("planetscope", BANDS, (0.0,) * 4, (1.0,) * 4),), 3, 64)


@pytest.mark.parametrize("decoder", names("decoder"))
def test_decoder_conforms(decoder):
    require_conforming(check_decoder(decoder), decoder)


@pytest.mark.parametrize("decoder", names("decoder"))
@pytest.mark.parametrize(
    ("backbone", "options"),
    [("unet", {"widths": [8, 16, 24]}), ("vit_tiny", {"patch_px": 8}), ("resnet18", {})],
)
def test_every_pair_gives_logits_of_the_input_size(decoder, backbone, options):
    model = build_model(SPEC, 3, backbone=backbone, backbone_options=options, decoder=decoder).eval()
    with torch.inference_mode():
        logits = model(random_batch(SPEC, 72, 56))
    assert logits.shape == (2, 3, 72, 56)


def test_segformer_equals_the_published_order_of_steps():
    channels, strides = PYRAMIDS[0]
    decoder = make_part("decoder", "segformer", {"width": 32}, channels, strides, 4).eval()
    features = random_features(channels, strides, 128)
    grown = [enlarge(level(x), (32, 32)) for level, x in zip(decoder.levels, features.maps, strict=True)]
    fused = decoder.norm(decoder.fuse(torch.cat(grown[::-1], 1)))
    with torch.inference_mode():
        plain = enlarge(decoder.classify(fused), (128, 128))
        assert torch.allclose(decoder(features, (128, 128)), plain, atol=1e-5)


def test_mlp_equals_one_layer_on_joined_maps():
    channels, strides = PYRAMIDS[0]
    decoder = make_part("decoder", "mlp", {"width": 32}, channels, strides, 4).eval()
    features = random_features(channels, strides, 128)
    joined = torch.cat([enlarge(x, (32, 32)) for x in features.maps], 1)
    kernel = torch.cat([level.weight for level in decoder.levels], 1)
    with torch.inference_mode():
        plain = enlarge(decoder.layers(functional.conv2d(joined, kernel)), (128, 128))
        assert torch.allclose(decoder(features, (128, 128)), plain, atol=1e-5)


def test_deeplab_looks_as_far_on_other_strides():
    """Rates of 6, 12, 18 at 16 px reach 96, 192, 288 px, whatever the stride of the deep map."""
    fine = make_part("decoder", "deeplabv3plus", None, (8, 8), (2, 8), 3)
    assert [layer[0].dilation[0] for layer in fine.atrous[1:]] == [12, 24, 36]


def test_a_lone_value_takes_the_running_numbers():
    norm = LenientNorm(3).train()
    with torch.no_grad():
        norm.running_mean.fill_(2.0)
        norm.running_var.fill_(4.0)
    before = norm.running_mean.clone()
    assert torch.allclose(norm(torch.full((1, 3, 1, 1), 4.0)), torch.ones(1, 3, 1, 1), atol=1e-5)
    assert torch.equal(norm.running_mean, before)
