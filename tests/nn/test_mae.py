"""Masked autoencoders: what they see and predict, on any backbone of tokens, and the published decoder gone on with."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from covermap.core.errors import ConfigError, DataError
from covermap.core.pretrain_config import MaeConfig
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.nn import weights
from covermap.nn.backbones import prithvi
from covermap.nn.backbones.plain_vit import PlainViT
from covermap.nn.build import make_backbone
from covermap.nn.ssl import mae_prithvi
from covermap.nn.ssl.losses import masked_mse
from covermap.nn.ssl.mae import MaskedAutoencoder
from covermap.nn.ssl.masks import TARGET
from covermap.nn.ssl.pixel_decoder import patchify, unpatchify
from covermap.testing import random_batch

S2 = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
MINI = {"width": 64, "depth": 4, "heads": 4}


class ViTMini(PlainViT):
    """A plain ViT of four blocks."""

    width, depth, heads = 64, 4, 4


def entry(sensor, bands, dates=1):
    return SensorInput(sensor, bands, (0.0,) * len(bands), (1.0,) * len(bands), num_dates=dates, optional=True)


def spec(dates=1, *sensors):
    every = {"sentinel2": S2, "sentinel1": ("vv", "vh"), "dem": ("elevation",)}
    return InputSpec(
        tuple(entry(n, b, 1 if n == "dem" else dates) for n, b in every.items() if n in (sensors or every)), 10, 32
    )


FAMILIES = {
    "vit": (ViTMini, {"patch_px": 8, "class_token": True}),
    "prithvi": ("prithvi_eo_v2_tiny_tl", {"sizes": {**MINI, "patch_px": 8, "num_frames": 2}}),
    "terramind": ("terramind_v1_tiny", {"sizes": MINI}),
    "galileo": ("galileo_nano", {"sizes": MINI, "patch_px": 8}),
    "sensor_vit": ("sensor_vit_nano", {"patch_px": 8, "own_blocks": 1}),
}
SMALL = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}


def build(family="sensor_vit", whole=None, **settings):
    """A method on a miniature of a family, for the sensors that it takes and, of `whole`, those that it does not."""
    torch.manual_seed(0)
    name, options = FAMILIES[family]
    whole = whole or spec()
    encoder = make_backbone(name, whole, options)
    return MaskedAutoencoder(encoder, whole, MaeConfig(**{**SMALL, **settings}))


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_learns_the_same(family):
    method, batch = build(family, spec(2)), random_batch(spec(2), 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = method(batch, [0, 1])["loss"]
    half.backward()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, method(batch, [0, 1])["loss"], atol=0.05, rtol=0.05)


def smooth(whole, size=4, px=32, seed=0):
    """Windows of a few waves: what is hidden follows from what is seen."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:px, :px] / px * 2 * np.pi
    batch = random_batch(whole, px, px, size=size, seed=seed)
    for x in batch.image.values():
        for b in range(size):
            for c in range(x.shape[2]):
                a, d, phase = rng.uniform(-1.5, 1.5, 3)
                x[b, :, c] = torch.from_numpy(np.sin(a * row + d * col + phase)).float() * 1.5
    return batch


def test_patches_go_there_and_back():
    x = torch.randn(2, 3, 4, 8, 12)
    patches = patchify(x, 4)
    assert patches.shape == (2, 18, 64)
    torch.testing.assert_close(patches[1, 6 + 4].view(4, 4, 4), x[1, 1, :, 4:8, 4:8].permute(1, 2, 0))
    torch.testing.assert_close(unpatchify(patches, 4, x.shape), x)


