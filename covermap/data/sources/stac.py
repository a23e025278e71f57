"""Images of a STAC API, catalogue or list of items: read where they are, by window; nothing is downloaded.

data: {source: stac, root: https://earth-search.aws.element84.com/v1,
       options: {collections: [sentinel-2-l2a], bbox: [6.5, 46.4, 6.7, 46.6], period: 2023-06/2023-08, max_cloud: 20,
                 use: [blue, green, red, nir], labels: fields.gpkg}}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from covermap.core.config import ImageConfig, parse_date
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import register
from covermap.core.sensors import common_name, find_sensor
from covermap.data import miniature
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, by_place, is_series
from covermap.geo.stac import LISTS, REMOTE, Query, StacImage, describe_item, home_of, search
from covermap.geo.vector import read_table


@register("source", "stac")
class Stac(Source):
    """A scene for each tile with all its dates (dates: series), or for each item (single).

    root: URL of the API; or a folder with catalog.json, or a file, folder or pattern of items. bbox: west, south,
    east, north in degrees; area: a file of polygons instead. period: first/last. max_cloud: percent. sensor: where the
    items do not say it. labels: one file with the labels of all scenes.
    """

    licence = "as the catalogue's collections say"
    url = "https://stacspec.org"

    def __init__(
        self,
        root: str | Path,
        *,
        collections: Sequence[str] = (),
        bbox: Sequence[float] | None = None,
        area: str | None = None,
        period: str | None = None,
        max_cloud: float | None = None,
        dates: str = "series",
        sensor: str | None = None,
        use: Sequence[str] | None = None,
        labels: str | None = None,
        limit: int = 200,
    ) -> None:
        self.remote = str(root).startswith(REMOTE)
        if not self.remote and not str(root).lower().endswith(LISTS):
            super().__init__(root)
        self.catalogue, self.notes = str(root), []
        if bbox is not None and not (len(bbox) == 4 and bbox[0] < bbox[2] and bbox[1] < bbox[3]):
            raise ConfigError(f"data.options.bbox: {list(bbox)}", fix="west, south, east, north in degrees")
        if period:
            parse_date(period)
        if bbox is not None and area is not None:
            raise ConfigError("data.options: bbox and area both say where", fix="leave one out")
        place = _shape_of(area) if area else box(*bbox) if bbox is not None else None
        self.query = Query(tuple(collections), place, period, max_cloud, limit)
        self.series, self.sensor, self.labels = is_series(dates), sensor, labels
        self.use = list(use) if use is not None else None

    def scenes(self) -> list[SceneFiles]:
        labels = {"class": LabelFile(self.labels)} if self.labels else {}
        images = ((image.tile, image_of(image, self.use)) for image in self.items())
        return by_place(images, lambda *_: labels, series=self.series)

    def items(self) -> list[StacImage]:
        """What matches, by date; raises DataError, BandError."""
        items, notes = search(self.catalogue, self.query)
        self.notes += notes
        root = None if self.remote else home_of(self.catalogue)
        return [describe_item(item, sensor=self.sensor, root=root) for item in items]

    @classmethod
    def write_miniature(cls, root: Path, *, seed: int = 0) -> None:
        links = []
        codes = miniature.patches(range(5), 96, 96, seed=seed, cell_px=12)
        for day in ("2023-07-10", "2023-08-09"):
            name = f"S2B_31TCG_{day.replace('-', '')}_0_L2A"
            folder = root / name
            picture = miniature.picture(codes, 4, seed=int(day[5:7]), low=100, high=5000, dtype="uint16")
            assets: dict[str, Any] = {}
            for key, values in zip(("blue", "green", "red", "nir"), picture, strict=True):
                miniature.write(folder / f"{key}.tif", values, nodata=0)
                assets[key] = {"href": f"./{key}.tif", "roles": ["data"]}
            west, south, east, north = 1.80, 41.5, 1.82, 41.6
            outline = [[west, south], [east, south], [east, north], [west, north], [west, south]]
            item = {
                "type": "Feature", "stac_version": "1.0.0", "id": name, "bbox": [west, south, east, north],
                "geometry": {"type": "Polygon", "coordinates": [outline]}, "links": [], "assets": assets,
                "properties": {
                    "datetime": f"{day}T10:50:31Z", "constellation": "sentinel-2", "grid:code": "MGRS-31TCG",
                    "eo:cloud_cover": 3.0,
                },
            }  # fmt: skip
            (folder / f"{name}.json").write_text(json.dumps(item))
            links.append({"rel": "item", "href": f"./{name}/{name}.json"})
        catalogue = {"type": "Catalog", "id": "miniature", "stac_version": "1.0.0", "description": "two items"}
        (root / "catalog.json").write_text(json.dumps(catalogue | {"links": links}))


def image_of(image: StacImage, use: Sequence[str] | None) -> ImageConfig:
    """Only the files of the bands in use: each one is a request. Raises DataError where one is missing."""
    known = find_sensor(image.sensor)
    names = [common_name(name, known) for name in use] if use else list(image.files)
    lacking = [name for name in names if name not in image.files]
    if lacking:
        raise DataError(
            f"the item {image.name} lacks {', '.join(lacking)}; it has {', '.join(image.files)} "
            f"(assets {', '.join(image.assets)})",
            fix="leave the item out, or name other bands: data.options.use",
        )
    clouds = {"path": image.clouds[0], "specification": image.clouds[1]} if image.clouds else "auto"
    return ImageConfig.model_validate(
        {
            "path": [image.files[name] for name in names], "bands": names, "sensor": image.sensor,
            "date": image.date, "clouds": clouds, "scale": image.scale,
            "offset": "auto" if image.offset is None else image.offset,
        }
    )  # fmt: skip


def _shape_of(path: str) -> BaseGeometry:
    """All shapes of a file as one, in WGS 84; raises DataError."""
    table = read_table(path)
    if table.crs is None or not len(table):
        raise DataError(f"{path} has no {'CRS' if len(table) else 'shape'}", fix="give polygons with a CRS")
    found: BaseGeometry = table.geometry.to_crs("EPSG:4326").union_all()
    return found
