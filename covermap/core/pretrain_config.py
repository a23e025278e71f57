"""The config of a pre-training: data without labels, a backbone, a method, and how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from covermap.core.config import DataConfig, RunConfig, SplitConfig
from covermap.core.config_file import override, parse_option, parse_section, read_settings, resolved
from covermap.core.section import Section
from covermap.core.task import TaskName
from covermap.core.train_config import ModelConfig, TrainConfig

_Share = Annotated[float, Field(ge=0, le=1)]
_WRITE = "write one: data: {image: ...}, model: {backbone: vit_tiny}, method: mae"
_DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"


def _smaller_first(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("the smaller scale comes first, for example [0.3, 1]")
    return value


_Scale = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], AfterValidator(_smaller_first)
]


class ViewConfig(Section):
    """How two views of one window differ. What is geometric moves all sensors alike."""

    scale: _Scale = Field((0.3, 1.0), description="Smallest and largest share of the window's area that a view shows.")
    flips: bool = Field(True, description="The eight symmetries of the square.")
    brightness: float = Field(0.2, ge=0, description="Std of a random gain per view and offset per band.")
    noise: float = Field(0.0, ge=0, description="Std of noise per pixel, in units of the normalised image.")
    speckle: float = Field(0.0, ge=0, description="Looks of speckle laid on radar backscatter in dB; 0: none.")
    drop_bands: float = Field(0.0, ge=0, lt=1, description="Chance of each band to be left out of a view; one stays.")


class MaeConfig(Section):
    """Masked autoencoder (He et al. 2022): the pixels of hidden patches from those of the others."""

    name: Literal["mae"] = "mae"
    mask: float = Field(0.75, gt=0, lt=1, description="Share of the patches that are hidden.")
    strategy: Literal["random", "block", "inverse_block", "tube", "dates", "sensors"] = Field(
        "random",
        description="Which: random, one block, all but one block, the same places of all dates and sensors (tube), "
        "whole dates, or whole sensors.",
    )
    norm_pix: bool = Field(True, description="Whether each patch is predicted with its own mean and std taken off.")
    decoder_width: int = Field(256, ge=16)
    decoder_depth: int = Field(2, ge=1)
    decoder_heads: int = Field(8, ge=1)


class DinoConfig(Section):
    """Self-distillation (Caron et al. 2021): a student sees parts and answers as its own average does for wholes."""

    name: Literal["dino"] = "dino"
    prototypes: int = Field(1024, ge=2)
    local_views: int = Field(4, ge=0)
    local_scale: _Scale = Field((0.05, 0.3), description="Share of the window's area in a local view.")
    local_px: int | None = Field(None, ge=8, description="Side of a local view; default: half of the window.")
    centring: Literal["mean", "sinkhorn"] = Field(
        "sinkhorn", description="What keeps the teacher from one answer; mean: as published, for long trainings."
    )
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: tuple[float, float] = Field((0.02, 0.02), description="At the start and from a third on.")
    momentum: float = Field(
        0.98, gt=0, lt=1, description="Of the teacher at the start; it rises to 1. Published: 0.996, over 100 epochs."
    )
    buffers: Literal["copy", "average"] = Field(
        "copy", description="What a teacher does with buffers such as running means: take the student's, or average."
    )


class SimclrConfig(Section):
    """Contrast (Chen et al. 2020): two views of a window are alike, those of others are not."""

    name: Literal["simclr"] = "simclr"
    temperature: float = Field(0.2, gt=0)
    drop_positive: bool = Field(False, description="Leave the positive out of the denominator (Yeh et al. 2022).")
    projection: int = Field(128, ge=2)
    elevation: str | None = Field(None, description="A sensor of one band that is predicted, e.g. dem, and not seen.")
    alpha: _Share = Field(0.5, description="With elevation: a in a MSE(elevation) + (1 - a) contrast.")
    elevation_px: int = Field(8, ge=1, description="Side of the coarse grid that elevation is predicted on.")

    @model_validator(mode="after")
    def _alpha_goes_with_elevation(self) -> SimclrConfig:
        for key in ("alpha", "elevation_px"):
            if self.elevation is None and key in self.changed:
                raise ValueError(f"method.{key} has no effect without method.elevation")
        return self


class GlcnetConfig(SimclrConfig):
    """Global and local contrast (Li et al. 2022): styles of whole views, and regions that both views show."""

    name: Literal["glcnet"] = "glcnet"  # type: ignore[assignment]
    beta: _Share = Field(0.5, description="b in b global + (1 - b) local.")
    regions: int = Field(4, ge=1, description="Regions of a window that are compared between its views.")
    region_px: int = Field(16, ge=1, description="Side of a region, in px of the window.")


class ClipConfig(Section):
    """Contrast between sensors (Radford et al. 2021): one sensor of a window is alike to the others of it."""

    name: Literal["clip"] = "clip"
    temperature: float = Field(0.07, gt=0, description="At the start; it is learnt.")
    projection: int = Field(128, ge=2)
    drop_sensors: float = Field(0.0, ge=0, lt=1, description="Chance of each sensor to be missing; two stay.")


METHODS = ("mae", "dino", "simclr", "glcnet", "clip")
MethodConfig = Annotated[MaeConfig | DinoConfig | SimclrConfig | GlcnetConfig | ClipConfig, Field(discriminator="name")]


class EncoderConfig(Section):
    """What learns."""

    backbone: str = Field("vit_tiny", description="A name: covermap models list.")
    backbone_options: dict[str, Any] = Field(default={}, description="Arguments of the backbone.")
    weights: str = Field("auto", description="What it starts from: auto (published weights if any), none, or a file.")


class ScheduleConfig(Section):
    """How long, and how."""

    steps: int = Field(2000, ge=1)
    batch_size: int = Field(32, ge=1, description="Windows of a step in each process.")
    size_px: int = Field(64, ge=8, description="Side of a window.")
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of all steps with a rising rate.")
    clip: float = Field(1.0, ge=0, description="Largest norm of the gradient; 0: no limit.")
    precision: Literal["auto", "float32", "fp16", "bf16"] = "float32"
    fsdp: bool = Field(
        False, description="Whether processes share out weights, gradients and optimiser (FSDP) besides windows: for "
        "networks that one GPU cannot hold with these."
    )  # fmt: skip
    save_every: int = Field(200, ge=1, description="Steps between two states that an interrupted run goes on from.")
    watch_every: int = Field(100, ge=1, description="Steps between two looks at what was learnt.")
    normalise: Literal["auto", "pretrained", "dataset", "scene", "percentile", "none"] = "auto"
    workers: int = Field(0, ge=0, description="Processes that read windows.")
    cache_gb: float = Field(2.0, ge=0, description="Scenes smaller than this are held in memory.")
    device: str = Field("auto", pattern=_DEVICE)
    seed: int = 0


class PretrainConfig(Section):
    """A whole pre-training; labels of the data are used by the probe beside it alone."""

    schema_name: ClassVar[str] = "pretrain"

    name: str = "pretrained"
    output: str = Field("runs", description="Folder that the run's folder is made in.")
    data: DataConfig
    split: SplitConfig = Field(
        SplitConfig(), description="With labels or targets: windows are of all ground but val and test. The probe "
        "learns from train and is scored on val (on test, where val is too small).",
    )  # fmt: skip
    inputs: list[str] | None = Field(
        None, min_length=1, description="Sensors that the backbone sees; default: all but what method.elevation names."
    )
    model: EncoderConfig = EncoderConfig()
    method: MethodConfig = Field(MaeConfig(), description=f"{', '.join(METHODS)}, or a section with name.")
    views: ViewConfig = ViewConfig()
    train: ScheduleConfig = ScheduleConfig()

    @field_validator("method", mode="before")
    @classmethod
    def _a_word_is_a_section(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.output) / self.name

    @property
    def run(self) -> RunConfig:
        """The config of a run on what the backbone sees: without images that are only predicted, or left out."""
        elevation = getattr(self.method, "elevation", None)
        named = [(image, image.sensor or "image") for image in self.data.images]
        seen = [image for image, name in named if (name in self.inputs if self.inputs else name != elevation)]
        if len(seen) == len(named) or not seen:
            return self.whole
        return self.whole.model_copy(update={"data": self.data.model_copy(update={"image": seen})})

    @property
    def whole(self) -> RunConfig:
        """All data, the split and the encoder as the config of a run, which opens them."""
        task: TaskName = "semantic_change" if self.data.label == "dates" else "segmentation"
        return RunConfig(
            name=self.name, output=self.output, task=task, data=self.data, split=self.split,
            model=ModelConfig(**self.model.model_dump(), decoder="linear"),
            train=TrainConfig(size_px=self.train.size_px, seed=self.train.seed, normalise=self.train.normalise),
        )  # fmt: skip


def load_pretrain_config(path: str | Path, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read a YAML config, apply `a.b=c` overrides; paths count from its folder. Raises ConfigError."""
    path = Path(path)
    raw = read_settings(path, what="recipe", fix=_WRITE)
    for text in overrides:
        set_in_recipe(raw, *parse_option(text), where="--set")
    return parse_pretrain_config(raw, where=str(path), base=path.parent)


def set_in_recipe(raw: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set `a.b` in plain values of a recipe, in place, also of a method that is only named; raises ConfigError."""
    if key.startswith("method.") and isinstance(raw.get("method"), str):
        raw["method"] = {"name": raw["method"]}
    override(raw, key, value, where=where)


def parse_pretrain_config(raw: Mapping[str, Any], *, where: str, base: Path) -> PretrainConfig:
    """Check plain values against the schema; relative paths count from `base`. Raises ConfigError."""
    config = parse_section(PretrainConfig, raw, where=where)
    found = resolved(config.whole, base)
    model = config.model.model_copy(update={"backbone": found.model.backbone, "weights": found.model.weights})
    return config.model_copy(
        update={"data": found.data, "split": found.split, "output": found.output, "model": model}
    )  # fmt: skip
