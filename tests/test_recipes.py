"""Every recipe is a valid config with a header; on the real data, where it is there, each passes `check`."""

from pathlib import Path

import pytest

from covermap.core.config_file import load_config, read_settings
from covermap.core.pretrain_config import load_pretrain_config
from covermap.core.pretraining_plan import load_pretraining
from covermap.core.registry import find
from covermap.core.study_plan import load_plan
from covermap.verbs.check import check
from covermap.verbs.evaluate import evaluate
from covermap.verbs.pretrain import pretrain
from covermap.verbs.study import scores_of_plan
from covermap.verbs.train import train

RECIPES = sorted((Path(__file__).resolve().parent.parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_load_and_state_their_command(path):
    config = load_config(path)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"covermap run recipes/{path.name}" in line for line in header)
    for key in ("hardware:", "time:", "score:"):
        assert any(line.startswith(f"# {key}") for line in header), f"{path.name} does not state its {key}"
    assert config.name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_fit_the_real_data(path, shared):
    config = load_config(path)
    if config.data.root and not Path(config.data.root).is_dir():
        pytest.skip(f"needs the data set {config.data.source}, which is not among the real data")
    found = check(config)
    assert sum(row["train"] for row in found["classes"]) > 0
    assert sum(row["test"] for row in found["classes"]) > 0


STUDIES = sorted((Path(__file__).resolve().parent.parent / "recipes/studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_plans_of_studies_build_all_their_cells_and_state_their_command(path, tmp_path):
    if read_settings(path)["kind"] == "pretraining":
        assert len(load_pretraining(path, tmp_path).recipes) >= 18
    else:
        loaded = load_plan(path, tmp_path)
        assert len(loaded.cells) >= 20
        assert scores_of_plan(loaded)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"covermap study run recipes/studies/{path.name}" in line for line in header)
    for key in ("hardware:", "time:", "expect:"):
        assert any(line.startswith(f"# {key}") for line in header), f"{path.name} does not state its {key}"


PRETRAINING = sorted((Path(__file__).resolve().parent.parent / "recipes/pretraining").glob("*.yaml"))


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda p: p.stem)
def test_recipes_of_pretraining_learn_and_state_their_command(path, tmp_path, shared):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"covermap pretrain recipes/pretraining/{path.name}" in line for line in header)
    for key in ("hardware:", "time:", "score:"):
        assert any(line.startswith(f"# {key}") for line in header), f"{path.name} does not state its {key}"
    config = load_pretrain_config(path, [f"output={tmp_path}", "train.steps=1", "train.batch_size=4"])
    assert config.name == path.stem
    rows = pretrain(config).read_log()
    assert rows[-1]["loss"] > 0
    assert {"probe_r2", "probe_r2_raw"} <= set(rows[0])


CHANGE = ("second", "levir", "wusu", "hrscd", "hiucd", "dynamicearthnet", "oscd_change")


@pytest.mark.parametrize("name", CHANGE)
def test_recipes_of_change_learn_from_miniatures(name, tmp_path):
    config = load_config(RECIPES[0].parent / f"{name}.yaml", overrides=[
        f"data.root={tmp_path / 'data'}", f"output={tmp_path}", "train.epochs=1", "train.steps_per_epoch=2",
        "train.size_px=32", "train.batch_size=2", "model.backbone_options={widths: [8, 16]}", "baseline={trees: 3}",
        *(["split.test=[norcia]", "split.val=0.2", "split.method=blocks"] if name == "oscd_change" else []),
    ])  # fmt: skip
    find("source", config.data.source).write_miniature(tmp_path / "data")
    run = train(config)
    (network, *_) = evaluate(run)["models"].values()
    assert network["scores"]["num_pixels"] > 1000
    assert network["scores"]["loss"] > 0


def test_gewata_is_split_as_part_1_asks(shared):
    from covermap.data.make_split import make_split
    from covermap.data.scene import open_scenes
    from covermap.data.split import PARTS

    config = load_config(RECIPES[0].parent / "gewata.yaml")
    scene = open_scenes(config.data)[0]
    mask = make_split([scene], config.split, size_px=128).part_mask(scene.name, scene.grid.window)
    assert (mask[:, 740:] == PARTS.index("test")).all()
    assert (mask[:, 700:740] == 0).all()
    assert not (mask[:, :700] == PARTS.index("test")).any()
