"""The demo's last step without its training: areas by a sample beside those of the generated truth."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from covermap.cli.demo import _tell_areas
from covermap.data.simulate import LEGEND, SceneRecipe, write_scene
from covermap.geo.products import finish_map
from covermap.verbs.assess import assess
from covermap.verbs.demo import NUM_POINTS, POINTS, assess_by_truth


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder as the demo writes it, its map made of the truth: a third of cropland is called grassland."""
    folder = tmp_path_factory.mktemp("demo")
    paths = write_scene(SceneRecipe(height=512, width=512), folder)
    with rasterio.open(paths["truth"]) as dataset:
        truth, profile = dataset.read(1), dataset.profile
    codes = {name: code for code, name in zip(LEGEND.codes, LEGEND.names, strict=True)}
    wrong = (truth == codes["cropland"]) & (np.random.default_rng(0).random(truth.shape) < 1 / 3)
    mapped = np.where(wrong, codes["grassland"], truth)
    mapped[:100, :100] = 0
    with rasterio.open(folder / "plain.tif", "w", **profile) as dataset:
        dataset.write(mapped.astype("uint8"), 1)
    run = folder / "demo"
    run.mkdir()
    for name in ("config.yaml", "versions.json"):
        (run / name).write_text("{}")
    finish_map(folder / "plain.tif", run / "map.tif", LEGEND)
    assess_by_truth(run / "map.tif", paths["truth"], paths["legend"], run / POINTS, seed=0)
    return folder, truth, mapped


def test_areas_stand_beside_the_true_ones_of_the_same_pixels(demo):
    folder, truth, mapped = demo
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
    with rasterio.open(folder / "truth.tif") as dataset:
        codes = [int(value[0]) for value in dataset.sample(zip(table["x"], table["y"], strict=True))]
    assert table["reference"].tolist() == [LEGEND.names[LEGEND.codes.index(code)] for code in codes]
    # The command that it stands for says the same.
    again = assess(folder / "demo/map.tif", folder / "demo" / found["points"])
    assert [row["area_ha"] for row in again["areas"]] == [row["area_ha"] for row in found["areas"]]


def test_the_table_shows_them_side_by_side(demo, capsys):
    assess_again = json.loads((demo[0] / "demo/assessment.json").read_text())
    row = assess_again["areas"][0] | {"mapped_ha": 1234.5, "area_ha": 1100.0, "ci95_ha": 90.0, "true_ha": 1111.25}
    rows = [row | {"low_ha": 1010.0, "high_ha": 1190.0}, row | {"name": "none", "low_ha": None, "ci95_ha": None}]
    _tell_areas(assess_again | {"areas": rows})
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["class", "mapped", "ha", "area", "ha", "±", "ci95", "true", "ha"]
    assert out.splitlines()[2].split() == [row["name"], "1,234.5", "1,100.0", "90.0", "1,111.2"]
    assert "1 of 2 intervals hold the true area; 1 counted areas lie outside of theirs" in out
