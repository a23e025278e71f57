"""What paths hold, and in which order it is shown; what cannot be shown is named with its reason."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import rasterio

from covermap.core.errors import DataError
from covermap.core.legend import LandClass, Legend
from covermap.geo.products import finish_cog, finish_map
from covermap.verbs.change import change
from covermap.verbs.change_rules import ChangeRules
from covermap.view.layers import MOST_LAYERS, open_view
from tests.view.view_data import LEGEND, codes, grey


def told(*paths):
    view = open_view([str(path) for path in paths])
    return view.to_dict()


def by_id(view):
    return {one["id"]: one for one in view["layers"]}


@pytest.fixture
def changed(folder, write_tif):
    """The folder with a second map, both kinds of change maps, confidence and probabilities."""
    later = codes()
    later[:50, :100][later[:50, :100] == 10] = 20
    finish_map(write_tif("plain/later.tif", later, nodata=0), folder / "map_2024.tif", LEGEND, date="2024-07-14")
    change([str(folder / "map.tif"), str(folder / "map_2024.tif")], str(folder / "change.tif"))
    change(
        [str(folder / "map.tif"), str(folder / "map_2024.tif")],
        str(folder / "changed.tif"),
        rules=ChangeRules(binary=True),
    )
    percent = np.full((600, 700), 80, np.uint8)
    finish_cog(
        write_tif("plain/confidence.tif", percent), folder / "confidence.tif", nodata=255, description="confidence"
    )
    shares = np.stack([np.full((600, 700), share, np.float32) for share in (0.7, 0.1, 0.2)])
    finish_cog(write_tif("plain/probs.tif", shares), folder / "probs.tif", nodata=np.nan, description=LEGEND.names)
    return folder


def test_maps_changes_and_layers_of_a_folder(changed, client_of):
    view = told(changed)
    kinds = [(one["id"], one["kind"]) for one in view["layers"]]
    assert kinds == [
        ("sample", "points"), ("change", "change"), ("changed", "change"), ("map_2024", "classes"), ("map", "classes"),
        ("confidence", "number"), ("probs", "probabilities"), ("image", "image"),
    ]  # fmt: skip
    layers, later = by_id(view), codes()[:50, :100]
    water = int((later == 10).sum())
    of_change = {one["name"]: one for one in layers["change"]["classes"]}
    assert set(of_change) == {"unchanged", "water → forest"}
    assert of_change["water → forest"] | {"colour": "", "code": 0} == {
        "code": 0, "name": "water → forest", "colour": "", "pixels": water, "hectares": water / 100, "from": "water",
        "to": "forest", "changed": True,
    }  # fmt: skip
    assert [(one["name"], one["changed"], one["from"]) for one in layers["changed"]["classes"]] == [
        ("unchanged", False, None), ("changed", True, None),
    ]  # fmt: skip
    assert layers["changed"]["classes"][1]["pixels"] == water
    assert (layers["confidence"]["of"], layers["confidence"]["unit"]) == ("map", "%")
    assert layers["probs"]["of"] == "map"
    assert (layers["change"]["of"], layers["changed"]["of"]) == (["map", "map_2024"],) * 2
    assert [layers[name]["date"] for name in ("map", "map_2024", "confidence")] == [
        "2020-07-14",
        "2024-07-14",
        "2020-07-14",
    ]
    assert [one["colour"] for one in layers["probs"]["classes"]] == ["#0000ff", "#008000", "#808080"]
    found = client_of([changed]).get("/point?x=10&y=10").json()["layers"]
    assert found["confidence"] == {"value": 80}
    assert [(one["name"], round(one["percent"])) for one in found["probs"]["top"]] == [
        ("water", 70), ("rock", 20), ("forest", 10),
    ]  # fmt: skip
    assert set(found["change"]) == {"code", "name", "from", "to", "changed"}


def test_a_run_shows_the_image_and_labels_of_its_config(folder, write_tif, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(folder / "map.tif", run / "map.tif")
    labels = write_tif("data/labels.tif", codes(), nodata=0)
    legend = {
        "name": "three",
        "classes": [{"code": c.code, "name": c.name, "colour": c.colour} for c in LEGEND.classes],
    }
    config = {"name": "x", "data": {"image": str(folder / "image.tif"), "labels": labels, "legend": legend}}
    (run / "config.yaml").write_text(json.dumps(config))
    (run / "versions.json").write_text("{}")
    layers = by_id(told(run))
    assert set(layers) == {"map", "labels", "image"}
    assert [one["name"] for one in layers["labels"]["classes"]] == ["water", "forest", "rock"]
    assert set(by_id(told(tmp_path))) >= {"map", "labels", "image"}  # the folder around it
    (folder / "image.tif").unlink()
    view = told(run)
    assert any("image.tif, which the config of run names, is not there" in note for note in view["notes"])


def test_codes_are_explained_by_what_lies_beside(folder, write_tif, tmp_path):
    path = write_tif("data/other.tif", codes(), nodata=0)
    plain = by_id(told(path))["other"]["classes"]
    assert [one["name"] for one in plain] == ["class 10", "class 20", "class 30"]
    shutil.copy(folder / "map.qml", folder / "other.qml")
    assert [one["name"] for one in by_id(told(path))["other"]["classes"]] == ["water", "forest", "rock"]
    (folder / "other.qml").write_text("<qgis/>")
    shutil.copy(folder / "map.tif.aux.xml", folder / "other.tif.aux.xml")
    named = by_id(told(path))["other"]["classes"]
    assert [(one["name"], one["colour"]) for one in named] == [(c.name, c.colour) for c in LEGEND.classes]
    (folder / "other.tif.aux.xml").unlink()
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {10: (1, 2, 3, 255), 20: (4, 5, 6, 255)})
    assert [one["colour"] for one in by_id(told(path))["other"]["classes"]][:2] == ["#010203", "#040506"]


def test_areas_of_a_table_that_is_older_than_the_map_are_counted_anew(folder):
    text = (folder / "areas.csv").read_text()
    (folder / "areas.csv").write_text(text.replace("water,10,", "water,10,1"))  # as if it were the map's
    believed = by_id(told(folder))["map"]["classes"][0]["pixels"]
    with rasterio.open(folder / "map.tif") as dataset:
        real = int((dataset.read(1) == 10).sum())
    assert believed == int(f"1{real}")
    (folder / "map.tif").touch()
    assert by_id(told(folder))["map"]["classes"][0]["pixels"] == real


def test_unknown_codes_are_counted(folder, write_tif):
    values = codes()
    values[0, :5] = 77
    path = write_tif("data/odd.tif", values, nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(COVERMAP_LEGEND=json.dumps(LEGEND.to_dict()))
    assert by_id(told(path))["odd"]["unknown_pixels"] == 5


def test_radar_and_bands_by_their_own_names(write_tif):
    radar = np.random.default_rng(0).normal(-10, 3, (2, 50, 50)).astype(np.float32)
    layers = by_id(told(write_tif("s1.tif", radar, bands=["VV", "VH"])))
    assert layers["s1"]["presets"][0] == {"name": "radar (vv, vh, vv)", "bands": ["vv", "vh", "vv"]}
    many = np.ones((12, 20, 20), np.uint16)
    names = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    presets = by_id(told(write_tif("s2.tif", many, bands=names)))["s2"]["presets"]
    assert [one["bands"] for one in presets][:3] == [
        ["red", "green", "blue"], ["nir", "red", "green"], ["swir1", "nir", "red"],
    ]  # fmt: skip
    unnamed = by_id(told(write_tif("x.tif", many[:5])))["x"]
    assert unnamed["presets"][0]["bands"] == ["band 1", "band 2", "band 3"]


def test_names_in_other_letters_have_ids_for_addresses(write_tif, client_of):
    paths = [
        write_tif(name, codes(), nodata=0) for name in ("Wälder 2020 (neu).tif", "土地利用.tif", "土地.tif", "a/x.tif")
    ]
    paths.append(write_tif("b/x.tif", codes(), nodata=0))
    client = client_of(paths)
    layers = client.get("/view.json").json()["layers"]
    assert {one["id"] for one in layers} == {"Walder-2020-neu", "layer", "layer-2", "x", "x-2"}
    assert {one["name"] for one in layers} == {"Wälder 2020 (neu).tif", "土地利用.tif", "土地.tif", "x.tif"}
    for one in layers:
        assert client.get(f"/tiles/{one['id']}/0/0/0.png").status_code == 200


def test_hundreds_of_chips_are_capped_with_a_note(write_tif):
    for number in range(MOST_LAYERS + 5):
        path = write_tif(
            f"chips/{number:03}.tif", np.full((4, 4), 1, np.uint8), origin=(500_000 + 40 * number, 5_000_000)
        )
    view = told(path.rpartition("/")[0])
    assert len(view["layers"]) == MOST_LAYERS
    assert any(f"{MOST_LAYERS + 5} rasters were found, {MOST_LAYERS}" in note for note in view["notes"])


def test_nothing_to_show_is_an_error_with_all_reasons(tmp_path, write_tif):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.tif").write_text("no raster")
    (tmp_path / "no.gpkg").write_text("no table")
    nothing = write_tif("nothing.tif", np.zeros((5, 5), np.uint8), nodata=0)
    for paths in ([], [tmp_path / "empty"], [tmp_path / "none.tif"], [tmp_path / "no.tif"], [nothing]):
        with pytest.raises(DataError, match=r"nothing (to show|of it can be shown)"):
            told(*paths)
    with pytest.raises(DataError, match=r"no\.tif is no raster that can be read"):
        told(tmp_path / "no.tif", tmp_path / "no.gpkg")


def test_what_cannot_be_shown_is_listed(folder, write_tif, tmp_path):
    (folder / "broken.tif").write_text("no raster")
    (folder / "broken.gpkg").write_text("no table")
    (folder / "broken.design.json").write_text("{}")
    complex_ = np.ones((5, 5), np.complex64)
    write_tif("data/complex.tif", complex_)
    (tmp_path / "p.txt").write_text("x")
    view = told(folder, tmp_path / "nowhere.tif")
    reasons = dict(line.split(": ", 1) for line in view["skipped"])
    assert set(reasons) == {"broken.tif", "broken.gpkg", "complex.tif", "nowhere.tif"}
    assert all(len(reason) > 10 for reason in reasons.values())


def test_rasters_without_overviews_are_named(write_tif):
    large = np.ones((2100, 64), np.uint8)
    large[:1000] = 2
    view = told(write_tif("tall.tif", large, nodata=0))
    assert any(note.startswith("tall.tif: without overviews") for note in view["notes"])


def test_maps_of_different_crs_lie_on_one_frame(folder, write_tif):
    other = write_tif("data/zone32.tif", codes(200, 200), nodata=0, crs="EPSG:32632", origin=(35_000, 5_020_000))
    view = told(folder / "map.tif", other)
    layers = by_id(view)
    assert view["frame"]["crs"] == "EPSG:32631"
    assert view["frame"]["width"] > 700
    left, top, right, bottom = layers["zone32"]["bounds"]
    assert 0 <= left < right <= view["frame"]["width"]
    assert 0 <= top < bottom <= view["frame"]["height"]


def test_a_legend_without_some_of_its_codes_still_lists_them(folder, write_tif):
    more = Legend("four", (*LEGEND.classes, LandClass(40, "snow", "#ffffff")), nodata=0)
    finish_map(write_tif("plain/four.tif", codes(), nodata=0), folder / "four.tif", more)
    classes = by_id(told(folder / "four.tif"))["four"]["classes"]
    assert (classes[-1]["name"], classes[-1]["pixels"], classes[-1]["hectares"]) == ("snow", 0, 0)


def test_images_have_the_date_of_the_config_of_their_map_or_of_their_tags(folder, write_tif, tmp_path):
    values = np.ones((3, 40, 40), np.uint16)
    for name in ("of_config", "of_map", "of_tags", "S2A_MSIL2A_20210305T1030", "unknown_20"):
        write_tif(f"data/{name}.tif", values, bands=["red", "green", "blue"])
    with rasterio.open(folder / "of_tags.tif", "r+") as dataset:
        dataset.update_tags(ACQUISITION_DATE="2019-08-01T10:30:00Z", TIFFTAG_DATETIME="2025:01:01 00:00:00")
    finish_map(write_tif("plain/new.tif", codes(), nodata=0), folder / "map_2024.tif", LEGEND, date="2024-07-14",
               derived_from=["elsewhere/of_map.tif", "model 123"])  # fmt: skip
    run = folder / "run"
    run.mkdir()
    images = [{"path": str(folder / "of_config.tif"), "sensor": "landsat7", "date": "2018-06-01",
               "bands": ["red", "green", "blue"]}]  # fmt: skip
    (run / "config.yaml").write_text(
        json.dumps({"name": "x", "data": {"image": images, "labels": str(folder / "map.tif")}})
    )
    (run / "versions.json").write_text("{}")
    layers = by_id(told(folder))
    dates = {name: one["date"] for name, one in layers.items() if one["kind"] == "image"}
    assert dates == {
        "of_config": "2018-06-01", "of_map": "2024-07-14", "of_tags": "2019-08-01",
        "S2A_MSIL2A_20210305T1030": "2021-03-05", "unknown_20": None, "image": None,
    }  # fmt: skip
    assert (layers["of_map"]["of"], layers["of_tags"]["of"]) == ("map_2024", None)
    assert [name for name in layers if dates.get(name)][:2] == ["of_map", "S2A_MSIL2A_20210305T1030"]


@pytest.mark.parametrize(("how", "used"), [("average", False), ("mode", True), ("nearest", True)])
def test_overviews_that_hold_classes_which_the_map_has_not_are_not_used(write_tif, client_of, how, used):
    rng = np.random.default_rng(0)
    values = np.where(rng.random((600, 700)) < 0.7, 10, 30).astype(np.uint8)
    values[:3, :3] = 20
    path = write_tif("mixed.tif", values, nodata=0, bands=["class"])
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], rasterio.enums.Resampling[how])
    client = client_of([path])
    told_it = any("overviews hold classes" in note for note in client.view.notes)
    assert told_it is not used
    small = grey(client.get("/tiles/mixed/0/0/0.png").content)
    assert (small == 1).sum() <= 4
    assert set(np.unique(small).tolist()) <= {0, 1, 2, 255}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf_8_is_told_and_the_rest_is_shown(folder, client_of):
    shutil.copy(folder / "image.tif", os.fsencode(folder) + b"/bild_\xe4.tif")
    os.mkdir(os.fsencode(folder) + b"/ordner_\xfc")
    shutil.copy(folder / "image.tif", os.fsencode(folder) + b"/ordner_\xfc/x.tif")
    view = client_of([folder]).get("/view.json").json()
    assert [one["id"] for one in view["layers"]] == ["sample", "map", "image"]
    assert sorted(line.partition(":")[0] for line in view["skipped"]) == ["bild_?.tif", "x.tif"]
    assert all("UTF-8" in line for line in view["skipped"])
    with pytest.raises(DataError, match="UTF-8") as failed:
        told(os.fsdecode(os.fsencode(folder) + b"/bild_\xe4.tif"))
    str(failed.value).encode()
