"""Many scenes, several engines, parts of the work: every place mapped once, the same bytes whoever computes them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.warp import Resampling, calculate_default_transform, reproject
from safetensors.numpy import load_file, save_file

from covermap.core.config import ImageConfig
from covermap.core.errors import BandError, CovermapError, GridError, OutputError
from covermap.core.output import at_work
from covermap.core.run import checksum
from covermap.core.train_config import PredictConfig
from covermap.models import read_card
from covermap.verbs.assess import assess
from covermap.verbs.map_job import MapRequest
from covermap.verbs.predict import predict, predict_scenes, ready_settings
from covermap.verbs.sample import Plan, sample
from covermap.verbs.train import train
from tests.conftest import landscape
from tests.verbs.test_predict import outputs

SMALL = PredictConfig(size_px=32, block_px=32, workers=2)
BANDS = ["green", "red", "nir"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of three bands, trained for a moment."""
    from rasterio.transform import from_origin

    from covermap.core.config_file import parse_config

    root = tmp_path_factory.mktemp("trained")
    codes, image = landscape()
    for name, values in (("image", image), ("labels", codes[None])):
        profile = {"driver": "GTiff", "count": len(values), "height": 96, "width": 128, "dtype": values.dtype,
                   "crs": "EPSG:32631", "nodata": 0}  # fmt: skip
        with rasterio.open(root / f"{name}.tif", "w", transform=from_origin(5e5, 5e6, 10, 10), **profile) as dataset:
            dataset.write(values)
            for i, band in enumerate(BANDS if name == "image" else [], 1):
                dataset.set_band_description(i, band)
    return train(parse_config({
        "name": "m", "output": str(root / "runs"), "baseline": False,
        "data": {"image": str(root / "image.tif"), "labels": str(root / "labels.tif")},
        "split": {"val": {"cols": [64, 80]}, "test": {"cols": [82, 128]}, "buffer_px": 2},
        "model": {"backbone_options": {"widths": [8, 16]}},
        "train": {"epochs": 1, "steps_per_epoch": 4, "size_px": 32, "batch_size": 2},
    })).path("model")  # fmt: skip


@pytest.fixture
def scenes(write_tif):
    """Two scenes of 96 x 128 px that share 40 columns; a corner of the first holds nothing."""
    _, image = landscape(96, 216, seed=3)
    first, second = image[..., :128].copy(), image[..., 88:]
    first[:, :30, 100:] = 0
    return [write_tif("scenes/a.tif", first, bands=BANDS, nodata=0),
            write_tif("scenes/b.tif", second, bands=BANDS, nodata=0, origin=(500_880, 5_000_000))]  # fmt: skip


def pattern(scenes):
    return str(Path(scenes[0]).parent / "*.tif")


def test_each_place_of_many_scenes_is_mapped_once(trained, scenes, tmp_path):
    found = predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL)
    assert [done.path.name for done in found] == ["a.tif", "b.tif"]
    with rasterio.open(tmp_path / "maps/a.tif") as one, rasterio.open(tmp_path / "maps/b.tif") as two:
        a, b = one.read(1) > 0, two.read(1) > 0
    whole = np.zeros((2, 96, 216), bool)
    whole[0, :, :128], whole[1, :, 88:] = a, b
    assert whole.sum(0).max() == 1
    assert whole.any(0).all()
    assert b[:30, 12:40].all()  # where the first scene holds nothing, the second one is mapped
    assert not b[40:, :40].any()
    predict(trained, scenes[1], tmp_path / "alone.tif", settings=SMALL)
    with rasterio.open(tmp_path / "alone.tif") as dataset, rasterio.open(tmp_path / "maps/b.tif") as two:
        assert np.array_equal(dataset.read(1)[:, 40:], two.read(1)[:, 40:])


def test_maps_of_many_scenes_are_one_map_to_sample_and_assess(trained, scenes, tmp_path):
    settings = SMALL.model_copy(update={"entropy": True})
    found = predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=settings)
    points = tmp_path / "s.csv"
    design = sample(tmp_path / "maps", points, Plan(num=200, floor=10)).design
    pixels = {row["code"]: 0 for done in found for row in done.areas}
    for row in (row for done in found for row in done.areas):
        pixels[row["code"]] += row["pixels"]
    assert {stratum.code: stratum.num_pixels for stratum in design.strata} == {k: n for k, n in pixels.items() if n}
    table = pd.read_csv(points)
    table["reference"] = table["stratum"]
    table.to_csv(points, index=False)
    told = assess(tmp_path / "maps", points)
    assert told["overall"]["value"] == 1
    assert sum(row["mapped_ha"] for row in told["areas"]) == pytest.approx(sum(pixels.values()) / 100)


