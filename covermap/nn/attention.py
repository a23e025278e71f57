"""What a transformer's heads look at: exact attention of chosen blocks, as maps of the places in a window.

Fused kernels keep no weights, so softmax(q k^T / sqrt(d)) is computed again from what enters a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from covermap.core.errors import ConfigError
from covermap.core.types import Batch
from covermap.nn.backbones.vit import Attention, Block, TokenBackbone
from covermap.nn.dates import fold_dates
from covermap.nn.tokens import Tokens

Query = Literal["class", "mean"]
_CHUNK = 1 << 24
"""Weights that are held at once."""


def received(attention: Attention, x: Tensor, query: Tensor, seen: Tensor, heads: Sequence[int]) -> Tensor:
    """Share of attention that each token gets: (B, H, N), which sums to 1 over tokens.

    x (B, N, D): what the layer is given. query (B, N): weights of the tokens that look, which sum to 1. seen (B, N)
    bool: tokens that may be looked at. heads: H of them.
    """
    batch, length, width = x.shape
    parts = attention.qkv(x).view(batch, length, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    q, k = parts[0][:, list(heads)].float(), parts[1][:, list(heads)].float()
    scale: float = (width // attention.heads) ** -0.5
    total: Tensor = q.new_zeros(batch, len(heads), length)
    looking = torch.nonzero((query > 0).any(0))[:, 0]
    step = max(1, _CHUNK // (batch * len(heads) * length))
    for first in range(0, len(looking), step):
        some = looking[first : first + step]
        score = (q[:, :, some] @ k.transpose(2, 3) * scale).masked_fill(~seen[:, None, None], -torch.inf)
        total += (score.softmax(-1) * query[:, None, some, None]).sum(2)
    return total


def attention_maps(
    backbone: TokenBackbone, batch: Batch, layers: Sequence[int], heads: Sequence[int], query: Query
) -> Tensor:
    """Batch whose sides are multiples -> (B, L H, h, w) relative to uniform attention, NaN where nothing holds data.

    1 is what each place would get if all got the same, so the mean of a window is 1. Of a place all sensors and dates
    are summed; of dates that the backbone sees apart the mean. What class and location tokens get is left out.
    query: whose attention: that of the class token, or the mean over all tokens that hold data.
    """
    num_dates = batch.valid.shape[1]
    single = backbone.dates == "one" and num_dates > 1
    tokens = backbone.tokenise(fold_dates(batch) if single else batch)
    places = tokens.grid[0] * tokens.grid[1]
    there = tokens.x.new_zeros(len(tokens.x), places).scatter_add(1, tokens.place, tokens.there.to(tokens.x)) > 0
    extra = tokens.extra.shape[1]
    looks = _queries(tokens, query)
    found = []
    for block, x in zip(_blocks(backbone, layers), _inputs(backbone, tokens, layers), strict=True):
        share = received(block.attn, block.norm1(x), looks, tokens.seen, heads)[..., extra:]
        at = tokens.place[:, None].expand_as(share)
        summed = share.new_zeros(*share.shape[:2], places).scatter_add(2, at, share * tokens.there[:, None])
        found.append(summed / summed.sum(2, keepdim=True).clamp_min(1e-12) * there.sum(1)[:, None, None])
    maps = torch.cat(found, 1).masked_fill(~there[:, None], torch.nan)
    if single:
        maps = maps.view(-1, num_dates, *maps.shape[1:]).nanmean(1)
    return maps.view(len(batch), -1, *tokens.grid)


def _queries(tokens: Tokens, query: Query) -> Tensor:
    """(B, P + N): weights of the tokens that look."""
    if query == "class":
        first = torch.zeros_like(tokens.seen)
        first[:, 0] = True
    else:
        first = torch.cat([torch.zeros_like(tokens.extra_there), tokens.there], 1)
    return first / first.sum(1, keepdim=True).clamp_min(1)


def _inputs(backbone: TokenBackbone, tokens: Tokens, layers: Sequence[int]) -> list[Tensor]:
    """What enters each of the blocks: what the one before has made, or the tokens themselves."""
    before = sorted({layer - 1 for layer in layers if layer > 0})
    made = dict(zip(before, backbone.contextualise(tokens, before), strict=True)) if before else {}
    return [made[layer - 1] if layer else torch.cat([tokens.extra, tokens.x], 1) for layer in layers]


def _blocks(backbone: TokenBackbone, layers: Sequence[int]) -> list[Block]:
    found = [backbone.trunk_of_tokens.blocks[layer] for layer in layers]
    for layer, block in zip(layers, found, strict=True):
        if not isinstance(block, Block):
            raise ConfigError(
                f"block {layer} is each sensor's own: it has no attention over a window",
                fix=f"--layers from {backbone.layers[-1]} down to the first shared block",
            )
    return [block for block in found if isinstance(block, Block)]


def chosen(
    backbone: TokenBackbone, layers: Sequence[int] | None, heads: Sequence[int] | None, query: str | None
) -> tuple[tuple[int, ...], tuple[int, ...], Query]:
    """Blocks (default: the last), heads (all) and query (class if there is such a token, else mean), as asked.

    Raises ConfigError for those that are not there.
    """
    blocks = backbone.trunk_of_tokens.blocks
    first = next((block for block in reversed(blocks) if isinstance(block, Block)), None)
    if first is None:
        raise ConfigError("each sensor has its own blocks: there is no attention over a window", fix="fewer own_blocks")
    query = query or ("class" if backbone.has_class_token else "mean")
    if query not in ("class", "mean"):
        raise ConfigError(f"--query {query} is not known", fix="class or mean")
    if query == "class" and not backbone.has_class_token:
        raise ConfigError(
            "--query class: the backbone has no class token",
            fix="--query mean, or train it with backbone_options: {class_token: true}",
        )
    found = []
    for what, asked, count in (("layers", layers, len(blocks)), ("heads", heads, first.attn.heads)):
        default = [count - 1] if what == "layers" else list(range(count))
        each = [number + count if number < 0 else number for number in (asked if asked else default)]
        if wrong := [number for number in each if not 0 <= number < count]:
            raise ConfigError(f"--{what} {wrong[0]}: there are {count}", fix=f"numbers from 0 to {count - 1}")
        found.append(tuple(dict.fromkeys(each)))
    return found[0], found[1], "class" if query == "class" else "mean"
