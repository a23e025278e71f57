"""The run config: one YAML file, typed, unknown keys refused with a suggestion.

Paths count from the folder of the config file. Every field has a default except the data, so a whole project fits on
a screen; `covermap schema` prints the JSON Schema that gives completion in an editor.
"""

from __future__ import annotations

import datetime
import glob
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from covermap.core.errors import ConfigError
from covermap.core.section import Section
from covermap.core.target_config import TargetConfig
from covermap.core.task import KINDS, TaskConfig, TaskName, monitored
from covermap.core.train_config import DecisionConfig, ForestConfig, ModelConfig, PredictConfig, TrainConfig

SCENE_REGIONS = ("scenes", "places")
"""What split.regions may say instead of a file."""
SHORT = ("sensor", "bands", "use", "nodata", "clouds")
"""What a single image may say beside its path, without an entry of its own."""


class CloudConfig(Section):
    """What is masked as cloudy in an image, by a classification on any grid."""

    path: str = Field("auto", description="File or pattern; auto: the one that the product holds; none: no masking.")
    specification: Literal["scl", "qa_pixel", "fmask", "classi", "mask"] | None = Field(
        None, description="How it is written; default: by the file's name. mask: 0 is clear, all else is cloud."
    )
    kinds: list[str] | None = Field(
        None, description="Default: those of cloud, dilated, cirrus, shadow, defective that the file tells apart."
    )

    @staticmethod
    def of(text: str) -> CloudConfig:
        """What an option says: auto, none, a file or pattern, or SPECIFICATION:FILE."""
        kind, colon, path = text.partition(":")
        known = colon and kind in ("scl", "qa_pixel", "fmask", "classi", "mask")
        return CloudConfig.model_validate({"path": path, "specification": kind} if known else {"path": text})


