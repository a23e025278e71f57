"""The page in a real browser: what is seen is what the rasters hold."""

from __future__ import annotations

import csv
import json
import re
from urllib.request import urlopen

import numpy as np
import pytest
import rasterio

from tests.view.browser import PAGE
from tests.view.browser_scene import COLOURS, NAMES, SIDE, background, expected, read


@pytest.fixture
def screen(open_page, address):
    return open_page(address)


def test_a_map_is_painted_pixel_by_pixel_in_the_colours_of_its_legend(screen, scene):
    screen.plain()
    ground = background(screen)
    for name in ("map", "map_date2"):
        screen.set(main=name)
        screen.look(0, 256, 256)
        codes, seen = screen.seen(read(scene / f"{name}.tif"))
        assert codes.shape == (SIDE, SIDE)
        assert np.array_equal(seen, expected(codes, ground))
    screen.look(2, 256, 256)  # beyond native: squares, no mixing
    shot = screen.map_pixels()
    assert {tuple(c) for c in np.unique(shot.reshape(-1, 3), axis=0)} <= {*COLOURS.values(), ground}


def test_swipe_shows_one_layer_left_of_the_handle_and_the_other_right_of_it(screen):
    screen.plain()
    alone = []
    for name in ("image_date2", "map_date2"):
        screen.set(main=name)
        screen.look(0, 256, 256)
        alone.append(screen.map_pixels())
    assert (alone[0] != alone[1]).any(2)[200:600, 200:700].mean() > 0.9
    screen.page.click("#swipe-toggle")
    screen.page.click("text=Image | map")
    screen.settle()
    handle = screen.page.locator("#swipe")
    wide = alone[0].shape[1]

    def check():
        edge = round(screen.state("split") * wide)
        shot = screen.map_pixels()
        assert np.array_equal(shot[:, : edge - 1], alone[0][:, : edge - 1])
        off = np.argwhere((shot != alone[1]).any(2)[:, edge + 1 :])
        assert not len(off), (off.min(0), off.max(0), len(off), edge)
        assert int(handle.get_attribute("aria-valuenow")) == round(100 * screen.state("split"))

    check()
    box = handle.bounding_box()
    screen.page.mouse.move(box["x"] + box["width"] / 2, 500)
    screen.page.mouse.down()
    screen.page.mouse.move(260, 500, steps=4)
    screen.page.mouse.up()
    assert abs(screen.state("split") * wide - 260) < 1
    check()
    handle.focus()
    screen.page.keyboard.press("ArrowRight")
    screen.page.keyboard.press("Shift+ArrowRight")
    assert screen.state("split") == pytest.approx(260 / wide + 0.11, abs=0.002)
    check()
    screen.look(0, 300, 200)  # the cut stays where the handle is when the map moves below it
    moved = screen.map_pixels()
    screen.page.keyboard.press("End")
    left_alone = screen.map_pixels()
    edge = round((260 / wide + 0.11) * wide)
    assert np.array_equal(moved[:, : edge - 1], left_alone[:, : edge - 1])
    screen.page.keyboard.press("Home")
    assert screen.state("split") == 0
    assert "map_date2" in handle.get_attribute("aria-label")


def test_names_of_the_sides_cover_neither_the_buttons_nor_each_other(screen):
    screen.set(swipe=True)
    for split in (0.03, 0.2, 0.5, 0.97):
        screen.set(split=split)
        tags = screen.run("""() => ["tag-left", "tag-right"].map((id) => document.getElementById(id))
            .filter((tag) => getComputedStyle(tag).visibility === "visible").map((tag) => tag.getBoundingClientRect())
            .map(({left, right}) => [left, right])""")
        buttons, stage = screen.page.locator("#buttons").bounding_box(), screen.page.locator("#stage").bounding_box()
        assert all(left >= buttons["x"] + buttons["width"] and right <= stage["width"] for left, right in tags)
        assert len(tags) == (2 if 0.1 < split < 0.9 else 1)


def test_hectares_have_as_many_digits_as_are_of_use_and_sums_of_pixels_are_rounded_as_numbers(screen):
    said = {0: "0", 0.0016: "0.0016", 0.98: "0.98", 18.2: "18.20", 567.3499999999: "567.4", 2944.25: "2,944.2"}
    assert [screen.run("covermap.hectares", value) for value in said] == list(said.values())


