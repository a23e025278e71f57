"""`models export`: a trained network as an ONNX file that takes file numbers and gives logits, checked against ours."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from covermap.core.errors import MissingExtra, ModelError
from covermap.core.output import claim, replacing
from covermap.core.task import Task
from covermap.core.types import Batch, InputSpec
from covermap.hub import model_folder
from covermap.models import NetworkModel, load_model
from covermap.nn.heads import answers, decided

TOLERANCE = 1e-4
"""Largest difference of logits, in units of the largest one."""


class Whole(nn.Module):
    """Images as in files, (B, T, C, H, W) for each sensor -> logits (B, K, H, W); every pixel counts as valid."""

    def __init__(self, network: nn.Module, spec: InputSpec, task: Task) -> None:
        super().__init__()
        self.network, self.spec, self.task = network, spec, task

    def forward(self, *images: Tensor) -> Tensor:
        """Scaled and standardised as in prediction; dates and places are not known."""
        inputs = {}
        for entry, x in zip(self.spec.sensors, images, strict=True):
            mean, std = (torch.tensor(v)[:, None, None] for v in (entry.mean, entry.std))
            inputs[entry.sensor] = ((x * entry.scale + entry.offset - mean) / std).clamp(-entry.clip, entry.clip)
        first = max(images, key=lambda x: x.shape[1])
        valid = torch.ones_like(first[:, :, 0], dtype=torch.bool)
        out: Tensor = self.network(Batch(inputs, valid))
        if self.task.kind.takes in ("numbers", "order", "transitions"):
            return answers(self.task, out)
        return decided(self.task, out) if self.task.kind.takes == "classes" else out


def export_onnx(
    model: str | Path, out: str | Path, *, size_px: int | None = None, overwrite: bool = False
) -> list[str]:
    """Write OUT.onnx with bands, classes and scaling in its metadata; returns sentences about it.

    Windows are of `size_px` (default: those of training), any number at once. Raises ModelError for a model that cannot
    be written (the operator is named) or whose outputs differ by more than TOLERANCE, MissingExtra without onnxruntime.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise MissingExtra("onnx", "onnx", "models export") from error
    path = claim(Path(out), overwrite=overwrite)
    loaded = load_model(model_folder(model))
    if not isinstance(loaded, NetworkModel):
        raise ModelError(f"{model} is a random forest", fix="only networks become ONNX files")
    odd = [entry.sensor for entry in loaded.spec.sensors if entry.per_scene]
    if odd:
        raise ModelError(
            f"{model} takes the mean and std of each scene of {', '.join(odd)}, which an ONNX file cannot know",
            fix="train with train.normalise: dataset",
        )
    whole = Whole(loaded.forward, loaded.spec, loaded.task).eval()
    side = size_px or loaded.spec.size_px
    images = _random_images(loaded.spec, side)
    with torch.no_grad():
        ours = whole(*images).numpy()  # first: tables that are computed once are constants from now on
    with replacing(path) as partial:
        _write(whole, images, loaded.spec, partial, str(model))
        described = onnx.load(partial)
        facts = {
            "bands": {e.sensor: e.bands for e in loaded.spec.sensors},
            "classes": loaded.legend.names,
            "task": loaded.task.to_dict(),
        }
        onnx.helper.set_model_props(described, {key: json.dumps(value) for key, value in facts.items()})
        onnx.save(described, partial)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        theirs = session.run(None, {name: x.numpy() for name, x in zip(names, images, strict=True)})[0]
        apart = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        if not apart <= TOLERANCE:
            raise ModelError(
                f"the ONNX file of {model} gives other logits (difference {apart:.2g} of the largest)",
                fix="predict with covermap, and report this model",
            )
    takes = "; ".join(
        f"{name} (N, {e.num_dates}, {len(e.bands)}, {side}, {side}) {', '.join(e.bands)}"
        for name, e in zip(names, loaded.spec.sensors, strict=True)
    )
    lines = [f"{path}: {path.stat().st_size / 1e6:.1f} MB, logits agree to {apart:.1g}", f"takes {takes}, as in files"]
    if loaded.spec.uses:
        lines.append(f"note: {' and '.join(loaded.spec.uses)} are not taken into account")
    return lines


def _random_images(spec: InputSpec, side: int) -> list[Tensor]:
    """Two windows of numbers as they might be in files."""
    torch.manual_seed(0)
    found = []
    for entry in spec.sensors:
        mean, std = (torch.tensor(values)[:, None, None] for values in (entry.mean, entry.std))
        x = torch.randn(2, entry.num_dates, len(entry.bands), side, side)
        found.append((x * std + mean - entry.offset) / entry.scale)
    return found


def _write(whole: Whole, images: Sequence[Tensor], spec: InputSpec, path: Path, name: str) -> None:
    batch = torch.export.Dim("windows", min=1, max=1 << 16)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()), torch.no_grad():
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                whole, tuple(images), dynamo=True, verbose=False, input_names=[e.sensor for e in spec.sensors],
                output_names=["logits"], dynamic_shapes=(tuple({0: batch} for _ in images),),
            )  # fmt: skip
        assert program is not None
        program.save(str(path))
    except Exception as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise ModelError(
            f"{name} cannot be written as ONNX: {reason.strip()[:300]}", fix="use another decoder or backbone"
        ) from error
