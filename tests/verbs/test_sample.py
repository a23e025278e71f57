"""`sample` and `assess`: from a map to areas with intervals, by every design, and what makes a sample worthless."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely

from covermap.core.design import Design, design_beside
from covermap.core.errors import ConfigError, DataError, GridError, LabelError, OutputError
from covermap.core.run import checksum
from covermap.verbs.assess import assess
from covermap.verbs.sample import Plan, sample

METHODS = ("stratified", "random", "systematic", "cluster")
NAMES = ["water", "forest", "crop"]


def truth_and_map(seed=0, height=600, width=700):
    """Codes 1 to 3 in patches, and a map that calls a fifth of 3 forest: its pixels overstate forest. 0: nodata."""
    random = np.random.default_rng(seed)
    patches = np.kron(random.choice([1, 2, 3], (height // 20, width // 20), p=[0.1, 0.3, 0.6]), np.ones((20, 20)))
    truth = patches.astype("uint8")
    mapped = np.where((truth == 3) & (random.random(truth.shape) < 0.2), 2, truth).astype("uint8")
    mapped[:50, :50] = 0
    return truth, mapped


@pytest.fixture
def scene(write_tif):
    truth, mapped = truth_and_map()
    path = write_tif("map.tif", mapped, nodata=0)
    legend = {"name": "three", "classes": [{"code": i + 1, "name": n, "colour": "#00000" + str(i)} for i, n in enumerate(NAMES)],
              "nodata": 0}  # fmt: skip
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(COVERMAP_LEGEND=json.dumps(legend))
    return path, truth, mapped


def interpret(points, path, truth, *, by_name=False):
    """Fill `reference` with the truth, as a person would."""
    with rasterio.open(path) as dataset:
        transform = dataset.transform
    plain = points.suffix == ".csv"
    table = pd.read_csv(points, dtype={"reference": str}) if plain else gpd.read_file(points)
    cols, rows = ~transform * (table["x"].to_numpy(), table["y"].to_numpy())
    codes = truth[rows.astype(int), cols.astype(int)]
    table["reference"] = [NAMES[code - 1].upper() if by_name else str(code) for code in codes]
    table.to_csv(points, index=False) if plain else table.to_file(points, driver="GPKG")
    return table


@pytest.mark.parametrize("ending", [".csv", ".gpkg"])
@pytest.mark.parametrize("method", METHODS)
def test_areas_of_every_design(scene, tmp_path, method, ending):
    path, truth, mapped = scene
    points = tmp_path / f"s{ending}"
    done = sample(path, points, Plan(method=method, num=900, cluster_px=20, per_cluster=5))
    assert done.files == (points, tmp_path / "s.design.json")
    table = interpret(points, path, truth, by_name=ending == ".gpkg")
    assert abs(len(table) - 900) < (40 if method == "systematic" else 10)
    assert table["id"].is_unique
    assert not table[["x", "y"]].duplicated().any()
    found = assess(path, points)
    assert found["num_points"] == len(table)
    true_ha = [((truth == k) & (mapped > 0)).sum() * 0.01 for k in (1, 2, 3)]
    for row, want in zip(found["areas"], true_ha, strict=True):
        assert abs(row["area_ha"] - want) < 1.7 * row["ci95_ha"], row  # 3.3 standard errors
        assert row["low_ha"] <= row["area_ha"] <= row["high_ha"]
    assert sum(row["area_ha"] for row in found["areas"]) == pytest.approx((mapped > 0).sum() * 0.01)
    assert [row["mapped_ha"] for row in found["areas"]] == [
        pytest.approx((mapped == k).sum() * 0.01) for k in (1, 2, 3)
    ]
    # Counting pixels is wrong by more than the interval; that of squares is wide, for their pixels are alike.
    wrong, half = abs(found["areas"][1]["mapped_ha"] - true_ha[1]), found["areas"][1]["ci95_ha"]
    assert wrong > (1.5 if method == "cluster" else 4) * half
    assert found["users"][1]["value"] == pytest.approx(
        ((mapped == 2) & (truth == 2)).sum() / (mapped == 2).sum(), abs=0.08
    )


def test_what_is_drawn_depends_on_map_and_seed_alone(scene, tmp_path):
    path, _, mapped = scene
    tables = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        sample(path, tmp_path / f"{name}.csv", Plan(num=200, seed=seed))
        tables.append((tmp_path / f"{name}.csv").read_text())
    assert tables[0] == tables[1] != tables[2]
    table = pd.read_csv(tmp_path / "a.csv")
    rows, cols = (5e6 - table["y"]) / 10 - 0.5, (table["x"] - 5e5) / 10 - 0.5
    assert np.array_equal(mapped[rows.astype(int), cols.astype(int)], table["stratum"])
    assert (rows == rows.round()).all()
    design = Design.load(tmp_path / "a.design.json")
    assert [part.num_pixels for part in design.strata] == [(mapped == k).sum() for k in (1, 2, 3)]
    assert table["stratum"].value_counts().sort_index().tolist() == [part.num_samples for part in design.strata]
    # Ids in an order that does not give the strata away.
    assert table["stratum"].diff().abs().gt(0).sum() > 50


@pytest.mark.parametrize("method", ["stratified", "random", "cluster"])
def test_every_pixel_has_its_chance(write_tif, tmp_path, method):
    """A map of 40 pixels, drawn 400 times: no pixel is drawn too often or too rarely (five standard deviations)."""
    mapped = np.array([1] * 25 + [2] * 12 + [0] * 3, "uint8").reshape(5, 8)
    path, times = write_tif("m.tif", mapped, nodata=0), np.zeros(mapped.shape)
    expected = {"stratified": np.choose(mapped, [0, 5 / 25, 3 / 12]), "random": (mapped > 0) * 8 / 37}
    plan = {"num": 8, "floor": 2, "allocation": "proportional", "cluster_px": 2, "per_cluster": 1}
    for seed in range(400):
        sample(path, tmp_path / "s.csv", Plan(method=method, seed=seed, **plan), overwrite=True)
        table = pd.read_csv(tmp_path / "s.csv")
        times[((5e6 - table["y"]) // 10).astype(int), ((table["x"] - 5e5) // 10).astype(int)] += 1
    if method == "cluster":  # 12 squares, 8 drawn, one pixel of each
        size = np.kron(
            np.add.reduceat(np.add.reduceat(mapped > 0, [0, 2, 4], 0, int), [0, 2, 4, 6], 1), np.ones((2, 2))
        )
        expected["cluster"] = (mapped > 0) * 8 / 12 / np.maximum(size[:5, :8], 1)
    p = expected[method]
    assert (times[mapped == 0] == 0).all()
    assert (np.abs(times - 400 * p) <= 5 * np.sqrt(400 * p * (1 - p)) + 1e-9).all()


def test_a_map_in_degrees_counts_hectares_of_its_rows(write_tif, tmp_path):
    """Class 1 in the north, where pixels are half as large; the sample knows it without a wrong pixel."""
    mapped = np.repeat(np.array([1, 2], "uint8"), [100, 100])[:, None] * np.ones((1, 150), "uint8")
    path = write_tif("m.tif", mapped.astype("uint8"), nodata=0, crs="EPSG:4326", origin=(10, 70), gsd=0.3)
    sample(path, tmp_path / "s.gpkg", Plan(num=200))
    table = gpd.read_file(tmp_path / "s.gpkg")
    table["reference"] = table["stratum"].astype(str)
    table.to_file(tmp_path / "s.gpkg", driver="GPKG")
    found = assess(path, tmp_path / "s.gpkg")
    for row in found["areas"]:
        assert row["area_ha"] == pytest.approx(row["mapped_ha"])
        assert row["ci95_ha"] > 0
    assert found["areas"][1]["mapped_ha"] > 1.3 * found["areas"][0]["mapped_ha"]


def test_another_map_by_the_same_points(scene, write_tif, tmp_path):
    """Strata of the first map, classes of the second: Stehman; areas agree, the accuracy is the second map's."""
    path, truth, mapped = scene
    sample(path, tmp_path / "s.csv", Plan(num=900))
    interpret(tmp_path / "s.csv", path, truth)
    better = write_tif("better.tif", np.where(mapped > 0, truth, 0).astype("uint8"), nodata=0)
    first, second = assess(path, tmp_path / "s.csv"), assess(better, tmp_path / "s.csv")
    assert "Olofsson" in first["estimator"]
    assert "Stehman" in second["estimator"]
    assert second["overall"]["value"] == 1
    assert [a["area_ha"] for a in first["areas"]] == pytest.approx([a["area_ha"] for a in second["areas"]])
    part = write_tif("part.tif", mapped[:500], nodata=0)
    with pytest.raises((DataError, GridError)):
        assess(part, tmp_path / "s.csv")
    wider = write_tif("wider.tif", np.pad(mapped, ((0, 100), (0, 0)), constant_values=1), nodata=0)
    with pytest.raises(DataError, match="says nothing about other ground"):
        assess(wider, tmp_path / "s.csv")


