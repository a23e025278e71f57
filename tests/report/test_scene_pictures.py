from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread

from covermap.core.colour_vision import ALIKE, VISION, lab
from covermap.core.config_file import parse_config
from covermap.core.legend import IGNORE, PALETTE
from covermap.data.scene import open_scenes
from covermap.data.split import PARTS, Split, part_counts
from covermap.geo import pictures
from covermap.geo.grid import Window
from covermap.report import drawing, figures, scene_pictures
from covermap.verbs.side_by_side_maps import _SHADES


def pixels(uri):
    return np.rint(imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))[..., :3] * 255).astype(np.uint8)


def svg(uri):
    return base64.b64decode(uri.split(",")[1]).decode("utf-8")


def hexes(row):
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in row]


def scene_of(write_tif, image, bands, nodata=None):
    labels = np.ones(np.shape(image)[-2:], np.uint8)
    data = {
        "image": write_tif("image.tif", image, bands=bands, nodata=nodata),
        "labels": write_tif("labels.tif", labels, nodata=0),
        "legend": {1: "a"},
    }
    return open_scenes(parse_config({"data": data}).data)[0]


def ramps(bands, *rising):
    """(C, 64, 64): bands that are named rise from left to right, the others are flat."""
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 30, (64, 1))
    return np.stack([ramp * (band in rising) + np.uint16(1) for band in bands])


