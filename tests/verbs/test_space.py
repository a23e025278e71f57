"""The look at a space of generated embeddings whose regions are shifted on purpose: numbers, words, page, refusals."""

from __future__ import annotations

import base64
import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from covermap.core.errors import ConfigError, CovermapError, DataError, OutputError
from covermap.data.chip_regions import ChipRegions
from covermap.verbs.space import SpaceSettings, space
from covermap.verbs.space_transfer import transfer

pyarrow = pytest.importorskip("pyarrow")
NAMES = ("water", "trees", "bare")


def write(
    path, *, shifts=(0.0, 0.6, 1.2, 1.8, 2.4), side=8, d=6, kind="class_pixels", encoder="generated", seed=0, first=0,
    scene="scene {}", place="place {}", positional=None, own_facts=True,
):  # fmt: skip
    """Chips on a lattice in each region. A target bends with the feature that regions are shifted along."""
    import pyarrow.parquet

    random = np.random.default_rng(seed)
    rows = []
    for number, shift in enumerate(shifts, first):
        for i in range(side * side):
            row, col = divmod(i, side)
            values = random.standard_normal(d)
            values[0] += shift
            share = np.exp(0.4 * np.array([values[0] ** 2, 2 * values[1], 0.0]))
            pixels = np.rint(256 * share / share.sum()).astype(int)
            truth = {
                "class_pixels": {"class_pixels": pixels.tolist()}, "label": {"label": int(pixels.argmax())},
                "values": {"values": [float(values[0] ** 2), float(1e3 * values[1])]}, "none": {},
            }[kind]  # fmt: skip
            rows.append({
                "unique_id": f"{seed}_{number}_{i}", "embedding": values.astype(np.float32).tolist(),
                "raw_statistics": values[:3].astype(np.float32).tolist(), "scene": scene.format(number),
                "place": place.format(number), "part": ("train", "test", "none")[col % 3], "year": 2000 + number % 2,
                "pixel_bbox": [16 * col, 16 * row, 16 * col + 16, 16 * row + 16], **truth,
            })  # fmt: skip
    legend = {"name": "three", "nodata": 0, "classes": [{"code": i, "name": n} for i, n in enumerate(NAMES, 1)]}
    facts = {"encoder": {"backbone": encoder}, "size_px": 16, "legend": legend}
    facts |= {"names": ["bent", "straight"]} if kind == "values" else {}
    facts |= {"positional_share": positional} if positional else {}
    table = pyarrow.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"covermap": json.dumps(facts)} if own_facts else None)
    pyarrow.parquet.write_table(table, path)
    return path


def table_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_where_regions_are_shifted_distance_goes_with_error(tmp_path):
    position = {"share": 0.25, "expected": 0.01, "cells": [2, 2], "chips": 50}
    path = write(tmp_path / "e.parquet", positional=position)
    found = space([path], tmp_path / "out")
    assert found.by == "place"
    for name in ("centroid", "frechet", "mmd", "knn"):
        assert found.rising[name]["correlation"] > 0.5, name
        assert found.rising[name]["p"] < 0.1
    assert "The farther apart two regions are, the larger the extra error" in found.sentences[2]
    assert "25.0% of the variance of cells" in found.sentences[-1]
    rows = table_of(tmp_path / "out/distances.csv")
    assert len(rows) == 10
    assert list(rows[0]) == ["region_a", "region_b", "n_a", "n_b", "centroid", "frechet", "mmd", "knn"]
    centroid = {(row["region_a"], row["region_b"]): float(row["centroid"]) for row in rows}
    assert centroid["place 0", "place 4"] == pytest.approx(2.4, abs=0.5)
    told = table_of(tmp_path / "out/transfer.csv")
    assert len(told) == 25
    by_pair = {(row["train"], row["test"]): row for row in told}
    assert float(by_pair["place 0", "place 4"]["error"]) > 1.5 * float(by_pair["place 4", "place 4"]["error"])
    assert by_pair["place 4", "place 4"]["extra_error"] == ""
    assert by_pair["place 0", "place 4"]["n_train"] == "64"
    assert int(by_pair["place 4", "place 4"]["n_train"]) < 48
    points = table_of(tmp_path / "out/points.csv")
    assert len(points) == 320
    assert {row["class"] for row in points} <= {*NAMES, ""}
    assert float(points[0]["pc1"]) != float(points[1]["pc1"])
    facts = json.loads((tmp_path / "out/space.json").read_text())
    assert facts["components"] == 6
    assert facts["positional_share"][str(path)]["share"] == 0.25
    assert "relabelling regions" in (tmp_path / "out/LOG.md").read_text()


