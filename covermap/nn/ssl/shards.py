"""Weights, gradients and optimiser state shared out among processes (FSDP), for what one GPU cannot hold.

Each process keeps a part of every weight; those of a block are put together for as long as it computes. What looks at
the network, or keeps it, needs whole weights: the main process has a copy for that, without gradients.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from covermap.core.errors import ConfigError
from covermap.nn.adapt import named_blocks
from covermap.nn.ssl.gather import world
from covermap.nn.ssl.method import Method


class Shards:
    """A method cut into the parts of each process, in place; make the optimiser behind it.

    Every call is one of all processes, which have to have the same to do: require_shared_work.
    """

    def __init__(self, method: Method, device: torch.device, *, main: bool) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.method = method.to(device)
        self.copy = copy.deepcopy(method).requires_grad_(False) if main else None
        mesh = init_device_mesh(device.type, (world(),))
        for part in _parts(method):
            fully_shard(part, mesh=mesh)
        fully_shard(method, mesh=mesh)

    def whole(self) -> Method | None:
        """The method as it is now, in the main process; None in others."""
        from torch.distributed.checkpoint.state_dict import get_model_state_dict

        state = get_model_state_dict(self.method, options=_whole())
        if self.copy is not None:
            self.copy.load_state_dict(state)
        return self.copy

    def optimiser_state(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """State of the optimiser by name of the weight; empty but in the main process."""
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        return get_optimizer_state_dict(self.method, optimiser, options=_whole())

    def load(self, method: dict[str, Any], optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take on what `whole` and `optimiser_state` gave."""
        from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

        set_model_state_dict(self.method, method, options=_whole())
        set_optimizer_state_dict(self.method, optimiser, state, options=_whole())


def _whole() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def _parts(method: Method) -> list[nn.Module]:
    """Blocks of the encoder, and of a teacher like it."""
    encoders = [method.encoder, *(part for name, part in method.named_modules() if name == "teacher.parts.encoder")]
    return [encoder.get_submodule(name) for encoder in encoders for name in named_blocks(encoder)]


def require_shared_work(method: Method) -> None:
    """Refuse what lets processes compute different blocks, for a block's weights are put together by all of them.

    Raises ConfigError; also for one process, which has none to share with.
    """
    if world() == 1:
        raise ConfigError(
            "train.fsdp shares out a network among processes, and there is one",
            fix="torchrun --nproc-per-node 2 -m covermap pretrain ..., or leave it out",
        )
    if len(method.inputs) > 1 and (odd := [name for name in method.inputs if name in method.encoder.optional]):
        raise ConfigError(
            f"train.fsdp: windows may lack {odd[0]}, and processes would wait for each other",
            fix="leave it out, or use a backbone that needs all its sensors, or one sensor: covermap models list",
        )
