"""Losses of what became what, against plain forms in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from covermap.core.errors import ConfigError
from covermap.nn.losses.expression import make_loss

K = 4


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 2 * K + 2, 6, 6, generator=generator, dtype=torch.float64)
    before = torch.randint(0, K, (3, 6, 6), generator=generator).double()
    after = torch.where(torch.rand(3, 6, 6, generator=generator) < 0.4, (before + 1) % K, before)
    target = torch.stack([before, after, (before != after).double()], 1)
    target[:, 0, 0], target[:, 1, 1], target[:, 2, 2] = torch.nan, torch.nan, torch.nan
    target[:, :, 3] = torch.nan
    return logits, target


def mean(name: str, logits: torch.Tensor, target: torch.Tensor, **options: float) -> float:
    loss = make_loss(name, options)
    return float((loss(logits, target) / loss.mass(target)).sum())


def shares(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def parts(logits: torch.Tensor) -> tuple[np.ndarray, ...]:
    x = logits.numpy()
    return tuple(shares(part) for part in (x[:, :K], x[:, K : 2 * K], x[:, 2 * K :]))


def nll(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    known = ~np.isnan(y)
    return -np.log(np.moveaxis(p, 1, -1)[known][np.arange(known.sum()), y[known].astype(int)])


def test_each_equals_its_plain_form_over_what_is_known() -> None:
    logits, target = example()
    before, after, change = parts(logits)
    y = target.numpy()
    both = np.concatenate([nll(before, y[:, 0]), nll(after, y[:, 1])])
    assert mean("semantic", logits, target) == pytest.approx(both.mean(), rel=1e-9)
    assert mean("change", logits, target) == pytest.approx(nll(change, y[:, 2]).mean(), rel=1e-9)
    known = ~np.isnan(y[:, 2])
    weight = np.where(y[:, 2][known] == 1, 5.0, 1.0)
    weighted = (weight * nll(change, y[:, 2])).sum() / weight.sum()
    assert mean("change", logits, target, weight=5.0) == pytest.approx(weighted, rel=1e-9)
    same = (before * after).sum(1)
    cost = np.where(y[:, 2] == 1, -np.log(1 - same), -np.log(same))[known]
    assert mean("consistency", logits, target) == pytest.approx(cost.mean(), rel=1e-9)
    dice = []
    for p, t, k in zip(change[:, 1], y[:, 2], known, strict=True):
        hit, said, there = (p * (t == 1))[k].sum(), p[k].sum(), (t == 1)[k].sum()
        dice.append(1 - (2 * hit + 1) / (said + there + 1))
    assert mean("change_dice", logits, target) == pytest.approx(np.mean(dice), rel=1e-6)


def test_classes_that_agree_with_the_mask_cost_less_than_those_that_do_not() -> None:
    logits, target = example()
    target[:, 2] = torch.where(target[:, 2].isnan(), torch.zeros_like(target[:, 2]), target[:, 2])
    same = logits.clone()
    same[:, K : 2 * K] = same[:, :K]
    nothing = target.clone()
    nothing[:, 2] = 0
    assert mean("consistency", same, nothing) < mean("consistency", logits, nothing)
    with pytest.raises(ConfigError, match="weight"):
        make_loss("change", {"weight": 0})
    with pytest.raises(ConfigError, match="do not go together"):
        make_loss("semantic + cross_entropy", class_weights=torch.ones(3))
