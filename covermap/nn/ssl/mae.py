"""Masked autoencoder (He et al. 2022): the pixels of hidden patches from those of the others, for any sensors.

windows -> tokens -> states (masks.py) -> the visible ones through the encoder -> a light decoder over all -> pixels of
the hidden ones -> error of each sensor

Sensors of the windows that the encoder does not take are targets only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from covermap.core.errors import ConfigError, DataError
from covermap.core.pretrain_config import MaeConfig
from covermap.core.types import Batch, InputSpec
from covermap.nn.backbones.vit import require_tokens
from covermap.nn.dates import fold_dates
from covermap.nn.model import Backbone, pad_to_multiple
from covermap.nn.ssl.losses import masked_mse, mean_and_std
from covermap.nn.ssl.mae_prithvi import published_decoder
from covermap.nn.ssl.masks import TARGET, VISIBLE, Masker, Where
from covermap.nn.ssl.method import Method, generators
from covermap.nn.ssl.pixel_decoder import PixelDecoder, patchify, pixels, targets_of, unpatchify
from covermap.nn.tokens import Group, Tokens, holds_data, lay_out, patches_there

MASKS = 7
"""Purpose of the numbers that masks are drawn from."""


@dataclass(frozen=True)
class Reconstruction:
    """{sensor: (B, T, C, H, W)}: images with the hidden patches as predicted, and which pixels these are (bool)."""

    image: dict[str, Tensor]
    hidden: dict[str, Tensor]


@dataclass(frozen=True)
class _Drawn:
    """Windows as the encoder gets them (dates folded, if it takes one), their tokens, states and decoded tokens."""

    batch: Batch
    known: dict[str, Tensor]
    tokens: Tokens
    states: Tensor
    decoded: Tensor


class MaskedAutoencoder(Method):
    """A masked autoencoder around any backbone made of tokens.

    spec: all sensors of the windows. notes: what is to be said of the decoder. Raises ConfigError for a backbone
    without tokens, and for masks that hide all or nothing of it.
    """

    def __init__(self, encoder: Backbone, spec: InputSpec, config: MaeConfig) -> None:
        super().__init__()
        backbone = require_tokens(encoder, "method: mae")
        self.encoder, self.config = encoder, config
        known = {sensor for group in backbone.token_groups for sensor in group.sensors}
        self.inputs = tuple(entry.sensor for entry in spec.sensors if entry.sensor in known)
        self.unseen = tuple(entry.sensor for entry in spec.sensors if entry.sensor not in known)
        more = [e for e in spec.sensors if e.sensor in self.unseen]
        self.groups = backbone.token_groups + tuple(
            Group(e.sensor, tuple((e.sensor, i) for i in range(len(e.bands))), (e.sensor,)) for e in more
        )
        self.targets = targets_of(self.groups)
        self.masker = Masker(
            config.strategy, config.mask, decode_only=range(len(backbone.token_groups), len(self.groups))
        )  # fmt: skip
        self._require_units(spec)
        self.patch_px = encoder.multiple
        self.decoder = published_decoder(encoder, self.groups, self.targets, config) or PixelDecoder(
            backbone.token_width, self.groups, self.targets, patch_px=self.patch_px,
            width=config.decoder_width, depth=config.decoder_depth, heads=config.decoder_heads,
        )  # fmt: skip
        said = f"{', '.join(self.unseen)}: predicted, and not seen by the encoder"
        self.notes: tuple[str, ...] = (*((said,) if self.unseen else ()), *getattr(self.decoder, "notes", ()))

    def _require_units(self, spec: InputSpec) -> None:
        """Raise ConfigError for strategies that hide whole dates or sensors of which there is one."""
        single = self.encoder.dates == "one"
        if self.config.strategy == "dates" and (single or spec.num_dates < 2):
            why = "the backbone takes one date at a time" if single else "the windows have one date"
            raise ConfigError(f"method.strategy: dates hides whole dates, and {why}", fix="use tube, random or block")
        if self.config.strategy == "sensors" and len(self.groups) - len(self.unseen) < 2:
            raise ConfigError(
                "method.strategy: sensors hides whole sensors, and the backbone's tokens are of all of them together",
                fix="use random, or a backbone that keeps sensors apart, such as sensor_vit_tiny, and two sensors",
            )

    def forward(self, batch: Batch, seeds: Sequence[int]) -> dict[str, Tensor]:
        """loss: the mean of the errors of all sensors; mae_SENSOR: of each, where there are several."""
        drawn = self._draw(batch, seeds)
        errors: dict[str, list[Tensor]] = {target.sensor: [] for target in self.targets}
        for target in self.targets:
            mine = drawn.tokens.group[0] == target.group
            if not bool(mine.any()):
                errors[target.sensor].append(drawn.decoded.new_zeros(()))
                continue
            dates, predicted = self._dates(mine, drawn), self.decoder.heads[target.key](drawn.decoded[:, mine])
            wanted = patchify(pixels(drawn.batch.image, target, dates), self.patch_px)
            known = patchify(pixels(drawn.known, target, dates), self.patch_px)
            weight = known & (drawn.states[:, mine] == TARGET)[..., None]
            together = [each.reshape(len(batch), -1, each.shape[2]) for each in (predicted, wanted, weight)]
            errors[target.sensor].append(masked_mse(*together, norm_pix=self.config.norm_pix))
        terms = {f"mae_{sensor}": torch.stack(parts).mean() for sensor, parts in errors.items()}
        loss = torch.stack(list(terms.values())).mean()
        return {"loss": loss, **(terms if len(terms) > 1 else {})}

    @torch.no_grad()
    def reconstruct(self, batch: Batch, seeds: Sequence[int]) -> Reconstruction:
        """Patches that the seeds hide, as predicted; with norm_pix their own mean and std are put back."""
        drawn = self._draw(batch, seeds)
        image = {name: x.clone() for name, x in drawn.batch.image.items()}
        hidden = {name: torch.zeros_like(x, dtype=torch.bool) for name, x in image.items()}
        for target in self.targets:
            mine = drawn.tokens.group[0] == target.group
            if not bool(mine.any()):
                continue
            dates, predicted = self._dates(mine, drawn), self.decoder.heads[target.key](drawn.decoded[:, mine]).float()
            before = pixels(drawn.batch.image, target, dates)
            patches = patchify(before, self.patch_px)
            if self.config.norm_pix:
                known = patchify(pixels(drawn.known, target, dates), self.patch_px)
                mean, std = mean_and_std(patches, known)
                predicted = predicted * std + mean
            asked = (drawn.states[:, mine] == TARGET)[..., None].expand_as(patches)
            at = slice(0, min(dates, image[target.sensor].shape[1])), list(target.positions)
            whole = unpatchify(torch.where(asked, predicted, patches), self.patch_px, before.shape)
            image[target.sensor][:, *at] = whole[:, at[0]].to(image[target.sensor].dtype)
            hidden[target.sensor][:, *at] = unpatchify(asked, self.patch_px, before.shape)[:, at[0]]
        shapes = {name: x.shape for name, x in batch.image.items()}
        return Reconstruction(
            {name: _as_given(x, shapes[name]) for name, x in image.items()},
            {name: _as_given(x, shapes[name]) for name, x in hidden.items()},
        )

    def _draw(self, batch: Batch, seeds: Sequence[int]) -> _Drawn:
        """Draw what is hidden, encode the rest, and decode."""
        lost = [name for name in self.inputs if name not in batch.image and name not in self.encoder.optional]
        if lost:
            raise DataError(f"the windows lack {', '.join(lost)}, which the backbone needs", fix="give its images")
        batch = pad_to_multiple(batch, self.patch_px)
        num_dates = batch.valid.shape[1]
        one = self.encoder.dates == "one" and num_dates > 1
        windows, known = _cleaned(fold_dates(batch) if one else batch)
        backbone = require_tokens(self.encoder, "method: mae")
        inputs = replace(windows, image={name: x for name, x in windows.image.items() if name in self.inputs})
        tokens = self._with_unseen(backbone.tokenise(inputs), windows)
        if tokens.x.shape[1] < 2:
            side = self.patch_px
            raise ConfigError(
                f"a window is one patch of {side} px: there is nothing to hide it from",
                fix=f"train.size_px: {4 * side}, or a smaller patch_px (model.backbone_options)",
            )
        states = self._states(tokens, seeds, num_dates if one else 1)
        chosen, at = tokens.take(states == VISIBLE)
        outputs = backbone.contextualise(chosen, [backbone.layers[-1]])[0]
        skip = tokens.extra.shape[1]
        needed = (states == VISIBLE) | (states == TARGET)
        decoded = self.decoder(outputs[:, skip:], outputs[:, :skip], at, chosen.there, tokens, needed, windows)
        return _Drawn(windows, known, tokens, states, decoded)

    def _with_unseen(self, tokens: Tokens, batch: Batch) -> Tokens:
        """The tokens with those of sensors that are only predicted behind them; their x is empty."""
        parts, there, static = [], [], []
        for number, group in enumerate(self.groups[len(self.groups) - len(self.unseen) :], len(self.groups)):
            if group.name in batch.image:
                dates = batch.image[group.name].shape[1]
                length = dates * tokens.grid[0] * tokens.grid[1]
                parts.append((number - len(self.unseen), tokens.x.new_zeros(len(tokens.x), length, tokens.x.shape[2])))
                there.append(patches_there(batch, group.sensors, self.patch_px, dates))
                static.append(dates < batch.valid.shape[1])
        return tokens.joined(lay_out(parts, there, tokens.grid, static=tuple(static))) if parts else tokens

    def _states(self, tokens: Tokens, seeds: Sequence[int], num_dates: int) -> Tensor:
        """(B, N) of masks.py; of folded dates those of one window follow from its one seed."""
        group, date, row, col = (x[0].cpu().numpy() for x in (tokens.group, tokens.date, tokens.row, tokens.col))
        drawn = generators(seeds, MASKS)
        alike = self.config.strategy in ("tube", "block", "inverse_block")  # on all dates of a window
        each = [copy.deepcopy(rng) if alike else rng for rng in drawn for _ in range(num_dates)]
        states = self.masker.states(tokens.there.cpu().numpy(), Where(group, date, row, col, tokens.grid), each)
        return torch.from_numpy(states).to(tokens.x.device)

    def _dates(self, mine: Tensor, drawn: _Drawn) -> int:
        """How many dates the tokens of a group have."""
        return int(mine.sum()) // (drawn.tokens.grid[0] * drawn.tokens.grid[1])


def _cleaned(batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
    """The batch with 0 for what is no number, and {sensor: (B, T, C, H, W) bool} of the pixels that are known."""
    image, known = {}, {}
    for name, x in batch.image.items():
        valid = batch.valid if batch.valid.shape[1] == x.shape[1] else batch.valid.any(1, keepdim=True)
        there = holds_data(batch, (name,), x.shape[1])
        known[name] = x.isfinite() & (valid & there[..., None, None])[:, :, None]
        image[name] = torch.where(x.isfinite(), x, 0)
    return replace(batch, image=image), known


def _as_given(x: Tensor, shape: torch.Size) -> Tensor:
    """Folded dates (B T, 1, C, H, W), padded -> (B, T, C, H, W); of a sensor of one date the first."""
    return x.reshape(shape[0], -1, *x.shape[2:])[:, : shape[1], :, : shape[3], : shape[4]]
