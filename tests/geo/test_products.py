"""The finished map, read back by others: GDAL, rio-cogeo, pystac, an XML parser; and legends in every file form."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pyogrio
import pystac
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from pyproj import Geod
from pystac.validation.local_validator import get_local_schema_cache
from rasterio.crs import CRS
from referencing import Registry, Resource
from rio_cogeo.cogeo import cog_validate

from covermap.core.errors import ConfigError, LabelError, OutputError
from covermap.core.legend import IGNORE, LandClass, Legend, load_legend, shipped
from covermap.geo.grid import Grid
from covermap.geo.legend_files import SUFFIXES, not_held, read_legend, write_legend
from covermap.geo.products import MapSummary, finish_cog, finish_map
from covermap.geo.writer import RasterWriter

UTM = Grid(CRS.from_epsg(32633), Affine(10, 0, 400_000, 0, -10, 5_000_000), 700, 1100)
DEGREES = Grid(CRS.from_epsg(4326), Affine(0.01, 0, 10, 0, -0.01, 60), 600, 40)


def blobs(num_classes: int, grid: Grid) -> np.ndarray:
    """Class indices in patches of 20 px, with a hole of IGNORE at the upper left."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, num_classes, (grid.height // 20 + 1, grid.width // 20 + 1))
    index = np.kron(coarse, np.ones((20, 20)))[: grid.height, : grid.width].astype(np.uint8)
    index[:50, :30] = IGNORE
    return index


def stac_faults(item: dict[str, object]) -> list[str]:
    """What STAC 1.1's own JSON Schema, which comes with pystac, finds wrong with an item."""
    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(uri, Resource.from_contents(schema)) for uri, schema in schemas.items()])
    schema = schemas["https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"]
    return [error.message for error in Draft7Validator(schema, registry=registry).iter_errors(item)]


def make(
    folder: Path, legend: Legend, grid: Grid, name: str = "map.tif", **options: object
) -> tuple[MapSummary, np.ndarray]:
    index = blobs(len(legend), grid)
    plain = folder / f"plain_{name}"
    with RasterWriter(
        plain, grid, bands=["codes"], dtype=legend.map_dtype, nodata=legend.map_nodata, overwrite=True
    ) as writer:
        writer.write(grid.window, legend.decode(index))
    summary = finish_map(plain, folder / name, legend, **{"date": "2019-07-27", **options})  # type: ignore[arg-type]
    plain.unlink()
    return summary, index


@pytest.mark.parametrize("name", ["esa_worldcover", "dynamic_world", "corine"])
def test_the_map_is_a_cog_with_codes_colours_and_mode_overviews(tmp_path: Path, name: str) -> None:
    legend = load_legend(name)
    _, index = make(tmp_path, legend, UTM)
    valid, errors, warnings = cog_validate(tmp_path / "map.tif")
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(tmp_path / "map.tif") as file:
        assert Grid(file.crs, file.transform, file.height, file.width).is_same(UTM)
        np.testing.assert_array_equal(file.read(1), legend.decode(index))
        assert file.dtypes == (legend.map_dtype,)
        assert file.nodata == legend.map_nodata
        assert file.descriptions == ("land_cover",)
        assert file.overviews(1) == [2, 4]
        small = file.read(1, out_shape=(350, 550))
        # Patches are 20 px wide: the most frequent class of 2 x 2 px is that of each, and no code is invented.
        np.testing.assert_array_equal(small, legend.decode(index[::2, ::2]))
        colours = file.colormap(1)
        assert {code: colours[code] for code in legend.codes} == {c.code: (*c.rgb, 255) for c in legend.classes}
        assert colours[legend.map_nodata][3] == 0
        tags, statistics = file.tags(), file.tags(1)
    assert tags["TIFFTAG_SOFTWARE"].startswith("covermap ")
    assert Legend.from_dict(json.loads(tags["COVERMAP_LEGEND"])) == legend
    assert tags["COVERMAP_DATE"] == "2019-07-27"
    assert tags["COVERMAP_CONTENT"] == "sha256:" + hashlib.sha256(legend.decode(index).tobytes()).hexdigest()
    shown = legend.decode(index)[index != IGNORE]
    assert float(statistics["STATISTICS_MAXIMUM"]) == shown.max()
    assert float(statistics["STATISTICS_MEAN"]) == pytest.approx(shown.mean())


