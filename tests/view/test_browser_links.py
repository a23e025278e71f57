"""What is asked of the page by its address, by odd names, by layers far apart and by files that change."""

from __future__ import annotations

import json
import shutil
from urllib.request import urlopen

import numpy as np
import pytest

from covermap.core.legend import LandClass, Legend
from covermap.geo.products import finish_map
from tests.view.browser import serve, stop
from tests.view.browser_scene import background, expected, read

LAND = Legend(name="land", classes=(LandClass(1, "water", "#0000ff"), LandClass(2, "forest", "#00aa00")), nodata=0)
COLOURS = {1: (0, 0, 255), 2: (0, 170, 0)}


@pytest.fixture
def served():
    """served(folder) -> address; stopped at the end."""
    running = []

    def start(folder):
        process, address = serve(folder)
        running.append(process)
        return address

    yield start
    for process in running:
        stop(process)


@pytest.fixture
def make_map(write_tif, tmp_path):
    """make_map(name, codes, origin=) -> its path in the folder shown."""

    def make(name, codes, **place):
        plain = write_tif("plain/plain.tif", np.asarray(codes, "uint8"), nodata=0, **place)
        (tmp_path / "shown").mkdir(exist_ok=True)
        finish_map(plain, tmp_path / "shown" / name, LAND)
        return tmp_path / "shown" / name

    return make


@pytest.mark.parametrize(
    "link",
    [
        "#h=map", "#i=image_date1", "#i=image_date1/length/2/0", "#h=map/x.-1.1e9/7", "#p=probs/99&p=gone", "#s=", "#s=map",
        "#v=1/2", "#v=3/1e300/-1e300", "#v=Infinity/1/1", "#l=sample&b=map", "#from=nothing&to=constructor", "#%E0%A4%A",
    ],
)  # fmt: skip
def test_links_that_are_cut_off_or_made_up_do_no_harm(open_page, address, link):
    screen = open_page(address, link=link)
    assert screen.run("covermap.state.from + covermap.state.to") == ""
    assert "image" in screen.run("covermap.onMap().map((layer) => layer.kind)")
    assert screen.run("covermap.map.getBounds().intersects(covermap.boundsOf(covermap.shown().left.top.bounds))")
    screen.page.keyboard.press("2")  # the address follows again
    assert screen.run("location.hash.includes('l=' + covermap.state.main)")


def test_a_page_that_cannot_start_says_so(open_page, address, chromium):
    page = chromium.new_page()
    page.route("**/view.json", lambda route: route.fulfill(json={"title": "odd", "layers": [], "frame": None}))
    page.goto(address)
    page.wait_for_selector("#problem:not([hidden])")
    assert page.text_content("#problem-text").startswith("Nothing to show: ")
    page.close()


def test_the_token_is_taken_out_of_the_address(open_page, address):
    screen = open_page(address, link="?token=secret&a=1#l=change&c=1")
    assert screen.run("location.search") == "?a=1"
    assert screen.state("main") == "change"
    assert screen.state("changedOnly")
    screen.page.keyboard.press("c")
    assert "token" not in screen.run("location.href")


def test_layers_may_have_the_names_of_what_every_object_has(open_page, served, make_map):
    codes = np.random.default_rng(0).integers(1, 3, (60, 80))
    for name in ("constructor.tif", "__proto__.tif", "toString.tif"):
        path = make_map(name, codes)
    screen = open_page(served(path.parent))
    screen.plain()
    ids = screen.run("covermap.ofKind('classes').map((layer) => layer.id)")
    assert {"constructor", "toString"} <= set(ids)
    for one in ids:
        screen.set(main=one)
        screen.page.click("button[aria-label='only forest']")
        screen.look(0, 40, 30)
        shown, seen = screen.seen(codes)
        assert np.array_equal(seen, expected(shown, background(screen), {2: COLOURS[2]}))
        assert screen.click(40.5, 30.5)[one] in ("water", "forest")
        screen.run("covermap.closeInspect()")  # its outline too
    link = screen.run("location.hash")
    again = open_page(screen.page.url.partition("#")[0], link=link)
    assert all(again.run(f"covermap.state.hidden['{one}']") == [0] for one in ids if one != "__proto__")


