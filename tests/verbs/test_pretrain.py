"""`pretrain`: what stops it, what it leaves, and that interrupted and shared runs equal whole ones."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from covermap.core.config_file import parse_config
from covermap.core.errors import BandError, ConfigError, CovermapError, OutputError
from covermap.core.pretrain_config import load_pretrain_config, parse_pretrain_config
from covermap.data.split import PARTS
from covermap.data.unlabelled import UnlabelledWindows
from covermap.geo.grid import Window
from covermap.nn.ssl import mae_prithvi, shards
from covermap.nn.weights import read_tensors
from covermap.report.pretrain_page import Pretrained, write_pretrain_report
from covermap.verbs import pretrain as verb
from covermap.verbs.pretrain import pretrain
from covermap.verbs.pretrain_start import prepare_pretraining
from covermap.verbs.pretrain_watch import Watch
from covermap.verbs.train import train
from tests.conftest import landscape

BANDS = ["green", "red", "nir"]
MAE = {"name": "mae", "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
VIT = {"backbone": "sensor_vit_nano", "backbone_options": {"patch_px": 8}}


def recipe(tiny, **changes):
    """Plain values of a recipe on the scene of `tiny`; changes by section."""
    raw = {
        "name": "ssl", "output": tiny["output"], "data": tiny["data"], "split": {"block_px": 16, "buffer_px": 0, "val": 0.0, "test": 0.3}, "model": VIT,
        "method": MAE, "train": {
            "steps": 6, "batch_size": 8, "size_px": 16, "watch_every": 3, "save_every": 2, "device": "cpu",
        },
    }  # fmt: skip
    for key, value in changes.items():
        raw[key] = raw[key] | value if key == "train" else value
    return raw


def parsed(raw):
    return parse_pretrain_config(json.loads(json.dumps(raw)), where="recipe", base=Path())


def tensors(run):
    return read_tensors(run.path("model/model.safetensors"))


def stopped_at(monkeypatch, number):
    """An interrupt in a step, counted from 0."""
    step = verb.Loop._step

    def stop(self, drawn):
        if self.step == number:
            raise KeyboardInterrupt
        step(self, drawn)

    monkeypatch.setattr(verb.Loop, "_step", stop)


def test_a_run_leaves_a_backbone_that_learns_on(tiny):
    run = pretrain(parsed(recipe(tiny)))
    rows = run.read_log()
    assert [row["step"] for row in rows] == [0, 3, 6]
    assert {"loss", "spread", "effective_rank", "probe_r2", "lr", "seconds"} <= set(rows[1])
    assert "probe_r2_raw" in rows[0]
    assert run.path("reconstruction.png").is_file()
    tiny["model"] = {"backbone": str(run.folder), "decoder": "linear"}
    tuned = train(parse_config(json.loads(json.dumps(tiny))))
    told = tuned.read_json("weights.json")
    assert len(told["tensors"]) == len(tensors(run))


def test_a_stopped_run_goes_on_to_the_same_numbers(tiny, monkeypatch):
    whole = pretrain(parsed(recipe(tiny, name="whole")))
    config = parsed(recipe(tiny, name="parts"))
    stopped_at(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config)
    monkeypatch.undo()
    parts = pretrain(config, resume=True)
    for a, b in zip(whole.read_log(), parts.read_log(), strict=True):
        a.pop("seconds", 0), b.pop("seconds", 0)
        assert a == b
    assert all(torch.equal(value, tensors(parts)[name]) for name, value in tensors(whole).items())


def test_workers_change_nothing(tiny):
    alone = pretrain(parsed(recipe(tiny, name="alone", train={"steps": 2})))
    read = pretrain(parsed(recipe(tiny, name="read", train={"steps": 2, "workers": 1})))
    assert all(torch.equal(value, tensors(read)[name]) for name, value in tensors(alone).items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "fsdp"), [("mae", False), ("simclr", False), ("mae", True), ("simclr", True), ("dino", True)]
)
def test_two_processes_learn_what_one_does_from_twice_the_batch(tiny, tmp_path, method, fsdp):
    losses = {}
    for name, size, count in (("one", 8, 1), ("two", 4, 2)):
        raw = recipe(
            tiny, name=name, method=MAE if method == "mae" else {"name": method},
            train={"steps": 20, "watch_every": 1, "batch_size": size, "lr": 1e-3, "fsdp": fsdp and count > 1},
        )  # fmt: skip
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(raw))
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517"] if count > 1 else []
        command = [sys.executable, *launch, "-m", "covermap", "pretrain", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        log = Path(tiny["output"], name, "log.jsonl").read_text().splitlines()
        losses[name] = [json.loads(line)["loss"] for line in log[1:]]
    assert len(losses["one"]) == 20
    assert losses["two"] == pytest.approx(losses["one"], abs=1e-4)


STOPPED = """
import sys
from covermap.cli import main
from covermap.verbs.pretrain import Loop
step = Loop._step
def stop(self, drawn):
    if self.step == 5:
        raise KeyboardInterrupt
    step(self, drawn)