def test_areas_in_metres_and_in_degrees(tmp_path: Path) -> None:
    legend = load_legend("esa_worldcover")
    summary, index = make(tmp_path, legend, UTM)
    counts = np.bincount(index.ravel(), minlength=256)
    assert list(summary.num_pixels) == counts[:11].tolist()
    assert summary.num_nodata == counts[255] == 50 * 30
    np.testing.assert_allclose(summary.areas_ha, counts[:11] * 0.01)
    with open(tmp_path / "areas.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["code"]) for row in rows] == list(legend.codes)
    assert [int(row["pixels"]) for row in rows] == counts[:11].tolist()
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-5)
    # In degrees the northern rows are smaller: add up geodesic cells, row by row.
    summary, index = make(tmp_path, legend, DEGREES, "world.tif")
    geod, expected = Geod(ellps="WGS84"), np.zeros(11)
    for row in range(DEGREES.height):
        top = 60 - 0.01 * row
        area, _ = geod.polygon_area_perimeter([10, 10.01, 10.01, 10], [top, top, top - 0.01, top - 0.01])
        expected += np.bincount(index[row], minlength=256)[:11] * abs(area) / 1e4
    np.testing.assert_allclose(summary.areas_ha, expected, rtol=1e-9)
    assert (tmp_path / "world.areas.csv").is_file()


def test_gdal_reads_names_and_attribute_table(tmp_path: Path) -> None:
    legend = load_legend("esa_worldcover")
    summary, _ = make(tmp_path, legend, UTM)
    root = ET.parse(tmp_path / "map.tif.aux.xml").getroot()
    fields = [tuple(e.findtext(tag) for tag in ("Name", "Type", "Usage")) for e in root.iter("FieldDefn")]
    assert fields == [
        ("Value", "0", "5"), ("Count", "1", "1"), ("Class", "2", "2"), ("Red", "0", "6"),
        ("Green", "0", "7"), ("Blue", "0", "8"), ("Alpha", "0", "9"), ("Area_ha", "1", "0"),
    ]  # fmt: skip
    first = [e.text for e in next(iter(root.iter("Row")))]
    assert first[:7] == ["10", str(summary.num_pixels[0]), "Tree cover", "0", "100", "0", "255"]
    assert float(str(first[7])) == pytest.approx(summary.areas_ha[0], abs=1e-4)
    categories = [e.text for e in root.iter("Category")]
    assert len(categories) == 101
    assert categories[80] == "Permanent water bodies"
    # GDAL itself writes what it read from the table, when it makes a copy.
    rasterio.shutil.copy(tmp_path / "map.tif", tmp_path / "copy.tif", driver="GTiff")
    told = ET.parse(tmp_path / "copy.tif.aux.xml").getroot()
    assert [e.text for e in next(told.iter("Row"))][:7] == first[:7]
    assert [tuple(e.findtext(tag) for tag in ("Name", "Type", "Usage")) for e in told.iter("FieldDefn")] == fields
    assert [e.text for e in told.iter("Category")] == categories


def test_the_table_of_arcgis(tmp_path: Path) -> None:
    legend = load_legend("corine")
    summary, _ = make(tmp_path, legend, UTM)
    table = pyogrio.read_dataframe(tmp_path / "map.tif.vat.dbf")
    assert list(table.columns) == ["Value", "Count", "Class", "Red", "Green", "Blue", "Alpha", "Area_ha"]
    assert table["Value"].tolist() == list(legend.codes)
    assert table["Class"].tolist() == list(legend.names)  # the longest has 87 letters
    assert table["Count"].tolist() == list(summary.num_pixels)
    assert table[["Red", "Green", "Blue"]].to_numpy().tolist() == [list(c.rgb) for c in legend.classes]
    np.testing.assert_allclose(table["Area_ha"], summary.areas_ha, atol=1e-4)
    assert not list(tmp_path.glob("*.cpg"))


