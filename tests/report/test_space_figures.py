"""Figures of an embedding space and of several runs: nothing is cut off, nothing lies on something else."""

import base64
import re
from itertools import combinations

import numpy as np
import pytest

from covermap.report import drawing
from covermap.report.figures import radar
from covermap.report.space_figures import Groups, against_error, clouds, region_colours
from covermap.report.study_figures import whisker_bars

NAMES = ["Upper Austrian lowlands", "Catalonia", "Scottish Highlands, north", "Doñana"]


@pytest.fixture
def kept(monkeypatch):
    """The figures that are drawn, before they become SVG."""
    figures = []
    draw = drawing.svg_uri

    def keep(figure):
        figures.append(figure)
        return draw(figure)

    monkeypatch.setattr(drawing, "svg_uri", keep)
    return figures


def boxes(figure, texts):
    figure.canvas.draw()
    return [text.get_window_extent(figure.canvas.get_renderer()) for text in texts]


def words(uri):
    svg = base64.b64decode(uri.partition(",")[2]).decode("utf-8")
    return re.findall(r">([^<>\n]+)</text>", svg)


def test_pairs_of_few_regions_stand_beside_their_points_by_number_and_are_explained(kept):
    rng = np.random.default_rng(0)
    far, extra = rng.random((4, 4)), 0.1 * rng.random((4, 4))
    told = words(against_error({"cosine": (far, "r 0.5"), "MMD": (far**2, "r 0.4")}, extra, NAMES, y="extra error"))
    assert {"1 → 2", "4 → 3"} <= set(told)
    assert "learnt → told: 1 Upper Austrian lowlands · 2 Catalonia · 3 Scottish Highlands, north · 4 Doñana" in told
    figure = kept[0]
    for axes in figure.axes:
        assert not any(one.overlaps(other) for one, other in combinations(boxes(figure, axes.texts), 2))
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes(figure, axes.texts))


@pytest.mark.parametrize("size", [1e-4, 1.0, 12345.0])
def test_the_labels_of_axes_are_whole_however_wide_the_ticks_are(kept, size):
    rng = np.random.default_rng(0)
    points, group = size * rng.normal(size=(50, 2)), rng.integers(0, 4, 50)
    panel = Groups("by region", group, NAMES, region_colours(4))
    clouds(points, [panel, panel], ("component 1 (45 % of the variance)", "component 2 (12 % of the variance)"))
    figure = kept[0]
    left, right = figure.axes
    assert left.get_tightbbox().x0 >= 0
    assert right.get_tightbbox().x0 >= figure.bbox.width / 2
    assert left.get_tightbbox().x1 <= figure.bbox.width / 2 + 20


def test_a_single_run_has_no_whisker_and_names_are_whole(kept):
    found = words(
        whisker_bars({"train.epochs=12": (0.5, 0.1), "train.epochs=12: random forest": (0.6, np.nan)}, y="miou")
    )
    assert "train.epochs=12: random forest" in found
    ends = kept[0].axes[0].containers[1].lines[1][0].get_xdata()
    assert len(ends) == 1


def test_names_on_spokes_keep_off_the_circle(kept):
    names = ["water", "forest", "a very long class", "cropland", "built-up", "bare", "road", "another long class"]
    radar(names, {"network": [0.5] * 8}, title="IoU")
    (axes,) = kept[0].axes
    circle = axes.get_window_extent()
    centre, radius = np.array([(circle.x0 + circle.x1) / 2, (circle.y0 + circle.y1) / 2]), circle.width / 2
    for box in boxes(kept[0], axes.get_xticklabels()):
        nearest = np.clip(centre, [box.x0, box.y0], [box.x1, box.y1])
        assert np.hypot(*(nearest - centre)) > radius
