"""Probes of generated embeddings: what is learnt, how test chips are held out, what is refused, and going on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from covermap.core.errors import ConfigError, CovermapError, DataError, OutputError
from covermap.data.embeddings import Embeddings
from covermap.data.labelled_chips import LEFT_OUT, TEST, TRAIN, LabelledChips
from covermap.ml.probes import ONLY_NUMBERS, PROBES, fit_probe
from covermap.verbs.probe import ProbeSettings, _pools, probe

pyarrow = pytest.importorskip("pyarrow")
NAMES = ("water", "trees", "bare")


def write(path, *, places=3, side=10, d=12, part=None, label=False, encoder="generated", constant=False, seed=0):
    """Chips on a lattice in each place, whose class shares follow from their embeddings."""
    import pyarrow.parquet

    random = np.random.default_rng(seed)
    weights = random.standard_normal((d, 3)) / np.sqrt(d)
    rows = []
    for place in range(places):
        for row in range(side):
            for col in range(side):
                values = random.standard_normal(d)
                share = np.exp(1.5 * values @ weights + 0.2 * random.standard_normal(3))
                pixels = np.rint(256 * share / share.sum()).astype(int)
                truth = {"label": int(pixels.argmax())} if label else {"class_pixels": pixels.tolist()}
                if constant:
                    first = 200 * int(pixels[0]) // 256
                    truth = {"class_pixels": [200, 56, 0] if constant == "all" else [first, 200 - first, 56]}
                box = [16 * col, 16 * row, 16 * col + 16, 16 * row + 16]
                rows.append({
                    "unique_id": f"{place}_{row}_{col}", "embedding": values.astype(np.float32).tolist(),
                    "raw_statistics": values[:3].astype(np.float32).tolist(), "scene": f"scene {place}",
                    "place": f"place {place}", "part": part(col) if part else "none", "pixel_bbox": box, **truth,
                })  # fmt: skip
    legend = {"name": "three", "nodata": 0, "classes": [{"code": i, "name": n} for i, n in enumerate(NAMES, 1)]}
    facts = {"encoder": {"backbone": encoder}, "size_px": 16, "legend": legend}
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata({"covermap": json.dumps(facts)})
    pyarrow.parquet.write_table(table, path)
    return path


def means(found, **wanted):
    """Rows of all targets that say so."""
    return [
        row for row in found.rows
        if row["target"] == "all" and all(row[key] == value for key, value in wanted.items())
    ]  # fmt: skip


def test_ridge_learns_more_than_raw_statistics_and_more_from_more_labels(tmp_path):
    found = probe([write(tmp_path / "e.parquet")], tmp_path / "out", ProbeSettings(budgets=(20, 100)), workers=1)
    few, many, everything = means(found, probe="ridge")
    assert [row["n"] for row in (few, many)] == [20, 100]
    assert everything["n"] > 100
    assert few["r2_mean"] < many["r2_mean"] < everything["r2_mean"]
    assert many["r2_mean"] > means(found, probe="raw", n=100)[0]["r2_mean"] + 0.2
    assert means(found, probe="constant")[0]["r_mean"] is None
    assert found.num_undefined == 0  # but for what is constant by its nature
    assert (tmp_path / "out/scores.csv").read_text().startswith("area,test,probe,n,target,r_mean")


def test_areas_are_scored_in_all_and_learnt_elsewhere(tmp_path):
    path = write(tmp_path / "e.parquet")
    asked = ProbeSettings(probes=("ridge",), areas="place", budgets=(20,), repeats=2)
    found = probe([path], tmp_path / "out", asked, workers=1)
    pairs = {(row["area"], row["test"]) for row in means(found)}
    assert len(pairs) == 3 * 3 + 3
    assert ("elsewhere of place 1", "place 1") in pairs
    assert ("elsewhere of place 1", "place 0") not in pairs
    assert max(row["n"] for row in means(found, area="elsewhere of place 1")) == 200


def test_moments_tell_what_predictions_tell(tmp_path):
    path = write(tmp_path / "e.parquet")
    chips = LabelledChips.of(Embeddings.read(path), areas="place")
    found = probe([path], tmp_path / "out", ProbeSettings(("ridge",), areas="place", budgets=(30,), repeats=1))
    from covermap.verbs.probe import _Area, _fitting

    settings, _ = _fitting(ProbeSettings(("ridge",), areas="place", budgets=(30,), repeats=1), chips)
    area = _Area.of(chips, settings, "place 0", 0)
    of, test = area.order[:30], area.tests["place 2"]
    told = fit_probe("ridge", chips.values[of], chips.targets[of]).answers(chips.values[test])
    errors = ((told - chips.targets[test]) ** 2).sum()
    spread = ((chips.targets[test] - chips.targets[test].mean(0)) ** 2).sum()
    row = means(found, area="place 0", test="place 2", n=30)[0]
    assert row["r2_mean"] == pytest.approx(1 - errors / spread, abs=1e-9)


def test_a_bank_tells_what_single_fits_tell(tmp_path):
    from covermap.ml.ridge import RidgePath
    from covermap.verbs.probe import _Area, _fitting

    path = write(tmp_path / "e.parquet")
    asked = ProbeSettings(("ridge",), budgets=(8, 12, 40), repeats=1, penalty=2.0)
    found = probe([path], tmp_path / "out", asked)
    chips = LabelledChips.of(Embeddings.read(path))
    area = _Area.of(chips, _fitting(asked, chips)[0], "everywhere", 0)
    for n in (8, 12, 40):
        of, test = area.order[:n], area.tests["everywhere"]
        told = RidgePath.of(chips.values[of], chips.targets[of]).fit(2.0).predict(chips.values[test])
        rmse = np.sqrt(((told - chips.targets[test]) ** 2).mean())
        assert means(found, n=n)[0]["rmse_mean"] == pytest.approx(rmse, abs=1e-5)


def test_a_curve_needs_no_test_chips(tmp_path):
    """Chips told from those before them are told about as well as held-out ones from half as many to as many."""
    asked = ProbeSettings(probes=("ridge", "prequential"), budgets=(25, 50, 100), repeats=10)
    found = probe([write(tmp_path / "e.parquet")], tmp_path / "out", asked, workers=1)
    curve = {row["n"]: row["r2_mean"] for row in means(found, probe="prequential")}
    held = {row["n"]: row["r2_mean"] for row in means(found, probe="ridge")}
    assert list(curve) == list(held)
    assert held[25] - 0.05 < curve[50] < held[50] + 0.05
    assert held[50] - 0.05 < curve[100] < held[100] + 0.05
    with pytest.raises(ConfigError, match="prequential tells numbers"):
        fit_probe("prequential", np.eye(3), np.array([0, 1, 1]), num_classes=2)


def test_every_probe_tells_classes(tmp_path):
    path = write(tmp_path / "e.parquet", label=True)
    asked = tuple(name for name in PROBES if name not in ONLY_NUMBERS)
    found = probe([path], tmp_path / "out", ProbeSettings(asked, budgets=(60,), repeats=2), workers=1)
    told = {row["probe"]: row["accuracy_mean"] for row in means(found, n=60)}
    assert set(told) == set(asked)
    assert min(told[name] for name in ("ridge", "logistic")) > max(told["constant"], told["raw"]) + 0.1
    with pytest.raises(ConfigError, match="targets are classes"):
        probe([path], tmp_path / "other", ProbeSettings(penalty="once"))


def test_the_same_bytes_by_two_processes_and_after_a_stop(tmp_path):
    path = write(tmp_path / "e.parquet")
    asked = ProbeSettings(("ridge", "knn"), areas="place", budgets=(20,), repeats=6)
    probe([path], tmp_path / "one", asked, workers=1)
    whole = (tmp_path / "one/scores.parquet").read_bytes()
    probe([path], tmp_path / "two", asked, workers=2)
    assert (tmp_path / "two/scores.parquet").read_bytes() == whole
    parts = sorted((tmp_path / "two/parts").iterdir())
    kept = parts[1].stat().st_mtime_ns
    parts[0].unlink()
    (tmp_path / "two/scores.parquet").unlink()
    probe([path], tmp_path / "two", asked, workers=1)
    assert (tmp_path / "two/scores.parquet").read_bytes() == whole
    assert parts[1].stat().st_mtime_ns == kept
    with pytest.raises(OutputError, match="other settings"):
        probe([path], tmp_path / "two", ProbeSettings(("ridge",), repeats=6))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="is no probe"):
        probe([path], tmp_path / "mine", asked, overwrite=True)


def test_held_out_blocks_have_no_neighbour_to_learn_from(tmp_path):
    chips = LabelledChips.of(Embeddings.read(write(tmp_path / "e.parquet")), areas="place")
    role = chips.roles(share=0.3, block=2, seed=0)
    assert set(np.unique(role)) == {TRAIN, TEST, LEFT_OUT}
    for area in range(3):
        of = chips.area == area
        test, train = (chips.ground[of & (role == which)][:, 1:] for which in (TEST, TRAIN))
        assert abs(test[:, None] - train[None]).max(2).min() > 1
        assert 0.2 < len(test) / of.sum() < 0.4
    folds = [chips.roles(share=0.3, block=2, seed=0, folds=4, fold=fold) == TEST for fold in range(4)]
    assert (np.sum(folds, 0) == 1).all()


@pytest.mark.parametrize("areas", ["none", "scene"])
def test_two_scenes_of_the_same_ground_do_not_tell_each_other_s_test_chips(tmp_path, areas):
    import pyarrow.parquet

    side = 30 if areas == "scene" else 10
    path = write(tmp_path / "e.parquet", places=2, side=side)  # of two dates
    table = pyarrow.parquet.read_table(path)
    box = np.array(table["pixel_bbox"].to_pylist())
    facts = json.loads(table.schema.metadata[b"covermap"]) | {"gsd_m": 10}
    # As areas they may share no more than a strip.
    shift = (
        (side - 1) * np.char.endswith(table["scene"].to_pylist(), "1") if areas == "scene" else np.zeros(len(box), int)
    )
    across = box[:, 0] + 16 * shift
    for name, degrees in (("centre_lat", 50 - box[:, 1] / 11120), ("centre_lon", 10 + across / 7150)):
        table = table.append_column(name, pyarrow.array(degrees, pyarrow.float32()))
    pyarrow.parquet.write_table(table.replace_schema_metadata({"covermap": json.dumps(facts)}), path)
    chips, asked = LabelledChips.of(Embeddings.read(path), areas=areas), ProbeSettings(areas=areas, block=2)
    role = chips.roles(share=0.3, block=2, seed=0)
    cells = chips.ground[:, 1:] + np.stack([np.zeros_like(shift), shift], 1)
    apart = abs(cells[role == TEST][:, None] - cells[role == TRAIN][None]).max(2)
    assert apart.min() > 1
    if areas == "scene":
        pool = _pools(chips, role, asked)["elsewhere of scene 0"]
        test = cells[(role == TEST) & (chips.area == 0)]
        assert abs(test[:, None] - cells[pool][None]).max(2).min() == 2


def test_the_split_of_the_config_counts(tmp_path):
    path = write(tmp_path / "e.parquet", part=lambda col: ("train", "val", "none", "test")[min(col // 3, 3)])
    chips = LabelledChips.of(Embeddings.read(path))
    assert chips.given is not None
    assert np.bincount(chips.roles(share=0.5, block=1, seed=3)).tolist() == [180, 30, 90]


def test_constant_targets_have_no_score_and_are_counted(tmp_path):
    path = write(tmp_path / "e.parquet", constant=True)
    found = probe([path], tmp_path / "out", ProbeSettings(("ridge",), budgets=(20,), repeats=1), workers=1)
    assert found.num_undefined == found.num_fits // 3 > 0
    assert {row["r2_mean"] for row in found.rows if row["target"] == "bare"} == {None}


def test_chips_that_are_all_alike_or_none_are_refused(tmp_path):
    path = write(tmp_path / "e.parquet", constant="all")
    for target in ("shares", "majority"):
        with pytest.raises(DataError, match="all 300 chips have the same target"):
            probe([path], tmp_path / "out", ProbeSettings(target=target), workers=1)
    with pytest.raises(DataError, match="holds no chip"):
        probe([write(tmp_path / "none.parquet", side=0)], tmp_path / "out", workers=1)


def test_what_the_splits_own_test_part_overrules_is_refused_and_said(tmp_path):
    path = write(tmp_path / "e.parquet", part=lambda col: "test" if col > 6 else "train")
    with pytest.raises(ConfigError, match="folds have no effect"):
        probe([path], tmp_path / "out", ProbeSettings(folds=3), workers=1)
    found = probe([path], tmp_path / "out", ProbeSettings(("ridge",), budgets=(20, 1000), repeats=1), workers=1)
    assert "scored on the 90 chips of the split's own test part" in found.notes
    assert "budgets 1,000 are left out: there are 210 chips to learn from" in found.notes


def test_scenes_of_one_ground_are_not_elsewhere(tmp_path):
    found = Embeddings.read(write(tmp_path / "e.parquet", side=5))
    rows = np.arange(25)
    ground = np.stack([45 + rows // 5 * 160 / 111_320, 9 + rows % 5 * 160 / 78_700], 1)
    apart = np.concatenate([ground, ground + 0.5, ground + 1])
    known = {**found.encoder, "gsd_m": 10.0, "size_px": 16}
    assert LabelledChips.of(replace(found, centre=apart, encoder=known), areas="scene").areas == tuple(
        f"scene {i}" for i in range(3)
    )
    with pytest.raises(DataError, match="100% of the chips of scene scene 0"):
        LabelledChips.of(
            replace(found, centre=np.concatenate([ground, ground, ground + 1]), encoder=known), areas="scene"
        )


def test_least_squares_warns_where_samples_are_as_many_as_features(tmp_path):
    path = write(tmp_path / "e.parquet")
    found = probe([path], tmp_path / "out", ProbeSettings(("ols",), budgets=(5, 12, 100), repeats=1), workers=1)
    assert [note for note in found.notes if note.startswith("ols with 12 chips of 12 features")]
    assert means(found, n=12)[0]["r2_mean"] < means(found, n=100)[0]["r2_mean"]


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"places": 1}, {"areas": "place"}, "holds one place only"),
        ({"side": 2}, {"folds": 9, "block": 1, "areas": "place"}, "fewer than 9 folds"),
        ({"side": 3}, {"block": 4, "areas": "place"}, "1 blocks of 4 x 4 chips"),
        ({}, {"probes": ("rigde",)}, "there is no probe 'rigde'"),
        ({}, {"probes": ("logistic",)}, "the targets are numbers"),
        ({}, {"budgets": (5000,)}, "do not fit"),
        ({}, {"budgets": (1, 5)}, "do not fit"),
        ({}, {"target": "label"}, "has no label"),
        ({}, {"share": 1.5}, "between 0 and 1"),
        ({}, {"seed": -1}, "seed -1 is below 0"),
        ({"part": lambda col: "test" if col > 6 else "train"}, {"folds": 3}, "folds have no effect"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, changes, settings, said):
    path = write(tmp_path / "e.parquet", **changes)
    with pytest.raises(CovermapError, match=said):
        probe([path], tmp_path / "out", ProbeSettings(**settings))
    assert not (tmp_path / "out").exists()


def test_a_file_that_was_made_anew_is_read_anew(tmp_path):
    path, asked = write(tmp_path / "e.parquet"), ProbeSettings(("ridge",), budgets=(50,), repeats=1)
    first = probe([path], tmp_path / "one", asked, workers=1)
    write(path, seed=1)
    second = probe([path], tmp_path / "two", asked, workers=1)
    assert means(first, n=50)[0]["r2_mean"] != means(second, n=50)[0]["r2_mean"]


def test_held_out_folds_have_no_say_in_the_penalty(tmp_path, monkeypatch):
    from covermap.verbs import probe as module

    told, choose = [], module._one_penalty
    monkeypatch.setattr(module, "_one_penalty", lambda area, settings: told.append(area) or choose(area, settings))
    asked = ProbeSettings(("ridge",), budgets=(20,), repeats=3, folds=3, block=2, penalty="once")
    probe([write(tmp_path / "e.parquet")], tmp_path / "out", asked, workers=1)
    assert [area.repeat for area in told] == [0, 1, 2]


def test_a_test_part_without_targets_is_refused(tmp_path):
    import pyarrow.parquet

    path = write(tmp_path / "e.parquet", part=lambda col: "test" if col > 6 else "train")
    table = pyarrow.parquet.read_table(path)
    pixels = [[0, 0, 0] if part == "test" else own for part, own in
              zip(table["part"].to_pylist(), table["class_pixels"].to_pylist(), strict=True)]  # fmt: skip
    at = table.column_names.index("class_pixels")
    pyarrow.parquet.write_table(table.set_column(at, "class_pixels", pyarrow.array(pixels)), path)
    with pytest.raises(DataError, match="no chip of the test part has a target"):
        probe([path], tmp_path / "out")


def test_raw_statistics_of_missing_sensors_leave_the_baseline_out(tmp_path):
    import pyarrow.parquet

    path = write(tmp_path / "e.parquet")
    table = pyarrow.parquet.read_table(path)
    raw = [[1.0, float("nan"), 0.0] if i == 7 else own for i, own in enumerate(table["raw_statistics"].to_pylist())]
    at = table.column_names.index("raw_statistics")
    table = table.set_column(at, "raw_statistics", pyarrow.array(raw, pyarrow.list_(pyarrow.float32())))
    pyarrow.parquet.write_table(table, path)
    found = probe([path], tmp_path / "out", ProbeSettings(("raw", "ridge"), budgets=(50,), repeats=1), workers=1)
    assert {row["probe"] for row in found.rows} == {"ridge"}
    assert "lack raw statistics of some sensors" in found.notes[0]


def test_a_chip_that_is_given_twice_is_refused(tmp_path):
    one, two = write(tmp_path / "e.parquet"), write(tmp_path / "f.parquet")
    with pytest.raises(DataError, match="300 chips of"):
        probe([one, two], tmp_path / "out")


def test_embeddings_of_two_encoders_are_not_mixed(tmp_path):
    paths = [write(tmp_path / f"{name}.parquet", encoder=name) for name in ("one", "other")]
    with pytest.raises(DataError, match="different encoders"):
        probe(paths, tmp_path / "out")


def test_command(tmp_path, capsys):
    from covermap.cli import app

    path = write(tmp_path / "e.parquet")
    app(["probe", str(path), str(tmp_path / "out"), "--budgets", "20,50", "--quiet"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "300 chips, 12 features" in said
    for odd, message in ((["--budgets", "a"], "no whole numbers"), (["--penalty", "-1"], "neither loo")):
        with pytest.raises(ConfigError, match=message):
            app(["probe", str(path), str(tmp_path / "x"), *odd], standalone_mode=False)
    with pytest.raises(ConfigError, match="folder for the results"):
        app(["probe", str(path)], standalone_mode=False)