def test_two_dates_of_one_place_in_one_call_are_told(trained, scenes, tmp_path):
    shutil.copy(scenes[0], Path(scenes[0]).with_name("a2.tif"))
    found = predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL)
    assert ["a2.tif is empty" in " ".join(done.notes) for done in found] == [False, True, False]


def test_scenes_in_another_crs_leave_out_what_is_mapped(trained, scenes, tmp_path):
    with rasterio.open(scenes[1]) as source:
        transform, width, height = calculate_default_transform(
            source.crs, "EPSG:32632", source.width, source.height, *source.bounds, resolution=10
        )
        values = np.zeros((3, height, width), "uint16")
        reproject(source.read(), values, src_transform=source.transform, src_crs=source.crs, dst_transform=transform,
                  dst_crs="EPSG:32632", resampling=Resampling.nearest)  # fmt: skip
        profile = source.profile | {"crs": "EPSG:32632", "transform": transform, "width": width, "height": height}
    Path(scenes[1]).unlink()
    with rasterio.open(scenes[1], "w", **profile) as dataset:
        dataset.write(values)
        for i, band in enumerate(BANDS, 1):
            dataset.set_band_description(i, band)
    predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL)
    with rasterio.open(tmp_path / "maps/b.tif") as dataset:
        assert dataset.crs == "EPSG:32632"
        back = np.zeros((96, 128), "uint8")
        to = rasterio.transform.from_origin(500_880, 5_000_000, 10, 10)
        reproject(dataset.read(1), back, src_transform=dataset.transform, src_crs=dataset.crs, dst_transform=to,
                  dst_crs="EPSG:32631", resampling=Resampling.nearest)  # fmt: skip
    assert (back[40:, 2:38] > 0).mean() < 0.02
    assert (back[2:-2, 43:-3] > 0).mean() > 0.98


