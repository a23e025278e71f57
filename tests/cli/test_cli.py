import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import yaml
from shapely import box

from covermap.core.config_file import load_config
from covermap.data.scene import open_scenes

VERBS = [
    "doctor",
    "info",
    "init",
    "check",
    "models",
    "prepare",
    "train",
    "evaluate",
    "predict",
    "sieve",
    "smooth",
    "polygonize",
    "sample",
    "assess",
    "compare",
    "report",
    "legend",
    "embed",
    "similar",
    "attention",
    "export",
    "run",
    "schema",
    "demo",
    "check-plugin",
    "study",
    "tune",
    "view",
]


@pytest.fixture
def config(tiny, tmp_path):
    """The tiny scene as covermap.yaml."""
    path = tmp_path / "covermap.yaml"
    path.write_text(yaml.safe_dump(tiny))
    return path


def test_help_lists_all_verbs_and_each_has_examples(covermap):
    code, out, _ = covermap("--help")
    assert code == 0
    assert all(re.search(rf"\b{verb}\b", out) for verb in VERBS)
    for verb in VERBS:
        arguments = {"models": ["models", "show"], "legend": ["legend", "show"], "study": ["study", "run"]}.get(
            verb, [verb]
        )
        code, out, _ = covermap(*arguments, "--help")
        assert code == 0
        assert re.search(r"Examples?:", out), verb
        assert f"covermap {' '.join(arguments)}" in " ".join(out.split()), verb


