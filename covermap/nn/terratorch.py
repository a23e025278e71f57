"""Models that were fine-tuned with TerraTorch -> ours: the same tensors under our names, the same logits.

A .ckpt of its trainer holds model.encoder.*, model.neck.*, model.decoder.*, model.head.head.* and, as
hyper_parameters.model_args, which backbone, necks and decoder it is of. Auxiliary heads and the criterion are not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from covermap.core.errors import ModelError, suggest
from covermap.core.registry import names
from covermap.core.types import InputSpec, SensorInput
from covermap.nn.build import build_model
from covermap.nn.model import Model
from covermap.nn.published import published_of
from covermap.nn.weights import Layout, fill, read_object, tensors_in

_BANDS = {
    "BLUE": "blue", "GREEN": "green", "RED": "red", "NIR_NARROW": "nir_narrow", "NIR_BROAD": "nir", "SWIR_1": "swir1",
    "SWIR_2": "swir2", "COASTAL_AEROSOL": "coastal", "RED_EDGE_1": "rededge1", "RED_EDGE_2": "rededge2",
    "RED_EDGE_3": "rededge3", "WATER_VAPOR": "water_vapour", "VV": "vv", "VH": "vh",
}  # fmt: skip
_SIZES = {
    "backbone_depth": "depth", "backbone_embed_dim": "width", "backbone_num_heads": "heads",
    "backbone_patch_size": "patch_px", "backbone_img_size": "size_px",
}  # fmt: skip
_BLOCK = r"\.conv{}\.(\d)\."


@dataclass(frozen=True)
class Imported:
    """A fine-tuned model and how it is built again (arguments of build_model)."""

    model: Model
    build: Mapping[str, Any]
    spec: InputSpec
    num_classes: int


def read_terratorch(path: str | Path) -> Imported:
    """A model of the file's tensors; every one of backbone, neck, decoder and head is used.

    Raises ModelError for a file that is none of TerraTorch's trainer, or a part that is not known here.
    """
    whole = read_object(Path(path))
    arguments = whole.get("hyper_parameters", {}).get("model_args") if isinstance(whole, Mapping) else None
    if not isinstance(arguments, Mapping):
        raise ModelError(
            f"{path} has no hyper_parameters.model_args: it is no checkpoint of TerraTorch's trainer",
            fix="give the .ckpt of a fine-tuning run; published weights go into model.weights",
        )
    tensors = tensors_in(whole, Path(path))
    if any(".lora_" in name for name in tensors):
        raise ModelError(f"{path} holds low-rank updates apart from the weights", fix="merge them first in TerraTorch")
    build, spec = _backbone(arguments, path)
    last = next((t for name, t in tensors.items() if re.fullmatch(r"model\.head\.head\.\d+\.weight", name)), None)
    num_classes = int(arguments.get("num_classes") or (0 if last is None else len(last)))
    decoder, rename = _decoder(arguments, path)
    build |= decoder
    torch.manual_seed(0)
    model = build_model(spec, num_classes, weights=path, **build)
    # A decoder that reads one map alone has a neck of which nothing but pooling counts.
    idle = (r"neck\.",) if len(model.decoder.uses(4)) == 1 else ()
    layout = Layout(prefixes=("model.",), ignore=(r"encoder\.", r"aux_heads\.", *idle), rename=rename)
    fill(_Rest(model), tensors, layout, path=path)
    return Imported(model.eval(), build, spec, num_classes)


class _Rest(torch.nn.Module):
    """Neck and decoder, which are filled together."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.neck, self.decoder = model.neck, model.decoder