@pytest.mark.parametrize("engine", ["serial", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_every_engine_gives_the_same_bytes(trained, scenes, tmp_path, engine, monkeypatch):
    if engine == "ray":
        pytest.importorskip("ray")
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    settings = SMALL.model_copy(update={"probabilities": True, "entropy": True})
    predict_scenes(trained, pattern(scenes), tmp_path / "threads", settings=settings)
    seen = []
    predict_scenes(
        trained, pattern(scenes), tmp_path / engine, settings=settings.model_copy(update={"engine": engine}),
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert outputs(tmp_path / engine) == outputs(tmp_path / "threads")
    total = seen[-1][1]
    assert seen == [(n, total) for n in range(total + 1)]  # one bar for all scenes


def test_a_worker_of_a_prediction_that_is_killed(trained, scenes, tmp_path):
    """One of two processes is killed while blocks are computed: the call goes on, and the maps are the same."""
    predict_scenes(trained, pattern(scenes), tmp_path / "whole", settings=SMALL)
    settings, killed = SMALL.model_copy(update={"engine": "processes"}), []

    def kill(done, total):
        if done == 2 and not killed:
            children = subprocess.run(
                ["pgrep", "-P", str(os.getpid()), "-f", "spawn_main"], capture_output=True, text=True
            ).stdout.split()
            killed.append(int(children[-1]))
            os.kill(killed[0], signal.SIGKILL)

    predict_scenes(trained, pattern(scenes), tmp_path / "killed", settings=settings, on_progress=kill)
    assert killed
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")


def test_parts_of_the_work_and_then_the_whole(trained, scenes, tmp_path):
    predict_scenes(trained, pattern(scenes), tmp_path / "whole", settings=SMALL)
    parts = [threading.Thread(target=predict_scenes, args=(trained, pattern(scenes), tmp_path / "parts"),
                              kwargs={"settings": SMALL, "part": f"{i}/3"}) for i in (1, 2, 3)]  # fmt: skip
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    assert not list((tmp_path / "parts").glob("*.tif"))
    left = predict_scenes(trained, pattern(scenes), tmp_path / "parts", settings=SMALL, part="1/3")
    assert all("blocks are there" in done.notes[-1] for done in left)
    found = predict_scenes(trained, pattern(scenes), tmp_path / "parts", settings=SMALL)
    assert all(done.num_resumed == done.num_blocks for done in found)
    assert outputs(tmp_path / "parts") == outputs(tmp_path / "whole")
    with pytest.raises(CovermapError, match="i/n"):
        predict_scenes(trained, pattern(scenes), tmp_path / "more", settings=SMALL, part="4/3")
    assert not list((tmp_path / "more").glob("*"))


def test_a_worker_that_stays_takes_the_weights_of_the_call(trained, scenes, tmp_path):
    """Of a cluster that lives longer than a call: the model is trained again in the same folder."""
    from covermap.verbs import map_job

    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    arrays = load_file(folder / "model.safetensors")
    seen = []
    for sign in (1, -1):
        turned = {key: value if "running" in key else np.asarray(sign * value) for key, value in arrays.items()}
        save_file(turned, folder / "model.safetensors")
        sums = tuple((name, checksum(folder / name)) for name in ("config.json", "model.safetensors"))
        images = (ImageConfig(path=scenes[0]),)
        request = MapRequest(str(folder), sums, images, str(tmp_path / f"{sign}.tif"), ready_settings(SMALL))
        job = map_job._opened(request, str(sums))
        job.open_work(alone=True)
        map_job.compute_block((request, str(sums), job.blocks[0]))
        seen.append(np.load(job.path_of(job.blocks[0]))["codes"])
    assert not np.array_equal(*seen)


def test_a_second_call_on_the_same_scenes_waits_for_the_first(trained, scenes, tmp_path):
    maps = tmp_path / "maps"
    with at_work(maps / "a.tif.work", alone=False):  # a part of the work
        with pytest.raises(OutputError, match="another call is at work"):
            predict_scenes(trained, pattern(scenes), maps, settings=SMALL)
        predict_scenes(trained, pattern(scenes), maps, settings=SMALL, part="1/2")
    with at_work(maps / "a.tif.work", alone=True), pytest.raises(OutputError, match="another call is at work"):
        predict_scenes(trained, pattern(scenes), maps, settings=SMALL, part="2/2")
    assert len(predict_scenes(trained, pattern(scenes), maps, settings=SMALL)) == 2
    assert not list(maps.glob("*.work"))


def test_scenes_beside_the_area_of_interest_are_left_out(trained, scenes, tmp_path):
    def draw(*box):
        gpd.GeoDataFrame(geometry=[shapely.box(*box)], crs="EPSG:32631").to_file(tmp_path / "aoi.gpkg")

    draw(500_000, 4_999_200, 500_500, 5_000_000)  # in the first scene only
    found = predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL, aoi=tmp_path / "aoi.gpkg")
    assert [done.path.name for done in found] == ["a.tif"]
    assert "1 scenes lie outside of" in " ".join(found[0].notes)
    draw(600_000, 4_999_200, 600_500, 5_000_000)
    with pytest.raises(GridError, match="does not overlap"):
        predict_scenes(trained, pattern(scenes), tmp_path / "none", settings=SMALL, aoi=tmp_path / "aoi.gpkg")


def test_a_part_that_starts_while_another_makes_the_folder(trained, scenes, tmp_path):
    """The folder is there, its record not yet."""
    work = tmp_path / "maps" / "a.tif.work"
    work.mkdir(parents=True)
    (work / ".job.0123.json").write_text("{")
    predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL, part="1/2")
    assert (work / "job.json").is_file()
    assert len(list(work.glob("[0-9]*.npz"))) > 1


def test_what_does_not_fit_is_refused_before_any_work(trained, scenes, tmp_path, write_tif):
    with rasterio.open(scenes[0]) as dataset:
        values = dataset.read()
    write_tif("scenes/c.tif", values[:2], bands=BANDS[:2], nodata=0, origin=(600_000, 5_000_000))
    with pytest.raises(BandError, match="c has green, red, a has"):
        predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL)
    assert not (tmp_path / "maps").exists()
    Path(scenes[0]).with_name("c.tif").unlink()
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/b.tif").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["b.tif"]


