"""The shared transformer core: pre-norm blocks on fused attention, position codes, patches.

Every plain vision transformer of the project is built from these blocks; what differs between families (biases,
norms, gated MLPs) is a field of `BlockShape`. Tokens are (B, N, D).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.registry import find, names
from covermap.core.types import Batch
from covermap.nn.model import Backbone
from covermap.nn.tokens import Group, Tokens


@dataclass(frozen=True)
class BlockShape:
    """Sizes and switches of one block: width D, heads, hidden units of the MLP, biases, gated (SwiGLU), epsilon."""

    width: int
    heads: int
    hidden: int
    qkv_bias: bool = True
    proj_bias: bool = True
    mlp_bias: bool = True
    gated: bool = False
    eps: float = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection (Vaswani et al. 2017)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=shape.qkv_bias)
        self.proj = nn.Linear(shape.width, shape.width, bias=shape.proj_bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D). mask (B, 1, 1, N) bool: which tokens may be looked at."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        joined: Tensor = self.proj(out.transpose(1, 2).reshape(batch, length, width))
        return joined


class Mlp(nn.Module):
    """Two layers with GELU, or gated by SiLU (Shazeer 2020): fc2(silu(fc1 x) * fc3 x)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.hidden, bias=shape.mlp_bias)
        self.fc2 = nn.Linear(shape.hidden, shape.width, bias=shape.mlp_bias)
        self.fc3 = nn.Linear(shape.width, shape.hidden, bias=shape.mlp_bias) if shape.gated else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        hidden = functional.gelu(self.fc1(x)) if self.fc3 is None else functional.silu(self.fc1(x)) * self.fc3(x)
        out: Tensor = self.fc2(hidden)
        return out


