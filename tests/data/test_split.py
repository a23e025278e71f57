import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covermap.core.config import DataConfig, SplitConfig, parse_config
from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.legend import IGNORE
from covermap.data.scene import open_scenes
from covermap.data.split import Split, Tile, assign, make_split, min_distance_px, part_counts, spread
from covermap.geo.grid import Window


def scenes_of(raw):
    return open_scenes(parse_config(raw).data)


@pytest.mark.parametrize("buffer", [0, 1, 5])
def test_train_and_test_labels_are_at_least_the_buffer_apart(tiny, buffer):
    scenes = scenes_of(tiny)
    split = make_split(scenes, SplitConfig(block_px=16, buffer_px=buffer), size_px=32)
    train = np.argwhere(split.labels(scenes[0], scenes[0].grid.window, "train") != IGNORE)
    test = np.argwhere(split.labels(scenes[0], scenes[0].grid.window, "test") != IGNORE)
    nearest = min(np.abs(train - t).max(1).min() for t in test)
    assert nearest == buffer + 1
    assert min_distance_px(split, scenes[0]) == buffer + 1


def test_parts_hold_their_shares_of_every_class(tiny):
    scenes = scenes_of(tiny)
    split = make_split(scenes, SplitConfig(block_px=8, buffer_px=0, val=0.2, test=0.3), size_px=32)
    counts = part_counts(split, scenes)
    total = sum(counts.values())
    assert np.abs(counts["test"] / total - 0.3).max() < 0.08
    assert np.abs(counts["val"] / total - 0.2).max() < 0.08


def test_the_same_seed_gives_the_same_csv_in_two_processes(tiny, tmp_path):
    code = (
        "import sys, json; from covermap.core.config import parse_config; from covermap.data.scene import open_scenes;"
        "from covermap.data.split import make_split; raw = json.loads(sys.argv[1]); c = parse_config(raw);"
        "make_split(open_scenes(c.data), c.split, size_px=32).save(sys.argv[2])"
    )
    import json

    texts = []
    for i, seed in enumerate(("1", "77")):
        path = tmp_path / f"{i}.csv"
        environment = {"PYTHONHASHSEED": seed, "PATH": "/usr/bin"}
        subprocess.run([sys.executable, "-c", code, json.dumps(tiny), str(path)], check=True, env=environment)
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    other = dict(tiny, split=dict(tiny["split"], seed=5))
    split = make_split(scenes_of(other), parse_config(other).split, size_px=32)
    split.save(tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_text() != texts[0]


def test_a_saved_split_reads_back_and_a_damaged_one_is_refused(tiny, tmp_path):
    split = make_split(scenes_of(tiny), SplitConfig(block_px=16), size_px=32)
    split.save(tmp_path / "s.csv")
    assert Split.load(tmp_path / "s.csv") == split
    text = (tmp_path / "s.csv").read_text()
    for broken in ("", "scene,row\n", text.replace("train", "trian", 1), text.replace(",16,16,", ",x,16,", 1)):
        (tmp_path / "b.csv").write_text(broken)
        with pytest.raises(DataError, match="no split file"):
            Split.load(tmp_path / "b.csv")


def test_boxes_fix_val_test_and_what_belongs_to_none(tiny):
    scenes = scenes_of(tiny)
    config = SplitConfig(test={"cols": [100, 128]}, exclude=[{"cols": [90, 100]}], val=0.2, block_px=16, buffer_px=0)
    split = make_split(scenes, config, size_px=32)
    mask = split.part_mask("image", scenes[0].grid.window)
    assert (mask[:, 100:] == 3).all()
    assert (mask[:, 90:100] == 0).all()
    assert set(np.unique(mask[:, :90])) == {1, 2}
    with pytest.raises(ConfigError, match="outside"):
        make_split(scenes, SplitConfig(test={"cols": [500, 600]}), size_px=32)


def test_scenes_can_be_held_out_by_name(write_tif):
    for name in ("a", "b", "c"):
        write_tif(f"x/{name}.tif", np.ones((2, 32, 32), "uint8"), bands=["red", "nir"])
        path = write_tif(f"y/{name}.tif", np.kron([[1, 2], [2, 1]], np.ones((16, 16))).astype("uint8"))
    root = path.rsplit("/", 2)[0]
    scenes = open_scenes(DataConfig(image=f"{root}/x/*.tif", labels=f"{root}/y/*.tif"))
    split = make_split(scenes, SplitConfig(method="regions", test=["b"], val=0.25, block_px=8, buffer_px=0), size_px=8)
    assert (split.part_mask("b", Window(0, 0, 32, 32)) == 3).all()
    assert set(np.unique(split.part_mask("a", Window(0, 0, 32, 32)))) <= {1, 2}
    with pytest.raises(ConfigError, match="no scene 'd'"):
        make_split(scenes, SplitConfig(test=["d"]), size_px=8)
    with pytest.raises(ConfigError, match="scene names"):
        make_split(scenes, SplitConfig(method="regions"), size_px=8)


def test_random_splits_say_that_they_leak(tiny):
    for method in ("random", "stratified"):
        split = make_split(scenes_of(tiny), SplitConfig(method=method), size_px=16)
        assert any("too good" in note for note in split.notes)


def test_an_empty_part_and_a_single_class_are_refused(tiny, write_tif):
    with pytest.raises(LabelError, match=r"test part .* no labelled pixel"):
        make_split(scenes_of(tiny), SplitConfig(block_px=200, test=0.2, val=0.0), size_px=32)
    tiny["data"]["labels"] = write_tif("one.tif", np.ones((96, 128), "uint8"), nodata=0)
    with pytest.raises(LabelError, match="only one class"):
        make_split(scenes_of(tiny), SplitConfig(block_px=16), size_px=32)


def test_classes_missing_from_a_part_are_named(tiny, write_tif):
    codes = np.ones((96, 128), "uint8")
    codes[:, 64:], codes[:4, :4] = 2, 3
    tiny["data"]["labels"] = write_tif("rare.tif", codes, nodata=0)
    split = make_split(scenes_of(tiny), SplitConfig(block_px=16), size_px=32)
    assert sum("town" in note for note in split.notes) == 2


@given(st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=30)
def test_grown_areas_equal_a_brute_force(px, seed):
    mask = np.random.default_rng(seed).random((17, 23)) < 0.03
    expected = np.zeros_like(mask)
    for r, c in np.argwhere(mask):
        expected[max(0, r - px) : r + px + 1, max(0, c - px) : c + px + 1] = True
    assert np.array_equal(spread(mask, px), expected)


def test_later_rectangles_lie_on_top():
    split = Split((Tile("a", Window(0, 0, 4, 4), "train"), Tile("a", Window(0, 0, 2, 2), "test")), 1)
    mask = split.part_mask("a", Window(0, 0, 4, 4))
    assert mask.tolist() == [[3, 3, 0, 1], [3, 3, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]]


def test_assignment_keeps_rare_classes_in_train():
    counts = np.full((40, 3), [100, 100, 0])
    counts[:2, 2] = 50
    parts = assign(counts, {"val": 0.2, "test": 0.2}, seed=1)
    assert "train" in {parts[0], parts[1]}
    assert len(parts) == 40
