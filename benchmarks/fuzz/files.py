"""Small valid files of every kind that covermap reads, and how each is read: the functions that verbs call."""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml

from covermap.core.legend import Legend, load_legend
from covermap.data import miniature

CLASSES = Legend.from_dict({1: "field", 2: "water", 3: "town"})
ENDINGS = {
    ".tif": "tiff", ".gpkg": "sqlite", ".csv": "csv", ".txt": "text", ".json": "json", ".geojson": "json",
    ".jsonl": "json",
    ".yaml": "yaml", ".qml": "xml", ".sld": "xml", ".xml": "xml", ".vrt": "xml", ".clr": "text",
    ".safetensors": "safetensors",
    ".pt": "zip", ".ckpt": "zip", ".bin": "binary", ".parquet": "parquet", ".npy": "npy", ".npz": "npy",
    ".zip": "zip",
}  # fmt: skip
"""How a file is built, by its ending."""


@dataclass(frozen=True)
class Case:
    """A folder with valid files and how it is read; `changed`: the files that are mutated, one at a time."""

    kind: str
    name: str
    changed: tuple[str, ...]
    read: Callable[[Path], Any]

    def form(self, file: str) -> str:
        """A key of mutate.FORMS."""
        name = file.lower()
        return next((form for ending, form in ENDINGS.items() if name.endswith(ending)), "binary")


Make = Callable[[Path], tuple[tuple[str, ...], Callable[[Path], Any]]]
_MAKERS: dict[str, dict[str, Make]] = {}


def case(kind: str) -> Callable[[Make], Make]:
    """Register what writes the files of a case and tells how they are read."""

    def keep(make: Make) -> Make:
        _MAKERS.setdefault(kind, {})[make.__name__] = make
        return make

    return keep


def kinds() -> list[str]:
    """Names of all kinds of files."""
    return list(_MAKERS)


def cases(kind: str, folder: Path) -> list[Case]:
    """The cases of a kind; writes the files of each into a folder of its own. The same bytes every time."""
    found = []
    with warnings.catch_warnings(action="ignore"):
        for name, make in _MAKERS[kind].items():
            place = folder / kind / name
            place.mkdir(parents=True)
            found.append(Case(kind, name, *make(place)))
    return found


@cache
def codes() -> np.ndarray:
    """(32, 40) of three classes."""
    return miniature.patches((1, 2, 3), 32, 40, seed=1)


def _image(path: Path, **more: Any) -> None:
    miniature.write(
        path, miniature.picture(codes(), 3, seed=1, low=100, high=5000, dtype=more.pop("dtype", "uint16")),
        bands=["green", "red", "nir"], nodata=0, **more,
    )  # fmt: skip


def _map(path: Path) -> None:
    """A finished map with all that lies beside it."""
    from covermap.geo.products import finish_map

    plain = path.with_name("plain.tif")
    miniature.write(plain, codes(), nodata=0)
    finish_map(plain, path, CLASSES, date="2020-06-01", tags={"COVERMAP_HISTORY": json.dumps([{"step": "sieve"}])})
    plain.unlink()


def _grid() -> Any:
    from covermap.geo.grid import Grid

    return Grid(rasterio.CRS.from_epsg(32631), rasterio.Affine(10, 0, 400_000, 0, -10, 4_600_000), 32, 40)


def _polygons(path: Path, driver: str) -> None:
    import geopandas as gpd
    import shapely

    left, top = 400_000, 4_600_000
    boxes = [shapely.box(left + 40 * i, top - 300, left + 40 * i + 30, top - 20) for i in range(6)]
    table = gpd.GeoDataFrame(
        {"class": ["field", "water", "town"] * 2, "number": range(6), "name": list("abcdef")},
        geometry=boxes,
        crs="EPSG:32631",
    )
    if driver == "GeoJSON":
        table = table.to_crs(4326)
    table.to_file(path, driver=driver, engine="pyogrio")


# Rasters.


def _raster(path: Path) -> None:
    """As `info` and all that reads images do."""
    from covermap.geo.grid import Window
    from covermap.geo.raster import files_behind, open_dataset, open_raster
    from covermap.verbs.info import info

    info(str(path))
    count = open_dataset(str(path)).count
    raster = open_raster(path, bands=[f"b{i}" for i in range(count)])
    raster.read(Window(0, 0, 32, 40))
    raster.on(_grid()).read()
    files_behind(str(path))