def test_names_of_other_letters_in_the_table_of_arcgis(tmp_path: Path) -> None:
    for names, page in ((("Wälder", "Prés"), False), (("Лес", "Łąka"), True), (("Wald", "Wiese"), False)):
        legend = Legend.from_dict(dict(enumerate(names, 1)))
        summary, _ = make(tmp_path, legend, DEGREES, overwrite=True)
        assert (tmp_path / "map.tif.vat.cpg").exists() == page
        assert (tmp_path / "map.tif.vat.cpg" in summary.files) == page
        shutil.copy(tmp_path / "map.tif.vat.dbf", tmp_path / "read.dbf")
        if page:
            shutil.copy(tmp_path / "map.tif.vat.cpg", tmp_path / "read.cpg")
        assert pyogrio.read_dataframe(tmp_path / "read.dbf")["Class"].tolist() == list(names)
        for copy in tmp_path.glob("read.*"):
            copy.unlink()


def test_gdalinfo_tells_names_and_table(tmp_path: Path) -> None:
    if shutil.which("gdalinfo") is None:
        pytest.skip("needs gdalinfo, GDAL's own program")
    legend = load_legend("esa_worldcover")
    make(tmp_path, legend, UTM)
    told = subprocess.run(["gdalinfo", "-json", tmp_path / "map.tif"], capture_output=True, text=True, check=True)
    info = json.loads(told.stdout)
    assert info["bands"][0]["categories"][95] == "Mangroves"
    table = info.get("rat") or info["bands"][0]["rat"]
    assert [row["f"][2] for row in table["row"]] == list(legend.names)
    assert [row["f"][0] for row in table["row"]] == list(legend.codes)


def test_codes_above_255_have_a_table_but_no_category_list(tmp_path: Path) -> None:
    make(tmp_path, load_legend("corine"), UTM)
    root = ET.parse(tmp_path / "map.tif.aux.xml").getroot()
    assert root.find(".//CategoryNames") is None
    assert len(list(root.iter("Row"))) == 44


