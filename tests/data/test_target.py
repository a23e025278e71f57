"""Targets from config and layout to samples, windows and batches; references in float64."""

import numpy as np
import pytest
import rasterio
import torch

from covermap.core.config import DataConfig
from covermap.core.config_file import load_config, parse_config
from covermap.core.errors import BandError, ConfigError, DataError, GridError
from covermap.core.target_config import TargetConfig
from covermap.core.train_config import TrainConfig
from covermap.data import miniature
from covermap.data.chips import TrainWindows, collate, survey
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.stats import input_spec, target_statistics
from covermap.geo.grid import Window
from covermap.geo.resize import resize
from covermap.models import load_model

RNG = np.random.default_rng(0)


def scene_with(write_tif, target, *, height=100, width=100, **more):
    image = write_tif("i.tif", RNG.integers(1, 99, (1, height, width)).astype("uint8"), bands=["red"])
    return open_scenes(DataConfig(image=image, target=TargetConfig(**target), **more))[0]


def test_a_chip_of_100_px_gets_33_x_33_elevations_with_its_mean(write_tif):
    dem = RNG.normal(800, 200, (100, 100)).astype("float32")
    scene = scene_with(write_tif, {"path": write_tif("dem.tif", dem), "size_px": 33, "unit": "m"})
    sample = scene.read(scene.grid.window, target=True)
    assert (sample.target.shape, sample.target.dtype) == ((1, 33, 33), np.float32)
    assert (scene.target.names, scene.target.units) == (("target",), ("m",))
    assert np.isclose(sample.target.mean(dtype="float64"), dem.mean(dtype="float64"), rtol=1e-6)
    assert scene.read(scene.grid.window).target is None
    # The first new pixel holds 3 1/33 old ones in each direction.
    weight = np.array([1, 1, 1, 100 / 33 - 3])
    first = (weight @ dem[:4, :4].astype("float64") @ weight) / weight.sum() ** 2
    assert np.isclose(sample.target[0, 0, 0], first, rtol=1e-6)


@pytest.mark.parametrize("size", [{}, {"factor": 5}, {"factor": 2.5}])
def test_amounts_keep_their_sum_and_windows_equal_the_whole(write_tif, size):
    """People for each 30 m pixel, of which -1 are not known, on an image of 10 m."""
    people = RNG.integers(0, 40, (50, 50)).astype("int32")
    people[3, 4] = -1
    path = write_tif("people.tif", people, gsd=30.0, nodata=-1)
    scene = scene_with(write_tif, {"path": path, "resampling": "sum", **size}, height=150, width=150)
    whole = scene.read(scene.grid.window, target=True).target
    assert np.isclose(np.nansum(whole, dtype="float64"), people[people >= 0].sum(), rtol=1e-6)
    for row, col in ((0, 0), (50, 100)):
        mine = scene.read(Window(row, col, 50, 50), target=True).target
        step = size.get("factor", 1)
        rows, cols = (slice(int(at / step), int((at + 50) / step)) for at in (row, col))
        assert np.array_equal(mine, whole[:, rows, cols], equal_nan=True)


def test_numbers_are_replaced_scaled_and_named(write_tif):
    cover = np.array([[[0, 50], [200, 253]], [[1, 1], [1, 1]]], "uint8")
    path = write_tif("v.tif", cover, bands=["Percent_Tree_Cover_2020", "quality"])
    scene = scene_with(
        write_tif,
        {"path": path, "use": ["Percent_Tree_Cover_2020"], "replace": {200: 100, 253: None}, "scale": 0.5, "offset": 1},
        height=2, width=2,
    )  # fmt: skip
    got = scene.read(scene.grid.window, target=True).target
    assert np.array_equal(got, [[[1, 26], [51, np.nan]]], equal_nan=True)