def _backbone(arguments: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Any], InputSpec]:
    """Name and options of the backbone and neck, and the input that it takes."""
    name = str(arguments.get("backbone", "")).removeprefix("terratorch_")
    published = published_of(name) if name in names("backbone") else None
    if published is None or not name.startswith(("prithvi", "terramind")):
        ours = [n for n in names("backbone") if n.startswith(("prithvi", "terramind"))]
        raise ModelError(f"{path} is of backbone {name!r}, which cannot be imported", fix=suggest(name, ours))
    modality = published.modalities[0]
    if name.startswith("terramind"):
        wanted = [each if isinstance(each, str) else next(iter(each)) for each in arguments["backbone_modalities"]]
        if len(wanted) != 1:
            raise ModelError(f"{path} takes {' and '.join(wanted)}", fix="only models of one modality can be imported")
        known = {m.name: m for m in published.modalities}
        if wanted[0] not in known:
            raise ModelError(f"{path} takes {wanted[0]}", fix=suggest(wanted[0], known))
        modality = known[wanted[0]]
    bands = [_BANDS.get(band, str(band).lower()) for band in arguments.get("backbone_bands") or modality.bands]
    at = [modality.bands.index(band) for band in bands if band in modality.bands]
    if len(at) < len(bands):
        raise ModelError(f"{path} takes bands {', '.join(bands)}", fix=f"known are {', '.join(modality.bands)}")
    numbers = [tuple(float(values[i]) for i in at) for values in (modality.mean, modality.std)]
    frames = int(arguments.get("backbone_num_frames") or 1)
    sensor = modality.sensors[0] if modality.sensors else "hls"
    entry = SensorInput(sensor, tuple(bands), numbers[0], numbers[1], num_dates=frames)
    necks = [str(neck.get("name")) for neck in arguments.get("necks") or ()]
    chosen = next((n["indices"] for n in arguments.get("necks") or () if n.get("name") == "SelectIndices"), None)
    strange = set(necks) - {"SelectIndices", "ReshapeTokensToImage", "LearnedInterpolateToPyramidal"}
    if strange:
        raise ModelError(f"{path} has the neck {', '.join(sorted(strange))}", fix="it cannot be imported")
    sizes: dict[str, Any] = {ours: arguments[theirs] for theirs, ours in _SIZES.items() if theirs in arguments}
    if name.startswith("prithvi"):
        sizes |= {"eps": 1e-5, "coords": bool(arguments.get("backbone_coords_encoding", name.endswith("_tl")))}
    options: dict[str, Any] = {"sizes": sizes} if sizes else {}
    if chosen is not None:
        options["layers"] = [int(index) for index in chosen]
    neck = "interpolate" if "LearnedInterpolateToPyramidal" in necks else "none"
    spec = InputSpec((entry,), published.gsd_m, 224, fixed_size=True)
    return {"backbone": name, "backbone_options": options, "neck": neck}, spec


def _decoder(arguments: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """Name and options of the decoder, and the new names of neck, decoder and head."""
    name, channels = str(arguments.get("decoder", "")), arguments.get("decoder_channels", 256)
    rename: tuple[tuple[str, str], ...]
    neck = ((r"^neck\.\d+\.fpn1\.", "neck.levels.0."), (r"^neck\.\d+\.fpn2\.0\.", "neck.levels.1."))
    head = ((r"^head\.head\.\d+\.", "decoder.classify."),)
    if name == "UNetDecoder":
        widths: Sequence[int] = list(channels)
        steps = len(widths) - 1
        joins = tuple((rf"^decoder\.decoder\.blocks\.{i}\.", f"decoder.joins.{steps - 1 - i}.") for i in range(steps))
        last = (rf"^decoder\.decoder\.blocks\.{steps}\.", "decoder.last.")
        inner = ((r"\.conv1\.(\d)\.", r".0.\1."), (r"\.conv2\.(\d)\.", r".2.\1."))
        options = {"widths": widths[:-1][::-1], "last": widths[-1], "interpolation": "nearest"}
        return {"decoder": "unet", "decoder_options": options}, (*neck, *head, *joins, last, *inner)
    if name == "UperNetDecoder":
        rename = (
            (r"^decoder\.psp_modules\.(\d)\.1\.conv", r"decoder.pools.\1.1"),
            (r"^decoder\.psp_modules\.(\d)\.1\.norm", r"decoder.pools.\1.2"),
            (r"^decoder\.fpn_bottleneck\.", "decoder.fuse."), (r"^decoder\.lateral_convs\.", "decoder.laterals."),
            (r"^decoder\.fpn_convs\.", "decoder.smooth."), (r"\.conv\.", ".0."), (r"\.norm\.", ".1."),
        )  # fmt: skip
        options = {"width": int(channels), "align_corners": bool(arguments.get("decoder_align_corners", True))}
        return {"decoder": "upernet", "decoder_options": options}, (*neck, *head, *rename)
    if name == "FCNDecoder":
        steps = int(arguments.get("decoder_num_convs", 4))
        rename = (
            (r"^decoder\.convs\.(\d+)\.2\.ln\.", r"decoder.steps.\1.2."),
            (r"^decoder\.convs\.", "decoder.steps."),
        )
        return {"decoder": "fcn", "decoder_options": {"width": int(channels), "steps": steps}}, (*neck, *head, *rename)
    raise ModelError(
        f"{path} has the decoder {name!r}", fix="UNetDecoder, UperNetDecoder and FCNDecoder can be imported"
    )