@case("geotiff")
def plain(folder: Path) -> Any:
    _image(folder / "image.tif")
    return ("image.tif",), lambda root: _raster(root / "image.tif")


@case("geotiff")
def tiled(folder: Path) -> Any:
    _image(folder / "plain.tif", dtype="float32")
    options = {
        "tiled": True,
        "blockxsize": 16,
        "blockysize": 16,
        "compress": "deflate",
        "predictor": 3,
        "BIGTIFF": "YES",
    }
    with rasterio.open(folder / "plain.tif") as source:
        profile, values, names = source.profile, source.read(), source.descriptions
    with rasterio.open(folder / "image.tif", "w", **{**profile, **options}) as target:
        target.write(values)
        target.descriptions = names
    (folder / "plain.tif").unlink()
    return ("image.tif",), lambda root: _raster(root / "image.tif")


@case("geotiff")
def finished_map(folder: Path) -> Any:
    from covermap.data.class_map import open_class_map
    from covermap.view.layers import open_view

    _map(folder / "map.tif")

    def read(root: Path) -> None:
        found = open_class_map(root / "map.tif", infer=True)
        for window in found.blocks():
            found.read(window)
        open_view([root / "map.tif"]).to_dict()

    return ("map.tif", "map.tif.aux.xml"), read


@case("geotiff")
def labels_of_a_config(folder: Path) -> Any:
    from covermap.core.config_file import load_config
    from covermap.data.scene import open_scenes

    _image(folder / "image.tif")
    miniature.write(folder / "labels.tif", codes(), nodata=0)
    (folder / "c.yaml").write_text("data: {image: image.tif, labels: labels.tif, align: mode}\n")

    def read(root: Path) -> None:
        for scene in open_scenes(load_config(root / "c.yaml").data):
            scene.read_labels(scene.grid.window)

    return ("labels.tif",), read


@case("vrt")
def mosaic_of_others(folder: Path) -> Any:
    from covermap.geo.mosaic import mosaic
    from covermap.view.layers import open_view

    _image(folder / "a.tif")
    _image(folder / "b.tif", origin=(400_400, 4_600_000))
    text = (
        mosaic([str(folder / "a.tif"), str(folder / "b.tif")])
        .replace(str(folder) + "/", "")
        .replace('relativeToVRT="0"', 'relativeToVRT="1"')
    )
    (folder / "all.vrt").write_text(text)

    def read(root: Path) -> None:
        _raster(root / "all.vrt")
        open_view([root / "all.vrt"]).to_dict()

    return ("all.vrt",), read


@case("netcdf")
def variable(folder: Path) -> Any:
    from covermap.geo.layers import read_layers
    from covermap.geo.raster import open_raster

    miniature.write_variable(
        folder / "cube.nc",
        miniature.picture(codes(), 2, seed=1, low=0, high=1, dtype="float32"),
        "vh",
        {"season": ["winter", "summer"]},
    )

    def read(root: Path) -> None:
        read_layers(str(root / "cube.nc"), "vh")
        open_raster(root / "cube.nc", variable="vh", bands=["a", "b"]).read()

    return ("cube.nc",), read


# Products as delivered.


def _delivered(root: Path) -> None:
    from covermap.geo.raster import open_raster

    open_raster(root).read()


def _safe(folder: Path) -> Path:
    from covermap.core.registry import find

    find("source", "safe").write_miniature(folder)
    return min(path for path in folder.iterdir() if path.name.endswith(".SAFE"))


def _landsat(folder: Path) -> Path:
    from covermap.core.registry import find

    find("source", "landsat").write_miniature(folder)
    return min(path for path in folder.iterdir() if path.is_dir())


@case("product")
def safe(folder: Path) -> Any:
    one = _safe(folder).relative_to(folder)
    text = next((folder / one).glob("MTD*.xml")).relative_to(folder)
    return (str(text),), lambda root: _delivered(root / one)


@case("product")
def landsat(folder: Path) -> Any:
    one = _landsat(folder).relative_to(folder)
    text = next(path for path in (folder / one).iterdir() if "_MTL." in path.name).relative_to(folder)
    return (str(text),), lambda root: _delivered(root / one)


