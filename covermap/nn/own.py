"""Backbones that we trained ourselves: saved with what is left out where a sensor is, loaded with a report.

The file is safetensors; its metadata say that it is ours, and which tensors belong to which sensor alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from covermap.core.errors import ModelError
from covermap.core.parsing import as_written, parse_json
from covermap.core.types import InputSpec
from covermap.nn.model import Backbone
from covermap.nn.weights import Layout, Report, Row, fill, read_tensors

_KEY = "covermap_backbone"


def save_backbone(backbone: Backbone, path: Path, alone: Mapping[str, Collection[str]]) -> None:
    """Write a backbone's tensors; alone: {sensor: names of the tensors that only it needs}."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}
    save_file(tensors, path, metadata={_KEY: json.dumps({sensor: sorted(names) for sensor, names in alone.items()})})


def is_own(path: str | Path) -> bool:
    """Whether a file of weights was written by `save_backbone`."""
    path = Path(path)
    return path.suffix == ".safetensors" and path.is_file() and _metadata(path) is not None


def load_backbone(backbone: Backbone, path: str | Path, sensors: Collection[str]) -> Report:
    """Fill a backbone for some of the sensors that the file knows; raises ModelError where it does not fit."""
    found, tensors = _metadata(Path(path)), read_tensors(path)
    assert found is not None
    report = Report(str(path))
    for sensor, names in found.items():
        for name in names if sensor not in sensors else ():
            if name in tensors:
                report.rows.append(Row(name, tuple(tensors.pop(name).shape), "ignored", f"the data has no {sensor}"))
    rest = fill(backbone, tensors, Layout(), path=path)
    return Report(str(path), [*report.rows, *rest.rows])


def tensors_alone(
    backbone: Backbone, spec: InputSpec, build: Callable[[InputSpec], Backbone]
) -> dict[str, list[str]]:  # fmt: skip
    """{sensor: names of the tensors that a backbone of these sensors has only for it}; none of a single sensor.

    build: makes the same backbone for fewer sensors.
    """
    if len(spec.sensors) == 1 or not backbone.fuses:
        return {}
    found = {}
    for entry in spec.sensors:
        rest = tuple(other for other in spec.sensors if other is not entry)
        without = build(InputSpec(rest, spec.gsd_m, spec.size_px)).state_dict()
        found[entry.sensor] = [name for name in backbone.state_dict() if name not in without]
    return found


def _metadata(path: Path) -> dict[str, list[str]] | None:
    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error})", fix="copy it again, or pre-train again") from error
    if said is None:
        return None
    with as_written(path, fix="copy it again, or pre-train again", error=ModelError):
        return {str(sensor): [str(name) for name in names] for sensor, names in parse_json(said).items()}