def test_regions_alike_are_mixed_and_nothing_is_claimed(tmp_path):
    found = space([write(tmp_path / "e.parquet", shifts=(0,) * 6, seed=3)], tmp_path / "out")
    assert "are mixed" in found.sentences[0]
    assert "cannot be told from chance" in found.sentences[2]
    assert max(row["mmd"] for row in found.distances) < 0.03


def test_transfer_is_that_of_fits_written_out_and_the_diagonal_saw_no_neighbour(tmp_path):
    from covermap.data.labelled_chips import TEST, TRAIN, LabelledChips
    from covermap.ml.ridge import RidgePath

    regions = ChipRegions.read([write(tmp_path / "e.parquet", shifts=(0, 1))])
    found = transfer(regions, target="auto", block=4, seed=0)
    chips = LabelledChips.of(regions.chips, areas="place")
    a, b = (np.flatnonzero(regions.region == i) for i in (0, 1))
    path = RidgePath.of(chips.values[a], chips.targets[a])
    answers = path.fit(path.choose()).predict(chips.values[b])
    squares = ((answers - chips.targets[b]) ** 2).sum()
    assert found.error[0, 1] == pytest.approx(np.sqrt(squares / chips.targets[b].size), rel=1e-9)
    about = ((chips.targets[b] - chips.targets[b].mean(0)) ** 2).sum()
    assert found.r2[0, 1] == pytest.approx(1 - squares / about, rel=1e-9)
    assert found.extra[0, 1] == found.error[0, 1] - found.error[1, 1]
    mine = replace(LabelledChips.of(regions.chips.only(a)), given=None)
    squares = 0.0
    for fold in range(4):
        role = mine.roles(share=0.5, block=4, seed=0, folds=4, fold=fold)
        path = RidgePath.of(mine.values[role == TRAIN], mine.targets[role == TRAIN])
        answers = path.fit(path.choose()).predict(mine.values[role == TEST])
        squares += ((answers - mine.targets[role == TEST]) ** 2).sum()
    assert found.error[0, 0] == pytest.approx(np.sqrt(squares / mine.targets.size), rel=1e-9)


@pytest.mark.parametrize("kind", ["label", "values"])
def test_classes_and_numbers_are_told_too(tmp_path, kind):
    found = space([write(tmp_path / "e.parquet", kind=kind, shifts=(0, 1, 2))], tmp_path / "out")
    facts = json.loads((tmp_path / "out/space.json").read_text())
    assert facts["error"].startswith("share of chips" if kind == "label" else "RMSE in standard deviations")
    assert all(row["error"] >= 0 for row in found.transfer)
    assert "no test" in found.sentences[2]
    assert found.rising["frechet"]["p"] != found.rising["frechet"]["p"]  # of three regions none is told
    page = (tmp_path / "out/space.html").read_text()
    assert ("by class" in pictures(page)) == (kind == "label")


def pictures(page):
    return "".join(base64.b64decode(text).decode() for text in re.findall(r"svg\+xml;base64,([\w+/=]+)", page))


def test_the_page_holds_everything_and_asks_nobody(tmp_path):
    write(tmp_path / "e.parquet", place="<script>{}</script>")
    found = space([tmp_path / "e.parquet"], tmp_path / "out")
    page = (tmp_path / "out/space.html").read_text()
    assert not re.search(r"https?://|<script|@import|url\(", page)
    drawn = pictures(page)
    assert "<script" not in drawn
    assert not re.search(r"href=\"(?!data:|#)", drawn)
    assert not re.search(r"(src|url)\s*[=(]\s*['\"]?https?:", drawn)
    for words in ("Fréchet distance", "rank correlation", "component 1", "by class", "learnt in"):
        assert words in page + drawn
    assert len(page) < 3_000_000
    assert set(found.files) == set((tmp_path / "out").iterdir())
    assert all(file.stat().st_size for file in found.files)