def test_the_whole_path_from_image_and_labels_to_report(covermap, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = covermap("init", tiny["data"]["image"], tiny["data"]["labels"], "-o", "c.yaml")
    assert code == 0, err
    assert "class 2" in out
    short = ["--set", "train.epochs=2", "--set", "train.size_px=32", "--set", "split.block_px=16", "--set", "split.buffer_px=2", "--set", "baseline.trees=5", "--set", "model.backbone_options={widths: [8, 16]}"]  # fmt: skip
    code, out, err = covermap("check", "c.yaml", "--json", *short)
    assert code == 0, err
    found = json.loads(out)
    assert found["distance_px"] == 3
    assert {row["class"] for row in found["classes"]} == {"class 1", "class 2", "class 3"}
    code, out, err = covermap("check", "c.yaml", "--leaks", *short)
    assert code == 0, err
    assert "on ground of its own" in " ".join(out.split())
    code, out, err = covermap("run", "c.yaml", "--json", *short)
    assert code == 0, err
    result = json.loads(out)
    assert set(result["metrics"]["models"]) == {"network", "random forest"}
    assert all(Path(file).is_file() for file in result["files"])
    assert {Path(file).name for file in result["files"]} == {"map.tif", "confidence.tif", "report.html"}
    run = result["run"]
    code, out, err = covermap("evaluate", run, "--part", "val")
    assert code == 0, err
    assert "no test scores" in out
    code, _, err = covermap("evaluate", run, "--part", "tst")
    assert (code, "'test'" in err) == (1, True)
    code, out, err = covermap("predict", run, tiny["data"]["image"], "map.tif", "--size", "32")
    assert code == 0, err
    assert "mapped_ha" in out
    code, out, err = covermap("predict", run, tiny["data"]["image"], "map.tif")
    assert (code, "exists already" in err) == (1, True)
    code, out, err = covermap("report", run)
    assert code == 0, err
    code, out, err = covermap("models", "show", run)
    assert "class 3" in out
    code, out, err = covermap("run", "c.yaml", "--resume", *short)
    assert code == 0, err


def test_train_says_where_and_dry_run_writes_nothing(covermap, config, tmp_path):
    code, out, err = covermap("train", config, "--dry-run")
    assert code == 0, err
    assert "labelled pixels" in out
    assert not (tmp_path / "runs").exists()
    code, out, err = covermap("train", config, "--set", "train.epochs=1", "--json", "-q")
    assert code == 0, err
    assert Path(json.loads(out)["model"], "config.json").is_file()


def test_predict_dry_run_counts_blocks_and_writes_nothing(covermap, config, tiny, tmp_path):
    covermap("train", config, "--set", "train.epochs=1", "-q")
    code, out, err = covermap("predict", tmp_path / "runs/tiny", tiny["data"]["image"], tmp_path / "m.tif", "--dry-run")
    assert code == 0, err
    assert "1 blocks to do" in out
    assert not (tmp_path / "m.tif").exists()


def test_info_shows_bands_classes_and_vectors(covermap, tiny, write_tif, tmp_path):
    code, out, err = covermap("info", tiny["data"]["image"], "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [band["band"] for band in found["bands"]] == ["green", "red", "nir"]
    assert (found["crs"], found["pixel"]) == ("EPSG:32631", "10 m")
    code, out, err = covermap("info", tiny["data"]["labels"], "--json")
    assert [row["code"] for row in json.loads(out)["classes"]] == [1, 2, 3]
    (tmp_path / "p.csv").write_text("lon,lat,class\n3.0,45.1,wood\n3.0,45.1,field\n")
    code, out, err = covermap("info", tmp_path / "p.csv")
    assert code == 0, err
    assert "field, wood" in out
    nameless = write_tif("n.tif", np.zeros((5, 4, 4), "uint8"))
    code, out, err = covermap("info", nameless)
    assert (code, "bands have no names" in out) == (0, True)


def test_info_notices_the_sentinel2_offset(covermap, write_tif):
    values = np.random.default_rng(0).integers(1010, 4000, (12, 32, 32)).astype("uint16")
    names = [f"B{i:02d}" for i in range(1, 9)] + ["B8A", "B09", "B11", "B12"]
    code, out, _ = covermap("info", write_tif("s.tif", values, bands=names), "--sensor", "sentinel2")
    assert (code, "baseline 04.00" in out) == (0, True)
    values[0, 0, 0] = 300
    _, out, _ = covermap("info", write_tif("s2.tif", values, bands=names), "--sensor", "sentinel2")
    assert "baseline" not in out


def test_legends_are_listed_shown_and_converted(covermap, tmp_path):
    code, out, _ = covermap("legend", "list", "--json")
    names = {row["name"] for row in json.loads(out)}
    assert {
        "esa_worldcover",
        "esri_io",
        "dynamic_world",
        "corine",
        "nlcd",
        "wusu",
        "wusu_merged",
        "catalonia",
        "lucas_italy",
    } <= names
    code, out, _ = covermap("legend", "show", "dynamic_world")
    assert "#419bdf" in out
    code, out, err = covermap("legend", "convert", "esa_worldcover", tmp_path / "w.clr")
    assert code == 0, err
    assert "80 0 100 200" in (tmp_path / "w.clr").read_text()
    assert "does not hold names of the classes; the title; the source; that 0 is nodata" in err
    code, _, err = covermap("legend", "convert", tmp_path / "w.clr", tmp_path / "w.sld")
    assert (code, err) == (0, "")
    code, _, err = covermap("legend", "show", "esa_worldcove")
    assert (code, "esa_worldcover" in err) == (1, True)


def test_schema_is_valid_and_accepts_a_config(covermap, tiny):
    jsonschema = pytest.importorskip("jsonschema")
    _, out, _ = covermap("schema")
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tiny, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tiny | {"modle": 1}, schema)
    known = {
        "study": "axes",
        "label_budget": "encoders",
        "tune": "space",
        "pretraining": "methods",
        "pretrain": "views",
    }
    for plan, key in known.items():
        assert key in json.loads(covermap("schema", plan)[1])["properties"]


def test_models_are_listed_and_misspelt_ones_suggested(covermap):
    code, out, _ = covermap("models", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert {"unet", "cross_entropy", "random_forest"} <= set(rows)
    assert all(row["about"].endswith(".") or row["about"] for row in rows.values())
    code, out, _ = covermap("models", "show", "unet", "--json")
    assert (code, json.loads(out)["kind"]) == (0, "backbone")  # there is a decoder of this name, too
    code, _, err = covermap("models", "show", "unte")
    assert (code, "unet" in err) == (1, True)


def test_doctor_reports_and_fails_on_nothing_here(covermap):
    code, out, _ = covermap("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"Python", "GDAL", "projections", "GPU"} <= {row["what"] for row in found}


def test_prepare_aligns_images_labels_and_polygons(covermap, tiny, write_tif, tmp_path):
    fine = np.kron(np.array([[1, 2], [2, 3]], "uint8"), np.ones((480, 640), "uint8"))
    fine_path = write_tif("fine.tif", fine, gsd=1.0, nodata=0)
    code, _, err = covermap(
        "prepare", fine_path, tmp_path / "l.tif", "--like", tiny["data"]["image"], "--resampling", "mode", "-q"
    )
    assert code == 0, err
    with rasterio.open(tmp_path / "l.tif") as dataset:
        assert np.array_equal(dataset.read(1), fine[5::10, 5::10])
    code, _, err = covermap("prepare", tiny["data"]["image"], tmp_path / "i.tif", "--gsd", "20", "-q")
    assert code == 0, err
    with rasterio.open(tmp_path / "i.tif") as dataset:
        assert (dataset.shape, dataset.res, dataset.descriptions) == ((48, 64), (20, 20), ("green", "red", "nir"))
    (tmp_path / "p.csv").write_text("lon,lat,kind\n3.0,45.15,wood\n")
    code, _, err = covermap(
        "prepare", tmp_path / "p.csv", tmp_path / "p.tif", "--like", tiny["data"]["image"], "--field", "kin"
    )
    assert (code, "kind" in err) == (1, True)
    code, _, err = covermap("prepare", tmp_path / "p.csv", tmp_path / "p.tif")
    assert (code, "--like" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nosuchverb"], 2, "no verb"), (["predcit"], 2, "predict"), (["info"], 2, "Missing argument"),
        (["info", "x.tif", "--jsno"], 2, "--json"), (["info", "none.tif"], 1, "no file"), (["check", "none.yaml"], 1, "covermap init"),
        (["evaluate", "."], 1, "not a run"), (["report", "none"], 1, "not a run"), (["predict", "none", "a.tif", "b.tif"], 1, "not a model folder"),
        (["predict", "m", "a.tif", "b.tif", "--size", "5"], 1, "size_px = 5"), (["predict", "m", "a.tif", "b.tif", "--workers", "0"], 1, "workers = 0"),
        (["predict", "m", "a.tif", "b.tif", "--overlap", "-1"], 1, "overlap_px = -1"), (["predict", "m", "a.tif", "b.tif", "--overlap", "300"], 1, "below the window"),
        (["predict", "m", "a.tif", "b.tif", "--device", "foo"], 1, "device = 'foo'"), (["predict", "m", "a.tif", "b.tif", "--date", "2019-13"], 1, "no date"),
        (["train", "none.yaml"], 1, "no config"), (["legend", "show", "none.yaml"], 1, "none.yaml"),
    ],
)  # fmt: skip
def test_usage_and_data_errors_are_one_message_with_a_fix(covermap, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    got, _, err = covermap(*arguments)
    assert got == code
    assert words in err
    assert err.startswith("error: ")
    assert "fix: " in err


def test_an_interrupt_exits_with_3_and_a_bug_asks_for_a_report(covermap, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("covermap.core.config_file.load_config", interrupt)
    code, _, err = covermap("train", "c.yaml")
    assert (code, "train, pretrain and run: add --resume" in err) == (3, True)

    def bug(*args, **kwargs):
        raise ZeroDivisionError("x")

    monkeypatch.setattr("covermap.core.config_file.load_config", bug)
    code, _, err = covermap("train", "c.yaml")
    assert (code, "a bug in covermap" in err) == (1, True)


def test_debug_shows_the_traceback():
    command = [sys.executable, "-c", "from covermap.cli import main; main()", "--debug", "info", "none.tif"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_the_demo_beats_the_forest(covermap, tmp_path):
    code, out, err = covermap("demo", tmp_path / "demo", "--json", "-q")
    assert code == 0, err
    found = json.loads(out)
    models = found["metrics"]["models"]
    assert models["network"]["scores"]["oa"] >= 0.85
    assert models["random forest"]["scores"]["oa"] < models["network"]["scores"]["oa"]
    rows = found["assessment"]["areas"]
    assert sum(row["low_ha"] <= row["true_ha"] <= row["high_ha"] for row in rows) >= 5  # of 8
    (change,) = (row for row in found["change"]["areas"] if row["name"] == "changed")
    assert abs(change["area_ha"] - change["true_ha"]) < 2 * change["ci95_ha"]
    for name in (
        "image_date1.tif", "image_date2.tif", "labels_date1.tif", "covermap.yaml", "truth_date1.tif", "demo/map.tif",
        "demo/report.html", "demo/assessment.json", "demo/sample_from_truth.gpkg", "demo/sample_from_truth.design.json",
        "demo/map_date2.tif", "demo/change.tif", "demo/transitions.csv", "demo/changed.tif", "demo/changed.assessment.json",
    ):  # fmt: skip
        assert (tmp_path / "demo" / name).is_file()


def test_prepare_never_takes_the_place_of_its_input(covermap, tiny):
    before = Path(tiny["data"]["image"]).read_bytes()
    for arguments in (
        [tiny["data"]["image"], tiny["data"]["image"], "--gsd", "20"],
        [tiny["data"]["labels"], tiny["data"]["image"], "--like", tiny["data"]["image"], "--resampling", "mode"],
    ):
        code, _, err = covermap("prepare", *arguments, "--overwrite")
        assert (code, "is an input of this call" in err) == (1, True)
    assert Path(tiny["data"]["image"]).read_bytes() == before


def test_init_writes_a_config_for_odd_names_and_layers(covermap, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("2020", "im: #1", "null"):
        shutil.copy(tiny["data"]["image"], tmp_path / f"{name}.tif")
        code, _, err = covermap("init", f"{name}.tif", tiny["data"]["labels"], "-o", "c.yaml", "--overwrite")
        assert code == 0, err
        assert load_config("c.yaml").name == name
    (tmp_path / "own").mkdir()
    (tmp_path / "own/my legend.yaml").write_text("1: field\n2: water\n3: town\n")
    given = (tiny["data"]["image"], tiny["data"]["labels"], "--legend", "own/my legend.yaml", "-o", "else/where/c.yaml")
    code, _, err = covermap("init", *given)
    assert code == 0, err
    assert open_scenes(load_config("else/where/c.yaml").data)[0].legend.names == ("field", "water", "town")
    squares = [box(500_000 + 100 * i, 4_999_100, 500_100 + 100 * i, 4_999_200) for i in range(3)]
    table = gpd.GeoDataFrame({"kind": ["a", "b", "c"]}, geometry=squares, crs="EPSG:32631")
    for layer in ("one", "two"):
        table.to_file(tmp_path / "p.gpkg", layer=layer)
    code, _, err = covermap("init", tiny["data"]["image"], "p.gpkg", "-o", "d.yaml")
    assert (code, "data.layer: one" in err) == (1, True)
    code, _, err = covermap("init", tiny["data"]["image"], "p.gpkg", "-o", "d.yaml", "--layer", "two")
    assert code == 0, err
    config = load_config("d.yaml")
    assert config.data.layer == "two"
    assert open_scenes(config.data)[0].legend.names == ("a", "b", "c")


def test_published_models_show_what_they_take_and_where_their_file_belongs(covermap, tmp_path, monkeypatch):
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, _ = covermap("models", "show", "prithvi_eo_v2_300_tl", "--json")
    shown = json.loads(out)
    assert code == 0
    assert 3.0e8 < shown["parameters"] < 3.1e8
    assert shown["bands"]["HLS"] == ["blue", "green", "red", "nir_narrow", "swir1", "swir2"]
    assert shown["licence"] == "Apache-2.0"
    assert shown["uses"] == ["dates", "location"]
    assert "models pull prithvi_eo_v2_300_tl" in shown["weights"]
    code, _, err = covermap("models", "pull", "prithvi_eo_v2_300_tl")
    assert code == 1
    assert "https://huggingface.co/ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL/resolve/main" in err
    assert str(tmp_path / "prithvi_eo_v2_300_tl" / "Prithvi_EO_V2_300M_TL.pt") in err
    for name, words in (("unet", "no published weights"), ("prithvi_eo_v2_tiny", "no weights of prithvi_eo_v2_tiny")):
        code, _, err = covermap("models", "pull", name)
        assert (code, words in err) == (1, True)


def test_a_file_that_is_not_the_published_one_is_noticed(covermap, tmp_path, monkeypatch):
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(tmp_path))
    (tmp_path / "presto").mkdir()
    (tmp_path / "presto" / "default_model.pt").write_bytes(b"something else")
    code, _, err = covermap("models", "pull", "presto")
    assert code == 1
    assert "is not the published file" in err


def test_real_weights_are_found_and_their_sum_is_right(covermap, shared, monkeypatch):
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(shared / "weights"))
    code, out, _ = covermap("models", "pull", "galileo_nano", "--json")
    assert code == 0
    assert json.loads(out)["sha256"].startswith("eab6acac")
    code, out, _ = covermap("models", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["galileo_nano"]["weights"] == "here"
    assert rows["galileo_nano"]["licence"] == "MIT"


PLUGIN = """
from torch import nn
from covermap import Features
from covermap.nn.model import Backbone, stack_inputs


class Mine(Backbone):
    def __init__(self, spec, *, width=4):
        super().__init__()
        self.layer = nn.Conv2d(spec.num_channels, width, 2, 2)
        self.channels, self.strides = (width,), (2,)

    def forward(self, batch):
        return Features((self.layer(stack_inputs(batch)),), self.strides)


class Wrong(Mine):
    def forward(self, batch):
        x = super().forward(batch).maps[0]
        return Features((x.flip(-1),), self.strides)
"""


def test_a_users_own_backbone_is_checked_and_trained(covermap, config, tmp_path, monkeypatch):
    monkeypatch.delenv("COVERMAP_WIDE_PRODUCTS")  # as it is when a user calls
    (tmp_path / "mine.py").write_text(PLUGIN)
    code, out, err = covermap("check-plugin", "backbone", f"{tmp_path}/mine.py:Mine", "--option", "width=3")
    assert (code, "14 of 14 checks hold" in out) == (0, True), out + err
    monkeypatch.setenv("COVERMAP_WIDE_PRODUCTS", "0")
    code, out, _ = covermap("check-plugin", "backbone", f"{tmp_path}/mine.py:Wrong")
    assert code == 1
    assert "FAILS  keeps things in their place" in out
    code, _, err = covermap("check-plugin", "backbone", "galileo_nana")
    assert (code, "galileo_nano" in err) == (1, True)
    code, _, err = covermap("check-plugin", "pizza", "galileo_nano")
    assert (code, "known: backbone" in err) == (1, True)
    options = ["--set", f"model.backbone={tmp_path}/mine.py:Mine", "--set", "model.backbone_options={}"]
    code, _, err = covermap("train", config, *options, "--set", "name=mine", "--set", "train.epochs=1")
    assert code == 0, err
