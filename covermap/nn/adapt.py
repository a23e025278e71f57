"""How a network learns: which of its tensors train, at what rate, and low-rank updates of its linear layers.

adapt(model, settings): which tensors train      parameter_groups(model, ...): each of them once, with its rate
merge_lora(model): a network without adapters    save_adapter, load_adapter: the low-rank updates alone
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from covermap.core.errors import ConfigError, ModelError, suggest
from covermap.core.output import replacing
from covermap.core.train_config import AdaptConfig
from covermap.nn.hybrid import Hybrid
from covermap.nn.model import Model

LINEARS = {"attention": r"(attn|attention)\.", "mlp": r"(mlp|fc\d|pwconv|linear)", "all": ""}
"""Linear layers of a backbone's blocks by words; otherwise `targets` are regular expressions."""


def adapt(model: Model, settings: AdaptConfig) -> list[str]:
    """Choose what trains, in place; returns sentences about it. Raises ConfigError for choices without effect.

    full: everything. frozen: neck and decoder. head: the classifier alone. partial: the last `blocks` blocks of the
    backbone, neck and decoder. lora: low-rank updates of linear layers of the backbone (Hu et al. 2021), neck and
    decoder. What does not train stays bit for bit as it is, buffers of norms included.
    """
    if settings.method == "full":
        return []
    notes: list[str] = []
    if settings.method == "head":
        model.requires_grad_(False)
        head = getattr(model.decoder, "classify", None)
        if head is None:
            raise ConfigError("this decoder has no classifier of its own", fix="use model.adapt: frozen")
        head.requires_grad_(True)
    else:
        model.backbone.requires_grad_(False)
    if settings.method == "partial":
        _free_last_blocks(model.backbone, settings.blocks)
    if settings.method == "lora":
        notes = _add_lora(model, settings)
    if settings.method != "head" and isinstance(model.backbone, Hybrid):  # what joins parts has no published weights
        model.backbone.add.requires_grad_(True)
    model.hold()
    count = sum(p.numel() for p in model.parameters())
    free = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return [*notes, f"adapt {settings.method}: {free:,} of {count:,} parameters train ({free / count:.1%})"]


def named_blocks(backbone: nn.Module) -> list[str]:
    """Names of a backbone's blocks from input to output: those of its largest list of layers, or lists in these."""
    if isinstance(backbone, Hybrid):
        return [f"{name}.{block}" for name, part in backbone.named_parts() for block in named_blocks(part)]
    lists = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        return []
    name, largest = max(lists, key=lambda pair: _size(pair[1]))  # of equals the first, which is the outer one
    return [block for i, stage in enumerate(largest) for block in _blocks_of(f"{name}.{i}", stage)]


def _blocks_of(name: str, stage: nn.Module) -> list[str]:
    """The blocks of a stage, where a chain in it holds most of its parameters; else the stage itself."""
    for inner, module in stage.named_children():
        if inner in ("blocks", "layers", "layer") and 2 * _size(module) > _size(stage):
            return [f"{name}.{inner}.{i}" for i, _ in module.named_children()]
    return [name]


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def depths(backbone: nn.Module) -> tuple[dict[str, int], int]:
    """{parameter: depth} and the number of blocks L: 0 before the first block, i in block i, L + 1 behind the last.

    What lies between blocks (the embedding of a stage) counts to the block that follows.
    """
    if isinstance(backbone, Hybrid):
        raise ConfigError(
            "layers of backbones side by side have no common order: neither adapt: partial nor train.layer_decay",
            fix="give rates by name, train.rates: {backbone.first: 0.1}, or use adapt: frozen or lora",
        )
    blocks = named_blocks(backbone)
    names = [name for name, _ in backbone.named_parameters()]
    own = [next((i for i, b in enumerate(blocks, 1) if name.startswith(b + ".")), None) for name in names]
    found: dict[str, int] = {}
    following = len(blocks) + 1
    for name, depth in zip(reversed(names), reversed(own), strict=True):
        following = following if depth is None else depth
        found[name] = following
    first = next((i for i, depth in enumerate(own) if depth is not None), 0)
    return found | dict.fromkeys(names[:first], 0), len(blocks)


def _free_last_blocks(backbone: nn.Module, blocks: int | None) -> None:
    found, total = depths(backbone)
    blocks = total // 2 if blocks is None else blocks
    if not 0 < blocks < total:
        raise ConfigError(
            f"model.adapt: partial trains the last blocks of {total}, {blocks} were asked for",
            fix=f"give blocks from 1 to {total - 1}, or use adapt: full or frozen",
        )
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(found[name] > total - blocks)