class ImageConfig(Section):
    """One image source. A path with * gives one scene for each file; images of one scene share their file's stem.

    A folder is one scene if its rasters have different bands, and a scene for each if they have the same.
    """

    path: str | list[str] = Field(
        description="File, folder of single-band files, list of files; of many scenes a pattern with *, or a folder."
    )
    sensor: str | None = Field(None, description="Sensor name: sentinel2, landsat7, sentinel1, dem, ...")
    bands: list[str] | None = Field(None, description="Band names in file order, if the file has none.")
    use: list[str] | None = Field(
        None, description="Bands the model gets, by name, also differences such as vv-vh; default: all."
    )
    variable: str | list[str] | None = Field(None, description="Variable of a netCDF file; several: in this order.")
    tiles: bool = Field(False, description="The files of the path lie side by side and make one image.")
    bounds: tuple[float, float, float, float] | None = Field(
        None, description="Only this part: left, bottom, right, top in the image's CRS, to the nearest whole pixels."
    )
    date: str | None = Field(None, description="Acquisition date, YYYY-MM-DD. Same sensor, several dates: a series.")
    gsd_m: float | None = Field(None, gt=0, description="Pixel size to work at; default: that of the finest band.")
    nodata: float | None = Field(None, description="Overrides the file's nodata value.")
    scale: float | None = Field(None, description="Factor from file number to physical unit; default: the sensor's.")
    offset: float | Literal["auto"] = Field(
        "auto", description="Added after scaling; auto finds Sentinel-2's +1000 of processing baseline 04.00."
    )
    quantity: Literal["power", "amplitude"] | None = Field(
        None, description="What radar numbers are, to be taken in dB: 10 or 20 log10; default: as they are."
    )
    clouds: str | CloudConfig = Field(
        "auto",
        description="auto: the product's own classification (SCL, QA_PIXEL); none; a file or pattern; or a section.",
    )

    @property
    def cloud_path(self) -> str:
        """auto, none, or the file or pattern that says where it is cloudy."""
        return self.clouds if isinstance(self.clouds, str) else self.clouds.path

    def with_clouds(self, path: str) -> ImageConfig:
        """The same with the file that says where it is cloudy."""
        clouds = path if isinstance(self.clouds, str) else self.clouds.model_copy(update={"path": path})
        return self.model_copy(update={"clouds": clouds})

    @model_validator(mode="after")
    def _a_part_of_one_file(self) -> ImageConfig:
        if self.tiles and self.bounds is not None:
            raise ValueError("bounds do not go with tiles: give the one file that holds the part")
        return self

    @field_validator("date", mode="before")
    @classmethod
    def _a_date(cls, value: Any) -> Any:
        """YAML reads an unquoted date as a date and a year as a number."""
        if isinstance(value, datetime.date | int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            parse_date(value)
        return value


class DataConfig(Section):
    """Images, labels and legend."""

    image: str | list[ImageConfig] | None = Field(None, description="One path, or a list of image sources.")
    source: str | None = Field(None, description="Instead of image and labels: a data set's layout (models list).")
    root: str | None = Field(None, description="With source: the data set's folder.")
    options: dict[str, Any] = Field(default={}, description="With source: arguments of the layout.")
    gsd_m: float | None = Field(
        None, gt=0, description="Pixel size to work at, of all images, on the finest one's corner; default: its own."
    )
    labels: str | list[str] | None = Field(
        None,
        description="Raster of class codes, polygons or points (GPKG, GeoJSON, SHP, CSV); of change a list, a raster "
        "for each date in order of time.",
    )
    change: str | None = Field(
        None, description="Beside labels of two dates: mask of change (0 unchanged, 1 or 255 changed)."
    )
    label: Literal["class", "change", "dates", "single"] = Field(
        "class",
        description="Of labels on several dates: class, of the last one; change, where classes of a date and the next "
        "differ (or the mask says so); dates, the classes of both; single, each date as a scene of its own.",
    )
    field: str | None = Field(None, description="Class field of vector labels.")
    layer: str | None = Field(None, description="Layer of vector labels, if the file has several.")
    epsg: int | None = Field(None, ge=1, description="CRS of vector labels whose file states none.")
    indices: list[Literal["ndvi", "ndbi", "ndwi", "mndwi", "evi", "bsi"]] = Field(
        default=[], description="Spectral indices, further channels of each sensor that has their bands."
    )
    legend: str | dict[Any, Any] | None = Field(None, description="Shipped name, YAML file, or {code: name}.")
    merge: dict[str, list[str]] | None = Field(None, description="New class: [old classes].")
    label_nodata: int | None = Field(None, description="Overrides the label raster's nodata code.")
    unknown_codes: Literal["error", "ignore"] = "error"
    align: Literal["none", "nearest", "mode", "weighted_mode"] = Field(
        "none", description="How labels on another grid are brought to the image's; none: refuse."
    )
    leave_out: str | list[str] = Field(
        default=[],
        description="Names of scenes, or of files without partner, that are not used; or a text file of them.",
    )
    point_px: int = Field(1, ge=1, description="Side of the square that a point labels.")
    target: TargetConfig | None = Field(None, description="Numbers beside the classes, or on which pixels they are.")
    sensor: str | None = Field(None, description="Short for image: [{path, sensor}].")
    bands: list[str] | None = Field(None, description="Short for image: [{path, bands}].")
    use: list[str] | None = Field(None, description="Short for image: [{path, use}].")
    nodata: float | None = Field(None, description="Short for image: [{path, nodata}].")
    clouds: str | CloudConfig | None = Field(None, description="Short for image: [{path, clouds}].")

    @model_validator(mode="after")
    def _either_files_or_a_layout(self) -> DataConfig:
        if (self.image is None) == (self.source is None):
            raise ValueError("name either data.image, or data.source and data.root")
        if (self.root is None) != (self.source is None):
            raise ValueError("data.source and data.root go together")
        if self.source and self.labels:
            raise ValueError("data.labels has no effect with data.source: the layout knows its labels")
        if self.options and not self.source:
            raise ValueError("data.options has no effect without data.source")
        if self.source is None and isinstance(self.labels, list) != (self.label != "class"):
            if self.label != "change" or not self.labels:
                raise ValueError("data.label change, dates and single go with labels of each date, [before, after]")
        if isinstance(self.labels, list) and len(set(self.labels)) < len(self.labels):
            raise ValueError("data.labels names one file twice: give that of each date")
        if self.change and not isinstance(self.labels, list):
            raise ValueError(
                "data.change goes with labels of each date; a mask alone is data.labels, with label: change"
            )
        return self

    @model_validator(mode="after")
    def _short_form_only_with_one_path(self) -> DataConfig:
        if not isinstance(self.image, str):
            for key in SHORT:
                if getattr(self, key) is not None:
                    raise ValueError(f"data.{key} goes with one image path; with a list write it inside each entry")
        return self

    @property
    def left_out(self) -> list[str]:
        """The names in leave_out, or in its file, one a line; raises ConfigError where there is no such file."""
        if not isinstance(self.leave_out, str):
            return self.leave_out
        try:
            lines = Path(self.leave_out).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"data.leave_out: {self.leave_out} cannot be read", fix="give a text file, or a list: [name, name]"
            ) from error
        return [line.strip() for line in lines if line.strip()]

    @property
    def images(self) -> list[ImageConfig]:
        """The image sources, the short form written out; none with a layout, which has its own for each scene."""
        if not isinstance(self.image, str):
            return self.image or []
        said = {key: value for key in SHORT if (value := getattr(self, key)) is not None}
        return [ImageConfig(path=self.image, **said)]


