"""Given: what the path that a user names as an image holds.

    raster, VRT, product, URL, list of files            one scene
    pattern with *                                      a scene for each file, or STAC items
    folder: rasters of different bands                  one scene
    folder: rasters of the same bands, products, or folders of rasters       a scene for each
    catalog.json, items, or a folder of items           STAC items (data.items, data.sources.stac)

In a folder of rasters nothing else is looked at. What may mean two things is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from covermap.core.config import ImageConfig, expand
from covermap.core.errors import BandError, DataError
from covermap.core.sensors import find_sensor
from covermap.geo.granule import ARCHIVES
from covermap.geo.landsat import is_landsat
from covermap.geo.raster import SUFFIXES, bands_by_file, is_remote
from covermap.geo.safe import is_safe
from covermap.geo.stac import CATALOGUES, LISTS


def holds_items(path: str | Sequence[str]) -> bool:
    """Whether a path is a list of STAC items; raises DataError for a folder that may be, and for a list on the web."""
    if not isinstance(path, str):
        return False
    if is_remote(path):
        if path.lower().endswith(LISTS):
            raise DataError(f"{path} is a list on the web", fix="save it here; the files that it names may stay there")
        return False
    if "*" in path:
        return all(map(_is_list, map(Path, expand(path))))
    return bool(_contents(Path(path))["STAC items"]) if Path(path).is_dir() else _is_list(Path(path))


def given_paths(image: ImageConfig) -> list[str | list[str]]:
    """The path of each scene that an image's path names; raises ConfigError, DataError."""
    if isinstance(image.path, list):
        return [image.path]
    if holds_items(image.path):
        raise DataError(
            f"{image.path} is a list of STAC items", fix=f"data: {{source: stac, root: {image.path}}} trains on them"
        )
    if "*" in image.path or is_remote(image.path) or not Path(image.path).is_dir():
        return [*expand(image.path)]
    folder = Path(image.path)
    there = _contents(folder)
    found = there["products"] or there["folders of rasters"]
    if there["rasters"] and not image.tiles and image.variable is None:
        found = _apart(folder, image)
    return [*map(str, found)] or [image.path]


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in LISTS and not is_landsat(path)


def _contents(folder: Path) -> dict[str, list[Path]]:
    """What a folder holds, by kind, the folder itself where it is one product; raises DataError for several kinds."""
    found: dict[str, list[Path]] = {"rasters": [], "products": [], "folders of rasters": [], "STAC items": []}
    if _is_product(folder):
        return found
    there = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    found["rasters"] = [path for path in there if path.suffix.lower() in SUFFIXES]
    lists = [path for path in there if _is_list(path) and path.is_file()]
    if found["rasters"]:
        found["STAC items"] = [path for path in lists if path.name in CATALOGUES]
    else:
        found["STAC items"] = lists
        found["products"] = [path for path in there if path.suffix.lower() in ARCHIVES or _is_product(path)]
        folders = [path for path in there if path.is_dir() and path not in found["products"]]
        found["folders of rasters"] = [path for path in folders if _has_rasters(path)]
    if any(path.name in CATALOGUES for path in lists) and not found["rasters"]:
        found["products"], found["folders of rasters"] = [], []  # they are the catalogue's
    kinds = {kind: paths for kind, paths in found.items() if paths}
    if len(kinds) > 1:
        listed = " and ".join(f"{kind} ({paths[0].name})" for kind, paths in kinds.items())
        patterns = (f"'{folder}/*{path.suffix or '/'}'" for path in (paths[0] for paths in kinds.values()))
        raise DataError(f"the folder {folder} holds {listed}", fix=f"name one kind, in quotes: {' or '.join(patterns)}")
    return found


def _is_product(path: Path) -> bool:
    return path.is_dir() and (is_safe(path) or is_landsat(path))


def _has_rasters(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _apart(folder: Path, image: ImageConfig) -> list[Path]:
    """The files of a folder of rasters where each is a scene; none where they are the bands of one.

    Raises BandError where some of the files share bands and some do not.
    """
    known = bands_by_file(folder, find_sensor(image.sensor) if image.sensor else None)
    if image.bands:
        # Names that are given are those of one file, or of all.
        counts = [len(each) for each in known.values() if each]
        return [*map(Path, known)] if len(counts) > 1 and set(counts) == {len(image.bands)} else []
    named = {file: set(each) for file, each in known.items() if each and all(each)}
    every = [band for each in named.values() for band in each]
    if len(named) < 2 or len(set(every)) == len(every):
        return []
    first, bands = next(iter(named.items()))
    other = next((file for file, each in named.items() if each != bands), None)
    kinds = {Path(file).suffix.lower() == ".vrt" for file in known}
    if other is None and len(kinds) == 1:
        return [*map(Path, known)]
    if other is None:
        why = "VRTs and other rasters, all of the same bands"
    else:
        why = f"rasters that share some bands: {Path(first).name} ({', '.join(known[first])}), "
        why += f"{Path(other).name} ({', '.join(known[other])})"
    raise BandError(
        f"the folder {folder} holds {why}",
        fix=f"name those that are scenes, in quotes: '{folder}/*.tif', or put the bands of each scene into a folder of "
        "its own",
    )
