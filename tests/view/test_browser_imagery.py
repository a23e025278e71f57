"""Which imagery a sample is labelled on, and what the page says of it."""

from __future__ import annotations

import shutil

from tests.view.browser import serve, stop


def dated(date1, date2):
    """The two images of the scene with dates; its maps are of 2020-07-14 and 2021-07-14, its sample of the first."""

    def change(view, layers):
        layers["image_date1"]["date"], layers["image_date2"]["date"] = date1, date2

    return change


def start(screen):
    screen.page.keyboard.press("l")
    screen.page.wait_for_selector("#label-imagery")
    screen.settle()
    return screen.page.text_content("#label-imagery")


def test_labelling_begins_on_the_image_nearest_to_the_date_of_the_map(open_page, address):
    screen = open_page(address, told=dated("2020-07-01/2020-07-31", "2024-07-14"))
    assert screen.state("base") == "image_date1"
    words = start(screen)
    assert screen.run("covermap.onMap().map((layer) => layer.id)") == ["image_date1"]
    assert words == "Imagery: image_date1.tif (2020-07-01/2020-07-31); map.tif is of 2020-07-14."
    screen.page.click("#layer-image_date2")
    words = screen.page.text_content("#label-imagery.bad")
    assert "image_date2.tif (2024-07-14); map.tif is of 2020-07-14." in words
    assert "another time" in words
    screen.page.wait_for_timeout(400)
    screen.page.reload()  # what was chosen stays
    screen.page.wait_for_selector("#label-imagery.bad")


def test_the_image_that_the_map_was_made_of_comes_before_dates(open_page, address):
    def change(view, layers):
        dated("2020-07-14", "2020-08-30")(view, layers)
        layers["image_date2"]["of"] = "map"

    screen = open_page(address, told=change)
    start(screen)
    assert screen.run("covermap.onMap().map((layer) => layer.id)") == ["image_date2"]
    assert screen.page.locator("#label-imagery.bad").count() == 0


def test_a_sample_of_changes_is_labelled_on_both_dates(open_page, address):
    def change(view, layers):
        dated("2020-07-10", "2021-07-20")(view, layers)
        layers["change"]["of"] = ["map", "map_date2"]
        layers["sample"]["of"] = "change"

    screen = open_page(address, told=change)
    words = start(screen)
    assert screen.run("[covermap.shown().left.top.id, covermap.shown().right.top.id]") == ["image_date1", "image_date2"]
    assert "map.tif is of 2020-07-14, map_date2.tif is of 2021-07-14" in words


def test_unknown_dates_are_said_to_be_unknown(open_page, address):
    screen = open_page(address)
    words = start(screen)
    assert words.startswith("Imagery: image_date2.tif (date unknown); map.tif is of 2020-07-14.")


def test_without_imagery_the_blank_page_says_why(open_page, scene, tmp_path):
    for name in ("map.tif", "sample.gpkg", "sample.design.json"):
        shutil.copyfile(scene / name, tmp_path / name)
    process, address = serve(tmp_path)
    try:
        screen = open_page(address)
        words = start(screen)
        assert "No imagery is shown; the maps are hidden" in words
        assert "covermap view MAP IMAGE SAMPLE" in words
        screen.page.uncheck("#label-blind")
        assert screen.run("covermap.onMap().map((layer) => layer.id)") == ["map"]
    finally:
        stop(process)
