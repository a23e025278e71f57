import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import box

from covermap.core.config import DataConfig, SplitConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError, LabelError
from covermap.core.legend import IGNORE
from covermap.data.assign import assign
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.split import Split, Tile, min_distance_px, part_counts, spread
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
        "import sys, json; from covermap.core.config_file import parse_config; from covermap.data.scene import open_scenes;"
        "from covermap.data.make_split import make_split; raw = json.loads(sys.argv[1]); c = parse_config(raw);"
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


def _pattern(write_tif, tmp_path, origins, *, size=(48, 64)):
    """Config of one scene for each origin, each with three classes in stripes."""
    codes = (1 + np.indices(size)[1] // 8 % 3).astype("uint8")
    for i, origin in enumerate(origins):
        image = np.stack([codes * 10, codes[::-1]]).astype("uint8")
        write_tif(f"i/{i}.tif", image, bands=["red", "nir"], origin=origin)
        write_tif(f"l/{i}.tif", codes, origin=origin)
    return DataConfig(image=str(tmp_path / "i/*.tif"), labels=str(tmp_path / "l/*.tif"))


def ground(scene, split, part):
    """Centres of a part's pixels in the CRS."""
    rows, cols = np.nonzero(split.labels(scene, scene.grid.window, part) != IGNORE)
    x, y = scene.grid.transform * (cols + 0.5, rows + 0.5)
    return set(zip(np.round(x, 1).tolist(), np.round(y, 1).tolist(), strict=True))


@pytest.mark.parametrize("second", [(500_000, 5_000_000), (500_200, 4_999_900), (500_640, 5_000_000)])
@pytest.mark.parametrize("buffer", [0, 2])
def test_the_same_ground_never_stands_on_two_sides_of_a_split(write_tif, tmp_path, second, buffer):
    scenes = open_scenes(_pattern(write_tif, tmp_path, [(500_000, 5_000_000), second]))
    split = make_split(scenes, SplitConfig(block_px=8, buffer_px=buffer, val=0.2, test=0.2), size_px=16)
    split.save(tmp_path / "s.csv")
    again = Split.load(tmp_path / "s.csv")
    parts = {part: set().union(*(ground(s, again, part) for s in scenes)) for part in ("train", "val", "test")}
    assert all(parts.values())
    for one, two in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not parts[one] & parts[two]
        far = np.array(list(parts[one]))[:, None] - np.array(list(parts[two]))[None]
        assert np.abs(far).max(2).min() > 10 * buffer
    if second == (500_000, 5_000_000):  # two images of one place lose nothing but the buffer
        alone = make_split(scenes[:1], SplitConfig(block_px=8, buffer_px=buffer, val=0.2, test=0.2), size_px=16)
        assert part_counts(split, scenes)["train"].sum() > 1.8 * part_counts(alone, scenes[:1])["train"].sum()


def test_a_polygon_across_two_scenes_is_used_in_one_part(write_tif, tmp_path):
    for name, origin in (("a", 500_000), ("b", 500_480)):
        write_tif(f"i/{name}.tif", np.ones((1, 48, 48), "uint8"), bands=["red"], origin=(origin, 5_000_000))
    rng = np.random.default_rng(3)
    wide = [box(x, y, x + rng.integers(60, 200), y + 30) for x, y in rng.integers((500_000, 4_999_550), (500_900, 4_999_960), (60, 2))]  # fmt: skip
    table = gpd.GeoDataFrame({"kind": ["wood", "lake"] * 30}, geometry=wide, crs="EPSG:32631")
    table.to_file(tmp_path / "p.gpkg")
    config = DataConfig(image=str(tmp_path / "i/*.tif"), labels=str(tmp_path / "p.gpkg"), field="kind")
    scenes = open_scenes(config)
    split = make_split(scenes, SplitConfig(block_px=16, buffer_px=0, val=0.2, test=0.3), size_px=16)
    split.save(tmp_path / "s.csv")
    split = Split.load(tmp_path / "s.csv")
    assert split.dropped
    seen = {}
    for scene in scenes:
        objects = scene.labels.read_objects()
        for part in ("train", "val", "test"):
            used = np.unique(objects[split.labels(scene, scene.grid.window, part) != IGNORE])
            for number in used.tolist():
                seen.setdefault(number, set()).add(part)
    assert len(seen) > 20
    assert all(len(parts) == 1 for parts in seen.values())


def test_a_split_from_csv_must_go_with_the_scenes(tiny, tmp_path):
    scenes = scenes_of(tiny)
    make_split(scenes, SplitConfig(block_px=16), size_px=32).save(tmp_path / "s.csv")
    config = SplitConfig(method="csv", path=str(tmp_path / "s.csv"))
    assert make_split(scenes, config, size_px=32).tiles == Split.load(tmp_path / "s.csv").tiles
    text = (tmp_path / "s.csv").read_text()
    for old, new, words in (
        ("image,", "other,", "do not name the same scenes"), ("image,0,0,", "image,900,0,", "lies outside"),
        (",train", ",val", "train part of the split holds no"),
    ):  # fmt: skip
        (tmp_path / "s.csv").write_text(text.replace(old, new))
        with pytest.raises((ConfigError, LabelError), match=words):
            make_split(scenes, config, size_px=32)