@pytest.mark.parametrize(("band", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_red_is_red_whatever_the_order_in_the_file(write_tif, band, channel):
    bands = ["nir", "blue", "green", "red"]
    shown = scene_pictures.composite(scene_of(write_tif, ramps(bands, band), bands), 64)
    window = shown.read(Window(0, 0, 64, 64))
    for picture in (shown.overview, window, pixels(pictures.png_uri(window))):
        assert picture[:, -2:, channel].min() == 255
        assert picture[:, :2, channel].max() == 0
        assert np.delete(picture, channel, axis=2).max() == 0
    assert shown.title == "red, green, blue"


@pytest.mark.parametrize(
    ("bands", "title"),
    [
        (["green", "red", "nir"], "false colour: nir, red, green"),
        (["red", "nir", "swir1"], "false colour: swir1, nir, red"),
        (["vv", "vh"], "grey: vv"),
        (["a", "b", "c", "d"], "false colour: a, b, c"),
    ],
)
def test_without_blue_the_picture_says_what_it_shows(write_tif, bands, title):
    shown = scene_pictures.composite(scene_of(write_tif, ramps(bands, bands[0]), bands), 64)
    assert shown.title == title
    lit = shown.overview[0, -1] == 255
    names = shown.raster.bands if len(shown.raster.bands) == 3 else shown.raster.bands * 3
    assert lit.tolist() == [name == bands[0] for name in names]


def test_a_stretch_is_one_for_the_scene_and_leaves_out_nodata():
    values = np.arange(101.0).reshape(1, 1, -1)
    valid = np.ones((1, 101), bool)
    valid[0, 50] = False
    picture = pictures.stretched(values, valid, np.array([[20.0], [80.0]]))
    assert picture[0, [0, 20, 35, 80, 100], 0].tolist() == [0, 0, 64, 255, 255]
    assert hexes(picture[0, 50:51]) == [pictures.EMPTY_COLOUR]


def test_limits_are_percentiles_of_valid_pixels_and_the_same_in_every_window(write_tif):
    image = np.arange(1, 10_001, dtype=np.uint16).reshape(1, 100, 100)
    image[:, :50] = 0
    shown = scene_pictures.composite(scene_of(write_tif, image, ["vv"], nodata=0), 100)
    assert shown.limits[:, 0] == pytest.approx(np.percentile(np.arange(5001, 10_001), (2, 98)), abs=2)
    whole = shown.read(Window(0, 0, 100, 100))
    assert np.array_equal(shown.read(Window(70, 20, 30, 40)), whole[70:, 20:60])


@pytest.mark.parametrize("strip_px", [512, 64, 7])
def test_an_overview_takes_the_nearest_pixels(write_tif, monkeypatch, strip_px):
    image = np.arange(300 * 600, dtype=np.uint32).reshape(1, 300, 600) + 1
    image[:, :, :60] = 0
    raster = scene_of(write_tif, image, ["vv"], nodata=0).rasters["image"]
    monkeypatch.setattr("covermap.geo.pictures._STRIP_PX", strip_px)
    values, valid = pictures.read_overview(raster, 60)
    assert values.shape == (1, 30, 60)
    rows, cols = np.divmod(values[0, :, 6:].astype(int) - 1, 600)
    assert np.abs(rows - (np.arange(30) * 10 + 5)[:, None]).max() <= 1
    assert np.abs(cols - (np.arange(6, 60) * 10 + 5)).max() <= 1
    assert valid[:, 6:].all()
    assert not valid[:, :6].any()


def test_a_map_of_a_part_of_the_scene_lies_in_its_place(tmp_path, run):
    scene = open_scenes(run.config.data)[0]
    with rasterio.open(
        tmp_path / "part.tif", "w", driver="GTiff", count=1, height=40, width=50, dtype="uint8", nodata=0,
        crs=scene.grid.crs, transform=scene.grid.window_grid(Window(100, 20, 40, 50)).transform,
    ) as dataset:  # fmt: skip
        dataset.write(np.full((1, 40, 50), 3, np.uint8))
    expected = np.full((192, 192), IGNORE)
    expected[100:140, 20:70] = 2
    assert np.array_equal(scene_pictures.map_overview(tmp_path / "part.tif", scene.grid, scene.legend, 192), expected)
    window = Window(90, 10, 60, 60)
    assert np.array_equal(
        scene_pictures.read_map(tmp_path / "part.tif", scene, scene.legend, window), expected[window.slices]
    )


def test_layers_run_from_dark_to_pale():
    valid = np.array([[True, True, True, False]])
    table = pictures.ramp(pictures.CONFIDENCE_COLOURS, 14, 100)
    picture = pictures.painted(np.array([[14, 57, 100, 255]], np.uint8), valid, table)
    assert hexes(picture[0]) == [*pictures.CONFIDENCE_COLOURS[::2], pictures.EMPTY_COLOUR]
    assert hexes(table[:1]) == hexes(table[14:15]) != hexes(table[16:17])


def test_areas_are_drawn_with_and_without_intervals_and_truth():
    names, colours, mapped = ["water", "forest", "town"], ["#0000ff", "#00ff00", "#ff0000"], [10.0, 200.0, 0.0]
    estimates = [(12.0, 8.0, 16.0), (180.0, None, None), (None, None, None)]
    drawn = svg(figures.area_bars(names, colours, mapped, estimates))
    assert all(f">{name}<" in drawn for name in (*names, "on the map", "hectares"))
    assert all(colour in drawn for colour in colours)
    assert ">true<" not in drawn
    assert ">true<" in svg(figures.area_bars(names, colours, mapped, estimates, [11.0, 190.0, 1.0]))
    assert svg(figures.area_bars(names[:1], colours[:1], [0.0], [(0.0, None, None)]))


@pytest.mark.parametrize("num_classes", [2, 12, 30])
def test_figures_bear_any_number_of_classes(num_classes):
    names = [f"class number {i} with a long name" for i in range(num_classes)]
    colours = [PALETTE[i % len(PALETTE)] for i in range(num_classes)]
    counts = np.arange(num_classes**2).reshape(num_classes, -1) * 10_000
    heat = svg(figures.confusion_heat(names, counts))
    assert ("0k<" in heat) == (num_classes <= 16)
    bars = svg(figures.class_bars(names, colours, {"network": [None, *np.linspace(0, 1, num_classes - 1)]}))
    assert bars.count(">absent<") == 1
    assert "class number 1 with" in bars
    assert "with a long name" not in bars


def test_curves_bear_a_log_with_holes():
    rows = [{"epoch": 1, "loss": 1.0, "lr": 1e-3}, {"epoch": 2, "loss": 0.5, "lr": 1e-3, "val_miou": 0.4}]
    assert "mIoU" in svg(figures.learning_curves(rows, 2))
    assert "mIoU" not in svg(figures.learning_curves(rows[:1]))


def test_several_models_are_drawn_by_name():
    names, scores = ["water", "forest", "town"], {"first": [0.2, None, 1.0], "second": [0.0, 0.5, 0.4]}
    for draw in (figures.radar, figures.grouped_bars):
        drawn = svg(draw(names, scores, title="Recall"))
        assert all(f">{name}<" in drawn for name in (*names, *scores, "Recall"))
    drawn = svg(figures.tradeoff_curves({"curve": [(0.6, 0.4), (0.5, 0.5)]}, {"point": (0.55, 0.42)}))
    assert ">curve<" in drawn
    assert ">point<" in drawn


def test_drawing_leaves_no_trace():
    code = """
import sys
import covermap.report
assert not {"matplotlib", "torch"} & set(sys.modules), "imported too early"
import matplotlib
def settings():  # all but the backend: reading that one chooses one
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}
before = settings()
from covermap.report import figures
figures.class_bars(["a"], ["#ff0000"], {"network": [0.5]})
assert settings() == before
assert not {"matplotlib.pyplot", "torch"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_parts_lie_where_the_split_puts_them(run):
    scene = open_scenes(run.config.data)[0]
    split = Split.load(run.path("split.csv"))
    black = np.zeros((192, 192, 3), np.uint8)
    picture = scene_pictures.part_picture(black, split, scene)
    mask = split.part_mask("image", scene.grid.window)
    for number, part in enumerate(PARTS[1:], 1):
        tint = np.rint(0.75 * np.array(pictures.rgb_of(scene_pictures.PART_COLOURS[part])))
        assert np.array_equal((picture == tint).all(-1), mask == number)


def test_examples_together_show_as_many_classes_as_they_can(run):
    scenes = open_scenes(run.config.data)
    split = Split.load(run.path("split.csv"))
    chosen = scene_pictures.example_windows(scenes, split, "test", count=4)
    shown = {k for scene, window in chosen for k in np.unique(split.labels(scene, window, "test"))} - {IGNORE}
    present = {i for i, n in enumerate(part_counts(split, scenes)["test"]) if n}
    assert len(chosen) == 4
    assert shown == present


@pytest.mark.parametrize("num_colours", [1, 200, 256, 257, 5000])
def test_a_png_is_exact_and_small_with_few_colours(num_colours):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (num_colours, 3), dtype=np.uint8)
    picture = colours[rng.integers(0, num_colours, (120, 90))]
    uri = pictures.png_uri(picture)
    assert np.array_equal(pixels(uri), picture)
    assert len(uri) < 1.5 * picture.size
    if num_colours < 257:
        assert len(uri) < 0.6 * picture.size
    assert pictures.png_uri(picture) == uri


def test_a_photo_is_nearly_exact_and_red_stays_red():
    from PIL import Image

    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32, 0], picture[:, 32:, 2] = 250, 200
    kind, data = pictures.photo_uri(picture).split(",", 1)
    assert kind == "data:image/jpeg;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    assert np.abs(shown - picture).mean() < 2
    assert shown[:, :28, 0].min() > 240


def test_the_mix_of_parts_is_drawn_in_percent():
    drawn = svg(figures.part_bars(("a", "b"), {"train": (30, 70), "test": (1, 3)}, scene_pictures.PART_COLOURS))
    assert all(text in drawn for text in ("train", "test", "% of the labelled pixels of the part"))
    assert "val" not in drawn.replace("values", "")
    wide = {}
    for path, style in re.findall(r'<path d="(M [^"]*)"[^>]*style="([^"]*)"', drawn):
        for part, colour in scene_pictures.PART_COLOURS.items():
            if f"fill: {colour}" in style:
                columns = [float(x) for x, _ in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]
                wide.setdefault(part, []).append(max(columns) - min(columns))
    assert wide["train"][1] / wide["train"][0] == pytest.approx(70 / 30, rel=0.02)
    assert wide["test"][0] / wide["train"][0] == pytest.approx(25 / 30, rel=0.02)


@pytest.mark.parametrize("colours", [drawing.MANY, tuple(scene_pictures.PART_COLOURS.values()), _SHADES])
def test_colours_of_figures_are_told_apart_by_all_eyes(colours):
    for vision in VISION:
        seen = lab([pictures.rgb_of(colour) for colour in colours], vision=vision)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert apart[~np.eye(len(seen), dtype=bool)].min() > ALIKE
