"""A network that goes on from an earlier one (model.start), by stages of pixel size (E4), or beside its features (E5)."""

import json

import geopandas as gpd
import numpy as np
import pytest
import torch
from shapely import box

from covermap.core.config_file import load_config, parse_config
from covermap.core.errors import BandError, ConfigError, GridError, ModelError, OutputError
from covermap.core.registry import find
from covermap.data.scene import open_scenes
from covermap.data.split import PARTS, Split, Tile
from covermap.earlier import with_earlier_parts
from covermap.geo.grid import Window
from covermap.models import load_model, read_card
from covermap.start import build_network, prepare_run
from covermap.verbs.evaluate import evaluate
from covermap.verbs.predict import predict
from covermap.verbs.stages import plan_stages, scaled_split
from covermap.verbs.train import Loop, train
from tests.conftest import landscape


def with_(raw, name, model=None, train=None, **top):
    raw = json.loads(json.dumps(raw)) | {"name": name, "baseline": False} | top
    raw["model"] = raw.get("model", {}) | (model or {})
    raw["train"] = raw.get("train", {}) | (train or {})
    return parse_config(raw)


@pytest.fixture
def first(tiny):
    """A run of two epochs."""
    return train(with_(tiny, "first", train={"epochs": 2}))


def test_it_goes_on_from_an_earlier_model(tiny, first):
    raw = {key: value for key, value in tiny.items() if key != "model"}  # its parts are those of the earlier model
    config = with_earlier_parts(with_(raw, "second", model={"start": str(first.folder)}, train={"epochs": 1}))
    ready = prepare_run(config)
    network = build_network(config, ready)
    theirs = load_model(first.path("model"))
    arrays = theirs.arrays()
    assert all(np.array_equal(value.numpy(), arrays[name]) for name, value in network.state_dict().items())
    assert ready.spec.sensors[0].mean == theirs.spec.sensors[0].mean
    run = train(config)
    facts = read_card(run.path("model")).facts
    assert facts["started_from"] == str(first.folder)
    assert len(facts["started_from_sha256"]) == 64


def test_head_alone_of_an_earlier_model(tiny, first):
    start = {"start": str(first.path("model")), "adapt": "head"}
    run = train(with_(tiny, "head", model=start, train={"epochs": 1, "lr": 0.01}))
    before, after = load_model(first.path("model")).arrays(), load_model(run.path("model")).arrays()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"decoder.classify.weight", "decoder.classify.bias"}


def test_a_file_with_start_names_no_parts(tiny, first, tmp_path):
    other = train(with_(tiny, "other", model={"decoder": "fcn", "backbone_options": {"widths": [8, 16]}}))
    raw = {key: value for key, value in tiny.items() if key != "model"} | {"model": {"start": str(other.folder)}}
    (tmp_path / "c.yaml").write_text(json.dumps(raw))
    config = with_earlier_parts(load_config(tmp_path / "c.yaml"))
    assert (config.model.decoder, config.model.backbone) == ("fcn", "unet")


def test_a_head_behind_random_layers_is_refused(tiny):
    ready = prepare_run(with_(tiny, "plain"))
    config = with_(tiny, "head", model={"adapt": "head"})
    with pytest.raises(ConfigError, match="parameters of neck and decoder unet at random weights"):
        build_network(config, ready)