@case("product")
def landsat_json(folder: Path) -> Any:
    from covermap.geo.landsat import parse_mtl

    one = _landsat(folder).relative_to(folder)
    text = next(path for path in (folder / one).iterdir() if "_MTL." in path.name)
    groups = parse_mtl(text.read_bytes(), text.name, where="")
    other = text.with_suffix(".json")
    other.write_text(json.dumps({"LANDSAT_METADATA_FILE": groups}))
    text.unlink()
    return (str(other.relative_to(folder)),), lambda root: _delivered(root / one)


@case("product")
def archives(folder: Path) -> Any:
    from covermap.data.unpack import unpack
    from covermap.geo.delivered import find_granule

    safe_, landsat_ = _safe(folder / "a"), _landsat(folder / "b")
    with zipfile.ZipFile(folder / f"{safe_.name}.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        for path in sorted(safe_.rglob("*")):
            pack.write(path, path.relative_to(safe_.parent).as_posix())
    with tarfile.open(folder / f"{landsat_.name}.tar", "w") as tape:
        for path in sorted(landsat_.iterdir()):
            tape.add(path, path.name)
    names = f"{safe_.name}.zip", f"{landsat_.name}.tar"
    shutil.rmtree(folder / "a")
    shutil.rmtree(folder / "b")

    def read(root: Path) -> None:
        for name in names:
            find_granule(root / name)
            (root / "out").mkdir(exist_ok=True)
            unpack(root / name, root / "out")

    return names, read


# Vectors.


def _readers_of_vectors(name: str) -> tuple[Callable[[Path], Any], ...]:
    """As `info`, labels and zones do."""
    from covermap.data.zones import Zones
    from covermap.geo.rasterize import VectorLabels
    from covermap.verbs.info import info

    def labels(root: Path) -> None:
        found = VectorLabels.open(root / name, field="class", grid=_grid())
        found.read()
        found.read_objects()

    def zones(root: Path) -> None:
        Zones.open(root / name, _grid(), "name").read(_grid().window)

    return lambda root: info(str(root / name)), labels, zones


def _vector_case(kind: str, name: str, driver: str, endings: Sequence[str], number: int) -> None:
    def make(folder: Path) -> Any:
        _polygons(folder / name, driver)
        return tuple(f"labels.{end}" for end in endings), _readers_of_vectors(name)[number]

    make.__name__ = f"{kind}_{('info', 'labels', 'zones')[number]}"
    case(kind)(make)


for _number in range(3):
    _vector_case("gpkg", "labels.gpkg", "GPKG", ("gpkg",), _number)
    _vector_case("shapefile", "labels.shp", "ESRI Shapefile", ("shp", "shx", "dbf", "prj", "cpg"), _number)
    _vector_case("geojson", "labels.geojson", "GeoJSON", ("geojson",), _number)


def _sample(folder: Path, name: str) -> None:
    """A labelled sample of a map."""
    from covermap.verbs.sample import Plan, sample
    from covermap.view.labelling import references_of

    _map(folder / "map.tif")
    sample(folder / "map.tif", folder / name, Plan(num=12))
    refs = references_of(folder / name)
    for number, (place, _) in refs.read().items():
        refs.write(number, "1", place)


def _sample_points(root: Path, name: str) -> None:
    """As areas are estimated."""
    from covermap.core.design import Design, design_beside
    from covermap.data.class_map import open_class_map
    from covermap.data.sample_points import SamplePoints

    design = Design.load(design_beside(root / name))
    SamplePoints.load(root / name, design, open_class_map(root / "map.tif"), skip_empty=True)


def _labelled(root: Path, name: str) -> None:
    """As the viewer's page writes a reference."""
    from covermap.view.labelling import references_of

    refs = references_of(root / name)
    for number, (place, _) in list(refs.read().items())[:1]:
        refs.write(number, "2", place)


def _viewed(root: Path, name: str) -> None:
    from covermap.view.layers import open_view

    open_view([root / "map.tif", root / name]).to_dict()


def _sample_case(ending: str, read: Callable[[Path, str], None]) -> None:
    name = f"sample.{ending}"

    def make(folder: Path) -> Any:
        _sample(folder, name)
        return (name,), lambda root: read(root, name)

    make.__name__ = f"{ending}{read.__name__}"
    case(ending)(make)


for _reader in (_sample_points, _labelled, _viewed):
    _sample_case("gpkg", _reader)
    _sample_case("csv", _reader)


@case("geojson")
def chips_of_a_grid(folder: Path) -> Any:
    from covermap.core.registry import find

    kind = find("source", "chip_grid")
    kind.write_miniature(folder)
    images = [{"path": "image.tif"}]
    return ("chips.geojson",), lambda root: kind(root, images=images, labels="labels.tif", bands=5).scenes()


@case("geojson")
def place_of_a_patch(folder: Path) -> Any:
    from covermap.geo.cube import read_bbox

    _layout(folder, "eolearn")
    file = next(folder.rglob("bbox.geojson")).relative_to(folder)
    return (str(file),), lambda root: read_bbox(root / file)


# Tables.


@case("csv")
def csv_labels(folder: Path) -> Any:
    rows = [f"{400_000 + 30 * i},{4_600_000 - 25 * i},{('field', 'water', 'town')[i % 3]},{i},p{i}" for i in range(10)]
    (folder / "points.csv").write_text("\n".join(("x,y,class,number,name", *rows)) + "\n")

    def read(root: Path) -> None:
        from covermap.geo.rasterize import VectorLabels
        from covermap.geo.vector import likely_field

        likely_field(root / "points.csv", epsg=32631)
        VectorLabels.open(root / "points.csv", field="class", grid=_grid(), epsg=32631).read()

    return ("points.csv",), read


@case("csv")
def csv_degrees(folder: Path) -> Any:
    rows = [f"1,8{i};41,5{i};{i % 3 + 1};{i}" for i in range(10)]
    (folder / "points.csv").write_text("\n".join(("lon;lat;class;name", *rows)) + "\n")

    def read(root: Path) -> None:
        from covermap.verbs.info import info

        info(str(root / "points.csv"))

    return ("points.csv",), read


@case("csv")
def split(folder: Path) -> Any:
    from covermap.data.split import Split, Tile
    from covermap.geo.grid import Window

    tiles = [Tile("a", Window(8 * i, 0, 8, 40), part) for i, part in enumerate(("train", "val", "test", "none"))]
    Split(tuple(tiles), 2, dropped=frozenset({("a", 3)})).save(folder / "split.csv")
    return ("split.csv",), lambda root: Split.load(root / "split.csv").part_mask("a", Window(0, 0, 32, 40))


@case("csv")
def transitions(folder: Path) -> Any:
    from covermap.ml.transitions import TransitionPrior
    from covermap.verbs.change_rules import ChangeRules

    (folder / "prior.csv").write_text(",field,water,town\nfield,0.9,0.05,0.05\nwater,0.1,0.9,0\ntown,0,0,1\n")
    (folder / "areas.csv").write_text(
        ",field,water,town,total\nfield,90,5,5,100\nwater,1,9,0,10\ntown,0,0,1,1\ntotal,91,14,6,111\n"
    )
    (folder / "impossible.csv").write_text("from,to\ntown,field\nwater,*\n")

    def read(root: Path) -> None:
        TransitionPrior.read(root / "prior.csv", CLASSES)
        TransitionPrior.read(root / "areas.csv", CLASSES)
        ChangeRules(impossible=(str(root / "impossible.csv"),)).forbidden(CLASSES)

    return ("prior.csv", "areas.csv", "impossible.csv"), read


@case("csv")
def references_of_chips(folder: Path) -> Any:
    from covermap.data.given_labels import _references

    (folder / "plan.csv").write_text("id,reference,note\na,1,\nb,water,x\nc,,y\n")
    return ("plan.csv",), lambda root: list(_references(root / "plan.csv"))


@case("csv")
def parts_of_chips(folder: Path) -> Any:
    from covermap.data.source import read_parts

    (folder / "splits.csv").write_text("identifier,split\na,train\nb,val\nc,test\n")
    return ("splits.csv",), lambda root: read_parts(root / "splits.csv")


def _legend_case(ending: str) -> None:
    def make(folder: Path) -> Any:
        from covermap.geo.legend_files import class_names, read_legend, write_legend

        name = f"legend{ending}"
        write_legend(load_legend("esa_worldcover"), folder / name)

        def read(root: Path) -> None:
            class_names(root / "legend")
            read_legend(root / name)

        return (name,), read

    make.__name__ = f"legend{ending.replace('.', '_')}"
    case("legend")(make)


for _ending in (".csv", ".qml", ".clr", ".aux.xml", ".sld", ".yaml"):
    _legend_case(_ending)


# YAML.


@case("yaml")
def config(folder: Path) -> Any:
    from covermap.core.config_file import load_config

    (folder / "covermap.yaml").write_text(yaml.safe_dump(_config()))
    return ("covermap.yaml",), lambda root: load_config(root / "covermap.yaml")


@case("yaml")
def config_and_data(folder: Path) -> Any:
    from covermap.core.config_file import load_config
    from covermap.data.scene import open_scenes

    _image(folder / "image.tif")
    miniature.write(folder / "labels.tif", codes(), nodata=0)
    (folder / "covermap.yaml").write_text(yaml.safe_dump(_config() | {"split": {"block_px": 8, "buffer_px": 0}}))

    def read(root: Path) -> None:
        for scene in open_scenes(load_config(root / "covermap.yaml").data):
            scene.read_labels(scene.grid.window)

    return ("covermap.yaml",), read


def _config() -> dict[str, Any]:
    return {
        "name": "tiny", "data": {"image": [{"path": "image.tif", "date": "2020-06-01", "use": ["green", "red"]}],
        "labels": "labels.tif", "legend": {1: "field", 2: "water", 3: "town"}, "merge": {"land": ["field", "town"]},
        "align": "none", "unknown_codes": "ignore"}, "split": {"method": "blocks", "block_px": 16, "buffer_px": 2},
        "model": {"backbone": "unet", "backbone_options": {"widths": [8, 16]}, "adapt": {"method": "full"}},
        "train": {"epochs": 3, "batch_size": 4, "size_px": 32, "lr": 0.01, "loss": "cross_entropy + 0.5 * dice",
        "rates": {"backbone": 0.1}}, "predict": {"size_px": 32, "workers": 1},
    }  # fmt: skip


@case("yaml")
def run_folder(folder: Path) -> Any:
    from covermap.core.config import RunConfig
    from covermap.core.run import Run

    config = RunConfig.model_validate(_config() | {"output": "runs"})
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return ("config.yaml",), lambda root: Run.open(root)


@case("yaml")
def crosswalk(folder: Path) -> Any:
    from covermap.core.crosswalk import read_crosswalk

    way = {
        "from": {"name": "mine", "classes": [{"code": 1, "name": "wood", "colour": "#00ff00"}, {"code": 2,
        "name": "lake"}]},
        "to": "ipcc", "classes": {"wood": "forest land", "lake": "wetlands"}, "notes": {"wood": "all of it"},
        "source": "me",
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(way))
    return ("own.yaml",), lambda root: read_crosswalk(root / "own.yaml")


@case("yaml")
def rules(folder: Path) -> Any:
    from covermap.ml.transitions import TransitionPrior
    from covermap.verbs.change_rules import ChangeRules

    (folder / "prior.yaml").write_text("field: {field: 0.9, water: 0.1}\nwater: {water: 1}\ntown: {town: 1.0}\n")
    (folder / "impossible.yaml").write_text("- town>field\n- 'water>*'\n")

    def read(root: Path) -> None:
        TransitionPrior.read(root / "prior.yaml", CLASSES)
        ChangeRules(impossible=(str(root / "impossible.yaml"),)).forbidden(CLASSES)

    return ("prior.yaml", "impossible.yaml"), read


_RECIPE = {
    "name": "mae", "data": {"image": "image.tif"}, "method": {"name": "mae", "mask": 0.75},
    "model": {"backbone": "vit_tiny", "backbone_options": {"patch_px": 8}}, "train": {"steps": 10, "size_px": 32},
}  # fmt: skip
_PLANS: dict[str, dict[str, Any]] = {
    "study": {
        "title": "t", "config": "covermap.yaml", "settings": {"train.epochs": 1}, "seeds": 2, "scores": ["miou"],
        "axes": {"rate": {"setting": "train.lr", "values": [0.1, 0.01]},
                 "model": {"unet": {"model.pixel_width": 0}, "wide": {"model.pixel_width": 8}}},
        "against": {"model": "unet"},
    },
    "search": {"config": "covermap.yaml", "space": {"train.lr": [0.001, 0.1, "log"], "train.batch_size": [2, 4]}},
    "budget": {
        "title": "t", "config": "covermap.yaml", "encoders": {"a": {"train.size_px": 16}}, "budgets": [10, 20],
    },
    "recipe": _RECIPE,
    "methods": {
        "title": "t", "config": _RECIPE, "methods": {"mae": {"method.mask": 0.5}}, "seeds": 1, "labels": [5, 10],
    },
}  # fmt: skip


def _read_plan(name: str, path: Path) -> Any:
    """Studies, searches, budgets of labels, pre-training and studies of it."""
    from covermap.core.label_budget_plan import load_label_budget
    from covermap.core.pretrain_config import load_pretrain_config
    from covermap.core.pretraining_plan import load_pretraining
    from covermap.core.study_plan import load_plan
    from covermap.core.tune_plan import load_search

    out = path.parent / "out"
    return {
        "study": lambda: load_plan(path, out),
        "search": lambda: load_search(path),
        "budget": lambda: load_label_budget(path),
        "recipe": lambda: load_pretrain_config(path),
        "methods": lambda: load_pretraining(path, out),
    }[name]()


def _plan_case(name: str) -> None:
    def make(folder: Path) -> Any:
        (folder / "covermap.yaml").write_text(yaml.safe_dump(_config()))
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(_PLANS[name], sort_keys=False))
        return (f"{name}.yaml",), lambda root: _read_plan(name, root / f"{name}.yaml")

    make.__name__ = name
    case("yaml")(make)