def test_the_stac_item_is_valid_and_true(tmp_path: Path) -> None:
    legend = load_legend("dynamic_world")
    layers = {}
    for key, bands, scale in (("confidence", ["confidence in percent"], 1.0), ("probs", legend.names, 1 / 200)):
        plain = tmp_path / f"plain_{key}.tif"
        with RasterWriter(plain, UTM, bands=bands, dtype="uint8", nodata=255, scale=scale) as writer:
            writer.write(UTM.window, np.full((len(bands), UTM.height, UTM.width), 40, np.uint8))
        layers[key] = finish_cog(plain, tmp_path / f"{key}.tif", nodata=255, description=bands)
        plain.unlink()
    summary, _ = make(tmp_path, legend, UTM, derived_from=["../model", "s2.tif"], layers=layers)
    raw = json.loads((tmp_path / "map.stac.json").read_text())
    assert stac_faults(raw) == []
    item = pystac.Item.from_dict(raw)
    assert item.datetime is not None
    assert item.datetime.isoformat() == "2019-07-27T00:00:00+00:00"
    assert item.properties["proj:code"] == "EPSG:32633"
    assert item.properties["proj:shape"] == [700, 1100]
    assert item.properties["proj:transform"] == [10, 0, 400_000, 0, -10, 5_000_000]
    assert item.bbox == pytest.approx([13.7279, 45.0843, 13.8700, 45.1481], abs=2e-3)
    assert [link.href for link in item.links if link.rel == "derived_from"] == ["../model", "s2.tif"]
    data = (tmp_path / "map.tif").read_bytes()
    asset = item.assets["map"].to_dict()
    assert asset["file:size"] == len(data)
    assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()
    classes = asset["bands"][0]["classification:classes"]
    assert classes[5] == {
        "value": 5, "name": "shrub_and_scrub", "title": "Shrub and scrub", "color_hint": "DFC35A",
        "count": summary.num_pixels[5],
    }  # fmt: skip
    assert classes[-1]["value"] == 255
    assert classes[-1]["nodata"] is True
    assert item.assets["confidence"].href == "./confidence.tif"
    assert [band["name"] for band in item.assets["probs"].to_dict()["bands"]] == list(legend.names)
    band = item.assets["probs"].to_dict()["bands"][3]
    assert (band["data_type"], band["nodata"], band["raster:scale"], band["raster:offset"]) == (
        "uint8",
        255,
        1 / 200,
        0,
    )
    assert "raster:scale" not in item.assets["confidence"].to_dict()["bands"][0]
    assert {band["raster:spatial_resolution"] for band in asset["bands"]} == {10}
    # Every other file that was written is named there, with its size and checksum.
    written = {path.name for path in tmp_path.iterdir()} - {"map.stac.json"}
    assert {Path(each.href).name for each in item.assets.values()} == written
    for each in item.assets.values():
        content = (tmp_path / each.href).read_bytes()
        assert each.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert {path.name for path in summary.files} | {"confidence.tif", "probs.tif"} == written | {"map.stac.json"}
    used = {uri.split("/")[-3] for uri in raw["stac_extensions"]}
    assert used == {"projection", "raster", "classification", "file", "processing"}


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2019-07-27T10:21:05Z", ("2019-07-27T10:21:05Z", None, None)),
        ("2019-02", (None, "2019-02-01T00:00:00Z", "2019-02-28T23:59:59Z")),
        ("2019", (None, "2019-01-01T00:00:00Z", "2019-12-31T23:59:59Z")),
        ("2018-04-01/2018-08", (None, "2018-04-01T00:00:00Z", "2018-08-31T23:59:59Z")),
    ],
)
def test_dates_of_the_item(tmp_path: Path, date: str, expected: tuple[str | None, ...]) -> None:
    make(tmp_path, load_legend("esri_io"), DEGREES, date=date)
    raw = json.loads((tmp_path / "map.stac.json").read_text())
    assert tuple(raw["properties"].get(key) for key in ("datetime", "start_datetime", "end_datetime")) == expected
    assert stac_faults(raw) == []


def test_wrong_dates_and_no_date(tmp_path: Path) -> None:
    legend = load_legend("esri_io")
    for date in ("27.7.2019", "2019-13", "2019-02-30", "2020/2019", "1/2/3"):
        with pytest.raises(ConfigError, match="is no"):
            make(tmp_path, legend, DEGREES, date=date)
    summary, _ = make(tmp_path, legend, DEGREES, date=None)
    assert not (tmp_path / "map.stac.json").exists()
    assert summary.notes == (
        "no STAC item was written: the date of the image is not known (state it: --date, or FILE@2019-07-27)",
    )


@pytest.mark.parametrize("transform", [Affine(1, 0, 0, 0, -1, 64), Affine.identity()])
def test_a_map_without_crs(tmp_path: Path, transform: Affine) -> None:
    make(tmp_path, load_legend("wusu"), Grid(None, transform, 64, 64))
    raw = json.loads((tmp_path / "map.stac.json").read_text())
    assert raw["geometry"] is None
    assert "bbox" not in raw
    assert stac_faults(raw) == []