@pytest.mark.parametrize("change", [{"start": True}, {"extra": True}, {}])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(tiny, first, monkeypatch, write_tif, change):
    """Also from a model of other data, whose scaling it keeps; with an empty change by stages."""
    _, image = landscape(seed=3)
    data = tiny["data"] | {"image": write_tif("dark.tif", image // 2, bands=["green", "red", "nir"], nodata=0)}
    raw = tiny | {"data": data} | ({} if change else {"stages": [{"gsd_m": 20}, {"gsd_m": 10}]})
    model = {key: str(first.folder) for key in change}
    whole = train(with_(raw, "whole", model=model, train={"epochs": 2}))
    saved, calls = Loop.save, []

    def stop(self):
        saved(self)
        calls.append(self.epoch)
        if len(calls) == 1 + 2 * (not change):  # in stages after the first epoch of the second
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        train(with_(raw, "parts", model=model, train={"epochs": 2}))
    monkeypatch.setattr(Loop, "save", saved)
    parts = train(with_(raw, "parts", model=model, train={"epochs": 2}), resume=True)
    one, two = (load_model(run.path("model")) for run in (whole, parts))
    assert one.spec == two.spec
    arrays = two.arrays()
    assert all(np.array_equal(value, arrays[name]) for name, value in one.arrays().items())
    kept = [{key: value for key, value in row.items() if key != "run"} for row in stages_of(whole)]
    assert kept == [{key: value for key, value in row.items() if key != "run"} for row in stages_of(parts)]


def stages_of(run):
    return run.read_json("stages.json") if run.path("stages.json").is_file() else []


def test_stages_are_not_resumed_with_another_split(tiny, monkeypatch):
    raw = tiny | {"stages": [{"gsd_m": 20}, {"gsd_m": 10}]}
    monkeypatch.setattr("covermap.verbs.train.evaluate", raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(with_(raw, "staged", train={"epochs": 1}))
    monkeypatch.undo()
    other = raw | {"split": raw["split"] | {"seed": 5}}
    with pytest.raises(OutputError, match="started with another split"):
        train(with_(other, "staged", train={"epochs": 1}), resume=True)
    run = train(with_(other, "staged", train={"epochs": 1}), overwrite=True)
    assert run.path("stages.json").is_file()
    train(with_(tiny, "staged", train={"epochs": 1}), overwrite=True)
    assert not run.path("stages.json").exists()
    assert not run.path("stages").exists()


def raise_interrupt(*arguments, **settings):
    raise KeyboardInterrupt


def test_own_numbers_of_scenes_stay_so(tiny):
    old = train(with_(tiny, "own", train={"epochs": 1, "normalise": "scene"}))
    config = with_(tiny, "next", model={"start": str(old.folder)})
    assert prepare_run(config).spec.sensors[0].per_scene


def test_elevation_does_not_move_the_grid_of_a_stage(tiny, write_tif):
    """A coarser second image that begins elsewhere, named first: all stages stand on the finest image's corner."""
    dem = write_tif("dem.tif", np.arange(40 * 50, dtype="float32").reshape(40, 50), gsd=30, origin=(499_910, 5_000_070))
    images = [{"path": dem, "sensor": "dem"}, {"path": tiny["data"]["image"]}]
    raw = tiny | {"data": tiny["data"] | {"image": images}, "stages": [{"gsd_m": 20}, {"gsd_m": 10}]}
    plans = plan_stages(with_(raw, "staged"))
    corners = [open_scenes(plan.config.data)[0].grid.bounds for plan in plans]
    assert all(bounds[0] == 500_000 and bounds[3] == 5_000_000 for bounds in corners)


def test_polygons_do_not_change_sides(tiny, tmp_path):
    rng = np.random.default_rng(0)
    places = [
        box(x, y, x + 25, y + 25)
        for x, y in zip(rng.uniform(500_000, 501_200, 300), rng.uniform(4_999_100, 4_999_950, 300), strict=True)
    ]
    table = gpd.GeoDataFrame({"class": rng.choice(["field", "water"], 300)}, geometry=places, crs="EPSG:32631")
    table.to_file(tmp_path / "p.gpkg")
    data = {"image": tiny["data"]["image"], "labels": str(tmp_path / "p.gpkg"), "field": "class"}
    fine = open_scenes(parse_config(tiny | {"data": data}).data)
    coarse = open_scenes(parse_config(tiny | {"data": data | {"gsd_m": 40}}).data)
    name = fine[0].name
    split = Split((Tile(name, Window(0, 0, 96, 64), "test"), Tile(name, Window(0, 64, 96, 64), "train")), 0)
    scaled = scaled_split(split, fine, coarse)
    before, after = (
        {
            n: one.part_of_object(scene, n)
            for n, _, _ in scene.labels.object_windows()
            if (name, n) not in scaled.dropped
        }
        for one, scene in ((split, fine[0]), (scaled, coarse[0]))
    )
    assert before == after
    assert len(before) > 200


def test_ground_of_other_scenes_keeps_its_part(tiny):
    fine = open_scenes(parse_config(tiny).data)
    coarse = open_scenes(parse_config(tiny | {"data": tiny["data"] | {"gsd_m": 30, "align": "mode"}}).data)
    name = fine[0].name
    split = Split((Tile(name, Window(0, 0, 96, 128), "test"), Tile(name, Window(0, 0, 50, 50), "test elsewhere")), 0)
    assert (part_of(scaled_split(split, fine, coarse), name, (32, 42)) == 3).all()


def test_weights_of_a_class_follow_its_name(tiny, first):
    legend = {1: "water", 2: "forest", 3: "field"}
    old = train(with_(tiny, "named", data=tiny["data"] | {"legend": legend}, train={"epochs": 1}))
    other = {1: "forest", 2: "meadow", 3: "water"}
    config = with_(tiny, "other", data=tiny["data"] | {"legend": other}, model={"start": str(old.path("model"))})
    ready = prepare_run(config)
    network = build_network(config, ready)
    assert any("new classes: meadow" in note for note in ready.notes)
    mine = network.state_dict()["decoder.classify.bias"].numpy()
    theirs = load_model(old.path("model")).arrays()["decoder.classify.bias"]
    names = ready.scenes[0].legend.names
    assert mine[names.index("water")] == theirs[0]
    assert mine[names.index("forest")] == theirs[1]


@pytest.mark.parametrize(
    ("model", "data", "error", "said"),
    [
        (
            {"backbone": "unet+resnet18", "start": None, "weights": "none", "adapt": "frozen"},
            {},
            ConfigError,
            "keeps unet and resnet18 at",
        ),
        ({"decoder": "fcn"}, {}, ModelError, "has decoder unet, the config asks for fcn"),
        ({"backbone": "resnet18", "backbone_options": {}}, {}, ModelError, "has backbone unet"),
        ({"weights": "x.pt"}, {}, ConfigError, "weights has no effect"),
        ({}, {"use": ["nir", "red"]}, BandError, "was trained on"),
        ({"start": "."}, {}, ModelError, "is not a model folder"),
    ],
)
def test_an_earlier_model_that_does_not_fit_is_refused(tiny, first, model, data, error, said):
    model = {"start": str(first.path("model"))} | model
    with pytest.raises(error, match=said):
        prepare_run(with_(tiny, "bad", model=model, data=tiny["data"] | data))


def test_features_of_an_earlier_network_are_kept_in_the_model_folder(tiny, first, tmp_path):
    config = with_(tiny, "both", model={"extra": str(first.path("model"))}, train={"epochs": 2})
    run = train(config)
    network = load_model(run.path("model"))
    theirs = load_model(first.path("model")).arrays()
    inner = {k.removeprefix("extra.network."): v for k, v in network.arrays().items() if k.startswith("extra.network.")}
    assert inner.keys() == {name for name in theirs if not name.startswith("decoder.")}
    assert all(np.array_equal(inner[name], theirs[name]) for name in inner)
    assert read_card(run.path("model")).facts["extra_from"] == str(first.path("model"))
    first.path("model").rename(tmp_path / "gone")  # the folder holds all that prediction needs
    assert evaluate(run)["models"]["network"]["scores"]["oa"] > 0.3
    predict(run.path("model"), tiny["data"]["image"], tmp_path / "map.tif")


def test_features_of_another_pixel_size_are_refused(tiny, first):
    data = tiny["data"] | {"image": [{"path": tiny["data"]["image"], "gsd_m": 20}], "align": "mode"}
    with pytest.raises(GridError, match="was trained at 10 m"):
        train(with_(tiny, "coarse", model={"extra": str(first.folder)}, data=data))


def test_stages_by_pixel_size(tiny):
    stages = [{"gsd_m": 20, "train": {"epochs": 2, "lr": 0.003}}, {"gsd_m": 10}]
    raw = tiny | {"stages": stages, "split": {"val": {"cols": [70, 95]}, "test": {"cols": [97, 128]}, "buffer_px": 2}}
    config = with_(raw, "staged", train={"epochs": 1, "size_px": 32})
    run = train(config)
    assert run.folder == config.folder
    coarse = config.folder / "stages/1_20m"
    rows = run.read_json("stages.json")
    assert [row["gsd_m"] for row in rows] == [20, 10]
    assert "miou" in rows[0]["test"]
    assert "val_miou" in rows[1]
    assert len((coarse / "log.csv").read_text().splitlines()) == 3
    assert read_card(run.path("model")).facts["started_from"] == str(coarse / "model")
    assert read_card(coarse / "model").spec.gsd_m == 20
    # No coarse pixel that holds ground of the test may teach.
    fine, large = Split.load(run.path("split.csv")), Split.load(coarse / "split.csv")
    scene = open_scenes(run.config.data)[0]
    small, big = (part_of(split, scene.name, shape) for split, shape in ((fine, (96, 128)), (large, (48, 64))))
    taught = np.repeat(np.repeat(big == PARTS.index("train"), 2, 0), 2, 1)
    assert taught.any()
    assert not (taught & (small >= PARTS.index("val"))).any()
    with pytest.raises(OutputError, match="holds a run already"):
        train(config)
    again = train(config, resume=True)
    assert again.read_json("stages.json") == rows


def part_of(split, scene, shape):
    return split.part_mask(scene, Window(0, 0, *shape))


def test_a_split_on_larger_pixels_leaves_out_what_lies_between(tiny):
    fine = open_scenes(parse_config(tiny).data)
    data = tiny["data"] | {"gsd_m": 30, "align": "mode"}
    coarse = open_scenes(parse_config(tiny | {"data": data}).data)
    name = fine[0].name
    split = Split((Tile(name, Window(0, 0, 96, 64), "train"), Tile(name, Window(0, 64, 96, 64), "test")), 4)
    found = scaled_split(split, fine, coarse)
    assert found.buffer_px == 2
    parts = part_of(found, name, (32, 43))
    assert (parts[:, 21] == 0).all()  # its pixels are fine columns 63 to 65
    assert (parts[:, 22:42] == 3).all()
    assert (parts[:, :20] == 1).all()
    assert (parts[:, 20] == 0).all()  # fine columns 60 to 62, nearer than 4 px to the test


def test_stages_of_tiles_without_a_place_on_the_ground(tmp_path):
    find("source", "wusu").write_miniature(tmp_path)
    raw = {
        "name": "wusu", "output": str(tmp_path / "runs"), "baseline": False, "split": {"method": "source"},
        "data": {"source": "wusu", "root": str(tmp_path), "options": {"dates": "single"}, "align": "mode"},
        "model": {"backbone": "unet", "backbone_options": {"widths": [8, 16]}},
        "train": {"size_px": 32, "epochs": 1}, "stages": [{"gsd_m": 4}, {"gsd_m": 1}],
    }  # fmt: skip
    run = train(parse_config(raw))
    rows = run.read_json("stages.json")
    assert [row["gsd_m"] for row in rows] == [4, 1]
    fine, coarse = (Split.load(folder / "split.csv") for folder in (run.folder, run.folder / "stages/1_4m"))
    assert [tile.part for tile in fine.tiles] == [tile.part for tile in coarse.tiles]
    assert {(t.window.height, c.window.height) for t, c in zip(fine.tiles, coarse.tiles, strict=True)} == {(64, 16)}


@pytest.mark.parametrize(
    "stages", [[{"gsd_m": 10}], [{"gsd_m": 5}, {"gsd_m": 10}], [{"gsd_m": 20, "train": {"rate": 1}}, {"gsd_m": 10}]]
)
def test_stages_that_make_no_sense_are_refused(tiny, stages):
    with pytest.raises(ConfigError, match=r"coarse pixels first|unknown key rate"):
        train(with_(tiny, "bad", stages=stages))


def test_precision_follows_the_device(tiny, monkeypatch):
    run = train(with_(tiny, "auto", train={"epochs": 1, "precision": "auto"}))
    same = train(with_(tiny, "plain", train={"epochs": 1}))
    able = torch.cpu.get_capabilities()
    if not (able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16")):
        assert run.read_log()[0]["loss"] == same.read_log()[0]["loss"]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    low = train(with_(tiny, "low", train={"epochs": 1, "precision": "auto"}))
    assert low.read_log()[0]["loss"] != same.read_log()[0]["loss"]
    assert low.read_log()[0]["loss"] == pytest.approx(same.read_log()[0]["loss"], rel=0.05)


def test_compiled_steps_are_the_same_steps(tiny, monkeypatch):
    plain = train(with_(tiny, "plain", train={"epochs": 1}))
    compiled, calls = torch.compile, []

    def traced(network):
        """Without the C++ compiler's minutes: the graphs are captured, and run as they are."""
        calls.append(network)
        return compiled(network, backend="eager")

    monkeypatch.setattr(torch, "compile", traced)
    run = train(with_(tiny, "compiled", train={"epochs": 1, "compile": True}))
    assert len(calls) == 1
    assert run.read_log()[0]["loss"] == pytest.approx(plain.read_log()[0]["loss"], rel=1e-5)

    def broken(graph, inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", lambda network: compiled(network, backend=broken))
    with pytest.raises(ConfigError, match="cannot be compiled here") as caught:
        train(with_(tiny, "broken", train={"epochs": 1, "compile": True}))
    assert "leave it out" in caught.value.fix


@pytest.mark.slow
def test_compiled_in_earnest(tiny):
    plain = train(with_(tiny, "plain", train={"epochs": 2}))
    run = train(with_(tiny, "compiled", train={"epochs": 2, "compile": True}))
    for mine, theirs in zip(run.read_log(), plain.read_log(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
