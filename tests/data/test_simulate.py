"""The simulated scene: the same values in any window, and the shares, spreads and files that were asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from hashlib import md5

import numpy as np
import pytest
import rasterio
from scipy import ndimage, stats

from covermap.core.errors import ConfigError, GridError, OutputError
from covermap.core.legend import load_legend
from covermap.data.simulate import BANDS, LEGEND, SceneRecipe, SimulatedScene, write_scene
from covermap.data.simulate_sensors import draw, fractal, key_of, normal, speckle_table, uniform
from covermap.geo.grid import Window, partition

WATER, FOREST, GRASS, CROP, BUILT, BARE, ROAD, ORCHARD = range(1, 9)
FULL = SceneRecipe(
    height=230,
    width=310,
    seed=3,
    num_dates=2,
    days=(196, 110),
    cloud_share=0.3,
    nodata_share=0.2,
    label_noise=0.3,
    region="south",
    region_shift=0.7,
)


@pytest.fixture(scope="module")
def usual() -> SimulatedScene:
    return SimulatedScene(SceneRecipe(num_dates=2))


@pytest.fixture(scope="module")
def usual_truth(usual) -> np.ndarray:
    return usual.truth(usual.grid.window)


def read_all(scene: SimulatedScene, window: Window, date: int) -> dict[str, np.ndarray]:
    """Every product of an image window."""
    out = {name: getattr(scene, name)(window, date=date) for name in ("optical", "sar", "cloud_mask", "nodata_mask")}
    return out | {"dem": scene.dem(window)}


def random_windows(scene_window: Window, count: int) -> list[Window]:
    random = np.random.default_rng(8)
    sizes = [(1, 1), (1, 40), (40, 1), *random.integers(2, 60, (count, 2)).tolist()]
    return [
        Window(
            int(random.integers(0, scene_window.height - h + 1)),
            int(random.integers(0, scene_window.width - w + 1)),
            h,
            w,
        )
        for h, w in sizes
    ]


@pytest.mark.parametrize("date", [0, 1])
def test_any_window_holds_the_values_of_the_whole(date):
    whole = read_all(SimulatedScene(FULL), Window(0, 0, FULL.height, FULL.width), date)
    fresh = SimulatedScene(FULL)
    for window in random_windows(fresh.grid.window, 12):
        for name, part in read_all(fresh, window, date).items():
            np.testing.assert_array_equal(part, whole[name][(..., *window.slices)], err_msg=f"{name} {window}")


def test_any_window_of_fine_labels_holds_the_values_of_the_whole():
    recipe = replace(FULL, height=42, width=61, label_factor=10)
    scene = SimulatedScene(recipe)
    assert (scene.label_grid.height, scene.label_grid.width) == (420, 610)
    assert scene.label_grid.bounds == pytest.approx(scene.grid.bounds)
    for name in ("truth", "labels"):
        whole = getattr(scene, name)(scene.label_grid.window, date=1)
        for window in random_windows(scene.label_grid.window, 15):
            part = getattr(SimulatedScene(recipe), name)(window, date=1)
            np.testing.assert_array_equal(part, whole[window.slices], err_msg=f"{name} {window}")


def test_far_windows_do_not_depend_on_their_blocks():
    """In the last corner of 20,000 x 20,000 px, where coordinates are large."""
    scene = SimulatedScene(SceneRecipe(height=20_000, width=20_000, seed=2))
    corner = Window(19_900, 19_880, 100, 120)
    whole = scene.optical(corner)
    for block in partition(corner, 37, 51):
        np.testing.assert_array_equal(scene.optical(block), whole[(..., *block.within(corner).slices)])
    assert len(np.unique(whole[3])) > 300


def test_another_process_makes_the_same_bytes():
    code = (
        "from hashlib import md5; from covermap.data.simulate import *; from covermap.geo.grid import Window;"
        "s = SimulatedScene(SceneRecipe(seed=5, num_dates=2)); w = Window(300, 40, 50, 70);"
        "print(md5(s.optical(w, date=1).tobytes() + s.sar(w).tobytes() + s.dem(w).tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    scene, window = SimulatedScene(SceneRecipe(seed=5, num_dates=2)), Window(300, 40, 50, 70)
    mine = scene.optical(window, date=1).tobytes() + scene.sar(window).tobytes() + scene.dem(window).tobytes()
    assert other.stdout.strip() == md5(mine).hexdigest()


def test_seeds_give_different_worlds():
    first, second = (SimulatedScene(SceneRecipe(height=200, width=200, seed=seed)) for seed in (1, 2))
    assert (first.truth(first.grid.window) != second.truth(second.grid.window)).mean() > 0.4


def test_gsd_only_changes_where_the_world_is_sampled():
    """The centre of a 30 m pixel is the centre of the middle one of its 3 x 3 pixels of 10 m."""
    fine = SimulatedScene(SceneRecipe(height=300, width=360, gsd_m=10, seed=4))
    coarse = SimulatedScene(SceneRecipe(height=100, width=120, gsd_m=30, seed=4))
    np.testing.assert_array_equal(coarse.truth(coarse.grid.window), fine.truth(fine.grid.window)[1::3, 1::3])
    np.testing.assert_array_equal(coarse.dem(coarse.grid.window), fine.dem(fine.grid.window)[:, 1::3, 1::3])


def test_fine_truth_agrees_with_image_truth():
    """The commonest class of the 10 x 10 label pixels is nearly always the class at the image pixel's centre."""
    recipe = SceneRecipe(height=60, width=70, seed=1, label_factor=10)
    scene, plain = SimulatedScene(recipe), SimulatedScene(replace(recipe, label_factor=1))
    parts = scene.truth(scene.label_grid.window).reshape(60, 10, 70, 10).transpose(0, 2, 1, 3).reshape(60, 70, 100)
    mode = stats.mode(parts, axis=2).mode
    assert (mode == plain.truth(plain.grid.window)).mean() > 0.97
    assert (parts != mode[..., None]).any()  # the fine truth shows what the coarse one cannot
    np.testing.assert_array_equal(scene.optical(scene.grid.window), plain.optical(plain.grid.window))