def test_strata_of_another_raster(scene, write_tif, tmp_path):
    path, truth, mapped = scene
    halves = np.where(np.arange(700) < 350, 7, 9)[None] * np.ones((600, 1))
    strata = write_tif("halves.tif", halves.astype("uint8"))
    done = sample(path, tmp_path / "s.csv", Plan(num=600, allocation="equal"), strata=strata)
    assert [(part.code, part.num_samples) for part in done.design.strata] == [(7, 300), (9, 300)]
    assert sum(part.num_pixels for part in done.design.strata) == (mapped > 0).sum()
    interpret(tmp_path / "s.csv", path, truth)
    found = assess(path, tmp_path / "s.csv")
    assert "Stehman" in found["estimator"]
    assert (
        abs(found["areas"][2]["area_ha"] - ((truth == 3) & (mapped > 0)).sum() * 0.01)
        < 2 * found["areas"][2]["ci95_ha"]
    )
    with pytest.raises(ConfigError, match="no strata"):
        sample(path, tmp_path / "r.csv", Plan(method="random"), strata=strata)
    coarse = write_tif("coarse.tif", halves[::2, ::2].astype("uint8"), gsd=20.0)
    with pytest.raises(GridError, match="not on the grid"):
        sample(path, tmp_path / "r.csv", Plan(), strata=coarse)


