"""What moves the weights: optimisers with a group for every kind of parameter, and the rate over the steps."""

from __future__ import annotations

import math
from typing import Any

import torch

from covermap.core.train_config import TrainConfig
from covermap.nn.adapt import parameter_groups
from covermap.nn.model import Model


def make_optimiser(network: Model, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a network's trainable parameters by the config; raises ConfigError."""
    groups = parameter_groups(
        network, lr=config.lr, weight_decay=config.weight_decay, rates=config.rates, layer_decay=config.layer_decay
    )
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, fused=True)


def make_schedule(optimiser: Any, config: TrainConfig, steps_per_epoch: int) -> Any:
    """The rate over all steps by the config: one call of step() a step, or of plateau a validation."""
    if config.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=config.plateau_factor, patience=config.plateau_patience, min_lr=1e-8
        )
    total = config.epochs * steps_per_epoch
    return warming_up(optimiser, total, config.warmup, cosine=config.schedule == "cosine")


def warming_up(optimiser: Any, total: int, warmup: float, *, cosine: bool) -> Any:
    """A rate that rises in a straight line over a share of all steps, and falls by half a cosine or stays."""
    rising = warmup * total

    def factor(step: int) -> float:
        up = min(1.0, (step + 1) / rising) if rising >= 1 else 1.0
        return up * (0.5 * (1 + math.cos(math.pi * min(1.0, step / total))) if cosine else 1.0)

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
