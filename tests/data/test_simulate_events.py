"""Generated events: the same values in any window, hit where and as said, files and chips that the readers take."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from scipy import ndimage
from sklearn.metrics import average_precision_score

from covermap.core.config import DataConfig
from covermap.core.errors import ConfigError, GridError, OutputError
from covermap.core.legend import load_legend
from covermap.data.scene import open_scenes
from covermap.data.simulate_events import LEGENDS, EventRecipe, SimulatedEvent, write_event, write_landslide_chips
from covermap.data.simulate_sensors import FOREST, WATER
from covermap.geo.grid import Window, partition
from covermap.geo.vector import read_table

FLOOD = EventRecipe("flood", height=400, width=360, seed=2, num_before=2, num_after=2)
SLIDES = EventRecipe("landslide", height=512, width=400, seed=1, num_before=2, num_after=2)


@pytest.fixture(scope="module")
def flood() -> SimulatedEvent:
    return SimulatedEvent(FLOOD)


@pytest.fixture(scope="module")
def slides() -> SimulatedEvent:
    return SimulatedEvent(SLIDES)


def in_db(event: SimulatedEvent, date: int) -> np.ndarray:
    """dB (2, H, W) of the means of 3 x 3 pixels."""
    return 10 * np.log10(ndimage.uniform_filter(event.sar(event.grid.window, date=date), (0, 3, 3)))


@pytest.mark.parametrize("recipe", [FLOOD, SLIDES, replace(SLIDES, gsd_m=5.0, region="south", region_shift=1.0)])
def test_any_window_holds_the_values_of_the_whole(recipe):
    whole, part, corner = SimulatedEvent(recipe), SimulatedEvent(recipe), Window(150, 120, 210, 190)
    for read in ("sar", "optical", "dem", "truth"):
        dates = [{"date": date} for date in range(4)] if read in ("sar", "optical") else [{}]
        for more in dates:
            values = getattr(whole, read)(whole.grid.window, **more)[(..., *corner.slices)]
            for block in partition(corner, 83, 131):
                found = getattr(part, read)(block, **more)
                np.testing.assert_array_equal(found, values[(..., *block.within(corner).slices)], err_msg=read)
    assert whole.truth(corner).any()


def test_floods_fill_low_land_that_was_dry(flood):
    window = flood.grid.window
    hit, height = flood.truth(window) > 0, flood.dem(window)[0]
    assert hit.mean() == pytest.approx(FLOOD.share, rel=0.25)
    water = flood.ground(window).codes == WATER
    assert not (water & hit).any()  # permanent water is no flood
    near = ndimage.distance_transform_edt(~water) < 60
    assert height[hit].mean() < height[near & ~hit & ~water].mean() - 1
    assert not flood.truth(window, date=1).any()
    later = flood.truth(window, date=3) > 0
    assert later.sum() < hit.sum()
    assert not (later & ~hit).any()  # the water falls


def test_radar_sees_floods_and_little_else(flood):
    window = flood.grid.window
    hit, before = flood.truth(window) > 0, flood.ground(window)
    opened = ndimage.binary_erosion(hit & (flood.ground(window, 2).codes == WATER))
    woods = ndimage.binary_erosion(hit & (before.codes == FOREST))
    change, usual = in_db(flood, 2) - in_db(flood, 1), in_db(flood, 1) - in_db(flood, 0)
    assert np.median(change[0][opened]) < -3
    assert np.median(change[1][opened]) < -3
    assert np.median(change[0][woods]) > 1  # double bounce
    dry = ~ndimage.binary_dilation(hit, iterations=2) & (before.codes != WATER)
    spread = [float(np.subtract(*np.quantile(each[0][dry], [0.75, 0.25]))) for each in (change, usual)]
    assert spread[0] == pytest.approx(spread[1], rel=0.15)  # speckle and work on fields, as between any dates
    assert abs(np.median(change[0][dry])) < 1.2
    assert ((np.abs(change[0]) > 3) & dry).sum() > 100  # which is not nothing


def test_landslides_fall_down_steep_slopes(slides):
    window = slides.grid.window
    hit, height = slides.truth(window) > 0, slides.dem(window)[0]
    assert hit.mean() == pytest.approx(SLIDES.share, rel=0.5)
    slope = np.hypot(*np.gradient(height, 10))
    assert np.median(slope[hit]) > 0.4
    assert np.quantile(slope[hit], 0.05) > 0.15
    cols, rows = ~slides.grid.transform * slides.heads().T
    patches, count = ndimage.label(hit)
    near = {"top": [], "foot": []}  # whether a head lies within 30 m of a patch's highest and lowest pixel
    for number in range(1, count + 1):
        row, col = np.nonzero(patches == number)
        if len(row) >= 8:
            for end, n in (("top", np.argmax(height[row, col])), ("foot", np.argmin(height[row, col]))):
                near[end].append(np.hypot(rows - row[n] - 0.5, cols - col[n] - 0.5).min() < 3)
    assert len(near["top"]) >= 10
    assert np.mean(near["top"]) > 0.85
    assert np.mean(near["foot"]) < 0.5


def test_heads_lie_in_clusters_and_nearly_half_colour_no_pixel(slides):
    heads = slides.heads()
    assert heads.shape[1] == 2
    left, bottom, right, top = slides.grid.bounds
    assert ((heads > (left, bottom)) & (heads < (right, top))).all()
    km2 = np.histogram2d(heads[:, 0], heads[:, 1], bins=(4, 5))[0]
    assert km2.min() == 0
    assert km2.max() > 20
    hit = ndimage.maximum_filter(slides.truth(slides.grid.window), 3)
    cols, rows = ~slides.grid.transform * heads.T
    seen = hit[rows.astype(int), cols.astype(int)].mean()
    assert 0.4 < seen < 0.9


def test_radar_sees_part_of_the_landslides(slides):
    hit = slides.truth(slides.grid.window)
    change, usual = in_db(slides, 2) - in_db(slides, 1), in_db(slides, 1) - in_db(slides, 0)
    score, chance = (average_precision_score(hit.ravel(), np.abs(each).mean(0).ravel()) for each in (change, usual))
    assert chance < 2.5 * hit.mean()
    assert 0.08 < score < 0.5
    core = ndimage.binary_erosion(hit > 0)
    assert (change[0][core] > 2).any()  # of either sign
    assert (change[0][core] < -2).any()


def test_another_region_looks_different_and_another_place_lies_elsewhere(slides):
    other = SimulatedEvent(replace(SLIDES, region="south", region_shift=1.0))
    here, there = in_db(slides, 0), in_db(other, 0)
    assert np.abs(here.mean((1, 2)) - there.mean((1, 2))).max() > 0.5
    assert other.grid.overlap(slides.grid) == 0
    assert SimulatedEvent(replace(SLIDES, seed=2)).grid.overlap(slides.grid) == 0
    assert SimulatedEvent(SLIDES).heads().tolist() == slides.heads().tolist()


def test_written_events_are_read_as_hazards(tmp_path, slides):
    paths = write_event(SLIDES, tmp_path / "a", optical=True)
    assert {"before_1", "before_2", "after_1", "after_2", "optical_after_2", "dem", "labels", "heads"} < set(paths)
    entry = {"path": str(paths["after_1"]), "sensor": "sentinel1", "quantity": "power"}
    scene = open_scenes(
        DataConfig(image=[entry], labels=str(paths["labels"]), legend=str(paths["legend"]))
    )[0]  # fmt: skip
    window = slides.grid.window
    found = scene.read(window).image["sentinel1"][0]
    np.testing.assert_allclose(found, 10 * np.log10(slides.sar(window, date=2)), atol=1e-3)
    assert np.array_equal(scene.read_labels(window), slides.truth(window))
    assert load_legend(paths["legend"]) == LEGENDS["landslide"]
    points = read_table(paths["heads"], epsg=32631).geometry
    np.testing.assert_allclose(np.stack([points.x, points.y], 1), slides.heads(), atol=0.01)
    about = json.loads(paths["event"].read_text())
    assert EventRecipe(**about["recipe"]) == SLIDES
    assert about["dates"] == ["2018-08-20", "2018-09-01", "2018-09-13", "2018-09-25"]
    with rasterio.open(paths["before_2"]) as file:
        np.testing.assert_array_equal(file.read(), slides.sar(window, date=1))
    with pytest.raises(OutputError, match="exists already"):
        write_event(SLIDES, tmp_path / "a")
    assert "heads" not in write_event(FLOOD, tmp_path / "b")


def test_the_landslide_layout_reads_written_chips(tmp_path, slides):
    write_landslide_chips(tmp_path, {"hokkaido": SLIDES, "north": replace(SLIDES, seed=3, height=130, width=300)})
    options = {"event": ["2018-09-05", "2018-09-07"]}
    scenes = open_scenes(DataConfig(source="landslide", root=str(tmp_path), options=options))
    assert len(scenes) == 4 * 3 + 2
    assert {scene.place for scene in scenes} == {"hokkaido", "north"}
    first = next(scene for scene in scenes if scene.name == "hokkaido_chip_4")
    assert first.dates == ("2018-09-01", "2018-09-13")
    window = Window(128, 128, 128, 128)
    assert first.grid.is_same(slides.grid.window_grid(window))
    np.testing.assert_array_equal(first.read(first.grid.window).image["sentinel1"][1], slides.sar(window, date=2))
    assert np.array_equal(first.read_labels(first.grid.window), slides.truth(window))
    with pytest.raises(ConfigError, match="wet is a flood"):
        write_landslide_chips(tmp_path / "b", {"wet": FLOOD})
    with pytest.raises(ConfigError, match="small is a landslide of 512 x 400 px"):
        write_landslide_chips(tmp_path / "b", {"small": SLIDES}, chip_px=512)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "quake"}, "no event 'quake'"),
        ({"num_before": 4}, "num_before is 4"),
        ({"num_after": 0}, "num_after is 0"),
        ({"share": 0.5}, "share is 0.5"),
        ({"height": 0}, "height is 0"),
        ({"crs": "EPSG:4326"}, "not in metres"),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        EventRecipe(**changes)
    assert error.value.fix


def test_windows_and_dates_outside_are_refused(flood):
    with pytest.raises(GridError, match="does not lie in the scene"):
        flood.truth(Window(390, 0, 20, 20))
    for read in (flood.sar, flood.optical, flood.ground, flood.truth):
        with pytest.raises(ConfigError, match="no date 4"):
            read(Window(0, 0, 20, 20), date=4)
