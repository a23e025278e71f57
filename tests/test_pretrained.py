"""A backbone that was pre-trained, named in a config: its weights, bands and scaling are those that train gets."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, ModelError
from covermap.core.types import InputSpec, SensorInput
from covermap.models import load_model
from covermap.nn.build import make_backbone
from covermap.nn.own import load_backbone, tensors_alone
from covermap.pretrained import save_pretrained
from covermap.start import build_network, prepare_run
from covermap.verbs.check import check
from covermap.verbs.embed import EmbedSettings, embed
from covermap.verbs.train import train

BUILD = {"backbone": "unet", "backbone_options": {"widths": [8, 16]}}
SEEN = SensorInput("image", ("green", "red", "nir"), (900.0, 900.0, 1600.0), (500.0, 600.0, 1000.0))


def saved(folder, *, build=BUILD, sensors=(SEEN,)):
    torch.manual_seed(7)
    spec = InputSpec(tuple(sensors), gsd_m=10, size_px=32)
    backbone = make_backbone(build["backbone"], spec, build["backbone_options"])
    save_pretrained(backbone, spec, build, {"run": "ssl", "method": "simclr"}, folder / "model")
    return backbone


def config(tiny, **model):
    tiny["model"] = model
    return parse_config(json.loads(json.dumps(tiny)))


def test_training_starts_from_its_weights_in_its_scaling(tiny, tmp_path):
    backbone = saved(tmp_path / "ssl")
    loaded = config(tiny, backbone=str(tmp_path / "ssl"), decoder="linear")
    ready = prepare_run(loaded)
    network = build_network(loaded, ready)
    assert ready.spec.sensors[0].mean == SEEN.mean
    mine = network.backbone.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in backbone.state_dict().items())
    (report,) = network.backbone.reports
    assert report.count("loaded") == len(mine) == len(report.rows)


def test_pixels_of_another_size_are_told_and_check_knows_folders(tiny, tmp_path):
    saved(tmp_path / "ssl")
    assert not any("pre-trained at" in note for note in check(config(tiny, backbone=str(tmp_path / "ssl")))["notes"])
    tiny["data"] |= {"gsd_m": 20, "align": "mode"}
    tiny["train"] |= {"size_px": 16}
    notes = check(config(tiny, backbone=str(tmp_path / "ssl"), decoder="linear"))["notes"]
    assert any("was pre-trained at 10 m, the data has 20 m" in note for note in notes)


def test_a_run_needs_the_folder_only_to_begin(tiny, tmp_path):
    saved(tmp_path / "ssl")
    run = train(config(tiny, backbone=str(tmp_path / "ssl"), decoder="linear"))
    assert run.config.model.backbone == "unet"
    assert run.read_json("weights.json")
    assert load_model(run.path("model")).facts["started_from"] == "ssl"


def test_other_bands_and_settings_without_effect_are_refused(tiny, tmp_path):
    other = replace(SEEN, bands=("red", "green", "nir"))
    saved(tmp_path / "ssl", sensors=(other,))
    with pytest.raises(BandError, match="pre-trained on image: red, green, nir; the data has image: green, red, nir"):
        prepare_run(config(tiny, backbone=str(tmp_path / "ssl")))
    with pytest.raises(ConfigError, match=r"model\.weights has no effect"):
        prepare_run(config(tiny, backbone=str(tmp_path / "ssl"), weights="none"))
    with pytest.raises(ModelError, match="is not a model folder"):
        prepare_run(config(tiny, backbone=str(tmp_path / "nothing")))
    with pytest.raises(ConfigError, match="no part of a sum"):
        prepare_run(config(tiny, backbone=f"unet+{tmp_path / 'ssl'}"))
    with pytest.raises(ModelError, match=r"name it as model\.backbone"):
        prepare_run(config(tiny, start=str(tmp_path / "ssl")))
    with pytest.raises(ModelError, match="a backbone without classes"):
        load_model(tmp_path / "ssl" / "model")


def test_sensors_come_in_the_order_of_the_pretraining(tiny, tmp_path, write_tif):
    """vit_tiny stacks bands: named the other way round, weights of one sensor met bands of the other."""
    radar = SensorInput("sentinel1", ("vv", "vh"), (-10.0, -17.0), (3.0, 3.0))
    saved(
        tmp_path / "ssl", sensors=(replace(SEEN, sensor="sentinel2"), radar),
        build={"backbone": "vit_tiny", "backbone_options": {"patch_px": 8}},
    )  # fmt: skip
    s1 = write_tif("s1.tif", np.random.default_rng(0).normal(-9, 2, (2, 96, 128)).astype("float32"), bands=["vv", "vh"])
    image = [{"path": s1, "sensor": "sentinel1"}, {"path": tiny["data"]["image"], "sensor": "sentinel2"}]
    tiny["data"]["image"] = image
    loaded = config(tiny, backbone=str(tmp_path / "ssl"), decoder="linear")
    assert [entry.sensor for entry in prepare_run(loaded).spec.sensors] == ["sentinel2", "sentinel1"]


def test_other_scaling_is_used_where_the_config_asks_for_it(tiny, tmp_path):
    saved(tmp_path / "ssl")
    tiny["train"]["normalise"] = "dataset"
    assert prepare_run(config(tiny, backbone=str(tmp_path / "ssl"))).spec.sensors[0].mean != SEEN.mean


def test_it_embeds_images(tiny, tmp_path):
    pytest.importorskip("pyarrow", reason="extra [parquet]")
    saved(tmp_path / "ssl")
    from covermap.core.config import ImageConfig

    settings = EmbedSettings(workers=1, device="cpu")
    done = embed(
        tmp_path / "ssl", tmp_path / "e.parquet", images=[ImageConfig(path=tiny["data"]["image"])], settings=settings
    )
    assert (done.count, done.dimensions) == (12, 16)  # 96 x 128 px in chips of the side it learnt with


def test_a_sensor_that_later_data_lack_is_left_out(tmp_path):
    sensors = [
        SensorInput("sentinel2", ("blue", "green", "red"), (0.1,) * 3, (0.1,) * 3, optional=True),
        SensorInput("sentinel1", ("vv", "vh"), (-10.0, -17.0), (3.0, 3.0), optional=True),
    ]
    build = {"backbone": "galileo_nano", "backbone_options": {}}
    backbone = saved(tmp_path / "ssl", build=build, sensors=sensors)
    alone = InputSpec((sensors[1],), gsd_m=10, size_px=32)
    path = tmp_path / "ssl" / "model" / "model.safetensors"
    found = make_backbone("galileo_nano", alone, weights=path)
    report = load_backbone(found, path, ["sentinel1"])
    ignored = {row.name for row in report.rows if row.fate == "ignored"}
    assert ignored == {name for name in backbone.state_dict() if "embed.S2_RGB" in name}
    whole = InputSpec(tuple(sensors), gsd_m=10, size_px=32)
    names = tensors_alone(backbone, whole, lambda spec: make_backbone("galileo_nano", spec))
    assert set(names["sentinel2"]) == ignored