def test_any_two_layers_can_be_swiped_and_pairs_are_suggested(screen):
    screen.page.keyboard.press("s")
    names = screen.page.locator("#layers .chip").all_text_contents()
    assert [name for name in names if "|" in name] == [
        "Image | map", "Map | map", "Date | date", "Map | change", "Map | confidence",
    ]  # fmt: skip
    screen.page.click("text=Date | date")
    assert (screen.state("left"), screen.state("right")) == ("image_date1", "image_date2")
    screen.page.click("text=Map | map")
    assert (screen.state("left"), screen.state("right")) == ("map", "map_date2")
    screen.page.click("text=Swap")
    assert (screen.state("left"), screen.state("right")) == ("map_date2", "map")
    screen.page.select_option("#side-left", "confidence")
    assert "confidence" in screen.page.text_content("#tag-left")


def test_hidden_classes_vanish_the_others_stay_and_nothing_is_fetched(screen, scene):
    screen.plain()
    screen.set(main="map")
    screen.look(0, 256, 256)
    codes, before = screen.seen(read(scene / "map.tif"))
    ground, asked = background(screen), []
    screen.page.on("request", lambda request: asked.append(request.url))
    forest, crop = (next(code for code, name in NAMES.items() if name == wanted) for wanted in ("forest", "cropland"))
    screen.page.uncheck("label:has-text('forest') input")
    seen = screen.seen(codes)[1]
    assert (seen[codes == forest] == ground).all()
    assert np.array_equal(seen[codes != forest], before[codes != forest])
    screen.page.click("button[aria-label='only cropland']")
    assert np.array_equal(screen.seen(codes)[1], expected(codes, ground, {crop: COLOURS[crop]}))
    screen.page.click("button[aria-label='only cropland']")
    assert np.array_equal(screen.seen(codes)[1], before)
    assert not asked


def test_the_legends_hectares_are_those_of_areas_csv(screen, scene, address):
    with urlopen(f"{address.rstrip('/')}/view.json") as answer:
        layers = {layer["id"]: layer for layer in json.load(answer)["layers"]}
    for name, table in (("map", "areas.csv"), ("map_date2", "map_date2.areas.csv")):
        with open(scene / table, newline="") as file:
            want = {row["class"]: row for row in csv.DictReader(file)}
        assert {c["name"]: c["pixels"] for c in layers[name]["classes"]} == {
            k: int(v["pixels"]) for k, v in want.items()
        }
        screen.set(main=name)
        for row in screen.page.locator(f"#legend [data-layer={name}] li").all():
            words = row.locator(".amount").text_content()
            area = float(want[row.locator(".grow").text_content()]["area_ha"])
            assert float(words.removesuffix(" ha").replace(",", "")) == pytest.approx(area, rel=1e-3)
    change = {c["code"]: c["hectares"] for c in layers["change"]["classes"]}
    codes, counts = np.unique(read(scene / "change.tif"), return_counts=True)
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        assert code == 65535 or change[code] == pytest.approx(count / 100)


