"""References: written to the file itself, everything else in it as it was; assess reads them afterwards."""

import os
import shutil
import sqlite3

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

from covermap.verbs.assess import assess
from covermap.verbs.sample import Plan, sample
from tests.view.view_data import layer


def label(client, point, reference, name="sample"):
    return client.post(f"/labels/{name}", json={"point": point, "reference": reference}, headers=client.token)


def test_a_reference_is_written_at_once_and_the_rest_stays(folder, client_of):
    client, before = client_of([folder]), gpd.read_file(folder / "sample.gpkg")
    assert label(client, 7, 20).json() == {"point": 7, "reference": 20, "before": None, "num_labelled": 1}
    assert label(client, 7, 30).json() == {"point": 7, "reference": 30, "before": 20, "num_labelled": 1}
    after = gpd.read_file(folder / "sample.gpkg")
    assert after.crs == before.crs
    assert after.geometry.equals(before.geometry)
    pd.testing.assert_frame_equal(
        after.drop(columns=["reference", "geometry"]), before.drop(columns=["reference", "geometry"])
    )
    assert after.set_index("id")["reference"].to_dict()[7] == "30"
    assert (after.loc[after["id"] != 7, "reference"].fillna("") == "").all()
    assert label(client, 7, None).json() == {"point": 7, "reference": None, "before": 30, "num_labelled": 0}
    assert (gpd.read_file(folder / "sample.gpkg")["reference"].fillna("") == "").all()
    file = sqlite3.connect(folder / "sample.gpkg")
    assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert file.execute("SELECT count(*) FROM rtree_sample_geom").fetchone() == (60,)
    file.close()


def test_labelled_points_are_assessed(folder, client_of):
    client = client_of([folder])
    points = layer(client, "sample")["points"]
    for one in points[:50]:
        assert label(client, one["id"], one["mapped"]).status_code == 200
    found = client.post("/assess/sample", headers=client.token).json()
    assert found["sentence"].startswith("Overall accuracy 1.000")
    assert any("10 points without a reference are left out" in note for note in found["notes"])
    for table in found["tables"]:
        assert [row[0] for row in table["rows"]] == ["water", "forest", "rock"]
        assert all(len(row) == len(table["head"]) for row in table["rows"])
    direct = assess(folder / "map.tif", folder / "sample.gpkg", skip_empty=True)
    assert direct["num_points"] == 50


def replaced(client, point, before, reference, name="sample"):
    body = {"point": point, "reference": reference, "before": before}
    return client.post(f"/labels/{name}", json=body, headers=client.token)


def in_file(path):
    table = gpd.read_file(path) if path.suffix == ".gpkg" else pd.read_csv(path, dtype={"reference": str})
    return table.set_index("id")["reference"].fillna("").to_dict()


@pytest.mark.parametrize("name", ["sample.gpkg", "plain.csv"])
def test_what_another_has_written_is_not_overwritten(folder, client_of, name):
    sample(folder / "map.tif", folder / "plain.csv", Plan(num=40, floor=10))
    mine, other = client_of([folder]), client_of([folder])  # two servers that know nothing of each other
    of = name.partition(".")[0]
    assert replaced(other, 7, None, 20, of).status_code == 200
    answer = replaced(mine, 7, None, 30, of)
    assert (answer.status_code, answer.json()["reference"]) == (409, 20)
    assert "the file says forest by now" in answer.json()["error"]
    assert in_file(folder / name)[7] == "20"
    assert layer(mine, of)["points"][6]["reference"] == 20
    assert replaced(mine, 7, 20, 30, of).json()["before"] == 20  # having seen it
    undone = replaced(other, 7, 20, None, of)  # an undo of what is not there any more
    assert (undone.status_code, undone.json()["reference"]) == (409, 30)
    assert replaced(other, 7, 20, 30, of).status_code == 200  # both say the same
    assert in_file(folder / name)[7] == "30"
    assert label(mine, 7, None, of).status_code == 200
    gone = replaced(other, 7, 30, 20, of)
    assert (gone.status_code, gone.json()["reference"]) == (409, None)
    assert "has no reference there by now" in gone.json()["error"]
    assert replaced(mine, 7, "20", 20, of).status_code == 422


def test_references_are_compared_by_what_they_mean(folder, client_of):
    client, table = client_of([folder]), gpd.read_file(folder / "sample.gpkg")
    table["reference"] = table["reference"].astype(object)
    table.loc[table["id"] == 3, "reference"] = "Forest"
    table.loc[table["id"] == 4, "reference"] = "meadow"
    table.to_file(folder / "sample.gpkg", layer="sample", driver="GPKG")
    for_meadow = replaced(client, 4, None, 10)  # which the page has not seen
    assert (for_meadow.status_code, for_meadow.json()["reference"]) == (409, None)
    assert "says meadow" in for_meadow.json()["error"]
    assert replaced(client, 3, 20, 10).status_code == 200  # Forest is 20
    assert replaced(client, 4, None, 10).status_code == 200  # by now it has been told
    assert in_file(folder / "sample.gpkg")[4] == "10"


