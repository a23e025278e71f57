"""What every decoder must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from covermap.core.registry import find
from covermap.core.types import Features
from covermap.nn.build import make_part
from covermap.nn.model import Decoder
from covermap.testing.outcome import Outcome, require, run_checks

CLASSES = 5
PYRAMIDS: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = (
    ((16, 24, 32, 48), (4, 8, 16, 32)),
    ((12, 16, 24, 32, 48), (1, 2, 4, 8, 16)),
    ((24, 24, 24, 24), (3.5, 7, 14, 28)),
)
"""Channels and strides of backbones: a hierarchical one, a U-Net, a neck's for patches of 14 px."""


@dataclass(frozen=True)
class DecoderCase:
    """A decoder by name with options."""

    name: str | Callable[..., Decoder]
    options: Mapping[str, Any]

    def make(self, channels: Sequence[int], strides: Sequence[float], num_classes: int = CLASSES) -> Decoder:
        """The same one each time."""
        torch.manual_seed(0)
        decoder: Decoder = make_part("decoder", self.name, self.options, channels, strides, num_classes)
        return decoder


def check_decoder(decoder: str | Callable[..., Decoder], *, options: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Run all checks on a decoder, by name or as a class, in its miniature; raises ConfigError for an unknown name."""
    case = DecoderCase(decoder, {**getattr(find("decoder", decoder), "miniature", {}), **(options or {})})
    case.make(*PYRAMIDS[0])
    return run_checks(DECODER_CHECKS, case)


def random_features(channels: Sequence[int], strides: Sequence[float], side_px: int, *, batch: int = 2) -> Features:
    """Maps (B, C_i, side / S_i, side / S_i), rounded up."""
    generator = torch.Generator().manual_seed(1)
    sides = [-(-side_px // stride) for stride in strides]
    maps = [torch.randn(batch, c, int(n), int(n), generator=generator) for c, n in zip(channels, sides, strict=True)]
    return Features(tuple(maps), tuple(strides))


def _gives_logits_of_the_size_asked_for(case: DecoderCase) -> None:
    for channels, strides in PYRAMIDS:
        decoder = case.make(channels, strides).eval()
        for side in (int(8 * strides[-1]), int(3 * strides[-1])):
            logits = decoder(random_features(channels, strides, side), (side, side))
            require(logits.shape == (2, CLASSES, side, side), f"{side} px: logits are {tuple(logits.shape)}")
            require(bool(torch.isfinite(logits).all()), f"{side} px: logits are not finite")


def _takes_one_map(case: DecoderCase) -> None:
    """A pyramid decoder never gets one: a neck makes several of it."""
    if case.make(*PYRAMIDS[0]).pyramid:
        return
    decoder = case.make((32,), (8,)).eval()
    require(decoder(random_features((32,), (8,), 64), (64, 64)).shape == (2, CLASSES, 64, 64), "wrong shape")


def _every_parameter_gets_a_gradient(case: DecoderCase) -> None:
    channels, strides = PYRAMIDS[0]
    decoder = case.make(channels, strides).train()
    decoder(random_features(channels, strides, 128), (128, 128)).square().mean().backward()
    idle = [name for name, p in decoder.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    require(not idle, f"no gradient for {', '.join(idle[:5])}")


def _a_batch_of_one_small_window_trains(case: DecoderCase) -> None:
    channels, strides = PYRAMIDS[0]
    decoder = case.make(channels, strides).train()
    logits = decoder(random_features(channels, strides, 64, batch=1), (64, 64))
    require(bool(torch.isfinite(logits).all()), "logits are not finite")


def _windows_do_not_see_each_other(case: DecoderCase) -> None:
    channels, strides = PYRAMIDS[0]
    decoder = case.make(channels, strides).eval()
    both = random_features(channels, strides, 128)
    alone = Features(tuple(x[1:] for x in both.maps), both.strides)
    with torch.inference_mode():
        apart = (decoder(both, (128, 128))[1:] - decoder(alone, (128, 128))).abs().max()
    require(float(apart) < 1e-4, f"a window's logits change by {float(apart):.2g} with what else is in the batch")


def _all_maps_that_it_is_given_count(case: DecoderCase) -> None:
    """A pyramid decoder that leaves a map unused has no real skips."""
    channels, strides = PYRAMIDS[0]
    decoder = case.make(channels, strides).eval()
    if not decoder.pyramid:
        return
    base = random_features(channels, strides, 128)
    with torch.inference_mode():
        before = decoder(base, (128, 128))
        for at in decoder.uses(len(channels)):
            changed = [x + (i == at) for i, x in enumerate(base.maps)]
            after = decoder(Features(tuple(changed), base.strides), (128, 128))
            require(not torch.equal(before, after), f"map {at} (stride {strides[at]:g}) changes nothing")


def _is_the_same_after_saving(case: DecoderCase) -> None:
    channels, strides = PYRAMIDS[0]
    one, other = case.make(channels, strides).eval(), case.make(channels, strides).eval()
    with torch.no_grad():
        for p in one.parameters():
            p.add_(0.1 * torch.randn_like(p))
    other.load_state_dict(one.state_dict())
    features = random_features(channels, strides, 128)
    with torch.inference_mode():
        require(torch.equal(one(features, (128, 128)), other(features, (128, 128))), "outputs differ")


def _learns(case: DecoderCase) -> None:
    """Twenty-five steps on two windows must halve the loss."""
    channels, strides = PYRAMIDS[0]
    decoder = case.make(channels, strides).train()
    features = random_features(channels, strides, 64)
    label = (features.maps[0][:, 0] > 0).long().repeat_interleave(4, 1).repeat_interleave(4, 2)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        if decoder.has_own_loss:
            total, count = decoder.own_loss(features, label)
            loss = total / count
        else:
            loss = nn.functional.cross_entropy(decoder(features, (64, 64)), label)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    require(min(losses[-5:]) < 0.75 * losses[0], f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f}")


DECODER_CHECKS: tuple[Callable[[DecoderCase], None], ...] = (
    _gives_logits_of_the_size_asked_for,
    _takes_one_map,
    _every_parameter_gets_a_gradient,
    _a_batch_of_one_small_window_trains,
    _windows_do_not_see_each_other,
    _all_maps_that_it_is_given_count,
    _is_the_same_after_saving,
    _learns,
)
