"""Studies of label budgets on generated scenes: curves, answers, going on, what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

from covermap.core.errors import ConfigError, DataError, OutputError
from covermap.verbs.study import study

pytest.importorskip("pyarrow", reason="extra [parquet]")
UNET = {"model.backbone": "unet", "model.backbone_options": {"widths": [8, 16]}}


@pytest.fixture
def plan(tmp_path):
    """Three scenes of 96 px: classes in patches of 16 px, whose bands tell them but for noise."""
    random = np.random.default_rng(0)
    for name in "abc":
        classes = np.kron(random.integers(1, 4, (12, 12)), np.ones((8, 8), int)).astype(np.uint8)
        bands = np.stack([np.where(classes == k, 1.0, 0.2) for k in (1, 2, 3)]) + 0.1 * random.standard_normal(
            (3, 96, 96)
        )
        profile = {"driver": "GTiff", "height": 96, "width": 96, "crs": "EPSG:32632",
                   "transform": from_origin(5e5 + 1e4 * ord(name), 5e6, 10, 10)}  # fmt: skip
        for folder, values, dtype in (
            ("images", bands.astype(np.float32), "float32"),
            ("labels", classes[None], "uint8"),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            with rasterio.open(
                tmp_path / folder / f"{name}.tif", "w", count=len(values), dtype=dtype, **profile
            ) as file:
                file.write(values)
    config = {
        "data": {"image": [{"path": "images/*.tif", "bands": ["red", "green", "blue"]}], "labels": "labels/*.tif",
                 "legend": {1: "water", 2: "trees", 3: "bare"}},
        "split": {"method": "regions", "test": ["a"], "val": ["b"]},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return {
        "title": "here or elsewhere", "kind": "label_budget", "config": "config.yaml", "encoders": {"network": dict(UNET)},
        "size_px": 8, "areas": "scene", "budgets": [5, 15, 30, 500], "repeats": 4, "block": 2, "labels": "generated",
    }  # fmt: skip


def write(plan, tmp_path, **changes):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan | changes))
    return path


def test_curves_answer_and_page(plan, tmp_path):
    found = study(write(plan, tmp_path), tmp_path / "out")
    assert found.finished == ["network"]
    told = json.loads((tmp_path / "out/study.json").read_text())
    learners = {row["learner"]: row for row in told["learners"]}
    assert set(learners) == {"network, ridge", "network, knn", "raw", "constant"}
    assert told["budgets"] == [5, 15, 30]
    raw = learners["raw"]["here"]
    assert raw["5"] < raw["15"] < raw["30"]
    assert learners["raw"]["elsewhere"] > 0.9  # the same everywhere
    assert learners["constant"]["here"]["30"] < 0.05
    assert learners["raw"]["labels_elsewhere"] == 2 * 144
    assert "elsewhere" in told["conclusion"]
    assert "not every area has chips for budgets of 500" in " ".join(told["notes"])
    assert told["notes"][0] == "labels: generated"
    page = (tmp_path / "out/report.html").read_text()
    assert told["conclusion"].split(". ")[0] in page
    assert page.count("data:image/svg") == 2
    head, *rows = (tmp_path / "out/label_budget.csv").read_text().splitlines()
    assert head.startswith("encoder,probe,elsewhere,labels elsewhere,break-even")
    assert len(rows) == 4
    assert "### Hypothesis" in (tmp_path / "out/LOG.md").read_text()


def test_the_same_call_goes_on_and_encoders_may_be_added(plan, tmp_path):
    study(write(plan, tmp_path), tmp_path / "out")
    kept = (tmp_path / "out/embeddings/network.parquet").stat().st_mtime_ns
    first = json.loads((tmp_path / "out/study.json").read_text())
    more = plan["encoders"] | {"other seed": UNET | {"train.seed": 1}}
    found = study(write(plan, tmp_path, encoders=more), tmp_path / "out")
    assert (found.skipped, found.finished) == (["network"], ["other seed"])
    assert (tmp_path / "out/embeddings/network.parquet").stat().st_mtime_ns == kept
    second = json.loads((tmp_path / "out/study.json").read_text())
    assert second["learners"][: len(first["learners"])] == first["learners"]
    with pytest.raises(OutputError, match="another plan"):
        study(write(plan, tmp_path, repeats=5), tmp_path / "out")
    with pytest.raises(OutputError, match="encoder network"):
        study(write(plan, tmp_path, encoders={"network": UNET | {"train.seed": 3}}), tmp_path / "out")
    (tmp_path / "labels/a.tif").touch()
    with pytest.raises(DataError, match=r"labels/a\.tif has changed since"):
        study(write(plan, tmp_path, encoders=more), tmp_path / "out")


def test_an_encoder_that_fails_is_recorded_and_the_others_go_on(plan, tmp_path):
    encoders = {"broken": {"model.backbone": "unet", "model.weights": str(tmp_path / "none.pt")}, **plan["encoders"]}
    found = study(write(plan, tmp_path, encoders=encoders), tmp_path / "out")
    assert list(found.failed) == ["broken"]
    assert found.finished == ["network"]
    assert "broken failed" in (tmp_path / "out/report.html").read_text()
    with pytest.raises(DataError, match="no encoder"):
        study(write(plan, tmp_path, encoders={"broken": encoders["broken"]}), tmp_path / "none")


def test_an_encoder_that_was_mended_does_not_change_what_is_asked_of_the_others(plan, tmp_path, monkeypatch):
    from covermap.verbs import label_budget as module

    encoders = {"mended": UNET | {"train.seed": 1}, **plan["encoders"]}
    path, work = write(plan, tmp_path, encoders=encoders), module.embed

    def fail(config, out, **more):
        if out.stem == "mended":
            raise DataError("no weights", fix="pull them")
        return work(config, out, **more)

    monkeypatch.setattr(module, "embed", fail)
    assert list(study(path, tmp_path / "out").failed) == ["mended"]
    monkeypatch.setattr(module, "embed", work)
    found = study(path, tmp_path / "out")
    assert not found.failed
    told = [row["learner"] for row in found.summary["learners"]]
    assert told == ["mended, ridge", "mended, knn", "raw", "constant", "network, ridge", "network, knn"]


def test_nothing_is_left_of_a_plan_that_was_overwritten_and_stopped(plan, tmp_path, monkeypatch):
    from covermap.verbs import label_budget as module

    both = {"network": UNET, "other": UNET | {"train.seed": 1}}
    study(write(plan, tmp_path, encoders=both), tmp_path / "out")
    both["other"] = UNET | {"train.seed": 2}
    path, work = write(plan, tmp_path, encoders=both), module.embed

    def stop(config, out, **more):
        if out.stem == "other":
            raise KeyboardInterrupt
        return work(config, out, **more)

    monkeypatch.setattr(module, "embed", stop)
    with pytest.raises(KeyboardInterrupt):
        study(path, tmp_path / "out", overwrite=True)
    monkeypatch.setattr(module, "embed", work)
    found = study(path, tmp_path / "out")
    assert (found.skipped, found.finished) == (["network"], ["other"])


@pytest.mark.parametrize(("budgets", "failed"), [([5, 15], []), ([5, 15, 30], ["network"])])
def test_encoders_with_other_chips_are_not_compared_by_position(plan, tmp_path, budgets, failed):
    shutil.copytree(tmp_path / "images", tmp_path / "clear")
    with rasterio.open(tmp_path / "images/a.tif", "r+") as file:
        values = file.read()
        values[:, :48] = np.nan
        file.write(values)
    clear = {"path": "clear/*.tif", "bands": ["red", "green", "blue"]}
    encoders = {"clear": UNET | {"data.image": [clear]}} | plan["encoders"]
    found = study(write(plan, tmp_path, encoders=encoders, budgets=budgets), tmp_path / "out")
    assert list(found.failed) == failed
    if failed:
        assert "network has chips for 2 budgets in 3 areas, clear for 3 in 3" in found.failed["network"]
    else:
        assert "network and clear have other chips: differences" in " ".join(found.summary["notes"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoders": {"network": {"model.bakbone": "unet"}}}, "unknown key model.bakbone"),
        ({"budget": [5]}, "unknown key budget"),
        ({"budgets": [20, 5]}, "do not rise"),
        ({"encoders": {"a b": dict(UNET), "a_b": dict(UNET)}}, "one file name"),
    ],
)
def test_what_is_wrong_in_the_plan_is_refused_first(plan, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        study(write(plan, tmp_path, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_area_teaches_nothing_elsewhere(plan, tmp_path):
    for name in "bc":
        (tmp_path / f"images/{name}.tif").unlink()
        (tmp_path / f"labels/{name}.tif").unlink()
    raw = yaml.safe_load((tmp_path / "config.yaml").read_text()) | {"split": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(DataError, match="holds one scene only"):
        study(write(plan, tmp_path), tmp_path / "out")


def test_command(plan, tmp_path, capsys):
    from covermap.cli import app

    path = write(plan, tmp_path)
    app(["study", "run", str(path), str(tmp_path / "out"), "--dry-run"], standalone_mode=False)
    assert "1 cells, 0 of them finished" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    app(["study", "run", str(path), str(tmp_path / "out"), "--quiet"], standalone_mode=False)
    said = capsys.readouterr().out
    assert "recommended" in said
    assert "report.html" in said