def test_ways_to_make_regions(tmp_path):
    path = write(tmp_path / "e.parquet", shifts=(0, 2, 4))
    assert set(space([path], tmp_path / "scene", SpaceSettings("scene")).regions) == {f"scene {i}" for i in range(3)}
    parts = space([path], tmp_path / "part", SpaceSettings("part"))
    assert parts.regions == {"train": 72, "test": 72}
    assert "48 of 192 chips are left out: their part is not known" in parts.notes
    assert any("Regions share scenes" in doubt for doubt in parts.doubts)
    years = space([path], tmp_path / "year", SpaceSettings("year"))
    assert years.regions == {"2000": 128, "2001": 64}
    classes = space([path], tmp_path / "class", SpaceSettings("class", least=5))
    assert set(classes.regions) <= set(NAMES)
    assert not classes.transfer
    assert not (tmp_path / "class/transfer.csv").exists()
    assert any("regions are the classes themselves" in note for note in classes.notes)


def test_small_regions_and_broken_chips_are_left_out_and_counted(tmp_path):
    import pyarrow.parquet

    write(tmp_path / "e.parquet", shifts=(0, 1, 2), side=5)
    write(tmp_path / "small.parquet", shifts=(3,), side=3, first=7, seed=1)
    table = pyarrow.parquet.read_table(tmp_path / "e.parquet")
    values = table["embedding"].to_pylist()
    values[3][2] = float("nan")
    table = table.set_column(1, "embedding", pyarrow.array(values, pyarrow.list_(pyarrow.float32())))
    pyarrow.parquet.write_table(table, tmp_path / "e.parquet")
    paths = [tmp_path / "e.parquet", tmp_path / "small.parquet"]
    found = space(paths, tmp_path / "out")
    assert found.regions == {"place 0": 24, "place 1": 25, "place 2": 25}
    assert any("1 regions with fewer than 20 chips are left out (9 chips): place 7" in note for note in found.notes)
    assert any("1 chips have embeddings that are no numbers" in note for note in found.notes)
    (tmp_path / "copy.parquet").write_bytes(paths[0].read_bytes())
    again = ChipRegions.read([*paths, tmp_path / "copy.parquet"], by="place")
    assert again.sizes.tolist() == [24, 25, 25]
    assert any("75 chips stand in the files twice" in note for note in again.notes)
    years = ChipRegions.read([*paths, tmp_path / "copy.parquet"], by="year")
    assert dict(zip(years.names, years.sizes.tolist(), strict=True)) == {"2000": 49, "2001": 34}


def test_scenes_of_one_name_in_two_files_are_two(tmp_path):
    paths = [write(tmp_path / f"{n}.parquet", shifts=(s,), seed=s, place="") for n, s in (("north", 0), ("south", 2))]
    found = ChipRegions.read(paths)
    assert (found.by, found.names) == ("scene", ("north/scene 0", "south/scene 0"))
    assert any("told apart by file" in note for note in found.notes)


def test_constant_targets_are_undefined_and_counted(tmp_path):
    import pyarrow.parquet

    path = write(tmp_path / "e.parquet", shifts=(0, 1, 2, 3))
    table = pyarrow.parquet.read_table(path)
    pixels = [
        [256, 0, 0] if p == "place 1" else v
        for p, v in zip(table["place"].to_pylist(), table["class_pixels"].to_pylist(), strict=True)
    ]
    table = table.set_column(table.column_names.index("class_pixels"), "class_pixels", pyarrow.array(pixels))
    pyarrow.parquet.write_table(table, path)
    found = space([path], tmp_path / "out")
    assert found.num_undefined == 4  # R2 of what is told of that region
    assert any("4 of 32 errors and R2" in note for note in found.notes)
    assert any(note.startswith("place 1: all chips are alike") for note in found.notes)
    extra = {
        row["test"]: row["extra_error"] for row in table_of(tmp_path / "out/transfer.csv") if row["train"] == "place 0"
    }
    assert [name for name, value in extra.items() if value == ""] == ["place 0", "place 1"]
    assert [row["r2"] for row in table_of(tmp_path / "out/transfer.csv") if row["test"] == "place 1"] == [""] * 4


def test_without_labels_and_of_files_by_others_distances_are_told(tmp_path):
    path = write(tmp_path / "e.parquet", kind="none", shifts=(0, 1), place="", own_facts=False)
    found = space([path], tmp_path / "out")
    assert found.transfer == []
    assert any("have no labels" in note for note in found.notes)
    assert "the file does not say" in found.sentences[-1]
    with pytest.raises(ConfigError, match="has no shares"):
        space([path], tmp_path / "other", SpaceSettings(target="shares"))


