"""`models`: the parts that a config can name, published weights, and what trained folders hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import init_empty_weights

from covermap.core.errors import ConfigError, suggest
from covermap.core.legend import PALETTE, LandClass, Legend, load_legend
from covermap.core.output import claim
from covermap.core.progress import Tick, unseen
from covermap.core.registry import find, names
from covermap.hub import checkpoint_sum, find_file, model_folder, on_hub, pull, push, require_sum
from covermap.models import LandModel, NetworkModel, read_card, save_model
from covermap.models import load_model as load_folder
from covermap.nn.build import make_backbone
from covermap.nn.published import Published, published_of
from covermap.testing import suitable_spec


def list_models() -> list[dict[str, Any]]:
    """Rows {kind, name, weights, licence, about} of everything that a config can name."""
    rows = [
        {"kind": kind, "name": name, "weights": _state(name, find(kind, name)), "licence": _licence(find(kind, name)),
         "about": " ".join((find(kind, name).__doc__ or "").split("\n\n")[0].split())}
        for kind in ("backbone", "decoder", "loss", "source")
        for name in names(kind)
    ]  # fmt: skip
    about = "Random forest on single pixels, trained beside every network (extra ml)."
    return [*rows, {"kind": "baseline", "name": "random_forest", "weights": "", "licence": "", "about": about}]


def _published(thing: Any) -> Published | None:
    published: Published | None = getattr(thing, "published", None)
    return published if published is not None and published.repo else None


def _state(name: str, thing: Any) -> str:
    published = _published(thing)
    return "" if published is None else "here" if find_file(name, published) else "on the hub"


def _licence(thing: Any) -> str:
    published = _published(thing)
    return published.licence if published else str(getattr(thing, "licence", ""))


def show_model(name: str) -> dict[str, Any]:
    """Facts about a listed part or a trained model (see hub.model_folder); raises ConfigError with a suggestion."""
    folder = model_folder(name)
    if (folder / "config.json").is_file():
        card = read_card(folder)
        bands = {entry.sensor: list(entry.bands) for entry in card.spec.sensors}
        return {
            "folder": str(folder), "kind": card.kind, "bands": bands, "gsd_m": card.spec.gsd_m,
            "dates": card.spec.num_dates, "classes": list(card.legend.names), **card.build, **card.facts,
        }  # fmt: skip
    # A decoder may have the name of a backbone, which is meant then.
    rows = {row["name"]: row for row in sorted(list_models(), key=lambda row: row["kind"] == "backbone")}
    if name not in rows:
        raise ConfigError(f"there is no model called {name!r}, and no such folder", fix=suggest(name, rows))
    row = rows[name]
    if row["kind"] != "backbone":
        more = {"licence": row["licence"], "address": find("source", name).url} if row["kind"] == "source" else {}
        return {**{key: row[key] for key in ("kind", "name", "about")}, **more}
    with init_empty_weights():
        backbone = make_backbone(name, suitable_spec(name))
    takes = {"one": "one date at a time", "each": "all dates together, a map for each", "all": "all dates, one map"}
    return {
        **row,
        **_origin(name),
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "dates": takes[backbone.dates] + (f", at most {backbone.max_dates}" if backbone.max_dates < 1000 else ""),
        "sensors may be absent": backbone.fuses,
        "uses": list(backbone.uses),
        "channels": list(backbone.channels),
        "strides": list(backbone.strides),
    }


def _origin(name: str) -> dict[str, Any]:
    published = published_of(name)
    if published is None:
        return {"bands": "any", "licence": "Apache-2.0, no published weights", "weights": "none"}
    facts: dict[str, Any] = {
        "bands": {modality.name: list(modality.bands) for modality in published.modalities},
        "gsd_m": published.gsd_m or "any",
        "licence": published.licence,
    }
    if not published.repo:
        return {**facts, "weights": "none published: random, or a file of your own"}
    found = find_file(name, published)
    return {
        **facts,
        "repo": published.repo,
        "file": published.file,
        "sha256": published.sha256 or "not recorded",
        "needs consent": published.gated,
        "weights": str(found) if found else f"not here: covermap models pull {name}",
    }


def pull_model(name: str, *, on_progress: Tick = unseen) -> dict[str, Any]:
    """Fetch the weights of a backbone, or a model of the hub anew: {name, path, bytes, sha256, licence}.

    Raises what `pull` and `model_folder` raise.
    """
    if on_hub(name):
        path, licence = model_folder(name, again=True) / "model.safetensors", "licence: see its README.md"
        digest = checkpoint_sum(path)
    else:
        published = published_of(name)
        if published is None:
            raise ConfigError(f"{name} has no published weights", fix="it is trained from scratch")
        path, licence = pull(name, published, on_progress=on_progress), published.licence
        digest = require_sum(path, published)
    return {"name": name, "path": str(path), "bytes": path.stat().st_size, "sha256": digest, "licence": licence}


def load_model(model: str | Path, *, device: str = "cpu", precision: str = "float32") -> LandModel:
    """A trained model from its folder, its run, or hf://OWNER/NAME[@REVISION]; raises ModelError."""
    return load_folder(model_folder(model), device=device, precision=precision)


def push_model(model: str | Path, dest: str, *, private: bool = False, overwrite: bool = False) -> str:
    """Copy a model to a folder or to hf://OWNER/NAME; gives where it is. Raises ModelError where it does not load."""
    folder = model_folder(model)
    load_folder(folder)
    return push(folder, dest, private=private, overwrite=overwrite)


def import_model(
    checkpoint: str | Path, out: str | Path, *, legend: str | None = None, overwrite: bool = False
) -> list[str]:
    """A model folder from a fine-tuned TerraTorch checkpoint; returns sentences about it.

    Raises ConfigError for a legend of another number of classes, OutputError, and what reading the file raises.
    """
    from covermap.nn.terratorch import read_terratorch

    folder = claim(Path(out), overwrite=overwrite)
    found = read_terratorch(checkpoint)
    count = found.num_classes
    classes = tuple(LandClass(i, f"class {i}", PALETTE[i % len(PALETTE)]) for i in range(count))
    known = load_legend(legend) if legend else Legend(Path(checkpoint).stem, classes)
    if len(known) != count:
        raise ConfigError(
            f"{checkpoint} has {count} classes, legend {known.name} has {len(known)}",
            fix="give a legend of its classes, in their order",
        )
    facts = {"imported_from": Path(checkpoint).name}
    save_model(NetworkModel(found.spec, known, found.model, facts), folder, build=found.build)
    entry = found.spec.sensors[0]
    return [
        f"{folder}: {found.build['backbone']}, {found.build['decoder']}, {count} classes, {', '.join(entry.bands)}",
        "note: means and stds are the backbone's published ones; if the model was trained with others, change them in "
        f"{folder / 'config.json'}",
        f"next: covermap predict {folder} IMAGE.tif MAP.tif",
    ]
