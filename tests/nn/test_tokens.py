"""Backbones made of tokens: what a token stands for, any part of them through the blocks, and the backbones for any sensors."""

from dataclasses import replace

import pytest
import torch

from covermap.core.errors import ConfigError
from covermap.core.types import InputSpec, SensorInput
from covermap.nn.backbones.plain_vit import PlainViT
from covermap.nn.backbones.vit import require_tokens
from covermap.nn.build import make_backbone
from covermap.nn.dates import fold_dates
from covermap.nn.tokens import STATIC
from covermap.testing import random_batch

S2 = ("blue", "green", "red", "rededge1", "nir", "nir_narrow", "swir1", "swir2")


class ViTMini(PlainViT):
    """A plain ViT of four blocks."""

    width, depth, heads = 64, 4, 4


def entry(sensor, bands, dates=1):
    return SensorInput(sensor, bands, (0.0,) * len(bands), (1.0,) * len(bands), num_dates=dates, optional=True)


def spec(dates=1):
    return InputSpec(
        (entry("sentinel2", S2, dates), entry("sentinel1", ("vv", "vh"), dates), entry("dem", ("elevation",))), 10, 32
    )


MINI = {"width": 64, "depth": 4, "heads": 4}
FAMILIES = {
    "vit": (ViTMini, {"patch_px": 8, "class_token": True}),
    "prithvi": ("prithvi_eo_v2_tiny_tl", {"sizes": {**MINI, "patch_px": 8, "num_frames": 2}, "extra_bands": "drop"}),
    "terramind": ("terramind_v1_tiny", {"sizes": MINI, "extra_bands": "drop"}),
    "galileo": ("galileo_nano", {"sizes": MINI}),
    "clay": ("clay_v1", {"sizes": MINI}),
    "sensor_vit": ("sensor_vit_nano", {"patch_px": 8}),
    "own_blocks": ("sensor_vit_nano", {"patch_px": 8, "own_blocks": 2, "class_token": True}),
    "towers": ("sensor_vit_nano", {"patch_px": 8, "own_blocks": 4}),
}


def build(family, dates=2):
    """The backbone and a batch as it takes them."""
    name, options = FAMILIES[family]
    torch.manual_seed(0)
    whole = spec(dates)
    if family == "clay":  # elevation has no wavelength
        whole = replace(whole, sensors=whole.sensors[:2])
    backbone = make_backbone(name, whole, options).eval()
    batch = random_batch(whole, 32, 48)
    return backbone, fold_dates(batch) if backbone.dates == "one" else batch