def lora_targets(backbone: nn.Module, targets: str | Sequence[str]) -> list[str]:
    """Names of the linear layers in a backbone's blocks that the targets mean.

    Raises ConfigError for a target that matches none.
    """
    blocks = tuple(f"{block}." for block in named_blocks(backbone))
    linears = [n for n, m in backbone.named_modules() if isinstance(m, nn.Linear) and n.startswith(blocks)]
    chosen: list[str] = []
    for target in [targets] if isinstance(targets, str) else targets:
        try:
            mine = [name for name in linears if re.search(LINEARS.get(target, target), name)]
        except re.error as error:
            raise ConfigError(
                f"model.adapt.targets: {target!r}: {error}", fix="give attention, mlp, all or a regular expression"
            ) from error
        if not mine:
            kinds = sorted({re.sub(r"^.*?\.\d+\.", "", name) for name in linears})
            raise ConfigError(
                f"model.adapt.targets: {target!r} matches no linear layer of the backbone's blocks",
                fix=f"there are {', '.join(kinds)}" if kinds else "a backbone of convolutions has none: adapt: partial",
            )
        chosen += [name for name in mine if name not in chosen]
    return chosen


def _add_lora(model: Model, settings: AdaptConfig) -> list[str]:
    from peft import LoraConfig, inject_adapter_in_model

    targets = lora_targets(model.backbone, settings.targets)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha or settings.rank, lora_dropout=settings.dropout,
        target_modules=targets,
    )  # fmt: skip
    inject_adapter_in_model(config, model.backbone)
    return [f"low-rank updates of rank {settings.rank} in {len(targets)} linear layers"]


def has_lora(model: nn.Module) -> bool:
    """Whether adapters are in a network."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


def merge_lora(model: Model) -> Model:
    """Make the low-rank updates part of the weights, in place: the network is then as before they were added."""
    if not has_lora(model):
        return model
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    model.hold()
    return model


def save_adapter(model: Model, path: Path, *, base: Mapping[str, str]) -> None:
    """The low-rank updates alone, with what they belong to (`base`: backbone, weights), as safetensors."""
    tensors = {n: p.detach().cpu().contiguous() for n, p in model.backbone.named_parameters() if ".lora_" in n}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata=dict(base))


def load_adapter(model: Model, path: str | Path, *, base: Mapping[str, str]) -> None:
    """Fill a network's low-rank updates from a file; raises ModelError for those of another model."""
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is no adapter file: {error}", fix="give adapter.safetensors of a run") from error
    for key, value in base.items():
        if meta.get(key) != value:
            raise ModelError(
                f"{path} was trained for {key} {meta.get(key)}, this model has {value}", fix="use its own model"
            )
    mine = {name: p for name, p in model.backbone.named_parameters() if ".lora_" in name}
    wrong = sorted(set(mine) ^ set(tensors)) or [n for n, p in mine.items() if p.shape != tensors[n].shape]
    if wrong:
        raise ModelError(f"{path} does not fit: {', '.join(wrong[:3])}", fix="use the same rank and targets")
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(tensors[name])


def parameter_groups(
    model: Model, *, lr: float, weight_decay: float, rates: Mapping[str, float] | None = None, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser that hold every trainable tensor exactly once.

    rates: {name or its beginning: factor on lr}, such as {backbone: 0.1}. layer_decay d < 1: block i of L of the
    backbone learns at d^(L + 1 - i) (Clark et al. 2020; Bao et al. 2021). Weight decay acts on matrices and kernels.
    `factor` of a group: its rate in units of lr.
    Raises ConfigError for a name that matches nothing that trains, or two that match one tensor.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    factors = dict.fromkeys(trainable, 1.0)
    owner: dict[str, str] = {}
    for pattern, factor in (rates or {}).items():
        mine = [name for name in trainable if name == pattern or name.startswith(pattern + ".")]
        if not mine:
            known = {name for name, _ in model.named_modules() if name}
            what = "does not train" if pattern in known else "is no part of the model"
            raise ConfigError(f"train.rates: {pattern!r} {what}", fix=suggest(pattern, _parts(trainable)))
        for name in mine:
            if name in owner:
                raise ConfigError(
                    f"train.rates: {owner[name]!r} and {pattern!r} both mean {name}", fix="name each part once"
                )
            owner[name], factors[name] = pattern, factor
    if layer_decay != 1.0:
        found, total = depths(model.backbone)
        if not total or not any(name.startswith("backbone.") for name in trainable):
            what = "of the backbone nothing trains" if total else "this backbone has no blocks"
            raise ConfigError(f"train.layer_decay has no effect: {what}", fix="leave it out, or use train.rates")
        for name in trainable:
            if name.startswith("backbone."):
                factors[name] *= layer_decay ** (total + 1 - found[name.removeprefix("backbone.")])
    groups: dict[tuple[float, bool], list[str]] = {}
    for name, p in trainable.items():
        groups.setdefault((factors[name], p.ndim > 1), []).append(name)
    return [
        {
            "params": [trainable[name] for name in names],
            "lr": lr * factor,
            "factor": factor,
            "weight_decay": weight_decay * decayed,
        }
        for (factor, decayed), names in groups.items()
    ]


def _parts(names: Mapping[str, Any]) -> set[str]:
    """The first one and two words of tensors' names."""
    return {".".join(name.split(".")[:n]) for name in names for n in (1, 2, 3)}
