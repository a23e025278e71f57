"""Tiles that overlap by half and do not say where they lie are scored as the mosaic they were cut from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from covermap.core.config_file import parse_config
from covermap.core.legend import load_legend
from covermap.core.task import Task
from covermap.core.train_config import PredictConfig
from covermap.data import miniature
from covermap.data.make_split import make_split
from covermap.data.scene import open_scenes
from covermap.data.sources.wusu import CODES
from covermap.data.stats import input_spec
from covermap.metrics.change import CONVENTIONS, JointCounter, Pair
from covermap.ml.gated import gated
from covermap.models import LandModel
from covermap.verbs.score import TransitionScorer, score

SIDE, TILE, YEARS = 128, 64, ("15", "16", "18")


class ByPixel(LandModel):
    """Answers that depend on a pixel's own numbers alone."""

    kind = "by pixel"
    sees_neighbours = False

    def answers(self, batch):
        (x,) = batch.image.values()
        k = len(self.legend)
        return pixel_answers(x[:, :, :2].numpy(), k)

    def arrays(self):
        return {}


def pixel_answers(x, k):
    """(B, T, C, H, W) -> (B, 2 K + 2, H, W), with a pattern that errs now and then."""
    steps = np.arange(k)[None, :, None, None]
    classes = [np.cos(steps * (1.3 + date + 3 * x[:, date, :1])) for date in (0, 1)]
    shares = [np.exp(2 * c) / np.exp(2 * c).sum(1, keepdims=True) for c in classes]
    changed = 1 / (1 + np.exp(-3 * (np.abs(x[:, 1, :1] - x[:, 0, :1]) - 0.4)))
    return np.concatenate([*shares, 1 - changed, changed], 1).astype(np.float32)


@pytest.fixture
def mosaic(tmp_path):
    """A town on three dates, cut into tiles of half its overlap as WUSU's: (codes, pictures) by year."""
    codes = {"15": miniature.patches(CODES, SIDE, SIDE, seed=1, cell_px=9)}
    for i, (before, year) in enumerate(pairwise(YEARS)):
        codes[year] = miniature.changed(codes[before], CODES, seed=i, share=0.3)
    noise = np.random.default_rng(0)
    pictures = {}
    for number, year in enumerate(YEARS):
        clean = miniature.picture(codes[year], 4, seed=number, low=0, high=255, dtype="uint8").astype(int)
        pictures[year] = (clean + noise.integers(-20, 20, clean.shape)).clip(0, 255).astype("uint8")
    for part in ("train", "test"):
        folder = tmp_path / part / "HS"
        tiles = [(r, c) for r in range(0, SIDE - TILE + 1, TILE // 2) for c in range(0, SIDE - TILE + 1, TILE // 2)]
        for tile, (row, col) in enumerate(tiles, 1):
            at = (..., slice(row, row + TILE), slice(col, col + TILE))
            for i, year in enumerate(YEARS):
                picture = pictures[year] if part == "test" else pictures[year][:, ::-1]
                miniature.write(folder / "imgs" / f"HS{year}_{tile}.tif", picture[at], origin=None)
                miniature.write(folder / "class" / f"HS{year}_{tile}.tif", codes[year][at], origin=None)
                if i:
                    name = f"HS{YEARS[i - 1]}{year}_{tile}.tif"
                    differs = (codes[year] != codes[YEARS[i - 1]])[at]
                    miniature.write(folder / "change" / "BCD" / name, differs.astype("uint8"), origin=None)
                    miniature.write(folder / "change" / "SCD" / name, codes[year][at] * differs, origin=None)
    return tmp_path, codes, pictures


def test_scores_of_overlapping_tiles_are_those_of_the_mosaic(mosaic):
    root, codes, pictures = mosaic
    config = parse_config({
        "task": "semantic_change", "split": {"method": "source", "val": 0.0},
        "data": {"source": "wusu", "root": str(root), "options": {"dates": "series"}, "label": "dates"},
    })  # fmt: skip
    scenes = open_scenes(config.data)
    split = make_split(scenes, config.split, size_px=TILE)
    assert any("quarters of tiles show what another tile" in note for note in split.notes)
    spec, legend = input_spec(scenes, split, normalise="dataset", size_px=TILE), load_legend("wusu")
    model = ByPixel(spec, Task("semantic_change", legend), {})
    found = score(model, scenes, split, "test", settings=PredictConfig(size_px=TILE, batch_size=2))
    assert isinstance(found, TransitionScorer)
    whole = JointCounter(len(legend))
    (entry,) = spec.sensors
    mean, std = (np.array(v)[:, None, None] for v in (entry.mean, entry.std))
    for one, other in pairwise(YEARS):
        x = np.stack([(pictures[year].astype(np.float32) * entry.scale - mean) / std for year in (one, other)])
        said = gated(pixel_answers(x[None].astype(np.float32)[:, :, :2], len(legend))[0])
        truth = [legend.encode(codes[year]) for year in (one, other)]
        changed = np.where((codes[one] != codes[other]), 1, 0).astype(np.uint8)
        whole.add(Pair(truth[0], truth[1], changed), Pair(said.before, said.after))
    assert found.joint.total == whole.total == 2 * SIDE * SIDE
    np.testing.assert_array_equal(found.joint.counts, whole.counts)
    for convention in CONVENTIONS:
        assert found.joint.semantic(convention) == whole.semantic(convention)