def test_class_shares_of_a_chip_equal_numpys_counts(write_tif):
    codes = RNG.integers(0, 4, (90, 70)).astype("uint8")
    more = {"labels": write_tif("l.tif", codes, nodata=0), "legend": {1: "field", 2: "water", 3: "town"}}
    scene = scene_with(write_tif, {"shares": True, "per_chip": True}, height=90, width=70, **more)
    window = Window(11, 5, 40, 55)
    got = scene.read(window, target=True).target
    counts = np.bincount(codes[window.slices].ravel(), minlength=4)[1:]
    assert got.shape == (3,)
    assert scene.target.names == ("field", "water", "town")
    assert np.array_equal(got, (counts / counts.sum()).astype("float32"))
    assert np.isnan(scene.read(Window(-50, 0, 20, 20), target=True).target).all()
    coarse = scene_with(write_tif, {"shares": True, "factor": 10}, height=90, width=70, **more)
    block = codes[20:30, 30:40]
    assert np.allclose(
        coarse.read(coarse.grid.window, target=True).target[:, 2, 3],
        [(block == k).sum() / (block > 0).sum() for k in (1, 2, 3)],
    )


def test_what_does_not_fit_is_refused(write_tif, tmp_path):
    dem = write_tif("d/a.tif", np.ones((8, 8), "float32"))
    for name in ("a", "b"):
        write_tif(f"x/{name}.tif", np.ones((1, 8, 8), "uint8"), bands=["red"])
    pair = {"image": str(tmp_path / "x/*.tif")}
    with pytest.raises(DataError, match=r"1 images without targets in .*: b\n"):
        open_scenes(DataConfig(**pair, target=TargetConfig(path=str(tmp_path / "d/*.tif"))))
    assert len(open_scenes(DataConfig(**pair, target=TargetConfig(path=dem)))) == 2
    with pytest.raises(ConfigError, match="has no targets"):
        open_scenes(DataConfig(**pair, target=TargetConfig(size_px=4)))
    with pytest.raises(ConfigError, match="there are no labels"):
        open_scenes(DataConfig(**pair, target=TargetConfig(shares=True)))
    far = write_tif("far.tif", np.ones((8, 8), "float32"), origin=(100_000, 5_000_000))
    with pytest.raises(GridError, match=r"far.tif .* cannot be brought to a.tif"):
        open_scenes(DataConfig(**pair, target=TargetConfig(path=far)))
    nowhere = write_tif("nowhere.tif", np.ones((4, 4), "float32"), crs=None)
    with pytest.raises(GridError, match=r"nowhere.tif .* cannot be brought to a.tif"):
        open_scenes(DataConfig(**pair, target=TargetConfig(path=nowhere)))
    write_tif("y/a.tif", np.ones((8, 8), "float32"), bands=["agb"])
    write_tif("y/b.tif", np.ones((8, 8), "float32"), bands=["elevation"])
    with pytest.raises(BandError, match="scene b has the targets elevation, a has agb"):
        open_scenes(DataConfig(**pair, target=TargetConfig(path=str(tmp_path / "y/*.tif"))))
    for wrong, said in (
        ({"path": dem, "shares": True}, "either path or shares"),
        ({"shares": True, "scale": 2}, "scale: only with path"),
        ({"path": dem, "size_px": 3, "factor": 2}, "exclude each other"),
        ({"path": dem, "resampling": "sum", "offset": 1}, "offset"),
        ({"path": dem, "size": 3}, "size_px"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse_config({"data": {**pair, "target": wrong}})


def training(raw, **augment):
    config = parse_config(raw)
    scenes = open_scenes(config.data)
    split = make_split(scenes, config.split, size_px=32)
    spec = input_spec(scenes, split, normalise="dataset", size_px=32)
    train = TrainConfig(seed=3, size_px=32, augment=augment)
    cells = survey(scenes, split, cell_px=8).cells
    return scenes, split, TrainWindows(scenes, split, cells, spec, train, length=20, targets=True)


@pytest.fixture
def placed(tiny, write_tif):
    """The tiny scene with 1000 x row + column of each pixel as target."""
    rows, cols = np.mgrid[:96, :128]
    tiny["data"]["target"] = {"path": write_tif("place.tif", (1000 * rows + cols).astype("float32")), "unit": "m"}
    return tiny


def test_windows_carry_targets_of_the_train_part_alone(placed):
    scenes, split, data = training(placed, flips=False)
    mask = split.part_mask("image", scenes[0].grid.window) == 1
    for i in range(10):
        item = data[i]
        row, col = (int(v) for v in item["sample"].key.split(":")[1].split(","))
        rows, cols = np.mgrid[row : row + 32, col : col + 32]
        expected = np.where(mask[rows, cols], 1000 * rows + cols, np.nan)
        assert np.array_equal(item["sample"].target[0], expected, equal_nan=True)
    batch = collate([data[0], data[1]]).to("cpu")
    assert (batch.target.shape, batch.target.dtype) == ((2, 1, 32, 32), torch.float32)


@pytest.mark.parametrize("augment", [{"flips": True}, {"rotation": 90, "scale": [0.5, 2]}])
def test_targets_turn_with_their_image(placed, augment):
    """Whatever is done to a window, each of its pixels keeps the number of the ground that its label shows."""
    scenes, _, data = training(placed, **augment)
    seen = 0
    for i in range(20):
        sample = data[i]["sample"]
        known = np.isfinite(sample.target[0]) & (sample.label != 255)
        rows, cols = np.divmod(sample.target[0][known].astype(int), 1000)
        seen += known.sum()
        assert np.array_equal(scenes[0].read_labels(scenes[0].grid.window)[rows, cols], sample.label[known])
    assert seen > 1000


def test_a_coarse_target_tells_nothing_of_other_parts_and_does_not_turn(placed):
    placed["data"]["target"] |= {"factor": 4}
    scenes, split, data = training(placed, flips=False)
    got = split.target(scenes[0], scenes[0].grid.window, "train")[0]
    whole = scenes[0].target.read(scenes[0].grid.window)[0]
    mask = split.part_mask("image", scenes[0].grid.window) == 1
    alone = mask.reshape(24, 4, 32, 4).all((1, 3))
    assert 0 < alone.sum() < alone.size
    assert np.array_equal(got, np.where(alone, whole, np.nan), equal_nan=True)
    assert data[0]["sample"].target.shape == (1, 8, 8)
    with pytest.raises(ConfigError, match="rotation"):
        training(placed, rotation=10)
    placed["data"]["target"] |= {"factor": 5}
    with pytest.raises(ConfigError, match="32 px do not hold a whole number of targets of 5 px"):
        training(placed)


def test_where_the_image_holds_nothing_there_is_nothing_to_learn(placed, write_tif):
    image = np.full((3, 96, 128), 7, "uint16")
    image[:, ::3] = 0
    image[:, 1::3] = np.random.default_rng(0).integers(1, 99, (3, 32, 128))
    placed["data"]["image"] = write_tif("image.tif", image, bands=["green", "red", "nir"], nodata=0)
    _, _, data = training(placed)
    for i in range(5):
        sample = data[i]["sample"]
        assert np.isnan(sample.target[0][~sample.valid[0]]).all()


def test_statistics_are_numpys_over_the_train_part(placed):
    scenes, split, _ = training(placed)
    found = target_statistics(scenes, split, size_px=32)
    mask = split.part_mask("image", scenes[0].grid.window) == 1
    known = scenes[0].target.read(scenes[0].grid.window)[0].astype("float64")[mask]
    one = found[0]
    assert np.allclose([one.mean, one.std, one.low, one.high], [known.mean(), known.std(), known.min(), known.max()])
    tiles = sum(w.height * w.width for w in split.windows("image", "train"))
    assert np.isclose(one.unknown, 1 - mask.sum() / tiles)
    assert (one.target, one.unit) == ("target", "m")


def test_a_class_model_trains_checks_and_is_prepared_beside_a_target(placed, tmp_path):
    from covermap.verbs.check import check
    from covermap.verbs.prepare_scenes import prepare_scenes
    from covermap.verbs.train import train

    placed["train"] |= {"epochs": 1, "steps_per_epoch": 1}
    placed["baseline"] = False
    config = parse_config(placed)
    assert check(config)["targets"][0]["unit"] == "m"
    train(config)
    prepare_scenes(config, tmp_path / "store")
    again = open_scenes(load_config(tmp_path / "store/covermap.yaml").data)[0]
    assert again.read(Window(2, 3, 4, 4), target=True).target[0, 0, 0] == 2003


def test_m3leo_gives_its_continuous_sets(tmp_path):
    from covermap.core.registry import find

    find("source", "m3leo").write_miniature(tmp_path)
    place = {"origin": (400_000, 4_600_000), "epsg": 32631}
    for folder in tmp_path.glob("europe/*_3c1f"):
        chips = sorted(path.stem for path in (folder / "s1grd-2020").iterdir())
        for i, chip in enumerate(chips):
            here = {**place, "origin": (400_000 + 700 * i, 4_600_000)}
            cover = np.full((2, 3, 3), 40, "uint8")
            cover[1] = [[200, 10, 253]] * 3
            names = ["Percent_Tree_Cover_2019", "Percent_Tree_Cover_2020"]
            miniature.write(folder / "modis44b006veg" / f"{chip}.tif", cover, bands=names, gsd_m=640 / 3, **here)
            built = np.full((1, 8, 8), 100 + i, "uint16")
            miniature.write(folder / "ghsbuilts-2020" / f"{chip}.tif", built, gsd_m=80, **here)
            agb = np.full((1, 8, 8), 60, "float32")
            miniature.write_variable(
                folder / "biomass-2020" / f"{chip}.nc", agb, "agb", {"time": (2020,)}, gsd_m=80, **here
            )
    sets = {"modis44b006veg": {}, "ghsbuilts-2020": None, "biomass-2020": {}}
    options = {"targets": sets, "aois": ["europe"]}
    data = {"source": "m3leo", "root": str(tmp_path), "options": options, "target": {"size_px": 6}}
    scenes = open_scenes(parse_config({"data": data}).data)
    assert scenes[0].target.names == ("percent_tree_cover_2020", "built_surface", "agb")
    assert scenes[0].target.units == ("%", "m2", "Mg/ha")
    got = scenes[1].read(scenes[1].grid.window, target=True).target
    assert np.allclose(got[0, 0], [0, 0, 10, 10, np.nan, np.nan], equal_nan=True)
    assert np.isclose(got[1].sum(), 101 * 64, rtol=1e-6)
    assert np.allclose(got[2], 60)
    with pytest.raises(ConfigError, match="lidar-2020 is no known target"):
        open_scenes(DataConfig(source="m3leo", root=str(tmp_path), options={"targets": {"lidar-2020": {}}}))


def test_a_model_trains_on_real_images_with_a_coarser_dem_that_is_also_its_target(shared, tmp_path):
    """TerraMesh tiles of 224 px at 10 m; the DEM brought to 75 px of 29.9 m first."""
    from covermap.verbs.train import train

    folder = shared / "data" / "terramesh_examples"
    for path in sorted((folder / "DEM").glob("*.tif"))[:2]:
        with rasterio.open(path) as file:
            high = file.read(1).astype("float64")
            values = resize(high[None], high[None] > -1e9, *[np.linspace(0, 224, 76)] * 2, "mean")
            assert np.isclose(values.mean(), high.mean(), rtol=1e-12)
            miniature.write(
                tmp_path / "dem" / path.name, values.astype("float32"), bands=["elevation"], gsd_m=2240 / 75,
                origin=(file.bounds.left, file.bounds.top), epsg=file.crs.to_epsg(),
            )  # fmt: skip
        (tmp_path / "s2").mkdir(exist_ok=True)
        for kind, to in (("S2L2A", "s2"), ("LULC", "lulc")):
            (tmp_path / to).mkdir(exist_ok=True)
            (tmp_path / to / path.name).symlink_to(folder / kind / path.name)
    bands = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
    raw = {
        "output": str(tmp_path),
        "data": {
            "image": [
                {"path": str(tmp_path / "s2/*.tif"), "sensor": "sentinel2", "bands": bands},
                {"path": str(tmp_path / "dem/*.tif"), "sensor": "dem"},
            ],
            "labels": str(tmp_path / "lulc/*.tif"), "label_nodata": 0,
            "target": {"path": str(tmp_path / "dem/*.tif"), "size_px": 33, "unit": "m"},
        },
        "split": {"block_px": 32}, "baseline": False, "model": {"backbone_options": {"widths": [8, 16]}},
        "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "size_px": 32},
    }  # fmt: skip
    config = parse_config(raw)
    scene = open_scenes(config.data)[0]
    sample = scene.read(Window(0, 0, 100, 100), target=True)
    assert (sample.image["dem"].shape, sample.target.shape) == ((1, 1, 100, 100), (1, 33, 33))
    assert abs(sample.target.mean() - sample.image["dem"].mean()) < 0.01 * (sample.target.std() + 1)
    train(config)
    assert {entry.sensor for entry in load_model(config.folder / "model").spec.sensors} == {"sentinel2", "dem"}