Loop._step = stop
sys.argv[0] = "covermap"
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_go_on_to_the_same_numbers(tiny, tmp_path, fsdp):
    """Also means over steps that lie before and behind the stop: state is saved between two rows."""
    (tmp_path / "stopped.py").write_text(STOPPED)

    def launch(port, *arguments):
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
        return subprocess.run(
            [*start, *arguments], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )  # fmt: skip

    rows = []
    for name in ("whole", "parts"):
        path = tmp_path / f"{name}.yaml"
        train = {"batch_size": 4, "save_every": 2, "fsdp": fsdp}
        path.write_text(yaml.safe_dump(recipe(tiny, name=name, train=train)))
        if name == "parts":
            assert launch("29518", str(tmp_path / "stopped.py"), "pretrain", str(path)).returncode != 0
        done = launch("29519", "-m", "covermap", "pretrain", str(path), *(["--resume"] if name == "parts" else []))
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(str(Path(tiny["output"], name))) == 1  # of two processes one speaks
        log = Path(tiny["output"], name, "log.jsonl").read_text().splitlines()
        rows.append([{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log])
    assert rows[0] == rows[1]


def test_what_holds_a_run_is_not_written_over(tiny):
    config = parsed(recipe(tiny, train={"steps": 2}))
    pretrain(config)
    with pytest.raises(OutputError, match="holds a run already"):
        pretrain(config)
    other = parsed(recipe(tiny, train={"steps": 2, "lr": 0.5}))
    with pytest.raises(OutputError, match=r"other settings: train\.lr \(0\.001, now 0\.5\)"):
        pretrain(other, resume=True)
    assert pretrain(other, overwrite=True).read_log()[-1]["step"] == 2


def test_an_overwritten_run_has_no_weights_of_the_earlier_one(tiny, monkeypatch):
    config = parsed(recipe(tiny, train={"steps": 2}))
    run = pretrain(config)
    assert run.path("model").is_dir()
    stopped_at(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config, overwrite=True)
    assert not run.path("model").exists()


def test_two_calls_do_not_share_a_run(tiny):
    config = parsed(recipe(tiny, train={"steps": 2}))
    code = (
        "import sys, time; from pathlib import Path; from covermap.core.output import at_work\n"
        "with at_work(Path(sys.argv[1]), alone=True):\n    print('held', flush=True); time.sleep(120)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(config.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another call is at work"):
            pretrain(config)
    finally:
        other.kill()
        other.communicate()
    assert pretrain(config).path("model").is_dir()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": {"backbone": "unet", "backbone_options": {"widths": [8, 16]}}}, ConfigError, "token"),
        ({"inputs": ["sentinel7"]}, ConfigError, "no sensor 'sentinel7'"),
        ({"method": {"name": "simclr", "elevation": "dem"}}, ConfigError, "method.elevation: the data has no sensor"),
        ({"method": {"name": "simclr"}, "train": {"batch_size": 1}}, ConfigError, "a batch of one window"),
        ({"method": {"name": "glcnet", "region_px": 16}}, ConfigError, "no part of a window of 16 px"),
        ({"method": {"name": "dino", "local_scale": [0.5, 0.1]}}, ConfigError, "smaller scale comes first"),
    ],
)
def test_bad_input_is_refused_in_words(tiny, changes, error, says):
    with pytest.raises(error, match=says):
        pretrain(parsed(recipe(tiny, **changes)))


