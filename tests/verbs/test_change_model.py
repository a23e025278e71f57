"""Images by a model inside `change`: classes of each date, then all its rules; models that it does not take."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError, GridError, LabelError, ModelError, OutputError
from covermap.core.task import Task
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.models import read_card
from covermap.verbs import change as change_module
from covermap.verbs import change_model as module
from covermap.verbs.change import change
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.map_job import MapJob
from covermap.verbs.predict import predict
from covermap.verbs.train import train

SIDE, DATES = 192, ("2019-06-01", "2021-06-01")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    write_scene(SceneRecipe(height=SIDE, width=SIDE, num_dates=2, change_share=0.15, noise=0.6, seed=3), folder)
    return folder


def trained(place: Path, folder: Path, task: str, **data) -> Path:
    days = DATES if task != "segmentation" else DATES[:1]
    images = [
        {"path": str(place / f"image_date{i}.tif"), "sensor": "landsat7", "date": date}
        for i, date in enumerate(days, 1)
    ]
    labels = [str(place / f"labels_date{i}.tif") for i in (1, 2)] if len(days) > 1 else str(place / "labels_date1.tif")
    raw = {
        "name": task, "output": str(folder), "task": task,
        "data": {"image": images, "labels": labels, "legend": str(place / "legend.yaml"), **data},
        "split": {"val": 0.2, "test": {"cols": [128, SIDE]}, "block_px": 32, "buffer_px": 0, "seed": 2},
        "model": {"backbone": "unet", "backbone_options": {"widths": [8, 16]}, "pixel_width": 8},
        "train": {"epochs": 2, "steps_per_epoch": 8, "batch_size": 4, "size_px": 32, "lr": 0.01,
                  "class_weights": "none"},
        "baseline": False,
    }  # fmt: skip
    return train(parse_config(raw)).path("model")


@pytest.fixture(scope="module")
def segmentation(place, tmp_path_factory):
    return trained(place, tmp_path_factory.mktemp("runs"), "segmentation")


def dated(place: Path) -> list[str]:
    return [f"{place / f'image_date{i}.tif'}@{date}" for i, date in enumerate(DATES, 1)]


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_a_model_of_classes_maps_each_date(covermap, segmentation, place, tmp_path: Path) -> None:
    rules, out = ChangeRules(tolerance=1, min_area="4px"), tmp_path / "change.tif"
    done = change(dated(place), out, model=segmentation, rules=rules)
    maps = tmp_path / "change_maps"
    assert {"date_1.tif", "date_1_probs.tif", "date_2.tif", "date_2_probs.tif"} <= {p.name for p in maps.iterdir()}
    assert not list(maps.glob("*.work"))
    predict(segmentation, str(place / "image_date1.tif"), tmp_path / "p.tif")
    np.testing.assert_array_equal(read(maps / "date_1.tif"), read(tmp_path / "p.tif"))
    found = done.pairs[0]
    assert found.decision is not None
    assert found.decision["prior"] == "none"
    assert any("not calibrated" in note for note in found.notes)
    change([maps / "date_1.tif", maps / "date_2.tif"], tmp_path / "plain.tif", rules=rules)
    np.testing.assert_array_equal(read(out), read(tmp_path / "plain.tif"))
    assert found.pair.dates == DATES
    assert found.errors is not None
    again = change([maps / "date_1.tif", maps / "date_2.tif"], tmp_path / "again.tif", rules=rules, probabilities=True)
    assert found.matrix.pixels.tolist() == again.pairs[0].matrix.pixels.tolist()
    assert {path for path in done.files if not path.exists()} == set()
    with pytest.raises(OutputError, match="exists already"):
        change(dated(place), out, model=segmentation, rules=rules)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("change*") if path.is_file()}
    options = ("--tolerance", "1", "--min-area", "4px", "--overwrite")
    code, text, err = covermap("change", *dated(place), out, "--model", segmentation, *options)
    assert code == 0, err
    assert "are not calibrated" in " ".join(text.split())
    assert {path.name: path.read_bytes() for path in tmp_path.glob("change*") if path.is_file()} == before


def test_a_model_of_semantic_change_decides_itself(place, write_tif, tmp_path: Path) -> None:
    model = trained(place, tmp_path / "runs", "semantic_change", label="dates")
    rules = ChangeRules(confidence=0.6, tolerance=1)
    done = change(dated(place), tmp_path / "c.tif", model=model, rules=rules)
    folder = tmp_path / "c_maps"
    one, two, p = (read(folder / f"date_2{part}.tif") for part in ("_before", "", "_change"))
    found = done.pairs[0]
    assert found.plain.pixels.sum() == (p != 255).sum()
    np.testing.assert_array_equal(read(tmp_path / "c_probability.tif"), p)
    codes = read(tmp_path / "c.tif")
    changed = (codes > 0) & (codes < 65535)
    assert not (changed & ((one == two) | (p < 60))).any()
    assert found.decision is None
    assert found.pair.names == tuple(path.split("@")[0] for path in dated(place))
    assert any("are not calibrated" in note for note in found.notes)
    assert found.errors.false_change == pytest.approx((1 - p[changed] / 100).sum() * 0.01, rel=1e-5)
    told = json.loads((tmp_path / "c.change.json").read_text())
    assert told["expected_errors"]["mapped_ha"] == pytest.approx(changed.sum() * 0.01, rel=1e-5)
    with pytest.raises(ConfigError, match="decides both dates itself"):
        change(dated(place), tmp_path / "d.tif", model=model, prior="0.9")
    assert not (tmp_path / "d_maps").exists()
    later, earlier = (place / f"image_date{n}.tif" for n in (2, 1))
    images = [ImageConfig(path=str(later), date="2021-06"), ImageConfig(path=str(earlier), date="2019")]
    with pytest.raises(ConfigError, match="first image is of 2021-06, after the second one of 2019"):
        predict(model, images, tmp_path / "d.tif")
    assert not list(tmp_path.glob("d*"))
    three = [*dated(place), write_third(place, tmp_path)]
    with pytest.raises(ConfigError, match="between two dates, 3 images are given"):
        change(three, tmp_path / "three", model=model)
    with pytest.raises(ConfigError, match="give the images in the order"):
        change(dated(place)[::-1], tmp_path / "d.tif", model=model)
    bands = ["blue", "green", "red", "nir", "swir1", "swir2"]
    for crs, said in (("EPSG:32633", r"far\.tif.* does not overlap"), (None, "CRS")):
        far = write_tif("far.tif", np.ones((6, 64, 64), np.uint16), gsd=10.0, crs=crs, bands=bands)
        with pytest.raises(GridError, match=said):
            change([dated(place)[0], f"{far}@2022"], tmp_path / "d.tif", model=model)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("d", "three"))]


def write_third(place: Path, folder: Path) -> str:
    path = folder / "third.tif"
    path.write_bytes((place / "image_date1.tif").read_bytes())
    return f"{path}@2023"


def test_three_images_are_a_series(segmentation, place, tmp_path: Path) -> None:
    done = change([*dated(place), write_third(place, tmp_path)], tmp_path / "out", model=segmentation)
    assert done.alone is None
    sure = change([*dated(place), write_third(place, tmp_path)], tmp_path / "sure", model=segmentation, prior="0.95")
    assert sure.trajectories.rates["flicker"] < done.trajectories.rates["flicker"] == sure.alone.rates["flicker"]
    assert (tmp_path / "out" / "maps" / "date_3_probs.tif").exists()
    assert set(done.files) <= {*(tmp_path / "out").rglob("*")}


def test_no_image_is_written_over(segmentation, place, tmp_path: Path) -> None:
    a, b = (tmp_path / "a.tif", tmp_path / "b_maps" / "date_1.tif")
    b.parent.mkdir()
    for path, number in ((a, 1), (b, 2)):
        path.write_bytes((place / f"image_date{number}.tif").read_bytes())
    before = [path.read_bytes() for path in (a, b)]
    for out in (a, tmp_path / "b.tif"):  # the second one's maps would lie where an image does
        with pytest.raises(OutputError, match="is an input of this call"):
            change([f"{a}@2019", f"{b}@2021"], out, model=segmentation, overwrite=True)
    assert [path.read_bytes() for path in (a, b)] == before
    assert {path.name for path in tmp_path.rglob("*.*")} == {"a.tif", "date_1.tif"}


def test_what_can_be_refused_is_refused_before_mapping(
    covermap, segmentation, place, write_tif, tmp_path: Path, monkeypatch
) -> None:
    def never(*_args, **_kwargs):
        raise AssertionError("it maps already")

    monkeypatch.setattr(module, "predict_dates", never)
    out = tmp_path / "c.tif"
    own = tmp_path / "own.yaml"
    own.write_text("from: esa_worldcover\nto: ipcc\nclasses: {Tree cover: Forest land}\n")
    corine = tmp_path / "other.yaml"
    corine.write_text("name: other\nclasses: [{code: 1, name: else}]\n")
    for odd, error, said in (
        ({"legends": ["ipcc"]}, ConfigError, "--legend does not go with --model"),
        ({"target": "ipcc"}, LabelError, "ipcc"),
        ({"target": str(corine)}, LabelError, "other"),
        ({"accuracy": [0.9]}, ConfigError, "1 accurac"),
        ({"rules": ChangeRules(min_area="10m2")}, ConfigError, "not larger than a pixel"),
    ):
        with pytest.raises(error, match=said):
            change(dated(place), out, model=segmentation, **odd)
    bands = ["blue", "green", "red", "nir", "swir1", "swir2"]
    at = {"gsd": 10.0, "crs": "EPSG:32633", "bands": bands}
    far = write_tif("far.tif", np.ones((6, 64, 64), np.uint16), **at)
    with pytest.raises(GridError, match=r"far\.tif .* does not overlap .*image_date1\.tif"):
        change([dated(place)[0], f"{far}@2022"], out, model=segmentation)
    nowhere = write_tif("nowhere.tif", np.ones((6, 64, 64), np.uint16), **at | {"crs": None})
    with pytest.raises(GridError, match=r"nowhere\.tif.* CRS"):
        change([dated(place)[0], f"{nowhere}@2022"], out, model=segmentation)
    with pytest.raises(ConfigError, match="--bands are of images"):
        change(["a.tif", "b.tif"], out, bands=bands)
    (tmp_path / "c_maps").write_text("mine")
    with pytest.raises(OutputError, match="c_maps is a file: the maps of the images"):
        change(dated(place), out, model=segmentation)
    assert not (tmp_path / "c.tif").exists()


def test_nothing_is_left_of_a_damaged_model(segmentation, place, tmp_path: Path) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(segmentation, damaged)
    (damaged / "model.safetensors").write_bytes(b"0" * 100)
    for paths, out in (
        (dated(place), tmp_path / "c.tif"),
        ([*dated(place), write_third(place, tmp_path)], tmp_path / "d"),
    ):
        with pytest.raises(ModelError):
            change(paths, out, model=damaged)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "third.tif"}


def test_maps_of_a_call_that_failed_later_are_taken_up(segmentation, place, tmp_path: Path, monkeypatch) -> None:
    def fails(*_args, **_kwargs):
        raise DataError("later")

    out = tmp_path / "c.tif"
    monkeypatch.setattr(change_module, "_compare", fails)
    with pytest.raises(DataError, match="later"):
        change(dated(place), out, model=segmentation)
    monkeypatch.undo()
    maps = [tmp_path / "c_maps" / f"date_{number}.tif" for number in (1, 2)]
    before = [path.stat().st_mtime_ns for path in maps]
    monkeypatch.setattr(MapJob, "compute", fails)
    done = change(dated(place), out, model=segmentation, rules=ChangeRules(tolerance=1))
    assert [path.stat().st_mtime_ns for path in maps] == before
    assert not list(tmp_path.rglob("*.work"))
    assert done.pairs[0].pair.names == tuple(path.split("@")[0] for path in dated(place))
    assert json.loads((tmp_path / "c.change.json").read_text())["after"]["image"] == str(place / "image_date2.tif")


def test_bands_of_images_that_do_not_name_them(covermap, segmentation, place, tmp_path: Path) -> None:
    paths = []
    for number, text in enumerate(dated(place)):
        with rasterio.open(text.split("@")[0]) as dataset:
            values, profile = dataset.read(), dataset.profile
        paths.append(f"{tmp_path / f'{number}.tif'}@{DATES[number]}")
        with rasterio.open(tmp_path / f"{number}.tif", "w", **profile | {"count": 7}) as dataset:
            dataset.write(np.concatenate([values, values[:1]]))
    code, _, err = covermap("change", *paths, tmp_path / "c.tif", "--model", segmentation)
    assert code == 1
    assert "--bands" in err
    options = ("--model", segmentation, "--bands", "blue,green,red,nir,swir1,swir2,other")
    code, out, err = covermap("change", *paths, tmp_path / "c.tif", *options)
    assert code == 0, err
    assert f"{tmp_path / '0.tif'} > {tmp_path / '1.tif'} in legend" in " ".join(out.split())
    undated = [path.split("@")[0] for path in paths]
    code, out, _ = covermap("change", *undated, tmp_path / "d.tif", *options)
    assert code == 0
    assert "state it: A.tif@2018 B.tif@2022" in " ".join(out.split())
    assert "--date" not in out


def test_what_is_refused(segmentation, place, write_tif, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out" / "c.tif"
    with pytest.raises(ConfigError, match="between two images or more, 1 is given"):
        change(dated(place)[:1], out, model=segmentation)
    with pytest.raises(ConfigError, match="is given twice"):
        change(dated(place)[:1] * 2, out, model=segmentation)
    with pytest.raises(ConfigError, match="give the images in the order"):
        change(dated(place)[::-1], out, model=segmentation)
    with pytest.raises(LabelError):
        change(dated(place), out, model=segmentation, rules=ChangeRules(goals=("nothing",)))
    for odd, said in (
        ({"target": "nolegend"}, "no legend called"),
        ({"crosswalks": ["none.yaml"]}, "no crosswalk file"),
    ):
        with pytest.raises(LabelError, match=said):
            change(dated(place), out, model=segmentation, **odd)
    with pytest.raises(ConfigError, match="'often' is no prior"):
        change(dated(place), out, model=segmentation, prior="often")
    assert not out.with_name("c_maps").exists()
    binary = trained(place, tmp_path / "runs", "change", label="change")
    with pytest.raises(ModelError, match="was trained for change") as caught:
        change(dated(place), out, model=binary)
    assert "covermap predict" in caught.value.fix
    assert "--add landsat7=" in caught.value.fix
    assert not out.parent.exists() or not list(out.parent.rglob("*.tif"))
    card = replace(read_card(Path(segmentation)), task=Task("classification", read_card(Path(segmentation)).legend))
    monkeypatch.setattr(module, "read_card", lambda where: card)
    with pytest.raises(ModelError, match="was trained for classification") as caught:
        change(dated(place), out, model=segmentation)
    assert "chips.csv" in caught.value.fix
    monkeypatch.undo()
    far = write_tif("far.tif", np.ones((6, 64, 64), np.uint16), gsd=10.0, crs="EPSG:32633",
                    bands=["blue", "green", "red", "nir", "swir1", "swir2"])  # fmt: skip
    with pytest.raises(GridError, match="does not overlap"):
        change([dated(place)[0], f"{far}@2022"], out, model=segmentation)
