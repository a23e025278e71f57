"""Labelling in a real browser: what a key gives is in the file, what could not be saved is kept and said."""

from __future__ import annotations

import json
import shutil

import geopandas as gpd
import pytest

from tests.view.browser import serve, stop
from tests.view.browser_scene import NAMES, POINTS

SAVED = "Every label is saved."


@pytest.fixture
def labelling(labelled, open_page):
    folder, address = labelled
    screen = open_page(address, expect=("409", "503", "ERR_FAILED"))
    screen.page.keyboard.press("l")
    screen.page.wait_for_selector("#labelling:not([hidden])")
    return screen, folder / "sample.gpkg"


def references(path):
    table = gpd.read_file(path)
    return {
        int(one): (str(value) if value else None) for one, value in zip(table["id"], table["reference"], strict=True)
    }


def saved(screen):
    screen.page.wait_for_selector(f"#label-status:has-text('{SAVED}')")


def current(screen):
    return screen.run("covermap.labelPoint().id")


def test_each_label_is_in_the_file_at_once_and_can_be_undone(labelling):
    screen, path = labelling
    order = screen.run("covermap.labelLayer().points.map((point) => point.id)")
    codes = list(NAMES)
    for key in "312":
        screen.page.keyboard.press(key)
        saved(screen)
    want = {order[0]: str(codes[2]), order[1]: str(codes[0]), order[2]: str(codes[1])}
    assert {k: v for k, v in references(path).items() if v} == want
    assert current(screen) == order[3]
    assert screen.page.text_content("#label-count") == f"3 of {POINTS} labelled"
    screen.page.keyboard.press("Control+z")
    saved(screen)
    assert current(screen) == order[2]
    assert {k: v for k, v in references(path).items() if v} == {k: want[k] for k in order[:2]}
    screen.page.keyboard.press("Control+y")
    saved(screen)
    assert references(path)[order[2]] == want[order[2]]
    screen.page.keyboard.press("Delete")
    saved(screen)
    assert references(path)[order[2]] is None
    screen.page.fill("#label-jump", "10")
    screen.page.press("#label-jump", "Enter")
    assert current(screen) == order[9]
    screen.page.click("#label-previous")
    assert current(screen) == order[8]
    screen.page.click("button:has-text('forest')")
    saved(screen)
    assert references(path)[order[8]] == str(next(code for code, name in NAMES.items() if name == "forest"))
    assert current(screen) == order[9]
    screen.page.click("#label-previous")
    screen.page.click("#label-next")
    assert current(screen) == order[9]
    table = gpd.read_file(path)
    assert len(table) == POINTS
    assert {"id", "reference", "x", "y"} <= set(table.columns)


def test_the_map_is_hidden_while_labelling_unless_one_asks(labelling):
    screen, _ = labelling
    shown = "covermap.onMap().map((layer) => layer.kind)"
    assert set(screen.run(shown)) == {"image"}
    assert screen.page.locator("#legend").is_hidden()
    assert screen.page.locator("#area").is_hidden()
    point = screen.run("covermap.labelPoint()")
    assert not {"map", "map_date2", "confidence", "change", "probs"} & set(screen.click(point["x"], point["y"]))
    assert "mapped" not in screen.page.text_content("#inspect")
    screen.page.keyboard.press("s")
    assert screen.run(shown) == ["image_date1", "image_date2"] or set(screen.run(shown)) == {"image"}
    tops = screen.run("[covermap.shown().left.top.id, covermap.shown().right.top.id]")
    assert sorted(tops) == ["image_date1", "image_date2"]
    for key in "[][":
        screen.page.keyboard.press(key)
        assert set(screen.run(shown)) == {"image"}
    screen.page.keyboard.press("s")
    screen.page.reload()  # the link keeps labelling, so that a reload does not show the map either
    screen.page.wait_for_selector("#labelling:not([hidden])")
    assert set(screen.run(shown)) == {"image"}
    screen.page.uncheck("#label-blind")
    assert "classes" in screen.run(shown)
    assert "The map says" in screen.page.text_content("#labelling")


def test_the_pixel_is_in_the_middle_with_its_outline(labelling):
    screen, _ = labelling
    point = screen.run("covermap.labelPoint()")
    box = screen.page.locator("#map").bounding_box()
    at = screen.place(point["x"], point["y"])
    assert at == (pytest.approx(box["width"] / 2, abs=1), pytest.approx(box["height"] / 2, abs=1))
    outline = screen.page.locator("path.outline").first.bounding_box()
    pixel = screen.run("Math.pow(2, covermap.map.getZoom() - covermap.view.frame.native)")
    assert outline["x"] - box["x"] + outline["width"] / 2 == pytest.approx(at[0], abs=2)
    assert pixel - 1 <= outline["width"] <= pixel + 6  # with the line