def test_every_class_is_there(usual_truth):
    shares = np.bincount(usual_truth.ravel(), minlength=9) / usual_truth.size
    assert shares[0] == 0
    assert shares[1:].min() > 0.005
    assert shares.max() < 0.5


def test_change_has_the_asked_share_and_takes_whole_parcels(usual, usual_truth):
    later = usual.truth(usual.grid.window, date=1)
    changed = later != usual_truth
    assert changed.mean() == pytest.approx(0.02, rel=0.3)
    assert not np.isin(usual_truth[changed], (WATER, ROAD, BUILT)).any()
    _, count = ndimage.label(changed)
    area_ha = changed.sum() * 0.01 / count
    assert 1 < area_ha < 10
    none = SimulatedScene(replace(usual.recipe, change_share=0.0))
    window = Window(100, 100, 200, 200)
    np.testing.assert_array_equal(none.truth(window, date=1), none.truth(window))


def test_fields_and_roads_have_real_sizes(usual_truth):
    bare, count = ndimage.label(usual_truth == BARE)
    sizes_ha = ndimage.sum_labels(np.ones_like(bare), bare, range(1, count + 1)) * 0.01
    assert 2 < (sizes_ha**2).sum() / sizes_ha.sum() < 10  # the field in which a pixel lies on average
    inside = ndimage.distance_transform_edt(usual_truth == ROAD)
    assert 1 <= inside.max() <= 3  # half the width in px; a little more where two roads meet


def test_label_noise_has_the_asked_share_and_names_similar_classes():
    recipe = SceneRecipe(height=500, width=500, label_noise=0.2)
    scene = SimulatedScene(recipe)
    truth, labels = scene.truth(scene.grid.window), scene.labels(scene.grid.window)
    wrong = truth != labels
    assert wrong.mean() == pytest.approx(0.2, rel=0.25)
    assert set(np.unique(labels[wrong & (truth == CROP)])) == {GRASS}
    clean = SimulatedScene(replace(recipe, label_noise=0.0))
    np.testing.assert_array_equal(clean.labels(clean.grid.window), truth)


