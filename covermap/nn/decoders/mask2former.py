"""Mask2Former: queries that each find a mask and its class (Cheng et al. 2022), with the modules of transformers.

features -> deformable attention over three maps (pixel decoder) -> queries, masked attention -> class and mask of each
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ConfigError, MissingExtra
from covermap.core.legend import IGNORE
from covermap.core.registry import register
from covermap.core.types import Features
from covermap.nn.layers import enlarge
from covermap.nn.model import Decoder
from covermap.nn.weights import Layout, fill, read_tensors

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT, NO_OBJECT = 2.0, 5.0, 5.0, 0.1
"""What the paper's three terms, and queries that find nothing, count for."""
LAYOUT = Layout(
    ignore=(r"model\.pixel_level_module\.encoder\.", r"criterion\.", r".*relative_position_index$"),
    rename=((r"^model\.pixel_level_module\.decoder\.", "pixel."), (r"^model\.transformer_module\.", "transformer.")),
)


@register("decoder", "mask2former")
class Mask2FormerDecoder(Decoder):
    """Class scores of a pixel: sum over queries of P(class) P(mask), made to add up to 1, as logarithms.

    queries, layers: of the transformer decoder. points: labelled pixels of a window that the loss looks at. weights: a
    published Mask2Former whose decoder is taken over; its classes only where there are as many.
    """

    pyramid = True
    min_maps = 3
    has_own_loss = True
    miniature = MappingProxyType({"width": 64, "queries": 20, "layers": 3, "encoder_layers": 2, "points": 1024})

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[float],
        num_classes: int,
        *,
        width: int = 256,
        queries: int = 100,
        layers: int = 9,
        encoder_layers: int = 6,
        points: int = 4096,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if width % 32:
            raise ConfigError(f"mask2former's width is a multiple of 32, not {width}", fix="use width: 256")
        self.num_maps, self.num_classes, self.points = min(4, len(channels)), num_classes, points
        self.parts = _parts(
            channels[-self.num_maps :], num_classes, feature_size=width, mask_feature_size=width, hidden_dim=width,
            encoder_feedforward_dim=4 * width, dim_feedforward=8 * width, num_queries=queries,
            decoder_layers=layers + 1, encoder_layers=encoder_layers, num_attention_heads=max(1, width // 32),
        )  # fmt: skip
        if weights:
            self.load(weights)

    def uses(self, num_maps: int) -> Sequence[int]:
        """The coarsest four."""
        return range(num_maps - self.num_maps, num_maps)

    def load(self, path: str | Path) -> None:
        """Fill the decoder with published weights; what is of another backbone's widths or classes stays as it is.

        That are projections of its maps and the classifier. Raises ModelError for anything else that does not fit.
        """
        own, published = self.parts.state_dict(), read_tensors(path)
        for theirs, tensor in published.items():
            name = re.sub(*LAYOUT.rename[0], theirs)
            free = name.startswith(("pixel.input_projections", "pixel.adapter", "class_predictor"))
            if free and name in own and own[name].shape != tensor.shape:
                published[theirs] = own[name]
        fill(self.parts, published, LAYOUT, path=path)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """maps (B, C_i, H / S_i, W / S_i) -> logits (B, K, *size)."""
        classes, masks = self.queries(features)[-1]
        shares = classes.softmax(-1)[..., :-1]
        scores = torch.einsum("bqk,bqhw->bkhw", shares, enlarge(masks, size).sigmoid())
        return (scores + 1e-6).log() - (scores.sum(1, keepdim=True) + 1e-6 * self.num_classes).log()

    def queries(self, features: Features) -> list[tuple[Tensor, Tensor]]:
        """After each layer: logits of classes (B, Q, K + 1), the last for none, and of masks (B, Q, h, w)."""
        pixel = self.parts.pixel(list(features.maps[-self.num_maps :]), output_hidden_states=False, return_dict=True)
        found = self.parts.transformer(
            multi_scale_features=list(pixel.multi_scale_features), mask_features=pixel.mask_features,
            output_hidden_states=True, output_attentions=False,
        )  # fmt: skip
        classes = [self.parts.class_predictor(x.transpose(0, 1)) for x in found.intermediate_hidden_states]
        return list(zip(classes, found.masks_queries_logits, strict=True))

    def own_loss(self, features: Features, label: Tensor) -> tuple[Tensor, Tensor]:
        """The paper's loss after every layer, summed over windows, and the number of windows with a label.

        Queries are matched to the classes of a window once for each layer. Only labelled pixels are looked at, `points`
        of each window, drawn with replacement and the same for all masks (the paper draws more where a mask is unsure).
        """
        layers = self.queries(features)
        total, count = layers[0][0].sum() * 0.0, 0
        for i, window in enumerate(label):
            rows, cols = torch.nonzero(window != IGNORE, as_tuple=True)
            if not len(rows):
                continue
            count += 1
            drawn = torch.randint(len(rows), (self.points,), device=label.device)
            rows, cols = rows[drawn], cols[drawn]
            seen = window[rows, cols]
            present = torch.unique(seen)
            truth = (seen[None] == present[:, None]).float()
            height, width = window.shape
            place = torch.stack([2 * (cols + 0.5) / width - 1, 2 * (rows + 0.5) / height - 1], -1)[None, None]
            for classes, masks in layers:
                at = functional.grid_sample(masks[i : i + 1].float(), place, align_corners=False)
                total = total + _loss(classes[i].float(), at[0, :, 0], present, truth, self.num_classes)
        return total, torch.tensor(float(count), device=label.device)


def _loss(classes: Tensor, masks: Tensor, present: Tensor, truth: Tensor, none: int) -> Tensor:
    """classes (Q, K + 1), masks (Q, P), the window's classes (M,) and where they are (M, P) -> loss of the match."""
    query, target = _match(classes.detach(), masks.detach(), present, truth)
    wanted = torch.full((len(classes),), none, device=classes.device)
    wanted[query] = present[target]
    weight = torch.ones(none + 1, device=classes.device)
    weight[none] = NO_OBJECT
    mine, theirs = masks[query], truth[target]
    loss = CLASS_WEIGHT * functional.cross_entropy(classes, wanted, weight)
    loss = loss + MASK_WEIGHT * functional.binary_cross_entropy_with_logits(mine, theirs)
    share = mine.sigmoid()
    dice = 1 - (2 * (share * theirs).sum(1) + 1) / (share.sum(1) + theirs.sum(1) + 1)
    return loss + DICE_WEIGHT * dice.mean()


def _match(classes: Tensor, masks: Tensor, present: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and classes that belong together at the least cost (Hungarian algorithm)."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingExtra("scipy", "ml", "the decoder mask2former") from error
    number = masks.shape[1]
    cost = -CLASS_WEIGHT * classes.softmax(-1)[:, present]
    right, wrong = functional.softplus(-masks), functional.softplus(masks)
    cost = cost + MASK_WEIGHT * (right @ truth.T + wrong @ (1 - truth).T) / number
    share = masks.sigmoid()
    dice = 1 - (2 * share @ truth.T + 1) / (share.sum(1)[:, None] + truth.sum(1)[None] + 1)
    rows, cols = linear_sum_assignment((cost + DICE_WEIGHT * dice).cpu().numpy())
    return torch.as_tensor(rows, device=masks.device), torch.as_tensor(cols, device=masks.device)


def _parts(channels: Sequence[int], num_classes: int, **settings: Any) -> Any:
    """Pixel decoder, transformer decoder and classifier, with the published initial weights."""
    # Only here: the library takes seconds to load.
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former import modeling_mask2former as published

    class Parts(published.Mask2FormerPreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.pixel = published.Mask2FormerPixelDecoder(config, feature_channels=list(channels))
            self.transformer = published.Mask2FormerTransformerModule(config.feature_size, config)
            self.class_predictor = nn.Linear(config.hidden_dim, num_classes + 1)
            self.post_init()  # type: ignore[no-untyped-call]

    # Only ratios of strides count; three maps have no finer one to join.
    strides = [4, 8, 16, 32][-len(channels) :]
    with warnings.catch_warnings(action="ignore"):
        return Parts(Mask2FormerConfig(feature_strides=strides, common_stride=strides[0], **settings))
