"""Models handed on: the STAC item of a model folder, and folders pushed to and loaded from an imitated hub."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pystac
import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled
from pystac.extensions.mlm import AssetGeneralMLMExtension, MLMExtension

from covermap import hub
from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, ModelError, OutputError
from covermap.core.legend import LandClass, Legend
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.ml.forest import fit_forest
from covermap.models import ForestModel, NetworkModel, save_model
from covermap.nn.build import build_model
from covermap.start import prepare_run
from covermap.verbs.models import load_model
from tests.geo.test_products import stac_faults
from tests.verbs.test_fetch import host as host
from tests.verbs.test_fetch import hugging_face

S2 = SensorInput("sentinel2", ("blue", "nir"), (0.1, 0.3), (0.02, 0.05), 1e-4, -0.1, num_dates=2, auto_offset=True)
LEGEND = Legend("l", (LandClass(10, "Tree cover", "#006400"), LandClass(80, "Water", "#0064c8")))
FACTS = {
    "run": "my run", "started_from": "nano.pt", "started_from_sha256": "ab" * 32, "acquired": "2019-04-01/2019-08-31",
    "footprint_wgs84": [[5.0, 50.0, 5.2, 50.1], [5.1, 50.0, 5.3, 50.1], [9.0, 48.0, 9.1, 48.1]],
}  # fmt: skip
BUILD = {"backbone": "unet", "decoder": "linear", "backbone_options": {"widths": [8, 16]}}


@pytest.fixture
def folder(tmp_path):
    """A model folder with what never travels beside it."""
    torch.manual_seed(0)
    spec = InputSpec((S2,), gsd_m=10, size_px=32)
    network = build_model(spec, 2, **BUILD)
    folder = save_model(NetworkModel(spec, LEGEND, network, FACTS), tmp_path / "model", build=BUILD)
    (folder / "notes.pkl").write_bytes(b"not for others")
    return folder


def shares(model):
    torch.manual_seed(1)
    batch = Batch({"sentinel2": torch.randn(1, 2, 2, 32, 32)}, torch.ones(1, 2, 32, 32, dtype=torch.bool))
    return model.answers(batch)


def test_the_item_is_valid_and_true(folder):
    raw = json.loads((folder / "item.stac.json").read_text())
    assert stac_faults(raw) == []
    item = pystac.Item.from_dict(raw)
    mlm = MLMExtension.ext(item)  # refuses versions that pystac cannot read
    assert (mlm.mlm_name, mlm.architecture, mlm.tasks) == (
        "covermap-my-run",
        "unet + linear",
        ["semantic-segmentation"],
    )
    assert (mlm.framework, mlm.framework_version) == ("PyTorch", torch.__version__.split("+")[0])
    assert mlm.total_parameters == sum(p.numel() for p in build_model(load_model(folder).spec, 2, **BUILD).parameters())
    assert (mlm.pretrained, mlm.pretrained_source) == (True, f"unet: nano.pt, SHA-256 {'ab' * 32}")
    [taken], [given] = mlm.input, mlm.output
    assert (taken.name, taken.bands, taken.input.shape) == ("sentinel2", ["blue", "nir"], [-1, 2, 2, -1, -1])
    # File numbers become network input by these alone: (1e-4 x - 0.1 - 0.1) / 0.02.
    assert raw["properties"]["mlm:input"][0]["value_scaling"] == [
        {"type": "z-score", "mean": pytest.approx(2000), "stddev": pytest.approx(200)},
        {"type": "z-score", "mean": pytest.approx(4000), "stddev": pytest.approx(500)},
    ]
    assert raw["properties"]["mlm:hyperparameters"] == {"size_px": 32, **BUILD}
    assert given.result.shape == [-1, 2, -1, -1]
    assert [(c.value, c.name, c.color_hint) for c in given.classes] == [
        (10, "tree_cover", "006400"), (80, "water", "0064C8")
    ]  # fmt: skip
    assert {band["name"] for band in item.properties["bands"]} == set(taken.bands)
    assert item.properties["start_datetime"] == "2019-04-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2019-08-31T23:59:59Z"
    assert item.bbox == [5.0, 48.0, 9.1, 50.1]
    assert len(item.geometry["coordinates"]) == 2  # boxes that overlap are one polygon
    weights = item.assets["model"]
    assert weights.roles == ["mlm:model", "mlm:weights"]
    assert AssetGeneralMLMExtension.ext(weights).artifact_type == "safetensors.torch.save_file"
    for asset in item.assets.values():
        data = (folder / asset.href).read_bytes()
        assert asset.extra_fields["file:size"] == len(data)
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()


def test_the_item_of_a_forest_that_knows_little(tmp_path):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    forest = fit_forest(
        rng.normal(size=(50, 4)).astype("f4"), rng.integers(0, 2, 50).astype("u1"), num_classes=2, trees=2
    )
    own = SensorInput("sentinel2", ("blue", "nir"), (0, 0), (1, 1), num_dates=2, per_scene=True)
    save_model(ForestModel(InputSpec((own,)), LEGEND, forest, {"trees": 2}), tmp_path / "forest")
    raw = json.loads((tmp_path / "forest/item.stac.json").read_text())
    assert stac_faults(raw) == []
    about = raw["properties"]
    assert (raw["geometry"], about["mlm:pretrained"], about["mlm:pretrained_source"]) == (None, False, None)
    assert (about["mlm:framework"], about["mlm:architecture"]) == ("scikit-learn", "random forest")
    assert about["mlm:input"][0]["value_scaling"] is None  # mean and std are each scene's own
    assert not {"gsd", "mlm:total_parameters"} & set(about)


def test_the_own_package_of_the_extension_reads_the_items(folder, tmp_path):
    schema = pytest.importorskip("stac_model.schema", reason="needs stac-model (extra dev)")
    raw = json.loads((folder / "item.stac.json").read_text())["properties"]
    model = schema.MLModelProperties.model_validate(raw)
    assert model.name == "covermap-my-run"
    assert {str(getattr(task, "value", task)) for task in model.tasks} == {"semantic-segmentation"}
    assert [scaling.mean for scaling in model.input[0].value_scaling] == pytest.approx([2000, 4000])
    assert model.input[0].input.dim_order == ["batch", "time", "bands", "height", "width"]
    assert [c.value for c in model.output[0].classes] == [10, 80]
    for field in ("name", "architecture", "tasks", "input", "output"):  # all that it needs, none by a default
        assert f"mlm:{field}" in raw


class Api:
    """The calls of huggingface_hub.HfApi that a push makes; `files` is what the hub then holds."""

    private, fault = False, None
    files: dict[str, bytes]

    def create_repo(self, repo, *, private, exist_ok):
        if Api.fault:
            raise Api.fault

    def model_info(self, repo):
        return self

    def upload_folder(self, *, repo_id, folder_path, allow_patterns):
        found = {path.name: path.read_bytes() for path in Path(folder_path).iterdir() if path.name in allow_patterns}
        Api.files = found


@pytest.fixture
def api(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(Api, "private", False)
    monkeypatch.setattr(Api, "fault", None)
    monkeypatch.setattr(Api, "files", {}, raising=False)
    return Api


def test_pushed_loaded_and_offline_again(folder, api, host, monkeypatch, covermap):
    code, out, err = covermap("models", "push", folder, "hf://me/mine")
    assert (code, err) == (0, "next: covermap predict hf://me/mine IMAGE.tif MAP.tif\n")
    assert out == "hf://me/mine\n"
    assert set(api.files) == {"config.json", "model.safetensors", "README.md", "item.stac.json"}
    hugging_face(host, {**api.files, "evil.pkl": b"x", "sub/config.json": b"{}"}, repo="me/mine", kind="models")
    host.drops = [20_000]
    np.testing.assert_array_equal(shares(load_model("hf://me/mine")), shares(load_model(folder)))
    place = hub.model_folder(Path("hf://me/mine"))
    assert {path.name for path in place.iterdir()} == set(api.files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(host.seen)
    code, out, _ = covermap("models", "show", "hf://me/mine", "--json")
    assert (code, json.loads(out)["backbone"], len(host.seen)) == (0, "unet", asked)
    code, _, err = covermap("models", "pull", "hf://me/mine")
    assert (code, "HF_HUB_OFFLINE is set" in err) == (1, True)
    assert place.is_dir()
    # The hub's newest state comes when it is asked for, whole.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hugging_face(host, {**api.files, "README.md": b"new"}, repo="me/mine", kind="models")
    assert (place / "README.md").read_bytes() != b"new"
    assert covermap("models", "pull", "hf://me/mine")[0] == 0
    assert (place / "README.md").read_bytes() == b"new"


def test_a_fetch_that_broke_goes_on_and_is_never_half_there(folder, api, host, monkeypatch):
    hub.push(folder, "hf://me/mine")
    hugging_face(host, api.files, repo="me/mine", kind="models")
    del host.files["/cdn/model.safetensors"]
    with pytest.raises(ModelError, match=r"cannot be fetched .*404"):
        load_model("hf://me/mine")
    weights = hub.weights_folder() / "hf/me"
    assert [path.name for path in weights.iterdir()] == ["mine@main.part"]
    (weights / "mine@main.part/adapter.safetensors").write_bytes(b"of another commit")
    hugging_face(host, api.files, repo="me/mine", kind="models")
    host.seen.clear()
    assert {path.name for path in hub.model_folder("hf://me/mine").iterdir()} == set(api.files)
    assert not any("config.json" in path for path, *_ in host.seen)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hf://me", ConfigError, "hf://OWNER/NAME"),
        ("hf://me/a--b", ConfigError, "hf://OWNER/NAME"),
        ("hf://me/../x", ConfigError, "hf://OWNER/NAME"),
        ("hf://me/none", ModelError, r"HTTP 404(.|\n)*hf auth login"),
        ("hf://me/mine@v9", ModelError, r"HTTP 404(.|\n)*that revision"),
        ("hf://me/mine", ModelError, "it has no config.json and no model.safetensors"),
        ("hf://me/other", ModelError, "no legend in its config.json"),
    ],
)
def test_names_on_the_hub_that_give_no_model(api, host, name, error, message):
    hugging_face(host, {"README.md": b"hello"}, repo="me/mine", kind="models")
    if "other" in name:
        files = {"config.json": b'{"architectures": []}', "model.safetensors": bytes(5000)}
        hugging_face(host, files, repo="me/other", kind="models")
    with pytest.raises(error, match=message):
        load_model(name)
    assert not any("safetensors" in path for path, *_ in host.seen)


def test_a_revision_has_a_place_of_its_own(folder, api, host):
    hub.push(folder, "hf://me/mine")
    hugging_face(host, api.files, repo="me/mine", kind="models")
    host.files["/api/models/me/mine/revision/refs%2Fpr%2F1"] = host.files["/api/models/me/mine/revision/main"]
    assert hub.model_folder("hf://me/mine@refs/pr/1").name == "mine@refs%2Fpr%2F1"


def test_without_a_connection_and_without_a_copy(api, host, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"no network(.|\n)*put its files in .*mine@main"):
        load_model("hf://me/mine")


def refused(code):
    return type("Refused", (OSError,), {"response": type("Response", (), {"status_code": code})})(f"HTTP {code}\nmore")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OfflineModeIsEnabled("offline mode"), "HF_HUB_OFFLINE unset"),
        (refused(404), r"HTTP 404\n.*organisation me\?"),
        (refused(403), "right to write to me/mine"),
        (refused(401), "hf auth login"),
    ],
)
def test_pushes_that_the_hub_refuses(folder, api, fault, message):
    api.fault = fault
    with pytest.raises(OutputError, match=message):
        hub.push(folder, "hf://me/mine")


def test_a_private_model_is_not_pushed_where_all_see_it(folder, api, monkeypatch):
    with pytest.raises(OutputError, match="open to all"):
        hub.push(folder, "hf://me/mine", private=True)
    assert api.files == {}
    api.private = True
    assert hub.push(folder, "hf://me/mine", private=True) == "hf://me/mine"
    with pytest.raises(ConfigError, match="revision"):
        hub.push(folder, "hf://me/mine@v1")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(OutputError, match="not logged in"):
        hub.push(folder, "hf://me/mine")


def test_pushed_to_a_folder_whole_or_not_at_all(folder, tmp_path, monkeypatch, covermap):
    share = tmp_path / "share/gewata"
    assert covermap("models", "push", folder, share)[0] == 0
    assert {path.name for path in share.iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "item.stac.json",
    }
    assert (share / "model.safetensors").stat().st_mode == (share / "config.json").stat().st_mode  # others may read it
    np.testing.assert_array_equal(shares(load_model(share)), shares(load_model(folder)))
    code, _, err = covermap("models", "push", folder, share)
    assert (code, "exists already" in err) == (1, True)
    (share / "thesis.txt").write_text("mine")
    code, _, err = covermap("models", "push", folder, share, "--overwrite")
    assert (code, "holds more than a model: thesis.txt" in err) == (1, True)
    (share / "thesis.txt").unlink()
    (folder / "README.md").write_text("second")
    copy = shutil.copyfile
    monkeypatch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    code, _, err = covermap("models", "push", folder, share, "--overwrite")
    assert (code, "the disk is full" in err) == (1, True)
    assert "second" not in (share / "README.md").read_text()
    monkeypatch.setattr("shutil.copyfile", copy)
    assert covermap("models", "push", folder, share, "--overwrite")[0] == 0
    assert (share / "README.md").read_text() == "second"
    assert [path.name for path in share.parent.iterdir()] == ["gewata"]


def test_only_models_are_pushed(folder, tmp_path, covermap):
    (tmp_path / "empty").mkdir()
    code, _, err = covermap("models", "push", tmp_path / "empty", tmp_path / "x")
    assert (code, "is not a model folder" in err) == (1, True)
    (folder / "model.safetensors").write_bytes(b"torn")
    code, _, err = covermap("models", "push", folder, tmp_path / "x")
    assert (code, "cannot be read" in err, (tmp_path / "x").exists()) == (1, True, False)
    code, _, err = covermap("models", "push", tmp_path, tmp_path / "x", "--private")
    assert code == 1


def test_facts_of_training_are_those_of_the_train_part(tiny):
    """Ground: longitude 3 is x = 500,000 of EPSG:32631, and 10 m are 0.000126 degrees there."""
    tiny["data"]["image"] = [{"path": tiny["data"]["image"], "sensor": "sentinel2", "date": "2020-06"}]
    tiny["split"] = {"val": 0, "test": {"cols": [64, 128]}, "block_px": 16, "buffer_px": 0}
    found = prepare_run(parse_config(tiny)).trained_on
    [[west, south, east, north]] = found["footprint_wgs84"]
    assert (west, east) == (3.0, pytest.approx(3 + 64 * 0.000126, abs=2e-4))
    assert north - south == pytest.approx(960 / 111_140, abs=2e-4)
    assert found["acquired"] == "2020-06-01/2020-06-30"
    del tiny["data"]["image"][0]["date"]
    assert set(prepare_run(parse_config(tiny)).trained_on) == {"footprint_wgs84"}