def maps_of(backbone, tokens, outputs, batch):
    """(B, T, D, h, w) as the mean over groups of what comes back for each date."""
    out = outputs[-1][:, tokens.extra.shape[1] :]
    size, (rows, cols) = len(out), tokens.grid
    dates = 1 if backbone.dates == "one" else batch.valid.shape[1]
    total, count = torch.zeros(size, dates, rows * cols, out.shape[2]), 0
    for group in tokens.group[0].unique():
        mine = tokens.group[0] == group
        if int(tokens.date[0, mine].min()) == STATIC and type(backbone).__name__ == "GalileoBackbone":
            continue  # elevation is no part of its maps
        total, count = total + out[:, mine].view(size, -1, rows * cols, out.shape[2]), count + 1
    return (total / count).transpose(2, 3).reshape(size, dates, -1, rows, cols)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_tokens_give_what_forward_gives(family):
    backbone, batch = build(family)
    with torch.inference_mode():
        tokens = backbone.tokenise(batch)
        outputs = backbone.contextualise(tokens, backbone.layers)
        maps = backbone(batch).maps[-1]
    assert tokens.there.all()
    assert tokens.x.shape[2] == backbone.token_width
    found = maps_of(backbone, tokens, outputs, batch)
    torch.testing.assert_close(found.view_as(maps), maps, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_shows_the_place_that_it_says(family):
    """A patch that changes moves the tokens of its own row, column, date and sensor, and no other."""
    backbone, batch = build(family)
    px = backbone.multiple
    changed = replace(batch, image={name: x.clone() for name, x in batch.image.items()})
    date = batch.image["sentinel2"].shape[1] - 1
    changed.image["sentinel2"][:, date, :, px : 2 * px, 2 * px : 3 * px] += 1
    with torch.inference_mode():
        before, after = backbone.tokenise(batch), backbone.tokenise(changed)
    moved = ((after.x - before.x).abs().amax(2) > 1e-6).all(0)
    of_sensor = torch.tensor(
        [any("sentinel2" in backbone.token_groups[g].sensors for g in [i]) for i in before.group[0]]
    )
    place = (before.row[0] == 1) & (before.col[0] == 2)
    dates = (before.date[0] == date) | (before.date[0] == STATIC)
    assert torch.equal(moved, place & dates & of_sensor)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_part_of_the_tokens_padded_is_the_part_alone(family):
    backbone, batch = build(family)
    with torch.inference_mode():
        tokens = backbone.tokenise(batch)
        chosen = torch.rand(tokens.there.shape, generator=torch.Generator().manual_seed(0)) < 0.4
        chosen[0, 5:] = False
        chosen[0, :5] = True  # windows with few are padded
        part, at = tokens.take(chosen)
        out = backbone.contextualise(part, backbone.layers)[-1]
        for i in range(len(chosen)):
            alone = replace(
                tokens, **{key: getattr(tokens, key)[i : i + 1, chosen[i]] for key in ("x", "there", "group", "date", "row", "col")},
                extra=tokens.extra[i : i + 1], extra_there=tokens.extra_there[i : i + 1],
            )  # fmt: skip
            want = backbone.contextualise(alone, backbone.layers)[-1][0]
            torch.testing.assert_close(out[i, : len(want)], want, atol=1e-5, rtol=1e-4)
    assert torch.equal(part.x[0, :5], tokens.x[0, :5])
    assert int(at.max()) < tokens.x.shape[1]


@pytest.mark.parametrize("family", ["terramind", "galileo", "sensor_vit", "own_blocks", "towers"])
@pytest.mark.parametrize("lost", ["sentinel1", "dem", "sentinel2"])
def test_what_is_absent_or_zero_is_missing(family, lost):
    backbone, batch = build(family)
    part = replace(batch, image={name: x for name, x in batch.image.items() if name != lost})
    zero = replace(batch, image={n: torch.zeros_like(x) if n == lost else x for n, x in batch.image.items()})
    with torch.inference_mode():
        without, masked = backbone.tokenise(part), backbone.tokenise(zero)
        lost_groups = [i for i, group in enumerate(backbone.token_groups) if group.sensors == (lost,)]
        is_lost = torch.isin(masked.group, torch.tensor(lost_groups))
        assert torch.equal(masked.there, ~is_lost)
        one = backbone.contextualise(without, backbone.layers)[-1]
        two = backbone.contextualise(masked, backbone.layers)[-1]
    skip = masked.extra.shape[1]
    kept = two[:, skip:][~is_lost].view(len(two), -1, two.shape[2])
    mine = one[:, skip:][torch.isin(without.group, torch.tensor(lost_groups), invert=True)].view_as(kept)
    torch.testing.assert_close(kept, mine, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["sensor_vit", "own_blocks", "towers"])
@pytest.mark.parametrize("lost", ["sentinel1", "dem", "sentinel2"])
def test_forward_leaves_out_what_a_single_window_lacks(family, lost):
    backbone, batch = build(family)
    some = replace(batch, image={name: x.clone() for name, x in batch.image.items()})
    some.image[lost][0] = 0
    with torch.inference_mode():
        whole = backbone(batch).maps
        without = backbone(replace(batch, image={n: x for n, x in batch.image.items() if n != lost})).maps
        mixed = backbone(some).maps
    for first, second, both in zip(without, whole, mixed, strict=True):
        torch.testing.assert_close(both[0], first[0].expand_as(both[0]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(both[1], second[1], atol=1e-5, rtol=1e-4)


def test_patches_without_a_valid_pixel_are_missing():
    for family in FAMILIES:
        backbone, batch = build(family)
        px = backbone.multiple
        batch.valid[0, :, px : 2 * px, :px] = False
        batch.valid[1] = False
        tokens = backbone.tokenise(batch)
        hole = (tokens.row[0] == 1) & (tokens.col[0] == 0)
        assert torch.equal(tokens.there[0], ~hole), family
        assert not tokens.there[1].any()
        out = backbone.contextualise(tokens, backbone.layers)[-1]
        assert out.isfinite().all()


def test_a_class_token_is_no_part_of_the_maps():
    plain, batch = build("vit", dates=1)
    assert plain(batch).maps[-1].shape == (2, 64, 4, 6)
    assert plain.tokenise(batch).extra.shape == (2, 1, 64)
    with pytest.raises(ConfigError, match="class_token"):
        make_backbone("sensor_vit_nano", spec(), {"own_blocks": 4, "class_token": True})
    with pytest.raises(ConfigError, match="own_blocks"):
        make_backbone("sensor_vit_nano", spec(), {"own_blocks": 5})


def test_towers_share_no_block():
    backbone, batch = build("towers")
    noisy = replace(batch, image={**batch.image, "sentinel1": torch.randn_like(batch.image["sentinel1"])})
    with torch.inference_mode():
        one, two = (backbone.contextualise(backbone.tokenise(each), [3])[0] for each in (batch, noisy))
    mine = backbone.tokenise(batch).group[0] == 0
    torch.testing.assert_close(one[:, mine], two[:, mine])


def test_backbones_without_tokens_are_refused_by_name():
    with pytest.raises(ConfigError, match="UNetEncoder gives none") as caught:
        require_tokens(make_backbone("unet", spec()), "method: mae")
    for name in ("vit_tiny", "sensor_vit_nano", "prithvi_eo_v2_300", "terramind_v1_base", "galileo_nano", "clay_v1"):
        assert name in caught.value.fix
    assert "unet" not in caught.value.fix
