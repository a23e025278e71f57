"""ResNet, SegFormer, Swin, ConvNeXt, DINOv2 and ViT: networks of the `transformers` library, for any bands.

scene bands -> the library's model, built from the published sizes -> maps at strides 4, 8, 16, 32, or of chosen blocks

The library takes seconds to import, so only building a model imports it. Its published files have other names than its
modules; it knows both, so it reads them itself, and what it reports must be complete. Sizes: the config.json files.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from covermap.core.errors import ModelError
from covermap.core.registry import register
from covermap.core.types import Batch, Features, InputSpec
from covermap.nn.backbones.vit import choose_layers, token_map
from covermap.nn.model import Backbone, stack_by_date
from covermap.nn.published import Modality, Published, Variant, match, select, statistics, unit_notes
from covermap.nn.weights import Report, Row, Tensors, adapt_bands, read_tensors, require_numbers, require_whole


class TransformersBackbone(Backbone):
    """A model of the `transformers` library that takes one date.

    library: what its classes are called there (ResNet: ResNetConfig, ResNetModel). kernel: published name of the first
    convolution. idle: modules that no map passes through. ignore: patterns of published names that are not needed.
    config: sizes, as in the published config.json.
    """

    dates = "one"
    library: ClassVar[str]
    kernel: ClassVar[str] = "embeddings.patch_embeddings.projection.weight"
    idle: ClassVar[tuple[str, ...]] = ()
    ignore: ClassVar[tuple[str, ...]] = (r"classifier\.",)

    def __init__(
        self,
        spec: InputSpec,
        published: Published,
        *,
        config: Mapping[str, Any],
        extra_bands: str = "mean",
        missing_bands: str = "drop",
    ) -> None:
        import transformers

        super().__init__()
        found = match(spec, published.modalities)
        self.selection = select(found, published.modalities[0], extra=extra_bands, missing=missing_bands)
        self.notes, self.uses = (*self.selection.notes, *unit_notes(found, published.modalities)), published.uses
        self.unused = self.selection.without(spec)
        self.statistics = statistics(found, published.modalities)
        settings = getattr(transformers, f"{self.library}Config")(
            **config, num_channels=len(self.selection.channels)
        )  # fmt: skip
        self.model = self.without_idle(getattr(transformers, f"{self.library}Model")(settings))

    @abstractmethod
    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """(B, C, H, W) -> maps (B, D_i, h_i, w_i), finest first."""

    def forward(self, batch: Batch) -> Features:
        """-> maps (B, D_i, H / S_i, W / S_i)."""
        x = stack_by_date(batch, self.selection.channels)[:, 0]
        return Features(tuple(self.maps(x)), self.strides)

    def without_idle(self, model: Any) -> Any:
        """The model with its idle modules taken out: parameters without a gradient stop training on several GPUs."""
        for name in self.idle:
            setattr(model, name, nn.Identity())
        return model

    def load(self, path: str | Path) -> Report:
        """Published weights (model.safetensors or pytorch_model.bin), the first layer brought to the data's bands."""
        report = Report(str(path))
        published = read_tensors(path)
        try:
            given = self._wanted(published, report)
            require_numbers(given)
        except ModelError as error:
            raise ModelError(f"{path}: {error.message}", fix=error.fix) from error
        with _quiet():
            model, info = type(self.model).from_pretrained(
                None, config=self.model.config, state_dict=given, dtype=torch.float32, output_loading_info=True,
                ignore_mismatched_sizes=True,
            )  # fmt: skip
        require_whole(
            str(path),
            missing=[name for name in sorted(info["missing_keys"]) if not self._ignored(name)],
            surplus=[f"{name} {tuple(given[name].shape)}" for name in sorted(info["unexpected_keys"])],
            wrong=[f"{name} {tuple(a)} instead of {tuple(b)}" for name, a, b in sorted(info["mismatched_keys"])],
        )
        self.model = self.without_idle(model.train(self.training))
        return report

    def _wanted(self, published: Tensors, report: Report) -> Tensors:
        """Tensors of the encoder, kernels adapted; all are put into the report."""
        wanted: Tensors = {}
        for name, tensor in published.items():
            fate, note = "loaded", ""
            if pattern := self._ignored(name):
                fate, note = "ignored", f"not part of the encoder ({pattern})"
            elif name.endswith(self.kernel):
                wanted[name] = adapt_bands(tensor, self.selection)
                fate = "loaded" if wanted[name] is tensor else "adapted"
            else:
                wanted[name] = tensor
            report.rows.append(Row(name, tuple(wanted.get(name, tensor).shape), fate, note))
        return wanted

    def _ignored(self, name: str) -> str | None:
        """The pattern by which a published name is ignored, the prefix that whole models have left aside."""
        name = name.removeprefix(f"{self.model.base_model_prefix}.")
        return next((pattern for pattern in self.ignore if re.match(pattern, name)), None)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library shows a progress bar and a table of its own; what is wrong with a file is said in our own words."""
    import transformers

    logging: Any = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


class Pyramidal(TransformersBackbone):
    """Four maps, at strides 4, 8, 16 and 32."""

    strides = (4, 8, 16, 32)

    def __init__(self, spec: InputSpec, published: Published, *, config: Mapping[str, Any], **options: Any) -> None:
        super().__init__(spec, published, config=config, **options)
        self.channels = self.widths(config)

    @staticmethod
    def widths(config: Mapping[str, Any]) -> tuple[int, ...]:
        """Channels of the four maps."""
        return tuple(config["hidden_sizes"])

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """The outputs of the last four stages."""
        found: Sequence[Tensor] = self.model(x, output_hidden_states=True).hidden_states[-4:]
        return found


class ResNet(Pyramidal):
    """Residual convolutions (He et al. 2016)."""

    library = "ResNet"
    kernel = "embedder.embedder.convolution.weight"


class SegFormer(Pyramidal):
    """Mix Transformer (Xie et al. 2021); each stage ends with its own norm."""

    local = False
    library = "Segformer"
    kernel = "encoder.patch_embeddings.0.proj.weight"


class ConvNeXt(Pyramidal):
    """Convolutions in the manner of transformers (Liu et al. 2022)."""

    library = "ConvNext"
    kernel = "embeddings.patch_embeddings.weight"
    idle = ("layernorm",)
    ignore = (r"classifier\.", r"layernorm\.")

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """The outputs of the stages, each normed."""
        return [_normed(each) for each in super().maps(x)]


class Swin(Pyramidal):
    """Attention inside of shifted windows (Liu et al. 2021)."""

    library = "Swin"
    idle = ("layernorm",)
    ignore = (r"classifier\.", r"layernorm\.", r".*\.relative_position_index$")

    @staticmethod
    def widths(config: Mapping[str, Any]) -> tuple[int, ...]:
        """Each stage is twice as wide as the one before."""
        return tuple(config["embed_dim"] * 2**i for i in range(4))

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """The outputs of the stages before they are merged, each normed.

        The stages are run here because the library's own loop gives maps after merging, fails for inputs of less than
        224 px, and after one small input treats all later ones differently: its blocks keep the smaller window.
        """
        tokens, grid = self.model.embeddings(x)
        window, found = self.model.config.window_size, []
        for stage in self.model.encoder.layers:
            for number, block in enumerate(stage.blocks):
                # One window that holds the whole map is not shifted (as trained at 224 px).
                block.shift_size = number % 2 * (window // 2) if min(grid) > window else 0
                tokens = block(tokens, grid, always_partition=True)[0]
            found.append(_normed(token_map(tokens, grid)))
            if stage.downsample is not None:
                tokens, grid = stage.downsample(tokens, grid), (grid[0] // 2, grid[1] // 2)
        return found


def _normed(x: Tensor) -> Tensor:
    """Layer norm over the channels of (B, D, h, w): both papers put new ones on the maps, the files hold none."""
    return functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


class Plain(TransformersBackbone):
    """Maps at one stride, of chosen blocks, all through the last norm as in DINO's get_intermediate_layers."""

    local = False
    norm: ClassVar[str] = "layernorm"
    inputs: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        spec: InputSpec,
        published: Published,
        *,
        config: Mapping[str, Any],
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(spec, published, config=config, **options)
        self.layers = choose_layers(config["num_hidden_layers"], layers)
        self.channels = (config["hidden_size"],) * len(self.layers)
        self.strides = (config["patch_size"],) * len(self.layers)

    def trim(self) -> None:
        """Take out the blocks after the last chosen one."""
        depth = self.model.config.num_hidden_layers
        for blocks in [m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]:
            del blocks[self.layers[-1] + 1 :]

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """A map (B, D, H / p, W / p) of each chosen block, without the class and register tokens."""
        patch_px = self.multiple
        grid = (x.shape[2] // patch_px, x.shape[3] // patch_px)
        skip = 1 + getattr(self.model.config, "num_register_tokens", 0)
        states = self.model(x, output_hidden_states=True, **self.inputs).hidden_states
        norm = getattr(self.model, self.norm)
        return [token_map(norm(states[layer + 1]), grid, skip=skip) for layer in self.layers]


class DinoV2(Plain):
    """Self-supervised ViT (Oquab et al. 2024)."""

    library = "Dinov2"
    ignore = (r"classifier\.", r"embeddings\.mask_token$")


class ViT(Plain):
    """Vision transformer (Dosovitskiy et al. 2021)."""

    library = "ViT"
    idle = ("pooler",)
    ignore = (r"classifier\.", r"pooler\.")
    inputs: ClassVar[Mapping[str, Any]] = {"interpolate_pos_encoding": True}


def picture(mean: Sequence[float], std: Sequence[float]) -> Modality:
    """Colour pictures of brightness 0 to 1: mean and std of red, green and blue."""
    return Modality(
        "RGB", ("red", "green", "blue"), tuple(mean), tuple(std), scale=1, unit="8-bit brightness", sensors=("rgb",)
    )


_IMAGENET = picture((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = picture((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_SAFE, _PICKLED = "model.safetensors", "pytorch_model.bin"


def _add(
    name: str,
    kind: type[TransformersBackbone],
    title: str,
    repo: str,
    file: str,
    *,
    licence: str = "Apache-2.0",
    modality: Modality = _IMAGENET,
    **config: Any,
) -> None:
    published = Published(title, repo, file, licence, (modality,), gsd_m=0)
    register("backbone", name)(Variant(kind, published, {"config": config}))


for _name, _type, _widths, _depths in (
    ("18", "basic", (64, 128, 256, 512), (2, 2, 2, 2)),
    ("34", "basic", (64, 128, 256, 512), (3, 4, 6, 3)),
    ("50", "bottleneck", (256, 512, 1024, 2048), (3, 4, 6, 3)),
):
    _add(
        f"resnet{_name}", ResNet, f"ResNet-{_name}: convolutions, from ImageNet photographs",
        f"microsoft/resnet-{_name}", _SAFE, layer_type=_type, hidden_sizes=_widths, depths=_depths,
    )  # fmt: skip

for _number, _widths, _depths in (
    (0, (32, 64, 160, 256), (2, 2, 2, 2)),
    (1, (64, 128, 320, 512), (2, 2, 2, 2)),
    (2, (64, 128, 320, 512), (3, 4, 6, 3)),
    (3, (64, 128, 320, 512), (3, 4, 18, 3)),
    (4, (64, 128, 320, 512), (3, 8, 27, 3)),
    (5, (64, 128, 320, 512), (3, 6, 40, 3)),
):
    _add(
        f"segformer_b{_number}", SegFormer,
        f"SegFormer B{_number} (Mix Transformer): attention at four strides, from ImageNet photographs (NVIDIA)",
        f"nvidia/mit-b{_number}", _PICKLED, licence="NVIDIA Source Code License for SegFormer: non-commercial use only",
        hidden_sizes=_widths, depths=_depths, num_attention_heads=(1, 2, 5, 8), sr_ratios=(8, 4, 2, 1),
        mlp_ratios=(4, 4, 4, 4), drop_path_rate=0.0,
    )  # fmt: skip

for _name, _file, _width, _depths, _heads in (
    ("tiny", _SAFE, 96, (2, 2, 6, 2), (3, 6, 12, 24)),
    ("small", _PICKLED, 96, (2, 2, 18, 2), (3, 6, 12, 24)),
    ("base", _SAFE, 128, (2, 2, 18, 2), (4, 8, 16, 32)),
    ("large", _PICKLED, 192, (2, 2, 18, 2), (6, 12, 24, 48)),
):
    _add(
        f"swin_{_name}", Swin, f"Swin {_name}: attention in shifted windows, from ImageNet photographs (Microsoft)",
        f"microsoft/swin-{_name}-patch4-window7-224", _file,
        embed_dim=_width, depths=_depths, num_heads=_heads, window_size=7, drop_path_rate=0.0,
    )  # fmt: skip

for _name, _file, _widths, _depths in (
    ("tiny", _PICKLED, (96, 192, 384, 768), (3, 3, 9, 3)),
    ("small", _SAFE, (96, 192, 384, 768), (3, 3, 27, 3)),
    ("base", _PICKLED, (128, 256, 512, 1024), (3, 3, 27, 3)),
    ("large", _PICKLED, (192, 384, 768, 1536), (3, 3, 27, 3)),
):
    _add(
        f"convnext_{_name}", ConvNeXt, f"ConvNeXt {_name}: convolutions, from ImageNet photographs (Meta)",
        f"facebook/convnext-{_name}-224", _file, hidden_sizes=_widths, depths=_depths, layer_scale_init_value=1e-6,
    )  # fmt: skip

for _name, _width, _depth, _head_count in (
    ("small", 384, 12, 6),
    ("base", 768, 12, 12),
    ("large", 1024, 24, 16),
    ("giant", 1536, 40, 24),
):
    _add(
        f"dinov2_{_name}", DinoV2, f"DINOv2 {_name}: self-supervised ViT, 14 px patches, from web photographs (Meta)",
        f"facebook/dinov2-{_name}", _SAFE,
        hidden_size=_width, num_hidden_layers=_depth, num_attention_heads=_head_count, patch_size=14, image_size=518,
        mlp_ratio=4, use_swiglu_ffn=_name == "giant", use_mask_token=False,
    )  # fmt: skip

for _name, _width, _depth, _head_count in (("base", 768, 12, 12), ("large", 1024, 24, 16)):
    _add(
        f"vit_{_name}_in21k", ViT, f"ViT {_name}: 16 px patches, from ImageNet-21k photographs (Google)",
        f"google/vit-{_name}-patch16-224-in21k", _SAFE, modality=_HALF,
        hidden_size=_width, num_hidden_layers=_depth, num_attention_heads=_head_count, intermediate_size=4 * _width,
        patch_size=16, image_size=224,
    )  # fmt: skip