def test_too_little_ground_has_no_local_error(tmp_path):
    found = space(
        [write(tmp_path / "e.parquet", shifts=(0, 1, 2, 3), side=5)], tmp_path / "out", SpaceSettings(block=8)
    )
    assert all(row["error"] != row["error"] for row in found.transfer if row["train"] == row["test"])
    assert any("too little ground" in note for note in found.notes)
    assert "is not known" in found.sentences[2]


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"shifts": (0,)}, {}, "by scene there is only scene 0"),
        ({"side": 3}, {}, "there is none of 5"),
        ({}, {"by": "colour"}, "no column 'colour'"),
        ({}, {"by": "embedding"}, "no column 'embedding'"),
        ({}, {"by": "raw_statistics"}, "holds list"),
        ({"kind": "values"}, {"by": "class"}, "has no classes"),
        ({}, {"least": 2}, "tell nothing of a region"),
        ({}, {"target": "label"}, "has no label"),
        ({}, {"by": "unique_id", "least": 3}, "none of 320"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, changes, settings, said):
    path = write(tmp_path / "e.parquet", **changes)
    with pytest.raises(CovermapError, match=said) as error:
        space([path], tmp_path / "out", SpaceSettings(**settings))
    assert error.value.fix
    assert not (tmp_path / "out").exists()


def test_mixed_encoders_constant_embeddings_and_taken_folders_are_refused(tmp_path):
    import pyarrow.parquet

    one, other = (write(tmp_path / f"{n}.parquet", encoder=n, seed=s) for s, n in enumerate(("a", "b")))
    with pytest.raises(DataError, match="different encoders"):
        space([one, other], tmp_path / "out")
    with pytest.raises(ConfigError, match="given twice"):
        space([one, one], tmp_path / "out")
    with pytest.raises(DataError, match="there is no file"):
        space([tmp_path / "none.parquet"], tmp_path / "out")
    table = pyarrow.parquet.read_table(one)
    flat = pyarrow.array([[1.5] * 6] * table.num_rows, pyarrow.list_(pyarrow.float32()))
    pyarrow.parquet.write_table(table.set_column(1, "embedding", flat), tmp_path / "flat.parquet")
    with pytest.raises(DataError, match="are constant"):
        space([tmp_path / "flat.parquet"], tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="is no look"):
        space([one], tmp_path / "mine", overwrite=True)
    space([one], tmp_path / "out")
    with pytest.raises(OutputError, match="exists already"):
        space([one], tmp_path / "out")
    before = (tmp_path / "out/distances.csv").read_bytes()
    space([one], tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/distances.csv").read_bytes() == before


def test_umap_is_taken_where_it_is_installed_and_told_where_not(tmp_path, monkeypatch):
    import sys
    import types

    class Fake:
        def __init__(self, **settings):
            assert settings["n_jobs"] == 1

        def fit_transform(self, scores):
            return scores[:, :2] * 2

    path = write(tmp_path / "e.parquet", shifts=(0, 1))
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Fake))
    space([path], tmp_path / "out")
    row = table_of(tmp_path / "out/points.csv")[5]
    assert float(row["umap1"]) == pytest.approx(2 * float(row["pc1"]), rel=1e-4)
    assert "UMAP keeps neighbours" in (tmp_path / "out/space.html").read_text()
    monkeypatch.setitem(sys.modules, "umap", None)
    without = space([path], tmp_path / "plain")
    assert any("pip install 'covermap[umap]'" in note for note in without.notes)
    assert "umap1" not in table_of(tmp_path / "plain/points.csv")[0]


def test_umap_itself(tmp_path):
    pytest.importorskip("umap", reason="extra [umap]")
    space([write(tmp_path / "e.parquet", shifts=(0, 4))], tmp_path / "out")
    rows = table_of(tmp_path / "out/points.csv")
    at = np.array([[float(row["umap1"]), float(row["umap2"])] for row in rows])
    assert np.isfinite(at).all()
    assert np.linalg.norm(at[:64].mean(0) - at[64:].mean(0)) > 0


def test_command(tmp_path, capsys):
    from covermap.cli import app

    path = write(tmp_path / "e.parquet")
    app(["space", str(path), str(tmp_path / "out"), "--quiet"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "rank correlation" in said
    assert "space.html" in said
    app(["space", str(path), str(tmp_path / "out"), "--overwrite", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["by"] == "place"
    with pytest.raises(ConfigError, match="folder for the results is missing"):
        app(["space", str(path)], standalone_mode=False)