def test_what_could_not_be_saved_is_said_kept_and_saved_later(labelling):
    screen, path = labelling
    page = screen.page
    refuse = json.dumps({"error": "the file is open elsewhere; close it there"})
    page.route("**/labels/*", lambda route: route.fulfill(status=503, content_type="application/json", body=refuse))
    order = screen.run("covermap.labelLayer().points.map((point) => point.id)")
    page.keyboard.press("1")
    page.wait_for_selector("#label-status:has-text('Not saved: the file is open elsewhere')")
    page.keyboard.press("2")
    page.wait_for_selector("#label-status:has-text('2 labels are kept here')")
    assert not any(references(path).values())
    assert page.locator("#label-status").get_attribute("role") == "status"
    page.unroute("**/labels/*")
    page.route("**/labels/*", lambda route: route.abort())
    page.click("#label-again")
    page.wait_for_selector("#label-status:has-text('the server does not answer')")
    page.unroute("**/labels/*")
    first = f'"point":{json.dumps(order[0])},'  # alone is still refused: it does not hold up the others
    page.route(
        "**/labels/*",
        lambda route: (
            route.fulfill(status=503, content_type="application/json", body=refuse)
            if first in route.request.post_data
            else route.continue_()
        ),
    )
    page.click("#label-again")
    page.wait_for_selector("#label-status:has-text('1 label is kept here')")
    assert {k for k, v in references(path).items() if v} == {order[1]}
    page.unroute("**/labels/*")
    page.click("#label-again")
    saved(screen)
    codes = [str(code) for code in NAMES]
    assert {k: v for k, v in references(path).items() if v} == {order[0]: codes[0], order[1]: codes[1]}


def test_a_whole_sample_is_labelled_by_keys_and_assessed(labelling):
    screen, path = labelling
    mapped = screen.run("covermap.labelLayer().points.map((point) => point.mapped)")
    keys = {code: str(i + 1) for i, code in enumerate(NAMES)}
    for code in mapped:
        screen.page.keyboard.press(keys[code])
    saved(screen)
    assert all(references(path).values())
    assert screen.page.text_content("#label-count") == f"{POINTS} of {POINTS} labelled"
    assert f"{POINTS} of {POINTS} points have a reference class." in screen.page.inner_text("#samples")
    assert "All points are labelled" in screen.page.inner_text("#news")
    assert screen.page.locator("#label-next").is_disabled()
    screen.page.click("#assess")
    screen.page.wait_for_selector("#assessment table")
    for table in screen.page.locator("#assessment .wide").all():
        assert "forest" in table.text_content()
        assert table.evaluate("(box) => box.scrollWidth <= box.clientWidth"), "numbers are cut off"
    text = screen.page.inner_text("#assessment")
    assert "producer's accuracy" in text
    assert "area ha (95 %)" in text
    assert screen.page.locator("#assessment").evaluate("(box) => box.getBoundingClientRect().top < innerHeight - 40")
    screen.page.keyboard.press("l")
    assert screen.page.locator("#labelling").is_hidden()


HELD = """([key, times, target]) => {
  for (let i = 0; i < times; i++) {
    const at = target ? document.querySelector(target) : document.activeElement;
    at.dispatchEvent(new KeyboardEvent("keydown", {key, repeat: i > 0, bubbles: true, cancelable: true}));
  }
}"""


def test_a_key_that_is_held_down_labels_one_point(labelling):
    screen, path = labelling
    screen.run(HELD, ["1", 12, None])
    saved(screen)
    assert sum(1 for value in references(path).values() if value) == 1
    assert screen.run("covermap.labelIndex()") == 1
    screen.run(HELD, ["PageDown", 4, None])  # only looks
    assert screen.run("covermap.labelIndex()") == 5
    screen.page.focus("#label-class-0")
    for _ in range(4):
        screen.page.keyboard.down("Enter")  # the browser repeats it
    screen.page.keyboard.up("Enter")
    saved(screen)
    assert sum(1 for value in references(path).values() if value) == 2


def test_a_label_that_somebody_else_gave_meanwhile_stays_and_is_told(labelling):
    screen, path = labelling
    order = screen.run("covermap.labelLayer().points.map((point) => point.id)")
    codes, sent = list(NAMES), []

    def elsewhere(route):
        sent.append(json.loads(route.request.post_data))
        body = json.dumps({"error": "the file says forest by now", "reference": codes[3]})
        taken = len(sent) == 2
        route.fulfill(status=409, content_type="application/json", body=body) if taken else route.continue_()

    screen.page.route("**/labels/*", elsewhere)
    screen.page.keyboard.press("1")
    saved(screen)
    screen.page.keyboard.press("2")
    screen.page.wait_for_selector("#problem:not([hidden])")
    saved(screen)
    told = screen.page.text_content("#problem-text")
    assert f"Point {order[1]}" in told
    assert "the file says forest by now" in told
    assert [one["before"] for one in sent] == [None, None]
    assert screen.run(f"covermap.labelLayer().points[1].reference === {codes[3]}")
    screen.page.keyboard.press("u")  # undoes the first label, not what somebody else wrote
    saved(screen)
    assert sent[-1] == {"point": order[0], "reference": None, "before": codes[0]}
    assert not any(references(path).values())
    assert screen.page.locator("#label-undo").is_disabled()
    screen.page.fill("#label-jump", "2")
    screen.page.press("#label-jump", "Enter")
    screen.page.click("#label-class-4")
    saved(screen)
    assert sent[-1] == {"point": order[1], "reference": codes[4], "before": codes[3]}


