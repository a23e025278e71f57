"""The config's sections of the network: what it is, how it learns, how it maps."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from covermap.core.engine import Engine
from covermap.core.section import Section

_Side = Annotated[int, Field(ge=8)]
_DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"

Adaptation = Literal["full", "frozen", "head", "partial", "lora"]


class AdaptConfig(Section):
    """What of a network trains, and how."""

    method: Adaptation = "full"
    blocks: int | None = Field(None, ge=1, description="With partial: number of last blocks that train; default: half.")
    rank: int = Field(16, ge=1, le=1024, description="With lora: rank of the updates.")
    alpha: int | None = Field(None, gt=0, description="With lora: updates are scaled by alpha / rank; default: rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="With lora: of what the updates see.")
    targets: str | list[str] = Field(
        "all", description="With lora: attention, mlp, all, or regular expressions for names of linear layers."
    )
    adapter: str | None = Field(None, description="With lora: a file adapter.safetensors to start from.")

    @model_validator(mode="after")
    def _settings_go_with_the_method(self) -> AdaptConfig:
        for key, method in (
            ("blocks", "partial"), *((key, "lora") for key in ("rank", "alpha", "dropout", "targets", "adapter"))
        ):  # fmt: skip
            # A run's own config states all values: only those that would change something are refused.
            if getattr(self, key) != type(self).model_fields[key].default and self.method != method:
                raise ValueError(f"model.adapt.{key} goes with method {method}, not with {self.method}")
        return self


class ModelConfig(Section):
    """The network."""

    backbone: str = Field(
        "unet", description="A name (covermap models list), my_file.py:Name, or several trained together: one+other."
    )
    decoder: str = "unet"
    weights: str = Field(
        "auto", description="What the backbone starts from: auto (published weights if it has them), none, or a file."
    )
    start: str | None = Field(
        None,
        description="A trained model of the same parts (folder, run or hf://...) that all of the network starts from.",
    )
    extra: str | None = Field(
        None, description="A trained model whose features, left as they are, are added to those of this backbone."
    )
    adapt: Adaptation | AdaptConfig = Field(
        "full",
        description="What trains: full; frozen: all but the backbone; head: the classifier alone; partial: all but the "
        "backbone's first blocks; lora: low-rank updates of its linear layers; or a section.",
    )
    pool: Literal["mean", "max", "lse"] = Field(
        "mean", description="With chips: how their pixels become one answer; lse: a soft maximum."
    )
    dates: Literal["mean", "max", "concat", "difference", "attention", "cross_attention"] | None = Field(
        None,
        description="How the features of several dates become one; default: mean. Of change how those of both are "
        "compared: difference (default), concat or cross_attention.",
    )

    backbone_options: dict[str, Any] = Field(
        default={}, description="Arguments of the backbone, e.g. widths; of several: {one: {...}}."
    )
    decoder_options: dict[str, Any] = Field(default={}, description="Arguments of the decoder.")
    neck: Literal["auto", "pyramid", "interpolate", "none"] = Field(
        "auto", description="What makes several strides of one; auto: pyramid where the decoder needs it."
    )
    pixel_width: int = Field(0, ge=0, description="Channels of a second expert that sees single pixels only; 0: none.")

    @property
    def adaptation(self) -> AdaptConfig:
        """The section, also where one word was given."""
        return self.adapt if isinstance(self.adapt, AdaptConfig) else AdaptConfig(method=self.adapt)

    @model_validator(mode="after")
    def _one_beginning(self) -> ModelConfig:
        if self.start is not None and self.weights != "auto":
            raise ValueError("model.start holds the whole network: model.weights has no effect with it")
        return self


class ForestConfig(Section):
    """The baseline on single pixels; false instead of this section turns it off."""

    trees: int = Field(300, ge=1)
    samples: int = Field(40_000, ge=1, description="Training pixels, drawn from the train part.")
    balanced: bool = True


class AugmentConfig(Section):
    """What is done to training windows."""

    flips: bool = Field(True, description="The eight symmetries of the square.")
    scale: tuple[Annotated[float, Field(ge=0.25)], Annotated[float, Field(le=2)]] | None = Field(
        None, description="Smallest and largest side of the ground seen, in usual ones, up to [0.25, 2]."
    )
    rotation: float = Field(0.0, ge=0, le=180, description="Largest random rotation in degrees, either way.")
    brightness: float = Field(0.0, ge=0, description="Std of a random gain per window and offset per band.")
    noise: float = Field(0.0, ge=0, description="Std of noise per pixel, in units of the normalised image.")
    speckle: float = Field(0.0, ge=0, description="Looks of speckle laid on radar backscatter, e.g. 8; 0: none.")
    drop_bands: float = Field(0.0, ge=0, lt=1, description="Chance of each band to be left out of a window; one stays.")
    permute_bands: float = Field(0.0, ge=0, le=1, description="Share of the windows with a sensor's bands exchanged.")
    drop_sensors: float = Field(
        0.0, ge=0, lt=1, description="Share of the batches that lack one sensor, so that prediction can do without."
    )

    @field_validator("scale")
    @classmethod
    def _smaller_first(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[0] > value[1]:
            raise ValueError("the smaller scale comes first, for example [0.5, 2]")
        return value


class RareConfig(Section):
    """Cells that hold rare classes are seen more often, augmented anew each time."""

    classes: list[str] = Field(min_length=1, description="Names of the rare classes.")
    share: float = Field(0.05, ge=0, lt=1, description="A cell counts if one of them has more of its labels than this.")
    copies: int = Field(5, ge=1, description="Further windows for each one of such a cell.")


class TrainConfig(Section):
    """The training loop."""

    epochs: int = Field(30, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1, description="Default: as many as cover the labelled area once.")
    batch_size: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1, description="Batches per optimiser step.")
    size_px: _Side | Annotated[list[_Side], Field(min_length=1)] = Field(
        128, description="Side of a training window, or several: each batch has one of them, drawn at random."
    )
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of all steps with a rising rate.")
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(5, ge=0)
    clip: float = Field(1.0, ge=0, description="Largest norm of the gradient; 0: no limit.")
    precision: Literal["auto", "float32", "fp16", "bf16"] = Field(
        "float32", description="auto: bf16 where the device computes in it, else float32."
    )
    compile: bool = Field(False, description="Train through torch.compile: slow to start, faster then.")
    ema: float = Field(0.0, ge=0, lt=1, description="Decay of averaged weights, e.g. 0.99; 0: off.")
    loss: str = Field(
        "auto",
        description="auto: by the task; or a name (covermap models list), my_file.py:Name, or a sum: "
        "cross_entropy + 0.5 * dice.",
    )
    loss_options: dict[str, Any] = Field(
        default={}, description="Arguments of the loss, e.g. label_smoothing: 0.1; of a sum by term: {dice: {...}}."
    )
    sampling: Literal["uniform", "balanced", "sqrt"] = Field(
        "uniform", description="Windows lie around cells drawn alike, or by class: classes alike, or by root of pixels."
    )
    rare: RareConfig | None = Field(None, description="Rare classes of which more windows are drawn.")
    class_weights: Literal["none", "balanced", "sqrt", "inverse", "effective"] | list[float] = Field(
        "sqrt",
        description="By the train part's pixels n: 1, N / (K n), its root, 1 / n, (1 - b) / (1 - b^n); or given.",
    )
    effective_beta: float | None = Field(
        None, ge=0, lt=1, description="b of class_weights: effective; default: 1 - 1 / mean n of the classes."
    )
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Factors on lr by part, {backbone: 0.1} or any beginning of a tensor's name."
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Factor on lr from each of the backbone's blocks to the one before it."
    )
    monitor: str = Field(
        "auto", description="What the best checkpoint is chosen by: auto (by the task), val_miou, val_loss, ..."
    )
    patience: int | None = Field(None, ge=1, description="Epochs without gain until training stops.")
    validate_every: int = Field(1, ge=1, description="Epochs between two validations.")
    normalise: Literal["auto", "pretrained", "dataset", "scene", "percentile", "none"] = Field(
        "auto",
        description="Whose mean and std: those that weights or an earlier model were trained with (auto, if there are "
        "any), the data's own, those of each scene or place (event) by itself, or the 2nd and 98th percentile as -1 "
        "and 1.",
    )
    augment: AugmentConfig = AugmentConfig()
    workers: int = Field(0, ge=0, description="Processes that read windows.")
    cache_features: bool = Field(
        False, description="With a frozen backbone: the same windows in each epoch, their features computed only once."
    )
    cache_gb: float = Field(2.0, ge=0, description="Scenes smaller than this are held in memory.")
    tensorboard: bool = False
    seed: int = 0
    device: str = Field("auto", pattern=_DEVICE, description="auto, cpu, cuda or cuda:1.")

    @property
    def sizes_px(self) -> tuple[int, ...]:
        """Sides of training windows, one or several."""
        return tuple(self.size_px) if isinstance(self.size_px, list) else (self.size_px,)

    @model_validator(mode="after")
    def _beta_has_an_effect(self) -> TrainConfig:
        if self.effective_beta is not None and self.class_weights != "effective":
            raise ValueError("train.effective_beta has no effect without class_weights: effective")
        return self


class DecisionConfig(Section):
    """What is fitted on the val part after training, so that probabilities are right, or rare classes found."""

    temperature: bool = Field(False, description="Scale logits so that probabilities are as often right as they say.")
    adjust: Annotated[float, Field(ge=0, le=2)] | Literal["auto"] = Field(
        0.0,
        description="Logit adjustment: this times the log of a class's share in training is taken off its logit; 1: as "
        "if all classes were alike frequent. auto: the one of most mean recall on the val part.",
    )
    adjust_loss: float = Field(0.03, ge=0, lt=1, description="With adjust: auto: overall agreement it may cost.")
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = Field(
        0.5, description="With hazard and multilabel: probability from which on it counts; auto: of most F1 on val."
    )

    conformal: float | None = Field(
        None,
        gt=0.5,
        lt=1,
        description="Sets of classes that hold the right one in this share of the val part, 0.9 say.",
    )
    applicability: bool = Field(
        True, description="Keep what the training data look like, so that maps can say where they are unlike them."
    )

    @property
    def needs_val(self) -> bool:
        """Whether anything is fitted."""
        return self.temperature or "auto" in (self.adjust, self.threshold) or self.conformal is not None


class PredictConfig(Section):
    """How a scene is predicted."""

    size_px: int | None = Field(None, ge=16, description="Side of a window; default: 256, or the model's own.")
    overlap_px: int | None = Field(None, ge=0, description="Shared by neighbouring windows; default: a tenth of it.")
    block_px: int = Field(
        2048, ge=16, description="Rows of the block that a worker owns; it has twice as many columns."
    )
    batch_size: int = Field(4, ge=1)
    engine: Engine = Field(
        "threads", description="Who works blocks off: threads, serial (one), processes, or ray (a cluster)."
    )
    workers: int | None = Field(None, ge=1, description="How many; default: one for each core.")
    tta: Literal["none", "flips", "d4"] = Field(
        "none",
        description="Test-time augmentation: the mean of the answers to each window mirrored (flips: 4) or also turned "
        "(d4: 8), at as many times the time.",
    )
    confidence: bool = True
    entropy: bool = Field(False, description="Also how undecided the probabilities are, in percent.")
    sets: bool = Field(
        False, description="Also which classes cannot be left out, a bit each, and how many: needs decision.conformal."
    )
    applicability: bool = Field(
        False, description="Also how unlike the training data the image is: needs decision.applicability."
    )
    probabilities: bool = False
    precision: Literal["auto", "float32", "bf16"] = Field(
        "float32", description="auto: bf16 where the device computes in it, else float32."
    )
    device: str = Field("auto", pattern=_DEVICE, description="auto, cpu, cuda or cuda:1.")

    @model_validator(mode="after")
    def _overlap_fits_the_window(self) -> PredictConfig:
        if self.overlap_px is not None and self.overlap_px >= (self.size_px or 256):
            raise ValueError(f"overlap_px {self.overlap_px} must be below the window size {self.size_px or 256}")
        return self
