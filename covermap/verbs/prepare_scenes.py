"""`prepare CONFIG FOLDER`: the scenes of a config, or tiles of them, written once in a form that trains fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from covermap.core.config import Box, RunConfig, SplitConfig
from covermap.core.output import write_text
from covermap.core.progress import Tick, unseen
from covermap.data.store import write_store
from covermap.data.tiles import Tiling
from covermap.geo.products import small_cache

_OF_VECTORS = ("legend", "merge", "field", "layer", "epsg", "point_px")
_ALWAYS = ("unknown_codes", "indices", "target")
"""Files of targets stay where they are: they are found by their place."""


@small_cache()
def prepare_scenes(
    config: RunConfig,
    out: str | Path,
    *,
    tiling: Tiling | None = None,
    gsd_m: float | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    on_progress: Tick = unseen,
) -> list[str]:
    """Write the folder with a config that trains on it; returns sentences about the result.

    The same call goes on where an earlier one was stopped. Raises what `write_store` raises.
    """
    path, told = Path(out) / "covermap.yaml", list[str]()
    stated = (config.split.val, config.split.test, *config.split.exclude)
    data = config.data
    if (tiling or gsd_m) and any(isinstance(one, Box if gsd_m is None else Box | list) for one in stated):
        config = config.model_copy(update={"split": SplitConfig()})
        told = ["note: boxes of split, or its names, are those of whole scenes, so the new config has the usual split"]

    def write_config(manifest: Mapping[str, Any]) -> None:
        write_text(path, yaml.safe_dump(_on_prepared(config, manifest), sort_keys=False))

    done = write_store(
        data, out, tiling=tiling, gsd_m=gsd_m, overwrite=overwrite, dry_run=dry_run, beside=write_config,
        on_progress=on_progress,
    )  # fmt: skip
    return done if dry_run else [*done, *told, f"next: covermap train {path}"]


def _on_prepared(config: RunConfig, manifest: Mapping[str, Any]) -> dict[str, object]:
    """The same run on the folder: what was decided while it was written is left out."""
    plain = config.model_dump(mode="json", exclude_defaults=True)
    kept = (*_ALWAYS, *(() if manifest["legend"] else _OF_VECTORS))
    data = {key: value for key, value in plain["data"].items() if key in kept}
    tiles: dict[str, list[str]] = {}
    for row in manifest["scenes"]:
        tiles.setdefault(row["scene"], []).append(row["name"])
    for part in ("val", "test"):
        names = plain.get("split", {}).get(part)
        if isinstance(names, list):
            plain["split"][part] = [tile for name in names for tile in tiles.get(name, [name])]
    output = str(Path(config.output).resolve())
    return {**plain, "output": output, "data": {"source": "prepared", "root": ".", **data}}
