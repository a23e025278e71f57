"""Looks at a network in a run or beside it: found where they are of this run, shown with their numbers."""

from __future__ import annotations

import csv
import json

import numpy as np
import rasterio
from rasterio.transform import from_origin

from covermap.report import write_report
from covermap.report.beside import _held, looks_of
from tests.report.test_report import Page, squeezed, svg


def space(folder, *, weights="trained: demo", num=40):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with open(folder / "points.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["chip", "region", "class", "pc1", "pc2"])
        for i in range(num):
            writer.writerow([i, ("north", "south")[i % 2], ("water", "forest", "")[i % 3], *rng.normal(size=2)])
    facts = {"encoder": {"weights": weights}, "by": "place", "regions": {"north": 20, "south": 20},
             "variance": [0.5, 0.2], "sentences": ["The 2 regions lie apart."], "doubts": ["few chips"]}  # fmt: skip
    (folder / "space.json").write_text(json.dumps(facts), encoding="utf-8")


def attention(path, *, weights="trained: demo", size_px=96):
    """Two blocks of two heads; the last block's second head looks at one tenth alone."""
    heads = np.ones((4, size_px, size_px), np.float32)
    heads[3] = 0
    heads[3].reshape(-1)[: size_px**2 // 10] = 10
    profile = {"driver": "GTiff", "count": 4, "height": size_px, "width": size_px, "dtype": "float32"}
    place = {"crs": "EPSG:32631", "transform": from_origin(600_000, 5_000_000, 10, 10)}
    with rasterio.open(path, "w", **profile, **place) as dataset:
        dataset.write(heads)
        for i, name in enumerate(("block0_head0", "block0_head1", "block3_head0", "block3_head1"), 1):
            dataset.set_band_description(i, name)
        dataset.update_tags(COVERMAP_QUERY="mean", COVERMAP_WEIGHTS=weights, COVERMAP_VALUES="relative to uniform")


def test_a_run_shows_what_was_looked_at(make_run, tmp_path):
    run = make_run(tmp_path, size_px=96)
    assert "features" not in Page(write_report(run).read_text(encoding="utf-8")).sections
    space(run.path("space"))
    attention(run.path("attention.tif"))
    html = write_report(run).read_text(encoding="utf-8")
    page = Page(html)
    (alt, points), (_, heads) = page.images["features"]
    assert alt == "Scatter of chips by principal components, coloured by place and by class"
    assert all(
        text in svg(points) for text in ("north", "south", "water", "forest", "no majority", "50% of the variance")
    )
    assert "grassland" not in svg(points)
    assert all(text in svg(heads) for text in ("image", "block3 head0", "block3 head1"))
    assert "block0" not in svg(heads)
    text = squeezed(page.sections["features"])
    assert "40 of 40 chips (trained: demo)" in text
    assert "few chips." in text
    assert "block3 head0 10 %, block3 head1 100 %" in text
    assert "http" not in html.replace("http-equiv", "")


def test_a_look_beside_counts_where_it_is_of_this_run(make_run, tmp_path):
    run = make_run(tmp_path, size_px=96)
    space(run.folder.parent / "mine")
    space(run.folder.parent / "other", weights="trained: another")
    attention(run.folder.parent / "my_attention.tif")
    attention(run.folder.parent / "other_attention.tif", weights="trained: another")
    found = looks_of(run.folder, "demo", {})
    assert [one.title for one in found] == ["Chips in the space of features", "Attention"]
    assert "my_attention.tif" in found[1].caption
    assert looks_of(run.folder, "third", {}) == []


def test_shares_of_attention():
    assert _held(np.ones((10, 10))) == 0.1
    one = np.zeros((10, 10))
    one[0, :5] = 1
    assert _held(one) == 1.0