@pytest.mark.parametrize("mask", [0, 1, -0.1])
def test_a_mask_of_nothing_or_all_is_refused(tiny, mask):
    with pytest.raises(ConfigError, match=r"method.*mask"):
        parsed(recipe(tiny, method=MAE | {"mask": mask}))


def test_settings_are_named_where_they_are_unknown(tiny):
    with pytest.raises(ConfigError, match=r"unknown key method.mae.masc") as told:
        parsed(recipe(tiny, method={"name": "mae", "masc": 0.5}))
    assert "did you mean 'mask'" in told.value.fix
    with pytest.raises(ConfigError, match="method = 'mea' is not known") as told:
        parsed(recipe(tiny, method="mea"))
    assert "did you mean 'mae'" in told.value.fix
    with pytest.raises(ConfigError, match="inputs"):
        parsed(recipe(tiny, inputs=[]))
    with pytest.raises(ConfigError, match=r"alpha has no effect without method\.elevation"):
        parsed(recipe(tiny, method={"name": "simclr", "alpha": 0.3}))


def test_collapse_stops_and_says_so(tiny, monkeypatch):
    from covermap.nn.embedding import vectors
    from covermap.nn.ssl.mae import MaskedAutoencoder

    monkeypatch.setattr(
        MaskedAutoencoder, "embed", lambda self, batch: torch.ones_like(vectors(self.encoder, batch)) + 1e-7
    )
    with pytest.raises(CovermapError, match="collapsed") as told:
        pretrain(parsed(recipe(tiny)))
    assert "lower train.lr" in told.value.fix
    assert "--resume would run into the same" in told.value.fix
    run = Pretrained.open(parsed(recipe(tiny)).folder)
    assert "collapsed" in run.rows[-1]["collapse"]
    html = write_pretrain_report(run).read_text()
    assert "--resume would run into the same" in html
    assert "go on with --resume" not in html


def test_a_loss_that_is_no_number_stops(tiny, monkeypatch):
    from covermap.nn.ssl.mae import MaskedAutoencoder

    forward = MaskedAutoencoder.forward
    monkeypatch.setattr(
        MaskedAutoencoder, "forward",
        lambda self, batch, seeds: {"loss": forward(self, batch, seeds)["loss"] * math.nan},
    )  # fmt: skip
    with pytest.raises(CovermapError, match="no longer a number in step 1"):
        pretrain(parsed(recipe(tiny)))


def test_a_recipe_is_read_with_its_overrides(tiny, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe(tiny) | {"method": "mae", "output": "there"}))
    found = load_pretrain_config(path, ["method.mask=0.5", "train.steps=7"])
    assert (found.method.mask, found.train.steps) == (0.5, 7)
    assert found.output == str(tmp_path / "there")


def test_the_command_says_what_comes_next(tiny, tmp_path, covermap):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe(tiny, train={"steps": 1})))
    code, out, err = covermap("pretrain", path)
    assert code == 0
    assert out.strip().endswith("ssl")
    assert "model.backbone" in err
    assert covermap("pretrain", path)[0] == 1


def test_other_verbs_know_a_pretraining(tiny, tmp_path, covermap):
    run = pretrain(parsed(recipe(tiny, train={"steps": 1})))
    code, _, err = covermap("evaluate", run.folder)
    assert (code, "is a pre-training: a backbone without classes" in err) == (1, True)
    shutil.rmtree(run.path("model"))
    code, _, err = covermap("embed", run.folder, tiny["data"]["image"], tmp_path / "e.tif")
    assert (code, "covermap pretrain" in err) == (1, True)


def test_the_sensor_of_an_image_is_asked_for(tiny, tmp_path, write_tif, covermap):
    dem = write_tif("dem.tif", np.arange(96 * 128, dtype="float32").reshape(96, 128), bands=["elevation"])
    image = [{"path": dem, "sensor": "dem"}, {"path": tiny["data"]["image"], "sensor": "sentinel2"}]
    run = pretrain(parsed(recipe(tiny, data=tiny["data"] | {"image": image}, train={"steps": 1})))
    code, _, err = covermap("embed", run.folder, tiny["data"]["image"], tmp_path / "e.tif")
    assert (code, "--sensor sentinel2" in err) == (1, True)


