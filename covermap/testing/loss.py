"""What every loss must keep, whatever it takes: classes, numbers, presence, order or transitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from covermap.core.legend import IGNORE
from covermap.nn.losses.expression import LossSum, make_loss
from covermap.testing.outcome import Outcome, require, run_checks

CLASSES = 5


@dataclass(frozen=True)
class LossCase:
    """A loss by name with options."""

    name: str | Callable[..., nn.Module]
    options: Mapping[str, Any]

    def make(self, weights: Tensor | None = None) -> LossSum:
        """With weights of the classes, if it takes any; default: 1 for each."""
        return make_loss(self.name, self.options, class_weights=torch.ones(CLASSES) if weights is None else weights)

    def example(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predictions (4, C, 12, 12) of a network, a target whose first three rows are not known, right, wrong."""
        takes, generator = self.make().takes, torch.Generator().manual_seed(2)
        label = torch.randint(0, CLASSES, (4, 12, 12), generator=generator)
        hot = nn.functional.one_hot(label, CLASSES).permute(0, 3, 1, 2).float()
        at_least = hot.flip(1).cumsum(1).flip(1)[:, 1:]
        right = 16 * (at_least if takes == "order" else hot) - (7.3 if takes == "numbers" else 8)
        target = {"presence": hot, "numbers": right.clone()}.get(takes, label)
        wrong = -right
        if takes == "transitions":
            target, right, wrong = _transitions(label)
        target[..., :3, :] = torch.nan if target.is_floating_point() else IGNORE
        return 2 * torch.randn(right.shape, generator=generator), target, right, wrong


def _transitions(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A target in which a quarter of the pixels moves on to the next class; all right, and all wrong of it."""
    changed = label % 4 == 0
    after, first = torch.where(changed, (label + 1) % CLASSES, label), (label + 2) % CLASSES
    second = torch.where(changed, first, (label + 3) % CLASSES)

    def said(*values: Tensor) -> Tensor:
        hot = zip(values, (CLASSES, CLASSES, 2), strict=True)
        return torch.cat([16.0 * nn.functional.one_hot(x.long(), n).movedim(-1, 1) - 8 for x, n in hot], 1)

    target = torch.stack([label, after, changed], 1).float()
    return target, said(label, after, changed), said(first, second, ~changed)


def check_loss(loss: str | Callable[..., nn.Module], *, options: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Run all checks on a loss, by name, as a class or as a sum; raises ConfigError for an unknown name."""
    case = LossCase(loss, options or {})
    case.make()
    return run_checks(LOSS_CHECKS, case)


def _slope(loss: LossSum, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of a loss, and its gradient at a prediction."""
    at = prediction.clone().requires_grad_(True)
    total = loss(at, target).sum()
    (slope,) = torch.autograd.grad(total, at)
    return total.detach(), slope


def _what_is_not_known_does_not_count(case: LossCase) -> None:
    loss, (prediction, target, *_) = case.make(), case.example()
    other = prediction.clone()
    other[:, :, :3] = 50 * torch.randn_like(other[:, :, :3])
    same = torch.allclose(loss(prediction, target), loss(other, target))
    require(same, "predictions where nothing is known change the loss")
    slope = _slope(loss, other, target)[1]
    require(not slope[:, :, :3].any(), "predictions where nothing is known get a gradient, or one that is no number")


def _nothing_known_gives_nothing(case: LossCase) -> None:
    loss, (prediction, target, *_) = case.make(), case.example()
    empty = torch.full_like(target, torch.nan if target.is_floating_point() else IGNORE)
    total, slope = _slope(loss, prediction, empty)
    require(not total and not loss.mass(empty).any(), "loss or mass is not 0")
    require(not slope.any(), "the gradient is not 0")


def _a_right_answer_costs_less(case: LossCase) -> None:
    loss, (prediction, target, right, wrong) = case.make(), case.example()
    values = [float(loss(x, target).sum()) for x in (right, prediction, wrong)]
    require(values[0] < values[1] < values[2], f"right, random and wrong answers cost {values}")


def _extremes_stay_finite(case: LossCase) -> None:
    loss, (prediction, target, right, *_) = case.make(), case.example()
    for wild in (1e4 * prediction, 1e4 * right, right):
        found = _slope(loss, wild, target)
        require(all(bool(torch.isfinite(x).all()) for x in found), "the loss or its gradient is not finite")


def _sums_and_masses_add_up_over_batches(case: LossCase) -> None:
    loss, (prediction, target, *_) = case.make(), case.example()
    for found in (lambda at: loss(prediction[at], target[at]), lambda at: loss.mass(target[at])):
        whole, parts = found(slice(4)), found(slice(1)) + found(slice(1, 4))
        require(torch.allclose(whole, parts, rtol=1e-4), f"a batch gives {whole}, its parts together {parts}")


def _class_weights_have_the_effect_that_is_claimed(case: LossCase) -> None:
    prediction, target, *_ = case.example()
    weighted = case.make(torch.arange(1.0, CLASSES + 1))
    means = [loss(prediction, target) / loss.mass(target) for loss in (case.make(), weighted)]
    require(torch.allclose(*means) != weighted.weighted, f"weighted is {weighted.weighted}, which is wrong")


LOSS_CHECKS: tuple[Callable[[LossCase], None], ...] = (
    _what_is_not_known_does_not_count,
    _nothing_known_gives_nothing,
    _a_right_answer_costs_less,
    _extremes_stay_finite,
    _sums_and_masses_add_up_over_batches,
    _class_weights_have_the_effect_that_is_claimed,
)
