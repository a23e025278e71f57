"""`export`: a trained model in the form that others take.

onnx   a network as one file, checked against ours (verbs/export_onnx.py)
emd    Esri's model definition: OUT.emd, with OUT.onnx and the raster function OUT.py beside it
mlm    a STAC item of the model, with the Machine Learning Model extension, for a catalogue
hf     the model folder: on the Hugging Face hub, or in a folder
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from covermap.card import ModelCard, card_item
from covermap.core.errors import ConfigError, ModelError, suggest
from covermap.core.output import claim, require_no_input, write_text
from covermap.hub import model_folder, on_hub
from covermap.models import read_card
from covermap.verbs.export_onnx import export_onnx
from covermap.verbs.models import push_model

FORMS = ("onnx", "emd", "mlm", "hf")
_BY_ENDING = {".onnx": "onnx", ".emd": "emd", ".json": "mlm"}


def export(
    model: str | Path, out: str, *, to: str | None = None, size_px: int | None = None, private: bool = False,
    overwrite: bool = False,
) -> list[str]:  # fmt: skip
    """Write a model in another form; returns sentences about it.

    to: one of FORMS; default: what OUT's ending says, hf for an address hf://... or a folder. size_px: side of the
    windows of onnx and emd, default that of training. private: of a repository on the hub. Raises ConfigError (form,
    options of another form), ModelError (a model that the form cannot hold), OutputError, MissingExtra.
    """
    form = to or ("hf" if on_hub(out) or not Path(out).suffix else _BY_ENDING.get(Path(out).suffix.lower(), ""))
    if form not in FORMS:
        fix = suggest(to, FORMS) if to else f"end it in {', '.join(_BY_ENDING)}, or say the form: --to"
        raise ConfigError(f"{to or out} is no form that a model is exported to", fix=fix)
    ending = next((ending for ending, known in _BY_ENDING.items() if known == form), None)
    if ending and Path(out).suffix.lower() != ending:
        raise ConfigError(f"{out} does not end in {ending}", fix=f"--to {form} writes a file of this ending")
    if size_px is not None and size_px < 1:
        raise ConfigError(f"windows of {size_px} px hold nothing", fix="give --size-px 1 or more, or leave it out")
    if (private and form != "hf") or (size_px and form not in ("onnx", "emd")):
        option = "--private" if private and form != "hf" else "--size-px"
        raise ConfigError(f"{option} has no effect with --to {form}", fix="leave it out")
    if form == "hf":
        return [push_model(model, out, private=private, overwrite=overwrite)]
    folder = model_folder(model)
    require_no_input([Path(out)], [folder / "item.stac.json"])
    if form == "onnx":
        return export_onnx(folder, out, size_px=size_px, overwrite=overwrite)
    write = _write_emd if form == "emd" else _write_item
    return write(folder, read_card(folder), claim(out, overwrite=overwrite), size_px, overwrite)


def _write_item(folder: Path, card: ModelCard, out: Path, size_px: int | None, overwrite: bool) -> list[str]:
    """The model's STAC item, whose assets stay where they are."""
    item = json.loads(card_item(card, folder))
    for asset in item["assets"].values():
        asset["href"] = Path(os.path.relpath(folder / asset["href"], out.parent)).as_posix()
    write_text(out, json.dumps(item, indent=2) + "\n")
    return [f"{out}: STAC {item['stac_version']} item {item['id']}, its files are in {folder}"]


def _write_emd(folder: Path, card: ModelCard, out: Path, size_px: int | None, overwrite: bool) -> list[str]:
    """Network, raster function and, last, the definition that names both."""
    _require_plain(card, folder)
    network, function, name = out.with_suffix(".onnx"), out.with_suffix(".py"), _class_name(out)
    claim(function, overwrite=overwrite)
    lines = export_onnx(folder, network, size_px=size_px, overwrite=overwrite)
    text = (resources.files("covermap.verbs") / "esri_function.py").read_text(encoding="utf-8")
    # ArcGIS looks for a class that is called as its file.
    write_text(function, text.replace("class LandCover:", f"class {name}:"))
    write_text(out, json.dumps(_definition(card, out, size_px or card.spec.size_px), indent=2) + "\n")
    (entry,) = card.spec.sensors
    notes = ["the raster function follows Esri's documentation; it has not been run in ArcGIS"]
    if entry.auto_offset and entry.sensor == "sentinel2":
        notes.append("of Sentinel-2 products from 2022 on, take off the 1000 that their numbers are too high")
    return [f"{out}: with {network.name} and {function.name}", *lines, *(f"note: {note}" for note in notes)]


def _require_plain(card: ModelCard, folder: Path) -> None:
    """Raise ModelError for a model that an image of a few bands is not enough for, or that gives no classes."""
    reasons = [
        "it takes several sensors" if len(card.spec.sensors) > 1 else "",
        "it takes several dates" if card.spec.num_dates > 1 else "",
        "it takes indices, which ArcGIS would have to make" if any(e.indices for e in card.spec.sensors) else "",
        "it takes dB" if any(e.quantity for e in card.spec.sensors) else "",
        "it gives no classes" if card.task.kind.takes != "classes" else "",
        "it answers for chips" if card.task.kind.chips else "",
    ]
    if reason := next(filter(None, reasons), ""):
        raise ModelError(f"{folder} has no Esri model definition: {reason}", fix="use --to onnx, or covermap predict")


def _class_name(out: Path) -> str:
    if not out.stem.isidentifier():
        raise ConfigError(
            f"{out.stem!r} is no name of a Python class", fix="use letters, digits and _, as in gewata.emd"
        )
    return out.stem


def _definition(card: ModelCard, out: Path, side: int) -> dict[str, Any]:
    """The keys of Esri's model definition, and BandNames, Fill, NoData and PixelSizeMetres of ours."""
    (entry,) = card.spec.sensors
    fill = [(mean - entry.offset) / entry.scale for mean in entry.mean]
    return {
        "Framework": "ONNX", "ModelConfiguration": card.architecture, "ModelType": "ImageClassification",
        "ModelName": out.stem, "ModelFile": out.with_suffix(".onnx").name,
        "InferenceFunction": out.with_suffix(".py").name,
        "ImageHeight": side, "ImageWidth": side, "ExtractBands": list(range(len(entry.bands))),
        "BandNames": list(entry.bands), "BatchSize": 1, "Fill": fill, "ModelPadding": side // 8,
        "NoData": card.legend.map_nodata, "PixelSizeMetres": round(card.spec.gsd_m, 3),
        "Classes": [{"Value": c.code, "Name": c.name, "Color": list(c.rgb)} for c in card.legend.classes],
    }  # fmt: skip
