"""The page for everyone: by keyboard alone, for screen readers, in light and dark, on small screens, from a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.view.browser_scene import NAMES, background, expected, read

AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"


def faults(screen):
    """What axe calls serious or critical: [(rule, element), ...]."""
    screen.run(AXE.read_text(encoding="utf-8"))
    found = screen.run("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], node["html"]) for one in bad for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, address, scheme):
    if not AXE.is_file():
        pytest.skip("needs axe-core in node_modules (npm install --no-save axe-core)")
    screen = open_page(address, scheme=scheme)
    assert screen.run("document.documentElement.dataset.theme") == scheme
    assert not faults(screen)
    screen.page.keyboard.press("s")
    screen.set(right="change", changedOnly=True, left="probs")
    screen.click(200, 200)
    screen.page.click("#bands")
    assert not faults(screen)
    screen.page.keyboard.press("l")
    assert not faults(screen)
    screen.page.keyboard.press("?")
    assert not faults(screen)


def test_every_control_is_reached_by_tab_and_none_holds_one_back(open_page, address):
    screen = open_page(address)
    screen.page.keyboard.press("s")
    screen.page.click("#bands")
    screen.page.focus(".skip")
    reached = ["skip"]
    for _ in range(120):
        screen.page.keyboard.press("Tab")
        now = screen.run(
            "document.activeElement === document.body ? '' : document.activeElement.id || document.activeElement.className"
        )
        if now in reached[:1] or not now:
            break
        reached.append(now)
    else:
        raise AssertionError(reached[-10:])
    visible = screen.run(
        "() => [...document.querySelectorAll('button, select, input, summary, [tabindex=\"0\"]')]"
        ".filter((node) => node.checkVisibility() && !node.disabled && node.type !== 'radio').map((node) => node.id)"
    )
    assert not set(visible) - set(reached)
    assert reached.index("map") < reached.index("swipe") < reached.index("zoom-in") < reached.index("swipe-toggle")
    assert reached[0] == "skip"


def test_the_page_is_driven_by_keys_alone(open_page, address):
    screen = open_page(address)
    keys = screen.page.keyboard
    keys.press("?")
    assert screen.run("document.getElementById('help').open")
    keys.press("Escape")
    assert not screen.run("document.getElementById('help').open")
    zoom = screen.run("covermap.map.getZoom()")
    keys.press("+")
    screen.page.wait_for_function(f"() => covermap.map.getZoom() === {zoom + 1}")
    screen.settle()
    before = screen.run("covermap.map.getCenter().lng")
    keys.press("ArrowRight")
    screen.page.wait_for_function(f"() => covermap.map.getCenter().lng > {before} + 20")
    first = screen.state("main")
    keys.press("]")
    assert screen.state("main") != first
    keys.press("[")
    assert screen.state("main") == first
    keys.press("1")
    assert screen.state("main") == "change"
    screen.page.focus("#map")
    keys.press("Enter")
    assert screen.values()["EPSG:32631"]
    keys.press("Escape")
    assert screen.page.locator("#inspect").is_hidden()
    keys.press("t")
    assert screen.run("document.documentElement.dataset.theme") == "dark"
    screen.page.focus("#layer-map")
    keys.press("ArrowDown")
    assert screen.run("document.activeElement.type") == "radio"  # the panel was drawn anew, the focus is still there
    assert screen.state("main") != "map"
    keys.press("?")
    screen.page.uncheck("#keys-on")
    keys.press("Escape")
    keys.press("s")
    assert not screen.state("swipe")


def test_a_small_screen_has_map_and_panel(open_page, address):
    screen = open_page(address, size=(360, 700))
    stage, panel = (screen.page.locator(name).bounding_box() for name in ("#map", "#panel"))
    assert stage["width"] == panel["width"] == 360
    assert stage["height"] > 300
    assert screen.run("document.documentElement.scrollWidth") <= 360
    screen.page.click("#panel-toggle")
    assert screen.page.locator("#map").bounding_box()["height"] == 700
    screen.page.click("#panel-toggle")
    assert screen.page.locator("#layers").is_visible()


def test_a_folder_without_a_server_shows_the_same(open_page, scene, static_folder):
    screen = open_page((static_folder / "index.html").as_uri())
    screen.plain()
    screen.set(main="map")
    screen.look(0, 256, 256)
    codes, seen = screen.seen(read(scene / "map.tif"))
    assert np.array_equal(seen, expected(codes, background(screen)))
    screen.look(1, 300, 200)
    found = screen.click(300.5, 200.5)
    assert found["map"] == NAMES[int(codes[200, 300])]
    assert found["confidence"] == f"{read(scene / 'confidence.tif')[200, 300]} %"
    screen.page.keyboard.press("s")
    screen.page.click("text=Date | date")
    screen.settle()
    assert screen.run("[...document.querySelectorAll('img.tile')].every((image) => image.naturalWidth > 0)")
    screen.page.keyboard.press("l")
    assert screen.page.locator("#labelling").is_hidden()
    assert "no server" in screen.page.text_content("#samples")
    screen.page.wait_for_timeout(400)
    screen.page.reload()
    screen.page.wait_for_selector("body.ready")
    assert screen.state("swipe")
    assert screen.state("left") == "image_date1"


def test_the_ends_of_a_ramp_are_told_as_what_lies_beyond_them_too(open_page, write_tif, tmp_path):
    values = np.linspace(100, 5000, 200 * 200, dtype="float32").reshape(200, 200)
    write_tif("shown/height.tif", values, bands=["height"])
    out = tmp_path / "site"
    command = [sys.executable, "-m", "covermap", "view", str(tmp_path / "shown"), "--static", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    screen = open_page((out / "index.html").as_uri())
    low, high = screen.run("[covermap.layer('height').low, covermap.layer('height').high]")
    assert 100 < low < high < 5000, (low, high)
    screen.look(0, 100, 100)
    shown = [screen.click(100.5, row + 0.5)["height"] for row in (0, 100, 198)]
    assert shown[0].startswith("≤ "), (shown, low, high)
    assert shown[2].startswith("≥ ")
    assert float(shown[1]) == pytest.approx(values[100, 100], rel=0.02)
    assert [shown[0], shown[2]] == [f"≤ {low:g}", f"≥ {high:g}"]
