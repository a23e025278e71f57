"""Recipes of published experiments: whole as they are, they fit their layout; small, they run (slow)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights

from covermap.core.config import DataConfig, RunConfig
from covermap.core.config_file import load_config, read_settings
from covermap.core.label_budget_plan import load_label_budget
from covermap.core.legend import Legend
from covermap.core.pretrain_config import load_pretrain_config
from covermap.core.pretraining_plan import load_pretraining
from covermap.core.registry import find
from covermap.core.run import Run
from covermap.core.study_plan import load_plan
from covermap.core.task import make_task
from covermap.core.types import InputSpec, SensorInput
from covermap.data.scene import Scene, open_scenes
from covermap.data.simulate_events import EventRecipe, write_event
from covermap.data.tiles import Tiling
from covermap.nn.build import build_model
from covermap.nn.losses.expression import make_loss
from covermap.start import build_arguments
from covermap.verbs import study as study_module
from covermap.verbs import study_cell
from covermap.verbs.change_study import change_study
from covermap.verbs.evaluate import evaluate
from covermap.verbs.prepare import prepare
from covermap.verbs.prepare_scenes import prepare_scenes
from covermap.verbs.pretrain import pretrain
from covermap.verbs.study import scores_of_plan, study
from covermap.verbs.train import train
from tests.recipe_headers import BEGIN, ROOT, TABLE, Header, all_headers, read_header, table

KEYS = ("system", "command", "small", "full", "hardware", "time", "expect", "authors", "differs", "works", "measured")
HEADERS = [header for header in all_headers() if header.path.parent.name.startswith("s") and "small" in header.about]
NAMES = [header.name for header in HEADERS]
SYSTEMS = {"S0", "S1", "S2", "S3", *(f"S4{letter}" for letter in "abcdefghij")}


def test_every_system_has_a_recipe():
    assert {header.about["system"] for header in HEADERS} == SYSTEMS


def test_the_table_is_that_of_the_headers():
    text = TABLE.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) :] == table(), "call: python -m tests.recipe_headers"


@pytest.mark.parametrize("header", all_headers(), ids=lambda h: h.name)
def test_what_was_measured_names_a_file_that_is_there(header):
    words = header.about["measured"].replace(",", " ").replace(":", " ").split()
    named = [word.rstrip(".;") for word in words if word.startswith(("benchmarks/", "recipes/"))]
    assert named or header.about["measured"].startswith("not measured here: needs")
    assert all((ROOT / name).exists() for name in named), named


@pytest.mark.parametrize("header", HEADERS, ids=NAMES)
def test_headers_state_command_settings_and_what_was_reported(header):
    assert list(header.about) == list(KEYS)
    assert f"recipes/{header.name}.yaml" in header.about["command"]
    raw = read_settings(header.path)
    if header.verb != "study":
        assert raw["name"] == header.name.replace("/", "_")


def configs_of(header: Header, out: Path) -> list[RunConfig]:
    """Every config that a recipe trains or embeds with, with its settings for the whole data."""
    if header.verb == "pretrain":
        return [load_pretrain_config(header.path).whole]
    if header.verb != "study":
        return [load_config(header.path)]
    kind = read_settings(header.path)["kind"]
    if kind == "label_budget":
        return list(load_label_budget(header.path).configs.values())
    if kind == "pretraining":
        return [recipe.whole for recipe in load_pretraining(header.path, out).recipes.values()]
    loaded = load_plan(header.path, out)
    assert scores_of_plan(loaded)
    return [cell.config for cell in loaded.cells if not cell.forest and cell.seed == loaded.plan.all_seeds[0]]


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """The folder of miniatures, each written when it is asked for."""
    root = tmp_path_factory.mktemp("recipes") / "mini"

    def of(layout: str) -> Path:
        if layout == "prepared":
            return _tiles(root, of("catalonia"))
        if not (root / layout).is_dir():
            (root / layout).mkdir(parents=True)
            find("source", layout).write_miniature(root / layout)
        return root / layout

    of.root = root
    return of


def _tiles(root: Path, catalonia: Path) -> Path:
    """Catalonia's miniature in tiles, as the cloud study takes them."""
    if not (root / "prepared").is_dir():
        config = load_config(ROOT / "recipes/s3/unet_resnet50.yaml", [f"data.root={catalonia}"])
        prepare_scenes(config, root / "prepared", tiling=Tiling(size_px=32))
    return root / "prepared"


def _scene(data: DataConfig, mini) -> Scene | None:
    """The first scene of a config's layout, read from its miniature; None where it names files."""
    if data.source is None:
        return None
    aois = {"aois": ["europe"]} if "aois" in data.options else {}
    return open_scenes(
        data.model_copy(update={"root": str(mini(data.source)), "options": {**data.options, **aois}, "leave_out": []})
    )[0]