def test_what_is_known_of_a_map_of_a_run_is_kept_for_its_report(scene, tmp_path, monkeypatch):
    path, truth, _ = scene
    points = tmp_path / "s.csv"
    sample(path, points, Plan(num=300))
    interpret(points, path, truth)
    assert "files" not in assess(path, points)
    assert not (tmp_path / "assessment.json").exists()
    for name in ("config.yaml", "versions.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "east.tif").write_bytes((tmp_path / "map.tif").read_bytes())
    for source, kept in (("map.tif", "assessment.json"), ("maps/east.tif", "maps/east.assessment.json")):
        found = assess(tmp_path / source, points)
        assert found.pop("files") == [tmp_path / kept]
        read = json.loads((tmp_path / kept).read_text())
        assert read.pop("map_checksum") == checksum(path)
        assert read == found
    assert found["strata"][0] == {"code": 1, "name": "water", "num_samples": 50}
    # The newest counts; a run that nobody may write to is assessed all the same.
    assert assess(path, points, out=tmp_path / "tables")["files"][-1] == tmp_path / "assessment.json"

    def refuse(*_):
        raise OutputError("the folder is read-only", fix="none")

    monkeypatch.setattr("covermap.verbs.assess.keep", refuse)
    found = assess(path, points)
    assert found["notes"] == ["not kept for the run's report: the folder is read-only"]
    assert "files" not in found


def test_tables_never_take_the_place_of_the_map_s_own(scene, tmp_path):
    path, truth, _ = scene
    sample(path, tmp_path / "s.csv", Plan(num=300))
    interpret(tmp_path / "s.csv", path, truth)
    (tmp_path / "areas.csv").write_text("of the map")
    with pytest.raises(OutputError, match="of the map itself"):
        assess(path, tmp_path / "s.csv", out=tmp_path, overwrite=True)
    assert (tmp_path / "areas.csv").read_text() == "of the map"


def test_a_sample_that_was_changed_is_none(scene, tmp_path):
    path, truth, _ = scene
    points = tmp_path / "s.csv"
    sample(path, points, Plan(num=300))
    empty = pd.read_csv(points)
    with pytest.raises(DataError, match="300 of 300 points"):
        assess(path, points)
    with pytest.raises(DataError, match="300 of 300 points"):
        assess(path, points, skip_empty=True)
    table = interpret(points, path, truth)

    def refused(changed, error, match, **more):
        changed.to_csv(points, index=False)
        with pytest.raises(error, match=match):
            assess(path, points, **more)

    some = table.copy()
    some.loc[:9, "reference"] = None
    refused(some, DataError, "10 of 300 points")
    some.to_csv(points, index=False)
    assert assess(path, points, skip_empty=True)["num_points"] == 290
    refused(table[5:], DataError, "were drawn")
    refused(pd.concat([table, table[:1]]), DataError, "were drawn")
    refused(table.assign(id=table["id"].where(table["id"] != 8, 7)), DataError, r"1 points \(7\) .* have the id")
    refused(table.assign(stratum=9), DataError, "does not know")
    refused(table.assign(stratum="x"), DataError, "no codes")
    refused(table.assign(reference="4"), LabelError, "no class of the map: 4")
    refused(table.assign(x=table["x"] + 1e6), GridError, "outside")
    refused(table.drop(columns="stratum"), DataError, "no column stratum")
    nodata = table.copy()
    nodata.loc[0, ["x", "y"]] = [500_005, 4_999_995]
    refused(nodata, DataError, r"1 points \(1\) .* holds no class")
    table.to_csv(points, index=False)
    assert empty["id"].tolist() == table["id"].tolist()
    assert assess(path, points)["num_points"] == 300
    assert assess(path, points)["overall"]["value"] > 0.7


def test_without_a_probability_design_there_is_no_interval(scene, tmp_path):
    path, truth, _ = scene
    points = tmp_path / "s.csv"
    sample(path, points, Plan(num=300))
    interpret(points, path, truth)
    beside = design_beside(points)
    raw = json.loads(beside.read_text())

    def refused(text, match):
        beside.write_text(text)
        with pytest.raises(DataError, match=match):
            assess(path, points)

    refused("{", "no design")
    refused("[]", "no design")
    refused(json.dumps(raw | {"method": "by eye"}), "method")
    refused(json.dumps(raw | {"strata": []}), "strata")
    refused(json.dumps(raw | {"strata": raw["strata"] * 2}), "twice")
    refused(json.dumps(raw | {"method": "random"}), "one stratum")
    refused(json.dumps(raw | {"strata": [raw["strata"][0] | {"num_pixels": 1}, *raw["strata"][1:]]}), "more samples")
    refused(json.dumps(raw | {"crs": "EPSG:0"}), "is not known")
    beside.write_text(json.dumps(raw | {"crs": "EPSG:32632"}))
    with pytest.raises(GridError, match="outside"):
        assess(path, points)
    beside.unlink()
    with pytest.raises(DataError, match="no design"):
        assess(path, points)


def test_plans_that_make_no_sense(scene, tmp_path, write_tif):
    path, _, _ = scene
    for more, match in (
        ({"num": 1}, "sample of 1"), ({"target_se": 0}, "target_se"), ({"allocation": "best"}, "allocation"),
        ({"method": "purposive"}, "method"), ({"floor": 0}, "count from 1"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            Plan(**more)
    with pytest.raises(ConfigError, match="'meadow'"):
        sample(path, tmp_path / "s.csv", Plan(expected={"meadow": 0.9}))
    with pytest.raises(ConfigError, match="accuracy of water"):
        sample(path, tmp_path / "s.csv", Plan(expected={"water": 1}))
    with pytest.raises(DataError, match="are wanted"):
        sample(path, tmp_path / "s.csv", Plan(num=10**7))
    with pytest.raises(DataError, match="squares"):
        sample(path, tmp_path / "s.csv", Plan(method="cluster", num=900, cluster_px=300, per_cluster=1))
    with pytest.raises(ConfigError, match="neither"):
        sample(path, tmp_path / "s.txt", Plan())
    empty = write_tif("e.tif", np.zeros((9, 9), "uint8"), nodata=0)
    with pytest.raises(LabelError):
        sample(empty, tmp_path / "s.csv", Plan())


def test_by_the_command_line(scene, tmp_path, covermap):
    path, truth, _ = scene
    points = tmp_path / "s.gpkg"
    code, out, err = covermap("sample", path, points, "--target-se", "0.02", "--expected", "forest=0.7,water=0.9")
    assert code == 0, err
    assert "expected_ci95" in out
    assert "s.design.json" in out
    code, _, err = covermap("sample", path, points)
    assert code == 1
    assert "overwrite" in err
    code, _, err = covermap("assess", path, points)
    assert code == 1
    assert "interpret them" in err
    interpret(points, path, truth)
    code, out, err = covermap("assess", path, points, "--kappa")
    assert code == 0, err
    assert "overall accuracy 0." in out
    assert "kappa" in out
    code, out, _ = covermap("assess", path, points, "--json")
    found = json.loads(out)
    assert set(found["areas"][0]) >= {"code", "name", "mapped_ha", "area_ha", "ci95_ha"}
    assert {"overall", "users", "producers", "matrix", "notes"} <= set(found)
    assert "kappa" not in found
    assert covermap("sample", path, points, "--expected", "forest", "--overwrite")[0] == 1


def test_points_that_were_moved_are_refused(scene, write_tif, tmp_path):
    """Of a perfect map, so that what is wrong is the move alone."""
    _, truth, _ = scene
    path, points = write_tif("true.tif", truth, nodata=0), tmp_path / "s.csv"
    sample(path, points, Plan(num=300))
    table = interpret(points, path, truth)
    assert assess(path, points)["overall"]["value"] == 1
    assert Design.load(design_beside(points)).strata_of == "map"
    east = table["x"] < 506_900
    moved = table.assign(x=table["x"] + np.where(east, 30, -30))
    moved.to_csv(points, index=False)
    with pytest.raises(DataError, match=r"points \(.*they were moved"):
        assess(path, points)
    # The same pixels in another file may be another map: its points are told by its strata.
    other = write_tif("flipped.tif", np.ascontiguousarray(truth[::-1]), nodata=0)
    found = assess(other, points)
    assert "Stehman" in found["estimator"]
    assert "they were moved" in found["notes"][0]


def test_a_geometry_that_is_not_at_its_x_and_y_is_refused(scene, tmp_path):
    path, truth, _ = scene
    points = tmp_path / "s.gpkg"
    sample(path, points, Plan(method="random", num=200))
    table = interpret(points, path, truth)
    found = assess(path, points)["areas"]
    for same in (table.to_crs(4326), table.set_geometry(table.geometry.translate(0.5, -0.5))):
        same.to_file(points, driver="GPKG")
        assert assess(path, points)["areas"] == found
    moved = table.copy()
    moved.loc[table["id"] == 7, "geometry"] = table.geometry.translate(2, 0)
    moved.to_file(points, driver="GPKG")
    with pytest.raises(DataError, match=r"1 points \(7\) .* are not where"):
        assess(path, points)
    table.drop(columns=["x", "y"]).to_file(points, driver="GPKG")
    assert assess(path, points)["areas"] == found


def test_strata_of_a_raster_with_the_map_s_counts_are_no_classes(write_tif, tmp_path):
    mapped = np.repeat(np.array([1, 2], "uint8"), 50)[:, None] * np.ones((1, 100), "uint8")
    path, strata = write_tif("m.tif", mapped), write_tif("st.tif", np.ascontiguousarray(mapped.T))
    sample(path, tmp_path / "s.csv", Plan(num=100), strata=strata)
    interpret(tmp_path / "s.csv", path, mapped)
    assert "Stehman" in assess(path, tmp_path / "s.csv")["estimator"]


def test_points_left_of_a_cluster_stand_for_the_others_in_it(write_tif, tmp_path):
    """West 1, east 2; in the east most points cannot be seen, and of one square none."""
    mapped = np.repeat(np.array([1, 2], "uint8"), 100)[None] * np.ones((200, 1), "uint8")
    path, points = write_tif("m.tif", mapped), tmp_path / "s.csv"
    sample(path, points, Plan(method="cluster", num=1000, cluster_px=20, per_cluster=10))
    table = interpret(points, path, mapped)
    squares = table.groupby("cluster").cumcount()
    lost = table["stratum"].eq(0) & (table["reference"] == "2") & (squares > 1)
    table.loc[lost, "reference"] = None
    table.to_csv(points, index=False)
    found = assess(path, points, skip_empty=True)
    assert [row["area_ha"] for row in found["areas"]] == pytest.approx([200, 200])
    table.loc[table["cluster"] == 3, "reference"] = None
    table.to_csv(points, index=False)
    assert any("1 of 100 clusters" in note for note in assess(path, points, skip_empty=True)["notes"])


@pytest.mark.filterwarnings("ignore:'crs' was not provided")  # of geopandas in the test itself
@pytest.mark.parametrize("ending", [".csv", ".gpkg"])
def test_a_map_without_a_crs(write_tif, tmp_path, ending):
    _, mapped = truth_and_map()
    path, points = write_tif("m.tif", mapped, nodata=0, crs=None), tmp_path / f"s{ending}"
    sample(path, points, Plan(num=200))
    interpret(points, path, mapped)
    assert assess(path, points)["overall"]["value"] == 1
    placed = write_tif("placed.tif", mapped, nodata=0)
    with pytest.raises(GridError, match="no CRS") as refused:
        assess(placed, points)
    assert "--epsg" not in refused.value.fix
    assert ("ogr2ogr" if ending == ".gpkg" else '"crs": "EPSG:32631"') in refused.value.fix


def test_strata_of_a_part_of_the_map_are_refused(scene, write_tif, tmp_path):
    path, _, mapped = scene
    half = np.zeros(mapped.shape, "uint8")
    half[:300] = 1
    strata = write_tif("half.tif", half, nodata=0)
    outside = (mapped[300:] > 0).sum() * 0.01
    with pytest.raises(DataError, match=f"{outside:,.1f} ha lie outside"):
        sample(path, tmp_path / "s.csv", Plan(num=200), strata=strata)
    assert not (tmp_path / "s.csv").exists()


def test_a_disk_that_is_full_is_said(scene, tmp_path, monkeypatch):
    path, _, _ = scene

    def fail(_table, partial, **_):
        partial.write_bytes(b"half")
        raise pyogrio.errors.FeatureError("Could not add feature to layer: database or disk is full")

    monkeypatch.setattr("pyogrio.write_dataframe", fail)
    with pytest.raises(OutputError, match=r"s.gpkg .*disk is full"):
        sample(path, tmp_path / "s.gpkg", Plan(num=100))
    assert not list(tmp_path.glob("*s.*"))


def test_a_seed_below_zero_is_refused():
    with pytest.raises(ConfigError, match="seed is -1"):
        Plan(seed=-1)


def test_geometry_of_other_kinds(scene, tmp_path):
    path, truth, _ = scene
    points = tmp_path / "s.gpkg"
    sample(path, points, Plan(num=200))
    table = interpret(points, path, truth)
    want = assess(path, points)["areas"]
    changed = table.set_geometry([shapely.MultiPoint([point]) for point in table.geometry], crs=table.crs)
    changed.to_file(points, driver="GPKG")
    assert assess(path, points)["areas"] == want
    pairs = table.set_geometry(
        [shapely.MultiPoint([(p.x, p.y), (p.x + 1, p.y)]) for p in table.geometry], crs=table.crs
    )
    for other, kind in ((pairs, "MultiPoint"), (table.set_geometry(table.buffer(3)), "Polygon")):
        other.to_file(points, driver="GPKG")
        with pytest.raises(DataError, match=f"are no points but {kind}"):
            assess(path, points)


def test_two_clusters_are_drawn_at_least(scene, tmp_path):
    path, truth, _ = scene
    done = sample(path, tmp_path / "s.csv", Plan(method="cluster", num=10))
    assert len(done.design.clusters) == 2
    interpret(tmp_path / "s.csv", path, truth)
    assert assess(path, tmp_path / "s.csv")["overall"]["ci95"] is not None
