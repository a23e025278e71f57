"""Folds, regions, a layout's own parts, budgets, places and chips; what overlaps never straddles."""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from shapely import box

from covermap.core.config import DataConfig, SplitConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, CovermapError, GridError
from covermap.core.legend import IGNORE, Legend
from covermap.data.assign import assign, assign_folds, nested
from covermap.data.labels import ChipLabels
from covermap.data.make_split import make_split
from covermap.data.scene import Scene, open_scenes
from covermap.data.split import PARTS, Split, Tile, part_counts
from covermap.geo.grid import Grid, Window

UTM = CRS.from_epsg(32631)
LEGEND = Legend.from_dict({"name": "t", "classes": [{"code": c, "name": f"class {c}"} for c in (1, 2, 3)]}, where="t")


@dataclass
class ArrayLabels:
    """Class indices that lie in memory."""

    index: np.ndarray
    legend: Legend = LEGEND
    notes: tuple = ()

    def read(self, window):
        out = np.full((window.height, window.width), IGNORE, np.uint8)
        inside = window.intersect(Window(0, 0, *self.index.shape))
        if not inside.is_empty:
            out[inside.within(window).slices] = self.index[inside.slices]
        return out


def scene(name, index, *, xy=None, **facts):
    """A scene without pixels at 10 m; xy: its upper left corner in EPSG:32631, None: no place on the ground."""
    transform = Affine(10, 0, xy[0], 0, -10, xy[1]) if xy else Affine.identity()
    grid = Grid(UTM if xy else None, transform, *index.shape)
    return Scene(name, grid, {}, labels=ArrayLabels(index.astype(np.uint8)), **facts)