for _name in _PLANS:
    _plan_case(_name)


# JSON and what lies beside files.


@case("json")
def sample_design(folder: Path) -> Any:
    from covermap.core.design import Design

    _sample(folder, "sample.csv")
    return ("sample.design.json",), lambda root: Design.load(root / "sample.design.json")


@case("json")
def model_card(folder: Path) -> Any:
    from covermap.models import load_model

    _model(folder / "model")
    return ("model/config.json",), lambda root: load_model(root / "model")


@case("json")
def checkpoint_index(folder: Path) -> Any:
    from covermap.nn.weights import read_tensors

    _tensors(folder / "part.safetensors")
    name = "model.safetensors.index.json"
    (folder / name).write_text(
        json.dumps({"metadata": {}, "weight_map": {"a.weight": "part.safetensors", "a.bias": "part.safetensors"}})
    )
    return (name,), lambda root: read_tensors(root / name)


@case("json")
def stac_items(folder: Path) -> Any:
    from covermap.data.source import find_scenes

    _layout(folder, "stac")
    changed = tuple(str(path.relative_to(folder)) for path in sorted(folder.rglob("*.json")))
    return changed, lambda root: find_scenes(_data(root, "stac"))


@case("json")
def beside_a_run(folder: Path) -> Any:
    """What a run keeps of itself, what lies beside maps, and what others wrote about it."""
    from covermap.core.config import RunConfig
    from covermap.core.plan_file import kept_plan
    from covermap.core.run import Run
    from covermap.report.areas import assessments_of
    from covermap.report.beside import looks_of
    from covermap.view.layers import open_view

    _map(folder / "map.tif")
    config = RunConfig.model_validate(_config() | {"output": "runs"})
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    texts: dict[str, Any] = {
        "metrics.json": {"models": {"network": {"miou": 0.5, "oa": 0.7}}}, "inputs.json": {},
        "versions.json": {"python": "3"},
        "plan.json": {"cells": {"a": 1}}, "change.json": {"map": "map.tif", "before": {"path": "a.tif"},
        "after": {"path": "b.tif"}},
    }  # fmt: skip
    for name, values in texts.items():
        (folder / name).write_text(json.dumps(values))
    (folder / "log.jsonl").write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.4}\n')

    def read(root: Path) -> None:
        run = Run.open(root)
        run.scores()
        run.read_log()
        run.require_inputs([])
        run.areas()
        run.keep_log_until(1)
        assessments_of(run)
        looks_of(root, "tiny", {})
        kept_plan(root, "cells")
        open_view([root]).to_dict()

    return (*texts, "log.jsonl", "map.stac.json", "areas.csv"), read