def test_bands_of_another_backbone_are_told(tiny, tmp_path):
    run = pretrain(parsed(recipe(tiny, train={"steps": 1})))
    tiny["data"]["use"] = ["green", "nir"]
    tiny["model"] = {"backbone": str(run.folder), "decoder": "linear"}
    with pytest.raises(BandError, match="pre-trained on"):
        train(parse_config(json.loads(json.dumps(tiny))))


def test_windows_keep_off_what_targets_hold_out(tiny, write_tif):
    numbers = write_tif("t.tif", np.arange(96 * 128, dtype="float32").reshape(96, 128), nodata=-1)
    data = {"image": tiny["data"]["image"], "target": {"path": numbers}}
    ready = prepare_pretraining(parsed(recipe(tiny, data=data)))
    assert ready.split is not None
    assert "test" in {tile.part for tile in ready.split.tiles}
    assert ready.scenes[0].labels is None  # there is nothing that a probe of classes could learn


def test_raw_statistics_are_of_what_the_network_sees(tiny, write_tif):
    """Elevation that follows the classes would make a baseline that no network can see enough to beat."""
    codes, _ = landscape()
    dem = write_tif("dem.tif", codes.astype("float32") + 100, bands=["elevation"])
    noise = np.random.default_rng(0).integers(100, 900, (1, 96, 128)).astype("uint16")
    image = [
        {"path": write_tif("noise.tif", noise, bands=["red"]), "sensor": "sentinel2"}, {"path": dem, "sensor": "dem"},
    ]  # fmt: skip
    method = {"name": "simclr", "elevation": "dem"}
    run = pretrain(parsed(recipe(tiny, data=tiny["data"] | {"image": image}, method=method, train={"steps": 1})))
    assert run.read_log()[0]["probe_r2_raw"] < 0.3


def test_labels_of_two_dates_say_what_is_held_out(tiny, write_tif):
    codes, image = landscape(seed=1)
    first, second = tiny["data"]["labels"], write_tif("labels2.tif", np.roll(codes, 8, 1), nodata=0)
    dates = [("2020-01-01", tiny["data"]["image"]), ("2021-01-01", write_tif("i2.tif", image, bands=BANDS, nodata=0))]
    data = tiny["data"] | {
        "image": [{"path": path, "date": date} for date, path in dates], "labels": [first, second], "label": "dates",
    }  # fmt: skip
    assert prepare_pretraining(parsed(recipe(tiny, data=data))).split is not None


def test_the_probe_looks_at_val_where_there_is_one(tiny):
    split = {"block_px": 16, "buffer_px": 0, "val": 0.3, "test": 0.3}
    ready = prepare_pretraining(parsed(recipe(tiny, split=split)))
    windows = UnlabelledWindows(ready.scenes, size_px=16, seed=0, split=ready.split)
    watch = Watch(ready.scenes, ready.spec, windows, ready.split, size_px=16, device=torch.device("cpu"))
    parts = {
        int(ready.split.part_mask(name, Window(*map(int, place.split(",")), 16, 16)).max())
        for name, place in (sample.key.split(":") for sample in watch.asked.samples)
    }
    assert parts == {PARTS.index("val")}


def test_why_there_is_no_probe_is_told(tiny):
    said = []
    run = pretrain(parsed(recipe(tiny, split={"block_px": 10, "val": 0.2, "test": 0.3})), say=said.append)
    (note,) = (line for line in said if "no probe" in line)
    for text in ("too few labelled windows of 16 px", "in train, 0 in val, 0 in test", "most blocks are 10 px",
                 "set split.block_px to a multiple of 16"):  # fmt: skip
        assert text in note, text
    html = write_pretrain_report(Pretrained.open(run.folder)).read_text()
    assert "No probe was made: too few labelled windows of 16 px" in html
    assert "for want of labels" not in html


def test_a_buffer_leaves_a_probe_its_windows(tiny):
    run = pretrain(parsed(recipe(tiny, split={"block_px": 16, "buffer_px": 2, "test": 0.3, "val": 0.0})))
    assert run.read_log()[0]["probe_part"] == "test"


