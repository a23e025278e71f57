"""Plans of labels from generated embeddings: files for a GIS, what is expected, labels given back, what is refused."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from covermap.core.errors import ConfigError, CovermapError, DataError, LabelError, OutputError
from covermap.verbs.label_plan import LabelPlanSettings, plan_labels

pyarrow = pytest.importorskip("pyarrow")
NAMES = ("water", "trees", "bare")


def write(path, *, pilot=60, side=20, d=8, kind="label", placed=True, encoder="generated", classes=3, tested=0):
    """Chips on a lattice, of which a pilot has labels; the last rows are of the test part."""
    import pyarrow.parquet
    import shapely

    random = np.random.default_rng(0)
    means = 1.5 * random.standard_normal((3, d))
    labelled = set(random.permutation(side * side)[:pilot].tolist())
    rows = []
    for i in range(side * side):
        row, col = divmod(i, side)
        one = int(random.integers(classes))
        values = means[one] + random.standard_normal(d)
        told = i in labelled
        entry = {
            "unique_id": f"chip_{i}", "embedding": values.astype(np.float32).tolist(), "scene": "scene",
            "part": "test" if row >= side - tested else "train",
            "pixel_bbox": [16 * col, 16 * row, 16 * col + 16, 16 * row + 16],
        }  # fmt: skip
        if placed:
            lon, lat = 10 + 0.001 * col, 50 - 0.001 * row
            shape = shapely.to_wkb(shapely.box(lon, lat - 0.001, lon + 0.001, lat))
            entry |= {"geometry": shape, "centre_lat": lat - 0.0005, "centre_lon": lon + 0.0005}
        if kind == "label":
            entry["label"] = one if told else None
        elif kind == "class_pixels":
            entry["class_pixels"] = [200 * (one == k) + 28 for k in range(3)] if told else [0, 0, 0]
        elif kind == "values":
            entry["values"] = [float(values[0] + values[1]), float(values[2])] if told else [None, None]
        rows.append(entry)
    legend = {"name": "three", "nodata": 0, "classes": [{"code": i, "name": n} for i, n in enumerate(NAMES, 1)]}
    facts = {"encoder": {"backbone": encoder}, "size_px": 16, "names": ["height", "cover"] if kind == "values" else []}
    if kind in ("label", "class_pixels"):
        facts["legend"] = legend
    table = pyarrow.Table.from_pylist(rows)
    if kind == "label" and not pilot:
        table = table.set_column(table.column_names.index("label"), "label", pyarrow.array([None] * len(rows), "int64"))
    pyarrow.parquet.write_table(table.replace_schema_metadata({"covermap": json.dumps(facts)}), path)
    return path


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_polygons_to_label_and_what_to_expect(tmp_path):
    import geopandas as gpd

    path = write(tmp_path / "e.parquet", tested=2)
    found = plan_labels([path], tmp_path / "next.gpkg", LabelPlanSettings(budget=40))
    table = gpd.read_file(tmp_path / "next.gpkg")
    assert table.crs.to_epsg() == 4326
    assert len(table) == table["id"].nunique() == 40
    assert set(table.geometry.geom_type) == {"Polygon"}
    assert table["rank"].tolist() == list(range(1, 41))
    assert set(table["predicted"]) <= set(NAMES)
    assert set(table["why"]) == {"stands for its cluster", "the model is in doubt"}
    assert (table["row"] < 16 * 18).all()  # none of the test part
    first = table.iloc[0]
    assert first.geometry.centroid.x == pytest.approx(first["lon"], abs=1e-6)
    facts = json.loads((tmp_path / "next.plan.json").read_text())
    assert facts["strategy"] == found.strategy == "mixed"
    assert facts["settings"]["budget"] == 40
    assert facts["now"]["score"] <= facts["expected"]["score"] <= facts["limit"]
    assert facts["expected"]["low"] <= facts["expected"]["score"] <= facts["expected"]["high"]
    assert 0.2 <= facts["curve"]["c"] <= 1
    assert facts["score"] == "accuracy"
    assert any("40 chips are of the test part" in note for note in found.notes)


def test_the_same_plan_by_seed_and_another_by_another(tmp_path):
    path = write(tmp_path / "e.parquet")
    plans = [
        plan_labels([path], tmp_path / f"{i}.csv", LabelPlanSettings(20, seed=seed)) for i, seed in enumerate((0, 0, 1))
    ]
    assert plans[0].rows == plans[1].rows
    assert plans[0].expected == plans[1].expected
    assert [row["id"] for row in plans[0].rows] != [row["id"] for row in plans[2].rows]
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()


@pytest.mark.parametrize("kind", ["class_pixels", "values"])
def test_numbers_are_expected_as_r2(tmp_path, kind):
    path = write(tmp_path / "e.parquet", kind=kind)
    found = plan_labels([path], tmp_path / "next.csv", LabelPlanSettings(20))
    assert found.score == "r2"
    assert 0.3 < found.expected.score <= 1
    rows = read(tmp_path / "next.csv")
    assert ("height" if kind == "values" else "water ") in " ".join(row["predicted"] for row in rows)
    assert all(row["doubt"] for row in rows)
    if kind == "class_pixels":
        told = plan_labels([path], tmp_path / "m.csv", LabelPlanSettings(20, target="majority"))
        assert told.score == "accuracy"


def test_labels_are_given_back(tmp_path):
    import geopandas as gpd

    path = write(tmp_path / "e.parquet")
    first = plan_labels([path], tmp_path / "next.gpkg", LabelPlanSettings(20))
    table = gpd.read_file(tmp_path / "next.gpkg")
    table["reference"] = ["water", "2", None, *["bare"] * 17]
    table.to_file(tmp_path / "done.gpkg")
    then = plan_labels([path], tmp_path / "then.csv", LabelPlanSettings(20), labels=[tmp_path / "done.gpkg"])
    assert then.num_pilot == first.num_pilot + 19
    done = {row["id"] for row in first.rows} - {first.rows[2]["id"]}
    assert not done & {row["id"] for row in then.rows}


def test_labels_alone_are_a_pilot(tmp_path):
    path = write(tmp_path / "e.parquet", kind="none", placed=False)
    first = plan_labels([path], tmp_path / "next.csv", LabelPlanSettings(30))
    assert first.strategy == "stratified"
    assert first.expected is None
    assert "no score can be told: 0 chips are labelled" in first.notes[0]
    text = (tmp_path / "next.csv").read_text().splitlines()
    done = [text[0]] + [line + ("wet" if i % 2 else "dry") for i, line in enumerate(text[1:])]
    (tmp_path / "done.csv").write_text("\n".join(done) + "\n")
    then = plan_labels([path], tmp_path / "then.csv", LabelPlanSettings(10), labels=[tmp_path / "done.csv"])
    assert then.num_pilot == 30
    assert then.expected is not None
    assert {row["predicted"] for row in then.rows} <= {"wet", "dry"}


@pytest.mark.parametrize(
    ("told", "settings", "kind", "message"),
    [
        ({}, {"budget": 400}, DataError, "400 chips are to be chosen, 340 are not labelled"),
        ({"pilot": 400}, {}, DataError, "all 400 chips of .* have a target"),
        ({}, {"strategy": "mixt"}, ConfigError, "did you mean 'mixed'"),
        ({"pilot": 9}, {"budget": 20, "strategy": "uncertainty"}, DataError, "9 chips are labelled"),
        ({"classes": 1}, {"budget": 20, "strategy": "mixed"}, DataError, "all 60 labelled chips are of one class"),
        ({}, {"budget": 0}, ConfigError, "count from 1"),
        ({}, {"seed": -1}, ConfigError, "a seed from 0"),
        ({}, {"target": "values"}, ConfigError, "has no values"),
    ],
)
def test_what_cannot_be_planned_is_refused(tmp_path, told, settings, kind, message):
    path = write(tmp_path / "e.parquet", **told)
    with pytest.raises(kind, match=message):
        plan_labels([path], tmp_path / "next.csv", LabelPlanSettings(**settings))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["e.parquet"]


@pytest.mark.parametrize(("told", "need"), [({"pilot": 9}, "label 1 more"), ({"classes": 1}, "differ from them")])
def test_a_pilot_that_tells_nothing_is_said_and_chips_are_chosen_all_the_same(tmp_path, told, need):
    found = plan_labels([write(tmp_path / "e.parquet", **told)], tmp_path / "next.csv", LabelPlanSettings(20))
    assert (found.strategy, found.expected, len(found.rows)) == ("stratified", None, 20)
    assert need in found.notes[0]


def test_files_that_do_not_fit_are_refused(tmp_path):
    path = write(tmp_path / "e.parquet")
    with pytest.raises(OutputError, match="does not end in"):
        plan_labels([path], tmp_path / "next.shp")
    other = write(tmp_path / "o.parquet", encoder="another")
    with pytest.raises(DataError, match="different encoders"):
        plan_labels([path, other], tmp_path / "next.csv", LabelPlanSettings(20))
    nowhere = write(tmp_path / "n.parquet", placed=False)
    with pytest.raises(DataError, match=r"name OUT\.csv"):
        plan_labels([nowhere], tmp_path / "next.gpkg", LabelPlanSettings(20))
    assert plan_labels([nowhere], tmp_path / "next.csv", LabelPlanSettings(20)).rows[0]["lon"] is None
    for text, kind, message in (
        ("id,reference\nchip_1,lava\n", LabelError, "'lava', which is no class"),
        ("id,reference\nchop,water\n", DataError, "chop, which is no chip"),
        ("name,class\na,b\n", DataError, "not id and reference"),
        ("id,reference\nchip_1,\n", LabelError, "no reference in any row"),
        ("id,reference\nchip_1,water\nchip_1,WATER\nchip_1,trees\n", LabelError, "'trees', and before 'water'"),
    ):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(kind, match=message):
            plan_labels([path], tmp_path / "x.csv", LabelPlanSettings(20), labels=[tmp_path / "l.csv"])
    with pytest.raises(CovermapError, match="exists already"):
        plan_labels([path], tmp_path / "next.csv", LabelPlanSettings(20))


def test_the_command_says_what_to_expect(tmp_path):
    from covermap.cli.study import app

    path = write(tmp_path / "e.parquet")
    asked = ["plan", str(path), str(tmp_path / "next.csv"), "--budget", "60"]
    told = CliRunner().invoke(app, asked, catch_exceptions=False).output
    assert "with 60 more labels (120 in all) expect accuracy 0." in told
    assert "labels without end promise accuracy 0." in told
    again = CliRunner().invoke(app, [*asked, "--overwrite", "--json"], catch_exceptions=False).output
    assert json.loads(again)["num_pilot"] == 60