def test_layers_far_apart_are_gone_to(open_page, served, make_map):
    codes = np.ones((100, 120), int)
    make_map("near.tif", codes)
    folder = make_map("other.tif", codes, origin=(900_000, 4_900_000)).parent
    screen = open_page(served(folder))
    inside = "(id) => covermap.map.getBounds().contains(covermap.boundsOf(covermap.layer(id).bounds).getCenter())"
    first = screen.run("covermap.shown().left.top.id")
    other = next(one for one in ("near", "other") if one != first)
    assert screen.run(inside, first)
    assert not screen.run(inside, other)
    wide = screen.run("(id) => covermap.layer(id).bounds[2] - covermap.layer(id).bounds[0]", first)
    assert screen.run("covermap.map.getBounds().getEast() - covermap.map.getBounds().getWest()") < 30 * wide
    screen.page.click(f"#layer-{other}")
    screen.settle()
    assert screen.run(inside, other)
    assert not screen.run(inside, first)
    screen.page.keyboard.press("0")
    screen.settle()
    assert screen.run(inside, first)
    assert screen.run(inside, other)


@pytest.fixture
def changing(scene, tmp_path, served, open_page):
    """(screen, rewrite): a view of map.tif, and what writes the other map in its place."""
    folder = tmp_path / "own"
    shutil.copytree(scene, folder)
    address = served(folder)
    screen = open_page(address, expect=("409",))
    screen.plain()
    screen.set(main="map", hidden={"map": [0]})
    screen.look(0, 256, 256)

    def rewrite():
        (folder / "map.tif").unlink()
        shutil.copyfile(folder / "map_date2.tif", folder / "map.tif")
        shutil.copyfile(folder / "map_date2.areas.csv", folder / "areas.csv")

    def versions(route):
        with urlopen(f"{address}view.json") as answer:
            found = {layer["id"]: layer["version"] for layer in json.load(answer)["layers"] if "version" in layer}
        route.fulfill(json=route.fetch().json() | {"versions": found})

    screen.page.route("**/point?*", versions)
    return screen, rewrite


def test_a_click_on_a_map_that_was_rewritten_shows_it_anew(changing, scene):
    screen, rewrite = changing
    screen.page.click("#layer-map")
    screen.page.keyboard.press("c")
    screen.page.keyboard.press("c")
    before = screen.run("[location.hash, covermap.map.getZoom(), covermap.state.opacity]")
    rewrite()
    after = read(scene / "map_date2.tif")
    screen.click(255.5, 256.5)
    screen.page.wait_for_selector("#news:has-text('map.tif has changed: shown anew.')")
    screen.settle()
    found = screen.values()
    assert found["map"] == found["map_date2"]
    screen.run("covermap.closeInspect()")
    hidden = screen.run("covermap.layer('map').classes[0].code")
    codes, seen = screen.seen(np.where(after == hidden, 0, after))
    assert np.array_equal(seen, expected(codes, background(screen)))
    assert screen.run("[location.hash, covermap.map.getZoom(), covermap.state.opacity]") == before
    assert screen.page.locator("#problem").is_hidden()


def test_a_tile_of_a_map_that_was_rewritten_is_asked_for_anew(changing, scene):
    screen, rewrite = changing
    rewrite()
    screen.run("covermap.forgetTiles()")
    screen.look(-1, 256, 256)
    screen.page.wait_for_selector("#news:has-text('map.tif has changed')")
    screen.look(0, 250, 250)
    after = read(scene / "map_date2.tif")
    hidden = screen.run("covermap.layer('map').classes[0].code")
    codes, seen = screen.seen(np.where(after == hidden, 0, after))
    assert np.array_equal(seen, expected(codes, background(screen)))
    assert screen.page.locator("#problem").is_hidden()
