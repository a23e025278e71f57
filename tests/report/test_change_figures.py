"""Flows of change as bands: hectares, names and colours are those given, heights in proportion."""

from __future__ import annotations

import re

import pytest

from covermap.report.change_figures import OTHERS, Flow, flow_bands
from covermap.report.words import of_flows
from tests.report.test_report import svg

COLOURS = {"water": "#2b6cb0", "forest": "#1e6b34", "field": "#e8c547", "town": "#c8344b"}
FLOWS = [Flow("forest", "field", 60.0), Flow("field", "town", 30.0), Flow("forest", "town", 10.0)]


def heights(drawn, colour):
    """Of the boxes with a colour, in the order in which they are drawn."""
    found = []
    for path, style in re.findall(r'<path d="(M [^"]*)"[^>]*style="([^"]*)"', drawn):
        rows = {float(y) for _, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)}
        if f"fill: {colour}" in style and "opacity" not in style and "C" not in path:
            found.append(max(rows) - min(rows))
    return found


def test_bands_carry_names_hectares_and_colours():
    drawn = svg(flow_bands(FLOWS, COLOURS, 5.0))
    for text in ("forest  70", "field  30", "field  60", "town  40", f"{OTHERS}  5.0"):
        assert text.replace("  ", " ") in drawn.replace("  ", " "), text
    assert "water" not in drawn
    (forest,), (before, after), (town,) = (heights(drawn, COLOURS[name]) for name in ("forest", "field", "town"))
    assert before / forest == pytest.approx(30 / 70, rel=0.02)
    assert after / forest == pytest.approx(60 / 70, rel=0.02)
    assert town / forest == pytest.approx(40 / 70, rel=0.02)


def test_without_a_rest_there_is_none():
    assert OTHERS not in svg(flow_bands(FLOWS, COLOURS))


def test_a_class_without_a_colour_is_drawn_all_the_same():
    assert "&lt;b&gt;" in svg(flow_bands([Flow("<b>", "town", 1.0), Flow("town", "<b>", 0.01)], COLOURS))


def test_the_largest_flows_are_told_with_their_share():
    rows = [{"from": one.source, "to": one.target, "area_ha": one.area_ha} for one in FLOWS]
    rows.append({"from": "town", "to": "water", "area_ha": 100.0 / 9})
    said = of_flows(rows).replace("\N{NO-BREAK SPACE}", " ")
    assert said == (
        "The largest are forest to field (60.0 ha), field to town (30.0 ha), forest to town (10.0 ha): 90 % of all "
        "counted change."
    )
    assert of_flows(rows[:1]) == ""
