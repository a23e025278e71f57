"""STAC items of embeddings, with the fields of the embedding extension.

`emb:` is a proposal without a schema yet (github.com/geo-embeddings/embeddings-stac-specification, v0.0.1), so it does
not stand among `stac_extensions`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shapely

from covermap.core.config import whole_period
from covermap.core.output import write_text
from covermap.core.stac_item import stac_dates, stac_file, stac_item
from covermap.data.scene import Scene
from covermap.geo.embedding_cog import band_names, embedding_bands
from covermap.geo.grid import Grid
from covermap.geo.products import COG, grid_properties
from covermap.verbs.embed_chips import Counted
from covermap.verbs.encoder import Shown

NO_DATE = "no STAC item was written: the date of the image is not known (state it: FILE@2019-07-27)"
_PARQUET = "application/vnd.apache.parquet"


def chip_item(
    shown: Shown, out: Path, found: Counted, facts: Mapping[str, Any], written: Path
) -> tuple[Path | None, list[str]]:
    """Write the item of a file of chips, which is still called `written`; None and a note where no date is known."""
    item = out.with_suffix(".stac.json")
    when = period(shown.scenes)
    if when is None:
        item.unlink(missing_ok=True)
        return None, [NO_DATE]
    side = facts["size_px"]
    properties = {
        **when, **_about(shown, "chip", facts["dimensions"]), "data_type": "float32",
        "gsd": round(side * facts["gsd_m"], 3),
        "emb:chip_layout": {"layout_type": "regular_grid", "chip_size": [side, side], "stride": [side, side]},
    }  # fmt: skip
    ground = shapely.box(*found.bounds) if found.bounds else None
    assets = {"embeddings": {**stac_file(written, _PARQUET, "Embeddings of chips", "data"), "href": f"./{out.name}"}}
    return write_text(item, stac_item(out.stem, ground, properties, assets, [], links=_links(shown, item))), []


def pixel_item(
    shown: Shown, scene: Scene, out: Path, grid: Grid, dtype: str, written: Path
) -> tuple[Path | None, list[str]]:
    """Write the item of a raster of embeddings, still called `written`; None and a note where no date is known."""
    item = out.with_suffix(".stac.json")
    when = period([scene])
    if when is None:
        item.unlink(missing_ok=True)
        return None, [NO_DATE]
    coded = {
        "method": "sqrt_scale", "original_dtype": "float32", "quantized_dtype": "int8", "scale": [1 / 127.5],
        "offset": [0],
    }  # fmt: skip
    plain = {"method": "none", "original_dtype": "float32", "quantized_dtype": dtype}
    properties = {
        **when, **_about(shown, "pixel", shown.encoder.dimensions), **grid_properties(grid), "data_type": dtype,
        "emb:quantization": coded if dtype == "int8" else plain,
    }  # fmt: skip
    bands = embedding_bands(band_names(shown.encoder.dimensions), dtype, grid)
    assets = {
        "embeddings": {
            **stac_file(written, COG, "Embeddings of pixels", "data"),
            "href": f"./{out.name}",
            "bands": bands,
        }
    }
    extensions = ["projection/v2.0.0", "raster/v2.0.0"]
    ground = shapely.Polygon(grid.outline) if grid.outline else None
    return write_text(item, stac_item(out.stem, ground, properties, assets, extensions, links=_links(shown, item))), []


def period(scenes: list[Scene]) -> dict[str, str | None] | None:
    """STAC's datetime of all scenes whose date is known; None where none is."""
    days = [day for scene in scenes for day in scene.dates if day]
    return stac_dates(whole_period(days)) if days else None


def _about(shown: Shown, kind: str, dimensions: int) -> dict[str, Any]:
    return {
        "emb:type": kind, "emb:dimensions": dimensions,
        "emb:runtime_parameters": {"encoder": dict(shown.encoder.facts)},
    }  # fmt: skip


def _links(shown: Shown, item: Path) -> list[dict[str, str]]:
    """To the model's own item, where it is there."""
    if shown.model is None or not shown.model.is_file():
        return []
    href = Path(os.path.relpath(shown.model, item.parent)).as_posix()
    return [{"rel": "emb:model", "href": href, "type": "application/geo+json"}]
