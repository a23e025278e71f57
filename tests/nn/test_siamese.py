"""Two dates through one backbone: exchanging them transposes the answer, whatever the parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import names
from covermap.core.types import Batch, InputSpec
from covermap.nn.adapt import parameter_groups
from covermap.nn.build import build_model
from covermap.nn.layers import fold_norms
from covermap.nn.losses.expression import make_loss
from covermap.nn.siamese import COMPARISONS, CrossAttention
from tests.nn.test_overfit import DECODERS, FAMILIES, OPTICAL, RADAR, SIDES

K = 3
DATES = ("2019-04-03", "2021-09-12")


def inputs(family: str = "unet") -> InputSpec:
    spec = RADAR if family == "presto" else OPTICAL
    return replace(spec, sensors=tuple(replace(entry, num_dates=2) for entry in spec.sensors))


def batch_of(spec: InputSpec, side: int, *, size: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(4)
    image = {e.sensor: torch.randn(size, 2, len(e.bands), side, side, generator=generator) for e in spec.sensors}
    valid = torch.ones(size, 2, side, side, dtype=torch.bool)
    return Batch(image, valid, dates=(DATES,) * size, location=torch.tensor([[47.0, 8.0]] * size))


def swapped(batch: Batch) -> Batch:
    image = {key: x.flip(1) for key, x in batch.image.items()}
    return replace(batch, image=image, valid=batch.valid.flip(1), dates=tuple(d[::-1] for d in batch.dates))


def make(family: str, decoder: str, dates: str, *, semantic: bool = True, pixel_width: int = 0):
    backbone, options = FAMILIES[family]
    torch.manual_seed(0)
    return build_model(
        inputs(family), 2 * K + 2 if semantic else 2, backbone=backbone, backbone_options=options, decoder=decoder,
        decoder_options=DECODERS[decoder], dates=dates, pixel_width=pixel_width, siamese=True,
    )  # fmt: skip


def require_transposed(model, batch: Batch) -> None:
    with torch.inference_mode():
        one, other = model.eval()(batch), model(swapped(batch))
    assert one.shape == (2, 2 * K + 2, *batch.valid.shape[-2:])
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(one[:, :K], other[:, K : 2 * K], **close)
    torch.testing.assert_close(one[:, K : 2 * K], other[:, :K], **close)
    torch.testing.assert_close(one[:, 2 * K :], other[:, 2 * K :], **close)
    assert (one[:, :K] - one[:, K : 2 * K]).abs().max() > 1e-4  # the dates do differ


@pytest.mark.parametrize("dates", COMPARISONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_exchanging_the_dates_transposes_the_answer_and_every_tensor_learns(family: str, dates: str) -> None:
    model = make(family, "unet" if family in ("unet", "resnet") else "fpn", dates, pixel_width=4)
    batch = batch_of(model.spec, SIDES.get(family, 64))
    require_transposed(model, batch)
    model.train()(batch).square().mean().backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle


@pytest.mark.parametrize("decoder", [name for name in names("decoder") if name != "mask2former"])
def test_every_decoder_of_maps_takes_two_dates(decoder: str) -> None:
    require_transposed(make("unet", decoder, "cross_attention"), batch_of(inputs(), 50))


@pytest.mark.parametrize("dates", COMPARISONS)
def test_change_alone_does_not_depend_on_the_order_of_the_dates(dates: str) -> None:
    model = make("vit", "segformer", dates, semantic=False, pixel_width=4).eval()
    batch = batch_of(model.spec, 48)
    with torch.inference_mode():
        one, other = model(batch), model(swapped(batch))
        still = model(replace(batch, image={k: x[:, :1].expand(-1, 2, -1, -1, -1) for k, x in batch.image.items()}))
    assert one.shape == (2, 2, 48, 48)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert (one - still).abs().max() > 1e-4


def test_a_sensor_of_one_date_goes_with_both() -> None:
    spec = inputs()
    spec = replace(spec, sensors=(*spec.sensors, replace(RADAR.sensors[0], num_dates=1)))
    model = build_model(spec, 2 * K + 2, backbone_options={"widths": [8, 16]}, siamese=True).eval()
    batch = batch_of(inputs(), 32)
    batch = replace(batch, image=batch.image | {"sentinel1": torch.randn(2, 1, 2, 32, 32)})
    with torch.inference_mode():
        one, other = model(batch), model(swapped(batch))
    torch.testing.assert_close(one[:, :K], other[:, K : 2 * K], rtol=1e-4, atol=1e-5)


def test_one_date_an_own_loss_and_other_ways_of_joining_dates_are_refused() -> None:
    with pytest.raises(DataError, match="1 dates, change needs two"):
        build_model(OPTICAL, 2, siamese=True)
    with pytest.raises(ConfigError, match="loss of its own"):
        build_model(inputs(), 8, decoder="mask2former", siamese=True)
    with pytest.raises(ConfigError, match="does not compare two dates"):
        build_model(inputs(), 8, dates="mean", siamese=True)
    with pytest.raises(ConfigError, match="cross_attention"):
        build_model(inputs(), 3, backbone="galileo_nano", dates="cross_attention")


def test_a_frozen_backbone_stays_as_it_is_while_both_heads_learn() -> None:
    model = make("unet", "unet", "difference")
    model.freeze()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    groups = parameter_groups(model, lr=0.1, weight_decay=0.0)
    optimiser = torch.optim.SGD(groups, lr=0.1)
    model.train()(batch_of(model.spec, 32)).square().mean().backward()
    optimiser.step()
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())
    assert all(p.grad is not None for part in (model.decoder, model.semantic) for p in part.parameters())


@pytest.mark.parametrize(("family", "decoder", "dates"), [("unet", "unet", "difference"), ("vit", "unet", "concat")])
def test_what_became_what_is_learnt_by_heart(family: str, decoder: str, dates: str) -> None:
    """Tiles whose classes move on in a quarter of the squares; the classes' colours tell them."""
    generator = torch.Generator().manual_seed(3)
    label = torch.randint(0, K, (3, 4, 4), generator=generator)
    moved = torch.rand(3, 4, 4, generator=generator) < 0.25
    pair = [
        x.repeat_interleave(16, 1).repeat_interleave(16, 2) for x in (label, torch.where(moved, (label + 1) % K, label))
    ]
    spec, colours = inputs(), torch.randn(K, 4, generator=generator)
    image = torch.stack([colours[x].permute(0, 3, 1, 2) for x in pair], 1)
    image = image + 0.2 * torch.randn(image.shape, generator=generator)
    batch = replace(batch_of(spec, 64, size=3), image={"sentinel2": image})
    target = torch.stack([pair[0], pair[1], pair[0] != pair[1]], 1).float()
    model = make(family, decoder, dates)
    loss = make_loss("semantic + change + change_dice + 0.5 * consistency")
    optimiser = torch.optim.AdamW(parameter_groups(model, lr=3e-3, weight_decay=0.0))
    right = 0.0
    for step in range(160):
        out = model.train()(batch)
        (loss(out, target) / loss.mass(target)).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 20 == 19:
            with torch.inference_mode():
                found = fold_norms(model.eval())(batch)
            said = [found[:, :K].argmax(1), found[:, K : 2 * K].argmax(1), found[:, -1] > found[:, -2]]
            right = min(float((x == y).float().mean()) for x, y in zip(said, target.unbind(1), strict=True))
            if right > 0.97:
                break
    assert right > 0.95


def test_cross_attention_sees_all_of_the_other_date_and_any_size() -> None:
    torch.manual_seed(0)
    look = CrossAttention(64)
    x, other = torch.randn(2, 64, 9, 7), torch.randn(2, 64, 9, 7)
    found = look(x, other)
    other[..., -1, -1] += 100
    assert not torch.allclose(found[..., 0, 0], look(x, other)[..., 0, 0])
    assert look(torch.randn(1, 64, 40, 33), torch.randn(1, 64, 40, 33)).shape == (1, 64, 40, 33)
    assert CrossAttention(30)(torch.randn(1, 30, 2, 2), torch.randn(1, 30, 2, 2)).isfinite().all()