@case("json")
def prepared(folder: Path) -> Any:
    from covermap.data.source import find_scenes
    from covermap.data.store import Ledger, verify

    _layout(folder, "prepared")
    changed = tuple(str(path.relative_to(folder)) for path in sorted(folder.rglob("*.json*")))

    def read(root: Path) -> None:
        find_scenes(_data(root, "prepared"))
        if (root / "ledger.jsonl").is_file():
            Ledger(root / "ledger.jsonl")
            verify(root)

    return changed, read


# Layouts of data sets: their tables and descriptions.


def _layout(folder: Path, name: str) -> None:
    from covermap.core.registry import find

    find("source", name).write_miniature(folder)


def _data(root: Path, name: str, **options: Any) -> Any:
    from covermap.core.config import DataConfig

    return DataConfig(source=name, root=str(root), options=options)


def _layout_case(name: str) -> Make:
    def make(folder: Path) -> Any:
        from covermap.data.source import find_scenes

        _layout(folder, name)
        texts = [
            path for path in sorted(folder.rglob("*")) if path.suffix in (".csv", ".json", ".txt", ".geojson", ".jsonl")
        ]
        changed = tuple(str(path.relative_to(folder)) for path in texts)
        return changed, lambda root: find_scenes(_data(root, name))

    make.__name__ = name
    return make


