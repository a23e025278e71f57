"""The decoder of published Prithvi masked autoencoders, to go on with what was trained with the encoder.

Layout of the published files: decoder.(mask_token decoder_pos_embed decoder_embed decoder_blocks.{i} decoder_norm
decoder_pred), with TL decoder.(temporal,location)_embed_dec.scale; older files have the same names without `decoder.`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from covermap.core.pretrain_config import MaeConfig
from covermap.core.types import Batch
from covermap.nn.backbones.prithvi import PrithviBackbone, coordinate_codes, position_table, sized_table
from covermap.nn.backbones.vit import Block, BlockShape, Trunk
from covermap.nn.coordinates import day_codes, locations
from covermap.nn.model import Backbone
from covermap.nn.ssl.pixel_decoder import PixelDecoder, Target
from covermap.nn.tokens import Group, Tokens
from covermap.nn.weights import Layout, Report, Tensors, fill, read_tensors

HEADS = 16
LAYOUT = Layout(
    prefixes=("model.decoder.", "decoder.", ""),
    ignore=(
        r"(_timm_module\.)?(cls_token|pos_embed|patch_embed|blocks|norm|temporal_embed_enc|location_embed_enc)\b",
        r"(model\.)?encoder\.",
    ),
    rename=(
        (r"^decoder_pos_embed$", "pos_embed"),
        (r"^decoder_(embed|pred)\.", r"\1."),
        (r"^(temporal|location)_embed_dec\.scale$", r"\1_scale"),
        (r"^decoder_(blocks|norm)\.", r"trunk.\1."),
    ),
    tables=("pos_embed",),
)


class PrithviPixels(nn.Module):
    """Exactly the published decoder; sizes are those of the tensors of a file."""

    pos_embed: Tensor

    def __init__(self, tensors: Tensors, *, num_frames: int, heads: int, eps: float) -> None:
        super().__init__()
        by_end = {name.rsplit("decoder.", 1)[-1]: tensor.shape for name, tensor in tensors.items()}
        width, inputs = by_end["decoder_embed.weight"]
        depth = len({name.split(".")[1] for name in by_end if name.startswith("decoder_blocks.")})
        base = round(((by_end["decoder_pos_embed"][1] - 1) / num_frames) ** 0.5)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("pos_embed", position_table(width, num_frames, base, base))
        self.embed = nn.Linear(inputs, width)
        self.trunk = Trunk(BlockShape(width, heads, 4 * width, eps=eps), depth)
        self.pred = nn.Linear(width, by_end["decoder_pred.weight"][0])
        coords = "temporal_embed_dec.scale" in by_end
        self.temporal_scale = nn.Parameter(torch.ones(1)) if coords else None
        self.location_scale = nn.Parameter(torch.ones(1)) if coords else None


class PrithviDecoder(PixelDecoder):
    """A published decoder as ours: its last layer cut by bands, and a code of the group that starts at 0."""

    def __init__(
        self, published: PrithviPixels, report: Report, encoder: PrithviBackbone, groups: Sequence[Group],
        targets: Sequence[Target], *, heads: int,
    ) -> None:  # fmt: skip
        px, width = encoder.multiple, published.embed.out_features
        super().__init__(
            published.embed.in_features, groups, targets, patch_px=px, width=width, depth=published.trunk.depth,
            heads=heads,
        )  # fmt: skip
        self.mask_token, self.embed, self.trunk = published.mask_token, published.embed, published.trunk
        self.temporal_scale, self.location_scale = published.temporal_scale, published.location_scale
        self.register_buffer("pos_embed", published.pos_embed)
        self.num_frames, self.report = encoder.encoder.num_frames, report
        self.base = encoder.encoder.base
        nn.init.zeros_(self.group_code)
        source = {(c.sensor, c.position): c.source for c in encoder.selection.channels}
        weight, bias = published.pred.weight.data, published.pred.bias.data
        for target in (target for target in targets if target.group == 0):
            mine = [source[target.sensor, i] for i in target.positions]
            head = self.heads[target.key]
            assert isinstance(head, nn.Linear)
            head.weight.data = weight.view(px * px, -1, width)[:, mine].reshape(-1, width).clone()
            head.bias.data = bias.view(px * px, -1)[:, mine].reshape(-1).clone()
        self.notes = (f"the decoder starts from the published one: {report.summary()}",)

    pos_embed: Tensor

    def codes(self, tokens: Tokens, batch: Batch) -> Tensor:
        dates, cells = batch.valid.shape[1], tokens.grid[0] * tokens.grid[1]
        table = sized_table(self.pos_embed, self.num_frames, self.base, (dates, *tokens.grid))[None, 1:].to(
            self.group_code
        )
        for code in coordinate_codes(
            day_codes(batch), locations(batch), self.temporal_scale, self.location_scale, table.shape[2], cells
        ):
            table = table + code
        at = tokens.date[0].clamp_min(0) * cells + tokens.place[0]
        return table[:, at] + self.group_code[tokens.group[:1]]


def published_decoder(
    encoder: Backbone, groups: Sequence[Group], targets: Sequence[Target], config: MaeConfig
) -> PrithviDecoder | None:
    """The decoder of the file that an encoder was loaded from; None where there is none for it.

    It is used for Prithvi with bands that are all published ones, unless the config asks for a decoder of its own.
    Raises ModelError for a file that holds another one.
    """
    if not isinstance(encoder, PrithviBackbone) or not encoder.reports or None in encoder.selection.sources:
        return None
    if config.changed & {"decoder_width", "decoder_depth", "decoder_heads"}:
        return None
    path = Path(encoder.reports[0].path)
    tensors = {
        name: tensor for name, tensor in read_tensors(path).items() if "decoder" in name or "mask_token" in name
    }  # fmt: skip
    if not any(name.endswith("decoder_pred.weight") for name in tensors):
        return None
    network = encoder.encoder
    first = network.trunk.blocks[0]
    assert isinstance(first, Block)
    published = PrithviPixels(tensors, num_frames=network.num_frames, heads=HEADS, eps=first.norm1.eps)
    report = fill(published, tensors, LAYOUT, path=path)
    return PrithviDecoder(published, report, encoder, groups, targets, heads=HEADS)