@pytest.mark.parametrize("reference", [77, 20.0, "20", "forest", 20.5, True, [20], {"a": 1}, -1])
def test_what_is_no_class_is_refused(folder, client_of, reference):
    client = client_of([folder])
    answer = label(client, 7, reference)
    assert answer.status_code == 422
    assert "10 water, 20 forest, 30 rock" in answer.json()["error"]
    assert (gpd.read_file(folder / "sample.gpkg")["reference"].fillna("") == "").all()


@pytest.mark.parametrize("point", [0, 61, -1, "7", True, None, 7.5, 7.0, "x' OR 1=1 --"])
def test_a_point_that_there_is_not_is_refused(folder, client_of, point):
    answer = label(client_of([folder]), point, 20)
    assert answer.status_code == 422
    assert "has no point" in answer.json()["error"]


def test_names_that_another_program_wrote_are_read(folder, client_of):
    file = sqlite3.connect(folder / "sample.gpkg")
    for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
        file.create_function(name, 1, lambda blob: 0)
    client = client_of([folder])
    file.execute("UPDATE sample SET reference = 'Forest' WHERE id = 3")
    file.execute("UPDATE sample SET reference = 'meadow' WHERE id = 4")
    file.commit()
    file.close()
    told = layer(client, "sample")
    by_id = {one["id"]: one["reference"] for one in told["points"]}
    assert (by_id[3], by_id[4], told["num_labelled"]) == (20, None, 1)
    assert label(client, 5, 10).json()["num_labelled"] == 2
    assert gpd.read_file(folder / "sample.gpkg").set_index("id")["reference"].to_dict()[4] == "meadow"
    assert any("1 references of sample.gpkg are no class" in note for note in client_of([folder]).view.notes)


def test_another_sample_under_the_same_name_is_noticed(folder, client_of):
    client = client_of([folder])
    sample(folder / "map.tif", folder / "new.gpkg", Plan(num=60, floor=15, seed=5))
    file = sqlite3.connect(folder / "new.gpkg")
    shutil.copy(folder / "new.gpkg", folder / "sample.gpkg")
    file.close()
    # The layer within a GeoPackage has another name now, and the points lie elsewhere.
    answer = label(client, 7, 20)
    assert answer.status_code == 422
    assert "has changed" in answer.json()["error"]
    assert (gpd.read_file(folder / "sample.gpkg")["reference"].fillna("") == "").all()
    assert label(client, layer(client, "sample")["points"][0]["id"], 20).status_code == 200  # once it was looked at


