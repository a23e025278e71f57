"""DINOv3 of satellite images (Simeoni et al. 2025): ViT-L/16 and ViT-7B/16, from files of three layouts.

Meta's hub file (dinov3_*_sat493m-*.pth), the library's own (model.safetensors) and timm's -> the library's names. The
hub file has query, key and value in one matrix and a mask of their biases, 1 for query and value and 0 for key; it also
holds a norm of local crops, which only training used.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from covermap.core.errors import ModelError
from covermap.core.registry import register
from covermap.nn.backbones.hf import Plain, picture
from covermap.nn.published import Published, Variant
from covermap.nn.weights import Layout, Report, Row, Tensors, adapt_bands, fill, read_tensors

_BIASES = ("q_proj.bias", "v_proj.bias")
_KERNEL = "embeddings.patch_embeddings.weight"
_RENAME = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^(storage_tokens|reg_token)$", "embeddings.register_tokens"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
    (r"^blocks\.", "layer."),
    (r"\.attn\.([qkv])\.", r".attention.\1_proj."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.(?:ls(\d)\.gamma|gamma_(\d))$", r".layer_scale\1\2.lambda1"),
    (r"\.mlp\.(w1|fc1_g)\.", ".mlp.gate_proj."),
    (r"\.mlp\.(w2|fc1_x|fc1)\.", ".mlp.up_proj."),
    (r"\.mlp\.(w3|fc2)\.", ".mlp.down_proj."),
    (r"^layer\.", "model.layer."),
)


def layout(model: Any) -> Layout:
    """How published files of the library's DINOv3ViTModel are written, whichever of the three."""
    return Layout(
        ignore=(r"(embeddings\.)?mask_token$", r"local_cls_norm\."),
        rename=_RENAME,
        convert=partial(_split, model=model),
    )


def _split(tensors: Tensors, *, model: Any) -> Tensors:
    """Query, key and value apart, biases masked, codes of positions compared."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, end = name.rpartition(".")
        if name == "rope_embed.periods":
            _require_periods(tensor, model.rope_embeddings.inv_freq)
        elif name.endswith(".attn.qkv.weight"):
            for part, values in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace(".qkv.", f".{part}.")] = values
        elif name.endswith(".attn.qkv.bias"):
            query, value = _masked(name, tensor, tensors.get(f"{stem}.bias_mask"))
            found |= {f"{stem[:-3]}q.bias": query, f"{stem[:-3]}v.bias": value}
        elif end in ("q_bias", "v_bias"):
            found[f"{stem}.{end[0]}.bias"] = tensor
        elif end != "bias_mask":
            found[name] = tensor
    if model.config.query_bias and _has_no_bias(tensors):
        for name in [name for name in found if name.endswith((".attn.q.weight", ".attn.v.weight"))]:
            found[name.replace("weight", "bias")] = torch.zeros_like(found[name][:, 0])
    return found


def _has_no_bias(tensors: Tensors) -> bool:
    """timm leaves the biases of query and value out, which are zero in the published weights."""
    return "reg_token" in tensors and not any(name.endswith((".q_bias", ".attn.qkv.bias")) for name in tensors)


def _masked(name: str, bias: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Biases of query and value; that of key must be masked, as the library's model has none."""
    if mask is not None:
        bias = bias * mask
    query, key, value = bias.chunk(3)
    if not bias.is_meta and (not torch.isfinite(bias).all() or key.any()):
        raise ModelError(
            f"{name}: the mask of the biases is not 1 for query and value and 0 for key",
            fix="it is set when published weights are loaded; was this file saved from a model without them?",
        )
    return query, value


def _require_periods(periods: Tensor, frequencies: Tensor) -> None:
    """The published table of rotations was rounded to bfloat16, so 1 % off is the same table."""
    same = periods.shape == frequencies.shape
    if same and not periods.is_meta and not frequencies.is_meta:
        same = torch.allclose(periods.float() * frequencies, torch.ones_like(frequencies), atol=0.01)
    if not same:
        raise ModelError("rope_embed.periods are not this model's", fix="is it a checkpoint of another size or family?")


class DinoV3(Plain):
    """Self-supervised ViT with rotary positions, four register tokens and maps at stride 16."""

    library = "DINOv3ViT"
    norm = "norm"

    def without_idle(self, model: Any) -> Any:
        """The model without the token that only masked training uses."""
        model.embeddings.mask_token = None
        return model

    def load(self, path: str | Path) -> Report:
        """Published weights of any of the three layouts, the first layer brought to the bands of the data."""
        published = read_tensors(path)
        change = partial(adapt_bands, selection=self.selection)
        report = fill(self.model, published, layout(self.model), adapt={_KERNEL: change}, path=path)
        report.rows += [
            Row(name, tuple(tensor.shape), "applied", "not a weight")
            for name, tensor in published.items()
            if name.endswith((".bias_mask", "rope_embed.periods"))
        ]
        if _has_no_bias(published):
            report.rows = [
                replace(row, fate="zero", note="left out of the file") if row.name.endswith(_BIASES) else row
                for row in report.rows
            ]
        return report


def _add(name: str, size: str, title: str, **config: Any) -> None:
    published = Published(
        title, repo=f"facebook/dinov3-{size}-pretrain-sat493m", file="model.safetensors", licence="DINOv3 License",
        modalities=(picture((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),), gsd_m=0.6, gated=True,
    )  # fmt: skip
    # The library would stretch positions at random in training, as in pre-training; ours are the same in both.
    config |= {"patch_size": 16, "num_register_tokens": 4, "pos_embed_rescale": None}
    register("backbone", name)(Variant(DinoV3, published, {"config": config}))


_add(
    "dinov3_sat_vitl16", "vitl16", "DINOv3 ViT-L/16: self-supervised, from satellite images at 0.6 m (Meta)",
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
)  # fmt: skip
_add(
    "dinov3_sat_vit7b16", "vit7b16", "DINOv3 ViT-7B/16: self-supervised, from satellite images at 0.6 m (Meta)",
    hidden_size=4096, num_hidden_layers=40, num_attention_heads=32, intermediate_size=8192, hidden_act="silu",
    use_gated_mlp=True, query_bias=False, value_bias=False,
)  # fmt: skip