def test_same_input_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "b"):
        make(tmp_path / folder, load_legend("esa_worldcover"), UTM)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "areas.csv", "map.clr", "map.qml", "map.stac.json", "map.tif", "map.tif.aux.xml", "map.tif.vat.dbf",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_is_overwritten_or_left_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    legend = load_legend("esri_io")
    make(tmp_path, legend, DEGREES)
    with pytest.raises(OutputError, match="exists already"):
        make(tmp_path, legend, DEGREES)
    make(tmp_path, legend, DEGREES, overwrite=True)
    before = (tmp_path / "map.tif").read_bytes()
    monkeypatch.setattr("rasterio.shutil.copy", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(tmp_path, legend, DEGREES, overwrite=True)
    assert (tmp_path / "map.tif").read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_unknown_codes_in_the_plain_map_are_refused(tmp_path: Path) -> None:
    with RasterWriter(tmp_path / "plain.tif", DEGREES, bands=["x"], dtype="uint8", nodata=0) as writer:
        writer.write(DEGREES.window, np.full((600, 40), 77, np.uint8))
    with pytest.raises(LabelError, match=r"77 \("):
        finish_map(tmp_path / "plain.tif", tmp_path / "map.tif", load_legend("esri_io"))
    assert not (tmp_path / "map.tif").exists()


def test_confidence_is_averaged_in_overviews_without_nodata(tmp_path: Path) -> None:
    values = np.full((1024, 1024), 100, np.uint8)
    values[::2, ::2] = 0
    values[:512, 1::2] = 255
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 400_000, 0, -10, 5_000_000), 1024, 1024)
    with RasterWriter(tmp_path / "plain.tif", grid, bands=["x"], dtype="uint8", nodata=255) as writer:
        writer.write(grid.window, values)
    path = finish_cog(
        tmp_path / "plain.tif", tmp_path / "confidence.tif", nodata=255, description="confidence", tags={"UNIT": "%"}
    )
    assert cog_validate(path)[0]
    with rasterio.open(path) as file:
        assert (file.nodata, file.descriptions, file.tags()["UNIT"]) == (255, ("confidence",), "%")
        np.testing.assert_array_equal(file.read(1), values)
        half = file.read(1, out_shape=(512, 512))
    assert np.unique(half[:256]).tolist() == [50]  # 0 and 100, never 255
    assert np.unique(half[256:]).tolist() == [75]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", shipped())
def test_legends_come_back_from_every_file_form(tmp_path: Path, suffix: str, name: str) -> None:
    legend = load_legend(name)
    path = write_legend(legend, tmp_path / f"{name}{suffix}")
    (tmp_path / "again").mkdir()
    back = read_legend(path)
    assert back.codes == legend.codes
    assert [c.colour for c in back.classes] == [c.colour for c in legend.classes]
    assert back.name == name
    # Whatever does not come back is said to be lost.
    lost = " ".join(not_held(legend, path))
    assert ("names of the classes" in lost) == (back.names != legend.names)
    for part, word in (
        ("title", "title"),
        ("source", "source"),
        ("nodata", "nodata"),
        ("ignore", "ignored"),
        ("merged", "merged"),
    ):
        assert (word in lost) == (getattr(back, part) != getattr(legend, part)), word
    if suffix in (".yaml", ".yml"):
        assert back == legend
    assert write_legend(back, tmp_path / "again" / f"{name}{suffix}").read_text() == path.read_text()


@pytest.mark.parametrize("one", [s for s in SUFFIXES if s != ".clr"])
@pytest.mark.parametrize("other", [s for s in SUFFIXES if s not in (".clr", ".yml")])
def test_forms_lead_into_each_other(tmp_path: Path, one: str, other: str) -> None:
    legend = load_legend("nlcd")
    first = read_legend(write_legend(legend, tmp_path / f"a{one}"))
    second = read_legend(write_legend(first, tmp_path / f"b{other}"))
    assert second.classes == legend.classes


def test_the_sld_is_of_the_namespace_and_order_of_the_standard(tmp_path: Path) -> None:
    path = write_legend(load_legend("dynamic_world"), tmp_path / "x.sld")
    root, sld = ET.parse(path).getroot(), "{http://www.opengis.net/sld}"
    assert (root.tag, root.get("version")) == (f"{sld}StyledLayerDescriptor", "1.0.0")
    way = "NamedLayer/UserStyle/FeatureTypeStyle/Rule/RasterSymbolizer/ColorMap"
    colours = root.find("/".join(sld + tag for tag in way.split("/")))
    assert colours is not None
    assert colours.get("type") == "values"
    first = next(iter(colours)).attrib
    assert first == {"color": "#419bdf", "quantity": "0", "label": "Water", "opacity": "1"}