def test_region_shift_moves_every_band_and_hangs_on_the_name_alone():
    recipe = SceneRecipe(height=200, width=200, noise=0.0)
    window = Window(0, 0, 200, 200)

    def means(**changes) -> np.ndarray:
        return SimulatedScene(replace(recipe, **changes)).optical(window).mean((1, 2))

    home, south = means(region="south"), means(region="south", region_shift=1.0)
    assert (np.abs(south / home - 1) > 0.05).all()
    np.testing.assert_array_equal(home, means(region="north"))
    assert np.abs(south / means(region="north", region_shift=1.0) - 1).max() > 0.05


def test_region_shift_changes_the_mixture_of_classes():
    shares = [
        np.bincount(SimulatedScene(recipe).truth(Window(0, 0, 500, 500)).ravel(), minlength=9) / 250_000
        for recipe in (SceneRecipe(), SceneRecipe(region="south", region_shift=1.0))
    ]
    assert np.abs(shares[0] - shares[1]).sum() > 0.05


def test_clouds_have_the_asked_share_and_the_mask_is_exact():
    recipe = SceneRecipe(height=256, width=300, cloud_share=0.25, num_dates=2)
    window = Window(0, 0, 256, 300)
    cloudy, clear = SimulatedScene(recipe), SimulatedScene(replace(recipe, cloud_share=0.0))
    for date in (0, 1):
        mask = cloudy.cloud_mask(window, date=date)
        assert mask.mean() == pytest.approx(0.25, abs=0.01)
        with_clouds, without = cloudy.optical(window, date=date), clear.optical(window, date=date)
        np.testing.assert_array_equal((with_clouds != without).any(0), mask)
        assert with_clouds[0][mask].mean() > 3000 > without[0].mean()
    assert not clear.cloud_mask(window).any()
    assert (cloudy.cloud_mask(window) != cloudy.cloud_mask(window, date=1)).any()


def test_nodata_has_the_asked_share_and_blanks_image_and_fine_labels():
    recipe = SceneRecipe(height=120, width=150, nodata_share=0.15, label_factor=4)
    scene = SimulatedScene(recipe)
    empty = scene.nodata_mask(scene.grid.window)
    assert empty.mean() == pytest.approx(0.15, abs=0.02)
    image = scene.optical(scene.grid.window)
    np.testing.assert_array_equal((image == 0).all(0), empty)
    np.testing.assert_array_equal((image == 0).any(0), empty)
    labels = scene.labels(scene.label_grid.window)
    np.testing.assert_array_equal(labels == 0, empty.repeat(4, 0).repeat(4, 1))
    assert scene.truth(scene.label_grid.window).min() >= 1


def test_season_turns_crops_green_without_changing_the_truth():
    recipe = SceneRecipe(height=300, width=300, num_dates=2, days=(125, 275), change_share=0.0)
    scene, window = SimulatedScene(recipe), Window(0, 0, 300, 300)
    truth = scene.truth(window)
    np.testing.assert_array_equal(truth, scene.truth(window, date=1))
    green = []
    for date in (0, 1):
        red, nir = scene.optical(window, date=date)[[2, 3]].astype(float)
        green.append(((nir - red) / (nir + red))[truth == CROP].mean())
    assert green[0] > green[1] + 0.1


def test_speckle_is_gamma_with_4_4_looks(usual, usual_truth):
    scene = SimulatedScene(SceneRecipe(noise=0.0))
    window = Window(600, 600, 300, 400)
    forest = usual_truth[window.slices] == FOREST
    power = 10 ** (scene.sar(window).astype(float)[:, forest] / 10)
    assert forest.sum() > 2000
    np.testing.assert_allclose(power.mean(1) ** 2 / power.var(1), 4.4, rtol=0.12)
    np.testing.assert_allclose(10 * np.log10(power.mean(1)), (-8.5, -14.0), atol=0.2)
    assert abs(np.corrcoef(power)[0, 1]) < 0.05
    exact = 10 * np.log10(stats.gamma(4.4, scale=1 / 4.4).ppf((np.arange(4096) + 0.5) / 4096))
    np.testing.assert_allclose(speckle_table(4.4), exact, atol=0.01)


def test_draws_are_uniform_normal_and_not_correlated():
    bits = draw(key_of(0, "test"), np.arange(300)[:, None], np.arange(200)[None, :])
    assert stats.kstest(uniform(bits).ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal(bits, 3).ravel() + np.linspace(0, 1e-3, 60_000), "norm").pvalue > 1e-3
    number = normal(bits)
    for other in (normal(bits, 1), np.roll(number, 1, 0), np.roll(number, 1, 1)):
        assert abs(np.corrcoef(number.ravel(), other.ravel())[0, 1]) < 0.02