def test_after_a_jump_the_keys_are_the_maps_again(labelling):
    screen, path = labelling
    order = screen.run("covermap.labelLayer().points.map((point) => point.id)")
    screen.page.click("#label-jump")
    screen.page.keyboard.press("Control+a")
    screen.page.keyboard.type("7")
    screen.page.keyboard.press("Enter")
    assert screen.run("document.activeElement.id") == "map"
    screen.page.keyboard.press("3")
    saved(screen)
    assert {k: v for k, v in references(path).items() if v} == {order[6]: str(list(NAMES)[2])}
    screen.page.focus("#label-jump")
    screen.page.keyboard.press("ArrowUp")  # by keys in the field one stays in it
    assert screen.run("[document.activeElement.id, covermap.labelIndex()]") == ["label-jump", 8]


def test_assessing_is_asked_for_once_at_a_time(labelling):
    screen, _ = labelling
    held = []
    screen.page.route("**/assess/*", lambda route: held.append(route))
    screen.page.click("#assess")
    screen.page.wait_for_selector("#assess:disabled")
    screen.run("document.getElementById('assess').click()")
    while not held:
        screen.page.wait_for_timeout(20)
    held[0].fulfill(json={"sentence": "Right in 9 of 10.", "tables": [], "notes": [], "file": "a.json"})
    screen.page.wait_for_selector("#assessment:has-text('Right in 9')")
    assert len(held) == 1
    assert screen.page.locator("#assess").is_enabled()


def test_a_label_whose_answer_was_lost_is_not_somebody_elses(labelling):
    screen, path = labelling
    order = screen.run("covermap.labelLayer().points.map((point) => point.id)")
    codes, sent = list(NAMES), []

    def losing(route):
        sent.append(json.loads(route.request.post_data))
        if len(sent) == 1:
            route.abort()
        elif len(sent) == 2:
            route.fulfill(status=409, json={"error": "the file says it by now", "reference": codes[0]})
        else:
            route.continue_(post_data=json.dumps({k: v for k, v in sent[-1].items() if k != "before"}))

    screen.page.route("**/labels/*", losing)
    screen.page.uncheck("#label-go-on")
    screen.page.keyboard.press("1")
    screen.page.wait_for_selector("#label-status:has-text('the server does not answer')")
    screen.page.keyboard.press("2")
    saved(screen)
    assert [(one["reference"], one["before"]) for one in sent] == [
        (codes[0], None),
        (codes[1], None),
        (codes[1], codes[0]),
    ]
    assert {k: v for k, v in references(path).items() if v} == {order[0]: str(codes[1])}
    assert screen.page.locator("#problem").is_hidden()


def test_what_was_kept_is_saved_to_a_server_that_was_started_anew(scene, open_page, tmp_path):
    folder = tmp_path / "shown"
    shutil.copytree(scene, folder)
    process, address = serve(folder)
    screen = open_page(address, expect=("ERR_CONNECTION_REFUSED", "403"))
    page, port = screen.page, address.rstrip("/").rpartition(":")[2]
    page.keyboard.press("l")
    page.wait_for_selector("#labelling:not([hidden])")
    stop(process)
    page.keyboard.press("2")
    page.wait_for_selector("#label-status:has-text('the server does not answer')")
    other = tmp_path / "other" / "shown"
    shutil.copytree(scene, other)
    table = gpd.read_file(other / "sample.gpkg")
    table.geometry = table.geometry.translate(10)
    table.to_file(other / "sample.gpkg")
    process, _ = serve(other, "--port", port)
    page.click("#label-again")
    page.wait_for_selector("#label-status:has-text('something else is served here')")
    stop(process)
    assert not any(references(other / "sample.gpkg").values())
    process, _ = serve(folder, "--port", port)
    page.click("#label-again")
    saved(screen)
    stop(process)
    assert list(filter(None, references(folder / "sample.gpkg").values())) == [str(list(NAMES)[1])]


def test_two_tabs_and_the_servers_own_word_on_who_came_first(labelled, open_page):
    folder, address = labelled
    first, second = (open_page(address, expect=("409",)) for _ in range(2))
    for screen in (first, second):
        screen.page.keyboard.press("l")
        screen.page.wait_for_selector("#labelling:not([hidden])")
    codes = list(NAMES)
    first.page.keyboard.press("1")
    saved(first)
    second.page.keyboard.press("2")
    second.page.wait_for_selector("#problem:not([hidden])")
    told = second.page.inner_text("#problem-text")
    assert f"keeps “{NAMES[codes[0]]}” and was not given “{NAMES[codes[1]]}”" in told
    saved(second)
    assert second.page.locator("#label-undo").is_disabled()
    assert list(filter(None, references(folder / "sample.gpkg").values())) == [str(codes[0])]
    assert second.page.text_content("#label-count") == first.page.text_content("#label-count")