class Block(nn.Module):
    """One pre-norm transformer block (Dosovitskiy et al. 2021)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.attn = Attention(shape)
        self.norm2 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.mlp = Mlp(shape)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn(self.norm1(x), mask)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Trunk(nn.Module):
    """Blocks in a row and the last norm."""

    def __init__(self, shape: BlockShape, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(shape) for _ in range(depth))
        self.norm = nn.LayerNorm(shape.width, eps=shape.eps)
        self.depth, self.width = depth, shape.width
        self.apply(_initialise)

    def trim(self, last: int) -> None:
        """Take out the blocks after `last`, and the norm that only the very last block has."""
        del self.blocks[last + 1 :]
        if last < self.depth - 1:
            del self.norm

    def forward(self, x: Tensor, layers: Sequence[int], *, mask: Tensor | None = None) -> list[Tensor]:
        """Tokens after each of the given blocks (counted from 0); only after the last block they are normed."""
        wanted, found = set(layers), {}
        x = x.contiguous()  # tokens made from maps are not, and every norm would copy them
        for index, block in enumerate(self.blocks):
            if index > max(wanted):
                break
            x = block(x, mask)
            if index in wanted:
                found[index] = self.norm(x) if index == self.depth - 1 else x
        return [found[index] for index in layers]


class PatchBackbone(Backbone):
    """Maps of chosen blocks of a Trunk, all at the stride of a patch."""

    local = False
    layers: tuple[int, ...]

    def announce(self, layers: Sequence[int] | None, *, depth: int, width: int, patch_px: int) -> None:
        """Set what follows from the chosen blocks: their numbers, and channels and strides of their maps."""
        self.layers = choose_layers(depth, layers)
        self.channels = (width,) * len(self.layers)
        self.strides = (patch_px,) * len(self.layers)

    def trim(self) -> None:
        """Take out the blocks after the last chosen one."""
        for trunk in [module for module in self.modules() if isinstance(module, Trunk)]:
            trunk.trim(self.layers[-1])


class TokenBackbone(PatchBackbone):
    """A PatchBackbone of which any part of the tokens passes through its blocks.

    token_groups: what its tokens stand for. has_class_token: whether the first extra token is one of the class.
    """

    token_groups: tuple[Group, ...]
    has_class_token: bool = False

    @abstractmethod
    def tokenise(self, batch: Batch) -> Tokens:
        """Batch whose sides are multiples -> all tokens before the first block; absent sensors have none."""

    def contextualise(self, tokens: Tokens, layers: Sequence[int]) -> list[Tensor]:
        """All tokens or a part -> (B, P + k, D) after each of the given blocks, the extra tokens first.

        Tokens that are not there are not looked at; what stands in their place then means nothing.
        """
        found: list[Tensor] = self.trunk_of_tokens(
            torch.cat([tokens.extra, tokens.x], 1), layers, mask=attention_mask(tokens.seen)
        )
        return found

    @property
    def trunk_of_tokens(self) -> Trunk:
        """The blocks that all tokens pass."""
        return next(module for module in self.modules() if isinstance(module, Trunk))

    @property
    def token_width(self) -> int:
        """Numbers of a token."""
        return self.trunk_of_tokens.width


def require_tokens(backbone: Backbone, purpose: str) -> TokenBackbone:
    """The backbone as one of tokens; raises ConfigError that names those which are."""
    if isinstance(backbone, TokenBackbone):
        return backbone
    kinds = {name: getattr(find("backbone", name), "kind", find("backbone", name)) for name in names("backbone")}
    able = [name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, TokenBackbone)]
    raise ConfigError(
        f"{purpose} needs a backbone made of tokens, {type(backbone).__name__} gives none",
        fix=f"one of {', '.join(able)}",
    )


def _initialise(module: nn.Module) -> None:
    """Weights for training from scratch (Dosovitskiy et al. 2021; Touvron et al. 2021)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def choose_layers(depth: int, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The blocks whose outputs become features, counted from 0: as asked, or four evenly spread, the last among them.

    Depth 12 -> 2, 5, 8, 11; negative numbers count from the end. Raises ConfigError for a block that is not there.
    """
    if layers is None:
        return tuple(dict.fromkeys(max(0, round(depth * (i + 1) / 4) - 1) for i in range(4)))
    whole = all(isinstance(layer, int) for layer in layers)
    found = tuple(layer + depth if layer < 0 else layer for layer in layers)
    if not found or not whole or found[0] < 0 or found[-1] >= depth or list(found) != sorted(set(found)):
        raise ConfigError(
            f"layers {list(layers)} are not blocks of a network of {depth}",
            fix=f"give rising numbers from 0 to {depth - 1}, or leave layers out",
        )
    return found


def attention_mask(seen: Tensor) -> Tensor | None:
    """(B, N) bool, which tokens count -> mask (B, 1, 1, N), or None where all do, which is faster.

    A graph that is recorded for other programs has to hold for any input, and keeps the mask.
    """
    if not torch.compiler.is_compiling() and bool(seen.all()):
        return None
    return seen[:, None, None]


def token_map(tokens: Tensor, grid: tuple[int, int], *, skip: int = 0) -> Tensor:
    """Tokens (B, skip + h w, D), rows first -> (B, D, h, w); the first `skip` (class, registers) are left out."""
    assert tokens.shape[1] == skip + grid[0] * grid[1], (tuple(tokens.shape), grid, skip)
    return tokens[:, skip:].transpose(1, 2).reshape(len(tokens), tokens.shape[2], *grid)


def embed_patches(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """(B, C, H, W), kernel (D, C, p, p) -> tokens (B, h w, D), rows first.

    The convolution with stride p as one matrix product: on two cores 1.2 to 2.3 times as fast, and the tokens lie
    in memory as the blocks want them.
    """
    batch, bands, height, width = x.shape
    p = kernel.shape[-1]
    rows, cols = height // p, width // p
    cut = x.reshape(batch, bands, rows, p, cols, p).permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * cols, -1)
    return functional.linear(cut, kernel.reshape(len(kernel), -1), bias)


def sincos_1d(positions: Tensor, width: int) -> Tensor:
    """Positions (N,) -> (N, width) float64: sines, then cosines, of frequencies 10000^(-2 i / width)."""
    omega = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = positions.to(torch.float64).reshape(-1, 1) * omega
    return torch.cat([angle.sin(), angle.cos()], 1)


def resize_table(table: Tensor, size: tuple[int, int], *, align_corners: bool) -> Tensor:
    """A position table (h, w, D) brought to (h', w', D) by bicubic interpolation; unchanged where the size fits."""
    if tuple(table.shape[:2]) == size:
        return table
    grid = table.permute(2, 0, 1)[None]
    out = functional.interpolate(grid, size=size, mode="bicubic", align_corners=align_corners)
    return out[0].permute(1, 2, 0)
