"""Sums of losses as a config writes them: `cross_entropy + 0.5 * dice`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from covermap.core.errors import ConfigError
from covermap.core.registry import find
from covermap.nn.build import make_part
from covermap.nn.losses.base import Loss, Takes


class LossSum(nn.Module):
    """sum_i factor_i sum_i / mass_i of n terms; sums and masses (n,) add up over the batches of a step.

    names: of the terms, as written. factors (n,). takes, weighted: as of a Loss; weighted if one of the terms is.
    """

    factors: Tensor

    def __init__(self, terms: Mapping[str, Any], factors: Iterable[float], takes: Takes) -> None:
        super().__init__()
        self.names, self.terms = tuple(terms), nn.ModuleList(terms.values())
        self.register_buffer("factors", torch.tensor(list(factors), dtype=torch.float64))
        self.takes = takes
        self.weighted = any(getattr(term, "weighted", True) for term in self.terms)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Sums of losses (n,)."""
        return torch.stack([term(prediction, target) for term in self.terms])

    def mass(self, target: Tensor | None) -> Tensor:
        """What they are divided by (n,), float64."""
        return torch.stack([term.mass(target).double() for term in self.terms])  # type: ignore[operator]


def parse_loss(expression: str | Callable[..., Any]) -> dict[Any, float]:
    """{name: factor} of the terms in `cross_entropy + 0.5 * dice`; a class is itself. Raises ConfigError."""
    if not isinstance(expression, str):
        return {expression: 1.0}
    found: dict[Any, float] = {}
    for term in expression.split("+"):
        factor, times, name = (part.strip() for part in term.rpartition("*"))
        try:
            number = float(factor) if times else 1.0
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf or not name:
            raise ConfigError(
                f"train.loss: {term.strip()!r} in {expression!r} is neither a loss nor a number above 0 * a loss",
                fix="write it like cross_entropy + 0.5 * dice",
            )
        if name in found:
            raise ConfigError(f"train.loss: {name} stands twice in {expression!r}", fix="add up its factors")
        find("loss", name)
        found[name] = number
    return found


def make_loss(
    expression: str | Callable[..., Any],
    options: Mapping[str, Any] | None = None,
    *,
    class_weights: Tensor | None = None,
) -> LossSum:
    """The loss that a config writes. options: of a single term its own, of several {name: options}.

    class_weights (K,): None where the target has no classes. Raises ConfigError for wrong expressions and options,
    and for terms that take different targets or classes that are not there.
    """
    factors, options = parse_loss(expression), options or {}
    if len(factors) == 1:
        options = {next(iter(factors)): options}
    for key, value in options.items():
        if key not in factors or not isinstance(value, Mapping):
            fix = f"write {{{', '.join(f'{name}: {{option: value}}' for name in factors)}}}"
            raise ConfigError(f"train.loss_options: {key!r} is no term of {expression} with its options", fix=fix)
    takes: dict[Any, Takes] = {name: getattr(find("loss", name), "takes", Loss.takes) for name in factors}
    if len(set(takes.values())) > 1:
        said = ", ".join(f"{name} takes {what}" for name, what in takes.items())
        raise ConfigError(f"train.loss: the terms of {expression} do not go together: {said}", fix="leave one out")
    terms = {}
    for name, what in takes.items():
        needed = what in ("classes", "order")
        if needed and class_weights is None:
            raise ConfigError(
                f"train.loss: {name} takes {what}, the target has none",
                fix="leave train.loss out: the task has its own",
            )
        terms[name] = make_part("loss", name, options.get(name), *[class_weights] * needed)
    return LossSum(terms, factors.values(), what)