def _spec(scene: Scene, size_px: int) -> InputSpec:
    entries = []
    for key, raster in scene.rasters.items():
        ones = (1.0,) * len(scene.bands[key])
        entries.append(SensorInput(key, scene.bands[key], ones, ones, num_dates=len(raster.sources)))
    return InputSpec(tuple(entries), scene.grid.gsd_m, size_px)


@pytest.mark.parametrize("header", HEADERS, ids=NAMES)
def test_recipes_fit_their_layout_and_name_parts_that_fit_each_other(header, mini, tmp_path):
    seen = set()
    for config in configs_of(header, tmp_path):
        scene = _scene(config.data, mini)
        key = (config.model.model_dump_json(), config.data.model_dump_json(), config.train.loss)
        if scene is None or key in seen:
            continue
        seen.add(key)
        legend: Legend | None = scene.legend
        if config.model.weights == "none":  # they learn from nothing, or are what others are compared with
            assert header.verb == "pretrain" or "random weights" in header.about["expect"]
        task = make_task(config.task_section, legend, dict(zip(*_numbers(scene), strict=True)))
        if Path(config.model.backbone).name.startswith("s4"):  # that of another recipe
            continue
        weights = torch.ones(task.num_answers) if task.kind.takes in ("classes", "order") else None
        assert make_loss(config.loss, config.train.loss_options, class_weights=weights)
        with init_empty_weights():
            build_model(
                _spec(scene, config.train.sizes_px[0]), task.num_channels, **build_arguments(config, None, None)
            )


def _numbers(scene: Scene) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (scene.target.names, scene.target.units) if scene.target else ((), ())


def _events(folder: Path) -> None:
    """Two generated landslides as FOLDER/LAYER/NAME.tif, and their density."""
    for name, seed in (("here", 3), ("there", 21)):
        recipe = EventRecipe("landslide", seed=seed, height=128, width=128, num_before=3, num_after=3)
        for path in write_event(recipe, folder / name).values():
            if path.suffix == ".tif":
                (folder / path.stem).mkdir(exist_ok=True)
                path.rename(folder / path.stem / f"{name}.tif")
        like, heads = folder / "dem" / f"{name}.tif", folder / name / "heads.csv"
        (folder / "density").mkdir(exist_ok=True)
        prepare(str(heads), folder / "density" / f"{name}.tif", like=str(like), density_m=300, epsg=32631)


def run_small(header: Header, mini, out: Path) -> None:
    """What the line `small` of a header says, in this process; its result lies in mini/runs where others need it."""
    raw = read_settings(header.path)
    config = raw.get("config", raw)
    layout = layout_of(header, config)
    for each in {layout, *re.findall(r"--layout (\w+)", header.about["small"])} - {None}:
        mini(each)
    if header.name == "s4i/density":
        _events(mini.root / "maria")
    if header.needs and not (mini.root / "runs" / header.needs.replace("/", "_")).is_dir():
        run_small(read_header(ROOT / "recipes" / f"{header.needs}.yaml"), mini, out)
    options = header.small(mini.root)
    if header.verb == "study":
        found = study(header.path, out / header.name, overrides=options)
        assert found.cells
        assert not found.failed, found.failed
        assert (out / header.name / "report.html").is_file()
        return
    options.append(f"output={mini.root / 'runs'}")
    if header.verb == "pretrain":
        assert pretrain(load_pretrain_config(header.path, options), overwrite=True).read_log()[-1]["loss"] > 0
    elif header.verb == "change-study":
        assert change_study(load_config(header.path, options), out / header.name).rows
    else:
        run: Run = train(load_config(header.path, options))
        assert evaluate(run)["models"]["network"]["scores"]


def layout_of(header: Header, config: dict | str) -> str | None:
    """The layout of a recipe's data, also of the config that its plan names."""
    while isinstance(config, str):
        config = read_settings(header.path.parent / config)
    return config["data"].get("source")


@pytest.mark.slow
@pytest.mark.parametrize("header", HEADERS, ids=NAMES)
def test_recipes_run_on_miniatures_as_their_headers_say(header, mini, tmp_path, request, monkeypatch):
    monkeypatch.setattr(study_module, "in_own_process", study_cell.main)  # a process of its own takes seconds to start
    if header.name == "s4a/lora_ranks":
        monkeypatch.setenv("COVERMAP_WEIGHTS", str(request.getfixturevalue("shared") / "weights"))
    run_small(header, mini, tmp_path)
