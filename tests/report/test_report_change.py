"""The section on change: what it shows is what `change` and `assess` found, and what is not known is said."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio

from covermap.core.from_to import FromTo
from covermap.core.legend import Legend
from covermap.report import write_report
from covermap.verbs.assess import assess
from covermap.verbs.change import change
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.sample import Plan, sample
from tests.report.test_report import Page, colours_in, pixels, squeezed, svg

UNIT = ChangeRules(min_area="9px")
DATES = ("2018-07-01", "2022-07-01")


@pytest.fixture(scope="module")
def changed(make_run, tmp_path_factory):
    """A run with a second map, of which a field was built on, and a few stray pixels differ; and the built ground."""
    run = make_run(tmp_path_factory.mktemp("change"), size_px=96)
    shutil.copy(run.path("map.tif"), run.path("later.tif"))
    with rasterio.open(run.path("later.tif"), "r+") as dataset:
        codes = dataset.read(1)
        built = np.zeros(codes.shape, bool)
        built[40:60, 20:50] = codes[40:60, 20:50] > 0
        codes[built] = 5
        codes[::13, ::11] = np.where(codes[::13, ::11] > 0, 2, 0)
        dataset.write(codes, 1)
    return run, built


@pytest.fixture
def run(changed, tmp_path):
    """A copy of the run with its change map."""
    run, _ = changed
    for name in ("change.tif", "changed.tif"):
        for path in run.folder.glob(f"{name.removesuffix('.tif')}.*"):
            path.unlink()
    compare(run, "change.tif")
    return run


def compare(run, name, rules=UNIT, **more):
    maps = [f"{run.path(file)}@{date}" for file, date in zip(("map.tif", "later.tif"), DATES, strict=True)]
    return change(maps, run.path(name), rules=rules, overwrite=True, **more).pairs[0]


def page_of(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def assessed(run, built, name, reference):
    """Points of a change map whose references are what was built on."""
    points = run.path(f"{name}.csv")
    sample(run.path(name), points, Plan(num=200, floor=60), overwrite=True)
    table = pd.read_csv(points)
    rows, cols = (5_000_000 - table["y"]) // 10, (table["x"] - 600_000) // 10
    table["reference"] = np.where(built[rows.astype(int), cols.astype(int)], *reference)
    table.to_csv(points, index=False)
    return assess(run.path(name), points)


def test_tables_and_pictures_are_those_of_the_change_map(run, class_colours):
    found = json.loads(run.path("change.json").read_text())
    page = page_of(run)
    assert list(page.sections).index("change") == list(page.sections).index("areas") + 1
    text = squeezed(page.sections["change"])
    assert "2018-07-01 to 2022-07-01: change.tif counts" in text
    (aside,) = found["set_aside"].values()
    assert aside["area_ha"] > 0
    assert "Set aside as unchanged, though the maps differ: patches below 9px," in text
    changes = [row for row in found["transitions"] if row["code"]]
    head, *rows = page.table("Transitions")
    assert head == ["From", "To", "Code", "Hectares", "Of all compared"]
    assert [(row[0], row[1], row[2]) for row in rows] == [(c["from"], c["to"], str(c["code"])) for c in changes]
    head, *rows = page.table("Hectares of each class")
    assert {row[0] for row in rows} == {row["name"] for row in found["classes"]}
    (built,) = (row for row in rows if row[0] == "built-up")
    assert built[5] == f"+{built[3]}"
    assert (built[4], built[6]) == ("0.00", "0.00")
    overlay, heat, flows, bars = (uri for _, uri in page.images["change"])
    legend = Legend.from_dict(run.read_json("model/config.json")["legend"])
    colours = {each.code: each.colour for each in FromTo(legend).transitions()}
    seen = colours_in(pixels(overlay))
    assert {colours[row["code"]] for row in changes} <= seen
    assert not {colour for code, colour in colours.items() if code not in {row["code"] for row in changes}} & seen
    for name, colour in class_colours.items():
        assert name in svg(heat)
        assert (name in svg(flows)) == any(name in (c["from"], c["to"]) for c in changes)
        assert name in svg(bars)
        assert colour in svg(bars)


def test_counted_change_is_doubted_until_a_sample_says(changed, run):
    page = page_of(run)
    assert "Errors of both maps add up, and all look like change" in squeezed(page.sections["doubts"])
    assert f"covermap sample {run.path('change.tif')} points.gpkg" in squeezed(page.sections["change"])
    compare(run, "changed.tif", ChangeRules(min_area="9px", binary=True))
    found = assessed(run, changed[1], "changed.tif", ("changed", "unchanged"))
    page = page_of(run)
    text = squeezed(page.sections["change"])
    assert "change.tif, changed.tif count " in text  # one comparison, told once
    assert "covermap sample" not in text
    assert "Errors of both maps add up" not in page.sections["doubts"]
    head, row = page.table("Change in hectares, by 200 points of changed.tif")
    area = found["areas"][1]
    assert head[1:3] == ["Counted", "By the sample"]
    assert row[0] == "changed"
    assert float(row[1]) == pytest.approx(area["mapped_ha"], rel=0.05)
    assert float(row[2]) == pytest.approx(area["area_ha"], rel=0.05)
    assert "changed.tif" not in page.sections["areas"]
    assert "unchanged" not in page.sections["doubts"]


def test_a_sample_of_the_transitions_says_how_much_changed_in_all(changed, run):
    found = assessed(run, changed[1], "change.tif", ("cropland > built-up", "unchanged"))
    rest = next(row for row in found["areas"] if row["name"] == "unchanged")
    page = page_of(run)
    head, row = page.table("Change in hectares, by 200 points of change.tif")
    assert "User's accuracy" not in head  # of several classes of change there is not one
    assert float(row[2]) == pytest.approx(found["total_ha"] - rest["area_ha"], rel=0.05)


def test_a_change_map_made_anew_has_no_estimate(changed, run):
    assessed(run, changed[1], "change.tif", ("cropland > built-up", "unchanged"))
    compare(run, "change.tif", ChangeRules())
    text = squeezed(page_of(run).sections["change"])
    assert "change.tif changed since a sample assessed it" in text
    assert "By the sample" not in text


def test_a_change_map_of_a_map_that_was_made_anew_is_doubted(run):
    mark = "COVERMAP_CONTENT"
    for content in ("sha256:1", "sha256:2"):
        with rasterio.open(run.path("later.tif"), "r+") as dataset:
            dataset.update_tags(**{mark: content})
        if content.endswith("1"):
            compare(run, "change.tif")
            assert "than there is now" not in page_of(run).sections["change"]
    page = page_of(run)
    told = f"made of another {run.path('later.tif')} than there is now"
    assert told in squeezed(page.sections["change"])
    assert told in squeezed(page.sections["doubts"])


def test_what_is_set_aside_is_told_once(run):
    assert any("set aside as unchanged" in note for note in json.loads(run.path("change.json").read_text())["notes"])
    assert squeezed(page_of(run).sections["change"]).lower().count("set aside as unchanged") == 1


def test_false_change_and_questions_are_told(run):
    compare(run, "change.tif", ChangeRules(goals=("built-up",)), accuracy=(0.9, 0.8))
    page = page_of(run)
    text = squeezed(page.sections["change"])
    assert "could be false" in text
    assert "could be false" in page.sections["doubts"]
    assert "It shows what was asked for; in all" in text
    assert "6 of 42 transitions" in text
    rows = page.table("Transitions")
    assert rows[0][-1] == "In the map"
    assert {row[1]: row[-1] for row in rows[1:]}["built-up"] == "yes"
    assert "no" in {row[-1] for row in rows[1:]}


def test_a_map_without_change_and_a_mask_alone_are_shown(run):
    shutil.copy(run.path("map.tif"), run.path("same.tif"))
    maps = [f"{run.path(file)}@{date}" for file, date in zip(("map.tif", "same.tif"), DATES, strict=True)]
    change(maps, run.path("change.tif"), rules=ChangeRules(binary=True), overwrite=True)
    page = page_of(run)
    text = squeezed(page.sections["change"])
    assert "counts 0.00 ha of change" in text
    assert "change.tif: what changed, over the image in grey." in text
    assert not [caption for caption in page.tables if caption.startswith("Transitions")]


def test_expected_errors_and_what_they_rest_on_are_told(run):
    found = json.loads(run.path("change.json").read_text())
    said = "of the 6.0 ha mapped as change about 2.0 ha are expected to be errors of the maps"
    found |= {"expected_errors": {"in_words": said}, "notes": ["the probabilities are not calibrated"]}
    run.path("change.json").write_text(json.dumps(found))
    text = squeezed(page_of(run).sections["change"])
    assert f"O{said[1:]}." in text
    assert "The probabilities are not calibrated." in text


def test_a_question_has_its_estimate_by_the_names_of_its_answers(changed, run):
    compare(run, "changed.tif", ChangeRules(goals=("built-up",), binary=True))
    found = assessed(run, changed[1], "changed.tif", ("to built-up", "not to built-up"))
    assert [row["name"] for row in found["areas"]] == ["not to built-up", "to built-up"]
    _, row = page_of(run).table("Change in hectares, by 200 points of changed.tif")
    assert float(row[2]) == pytest.approx(found["areas"][1]["area_ha"], rel=0.05)


def test_names_cannot_write_html(run):
    found = json.loads(run.path("change.json").read_text())
    for row in found["transitions"]:
        row["from"] = row["to"] = "<script>x</script>"
    found["notes"] = ["<b>note</b>"]
    run.write_json("change.json", found)
    html = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b>note" not in html
