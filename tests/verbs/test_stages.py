"""A network that goes on from an earlier one (model.start), by stages of pixel size (E4), or beside its features (E5)."""

import json

import numpy as np
import pytest
import torch

from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, GridError, ModelError, OutputError
from covermap.data.scene import open_scenes
from covermap.data.split import PARTS, Split, Tile
from covermap.earlier import with_earlier_parts
from covermap.geo.grid import Window
from covermap.models import load_model, read_card
from covermap.start import build_network, prepare_run
from covermap.verbs.evaluate import evaluate
from covermap.verbs.predict import predict
from covermap.verbs.stages import scaled_split
from covermap.verbs.train import train


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
    assert inner.keys() == theirs.keys()
    assert all(np.array_equal(inner[name], theirs[name]) for name in theirs)
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
    data = tiny["data"] | {"image": [{"path": tiny["data"]["image"], "gsd_m": 30}], "align": "mode"}
    data.pop("labels")
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