def test_maps_that_an_interrupted_call_has_finished_stay(trained, scenes, tmp_path, monkeypatch):
    from covermap.verbs.map_job import MapJob

    settings = SMALL.model_copy(update={"engine": "serial"})
    whole = predict_scenes(trained, pattern(scenes), tmp_path / "whole", settings=settings)
    assemble, calls = MapJob.assemble, []
    with monkeypatch.context() as patch:
        patch.setattr(MapJob, "assemble", lambda job: calls.append(1) or (assemble(job) if len(calls) == 1 else 1 / 0))
        with pytest.raises(ZeroDivisionError):
            predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=settings)
    first = (tmp_path / "maps/a.tif").stat().st_mtime_ns
    assert not (tmp_path / "maps/b.tif").exists()
    going_on = settings.model_copy(update={"block_px": 64, "engine": "threads"})  # one that cuts its blocks otherwise
    with pytest.raises(OutputError, match="other settings"):
        predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=going_on)
    found = predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=settings)
    assert (tmp_path / "maps/a.tif").stat().st_mtime_ns == first
    assert outputs(tmp_path / "maps") == outputs(tmp_path / "whole")
    assert [done.areas for done in found] == [done.areas for done in whole]
    assert [done.files for done in found] == [
        tuple(Path(str(file).replace("whole", "maps")) for file in done.files) for done in whole
    ]
    assert not list((tmp_path / "maps").glob("*.work"))
    with pytest.raises(OutputError, match=r"a\.tif exists already"):
        predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=settings)


def test_a_changed_first_scene_is_noticed_when_the_second_goes_on(trained, scenes, tmp_path, monkeypatch):
    from covermap.verbs.map_job import MapJob

    with monkeypatch.context() as patch:
        patch.setattr(MapJob, "assemble", lambda job: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL)
    with rasterio.open(scenes[0], "r+") as dataset:
        dataset.write(np.maximum(dataset.read(), 1))
    with pytest.raises(OutputError, match=r"with other input 0 \(a.tif\)"):
        predict_scenes(trained, pattern(scenes), tmp_path / "maps", settings=SMALL)


def test_entropy_is_that_of_the_probabilities(trained, scenes, tmp_path):
    settings = SMALL.model_copy(update={"probabilities": True, "entropy": True})
    predict(trained, scenes[0], tmp_path / "map.tif", settings=settings)
    with rasterio.open(tmp_path / "probs.tif") as probs, rasterio.open(tmp_path / "entropy.tif") as entropy:
        p, found = np.clip(probs.read() / 200, 1e-7, 1), entropy.read(1)
        nothing = probs.read(1) == 255
        assert (found[nothing] == 255).all()
        assert entropy.descriptions == ("entropy in percent of the most that is possible",)
    want = -(p * np.log(p)).sum(0) / np.log(len(read_card(trained).legend)) * 100
    assert np.abs(found - want)[~nothing].max() < 4


def test_by_the_command_line(trained, scenes, tmp_path, covermap):
    arguments = ["predict", trained, pattern(scenes), tmp_path / "maps", "--size", "32", "--block", "32"]
    code, out, err = covermap(*arguments, "--dry-run")
    assert code == 0, err
    assert "2 scenes" in out
    assert "windows: about" in err
    assert not (tmp_path / "maps").exists()
    code, out, err = covermap(*arguments, "--shard", "1/2")
    assert code == 0, err
    assert "blocks are there" in out
    code, out, err = covermap(*arguments, "--engine", "serial")
    assert code == 0, err
    assert "km2/s" in err
    assert "mapped area of all" in out
    code, out, _ = covermap(*arguments, "--json", "--overwrite")
    assert [Path(one["map"]).name for one in json.loads(out)["maps"]] == ["a.tif", "b.tif"]
    code, _, err = covermap(*arguments, "--engine", "spark", "--overwrite")
    assert code == 1
    assert "engine" in err


def test_a_killed_call_goes_on_with_all_scenes(trained, scenes, tmp_path):
    predict_scenes(trained, pattern(scenes), tmp_path / "whole", settings=SMALL)
    code = (
        "import sys, time\n"
        "from covermap.core.train_config import PredictConfig\n"
        "from covermap.verbs.map_job import MapJob\n"
        "from covermap.verbs.predict import predict_scenes\n"
        "real = MapJob.compute\n"
        "def slow(*a):\n    time.sleep(0.3)\n    return real(*a)\n"
        "MapJob.compute = slow\n"
        "predict_scenes(*sys.argv[1:4], settings=PredictConfig(size_px=32, block_px=32, workers=1))"
    )
    command = [sys.executable, "-c", code, str(trained), pattern(scenes), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    while not (tmp_path / "killed/a.tif").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = predict_scenes(trained, pattern(scenes), tmp_path / "killed", settings=SMALL, overwrite=True)
    assert outputs(tmp_path / "killed") == outputs(tmp_path / "whole")
    assert len(found) == 2