def test_a_locked_file_is_told(folder, client_of, monkeypatch):
    monkeypatch.setattr("covermap.view.labelling._WAIT_S", 0.05)
    client = client_of([folder])
    other = sqlite3.connect(folder / "sample.gpkg", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    answer = label(client, 7, 20)
    assert answer.status_code == 409
    assert "held by another program" in answer.json()["error"]
    other.execute("ROLLBACK")
    other.close()
    assert label(client, 7, 20).status_code == 200


def test_a_csv_is_replaced_whole(folder, client_of):
    sample(folder / "map.tif", folder / "plain.csv", Plan(num=40, floor=10))
    os.chmod(folder / "plain.csv", 0o640)
    before = (folder / "plain.csv").read_text().splitlines()
    client = client_of([folder])
    assert label(client, 7, 20, "plain").json() == {"point": 7, "reference": 20, "before": None, "num_labelled": 1}
    after = (folder / "plain.csv").read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [(before[7], before[7] + "20")]
    assert (folder / "plain.csv").stat().st_mode & 0o777 == 0o640
    for one in layer(client, "plain")["points"]:
        label(client, one["id"], one["mapped"], "plain")
    assert assess(folder / "map.tif", folder / "plain.csv")["overall"]["value"] == 1
    (folder / "plain.csv").write_text("id,x,y,stratum,reference\n7,1,2,10,\n")
    assert label(client, 7, 20, "plain").status_code == 422
    assert (folder / "plain.csv").read_text().endswith("7,1,2,10,\n")


@pytest.mark.parametrize("one", ["001", "²", "12345678901234567890", "A-1"])
def test_ids_that_are_no_numbers_stay_as_they_are(folder, client_of, one):
    sample(folder / "map.tif", folder / "plain.csv", Plan(num=40, floor=10))
    head, first, *rest = (folder / "plain.csv").read_text().splitlines()
    (folder / "plain.csv").write_text("\n".join([head, one + first.removeprefix("1"), *rest]) + "\n")
    client = client_of([folder])
    assert layer(client, "plain")["points"][0]["id"] == one
    assert label(client, one, 20, "plain").json()["point"] == one
    assert (folder / "plain.csv").read_text().splitlines()[1].endswith(",20")


def test_a_csv_without_a_design_says_what_is_missing(folder, client_of):
    (folder / "points.csv").write_text("id,x,y,stratum,reference\n1,500100,4999900,10,\n")
    skipped = client_of([folder / "map.tif", folder / "points.csv"]).view.skipped
    assert len(skipped) == 1
    assert "points.design.json" in skipped[0]
    assert any("points.csv" in note and "points.design.json" in note for note in client_of([folder]).view.notes)


def test_a_csv_of_a_spreadsheet_keeps_its_form(folder, client_of):
    sample(folder / "map.tif", folder / "plain.csv", Plan(num=40, floor=10))
    text = (folder / "plain.csv").read_text().replace(",", ";").replace("\n", "\r\n")
    (folder / "plain.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    client = client_of([folder])
    assert label(client, 7, 20, "plain").status_code == 200
    data = (folder / "plain.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfid;x;y;stratum;reference\r\n")
    assert data.count(b";20\r\n") == 1


def test_a_sample_without_its_map_can_be_seen_but_not_assessed(folder, client_of, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("image.tif", "sample.gpkg", "sample.design.json"):
        shutil.copy(folder / name, tmp_path / "other" / name)
    client = client_of([tmp_path / "other"])
    told = layer(client, "sample")
    assert (told["of"], [one["name"] for one in told["legend"]]) == (None, ["water", "forest", "rock"])
    assert "mapped" not in told["points"][0]
    assert label(client, 7, 20).status_code == 200
    answer = client.post("/assess/sample", headers=client.token)
    assert answer.status_code == 422
    assert "was drawn from is not here" in answer.json()["error"]


def test_two_layers_in_a_geopackage_are_left_alone(folder, client_of):
    gpd.read_file(folder / "sample.gpkg").to_file(folder / "sample.gpkg", layer="second", driver="GPKG")
    told = client_of([folder]).get("/view.json").json()
    assert not [one for one in told["layers"] if one["kind"] == "points"]
    assert any(line.startswith("sample.gpkg: ") for line in told["skipped"])


def test_a_moved_point_in_another_crs_is_placed(folder, client_of):
    other = gpd.read_file(folder / "sample.gpkg").to_crs(4326)
    other.to_file(folder / "degrees.gpkg", driver="GPKG")
    shutil.copy(folder / "sample.design.json", folder / "degrees.design.json")
    client = client_of([folder])
    one, same = (layer(client, name)["points"] for name in ("sample", "degrees"))
    assert [(p["id"], p["mapped"]) for p in one] == [(p["id"], p["mapped"]) for p in same]
    assert max(abs(p["x"] - q["x"]) + abs(p["y"] - q["y"]) for p, q in zip(one, same, strict=True)) < 0.01
    with rasterio.open(folder / "map.tif") as dataset:
        assert dataset.crs.to_epsg() == 32631


def moved(path, by):
    """The same sample with its points moved east, of the first half or of all."""
    table = gpd.read_file(path)
    x = table.geometry.x + np.where(np.arange(len(table)) < by[1] * len(table), by[0], 0)
    table["geometry"] = gpd.points_from_xy(x, table.geometry.y, crs=table.crs)
    path.unlink()
    table.to_file(path)


def test_points_beside_the_map_are_counted_and_a_sample_of_another_place_is_not_labelled(folder, client_of):
    moved(folder / "sample.gpkg", (500_000, 0.5))
    half = client_of([folder])
    assert "30 of 60 points of sample.gpkg lie outside of its map" in half.view.notes
    assert layer(half, "sample")["editable"]
    moved(folder / "sample.gpkg", (500_000, 1))
    client = client_of([folder])
    assert not layer(client, "sample")["editable"]
    assert "all of its points lie outside of map.tif" in layer(client, "sample")["problem"]
    answer = label(client, layer(client, "sample")["points"][0]["id"], 20)
    assert (answer.status_code, "outside of map.tif" in answer.json()["error"]) == (422, True)


def test_a_sample_that_is_gone_is_told_so(folder, client_of):
    client = client_of([folder])
    point = layer(client, "sample")["points"][0]["id"]
    (folder / "sample.gpkg").rename(folder / "away.bak")
    assert label(client, point, 20).json()["error"] == "sample.gpkg is gone; put it back, then try again"