def test_fractal_fields_have_variance_1():
    field = fractal(key_of("test"), np.arange(500) * 37.0, np.arange(500) * 37.0, 200, octaves=3)
    assert field.mean() == pytest.approx(0, abs=0.1)
    assert field.std() == pytest.approx(1, abs=0.1)


def test_terrain_is_smooth_and_rivers_run_in_valleys(usual, usual_truth):
    height = usual.dem(usual.grid.window)[0]
    assert height.dtype == np.float32
    assert 0 < height.min() < height.max() < 1000
    assert np.abs(np.diff(height, axis=1)).max() < 10  # less than 45 degrees
    water, count = ndimage.label(usual_truth == WATER)
    largest = water == np.argmax(np.bincount(water.ravel())[1:]) + 1
    assert count > 1
    assert height[largest].mean() < height.mean() - 20


def test_written_files_hold_the_scene(tmp_path):
    recipe = replace(FULL, height=70, width=90, label_factor=2)
    paths = write_scene(recipe, tmp_path / "a", block_px=80, sar=True, dem=True)
    scene = SimulatedScene(recipe)
    both = [f"{name}_date{n}" for n in (1, 2) for name in ("image", "clouds", "sar", "labels", "truth")]
    assert set(paths) == {*both, "dem", "legend", "scene"}
    reads = {"image": scene.optical, "clouds": scene.cloud_mask, "sar": scene.sar}
    fine = {"labels": scene.labels, "truth": scene.truth}
    for name in both:
        with rasterio.open(paths[name]) as file:
            grid = scene.label_grid if name[:5] in ("label", "truth") else scene.grid
            assert (file.crs.to_epsg(), file.transform) == (32631, grid.transform)
            values = file.read().squeeze()
            kind, date = name.split("_date")
            np.testing.assert_array_equal(values, (reads | fine)[kind](grid.window, date=int(date) - 1))
    with rasterio.open(paths["image_date1"]) as file:
        assert (file.descriptions, file.nodata, file.dtypes[0]) == (BANDS, 0, "uint16")
    with rasterio.open(paths["labels_date2"]) as file:
        assert (file.nodata, file.dtypes[0]) == (0, "uint8")
    with rasterio.open(paths["dem"]) as file:
        np.testing.assert_array_equal(file.read(), scene.dem(scene.grid.window))
    assert load_legend(paths["legend"]) == LEGEND
    assert SceneRecipe(**json.loads(paths["scene"].read_text())) == recipe

    with pytest.raises(OutputError, match="exists already"):
        write_scene(recipe, tmp_path / "a", sar=True, dem=True)
    one = write_scene(replace(recipe, num_dates=1, days=(), cloud_share=0.0), tmp_path / "b", optical=False)
    assert sorted(path.name for path in one.values()) == ["labels.tif", "legend.yaml", "scene.json", "truth.tif"]


def test_memory_does_not_grow_with_the_scene(tmp_path):
    def peak(height: int, width: int) -> int:
        tracemalloc.start()
        write_scene(SceneRecipe(height=height, width=width), tmp_path / f"{height}", block_px=128)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(16, 16)  # tables and imports
    assert peak(384, 256) < 1.25 * peak(128, 128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_dates": 7}, "num_dates is 7"),
        ({"change_share": -0.1}, "change_share"),
        ({"days": (1, 2)}, "days"),
        ({"days": (367,)}, "days"),
        ({"crs": "EPSG:4326"}, "not in metres"),
        ({"crs": "nonsense"}, "unknown"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        SceneRecipe(**changes)
    assert error.value.fix


def test_windows_and_dates_outside_are_refused():
    scene = SimulatedScene(SceneRecipe(height=50, width=50, cloud_share=0.1))
    for read in (scene.truth, scene.optical, scene.sar, scene.cloud_mask, scene.nodata_mask, scene.labels):
        with pytest.raises(GridError, match="does not lie in the scene"):
            read(Window(40, 0, 20, 20))
        with pytest.raises(ConfigError, match="no date 1"):
            read(Window(0, 0, 20, 20), date=1)
