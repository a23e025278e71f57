"""Other grids than the simple one: many classes, coarser maps, degrees, no place at all."""

from __future__ import annotations

import json
import re
from urllib.request import urlopen

import numpy as np
import pytest

from covermap.core.legend import LandClass, Legend
from covermap.geo.products import finish_map
from covermap.verbs.change import change
from tests.view.browser import serve, stop
from tests.view.browser_scene import COLOURS, NAMES, background, expected, read


@pytest.fixture
def show(open_page):
    """show(folder) -> (screen, layers by id)."""
    running = []

    def start(folder):
        process, address = serve(folder)
        running.append(process)
        with urlopen(f"{address}view.json") as answer:
            layers = {layer["id"]: layer for layer in json.load(answer)["layers"]}
        screen = open_page(address)
        screen.plain()
        return screen, layers

    yield start
    for process in running:
        stop(process)


@pytest.fixture
def make_map(write_tif, tmp_path):
    def make(name, codes, legend, **place):
        plain = write_tif(f"plain/{name}", codes.astype(legend.map_dtype), nodata=legend.map_nodata, **place)
        (tmp_path / "shown").mkdir(exist_ok=True)
        finish_map(plain, tmp_path / "shown" / name, legend)
        return tmp_path / "shown" / name

    return make


LAND = Legend(
    name="land",
    classes=tuple(LandClass(code, NAMES[code], "#%02x%02x%02x" % COLOURS[code]) for code in NAMES),  # noqa: UP031
    nodata=0,
)


def test_more_transitions_than_a_byte_tells_apart(show, make_map, tmp_path):
    legend = Legend(
        name="many", classes=tuple(LandClass(i, f"class {i}", f"#0000{i:02x}") for i in range(1, 21)), nodata=0
    )
    random = np.random.default_rng(0)
    maps = [make_map(f"{name}.tif", random.integers(1, 21, (60, 80)), legend) for name in ("before", "after")]
    change(maps, tmp_path / "shown" / "change.tif")
    codes = read(tmp_path / "shown" / "change.tif")
    screen, layers = show(tmp_path / "shown")
    colours = {
        entry["code"]: tuple(int(entry["colour"][i : i + 2], 16) for i in (1, 3, 5))
        for entry in layers["change"]["classes"]
    }
    assert len(colours) > 254
    screen.set(main="change")
    screen.look(0, 40, 30)
    shown, seen = screen.seen(codes)
    assert np.array_equal(seen, expected(shown, background(screen), colours))
    counts = screen.counted("change")["counts"]
    assert counts == {str(code): int((codes == code).sum()) for code in np.unique(codes).tolist()}
    x, y = screen.under(40, 30)
    name = next(entry["name"] for entry in layers["change"]["classes"] if entry["code"] == codes[int(y), int(x)])
    assert screen.click(x, y)["change"] == name


def test_a_coarser_map_over_a_finer_image(show, make_map, write_tif, tmp_path):
    codes = np.random.default_rng(1).integers(1, 9, (20, 30))
    make_map("map.tif", codes, LAND, gsd=30.0)
    write_tif("shown/image.tif", np.full((3, 60, 90), 700, "uint16"), bands=["red", "green", "blue"])
    screen, _ = show(tmp_path / "shown")
    screen.set(main="map")
    screen.look(0, 45, 30)
    fine = np.kron(codes, np.ones((3, 3), int))
    shown, seen = screen.seen(fine)
    assert np.array_equal(seen, expected(shown, background(screen)))
    found = screen.counted("map")
    assert found["counts"] == {str(code): int((fine == code).sum()) for code in np.unique(codes).tolist()}
    screen.look(3, 45, 30)
    assert screen.click(46.5, 31.5)["map"] == NAMES[int(codes[10, 15])]
    box = screen.page.locator("path.outline").first.bounding_box()
    assert box["width"] == pytest.approx(3 * 8, abs=4)  # the map's own pixel


def test_a_map_in_degrees(show, make_map, tmp_path):
    codes = np.kron(np.random.default_rng(2).integers(1, 9, (4, 5)), np.ones((10, 10), int))
    make_map("map.tif", codes, LAND, crs="EPSG:4326", origin=(12.0, 60.0), gsd=0.001)
    screen, layers = show(tmp_path / "shown")
    frame = screen.run("covermap.view.frame")
    assert frame["crs"] == "EPSG:3857"
    left, top, right, bottom = layers["map"]["bounds"]
    screen.look(1, (left + right) / 2, (top + bottom) / 2)
    for row, col in ((5, 5), (15, 35), (35, 45)):  # the middles of blocks
        found = screen.click(left + (right - left) * col / 50, top + (bottom - top) * row / 40)
        assert found["map"] == NAMES[int(codes[row, col])]
        lat, lon = (float(v) for v in re.findall(r"([\d.]+)°", found["lat, lon"]))
        assert lat == pytest.approx(60 - row / 1000, abs=5e-4)
        assert lon == pytest.approx(12 + col / 1000, abs=5e-4)
    bar = screen.run("document.getElementById('scale-bar').getBoundingClientRect().width")
    number, unit = screen.page.text_content("#scale-words").split()
    metres = float(number) * {"km": 1000, "m": 1}[unit]
    assert metres / bar == pytest.approx(frame["metres_per_px"] / 2, rel=0.03)
    assert frame["metres_per_px"] == pytest.approx(frame["resolution"] / 2, rel=0.01)  # at 60 degrees north


def test_rasters_of_no_place_are_shown_in_pixels(show, write_tif, tmp_path):
    random = np.random.default_rng(3)
    write_tif(
        "shown/image.tif", random.integers(1, 900, (3, 40, 50), "uint16"), bands=["red", "green", "blue"], crs=None
    )
    screen, _ = show(tmp_path / "shown")
    screen.look(2, 25, 20)
    assert screen.click(25, 20)["place"].startswith("column 2")
    assert screen.page.text_content("#scale-words").endswith("px")


def test_areas_of_a_map_in_degrees_are_those_of_the_ground(show, make_map, tmp_path):
    codes = np.where(np.arange(300)[:, None] < 150, 1, 2) * np.ones(
        (1, 200), int
    )  # 70 to 55 and 55 to 40 degrees north
    make_map("map.tif", codes, LAND, crs="EPSG:4326", origin=(10.0, 70.0), gsd=0.1)
    screen, layers = show(tmp_path / "shown")
    screen.set(main="map")
    left, top, right, bottom = layers["map"]["bounds"]
    screen.look(-1, (left + right) / 2, (top + bottom) / 2)
    assert screen.run("covermap.map.getBounds().contains(covermap.boundsOf(covermap.layer('map').bounds))")
    found = screen.counted("map")
    want = {str(entry["code"]): entry["hectares"] for entry in layers["map"]["classes"] if entry["pixels"]}
    assert found["amounts"] == {code: pytest.approx(area, rel=0.01) for code, area in want.items()}
    assert want["1"] / sum(want.values()) == pytest.approx(0.407, abs=0.005)
    assert screen.page.text_content("#area thead .amount") == "ha"
    screen.run("covermap.layer('map').exact = false")
    screen.look(0, (left + right) / 2, (top + bottom) / 2)
    words = screen.counted("map")["words"]
    assert "an estimate" in words
    assert ": exact" not in words