class Box(Section):
    """A part of a scene by pixel rows and columns, first included, last not; None: all."""

    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None
    scene: str | None = None


class SplitConfig(Section):
    """Which pixels train, select (val) and score (test). Fractions are of the labelled blocks."""

    method: Literal["blocks", "random", "stratified", "regions", "kfold", "source", "csv"] = Field(
        "blocks",
        description="blocks: spatial, with a buffer. regions: what test names is held out. kfold: one of several folds "
        "of blocks is the test. source: the data set's own parts. random and stratified leak between neighbours.",
    )
    val: float | Box | list[str] = Field(
        0.2,
        description="Fraction, a box {cols: [a, b]}, or names of scenes, places or regions. With kfold and source a "
        "fraction of what is not test.",
    )
    test: float | Box | list[str] = Field(
        0.2, description="Fraction, a box {cols: [a, b]}, or names of scenes, places or regions."
    )
    folds: int | None = Field(None, ge=2, description="With kfold: how many folds; default 5.")
    fold: int | None = Field(None, ge=1, description="With kfold: the fold that is the test, from 1; default 1.")
    regions: str | None = Field(
        None,
        description="With regions: polygons whose names val and test may give. With kfold also scenes or places: whole "
        "regions go into a fold.",
    )
    region_field: str | None = Field(None, description="Field of the regions' file that holds their names.")
    budget: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the train part's labelled blocks, polygons or chips that is used, of every class; "
        "smaller budgets lie inside larger ones, val and test stay.",
    )
    exclude: list[Box] = Field(default=[], description="Boxes that belong to no part.")
    block_px: int | None = Field(
        None,
        ge=1,
        description="Side of a block; default: about a twelfth of the scene, or whole scenes if there are many.",
    )
    buffer_px: int | None = Field(None, ge=0, description="Labels nearer than this to another part are not used.")
    balanced: float | None = Field(
        None, gt=0, lt=1, description="Share of the train blocks to keep, chosen so that their classes are most even."
    )
    path: str | None = Field(None, description="With method csv: a split file written earlier.")
    seed: int = 0
    budget_seed: int | None = Field(
        None, description="Seed of the share that budget leaves; default: seed. Other shares, the same val and test."
    )

    @model_validator(mode="after")
    def _fractions_leave_something_to_train(self) -> SplitConfig:
        given = {part: v for part in ("val", "test") if isinstance(v := getattr(self, part), float)}
        if self.method == "kfold":
            given.pop("test", None)
        for part, fraction in given.items():
            if not 0 <= fraction < 1:
                raise ValueError(f"split.{part} is a share of the labels from 0 to below 1, {fraction:g} is none")
        if sum(given.values()) >= 1:
            raise ValueError(f"split.val + split.test = {sum(given.values()):g} leave nothing to train on")
        if self.balanced and self.method == "csv":
            raise ValueError("split.balanced goes with a split that is drawn; a split file says itself who trains")
        return self

    @model_validator(mode="after")
    def _settings_go_with_the_method(self) -> SplitConfig:
        """A setting without effect is refused."""
        for key, methods in (
            ("folds", ("kfold",)), ("fold", ("kfold",)), ("regions", ("kfold", "regions")), ("path", ("csv",)),
        ):  # fmt: skip
            if getattr(self, key) is not None and self.method not in methods:
                raise ValueError(f"split.{key} goes with split.method {' or '.join(methods)}, not with {self.method}")
        if self.method == "kfold":
            if "test" in self.changed:
                raise ValueError("split.test has no effect with kfold: split.fold says which blocks are the test")
            if (self.fold or 1) > (self.folds or 5):
                raise ValueError(f"split.fold {self.fold} is not among the folds 1 to {self.folds or 5}")
        if self.method in ("kfold", "source") and not all(isinstance(v, float) for v in (self.val, self.test)):
            raise ValueError(f"with split.method {self.method} parts are shares, not boxes or names")
        if self.budget_seed is not None and self.budget == 1:
            raise ValueError("split.budget_seed has no effect without split.budget below 1")
        if self.method == "csv" and self.budget < 1:
            raise ValueError("split.budget has no effect with csv: the file says what trains")
        if self.region_field is not None and (self.regions is None or self.regions in SCENE_REGIONS):
            raise ValueError("split.region_field goes with split.regions: a file of polygons")
        if self.method == "regions" and self.regions in SCENE_REGIONS:
            raise ValueError(f"split.regions: {self.regions} goes with kfold; test names scenes and places without it")
        return self


