"""Labels of two dates: from layouts and from a user's own files, with masks that may contradict them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from covermap.core.config import DataConfig, RunConfig
from covermap.core.errors import ConfigError, CovermapError, DataError, LabelError
from covermap.core.from_to import CHANGE
from covermap.core.legend import IGNORE
from covermap.core.registry import find
from covermap.data.audit import audit_data
from covermap.data.reference import with_reference
from covermap.data.scene import open_scenes
from covermap.data.store import write_store
from covermap.data.transitions import Transitions, contradictions

SIDE = 40


@pytest.fixture
def layout(tmp_path: Path):
    def make(name: str, **options: object) -> DataConfig:
        find("source", name).write_miniature(tmp_path / name)
        return DataConfig(source=name, root=str(tmp_path / name), options=options)

    return make


def labelled(config: DataConfig, label: str) -> DataConfig:
    return config.model_copy(update={"label": label})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("second", {}),
        ("hiucd", {}),
        ("hrscd", {}),
        ("wusu", {"dates": "series"}),
        ("dynamicearthnet", {"dates": "series"}),
    ],
)
def test_layouts_give_classes_of_both_dates_and_where_they_differ(layout, name: str, options: dict) -> None:
    scenes = open_scenes(labelled(layout(name, **options), "dates"))
    for scene in scenes:
        assert isinstance(scene.target, Transitions)
        assert scene.labels.legend == CHANGE
        assert len(scene.dates) == 2
        before, after, changed = scene.target.indices(scene.grid.window)
        known = (before != IGNORE) & (after != IGNORE)
        assert known.any()
        np.testing.assert_array_equal(changed[known], (before != after)[known])
        assert 0 < (changed == 1).mean() < 0.9
        assert (changed == 0).any()
        numbers = scene.target.read(scene.grid.window)
        np.testing.assert_array_equal(np.isnan(numbers), np.stack([before, after, changed]) == IGNORE)
        np.testing.assert_array_equal(scene.read_labels(scene.grid.window), changed)
    assert contradictions([scene.target for scene in scenes]) == []


@pytest.mark.parametrize("name", ["levir", "oscd", "second", "hrscd", "hiucd"])
def test_masks_say_the_same_whatever_their_codes(layout, name: str) -> None:
    for scene in open_scenes(labelled(layout(name), "change")):
        index = scene.read_labels(scene.grid.window)
        assert scene.legend == CHANGE
        assert scene.target is None
        assert set(np.unique(index)) == {0, 1}
        assert (index == 1).mean() < 0.6


def test_three_dates_are_two_pairs_of_one_place(layout) -> None:
    config = layout("wusu", dates="series")
    whole, pairs = open_scenes(config), open_scenes(labelled(config, "dates"))
    assert len(pairs) == 2 * len(whole)
    assert [scene.name for scene in pairs[:2]] == [f"{whole[0].name}_1_2", f"{whole[0].name}_2_3"]
    assert pairs[0].dates == whole[0].dates[:2]
    assert pairs[1].dates == whole[0].dates[1:]
    assert len({scene.place for scene in pairs[:2]}) == 1
    singles = open_scenes(labelled(config, "single"))
    assert len(singles) == 3 * len(whole)
    assert [scene.dates[0] for scene in singles[:3]] == list(whole[0].dates)
    for pair, one, other in ((pairs[0], *singles[:2]), (pairs[1], *singles[1:3])):
        before, after, _ = pair.target.indices(pair.grid.window)
        np.testing.assert_array_equal(before, one.read_labels(one.grid.window))
        np.testing.assert_array_equal(after, other.read_labels(other.grid.window))


@pytest.fixture
def files(write_tif, tmp_path: Path):
    """Two images, two class rasters, and a mask that two pixels contradict."""
    rng = np.random.default_rng(0)
    before = rng.integers(1, 4, (SIDE, SIDE)).astype(np.uint8)
    after = np.where(rng.random((SIDE, SIDE)) < 0.3, rng.integers(1, 4, (SIDE, SIDE)), before).astype(np.uint8)
    mask = (before != after).astype(np.uint8) * 255
    for name, values in (("before", before), ("after", after), ("mask", mask)):
        write_tif(f"{name}.tif", values, nodata=None if name == "mask" else 0)
    for name in ("one", "two"):
        write_tif(f"{name}.tif", rng.integers(0, 900, (3, SIDE, SIDE)).astype(np.uint16))
    images = [{"path": str(tmp_path / f"{name}.tif"), "bands": ["green", "red", "nir"], "date": date}
              for name, date in (("one", "2019-05-01"), ("two", "2021-05-01"))]  # fmt: skip
    labels = [str(tmp_path / "before.tif"), str(tmp_path / "after.tif")]
    return {"image": images, "labels": labels, "legend": {1: "water", 2: "forest", 3: "town"}}, (before, after, mask)


def test_a_users_own_labels_of_both_dates(files) -> None:
    data, (before, after, _) = files
    (scene,) = open_scenes(DataConfig(**data, label="dates"))
    found = scene.target.indices(scene.grid.window)
    np.testing.assert_array_equal(found[0], before - 1)
    np.testing.assert_array_equal(found[1], after - 1)
    np.testing.assert_array_equal(found[2], before != after)
    config = RunConfig(task="semantic_change", data=DataConfig(**data, label="dates"))
    _, task = with_reference([scene], config)
    assert task.legend.names == ("water", "forest", "town")
    assert task.num_channels == task.num_answers == 8


def test_a_mask_that_contradicts_the_classes_is_told_with_counts(files, write_tif) -> None:
    data, (before, after, mask) = files
    mask = mask.copy()
    same, two = np.argwhere(before == after)[:5], np.argwhere(before != after)[:3]
    mask[tuple(same.T)], mask[tuple(two.T)] = 255, 0
    scenes = open_scenes(DataConfig(**data, label="dates", change=str(write_tif("wrong.tif", mask))))
    (note,) = contradictions([scene.target for scene in scenes])
    assert "in 1 of 1 scenes" in note
    assert "5 px are changed though" in note
    assert "3 px unchanged though" in note
    np.testing.assert_array_equal(scenes[0].target.indices(scenes[0].grid.window)[2], mask == 255)


def test_a_mask_alone_is_enough_for_change(files, tmp_path: Path) -> None:
    data, (*_, mask) = files
    data = data | {"labels": str(tmp_path / "mask.tif")}
    data.pop("legend")
    (scene,) = open_scenes(DataConfig(**data, label="change"))
    np.testing.assert_array_equal(scene.read_labels(scene.grid.window), mask == 255)
    (wrong,) = open_scenes(DataConfig(**data | {"labels": str(tmp_path / "after.tif")}, label="change"))
    with pytest.raises(LabelError, match="pixels hold numbers that mean nothing here"):
        wrong.read_labels(wrong.grid.window)


def test_what_does_not_go_together_is_refused(files, layout) -> None:
    data, _ = files
    for labels, label, match in (
        (data["labels"][:1], "dates", "2 images and 1 dates"),
        ([*data["labels"], data["image"][0]["path"]], "dates", "2 images and 3 dates"),
        (data["labels"][:1], "single", "2 images and 1 dates"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_scenes(DataConfig(**data | {"labels": labels}, label=label))
    with pytest.raises(DataError, match="one date; change needs two"):
        open_scenes(DataConfig(**data | {"image": data["image"][:1]}, label="dates"))
    with pytest.raises(DataError, match="comes after"):
        open_scenes(DataConfig(**data | {"image": data["image"][::-1]}, label="dates"))
    with pytest.raises(ConfigError, match="2 images and 0 dates with classes and 1 masks"):
        open_scenes(labelled(layout("levir"), "dates"))
    with pytest.raises(ValueError, match="labels of each date"):
        DataConfig(**data)
    with pytest.raises(ValueError, match="labels of each date"):
        DataConfig(**data | {"labels": data["labels"][0]}, change="mask.tif")


def test_a_task_needs_its_labels(files) -> None:
    data, _ = files
    with pytest.raises(ValueError, match=r"set data\.label: change"):
        RunConfig(task="change", data=DataConfig(**data, label="dates"))
    with pytest.raises(ValueError, match=r"set data\.label: dates"):
        RunConfig(task="semantic_change", data=DataConfig(**data, label="change"))
    with pytest.raises(ValueError, match="goes with task semantic_change"):
        RunConfig(data=DataConfig(**data, label="dates"))
    with pytest.raises(CovermapError):
        with_reference(
            open_scenes(DataConfig(**data | {"labels": data["labels"][1]})),
            RunConfig(task="semantic_change", data=DataConfig(**data, label="dates")),
        )


def test_numbers_of_a_mask_mean_what_they_mean_whatever_its_file_calls_nodata(files, write_tif) -> None:
    data, (*_, mask) = files
    data = {key: value for key, value in data.items() if key != "legend"}
    for values, nodata in ((mask // 255, 0), (mask, 255)):
        path = write_tif(f"mask_{nodata}.tif", values, nodata=nodata)
        for more in ({}, {"label_nodata": 0}):
            (scene,) = open_scenes(DataConfig(**data | {"labels": str(path)}, label="change", **more))
            np.testing.assert_array_equal(scene.read_labels(scene.grid.window), mask == 255)


def test_one_file_for_two_dates_and_uneven_sensors_are_refused(files, tmp_path: Path, write_tif) -> None:
    data, _ = files
    one, two = data["image"]
    with pytest.raises(DataError, match="two dates are the same file"):
        open_scenes(DataConfig(**data | {"image": [one, one | {"date": "2021-05-01"}]}, label="dates"))
    with pytest.raises(DataError, match="both of 2019-05-01"):
        open_scenes(DataConfig(**data | {"image": [one, two | {"date": one["date"]}]}, label="dates"))
    with pytest.raises(ValueError, match="one file twice"):
        DataConfig(**data | {"labels": data["labels"][:1] * 2}, label="dates")
    third = one | {"path": str(write_tif("three.tif", np.ones((3, SIDE, SIDE), np.uint16))), "date": "2022-05-01"}
    series = [*(image | {"sensor": "landsat7", "bands": ["green", "red", "nir"]} for image in (one, two, third)),
              *(image | {"sensor": "landsat5", "bands": ["green", "red", "nir"]} for image in (one, two))]  # fmt: skip
    labels = [*data["labels"], str(write_tif("third.tif", np.ones((SIDE, SIDE), np.uint8), nodata=0))]
    for label in ("dates", "single"):
        with pytest.raises(DataError, match="has 3 dates, but 2 of landsat5"):
            open_scenes(DataConfig(**data | {"image": series, "labels": labels}, label=label))
    series = [image | {"sensor": "landsat7"} for image in (one, two, third)]
    with pytest.raises(ConfigError, match="3 images and 2 dates with classes"):
        open_scenes(DataConfig(**data | {"image": series}, label="change"))


def test_label_files_of_both_dates_count_as_files_of_the_scene(files, tmp_path: Path) -> None:
    data, _ = files
    for label in ("dates", "change"):
        (scene,) = open_scenes(DataConfig(**data, label=label, change=str(tmp_path / "mask.tif")))
        assert {*data["labels"], str(tmp_path / "mask.tif")} <= {*scene.files} & {*scene.paths}


def test_an_audit_finds_codes_that_the_legend_does_not_know_on_any_date(files, write_tif) -> None:
    data, (before, *_) = files
    wrong = before.copy()
    wrong[:5] = 77
    labels = [data["labels"][0], str(write_tif("wrong.tif", wrong, nodata=0))]
    for label, task in (("dates", "semantic_change"), ("single", "segmentation"), ("change", "change")):
        audit = audit_data(RunConfig(task=task, data=DataConfig(**data | {"labels": labels}, label=label)))
        assert any("77" in fault.told for fault in audit.faults), label


def test_what_prepare_cannot_keep_is_refused(files, tmp_path: Path) -> None:
    data, _ = files
    with pytest.raises(ConfigError, match="labels of two dates are not prepared"):
        write_store(DataConfig(**data, label="dates"), tmp_path / "store")
