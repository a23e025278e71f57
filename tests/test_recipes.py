"""Every recipe is a valid config with a header; on the real data, where it is there, each passes `check`."""

from pathlib import Path

import pytest

from covermap.core.config_file import load_config
from covermap.verbs.check import check

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
    found = check(load_config(path))
    assert sum(row["train"] for row in found["classes"]) > 0
    assert sum(row["test"] for row in found["classes"]) > 0


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