def test_published_decoders_are_gone_on_with_after_a_stop(tiny, shared, tmp_path, write_tif, monkeypatch):
    monkeypatch.setattr(mae_prithvi, "HEADS", 2)
    stored = torch.load(shared / "checkpoints" / "golden_prithvi.pt", weights_only=True)
    torch.save(stored["state_dict"], tmp_path / "prithvi.pt")
    sizes = {
        "width": 64, "depth": 2, "heads": 4, "patch_px": 8, "size_px": 32, "num_frames": 2, "eps": stored["ln_eps"],
    }  # fmt: skip
    bands = ["blue", "green", "red", "nir_narrow", "swir1", "swir2"]
    numbers = np.random.default_rng(0).integers(100, 3000, (6, 96, 128)).astype("uint16")
    raw = recipe(
        tiny, data=tiny["data"] | {"image": write_tif("hls.tif", numbers, bands=bands, nodata=0)}, method="mae",
        model={
            "backbone": "prithvi_eo_v2_300", "backbone_options": {"sizes": sizes},
            "weights": str(tmp_path / "prithvi.pt"),
        },
        train={"steps": 4, "size_px": 32, "batch_size": 2, "watch_every": 2, "normalise": "dataset"},
    )  # fmt: skip
    runs = []
    for name in ("whole", "parts"):
        config = parsed(raw | {"name": name})
        if name == "parts":
            stopped_at(monkeypatch, 3)
            with pytest.raises(KeyboardInterrupt):
                pretrain(config)
            monkeypatch.undo()
            monkeypatch.setattr(mae_prithvi, "HEADS", 2)
        runs.append(pretrain(config, resume=name == "parts"))
    whole, parts = runs
    assert "decoder.pos_embed" in torch.load(parts.path("checkpoints/last.pt"), weights_only=True)["method"]
    assert all(torch.equal(value, tensors(parts)[name]) for name, value in tensors(whole).items())


def test_training_that_diverges_says_so(tiny):
    with pytest.raises(CovermapError, match=r"vectors hold numbers that are not finite|no longer a number"):
        pretrain(parsed(recipe(tiny, train={"lr": 1e30, "clip": 0})))


def test_a_network_is_not_cut_into_pieces():
    with pytest.raises(ConfigError, match=r"by itself, not by accelerate's settings \(FSDP\)"):
        verb._require_whole("FSDP")


def test_what_processes_cannot_share_is_refused(tiny, write_tif, monkeypatch):
    config = parsed(recipe(tiny, train={"fsdp": True}))
    with pytest.raises(ConfigError, match="shares out a network among processes, and there is one"):
        pretrain(config)
    assert not config.folder.exists()
    monkeypatch.setattr(shards, "world", lambda: 2)
    radar = write_tif("radar.tif", np.random.default_rng(0).normal(size=(1, 96, 128)).astype("float32"), bands=["vv"])
    image = [{"path": tiny["data"]["image"], "sensor": "sentinel2"}, {"path": radar, "sensor": "sentinel1"}]
    with pytest.raises(ConfigError, match=r"train\.fsdp: windows may lack sentinel2"):
        pretrain(parsed(recipe(tiny, data=tiny["data"] | {"image": image}, train={"fsdp": True})))


def test_other_processes_cannot_go_on_with_a_run(tiny):
    config = parsed(recipe(tiny))
    run = pretrain(config)
    state = torch.load(run.path("checkpoints/last.pt"), weights_only=True)
    torch.save(state | {"processes": 2}, run.path("checkpoints/last.pt"))
    with pytest.raises(OutputError, match="learnt by 2 processes with 8 windows each; there are 1 now"):
        pretrain(config, resume=True)


def test_it_goes_on_from_an_earlier_pretraining(tiny):
    first = pretrain(parsed(recipe(tiny, name="first", train={"steps": 1})))
    second = pretrain(parsed(recipe(tiny, name="second", model={"backbone": str(first.folder)}, train={"steps": 1})))
    assert second.read_json("weights.json")["facts"]["started_from"] == "first"
    assert "against first" in write_pretrain_report(Pretrained.open(second.folder)).read_text()