def test_the_error_is_a_mean_within_windows_and_then_of_windows():
    rng = np.random.default_rng(0)
    predicted, patches = rng.normal(size=(2, 3, 5, 8))
    weight = rng.random((3, 5, 8)) < 0.5
    weight[2] = False
    found = masked_mse(*map(torch.from_numpy, (predicted, patches, weight)), norm_pix=False)
    each = [np.square(predicted - patches)[i][weight[i]].mean() if weight[i].any() else 0 for i in range(3)]
    assert float(found) == pytest.approx(np.mean(each), rel=1e-6)
    whole = np.ones_like(weight)
    normed = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    found = masked_mse(*map(torch.from_numpy, (predicted, patches, whole)), norm_pix=True)
    assert float(found) == pytest.approx(np.square(predicted - normed).mean(), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dates", [1, 2])
def test_any_backbone_of_tokens_learns(family, dates):
    whole = spec(dates)
    method = build(family, whole)
    found = method(random_batch(whole, 48, 32, size=3), [1, 2, 3])
    seen = {sensor for target in method.targets for sensor in [target.sensor]}
    assert seen == {"sentinel2", "sentinel1", "dem"}
    assert set(found) == {"loss", *(f"mae_{name}" for name in seen)}
    torch.testing.assert_close(found["loss"], torch.stack([found[f"mae_{name}"] for name in seen]).mean())
    assert 0.3 < found["loss"].item() < 4
    found["loss"].backward()
    idle = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    assert method.embed(random_batch(whole, 32, 32)).shape == (2, method.encoder.channels[-1])


@pytest.mark.parametrize("family", ["vit", "sensor_vit"])
def test_one_batch_is_learnt(family):
    """The loss with fixed masks falls by half within 150 steps."""
    whole = spec(1, "sentinel2", "sentinel1")
    method, batch = build(family, whole, decoder_width=64, norm_pix=False), smooth(whole)
    optimiser = torch.optim.AdamW(method.parameters(), lr=2e-3, weight_decay=0)
    losses = []
    for _ in range(150):
        loss = method(batch, [0, 1, 2, 3])["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    print(f"{family}: {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < 0.5 * losses[0]


def one_wave(whole, size, seed):
    """Windows of one wave that all sensors show, so that little of it tells the rest."""
    rng, batch = np.random.default_rng(seed), random_batch(whole, 32, 32, size=size, seed=seed)
    row, col = np.mgrid[:32, :32] / 32 * 2 * np.pi
    for b in range(size):
        down, right = rng.uniform(-0.7, 0.7, 2)
        wave = torch.from_numpy(1.5 * np.sin(down * row + right * col + rng.uniform(0, 2 * np.pi))).float()
        for x in batch.image.values():
            x[b] = wave * (1 - 2 * (torch.arange(x.shape[2]) % 2))[:, None, None]
    return batch


@pytest.mark.slow
def test_windows_never_seen_are_predicted_better_than_by_their_mean():
    whole = spec(1, "sentinel2", "sentinel1")
    method = build("sensor_vit", whole, decoder_width=64, norm_pix=False)
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-3, weight_decay=0.01)
    for step in range(200):
        loss = method(one_wave(whole, 16, step), range(16 * step, 16 * step + 16))["loss"]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()
    fresh = one_wave(whole, 64, 10_000)
    with torch.no_grad():
        found = float(method.eval()(fresh, range(64))["loss"])
    by_mean = float(torch.stack([x.var((1, 3, 4)).mean() for x in fresh.image.values()]).mean())
    print(f"unseen windows: {found:.3f}, by the mean of each band {by_mean:.3f}")
    assert found < 0.7 * by_mean


def test_the_encoder_sees_a_quarter(monkeypatch):
    method = build()
    seen = []
    inner = type(method.encoder).contextualise
    monkeypatch.setattr(
        type(method.encoder),
        "contextualise",
        lambda self, tokens, layers: seen.append(tokens) or inner(self, tokens, layers),
    )
    method(random_batch(spec(), 64, 64, size=2), [0, 1])
    assert [tokens.x.shape[1] for tokens in seen] == [48]  # of 3 x 64
    assert seen[0].there.all()


@pytest.mark.parametrize("strategy", ["random", "block", "inverse_block", "tube", "dates", "sensors"])
@pytest.mark.parametrize("family", ["sensor_vit", "vit", "galileo"])
def test_how_windows_are_shared_out_changes_nothing(strategy, family):
    whole = spec(2)
    if family == "vit" and strategy in ("dates", "sensors"):
        with pytest.raises(ConfigError, match=strategy):
            build(family, whole, strategy=strategy)
        return
    method = build(family, whole, strategy=strategy).eval()
    batch = random_batch(whole, 32, 32, size=4)
    batch.valid[1, :, :16] = False
    batch.valid[3, 0] = False
    batch.image["sentinel1"][2] = 0

    def part(at):
        return Batch(
            {name: x[at] for name, x in batch.image.items()}, batch.valid[at], None, batch.dates[at], batch.location[at]
        )

    seeds = [5, 6, 7, 8]
    with torch.no_grad():
        together = method(batch, seeds)
        apart = [method(part(slice(i, i + 2)), seeds[i : i + 2]) for i in (0, 2)]
    for key, value in together.items():
        torch.testing.assert_close(value, (apart[0][key] + apart[1][key]) / 2, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        assert not torch.equal(method(batch, [1, 2, 3, 4])["loss"], together["loss"])


def test_tubes_are_alike_on_dates_that_are_folded():
    method = build("vit", spec(2), strategy="tube")
    drawn = method._draw(random_batch(spec(2), 32, 32, size=2), [3, 4])
    states = drawn.states.view(2, 2, -1)
    assert torch.equal(states[:, 0], states[:, 1])
    assert not torch.equal(states[0], states[1])


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("family", ["sensor_vit", "vit"])
def test_nodata_and_constant_channels_stay_finite(family, norm_pix):
    method = build(family, norm_pix=norm_pix)
    batch = random_batch(spec(), 32, 32, size=3)
    batch.image["sentinel2"][0, :, 2] = torch.nan
    batch.image["sentinel2"][1, :, 1] = 0.25
    batch.image["sentinel1"][1, :, :, :8] = torch.inf
    batch.valid[2] = False
    found = method(batch, [0, 1, 2])
    found["loss"].backward()
    assert all(value.isfinite() for value in found.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    nothing = method(replace(batch, valid=torch.zeros_like(batch.valid)), [0, 1, 2])["loss"]
    nothing.backward()
    assert nothing.item() == 0


def test_what_is_not_valid_is_not_asked_for():
    method = build().eval()
    batch = random_batch(spec(), 32, 32)
    batch.valid[:, :, ::2] = False
    other = replace(batch, image={n: torch.where(batch.valid[:, :, None], x, 9.0) for n, x in batch.image.items()})
    targets = [t for t in method.targets if t.sensor == "sentinel2"]
    with torch.no_grad():
        drawn = method._draw(batch, [0, 1])
        mine = drawn.tokens.group[0] == targets[0].group
        hidden = (drawn.states[:, mine] == TARGET)[..., None]
        known = patchify(drawn.known["sentinel2"], 8) & hidden
        before, after = (patchify(b.image["sentinel2"], 8) for b in (batch, other))
        one = masked_mse(torch.zeros_like(before), before, known, norm_pix=True)
        two = masked_mse(torch.zeros_like(before), after, known, norm_pix=True)
    assert float(one) == float(two)


def test_sensors_that_the_backbone_does_not_see_are_predicted():
    torch.manual_seed(0)
    encoder = make_backbone("sensor_vit_nano", spec(2, "sentinel2", "sentinel1"), {"patch_px": 8})
    method = MaskedAutoencoder(encoder, spec(2), MaeConfig(**SMALL))
    assert (method.inputs, method.unseen) == (("sentinel2", "sentinel1"), ("dem",))
    assert method.notes == ("dem: predicted, and not seen by the encoder",)
    batch = random_batch(spec(2), 32, 32)
    found = method(batch, [0, 1])
    assert "mae_dem" in found
    changed = replace(batch, image={**batch.image, "dem": batch.image["dem"] + 1})
    with torch.no_grad():
        one, two = method.eval()._draw(batch, [0, 1]), method._draw(changed, [0, 1])
    torch.testing.assert_close(one.decoded, two.decoded)
    assert method.reconstruct(batch, [0, 1]).hidden["dem"].all()


@pytest.mark.parametrize("family", ["vit", "sensor_vit", "galileo"])
def test_a_reconstruction_leaves_what_is_seen_as_it_was(family):
    whole = spec(2)
    method, batch = build(family, whole).eval(), random_batch(whole, 40, 36)
    found = method.reconstruct(batch, [0, 1])
    for name, x in batch.image.items():
        hidden = found.hidden[name]
        assert found.image[name].shape == hidden.shape == x.shape
        assert torch.equal(found.image[name][~hidden], x[~hidden])
        assert 0.3 < float(hidden.float().mean()) < 0.99
        assert found.image[name].isfinite().all()
    assert hidden.dtype == torch.bool


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="UNetEncoder gives none"):
        MaskedAutoencoder(make_backbone("unet", spec()), spec(), MaeConfig())
    with pytest.raises(ConfigError, match="heads"):
        build(decoder_heads=3)
    with pytest.raises(ConfigError, match="dates"):
        build(strategy="dates")
    with pytest.raises(ConfigError, match="one patch"):
        build("vit")(random_batch(spec(), 8, 8), [0, 1])
    batch = random_batch(spec(), 32, 32)
    with pytest.raises(DataError, match="sentinel1"):
        build("vit")(replace(batch, image={n: x for n, x in batch.image.items() if n != "sentinel1"}), [0, 1])
    for share in (0, 1, 1.2):
        with pytest.raises(ValueError, match="mask"):
            MaeConfig(mask=share)


# ---------------------------------------------------------------- Prithvi's decoder


@pytest.fixture
def published(shared, tmp_path):
    """A miniature of a published file with its decoder, and the encoder that is loaded from it."""

    def make(name, bands=S2):
        stored = torch.load(shared / "checkpoints" / f"golden_{name}.pt", weights_only=True)
        path = tmp_path / f"{name}.pt"
        torch.save(stored["state_dict"], path)
        sizes = {
            "width": 64,
            "depth": 2,
            "heads": 4,
            "patch_px": 8,
            "size_px": 32,
            "num_frames": 2,
            "eps": stored["ln_eps"],
        }
        whole = InputSpec((entry("hls", bands, 2),), 30, 32)
        kind = "prithvi_eo_v2_tiny_tl" if name.endswith("tl") else "prithvi_eo_v2_300"
        return make_backbone(kind, whole, {"sizes": sizes}, weights=path), whole, stored

    return make


def plain_forward(state, tokens, keep, eps):
    """The published decoder written out in one place: (1, 1 + k, D) of the tokens `keep` -> (1, N, P)."""
    state = {name.removeprefix("decoder."): value for name, value in state.items() if name.startswith("decoder.")}

    def linear(x, name):
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    x = linear(tokens, "decoder_embed")
    table = state["decoder_pos_embed"]
    full = state["mask_token"].repeat(1, table.shape[1] - 1, 1)
    full[:, keep] = x[:, 1:]
    x = torch.cat([x[:, :1], full], 1) + table
    name = "decoder_blocks.0"
    q, k, v = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").view(1, -1, 3, 2, 16).permute(2, 0, 3, 1, 4)
    joined = (((q @ k.transpose(2, 3)) / 4).softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
    x = x + linear(joined, f"{name}.attn.proj")
    x = x + linear(functional.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
    return linear(norm(x, "decoder_norm"), "decoder_pred")[:, 1:]


def test_prithvis_decoder_is_gone_on_with(published, monkeypatch):
    monkeypatch.setattr(mae_prithvi, "HEADS", 2)
    encoder, whole, stored = published("prithvi")
    method = MaskedAutoencoder(encoder, whole, MaeConfig()).eval()
    report = method.decoder.report
    named = [name for name in stored["state_dict"] if name.startswith("decoder.")]
    assert report.count("loaded") == len(named) == len(report.rows)
    assert "the decoder starts from the published one" in method.notes[0]
    batch = random_batch(whole, 32, 32, size=1)
    with torch.no_grad():
        drawn = method._draw(batch, [0])
        found = method.decoder.heads["0_hls"](drawn.decoded)
        keep = torch.nonzero(drawn.states[0] == 0)[:, 0]
        latent = encoder.contextualise(drawn.tokens.take(drawn.states == 0)[0], [1])[0]
        want = plain_forward(stored["state_dict"], latent, keep, stored["ln_eps"])
    assert len(keep) == 8
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)


def test_prithvis_decoder_follows_the_order_of_bands(published, monkeypatch):
    monkeypatch.setattr(mae_prithvi, "HEADS", 2)
    encoder, whole, _ = published("prithvi")
    turned, other, _ = published("prithvi", bands=S2[::-1])
    one, two = (MaskedAutoencoder(e, w, MaeConfig()).eval() for e, w in ((encoder, whole), (turned, other)))
    batch = random_batch(whole, 48, 40, size=2)
    back = replace(batch, image={"hls": batch.image["hls"].flip(2)})
    found, again = one.reconstruct(batch, [0, 1]).image["hls"], two.reconstruct(back, [0, 1]).image["hls"]
    torch.testing.assert_close(found, again.flip(2), atol=1e-4, rtol=1e-4)


def test_prithvis_decoder_takes_dates_and_places(published, monkeypatch):
    monkeypatch.setattr(mae_prithvi, "HEADS", 2)
    encoder, whole, _ = published("prithvi_tl")
    method = MaskedAutoencoder(encoder, whole, MaeConfig()).eval()
    batch = random_batch(whole, 32, 32, size=2)
    with torch.no_grad():
        tokens = encoder.tokenise(batch)
        code = method.decoder.codes(tokens, batch)
        bare = method.decoder.codes(tokens, replace(batch, dates=((None, None),) * 2, location=None))
        temporal = prithvi._coordinate_code(prithvi.day_codes(batch).reshape(-1, 2), 32).view(2, 2, 32)
        place = prithvi._coordinate_code(batch.location, 32)[:, None]
        want = method.decoder.temporal_scale * temporal.repeat_interleave(16, 1) + method.decoder.location_scale * place
    torch.testing.assert_close((code - bare).double(), want.double(), atol=1e-5, rtol=1e-4)


def test_a_decoder_of_ones_own_is_taken_where_it_is_asked_for_or_bands_are_new(published, monkeypatch):
    monkeypatch.setattr(mae_prithvi, "HEADS", 2)
    encoder, whole, _ = published("prithvi")
    assert not isinstance(
        MaskedAutoencoder(encoder, whole, MaeConfig(decoder_width=64)).decoder, mae_prithvi.PrithviDecoder
    )
    other, whole, _ = published("prithvi", bands=(*S2, "ndvi"))
    assert not isinstance(MaskedAutoencoder(other, whole, MaeConfig()).decoder, mae_prithvi.PrithviDecoder)


@pytest.mark.parametrize("name", ["v1_100", "v2_300", "v2_600_tl"])
def test_every_tensor_of_a_full_size_decoder_has_its_place(shared, name):
    import json

    manifest = json.loads((shared / "checkpoints" / f"manifest_prithvi_eo_{name}.json").read_text())
    tensors = {key: torch.empty(shape, device="meta") for key, shape in manifest["keys"].items() if "decoder." in key}
    frames = 3 if name == "v1_100" else 4
    with torch.device("meta"):
        network = mae_prithvi.PrithviPixels(tensors, num_frames=frames, heads=16, eps=1e-6)
    renamed = weights._renamed(
        weights._strip(tensors, mae_prithvi.LAYOUT, name, weights.Report(name)), mae_prithvi.LAYOUT
    )
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in network.state_dict().items()}
    assert any(re.match(r"trunk\.blocks\.7\.", key) for key in renamed)
