"""STAC 1.1 Items as text: what those of maps and of models have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping

from covermap.core.config import parse_date
from covermap.core.download import checksum
from covermap.core.legend import LandClass

EXTENSIONS = ("classification/v2.0.0", "file/v2.1.0", "processing/v1.2.0")


def stac_item(
    name: str, ground: shapely.Geometry | None, properties: Mapping[str, Any], assets: Mapping[str, Any],
    extensions: Sequence[str], *, links: Sequence[Mapping[str, str]] = (),
) -> str:  # fmt: skip
    """An Item with EXTENSIONS and further ones; ground: longitude, latitude on WGS 84, None where it is not known."""
    uris = [f"https://stac-extensions.github.io/{each}/schema.json" for each in (*extensions, *EXTENSIONS)]
    place = {"geometry": None} if ground is None else {"geometry": mapping(ground), "bbox": list(ground.bounds)}
    item = {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": uris, "id": name, **place,
        "properties": {**properties, "processing:software": {"covermap": version("covermap")}},
        "links": list(links), "assets": dict(assets),
    }  # fmt: skip
    return json.dumps(item, indent=2) + "\n"


def stac_file(file: Path, media_type: str, title: str, *roles: str) -> dict[str, Any]:
    """An asset that lies beside its item, with size and checksum (SHA-256 as a multihash: 12, 20, digest)."""
    return {
        "href": f"./{file.name}", "type": media_type, "title": title, "roles": list(roles),
        "file:size": file.stat().st_size, "file:checksum": f"1220{checksum(file, 'sha256')}",
    }  # fmt: skip


def stac_classes(classes: Sequence[LandClass]) -> list[dict[str, Any]]:
    """Objects of the classification extension, whose names are of few letters, in the order of the classes."""
    names = [re.sub(r"[^0-9a-z]+", "_", c.name.lower()).strip("_") or f"class_{c.code}" for c in classes]
    return [
        {"value": c.code, "name": name, "title": c.name, "color_hint": c.colour[1:].upper()}
        for name, c in zip(names, classes, strict=True)
    ]


def stac_dates(date: str) -> dict[str, str | None]:
    """STAC's datetime of a day or moment; or start and end of a month, a year or `first/last`; raises ConfigError."""
    begin, end = parse_date(date)
    first, last = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (begin, end))
    if "/" not in date and end - begin < timedelta(days=1):
        return {"datetime": first}
    return {"datetime": None, "start_datetime": first, "end_datetime": last}