def test_a_click_tells_what_the_rasters_hold_at_that_pixel(screen, scene):
    rasters = {name: read(scene / f"{name}.tif") for name in ("map", "map_date2", "change", "confidence")}
    with rasterio.open(scene / "image_date1.tif") as dataset:
        image, bands, place = dataset.read(), dataset.descriptions, dataset.transform
    changed = np.argwhere((rasters["change"] > 0) & (rasters["change"] < 65535))
    row, col = changed[len(changed) // 2].tolist()
    for zoom, (x, y) in ((-1, (100.5, 200.5)), (0, (255.5, 256.5)), (2, (400.25, 31.75)), (3, (col + 0.5, row + 0.5))):
        screen.look(zoom, x, y)
        x, y = screen.under(x, y)
        found, at = screen.click(x, y), (int(y), int(x))
        for name in ("map", "map_date2"):
            assert found[name] == NAMES[int(rasters[name][at])], (zoom, name)
        assert found["confidence"] == f"{rasters['confidence'][at]} %"
        assert found["image_date1"] == ", ".join(f"{band} {image[k][at]}" for k, band in enumerate(bands))
        assert found["probs"].startswith(f"{NAMES[int(rasters['map'][at])]} 86 %")
        before, after = found["map"], found["map_date2"]
        assert found["change"] == ("unchanged" if before == after else f"{before} → {after}")
        east, north = place * (x, y)
        assert [float(v) for v in re.findall(r"\d+", found["EPSG:32631"])] == [
            pytest.approx(east, abs=1),
            pytest.approx(north, abs=1),
        ]
        lat, lon = (float(v) for v in re.findall(r"([\d.]+)°", found["lat, lon"]))
        assert 45 < lat < 45.3
        assert 1.6 < lon < 1.9
    screen.look(0, 30, 20)
    assert screen.click(30, 20)["map"] == "no data"
    assert screen.page.locator("#inspect").get_attribute("aria-live") == "polite"


def test_the_area_chart_counts_the_pixels_in_view(screen, scene):
    codes = read(scene / "map.tif")
    screen.set(main="map")
    for zoom, x, y in ((0, 256, 256), (1, 130.3, 301.8), (3, 400, 100)):
        screen.look(zoom, x, y)
        found = screen.counted("map")
        left, top, right, bottom = found["window"]
        values, counts = np.unique(codes[top:bottom, left:right], return_counts=True)
        want = {str(v): n for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v}
        assert found["counts"] == want
        assert found["scale"] == 1
        assert "exact" in found["words"]
        box = screen.page.locator("#map").bounding_box()
        size = 2**zoom  # what lies outside of the window, or is missed in it, is less than a pixel
        for edge, most, at in ((left, SIDE, 0), (right, SIDE, 0), (top, SIDE, 1), (bottom, SIDE, 1)):
            inside = screen.place(edge, edge)[at]
            assert edge in (0, most) or min(abs(inside), abs(inside - box[("width", "height")[at]])) <= size
    screen.look(-1, 256, 256)
    found = screen.counted("map")
    assert found["scale"] == 2
    assert "20 m" in found["words"]
    assert "zoom in to 10 m" in found["words"]
    assert sum(found["counts"].values()) * 4 == pytest.approx((codes > 0).sum(), rel=0.01)


def test_the_filter_leaves_changed_pixels_alone(screen, scene):
    change, after = read(scene / "change.tif"), read(scene / "map_date2.tif")
    changed = (change > 0) & (change < 65535)
    screen.plain()
    screen.set(main="map_date2")
    screen.look(0, 256, 256)
    ground = background(screen)
    screen.page.keyboard.press("c")
    screen.settle()
    kept = np.where(changed, after, 0)
    assert np.array_equal(screen.seen(kept)[1], expected(kept, ground))
    found = screen.counted("map_date2")
    assert found["counts"] == {str(code): int((kept == code).sum()) for code in np.unique(kept[kept > 0]).tolist()}
    assert "filter" in found["words"]
    screen.set(main="change")
    seen = screen.seen(change)[1]
    assert (seen[~changed] == ground).all()
    before = read(scene / "map.tif")
    crop = next(code for code, name in NAMES.items() if name == "cropland")
    screen.page.select_option("#change-from", "cropland")
    seen = screen.seen(change)[1]
    assert (seen[changed & (before != crop)] == ground).all()
    assert (seen[changed & (before == crop)] != ground).any(1).all()
    names = screen.page.locator("#legend li .grow").all_text_contents()
    assert names
    assert all(name.startswith("cropland → ") for name in names)


def test_opacity_bands_and_stretch_change_what_is_seen(screen):
    screen.look(0, 256, 256)
    screen.set(main="map", points=False)
    opaque = screen.map_pixels()
    screen.page.locator("#opacity").press("Home")
    assert screen.page.text_content("#opacity-words") == "0 %"
    image = screen.map_pixels()
    assert (opaque != image).any(2)[300:500, 300:500].mean() > 0.9
    screen.page.click("#bands")
    screen.page.select_option("#band-0", "nir")
    screen.settle()
    assert screen.run("document.querySelector('#preset').selectedOptions[0].textContent") != "natural colours"
    other = screen.map_pixels()
    assert (other != image)[300:500, 300:500, 0].mean() > 0.8
    screen.page.select_option("#stretch", "0")
    screen.settle()
    assert (screen.map_pixels() != other).any(2)[300:500, 300:500].mean() > 0.8


def test_probabilities_show_the_class_that_is_chosen(screen, scene):
    screen.plain()
    screen.set(main="probs")
    screen.look(0, 256, 256)
    screen.page.select_option("#part-probs", label="forest")
    screen.settle()
    codes, seen = screen.seen(read(scene / "map.tif"))
    forest = next(code for code, name in NAMES.items() if name == "forest")
    assert "[object" not in screen.page.text_content("#legend")
    assert screen.page.locator("#legend .ramp").is_visible()
    inside, outside = np.unique(seen[codes == forest], axis=0), np.unique(seen[(codes != forest) & (codes > 0)], axis=0)
    assert len(inside) == len(outside) == 1
    assert (inside != outside).any()


def test_a_link_brings_everything_back(screen, open_page, address):
    screen.page.keyboard.press("s")
    screen.page.click("text=Map | map")
    screen.page.locator("#swipe").press("Shift+ArrowRight")
    screen.page.click("button[aria-label='only forest'] >> nth=0")
    screen.set(looks={}, opacity=55)
    screen.page.keyboard.press("c")
    screen.look(1, 200, 300)
    screen.page.wait_for_timeout(400)  # the address follows the view
    names = ["swipe", "left", "right", "split", "hidden", "opacity", "changedOnly", "main", "base"]
    want = {name: screen.state(name) for name in names}
    link = screen.run("location.hash")
    for other in (screen, open_page(address, link=link)):
        if other is screen:
            other.page.reload()
            other.page.wait_for_selector("body.ready")
        assert {name: other.state(name) for name in names} == want
        assert other.run("[covermap.map.getZoom() - covermap.view.frame.native, covermap.map.getCenter().lng]") == [
            1,
            200,
        ]
    screen.page.keyboard.press("c")
    assert not screen.state("changedOnly")
    screen.page.go_back()
    assert screen.state("changedOnly")
    screen.page.go_forward()
    assert not screen.state("changedOnly")


def test_a_tile_that_fails_is_told_with_the_servers_sentence(open_page, address):
    screen = open_page(address, expect=("422",))
    why = json.dumps({"error": "map.tif cannot be read; restore it"})
    tiles = "**/tiles/map/**"
    screen.page.route(tiles, lambda route: route.fulfill(status=422, content_type="application/json", body=why))
    screen.set(main="map")
    screen.page.wait_for_selector("#problem:not([hidden])")
    words = screen.page.text_content("#problem-text")
    assert "map.tif cannot be read; restore it" in words
    assert screen.page.locator("#problem").get_attribute("role") == "alert"
    screen.page.keyboard.press("Escape")
    assert screen.page.locator("#problem").is_hidden()
    screen.page.unroute(tiles)  # what failed is asked for again
    screen.set(main="map_date2")
    screen.set(main="map")
    assert screen.page.locator("canvas.leaflet-tile-loaded").count() > 0
    assert screen.page.locator("#problem").is_hidden()


def test_a_long_legend_stays_where_it_was_scrolled_to(open_page, address):
    screen = open_page(address, size=(1200, 330))
    screen.set(main="map")
    top = "document.getElementById('classes-map').scrollTop"
    screen.run("document.getElementById('classes-map').scrollTop = 40")
    assert screen.run(top) == 40
    box = screen.run("document.querySelectorAll('#classes-map input')[4].id")
    screen.run("(id) => document.getElementById(id).click()", box)
    assert screen.state("hidden") == {"map": [4]}
    assert screen.run(top) == 40


def test_pixels_of_codes_that_nobody_explains_are_told(open_page, address):
    screen = open_page(address, told=lambda view, layers: layers["map"].update(unknown_pixels=1234))
    screen.set(main="map")
    assert "1,234 px of map.tif have codes that are in no legend" in screen.page.text_content("#legend")
    screen.set(main="map_date2")
    assert "no legend" not in screen.page.text_content("#legend")


def test_keys_of_layers_are_shown_while_they_choose_layers(screen):
    assert screen.page.locator("#layers kbd").count() > 3
    screen.page.keyboard.press("l")
    assert screen.page.locator("#layers").is_visible()
    assert screen.page.locator("#layers kbd").count() == 0
    assert "forgotten when the page is loaded again" in screen.page.text_content("#help-keys")


def test_no_page_file_names_another_place():
    files = [path for path in PAGE.iterdir() if path.is_file()]
    assert len(files) > 10
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?:|//\w+\.\w+|@import|\bstyle=|<script>|\bon\w+=\"", text), path
        assert len(text.splitlines()) <= 500, path
        if path.suffix == ".js":
            assert '"use strict";' in text
            assert "window.covermap" in text
