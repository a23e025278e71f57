"""What became of what: against brute force in numpy, on any grid, with questions, merges and small patches; refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from pyproj import Geod
from rio_cogeo.cogeo import cog_validate

import covermap
from covermap.core.errors import ConfigError, CovermapError, DataError, GridError, LabelError, OutputError
from covermap.core.from_to import FromTo
from covermap.core.legend import Legend, load_legend
from covermap.geo.grid import partition
from covermap.geo.patches import drop_small
from covermap.geo.products import legend_of_map
from covermap.verbs import change_pair as module
from covermap.verbs.change import change
from covermap.verbs.change_rules import ChangeRules

COVER = np.array(load_legend("esa_worldcover").codes, np.uint8)
WORLD = np.array(load_legend("dynamic_world").codes, np.uint8)
WC = {"legends": ["esa_worldcover"]}
COLUMNS = ("before_ha", "after_ha", "gain_ha", "loss_ha", "net_ha", "swap_ha", "persistence_ha", "total_ha")


def patches(codes: np.ndarray, shape: tuple[int, int], seed: int, side: int = 7) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, len(codes), (shape[0] // side + 1, shape[1] // side + 1))
    return codes[np.kron(coarse, np.ones((side, side), int))[: shape[0], : shape[1]]]


def brute(first: np.ndarray, other: np.ndarray, codes: tuple[int, ...]) -> np.ndarray:
    return np.array([[int(((first == a) & (other == b)).sum()) for b in codes] for a in codes])


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.fixture
def two(write_tif):
    """Two maps of the eleven classes of WorldCover with some nodata on either side."""
    first, other = patches(COVER, (90, 70), 1), patches(COVER, (90, 70), 2, side=5)
    other[30:] = first[30:]
    first[:3], other[:, :4] = 0, 0
    return first, other, (write_tif("a.tif", first, nodata=0), write_tif("b.tif", other, nodata=0))


def test_every_pair_has_its_code_and_every_table_the_brute_force_numbers(two, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "WINDOW_PX", (32, 16))  # many windows, the last ones cut
    first, other, paths = two
    found = change(paths, tmp_path / "change.tif", **WC).pairs[0]
    expected = brute(first, other, tuple(map(int, COVER)))
    np.testing.assert_array_equal(found.matrix.pixels, expected)
    np.testing.assert_allclose(found.matrix.hectares, expected * 0.01)
    codes, of = read(tmp_path / "change.tif"), FromTo(load_legend("esa_worldcover"))
    assert codes.dtype == np.uint16
    index = {int(code): i for i, code in enumerate(COVER)}
    for row in range(0, 90, 7):
        for col in range(70):
            a, b = int(first[row, col]), int(other[row, col])
            assert codes[row, col] == (65535 if 0 in (a, b) else of.code(index[a], index[b]))
    before, after = of.decode(codes)
    changed = (codes > 0) & (codes < 65535)
    np.testing.assert_array_equal(COVER[before[changed]], first[changed])
    np.testing.assert_array_equal(COVER[after[changed]], other[changed])
    rows = rows_of(tmp_path / "transitions.csv")
    assert sum(int(row["pixels"]) for row in rows) == expected.sum() == found.to_dict()["compared"]["pixels"]
    for row in rows:
        assert int(row["pixels"]) == expected[index[int(row["from_code"])], index[int(row["to_code"])]]
        assert row["in_map"] == ("yes" if row["from"] != row["to"] else "no")
    table = list(csv.reader((tmp_path / "matrix.csv").read_text().splitlines()))
    np.testing.assert_allclose([[float(v) for v in row[1:-1]] for row in table[1:-1]], expected * 0.01, atol=1e-4)
    np.testing.assert_allclose([float(v) for v in table[-1][1:-1]], expected.sum(0) * 0.01, atol=1e-4)
    np.testing.assert_allclose([float(row[-1]) for row in table[1:-1]], expected.sum(1) * 0.01, atol=1e-4)
    told = json.loads((tmp_path / "change.json").read_text())
    assert told["matrix_px"] == expected.tolist()
    assert told["nodata"]["only_before"]["pixels"] == ((first != 0) & (other == 0)).sum()
    assert told["nodata"]["only_after"]["pixels"] == ((first == 0) & (other != 0)).sum()
    assert told["nodata"]["neither"]["pixels"] == ((first == 0) & (other == 0)).sum()


def test_gains_losses_net_and_swap_by_hand(write_tif, tmp_path: Path) -> None:
    """Pontius: 10 loses 6 and gains 2 pixels: net 4, swap 4, total 8."""
    first = np.array([[10] * 10 + [20] * 10], np.uint8).repeat(2, 0)
    other = first.copy()
    other[0, :6], other[1, 10:12] = 20, 10
    paths = write_tif("a.tif", first, nodata=0, gsd=100.0), write_tif("b.tif", other, nodata=0, gsd=100.0)
    found = change(paths, tmp_path / "c.tif", **WC).pairs[0]
    rows = {int(row["code"]): [float(row[name]) for name in COLUMNS] for row in rows_of(tmp_path / "c.classes.csv")}
    assert rows == {10: [20, 16, 2, 6, -4, 4, 14, 8], 20: [20, 24, 6, 2, 4, 4, 18, 8]}
    assert found.scores["changed_share"] == pytest.approx(8 / 40)
    assert found.scores["quantity_disagreement"] == pytest.approx(4 / 40)
    assert found.scores["allocation_disagreement"] == pytest.approx(4 / 40)


def test_blocks_and_the_whole_give_the_same_bytes(two, tmp_path: Path, monkeypatch) -> None:
    rules = ChangeRules(min_area="12px", impossible=("Tree cover>Cropland",))
    change(two[2], tmp_path / "one" / "change.tif", rules=rules, **WC)
    monkeypatch.setattr(module, "WINDOW_PX", (16, 32))
    change(two[2], tmp_path / "two" / "change.tif", rules=rules, **WC)
    for path in sorted((tmp_path / "one").iterdir()):
        if path.name != "change.json":
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_all_files_read_back(two, tmp_path: Path) -> None:
    a, b = two[2]
    done = change([f"{a}@2018", f"{b}@2022-07"], tmp_path / "change.tif", **WC)
    found, folder = done.pairs[0], tmp_path
    assert {path.name for path in done.files} == {path.name for path in folder.iterdir()} - {"a.tif", "b.tif"}
    assert cog_validate(folder / "change.tif", quiet=True)[0]
    with rasterio.open(folder / "change.tif") as dataset:
        codes, tags = dataset.read(1), dataset.tags()
        assert (dataset.nodata, dataset.dtypes[0], dataset.descriptions[0]) == (65535, "uint16", "change")
        colours = dataset.colormap(1)
    assert tags["COVERMAP_CONTENT"] == "sha256:" + hashlib.sha256(codes.astype("<u2").tobytes()).hexdigest()
    assert tags["COVERMAP_DATE"] == "2018/2022-07"
    assert Legend.from_dict(json.loads(tags["COVERMAP_FROM_TO"])).names == load_legend("esa_worldcover").names
    values, counts = np.unique(codes[codes < 65535], return_counts=True)
    of = FromTo(load_legend("esa_worldcover"))
    known = {each.code: each for each in of.transitions()}
    root = ET.parse(folder / "change.tif.aux.xml").getroot()
    names = [each.findtext("Name") for each in root.iter("FieldDefn")]
    table = [dict(zip(names, [f.text or "" for f in row.iter("F")], strict=True)) for row in root.iter("Row")]
    assert [(int(row["Value"]), int(row["Count"])) for row in table] == list(zip(values, counts, strict=True))
    assert colours[0][:3] == (0xF2, 0xF2, 0xEE)
    for row in table[1:]:
        each = known[int(row["Value"])]
        assert (row["From"], row["To"], row["Class"]) == (each.before.name, each.after.name, each.name)
        rgb = tuple(int(row[name]) for name in ("Red", "Green", "Blue"))
        assert colours[each.code][:3] == rgb
        assert "#{:02x}{:02x}{:02x}".format(*rgb) == each.colour
        assert float(row["Area_ha"]) == pytest.approx(int(row["Count"]) * 0.01)
    import pyogrio

    vat = pyogrio.read_dataframe(folder / "change.tif.vat.dbf", read_geometry=False)
    assert vat["Value"].tolist() == values.tolist()
    assert {"From", "To", "Area_ha"} <= set(vat.columns)
    assert len((folder / "change.clr").read_text().splitlines()) == len(values)
    assert (folder / "change.qml").read_text().count("<paletteEntry") == len(values)
    item = json.loads((folder / "change.stac.json").read_text())
    assert item["properties"]["start_datetime"] == "2018-01-01T00:00:00Z"
    assert item["properties"]["end_datetime"] == "2022-07-31T23:59:59Z"
    assert {link["href"] for link in item["links"]} == {"a.tif", "b.tif"}
    assert "transitions" in item["assets"]
    assert len(item["assets"]["map"]["bands"][0]["classification:classes"]) == len(values) + 1
    # The legend of the map holds every transition, also those that a person may find and the maps do not show.
    assert len(legend_of_map(folder / "change.tif")) == 111
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match="exists already"):
        change([f"{a}@2018", f"{b}@2022-07"], tmp_path / "change.tif", **WC)
    change([f"{a}@2018", f"{b}@2022-07"], tmp_path / "change.tif", overwrite=True, **WC)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert found.rules == ChangeRules()


def test_hectares_in_degrees_are_those_of_the_ellipsoid(write_tif, tmp_path: Path) -> None:
    first, other = patches(COVER[:4], (60, 40), 3), patches(COVER[:4], (60, 40), 4)
    place = {"crs": "EPSG:4326", "origin": (7.0, 60.0), "gsd": 0.01, "nodata": 0}
    paths = write_tif("a.tif", first, **place), write_tif("b.tif", other, **place)
    found = change(paths, tmp_path / "c.tif", rules=ChangeRules(min_area="100000ha"), **WC).pairs[0]
    geod = Geod(ellps="WGS84")
    expected = np.zeros((4, 4))
    for row in range(60):
        top = 60 - row * 0.01
        area, _ = geod.polygon_area_perimeter([7, 7.01, 7.01, 7], [top, top, top - 0.01, top - 0.01])
        expected += brute(first[row], other[row], tuple(map(int, COVER[:4]))) * abs(area) / 1e4
    np.testing.assert_allclose(found.plain.hectares[:4, :4], expected, rtol=1e-9)
    # A pixel there has some 60 ha: no patch of change reaches the least area, so that all is set aside.
    assert found.changed.total == {"pixels": 0, "area_ha": pytest.approx(0, abs=1e-9)}
    np.testing.assert_allclose(np.diag(found.matrix.hectares)[:4], expected.sum(1), rtol=1e-9)


def test_the_second_map_is_laid_on_the_grid_of_the_first(write_tif, tmp_path: Path) -> None:
    first, other = patches(COVER, (40, 40), 5), patches(COVER, (60, 50), 6)
    paths = write_tif("a.tif", first, nodata=0), write_tif("b.tif", other, nodata=0, origin=(499_904, 5_000_104))
    done = change(paths, tmp_path / "c.tif", **WC).pairs[0]
    # Centres of the first, in pixels of the other.
    rows, cols = ((np.arange(40) * 10 + 5 + 104) // 10, (np.arange(40) * 10 + 5 + 96) // 10)
    near = other[np.ix_(rows, cols)]
    np.testing.assert_array_equal(done.matrix.pixels, brute(first, near, tuple(map(int, COVER))))
    assert any("nearest neighbour, centres up to 0.40 px apart" in note for note in done.notes)
    with rasterio.open(tmp_path / "c.tif") as file, rasterio.open(paths[0]) as wanted:
        assert (file.transform, file.shape) == (wanted.transform, wanted.shape)


def test_files_in_rows_and_wide_ones(write_tif, tmp_path: Path, monkeypatch) -> None:
    """Files of whole rows are read by rows: nothing is decoded for each window of a row again."""
    monkeypatch.setattr(module, "WINDOW_PX", (16, 32))
    monkeypatch.setattr(module, "_ROW_PX", 700)
    first, other = patches(COVER, (50, 70), 1), patches(COVER, (50, 70), 2)
    paths = [write_tif(f"{n}.tif", m, nodata=0, compress="deflate") for n, m in enumerate((first, other))]
    seen: list[int] = []
    monkeypatch.setattr(module, "partition", lambda *a: seen.append(a[2]) or partition(*a))
    found = change(paths, tmp_path / "c.tif", **WC).pairs[0]
    assert seen == [70]
    np.testing.assert_array_equal(found.matrix.pixels, brute(first, other, tuple(map(int, COVER))))


def test_maps_without_a_legend_and_of_inferred_ones(write_tif, tmp_path: Path) -> None:
    first, other = np.array([[1, 2], [2, 3]], np.uint8), np.array([[1, 5], [2, 0]], np.uint8)
    paths = write_tif("a.tif", first, nodata=0), write_tif("b.tif", other, nodata=0)
    done = change(paths, tmp_path / "c.tif")
    assert done.pairs[0].legend.codes == (1, 2, 3, 5)
    assert any("no map says what its codes mean" in note for note in done.notes)
    assert read(tmp_path / "c.tif").tolist() == [[0, FromTo(done.pairs[0].legend).code(1, 3)], [0, 65535]]


def test_other_legends_need_a_crosswalk(write_tif, tmp_path: Path) -> None:
    first, other = patches(COVER, (40, 40), 7), patches(WORLD, (40, 40), 8)
    paths = write_tif("a.tif", first, nodata=0), write_tif("b.tif", other, nodata=255)
    legends = ["esa_worldcover", "dynamic_world"]
    with pytest.raises(LabelError, match=r"of different legends: .*'esa_worldcover' .11 classes: 10 Tree") as caught:
        change(paths, tmp_path / "c.tif", legends=legends)
    assert "--as dynamic_world" in caught.value.fix
    done = change(paths, tmp_path / "c.tif", legends=legends, target="dynamic_world").pairs[0]
    to = {10: 1, 20: 5, 30: 2, 40: 4, 50: 6, 60: 7, 70: 8, 80: 0, 90: 3}
    same = np.vectorize(lambda code: to.get(int(code), -1))(first)
    np.testing.assert_array_equal(done.matrix.pixels, brute(same, other, tuple(range(9))))
    lost = {row["code"]: row["pixels"] for row in done.to_dict()["no_counterpart"]["before"]}
    assert lost == {code: int((first == code).sum()) for code in (95, 100)}
    codes = read(tmp_path / "c.tif")
    np.testing.assert_array_equal(codes == 65535, same == -1)
    legend = {"name": "mine", "nodata": 0, "classes": [{"code": 1, "name": "Pine"}, {"code": 2, "name": "Lake"}]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(legend))
    raw = {"from": "mine.yaml", "to": "ipcc", "classes": {"Pine": "Forest land", "Lake": "Wetlands"}}
    (tmp_path / "walk.yaml").write_text(yaml.safe_dump(raw))
    own = write_tif("own.tif", np.where(first == 10, 1, 2).astype(np.uint8), nodata=0)
    done = change(
        [own, paths[0]], tmp_path / "d.tif", legends=[str(tmp_path / "mine.yaml"), "esa_worldcover"],
        crosswalks=[tmp_path / "walk.yaml"],
    ).pairs[0]  # fmt: skip
    assert done.legend.name == "ipcc"


def test_legends_that_only_do_not_collide_are_not_one(write_tif, tmp_path: Path) -> None:
    corine = np.array(load_legend("corine").codes[:6], np.uint16)
    first, other = patches(WORLD, (40, 40), 7), patches(corine, (40, 40), 8)
    paths = write_tif("a.tif", first, nodata=255), write_tif("b.tif", other, nodata=0)
    legends = ["dynamic_world", "corine"]
    with pytest.raises(LabelError, match=r"of different legends: .*'dynamic_world'.*'corine'") as caught:
        change(paths, tmp_path / "c.tif", legends=legends)
    assert "--as dynamic_world" in caught.value.fix
    change(paths, tmp_path / "c.tif", legends=legends, target="ipcc")


def test_a_stated_legend_against_that_of_the_map_is_told(covermap, write_tif, tmp_path: Path) -> None:
    paths = [write_tif(f"{n}.tif", np.full((8, 8), 10 * n, np.uint8), nodata=0) for n in (1, 2)]
    for path in paths:
        with rasterio.open(path, "r+") as dataset:
            own = {"name": "mine", "classes": [{"code": 10, "name": "Water"}, {"code": 20, "name": "shrubland"}]}
            dataset.update_tags(COVERMAP_LEGEND=json.dumps(own))
    done = change(paths, tmp_path / "c.tif", **WC)
    notes = [note for note in done.notes if "says itself that its codes mean 10 Water; " in note]
    assert len(notes) == 2
    assert "they are read as 10 Tree cover (legend 'esa_worldcover')" in notes[0]
    assert not any("says itself" in note for note in change(paths, tmp_path / "d.tif").notes)
    few = tmp_path / "few.yaml"
    few.write_text("name: few\nclasses: [{code: 10, name: Forest}]\n")
    with pytest.raises(LabelError, match="does not know: 20") as caught:
        change(paths, tmp_path / "f.tif", legends=[str(few)])
    assert "leave --legend out: the map says itself" in caught.value.fix
    for call in (
        ("compare", *paths, "--other-legend", "esa_worldcover", "--as", "ipcc"),
        ("legend", "apply", paths[0], tmp_path / "e.tif", "--to", "ipcc"),
    ):
        code, out, err = covermap(*call, "--legend", "esa_worldcover")
        assert code == 0, err
        assert "says itself that its codes mean 10 Water; " in " ".join(out.split())


def test_a_copy_of_a_map_is_told(two, tmp_path: Path) -> None:
    copied = tmp_path / "copy.tif"
    copied.write_bytes(Path(two[2][0]).read_bytes())
    done = change([two[2][0], copied], tmp_path / "c.tif", **WC)
    assert any("is one a copy of the other" in note for note in done.notes)
    assert not any("is one a copy of the other" in note for note in change(two[2], tmp_path / "d.tif", **WC).notes)


def test_merges_come_first_and_questions_leave_the_tables_whole(two, tmp_path: Path) -> None:
    first, other, paths = two
    rules = ChangeRules(merge=("Woody=Tree cover,20,95",), goals=("Built-up,Woody",), origins=("40,30",))
    found = change(paths, tmp_path / "c.tif", rules=rules, **WC).pairs[0]
    one, two_ = (np.where(np.isin(m, (10, 20, 95)), 10, m) for m in (first, other))
    legend = found.legend
    assert len(legend) == 9
    assert legend.names[0] == "Woody"
    np.testing.assert_array_equal(found.matrix.pixels, brute(one, two_, legend.codes))
    codes = read(tmp_path / "c.tif")
    asked = np.isin(one, (40, 30)) & np.isin(two_, (50, 10)) & (one != two_)
    np.testing.assert_array_equal((codes > 0) & (codes < 65535), asked)
    before, after = FromTo(legend).decode(codes)
    np.testing.assert_array_equal(np.array(legend.codes)[before[asked]], one[asked])
    np.testing.assert_array_equal(np.array(legend.codes)[after[asked]], two_[asked])
    rows = rows_of(tmp_path / "c.transitions.csv")
    assert sum(int(row["pixels"]) for row in rows if row["in_map"] == "yes") == asked.sum()
    assert found.to_dict()["in_map"]["pixels"] == asked.sum()
    assert found.to_dict()["rules"]["goals"] == ("Built-up,Woody",)
    with rasterio.open(tmp_path / "c.tif") as file:
        assert json.loads(file.tags()["COVERMAP_CHANGE"])["origins"] == ["40,30"]
    change(paths, tmp_path / "b2.tif", rules=ChangeRules(rules.merge, rules.origins, rules.goals, binary=True), **WC)
    with rasterio.open(tmp_path / "b2.tif") as file:
        assert (file.dtypes[0], file.nodata) == ("uint8", 0)
        np.testing.assert_array_equal(file.read(1), np.where(codes == 65535, 0, np.where(asked, 2, 1)))
    asked_for = "from Cropland, Grassland to Built-up, Woody"
    for name in ("b2", "c"):
        known = legend_of_map(tmp_path / f"{name}.tif")
        assert known.names[0] == f"not {asked_for}"
        assert f"not {asked_for}" in (tmp_path / f"{name}.tif.aux.xml").read_text()
    assert legend_of_map(tmp_path / "b2.tif").names[1] == asked_for
    assert rules.answers(load_legend("esa_worldcover").merge({"Woody": ["Tree cover"]}))[0] == f"not {asked_for}"
    assert ChangeRules(goals=("10,20,30,40,50",)).answers(load_legend("esa_worldcover")) == (
        "not to Tree cover, Shrubland, Grassland and 2 others", "to Tree cover, Shrubland, Grassland and 2 others"
    )  # fmt: skip
    assert ChangeRules().answers(legend) == ("unchanged", "changed")


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("binary", [False, True])
def test_small_patches_of_change_are_unchanged(
    two, tmp_path: Path, connectivity: int, binary: bool, monkeypatch
) -> None:
    """Against labels of scipy, one code at a time, with strips that cut the patches."""
    from scipy import ndimage

    monkeypatch.setattr(module, "drop_small", partial(drop_small, strip_px=700))
    paths = two[2]
    change(paths, tmp_path / "raw.tif", **WC)
    raw = read(tmp_path / "raw.tif")
    structure = np.ones((3, 3)) if connectivity == 8 else None
    expected, below, all_of = raw.copy(), 0, 0
    for code in np.unique(raw[(raw > 0) & (raw < 65535)]):
        label, num = ndimage.label(raw == code, structure)
        sizes = np.bincount(label.ravel())
        small = (sizes < 12) & (np.arange(num + 1) > 0)
        expected[small[label]] = 0
        below, all_of = below + small.sum(), all_of + num
    assert 0 < below < all_of
    rules = ChangeRules(min_area="0.12ha", connectivity=connectivity, binary=binary)
    found = change(paths, tmp_path / "c.tif", rules=rules, **WC).pairs[0]
    codes = read(tmp_path / "c.tif")
    shown = np.where(expected == 65535, 0, np.where(expected > 0, 2, 1)) if binary else expected
    np.testing.assert_array_equal(codes, shown)
    assert found.num_patches == (all_of, below)
    gone = int((raw != expected).sum())
    assert found.set_aside["patches below 0.12ha"].total == {"pixels": gone, "area_ha": pytest.approx(gone * 0.01)}
    assert found.matrix.pixels.sum() == found.plain.pixels.sum()
    assert found.changed.total["pixels"] == ((expected > 0) & (expected < 65535)).sum()
    np.testing.assert_array_equal(found.matrix.pixels.sum(1), found.plain.pixels.sum(1))
    with rasterio.open(tmp_path / "c.tif") as file:
        stored = codes.astype("<u1" if binary else "<u2").tobytes()
        assert file.tags()["COVERMAP_CONTENT"] == "sha256:" + hashlib.sha256(stored).hexdigest()


def test_impossible_transitions_are_counted_and_set_aside(two, tmp_path: Path) -> None:
    first, other, paths = two
    (tmp_path / "no.csv").write_text("from,to\nTree cover,Cropland\n80,Built-up\n")
    (tmp_path / "no.yaml").write_text("['Built-up>*']\n")
    rules = ChangeRules(impossible=(str(tmp_path / "no.csv"), str(tmp_path / "no.yaml"), "Snow and ice>Mangroves"))
    found = change(paths, tmp_path / "c.tif", rules=rules, **WC).pairs[0]
    both = (first != 0) & (other != 0) & (first != other)
    wrong = ((first == 10) & (other == 40)) | ((first == 80) & (other == 50)) | ((first == 70) & (other == 95))
    wrong |= both & (first == 50)
    assert wrong.any()
    codes = read(tmp_path / "c.tif")
    np.testing.assert_array_equal((codes > 0) & (codes < 65535), both & ~wrong)
    told = json.loads((tmp_path / "c.change.json").read_text())["set_aside"]["impossible transitions"]
    assert told["pixels"] == wrong.sum() == sum(row["pixels"] for row in told["transitions"])
    assert found.changed.total["pixels"] == (both & ~wrong).sum()
    assert any("impossible transitions" in note for note in found.notes)


def test_expected_false_change_stands_beside_the_measured(two, tmp_path: Path) -> None:
    first, other, paths = two
    (tmp_path / "assessment.json").write_text(json.dumps({"overall": {"value": 0.85}}))
    done = change(paths, tmp_path / "c.tif", accuracy=[0.9, str(tmp_path / "assessment.json")], **WC).pairs[0]
    both = (first != 0) & (other != 0)
    expected = 1 - (0.9 * 0.85 + 0.1 * 0.15 / 10)
    told = json.loads((tmp_path / "c.change.json").read_text())["false_change"]
    assert told["expected_false_share"] == pytest.approx(expected)
    assert told["expected_false_ha"] == pytest.approx(expected * both.sum() * 0.01)
    measured = ((first != other) & both).sum() / both.sum()
    assert told["measured_share"] == pytest.approx(measured)
    assert told["could_be_false"] == pytest.approx(min(1, expected / measured))
    assert "could be false" in told["in_words"]
    assert not any("--accuracy" in note for note in done.notes)
    with pytest.raises(ConfigError, match="1 accuracy for 2 maps") as caught:
        change(paths, tmp_path / "d.tif", accuracy=[0.9], **WC)
    assert "with commas: 0.9,0.85" in caught.value.fix
    with pytest.raises(ConfigError, match="an accuracy of 90"):
        change(paths, tmp_path / "d.tif", accuracy=[90, 80], **WC)
    with pytest.raises(ConfigError, match=r"'gone\.json' is no share, and there is no such file"):
        change(paths, tmp_path / "d.tif", accuracy=["0.9", "gone.json"], **WC)
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(ConfigError, match="neither a share nor"):
        change(paths, tmp_path / "d.tif", accuracy=["0.9", str(tmp_path / "odd.json")], **WC)


def test_tiles_are_one_map(write_tif, tmp_path: Path) -> None:
    first, other = patches(COVER, (40, 60), 7), patches(COVER, (40, 60), 8)
    for number, part in enumerate((other[:, :30], other[:, 30:])):
        write_tif(f"tiles/{number}.tif", part, nodata=0, origin=(500_000 + number * 300, 5_000_000))
    found = change([write_tif("a.tif", first, nodata=0), tmp_path / "tiles"], tmp_path / "c.tif", **WC).pairs[0]
    np.testing.assert_array_equal(found.matrix.pixels, brute(first, other, tuple(map(int, COVER))))


def test_forty_four_classes_and_more_codes_than_a_legend_holds(write_tif, tmp_path: Path) -> None:
    corine = np.array(load_legend("corine").codes, np.uint16)
    random = np.random.default_rng(0)
    first, other = (corine[random.integers(0, 44, (60, 60))] for _ in range(2))
    paths = write_tif("a.tif", first), write_tif("b.tif", other)
    found = change(paths, tmp_path / "c.tif", legends=["corine"]).pairs[0]
    np.testing.assert_array_equal(found.matrix.pixels, brute(first, other, tuple(map(int, corine))))
    codes = read(tmp_path / "c.tif")
    _before, after = FromTo(found.legend).decode(codes)
    np.testing.assert_array_equal(corine[after[codes > 0]], other[codes > 0])
    assert legend_of_map(tmp_path / "c.tif") is None
    root = ET.parse(tmp_path / "c.tif.aux.xml").getroot()
    assert len(list(root.iter("Row"))) == len(np.unique(codes)) > 254


def test_refusals(write_tif, tmp_path: Path) -> None:
    a, b = (write_tif(f"{name}.tif", patches(COVER, (20, 20), seed), nodata=0) for seed, name in enumerate("ab"))
    out = tmp_path / "c.tif"
    with pytest.raises(ConfigError, match="two maps or more, 1 is given"):
        change([a], out, **WC)
    with pytest.raises(ConfigError, match=r"a\.tif is given twice"):
        change([f"{a}@2018", f"{a}@2022"], out, **WC)
    with pytest.raises(ConfigError, match=r"a\.tif is of 2022, after .*b\.tif of 2018"):
        change([f"{a}@2022", f"{b}@2018"], out, **WC)
    with pytest.raises(ConfigError, match="are both of 2022"):
        change([f"{a}@2022", f"{b}@2022"], out, **WC)
    with pytest.raises(OutputError, match="is an input"):
        change([a, b], b, overwrite=True, **WC)
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(OutputError, match=r"folder\.tif is a folder, the change between two dates is a map"):
        change([a, b], tmp_path / "folder.tif", overwrite=True, **WC)
    with pytest.raises(OutputError, match=r"does not end in \.tif"):
        change([a, b], tmp_path / "out", **WC)
    far = write_tif("far.tif", patches(COVER, (20, 20), 1), nodata=0, origin=(600_000, 5_000_000))
    with pytest.raises(GridError, match=r"far\.tif .* does not overlap"):
        change([a, far], out, **WC)
    nowhere = write_tif("nowhere.tif", patches(COVER, (20, 20), 1), nodata=0, crs=None)
    with pytest.raises(GridError, match="no CRS"):
        change([a, nowhere], out, **WC)
    picture = write_tif("rgb.tif", np.zeros((3, 20, 20), np.uint8))
    with pytest.raises(DataError, match="3 bands: it is an image") as caught:
        change([a, picture], out, **WC)
    assert "event BEFORE AFTER OUT.tif --kind change" in caught.value.fix
    band = write_tif("band.tif", np.arange(400, dtype=np.uint16).reshape(20, 20))
    with pytest.raises(DataError, match="if it is an image"):
        change([band, picture], out)
    with pytest.raises(LabelError, match="no class 'Tre cover'") as caught:
        change([a, b], out, rules=ChangeRules(goals=("Tre cover",)), **WC)
    assert "Tree cover" in caught.value.fix
    for odd in ({"merge": ("x",)}, {"impossible": ("Tree cover",)}, {"min_area": "7"}, {"connectivity": 5}):
        with pytest.raises(ConfigError):
            change([a, b], out, rules=ChangeRules(**odd), **WC)
    with pytest.raises(CovermapError, match="99999"):
        change([a, b], out, rules=ChangeRules(impossible=("Tree cover>" + "9" * 5000,)), **WC)
    with pytest.raises(ConfigError, match="takes 'Tree cover' twice"):
        change([a, b], out, rules=ChangeRules(merge=("x=10,20", "y=10,30")), **WC)
    half = patches(COVER, (20, 20), 1)
    half[:, :10] = 0
    left, right = write_tif("right.tif", half, nodata=0), write_tif("left.tif", half[:, ::-1], nodata=0)
    with pytest.raises(GridError, match="no place where both hold a class"):
        change([left, right], out, **WC)
    many = [np.arange(start, start + 200, dtype=np.uint16).reshape(10, 20) for start in (1, 150)]
    wide = [write_tif(f"many{n}.tif", values) for n, values in enumerate(many)]
    with pytest.raises(LabelError, match="hold 349 classes together"):
        change(wide, out)
    assert change([a, b], out, **WC).pairs[0].path == out
    with pytest.raises(DataError, match="is a change map already"):
        change([out, b], tmp_path / "d.tif")
    with pytest.raises(LabelError, match="does not say what its codes mean, other maps do"):
        change([_with_legend(write_tif), b], tmp_path / "d.tif")
    assert not list(tmp_path.glob("**/.*"))


def _with_legend(write_tif) -> str:
    path = write_tif("says.tif", patches(COVER, (20, 20), 4), nodata=0)
    with rasterio.open(path, "r+") as file:
        file.update_tags(COVERMAP_LEGEND=json.dumps(load_legend("esa_worldcover").to_dict()))
    return path


def test_by_the_command_line(covermap, two, tmp_path: Path) -> None:
    paths = two[2]
    code, out, _ = covermap("change", "--help")
    assert code == 0
    text = " ".join(out.split())
    assert "land cover change" in text
    assert "cross classification" in text
    options = ("--legend", "esa_worldcover", "--accuracy", "0.9,0.8", "--impossible", "Built-up>*", "--min-area", "9px")
    code, out, _ = covermap("change", *paths, tmp_path / "c.tif", *options, "--to", "Built-up")
    assert code == 0, out
    for words in ("changed:", "asked for and in the map", "patches of change", "false change", "note:", "wrote"):
        assert words in out
    code, out, _ = covermap("change", *paths, tmp_path / "d.tif", "--legend", "esa_worldcover", "--json")
    assert code == 0
    assert json.loads(out)["compared"]["pixels"] == 87 * 66
    code, _, err = covermap("change", paths[0], tmp_path / "e.tif", "--legend", "esa_worldcover")
    assert code == 1
    assert "two maps or more" in err


def test_from_python(two, tmp_path: Path) -> None:
    assert covermap.change is change


def test_the_real_maps_of_corine(shared: Path, tmp_path: Path) -> None:
    """CORINE 2006 and 2012 of Vaud lie on two slightly different grids."""
    paths = [f"{shared}/data/corine_vaud/ls100_{year}.tif@20{year}" for year in ("06", "12")]
    found = change(paths, tmp_path / "change.tif", legends=["corine"]).pairs[0]
    assert 0.02 < found.scores["changed_share"] < 0.15
    assert found.scores["quantity_disagreement"] < 0.01
    assert any("nearest neighbour" in note for note in found.notes)
    # Pixels whose centres lie up to 0.44 px apart make most of it.
    tolerant = change(paths, tmp_path / "t.tif", legends=["corine"], rules=ChangeRules(tolerance=1)).pairs[0]
    assert tolerant.scores["changed_share"] < 0.2 * found.scores["changed_share"]
    coarse = change(paths, tmp_path / "ipcc.tif", legends=["corine"], target="ipcc").pairs[0]
    assert coarse.scores["changed_share"] < found.scores["changed_share"]
    assert cog_validate(tmp_path / "change.tif", quiet=True)[0]


def test_comparing_maps_does_not_wait_for_torch() -> None:
    """It costs seconds and 250 MB, which only images that a model maps need."""
    code = "import sys, covermap.verbs.change; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