def stripes(height=48, width=48, side=8, seed=0):
    return np.kron(
        np.random.default_rng(seed).integers(0, 3, (-(-height // side), -(-width // side))), np.ones((side, side))
    ).astype(np.uint8)[:height, :width]


def chip(name, k, *, xy=None, **facts):
    grid = Grid(UTM if xy else None, Affine(10, 0, *(xy or (0,))[:1], 0, -10, (xy or (0, 0))[1]), 16, 16)
    return Scene(name, grid, {}, labels=ChipLabels(grid, LEGEND, k), **facts)


def parts_of(split):
    """{scene: its parts}, of scenes that are not cut."""
    found = {}
    for tile in split.tiles:
        found.setdefault(tile.scene, set()).add(tile.part)
    return found


# ------------------------------------------------------------------ a layout's own parts


def test_a_layouts_parts_are_followed_and_val_is_taken_from_train_by_places():
    scenes = [scene(f"{p}_{i}", stripes(seed=i), part=part, place=p) for part, places in
              (("train", "abcdefgh"), ("test", "xy")) for p in places for i in range(3)]  # fmt: skip
    split = make_split(scenes, SplitConfig(method="source", val=0.25), size_px=32)
    parts = parts_of(split)
    assert all(parts[f"{p}_{i}"] == {"test"} for p in "xy" for i in range(3))
    by_place = {p: frozenset().union(*(parts[f"{p}_{i}"] for i in range(3))) for p in "abcdefgh"}
    assert all(len(found) == 1 for found in by_place.values())  # three overlapping tiles of a place on one side
    assert sum(found == {"val"} for found in by_place.values()) == 2  # a quarter of eight places
    assert any("no val part" in note for note in split.notes)


def test_all_three_parts_of_a_layout_are_taken_as_they_are():
    scenes = [scene(part, stripes(seed=i), part=part) for i, part in enumerate(("train", "val", "test"))]
    split = make_split([*scenes, scene("lone", stripes())], SplitConfig(method="source", block_px=48), size_px=32)
    assert parts_of(split) == {"train": {"train"}, "val": {"val"}, "test": {"test"}, "lone": {"none"}}
    assert any("1 scenes have no part" in note for note in split.notes)
    with pytest.raises(ConfigError, match=r"split\.val has no effect"):
        make_split(scenes, SplitConfig(method="source", val=0.1), size_px=32)
    for found in ([scene("a", stripes())], [scene("a", stripes(), part="test")]):
        with pytest.raises(ConfigError, match="the layout says"):
            make_split(found, SplitConfig(method="source"), size_px=32)


def test_images_of_one_ground_in_two_parts_of_a_layout_stay_with_a_note_and_overlaps_give_way():
    one, other = stripes(seed=1), stripes(seed=2)
    april = scene("april", one, xy=(0, 480), part="train", place="p")
    august = scene("august", one, xy=(0, 480), part="test", place="p")
    config = SplitConfig(method="source", val=0.0, block_px=12, buffer_px=0)
    split = make_split([april, august], config, size_px=8)
    assert part_counts(split, [april, august])["train"].sum() == 48 * 48
    assert any("other images" in note for note in split.notes)
    beside = scene("beside", other, xy=(240, 480), part="test")
    split = make_split([april, beside], config, size_px=8)
    assert part_counts(split, [april, beside])["train"].sum() == 48 * 24
    assert part_counts(split, [april, beside])["test"].sum() == 48 * 48


def test_wusu_is_split_by_its_own_parts_with_one_city_as_val(tmp_path):
    from covermap.core.registry import find

    find("source", "wusu").write_miniature(tmp_path)
    raw = {"source": "wusu", "root": str(tmp_path)}
    scenes = open_scenes(DataConfig(**raw))
    split = make_split(scenes, SplitConfig(method="source"), size_px=32)
    parts = parts_of(split)
    for name, found in parts.items():
        assert found == {"test"} if name.startswith("test_") else len(found) == 1
    cities = {name[6:8]: found for name, found in parts.items() if name.startswith("train_")}
    assert sorted(map(sorted, cities.values())) == [["train"], ["val"]]
    assert any("not 20%" in note for note in split.notes)


# ------------------------------------------------------------------ places, few blocks


def test_scenes_of_one_place_stand_on_one_side_and_images_of_one_ground_share_blocks():
    scenes = [scene(f"{p}{i}", stripes(seed=i), place=p) for p in "abcdef" for i in range(2)]
    for seed in range(5):
        parts = parts_of(make_split(scenes, SplitConfig(seed=seed), size_px=32))
        assert all(parts[f"{p}0"] == parts[f"{p}1"] and len(parts[f"{p}0"]) == 1 for p in "abcdef")
    two_dates = [scene(name, stripes(), xy=(0, 480), place="p") for name in ("april", "august")]
    split = make_split(two_dates, SplitConfig(block_px=8, buffer_px=0), size_px=32)
    masks = [split.part_mask(s.name, s.grid.window) for s in two_dates]
    assert np.array_equal(*masks)
    assert set(np.unique(masks[0])) == {1, 2, 3}


def test_too_few_places_are_refused_and_naming_scenes_of_one_place_is_noted():
    scenes = [scene(f"{p}{i}", stripes(seed=i), place=p) for p in "ab" for i in range(2)]
    with pytest.raises(ConfigError, match="3 parts need as many places"):
        make_split(scenes, SplitConfig(), size_px=32)
    split = make_split(scenes, SplitConfig(val=0.0), size_px=32)
    assert {frozenset(p) for p in parts_of(split).values()} == {frozenset({"train"}), frozenset({"test"})}
    split = make_split(scenes, SplitConfig(val=0.0, test=["a1"]), size_px=32)
    assert any("other images" in note for note in split.notes)
    split = make_split(scenes, SplitConfig(val=0.0, test=["a"]), size_px=32)  # a place by its name
    assert parts_of(split) == {"a0": {"test"}, "a1": {"test"}, "b0": {"train"}, "b1": {"train"}}
    assert not any("other images" in note for note in split.notes)


def test_no_part_stays_empty_where_there_are_blocks_enough():
    for seed in range(20):
        counts = np.random.default_rng(seed).integers(1, 100, (3, 2))
        assert set(assign(counts, {"val": 0.1, "test": 0.1}, seed=seed)) == {"train", "val", "test"}


# ------------------------------------------------------------------ folds and regions


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_every_block_is_test_in_exactly_one_fold(folds):
    scenes = [scene("a", stripes(96, 96), xy=(0, 0)), scene("b", stripes(48, 96, seed=4), xy=(9999, 0))]
    times = [np.zeros((s.grid.height, s.grid.width), int) for s in scenes]
    for fold in range(1, folds + 1):
        config = SplitConfig(method="kfold", folds=folds, fold=fold, block_px=8, buffer_px=0, val=0.1)
        split = make_split(scenes, config, size_px=8)
        counts = part_counts(split, scenes)
        assert abs(counts["test"].sum() / (144 * 96) - 1 / folds) < 0.02
        assert abs(counts["val"].sum() / (144 * 96) / (1 - 1 / folds) - 0.1) < 0.03
        for seen, s in zip(times, scenes, strict=True):
            seen += split.part_mask(s.name, s.grid.window) == PARTS.index("test")
    assert all((seen == 1).all() for seen in times)


def test_folds_are_balanced_in_pixels_and_classes():
    rng = np.random.default_rng(0)
    counts = (rng.pareto(1.5, (200, 4)) * 100).astype(np.int64) * (rng.random((200, 4)) < 0.5)
    fold = assign_folds(counts, 5, seed=3)
    share = np.array([counts[fold == f].sum(0) for f in range(5)]) / counts.sum(0)
    largest = (counts / counts.sum(0)).max()
    assert np.abs(share - 0.2).max() < largest + 0.02
    assert np.array_equal(fold, assign_folds(counts, 5, seed=3))
    assert not np.array_equal(fold, assign_folds(counts, 5, seed=4))


def test_too_many_folds_and_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="5 folds need as many labelled blocks; there are 4"):
        make_split([scene("a", stripes(16, 16))], SplitConfig(method="kfold", block_px=8, buffer_px=0), size_px=8)
    for raw, words in (
        ({"method": "kfold", "folds": 3, "fold": 4}, "not among the folds 1 to 3"), ({"folds": 3}, "goes with"),
        ({"method": "kfold", "test": 0.1}, "no effect with kfold"), ({"method": "csv", "budget": 0.5}, "no effect"),
        ({"method": "source", "test": ["a"]}, "shares"), ({"budget": 0.0}, "greater than 0"),
        ({"method": "regions", "region_field": "x", "test": ["a"]}, "goes with split.regions"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            SplitConfig(**raw)


@pytest.fixture
def three_regions(tmp_path):
    """North, middle and south of a scene of 96 x 96 px, borders inside of the blocks of 8; west of 0 lies nothing."""
    path = tmp_path / "regions.geojson"
    edges = [0, -300, -620, -960]
    shapes = [box(0, low, 960, high) for high, low in itertools.pairwise(edges)]
    table = gpd.GeoDataFrame({"land": ["north", "middle", "south"]}, geometry=shapes, crs=UTM.to_wkt())
    table.to_crs(4326).to_file(path)
    return str(path)


def test_a_named_region_is_held_out_whole(three_regions):
    one = scene("a", stripes(96, 96), xy=(0, 0))
    config = SplitConfig(
        method="regions", regions=three_regions, region_field="land", test=["middle"], val=0.2, block_px=8, buffer_px=0
    )
    split = make_split([one], config, size_px=8)
    mask = split.part_mask("a", one.grid.window)
    assert (mask[32:56] == PARTS.index("test")).all()  # blocks wholly inside of rows 30 to 61
    assert not np.isin(mask[30:62], (1, 2)).any()  # no pixel of the region trains or selects
    assert set(np.unique(mask[:24])) == {1, 2}
    with pytest.raises(ConfigError, match="no region 'midle'") as error:
        make_split([one], config.model_copy(update={"test": ["midle"]}), size_px=8)
    assert "middle" in error.value.fix
    with pytest.raises(ConfigError, match="its fields are land"):
        make_split([one], config.model_copy(update={"region_field": "name"}), size_px=8)
    with pytest.raises(GridError, match="no CRS"):
        make_split([scene("a", stripes())], config, size_px=8)
    with pytest.raises(GridError, match="no region"):
        make_split([scene("a", stripes(), xy=(50_000, 0))], config, size_px=8)


def test_whole_regions_go_into_folds(three_regions):
    one = scene("a", stripes(96, 96), xy=(0, 0))
    raw = {"method": "kfold", "folds": 3, "regions": three_regions, "region_field": "land", "block_px": 8,
           "buffer_px": 0, "val": 0.0}  # fmt: skip
    tested = []
    for fold in (1, 2, 3):
        mask = make_split([one], SplitConfig(**raw, fold=fold), size_px=8).part_mask("a", one.grid.window)
        tested.append(frozenset(np.flatnonzero((mask == 3).all(1) & (np.arange(96) % 8 == 4)).tolist()))
    assert set(tested) == {frozenset({4, 12, 20, 28}), frozenset({36, 44, 52, 60}), frozenset({68, 76, 84, 92})}
    scenes = [scene(f"{p}{i}", stripes(seed=i), xy=(9999 * i, 99_999 * ord(p))) for p in "abc" for i in range(2)]
    split = make_split(
        scenes, SplitConfig(method="kfold", folds=6, fold=2, regions="scenes", val=0.0, block_px=8), size_px=8
    )
    assert sorted(map(sorted, parts_of(split).values())) == [["test"], *[["train"]] * 5]


# ------------------------------------------------------------------ budgets


BUDGETS = (0.125, 0.25, 0.5, 1.0)


def used(split, scenes, part):
    return {
        (s.name, r, c) for s in scenes for r, c in np.argwhere(split.labels(s, s.grid.window, part) != IGNORE).tolist()
    }


def assert_nested(scenes, tmp_path, **settings_):
    splits = []
    for budget in BUDGETS:
        split = make_split(scenes, SplitConfig(budget=budget, **settings_), size_px=8)
        split.save(tmp_path / "s.csv")
        assert Split.load(tmp_path / "s.csv") == split
        splits.append(Split.load(tmp_path / "s.csv"))
    train = [used(split, scenes, "train") for split in splits]
    assert train[0] < train[1] < train[2] < train[3]
    for part in ("val", "test"):
        assert all(used(split, scenes, part) == used(splits[-1], scenes, part) for split in splits)
    for split in splits:
        assert (part_counts(split, scenes)["train"] > 0).all()  # every class in every budget
    return splits, [len(pixels) / len(train[3]) for pixels in train]


@pytest.mark.parametrize("seed", [0, 1])
def test_budgets_of_blocks_are_nested_with_every_class(tmp_path, seed):
    index = stripes(128, 128, side=8, seed=seed)
    index[:8, :64], index[64:72, 64:] = IGNORE, IGNORE
    scenes = [scene("a", index, xy=(0, 0)), scene("b", index, xy=(0, 0), place=None)]
    splits, shares = assert_nested(scenes, tmp_path, block_px=8, buffer_px=0, seed=seed)
    assert np.allclose(shares, BUDGETS, atol=0.02)
    for split in splits:  # two images of one ground keep the same blocks
        assert np.array_equal(*(split.part_mask(s.name, s.grid.window) for s in scenes))


def test_budgets_of_chips_are_nested_and_stratified(tmp_path):
    rng = np.random.default_rng(0)
    classes = rng.choice(3, 400, p=[0.7, 0.25, 0.05])
    scenes = [chip(f"c{i}", k) for i, k in enumerate(classes.tolist())]
    splits, _ = assert_nested(scenes, tmp_path)
    whole = part_counts(splits[-1], scenes)["train"] // 256
    for split, budget in zip(splits, BUDGETS, strict=True):
        assert all(len(found) == 1 for found in parts_of(split).values())
        assert np.array_equal(part_counts(split, scenes)["train"] // 256, np.maximum(1, np.floor(whole * budget + 0.5)))


def test_budgets_of_polygons_are_nested_and_count_polygons(write_tif, tmp_path):
    image = write_tif("image.tif", np.ones((1, 160, 160), "uint8"), bands=["red"])
    corners = [(x, y) for x in range(500_010, 501_600, 80) for y in range(4_998_410, 5_000_000, 80)]
    kinds = np.random.default_rng(1).choice(["wood", "lake", "town"], len(corners), p=[0.6, 0.3, 0.1])
    shapes = [box(x, y, x + 40, y + 40) for x, y in corners]
    gpd.GeoDataFrame({"kind": kinds}, geometry=shapes, crs="EPSG:32631").to_file(tmp_path / "p.gpkg")
    scenes = open_scenes(DataConfig(image=image, labels=str(tmp_path / "p.gpkg"), field="kind"))
    splits, shares = assert_nested(scenes, tmp_path, block_px=20, buffer_px=1)
    assert np.allclose(shares, BUDGETS, atol=0.04)
    objects = scenes[0].labels.read_objects()
    numbers = [np.unique(objects[s.labels(scenes[0], scenes[0].grid.window, "train") != IGNORE]) for s in splits]
    assert set(numbers[0]) < set(numbers[1]) < set(numbers[2]) < set(numbers[3])
    assert abs(len(numbers[0]) / len(numbers[3]) - 0.125) < 0.02


def test_a_budget_is_the_same_in_two_processes(tiny, tmp_path):
    code = (
        "import sys, json; from covermap.core.config_file import parse_config; from covermap.data.scene import open_scenes;"
        "from covermap.data.make_split import make_split; c = parse_config(json.loads(sys.argv[1]));"
        "make_split(open_scenes(c.data), c.split, size_px=32).save(sys.argv[2])"
    )
    texts = {}
    for budget in (0.25, 0.5):
        tiny["split"] = {"block_px": 8, "buffer_px": 1, "budget": budget}
        for seed in ("1", "77"):
            path = tmp_path / f"{budget}_{seed}.csv"
            done = subprocess.run(
                [sys.executable, "-c", code, json.dumps(tiny), str(path)], env={"PYTHONHASHSEED": seed, **_path()}
            )
            assert done.returncode == 0
            texts.setdefault(budget, set()).add(path.read_text())
    assert [len(found) for found in texts.values()] == [1, 1]
    small, large = (Split.load(tmp_path / f"{budget}_1.csv") for budget in (0.25, 0.5))
    trained = [{(t.scene, t.window) for t in split.tiles if t.part == "train"} for split in (small, large)]
    assert trained[0] < trained[1]
    assert small.budget == 0.25


def _path():
    import os

    return {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}


@given(st.integers(0, 10_000), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_budget_lies_in_a_larger_one(seed, one, two):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (rng.integers(1, 60), 4)) * (rng.random(4) < 0.7)
    small, large = (nested(counts, budget, seed=seed) for budget in sorted((one, two)))
    assert not (small & ~large).any()
    assert nested(counts, 1.0, seed=seed).all()


# ------------------------------------------------------------------ chips


def test_chips_are_never_cut_and_classes_are_even():
    rng = np.random.default_rng(5)
    scenes = [scene(f"c{i}", np.full((16, 20), rng.choice(3, p=[0.6, 0.3, 0.1]))) for i in range(200)]
    split = make_split(scenes, SplitConfig(), size_px=8)
    assert len(split.tiles) == 200
    counts = part_counts(split, scenes)
    for part, wanted in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert np.abs(counts[part] / sum(counts.values()) - wanted).max() < 0.06
    assert len(make_split(scenes[:20], SplitConfig(block_px=20, buffer_px=0), size_px=8).tiles) == 20


def test_many_chips_take_time_in_proportion():
    """A loop over pairs would take 64 times as long for 8 times as many."""
    seconds = []
    for number in (500, 4000):
        scenes = [chip(f"c{i}", i % 3, xy=(160 * (i % 50), 160 * (i // 50))) for i in range(number)]
        start = time.process_time()
        make_split(scenes, SplitConfig(budget=0.5), size_px=8)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 25 * seconds[0]


def test_lucas_chips_are_split_by_the_class_of_the_whole_chip(write_tif, tmp_path):
    rows = [f"{i},{1 + i % 2}" for i in range(40)]
    for i in range(40):
        write_tif(f"{1 + i % 2}/{i}.tif", np.random.default_rng(i).random((6, 8, 8)).astype("float32"))
    (tmp_path / "chips_LC_class.csv").write_text("Point_ID,STR18\n" + "\n".join(rows) + "\n")
    scenes = open_scenes(DataConfig(source="lucas", root=str(tmp_path)))
    assert scenes[1].read_labels(Window(-1, 0, 2, 2)).tolist() == [[IGNORE, IGNORE], [1, 1]]  # STR18 2: index 1
    assert any("40 chips have one class each" in note for note in scenes[0].notes)


# ------------------------------------------------------------------ what must always hold


@st.composite
def landscapes(draw):
    """A few scenes of any size, place on the ground and labels, and settings."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    scenes = []
    for i in range(draw(st.integers(1, 4))):
        height, width = draw(st.integers(24, 60)), draw(st.integers(24, 60))
        index = stripes(height, width, side=draw(st.integers(1, 9)), seed=int(rng.integers(999)))
        index[rng.random(index.shape) < draw(st.sampled_from([0.0, 0.3]))] = IGNORE
        xy = (10 * draw(st.integers(0, 90)), 10 * draw(st.integers(0, 90)))
        scenes.append(scene(f"s{i}", index, xy=xy))
    config = SplitConfig(
        method=draw(st.sampled_from(["blocks", "kfold"])), seed=draw(st.integers(0, 99)), val=0.2,
        block_px=draw(st.integers(4, 12)), buffer_px=draw(st.integers(0, 4)), budget=draw(st.sampled_from([0.5, 1.0])),
    )  # fmt: skip
    return scenes, config


def centres(split, scenes, part):
    found = [np.zeros((0, 2))]
    for s in scenes:
        rows, cols = np.nonzero(split.labels(s, s.grid.window, part) != IGNORE)
        found.append(np.stack(s.grid.transform * (cols + 0.5, rows + 0.5), 1))
    return np.concatenate(found)


@given(landscapes())
@settings(max_examples=40)
def test_train_and_test_are_farther_apart_than_the_buffer_whatever_the_scenes(drawn):
    from scipy.spatial import KDTree

    scenes, config = drawn
    try:
        split = make_split(scenes, config, size_px=8)
    except CovermapError:
        return
    ground = {part: centres(split, scenes, part) for part in ("train", "val", "test")}
    for one, two in (("train", "test"), ("train", "val"), ("val", "test")):
        # Chebyshev distance on the ground, over all scenes: pixels of 10 m.
        near, _ = KDTree(ground[one]).query(ground[two], p=np.inf)
        assert near.min() > 10 * config.buffer_px
    counts = part_counts(split, scenes)
    for part in ("train", "val"):
        lacking = [name for name, count in zip(LEGEND.names, counts[part], strict=True) if not count]
        assert not lacking or any(note == f"{part} has no pixel of {', '.join(lacking)}" for note in split.notes)


def test_a_budget_in_a_damaged_file_is_refused(tmp_path):
    Split((Tile("a", Window(0, 0, 4, 4), "train"),), 0, budget=0.5).save(tmp_path / "s.csv")
    text = (tmp_path / "s.csv").read_text()
    assert text.startswith("# method=blocks buffer_px=0 budget=0.5\n")
    (tmp_path / "s.csv").write_text(text.replace("0.5", "nan"))
    with pytest.raises(CovermapError, match="budget is a share"):
        Split.load(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text(text.replace(" budget=0.5", ""))  # written by an earlier version
    assert Split.load(tmp_path / "s.csv").budget == 1


def test_region_and_split_paths_count_from_the_config(tmp_path):
    data = {"image": "i.tif", "labels": "l.tif"}
    raw = {"data": data, "split": {"method": "kfold", "regions": "r.gpkg", "region_field": "land"}}
    assert parse_config(raw, base=tmp_path).split.regions == str(tmp_path / "r.gpkg")
    raw["split"] = {"method": "kfold", "regions": "places"}
    assert parse_config(raw, base=tmp_path).split.regions == "places"