class StageConfig(Section):
    """One of several trainings at different pixel sizes, each of which starts from the best model of the one before."""

    gsd_m: float = Field(gt=0, description="Pixel size of the images in this stage, metres.")
    train: dict[str, Any] = Field(
        default={}, description="Settings of train that differ in this stage, e.g. {lr: 1e-4}."
    )


class RunConfig(Section):
    """A whole run: data, split, model, training, prediction."""

    name: str = "run"
    output: str = Field("runs", description="Folder that the run's folder is made in.")
    task: TaskName | TaskConfig = Field(
        "segmentation",
        description="What is learnt: segmentation (classes of pixels), hazard (one class against the rest), "
        "classification, multilabel, chip_regression, density (of chips as a whole), regression (numbers of pixels), "
        "change (of two dates: changed or not), semantic_change (what became what); or a section.",
    )
    data: DataConfig
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    baseline: ForestConfig | Literal[False] = ForestConfig()
    train: TrainConfig = TrainConfig()
    decision: DecisionConfig = DecisionConfig()
    predict: PredictConfig = PredictConfig()
    stages: list[StageConfig] = Field(
        default=[], description="Coarse pixels first, [{gsd_m: 10}, {gsd_m: 5}, {gsd_m: 1}]; the last is the run."
    )

    @model_validator(mode="after")
    def _finer_from_stage_to_stage(self) -> RunConfig:
        sizes = [stage.gsd_m for stage in self.stages]
        if len(sizes) == 1 or any(a <= b for a, b in pairwise(sizes)):
            raise ValueError("stages are two or more, coarse pixels first: [{gsd_m: 10}, {gsd_m: 5}]")
        if sizes and self.data.gsd_m:
            raise ValueError("data.gsd_m has no effect with stages, which have their own")
        if sizes and self.model.extra:
            raise ValueError("model.extra has one pixel size: it does not go with stages")
        return self

    @model_validator(mode="after")
    def _settings_go_with_the_task(self) -> RunConfig:
        task, kind = self.task_section.name, KINDS[self.task_section.name]
        self.monitor  # noqa: B018 - raises for a score that the task has not
        odd = []
        if kind.chips:
            warps = self.train.augment.scale or self.train.augment.rotation
            odd += [key for key, wrong in (("train.augment.scale and rotation", warps), ("stages", self.stages),
                    ("model.pixel_width", self.model.pixel_width),
                    ("a list in train.size_px", isinstance(self.train.size_px, list))) if wrong]  # fmt: skip
        else:
            odd += ["model.pool"] if self.model.pool != "mean" else []
            odd += ["stages"] if self.stages and kind.takes != "classes" else []
        if kind.takes == "transitions":
            odd += [
                f"predict.{key}" for key in ("entropy", "sets", "probabilities") if getattr(self.predict, key, False)
            ]
        if kind.takes in ("numbers", "presence", "transitions"):
            odd += ["split.balanced"] if self.split.balanced else []
            odd += ["train.class_weights"] if self.train.class_weights not in ("sqrt", "none") else []
        if kind.takes == "numbers":
            odd += [key for key, wrong in (("train.rare", self.train.rare),
                    ("train.sampling", self.train.sampling != "uniform")) if wrong]  # fmt: skip
        if kind.chips or kind.takes == "numbers":
            odd += [f"predict.{key}" for key in ("entropy", "sets") if getattr(self.predict, key)]
        odd += ["predict.applicability"] if kind.chips and self.predict.applicability else []
        odd += ["decision.adjust"] if self.decision.adjust and (kind.takes != "classes" or task == "hazard") else []
        odd += ["decision.conformal"] if self.decision.conformal and kind.takes != "classes" else []
        odd += ["decision.temperature"] if self.decision.temperature and kind.takes != "classes" else []
        odd += ["decision.threshold"] if self.decision.threshold != 0.5 and task not in ("hazard", "multilabel") else []
        shifted = self.train.class_weights != "none" or self.train.sampling != "uniform" or self.train.rare
        if self.decision.adjust and shifted:
            raise ValueError(
                "decision.adjust shifts classes that class weights or sampling have shifted already: it goes with "
                "train.class_weights: none, sampling: uniform and without train.rare"
            )
        if odd:
            raise ValueError(f"{odd[0]} has no effect with task {task}: leave it out")
        return self

    @model_validator(mode="after")
    def _labels_go_with_the_task(self) -> RunConfig:
        task, label = self.task_section.name, self.data.label
        needed = {"change": "change", "semantic_change": "dates"}.get(task)
        if needed and label != needed:
            raise ValueError(f"task {task} learns from labels of two dates: set data.label: {needed}")
        if label == "dates" and not needed:
            raise ValueError(f"data.label: dates goes with task semantic_change, not with {task}")
        return self

    @property
    def monitor(self) -> tuple[str, float]:
        """The score that the best checkpoint is chosen by, and -1 where less is better, else 1."""
        return monitored(self.task_section.name, self.train.monitor)

    @property
    def loss(self) -> str:
        """The loss, also where the task says which."""
        return KINDS[self.task_section.name].loss if self.train.loss == "auto" else self.train.loss

    @property
    def task_section(self) -> TaskConfig:
        """The section, also where one word was given."""
        return self.task if isinstance(self.task, TaskConfig) else TaskConfig(name=self.task)

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.output) / self.name


