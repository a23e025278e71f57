"""The demo without its training: areas and change by samples beside those of the generated truth."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from covermap.cli.demo import _tell_areas
from covermap.core.run import Run
from covermap.data.simulate import LEGEND, SceneRecipe, write_scene
from covermap.geo.products import finish_map
from covermap.verbs.assess import assess
from covermap.verbs.demo import (
    CHANGE_POINTS,
    DATES,
    LEAST_CHANGE,
    NUM_CHANGED,
    NUM_POINTS,
    POINTS,
    assess_by_truth,
    find_change,
)
from covermap.verbs.sample import Plan


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder as the demo writes it, its map made of the truth: a third of cropland is called grassland."""
    folder = tmp_path_factory.mktemp("demo")
    paths = write_scene(SceneRecipe(height=512, width=512, num_dates=2, change_share=0.05), folder)
    run = folder / "demo"
    run.mkdir()
    for name in ("config.yaml", "versions.json"):
        (run / name).write_text("{}")
    codes = {name: code for code, name in zip(LEGEND.codes, LEGEND.names, strict=True)}
    known = {}
    for date, name in enumerate(("map", "map_date2"), 1):
        with rasterio.open(paths[f"truth_date{date}"]) as dataset:
            truth, profile = dataset.read(1), dataset.profile
        side = 512 // (4 * date)  # errors of the earlier map are small patches
        chance = np.kron(np.random.default_rng(date).random((side, side)), np.ones((4 * date, 4 * date)))
        wrong = (truth == codes["cropland"]) & (chance < (1 / 3, 0.02)[date - 1])
        mapped = np.where(wrong, codes["grassland"], truth)
        mapped[:100, :100] = 0
        with rasterio.open(folder / "plain.tif", "w", **profile) as dataset:
            dataset.write(mapped.astype("uint8"), 1)
        finish_map(folder / "plain.tif", run / f"{name}.tif", LEGEND, date=DATES[date - 1])
        known[name] = truth, mapped
    truth = paths["truth_date1"]
    assess_by_truth(run / "map.tif", truth, run / POINTS, Plan(num=NUM_POINTS), legend=paths["legend"])
    find_change(Run(run, None), folder, seed=0)
    return folder, known


def test_areas_stand_beside_the_true_ones_of_the_same_pixels(demo):
    folder, known = demo
    truth, mapped = known["map"]
    found = json.loads((folder / "demo/assessment.json").read_text())
    rows = {row["name"]: row for row in found["areas"]}
    for code, name in zip(LEGEND.codes, LEGEND.names, strict=True):
        assert rows[name]["true_ha"] == pytest.approx(((truth == code) & (mapped > 0)).sum() / 100)
        assert rows[name]["mapped_ha"] == pytest.approx((mapped == code).sum() / 100)
    hold = [row["low_ha"] <= row["true_ha"] <= row["high_ha"] for row in rows.values()]
    assert sum(hold) >= 0.6 * len(hold)
    for name in ("cropland", "grassland"):  # what the map is wrong about
        row = rows[name]
        assert not row["low_ha"] <= row["mapped_ha"] <= row["high_ha"]
        assert abs(row["area_ha"] - row["true_ha"]) < 0.5 * abs(row["mapped_ha"] - row["true_ha"])


def test_the_points_say_where_their_reference_is_from(demo):
    folder = demo[0]
    found = json.loads((folder / "demo/assessment.json").read_text())
    assert "truth" in found["points"]
    assert any("no person has interpreted them" in note for note in found["notes"])
    table = gpd.read_file(folder / "demo" / found["points"])
    assert len(table) == NUM_POINTS == found["num_points"]
    with rasterio.open(folder / "truth_date1.tif") as dataset:
        codes = [int(value[0]) for value in dataset.sample(zip(table["x"], table["y"], strict=True))]
    assert table["reference"].tolist() == [LEGEND.names[LEGEND.codes.index(code)] for code in codes]
    # The command that it stands for says the same.
    again = assess(folder / "demo/map.tif", folder / "demo" / found["points"])
    assert [row["area_ha"] for row in again["areas"]] == [row["area_ha"] for row in found["areas"]]


def test_the_table_shows_them_side_by_side(demo, capsys):
    assess_again = json.loads((demo[0] / "demo/assessment.json").read_text())
    row = assess_again["areas"][0] | {"mapped_ha": 1234.5, "area_ha": 1100.0, "ci95_ha": 90.0, "true_ha": 1111.25}
    rows = [row | {"low_ha": 1010.0, "high_ha": 1190.0}, row | {"name": "none", "low_ha": None, "ci95_ha": None}]
    _tell_areas(assess_again | {"areas": rows}, "areas")
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["class", "mapped", "ha", "area", "ha", "±", "ci95", "true", "ha"]
    assert out.splitlines()[2].split() == [row["name"], "1,234.5", "1,100.0", "90.0", "1,111.2"]
    assert "1 of 2 intervals hold the true area; 1 counted areas lie outside of theirs" in out


def test_change_stands_beside_the_true_change(demo):
    folder, known = demo
    (first, before), (other, after) = known.values()
    held = before > 0
    with rasterio.open(folder / "demo/change.tif") as dataset, rasterio.open(folder / "demo/changed.tif") as binary:
        codes, changed = dataset.read(1), binary.read(1)
        assert dataset.tags()["COVERMAP_DATE"] == "/".join(DATES)
    np.testing.assert_array_equal(codes == 65535, ~held)
    np.testing.assert_array_equal(changed == 2, (codes > 0) & held)
    assert ((codes > 0) & held).sum() < ((before != after) & held).sum()  # small patches are set aside
    found = json.loads((folder / "demo/changed.assessment.json").read_text())
    rows = {row["name"]: row for row in found["areas"]}
    assert rows["changed"]["true_ha"] == pytest.approx(((first != other) & held).sum() / 100)
    assert rows["changed"]["mapped_ha"] == pytest.approx((changed == 2).sum() / 100)
    assert rows["changed"]["mapped_ha"] > 1.2 * rows["changed"]["true_ha"]
    apart = abs(rows["changed"]["area_ha"] - rows["changed"]["true_ha"])
    assert apart < 0.5 * (rows["changed"]["mapped_ha"] - rows["changed"]["true_ha"])
    assert {row["name"]: row["num_samples"] for row in found["strata"]}["changed"] >= NUM_CHANGED
    assert found["points"] == CHANGE_POINTS
    assert any("truth_change.tif, no person" in note for note in found["notes"])
    told = json.loads((folder / "demo/change.json").read_text())
    assert told["rules"] == {"min_area": LEAST_CHANGE}
    assert all(area >= 0 for row in told["matrix_ha"] for area in row)
    assert all(area == 0 or area > 0.005 for row in told["matrix_ha"] for area in row)


def test_a_layout_s_miniature_is_written_and_no_data_set_is_ever_overwritten(covermap, tmp_path):
    root = tmp_path / "mini" / "wusu"
    code, out, err = covermap("demo", root, "--layout", "wusu", "--json")
    assert (code, json.loads(out)) == (0, {"root": str(root)}), err
    assert (root / "train/HS/imgs/HS15_2.tif").is_file()
    for more in ([], ["--overwrite"]):
        code, _, err = covermap("demo", root, "--layout", "wusu", *more)
        assert code == 1
        assert "choose another folder" in err
    code, _, err = covermap("demo", tmp_path / "other", "--layout", "wuzu")
    assert code == 1
    assert "wusu" in err
    assert not (tmp_path / "other").exists()