def test_an_sld_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "x.sld").write_text(
        """<?xml version="1.0" encoding="UTF-8"?>
<sld:StyledLayerDescriptor xmlns:sld="http://www.opengis.net/se" version="1.1.0"><sld:ColorMap>
<sld:ColorMapEntry color="#000000" quantity="0" opacity="0.0" label="nodata"/>
<sld:ColorMapEntry color="#00FF00" quantity="2.0" label="Wald &amp; Busch"/>
<sld:ColorMapEntry color="#0000ff" quantity="7"/></sld:ColorMap></sld:StyledLayerDescriptor>"""
    )
    found = read_legend(tmp_path / "x.sld")
    assert [(c.code, c.name, c.colour) for c in found.classes] == [
        (2, "Wald & Busch", "#00ff00"), (7, "class 7", "#0000ff"),
    ]  # fmt: skip
    (tmp_path / "y.sld").write_text('<a><ColorMapEntry color="#00ff00" quantity="2.5" label="half"/></a>')
    with pytest.raises(LabelError, match="is no legend in"):
        read_legend(tmp_path / "y.sld")


def test_names_with_special_letters_survive(tmp_path: Path) -> None:
    legend = Legend.from_dict({1: 'Wälder & "Gebüsch" <hoch>', 2: "水, eau"})
    for suffix in (".qml", ".csv", ".aux.xml", ".yaml", ".sld"):
        assert read_legend(write_legend(legend, tmp_path / f"x{suffix}")).names == legend.names


def test_files_that_hold_no_legend(tmp_path: Path) -> None:
    for suffix, text in (
        (".qml", "<qgis>"),
        (".csv", "a,b\n1,2\n"),
        (".clr", "1 2\n"),
        (".aux.xml", "<a><Row/></a>"),
        (".sld", "<a><ColorMapEntry quantity='1'/></a>"),
    ):
        (tmp_path / f"x{suffix}").write_text(text)
        with pytest.raises(LabelError, match="is no legend in"):
            read_legend(tmp_path / f"x{suffix}")
    (tmp_path / "y.qml").write_text("<qgis><pipe/></qgis>")
    with pytest.raises(LabelError, match="holds no classes"):
        read_legend(tmp_path / "y.qml")
    with pytest.raises(LabelError, match="no ending of a legend"):
        read_legend(tmp_path / "legend.txt")
    with pytest.raises(LabelError, match="there is no legend file"):
        read_legend(tmp_path / "gone.clr")


_LETTERS = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"))


@st.composite
def any_legend(draw):
    codes = draw(st.lists(st.integers(0, 65534), min_size=1, max_size=12, unique=True))
    names = st.text(_LETTERS, min_size=1, max_size=20).filter(lambda name: name == name.strip())
    each = draw(st.lists(names, min_size=len(codes), max_size=len(codes), unique_by=str.lower))
    colours = draw(st.lists(st.integers(0, 0xFFFFFF), min_size=len(codes), max_size=len(codes)))
    rows = zip(codes, each, colours, strict=True)
    return Legend("made", tuple(LandClass(code, name, f"#{colour:06x}") for code, name, colour in rows))


@given(any_legend())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_legend_comes_back_from_every_file_form(tmp_path: Path, legend: Legend) -> None:
    for suffix in SUFFIXES:
        back = read_legend(write_legend(legend, tmp_path / f"made{suffix}"))
        assert back.codes == legend.codes
        assert [c.colour for c in back.classes] == [c.colour for c in legend.classes]
        if suffix != ".clr":
            assert back.names == legend.names, suffix