for _name in ("bigearthnet", "dynamicearthnet", "eolearn", "landslide", "m3leo", "oscd"):
    case("layout")(_layout_case(_name))


# Weights.


def _tensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    tensors = {"a.weight": torch.randn(4, 3), "a.bias": torch.zeros(4)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        nested = {
            "state_dict": tensors,
            "epoch": 3,
            "hyper_parameters": {"model_args": {"backbone": "x", "num_classes": 2}},
        }
        torch.save(nested, path, _use_new_zipfile_serialization=path.suffix != ".bin")


def _model(folder: Path, kind: str = "network") -> None:
    """A model folder of a tiny network, or a tiny forest, with what it was trained on."""
    import torch

    from covermap.core.task import Task
    from covermap.core.types import InputSpec, SensorInput
    from covermap.ml.applicability import Applicability
    from covermap.models import NetworkModel, save_model
    from covermap.nn.build import build_model

    torch.manual_seed(0)
    spec = InputSpec((SensorInput("image", ("green", "red"), (0.5, 0.5), (0.2, 0.2)),), 10.0, 16)
    task = Task.from_dict(None, CLASSES)
    build = {"backbone": "unet", "backbone_options": {"widths": [2, 4]}}
    network = build_model(spec, task.num_channels, **build)
    save_model(NetworkModel(spec, task, network, {}), folder, build=build)
    random = np.random.default_rng(0)
    Applicability.fit(random.normal(size=(60, 2)), np.arange(60), random.normal(size=(50, 2))).save(
        folder / "applicability.safetensors"
    )


@case("safetensors")
def model_folder(folder: Path) -> Any:
    from covermap.ml.applicability import Applicability
    from covermap.models import load_model

    _model(folder / "model")

    def read(root: Path) -> None:
        load_model(root / "model")
        Applicability.load(root / "model" / "applicability.safetensors")

    return ("model/model.safetensors", "model/applicability.safetensors"), read


@case("safetensors")
def published(folder: Path) -> Any:
    _tensors(folder / "weights.safetensors")
    return ("weights.safetensors",), lambda root: _filled(root / "weights.safetensors")


@case("safetensors")
def own_backbone(folder: Path) -> Any:
    import torch

    from covermap.core.types import InputSpec, SensorInput
    from covermap.nn.adapt import load_adapter, save_adapter
    from covermap.nn.build import make_backbone
    from covermap.nn.own import is_own, load_backbone, save_backbone

    torch.manual_seed(0)
    spec = InputSpec((SensorInput("image", ("green", "red"), (0.5, 0.5), (0.2, 0.2)),), 10.0, 16)
    backbone = make_backbone("unet", spec, {"widths": [2, 4]})
    save_backbone(backbone, folder / "model.safetensors", {"image": []})

    class Holder:
        pass

    holder: Any = Holder()
    holder.backbone = backbone
    save_adapter(holder, folder / "adapter.safetensors", base={"backbone": "unet"})

    def read(root: Path) -> None:
        if is_own(root / "model.safetensors"):
            load_backbone(backbone, root / "model.safetensors", ["image"])
        load_adapter(holder, root / "adapter.safetensors", base={"backbone": "unet"})

    return ("model.safetensors", "adapter.safetensors"), read


def _filled(path: Path) -> None:
    import torch

    from covermap.nn.weights import Layout, load

    load(torch.nn.ModuleDict({"a": torch.nn.Linear(3, 4)}), path, Layout())


@case("pt")
def zipped(folder: Path) -> Any:
    from covermap.nn.terratorch import read_terratorch

    _tensors(folder / "weights.pt")

    def read(root: Path) -> None:
        _filled(root / "weights.pt")

    def both(root: Path) -> None:
        from covermap.core.errors import ModelError

        read(root)
        with contextlib.suppress(ModelError):
            read_terratorch(root / "weights.pt")

    return ("weights.pt",), both


@case("pt")
def before_torch_1_6(folder: Path) -> Any:
    _tensors(folder / "weights.bin")
    return ("weights.bin",), lambda root: _filled(root / "weights.bin")


# Arrays and Parquet.


@case("npy")
def cube(folder: Path) -> Any:
    from covermap.geo.raster import open_raster

    np.savez_compressed(folder / "chip.npz", miniature.picture(codes(), 2, seed=1, low=0, high=1, dtype="float32"))
    bounds = [400_000, 4_599_680, 400_400, 4_600_000]
    (folder / "chip.metadata.json").write_text(
        json.dumps({"variables": ["a", "b"], "bounds": bounds, "crs": "EPSG:32631"})
    )
    return ("chip.npz", "chip.metadata.json"), lambda root: open_raster(root / "chip.npz", bands=["a", "b"]).read()


@case("npy")
def patch(folder: Path) -> Any:
    from covermap.geo.raster import open_raster

    _layout(folder, "eolearn")
    file = next(path for path in sorted(folder.rglob("*.npy")) if path.parent.name == "data").relative_to(folder)

    def read(root: Path) -> None:
        from covermap.geo.raster import open_dataset

        count = open_dataset(str(root / file)).count
        open_raster(root / file, bands=[f"b{i}" for i in range(count)]).read()

    return (str(file),), read


@case("parquet")
def embeddings(folder: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    from covermap.data.embeddings import Embeddings

    random = np.random.default_rng(0)
    n = 6
    facts = {
        "encoder": {"backbone": "raw"},
        "legend": CLASSES.to_dict(),
        "size_px": 16,
        "gsd_m": 10.0,
        "names": ["a", "b"],
    }
    columns = {
        "unique_id": [f"c{i}" for i in range(n)], "embedding": random.normal(size=(n, 4)).astype("float32").tolist(),
        "scene": ["s"] * n, "place": ["p"] * n, "part": ["train"] * n, "raw_statistics": random.normal(size=(n,
        4)).tolist(),
        "pixel_bbox": [[0, 0, 16, 16]] * n, "class_pixels": [[1, 2, 3]] * n, "label": [0, 1, 2, None, 1, 0],
        "values": random.normal(size=(n, 2)).tolist(), "centre_lat": [41.5] * n, "centre_lon": [1.5] * n,
    }  # fmt: skip
    ours = pa.table(columns).replace_schema_metadata({b"covermap": json.dumps(facts).encode()})
    pq.write_table(ours, folder / "ours.parquet")
    theirs = pa.table({"embeddings": columns["embedding"], "geometry": [shapely.box(1, 41, 1.1, 41.1).wkb] * n})
    pq.write_table(theirs, folder / "theirs.parquet")

    def read(root: Path) -> None:
        from covermap.data.labelled_chips import targets_of

        Embeddings.read(root / "theirs.parquet")
        found = Embeddings.read(root / "ours.parquet")
        targets_of(found, "auto")

    return ("ours.parquet", "theirs.parquet"), read
