"""Colours that are confused: published values of single colours, and pairs that are known to be confused."""

from __future__ import annotations

import numpy as np
import pytest

from covermap.core.colour_vision import VISION, alike, lab
from covermap.core.legend import PALETTE, LandClass, Legend, load_legend


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)), ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)  # fmt: skip
def test_single_colours_in_lab(rgb: tuple[int, int, int], expected: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(lab([rgb])[0], expected, atol=0.02)


def test_grey_stays_grey_to_all_eyes() -> None:
    for vision in VISION:
        np.testing.assert_allclose(lab([(128, 128, 128)], vision=vision), lab([(128, 128, 128)]), atol=0.01)


def legend(*colours: str) -> Legend:
    return Legend("x", tuple(LandClass(i, f"c{i}", colour) for i, colour in enumerate(colours)))


def test_red_and_green_of_one_brightness_are_confused_without_cones_for_them() -> None:
    visions = {row["vision"] for row in alike(legend("#c0392b", "#6b7a1e"), distance=25)}
    assert visions & {"protanopia", "deuteranopia"}
    assert not visions & {"normal", "tritanopia"}


def test_the_colours_of_okabe_and_ito_are_told_apart_by_all() -> None:
    assert alike(legend(*PALETTE[:7])) == []
    assert alike(load_legend("ipcc")) == []


def test_equal_colours_come_first() -> None:
    rows = alike(legend("#102030", "#aabbcc", "#102030"))
    assert rows[0]["distance"] == 0
    assert {(row["first"], row["second"]) for row in rows} == {("c0", "c2")}
    assert len(rows) == len(VISION)


def test_by_the_command_line(covermap) -> None:
    code, out, _ = covermap("legend", "colours", "corine")
    assert code == 0
    assert "Green urban areas" in out
    code, out, _ = covermap("legend", "colours", "ipcc")
    assert (code, "can be told apart" in out) == (0, True)
