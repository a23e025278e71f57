"""Attention recomputed from q and k: the fused kernel's own weights, summed by place, relative to uniform."""

import pytest
import torch

from covermap.core.errors import ConfigError
from covermap.core.types import InputSpec, SensorInput
from covermap.nn.attention import attention_maps, chosen, received
from covermap.nn.backbones.plain_vit import PlainViT
from covermap.nn.backbones.vit import Attention, BlockShape
from covermap.nn.build import make_backbone
from covermap.testing import random_batch

MINI = {"width": 64, "depth": 4, "heads": 4}


class ViTMini(PlainViT):
    """A plain ViT of four blocks."""

    width, depth, heads = 64, 4, 4


def spec(dates=1):
    parts = (("sentinel2", ("blue", "green", "red", "nir_narrow"), dates), ("sentinel1", ("vv", "vh"), dates))
    return InputSpec(
        tuple(SensorInput(n, b, (0.0,) * len(b), (1.0,) * len(b), num_dates=d, optional=True) for n, b, d in parts),
        10,
        32,
    )


FAMILIES = {
    "vit": (ViTMini, {"patch_px": 8, "class_token": True}),
    "prithvi": ("prithvi_eo_v2_tiny_tl", {"sizes": {**MINI, "patch_px": 8, "num_frames": 2}}),
    "terramind": ("terramind_v1_tiny", {"sizes": MINI}),
    "clay": ("clay_v1", {"sizes": MINI}),
    "galileo": ("galileo_nano", {"sizes": MINI, "patch_px": 8}),
    "sensor_vit": ("sensor_vit_nano", {"patch_px": 8, "own_blocks": 1, "class_token": True}),
}


def build(family, dates=1):
    torch.manual_seed(0)
    name, options = FAMILIES[family]
    return make_backbone(name, spec(dates), options).eval()


def test_shares_are_those_of_the_fused_kernel():
    torch.manual_seed(0)
    layer, x = Attention(BlockShape(32, 4, 64)), torch.randn(2, 9, 32)
    seen = torch.ones(2, 9, dtype=torch.bool)
    seen[0, 6:] = False
    with torch.no_grad():
        for i in (0, 5):
            query = torch.nn.functional.one_hot(torch.tensor([i, i]), 9).float()
            share = received(layer, x, query, seen, [0, 1, 2, 3])
            torch.testing.assert_close(share.sum(2), torch.ones(2, 4))
            assert float(share[0, :, 6:].abs().max()) == 0
            value = layer.qkv(x).view(2, 9, 3, 4, 8)[:, :, 2]
            mine = layer.proj(torch.einsum("bhn,bnhd->bhd", share, value).flatten(1))
            torch.testing.assert_close(mine, layer(x, seen[:, None, None])[:, i])
        every = received(layer, x, torch.full((2, 9), 1 / 9), seen, [2])
        each = [received(layer, x, torch.eye(9)[[i, i]], seen, [2]) for i in range(9)]
        torch.testing.assert_close(every, torch.stack(each).mean(0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("query", ["mean", "class"])
@pytest.mark.parametrize("dates", [1, 2])
def test_the_mean_of_a_window_is_one(family, query, dates):
    backbone = build(family, dates)
    if query == "class" and not backbone.has_class_token:
        with pytest.raises(ConfigError, match="no class token"):
            chosen(backbone, None, None, query)
        return
    layers, heads, _ = chosen(backbone, [1, -1], [0, 2], query)
    assert (layers, heads) == ((1, 3), (0, 2))
    batch = random_batch(spec(dates), 48, 32)
    px = backbone.multiple
    with torch.no_grad():
        maps = attention_maps(backbone, batch, layers, heads, query)
        assert maps.shape == (2, 4, 48 // px, 32 // px)
        assert float(maps.min()) >= 0
        torch.testing.assert_close(maps.mean((2, 3)), torch.ones(2, 4))
        batch.valid[0, :, :px, :px] = False
        holed = attention_maps(backbone, batch, layers, heads, query)
    assert holed[0, :, 0, 0].isnan().all()
    assert int(holed.isnan().sum()) == 4
    torch.testing.assert_close(holed.nanmean((2, 3)), torch.ones(2, 4))


def test_what_is_bright_is_looked_at():
    """With all weights but those of one head's q and k at hand, attention goes where q and k meet."""
    backbone = build("vit")
    width = 64
    with torch.no_grad():
        backbone.trunk.blocks[0].attn.qkv.weight[:width] = 0
        backbone.trunk.blocks[0].attn.qkv.bias[:width] = 0
        flat = attention_maps(backbone, random_batch(spec(), 32, 32), [0], [0, 1, 2, 3], "class")
    torch.testing.assert_close(flat, torch.ones_like(flat))  # no query asks for anything: uniform


def test_wrong_numbers_are_refused():
    backbone = build("vit")
    for layers, heads, query in (([4], None, None), ([0], [4], None), ([0], [0], "some")):
        with pytest.raises(ConfigError):
            chosen(backbone, layers, heads, query)
    assert chosen(backbone, None, None, None) == ((3,), (0, 1, 2, 3), "class")
    sensors = build("sensor_vit")
    with pytest.raises(ConfigError, match="own"):
        attention_maps(sensors, random_batch(spec(), 32, 32), [0], [0], "mean")
