"""`polygonize`: the file that a GIS opens, what lies beside it, and what is refused."""

from __future__ import annotations

import csv
import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize
from scipy import ndimage

from covermap.core.errors import ConfigError, CovermapError, LabelError, OutputError
from covermap.verbs.polygonize import polygonize
from covermap.verbs.sieve import sieve
from tests.verbs.test_cleaning import LEGEND, METRES, codes_of, make


def read(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(path)


@pytest.mark.parametrize(("crs", "transform"), [(32633, METRES), (4326, Affine(1e-4, 0, 10, 0, -1e-4, 55))])
def test_patches_are_polygons_with_code_name_and_true_area(covermap, tmp_path, crs, transform) -> None:
    source, _ = make(tmp_path, crs=crs, transform=transform)
    code, text, err = covermap("polygonize", source, tmp_path / "p.gpkg", "--json")
    assert code == 0, err
    done = json.loads(text)
    assert {Path(file).name for file in done["files"]} == {"p.gpkg", "p.qml"}
    table, codes = read(tmp_path / "p.gpkg"), codes_of(source)
    assert list(table.columns) == ["code", "name", "area_ha", "geometry"]
    assert table.crs.to_epsg() == crs
    assert set(table.geometry.geom_type) == {"Polygon"}
    assert (table.name == table.code.map(dict(zip(LEGEND.codes, LEGEND.names, strict=True)))).all()
    np.testing.assert_array_equal(
        rasterize(zip(table.geometry, table.code, strict=True), codes.shape, transform=transform), codes
    )
    with open(tmp_path / "areas.csv") as file:
        areas = {row["class"]: float(row["area_ha"]) for row in csv.DictReader(file)}
    for row, each in zip(done["classes"], LEGEND.classes, strict=True):
        mine = table[table.code == each.code]
        assert row["polygons"] == len(mine) == ndimage.label(codes == each.code)[1]
        assert (
            row["area_ha"] == pytest.approx(mine.area_ha.sum(), abs=1e-4) == pytest.approx(areas[each.name], abs=1e-3)
        )
    info = pyogrio.read_info(tmp_path / "p.gpkg")
    assert info["layer_name"] == "p"
    (history,) = json.loads(info["layer_metadata"]["COVERMAP_HISTORY"])
    assert history == {"step": "polygonize", "from": "map.tif", "steps": []}


def test_small_patches_go_first_and_outlines_share_their_borders(covermap, tmp_path) -> None:
    source, _ = make(tmp_path)
    out = tmp_path / "p.gpkg"
    code, text, err = covermap("polygonize", source, out, "--min-area", "0.5ha", "--simplify", "15", "--json")
    assert code == 0, err
    done = json.loads(text)
    sieve(source, tmp_path / "s.tif", min_area="0.5ha")
    table, clean = read(out), codes_of(tmp_path / "s.tif")
    assert table.area_ha.min() >= 0.5
    for each in LEGEND.classes:
        assert table[table.code == each.code].area_ha.sum() == pytest.approx((clean == each.code).sum() / 100)
    assert shapely.coverage_is_valid(table.geometry.to_numpy())
    mapped = shapely.union_all(table.geometry.to_numpy())
    assert mapped.area == pytest.approx((clean > 0).sum() * 100)
    steps = {step["step"]: step for step in done["changed"]}
    assert list(steps) == ["sieve", "simplify"]
    old = codes_of(source)
    assert steps["sieve"]["changed_ha"] == pytest.approx((old != clean).sum() / 100)
    assert 0 < steps["simplify"]["changed_ha"] < 0.2 * (clean > 0).sum() / 100
    for row, each in zip(steps["simplify"]["classes"], LEGEND.classes, strict=True):
        mine = table[table.code == each.code]
        assert row["before_ha"] == pytest.approx(mine.area_ha.sum(), abs=1e-3)
        assert row["after_ha"] == pytest.approx(mine.area.sum() / 1e4, abs=1e-3)
    with open(tmp_path / "p.changed.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["sieve"] * 4 + ["simplify"] * 4
    info = pyogrio.read_info(out)
    (history,) = json.loads(info["layer_metadata"]["COVERMAP_HISTORY"])
    assert [step["changed_ha"] for step in history["steps"]] == [step["changed_ha"] for step in done["changed"]]


def test_classes_of_several_calls_fit_together(tmp_path) -> None:
    source, _ = make(tmp_path)
    options = {"min_area": "0.3ha", "simplify_m": 20.0}
    polygonize(source, tmp_path / "all.gpkg", **options)
    parts = []
    for number, names in enumerate((["tree", "Water"], ["grass"], ["crop"])):
        done = polygonize(source, tmp_path / f"{number}.gpkg", classes=names, **options)
        assert [row["class"] for row in done.rows] == sorted(map(str.lower, names))
        parts.append(read(done.path))
    whole = read(tmp_path / "all.gpkg")
    assert sum(map(len, parts)) == len(whole)
    for part in parts:
        same = whole[whole.code.isin(part.code)]
        assert shapely.equals_identical(part.geometry.to_numpy(), same.geometry.to_numpy()).all()


def test_the_style_has_a_colour_for_each_code(tmp_path) -> None:
    source, _ = make(tmp_path)
    polygonize(source, tmp_path / "p.gpkg")
    style = ET.parse(tmp_path / "p.qml").getroot()
    renderer = style.find("renderer-v2")
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "code")
    colours = {
        symbol.get("name"): symbol.find(".//Option[@name='color']").get("value") for symbol in renderer.iter("symbol")
    }
    seen = {each.get("value"): (each.get("label"), colours[each.get("symbol")]) for each in renderer.iter("category")}
    assert seen == {str(c.code): (c.name, ",".join(map(str, (*c.rgb, 255)))) for c in LEGEND.classes}


def test_a_class_without_a_pixel_is_said_and_an_empty_file_is_a_file(tmp_path, write_tif) -> None:
    source, _ = make(tmp_path)
    sieve(source, tmp_path / "s.tif", min_area="40ha")
    gone = [c.name for c in LEGEND.classes if not (codes_of(tmp_path / "s.tif") == c.code).any()]
    assert gone
    done = polygonize(tmp_path / "s.tif", tmp_path / "p.gpkg", classes=gone[:1])
    assert done.notes == (f"no pixel is {gone[0]}",)
    assert len(read(tmp_path / "p.gpkg")) == 0
    assert read(tmp_path / "p.gpkg").crs.to_epsg() == 32633


def test_a_map_without_a_crs_gives_polygons_without_one(tmp_path, write_tif) -> None:
    codes = np.ones((12, 12), np.uint8)
    codes[:6, :5] = 2
    polygonize(write_tif("m.tif", codes, crs=None), tmp_path / "p.gpkg")
    table = read(tmp_path / "p.gpkg")
    assert table.crs is None or "undefined" in table.crs.name.lower()
    assert sorted(table.area_ha) == [0.3, 1.14]


def test_tables_of_an_earlier_call_do_not_stay(tmp_path) -> None:
    source, _ = make(tmp_path)
    polygonize(source, tmp_path / "p.gpkg", min_area="9px")
    assert (tmp_path / "p.changed.csv").is_file()
    with pytest.raises(OutputError, match="exists already"):
        polygonize(source, tmp_path / "p.gpkg")
    polygonize(source, tmp_path / "p.gpkg", overwrite=True)
    assert not (tmp_path / "p.changed.csv").exists()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"out": "p.shp"}, ConfigError, "does not end in .gpkg or .parquet"),
        ({"out": "map.gpkg"}, OutputError, r"map\.qml is an input of this call"),
        ({"classes": ["treee"]}, LabelError, "no class 'treee'(.|\n)*did you mean 'tree'"),
        ({"simplify_m": 5.0}, ConfigError, "simplifies no outline"),
        ({"min_area": "1px"}, ConfigError, "not larger than a pixel"),
        ({"min_area": "many"}, ConfigError, "is no area"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(tmp_path, options, error, words) -> None:
    source, _ = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = {"out": "p.gpkg", **options}
    with pytest.raises(error, match=words):
        polygonize(source, tmp_path / given.pop("out"), overwrite=True, **given)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch) -> None:
    source, _ = make(tmp_path)
    before = set(tmp_path.iterdir())

    def broken(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        path.with_name(path.name + "-journal").write_bytes(b"half")
        raise pyogrio.errors.DataSourceError("No space left on device")

    monkeypatch.setattr(pyogrio, "write_dataframe", broken)
    with pytest.raises(OutputError, match="the disk is full"):
        polygonize(source, tmp_path / "p.gpkg", min_area="9px")
    assert set(tmp_path.iterdir()) == before


def test_geoparquet_without_its_package_is_refused_by_name(tmp_path, monkeypatch) -> None:
    source, _ = make(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CovermapError, match=r"GeoParquet needs the package pyarrow(.|\n)*covermap\[parquet\]"):
        polygonize(source, tmp_path / "p.parquet")
    assert not (tmp_path / "p.qml").exists()


def test_geoparquet_holds_what_the_geopackage_holds(tmp_path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra parquet")
    source, _ = make(tmp_path)
    for name in ("p.gpkg", "q.parquet"):
        polygonize(source, tmp_path / name, min_area="9px", simplify_m=15)
    one, other = read(tmp_path / "p.gpkg"), gpd.read_parquet(tmp_path / "q.parquet")
    assert other.crs == one.crs
    assert shapely.equals_identical(one.geometry.to_numpy(), other.geometry.to_numpy()).all()
    assert (one.drop(columns="geometry") == other.drop(columns="geometry")).all().all()
    assert json.loads(other.attrs["COVERMAP_HISTORY"])[-1]["step"] == "polygonize"


def test_polygons_of_a_real_map_of_another_maker(shared, tmp_path) -> None:
    source = shared / "data" / "corine_vaud" / "ls100_06.tif"
    done = polygonize(source, tmp_path / "p.gpkg", simplify_m=150)
    table = read(tmp_path / "p.gpkg")
    assert table.crs.to_epsg() == 2056
    assert shapely.coverage_is_valid(table.geometry.to_numpy())
    with rasterio.open(source) as dataset:
        mapped_ha = (dataset.read(1) != 255).sum() * abs(dataset.transform.determinant) / 1e4
    assert table.area_ha.sum() == pytest.approx(mapped_ha)
    assert table.area.sum() / 1e4 == pytest.approx(mapped_ha)
    assert sum(row["polygons"] for row in done.rows) == len(table)