def parse_date(date: str) -> tuple[datetime.datetime, datetime.datetime]:
    """First and last second of `2019`, `2019-07`, `2019-07-27`, a moment or `first/last`; raises ConfigError."""
    spans = [_span(part.strip()) for part in date.split("/")]
    if len(spans) > 2 or spans[-1][1] < spans[0][0]:
        raise ConfigError(f"{date!r} is no period", fix="write first/last, for example 2019-04-01/2019-08-31")
    return spans[0][0], spans[-1][1]


def whole_period(dates: Sequence[str]) -> str:
    """The date of all, or first/last of them, whatever periods they are; raises ConfigError."""
    if len(set(dates)) == 1:
        return dates[0]
    first, last = min(dates, key=lambda d: parse_date(d)[0]), max(dates, key=lambda d: parse_date(d)[1])
    return f"{first.split('/')[0].strip()}/{last.split('/')[-1].strip()}"


def split_date(text: str) -> tuple[str, str | None]:
    """PATH@DATE -> the path and its date; None where none is stated, or a file is called so."""
    path, at, day = text.rpartition("@")
    return (path, day) if at and day[:4].isdigit() and not os.path.exists(text) else (text, None)


def _span(date: str) -> tuple[datetime.datetime, datetime.datetime]:
    """First and last second of a year, month or day; a moment is both."""
    try:
        if re.fullmatch(r"\d{4}", date):
            return datetime.datetime(int(date), 1, 1), datetime.datetime(int(date), 12, 31, 23, 59, 59)
        if re.fullmatch(r"\d{4}-\d{2}", date):
            first = datetime.datetime.strptime(date, "%Y-%m")
            after = (first + datetime.timedelta(days=31)).replace(day=1)
            return first, after - datetime.timedelta(seconds=1)
        moment = datetime.datetime.fromisoformat(date)
    except ValueError as error:
        raise ConfigError(f"{date!r} is no date", fix="write 2019, 2019-07, 2019-07-27 or first/last") from error
    if len(date) == 10:
        return moment, moment + datetime.timedelta(days=1, seconds=-1)
    moment = moment.astimezone(datetime.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return moment, moment


def expand(pattern: str) -> list[str]:
    """The files of a pattern with *, sorted; a path without *, or of a file that is called so, is itself.

    Raises ConfigError when nothing matches.
    """
    if "*" not in pattern or os.path.exists(pattern):
        return [pattern]
    files = sorted(glob.glob(pattern) or glob.glob(pattern.replace("[", "[[]")))  # brackets may be part of names
    if not files:
        raise ConfigError(f"no file matches {pattern}", fix="check the pattern; it counts from the config's folder")
    return files
