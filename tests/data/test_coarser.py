"""Coarser pixels over neighbours: 16 chips of 1 m become one of 4 m, equal to the joined array's means and modes."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from covermap.core.config import DataConfig
from covermap.core.errors import ConfigError, DataError, GridError
from covermap.core.legend import IGNORE
from covermap.data import store
from covermap.data.scene import open_scenes
from covermap.data.sources.wusu import Wusu
from covermap.data.store import write_store
from covermap.data.tiles import Tiling

SIDE = 64
BANDS = ["blue", "green", "red"]


@pytest.fixture
def chips(write_tif, tmp_path):
    """Writes 4 x 4 chips of a landscape but for those left out; returns image, labels and the config."""

    def write(without=(), *, dtype="uint8", shift=0):
        rng = np.random.default_rng(0)
        side = 4 * SIDE
        image = rng.integers(0, 255, (3, side, side)).astype(dtype)
        labels = np.kron(rng.integers(1, 4, (side // 8, side // 8)), np.ones((8, 8), int)).astype("uint8")
        noise = rng.random(labels.shape) < 0.3
        labels[noise] = rng.integers(0, 4, int(noise.sum()))
        for row, col in np.ndindex(4, 4):
            if (row, col) not in without:
                part = np.s_[..., row * SIDE : (row + 1) * SIDE, col * SIDE : (col + 1) * SIDE]
                origin = 5e5 + col * (SIDE - shift), 4.6e6 - row * SIDE
                place = {"gsd": 1, "origin": origin}
                write_tif(f"images/c{row}{col}.tif", image[part], bands=BANDS, **place)
                write_tif(f"labels/c{row}{col}.tif", labels[part], nodata=0, **place)
        legend = {1: "field", 2: "water", 3: "town"}
        return image, labels, DataConfig(
            image=[{"path": str(tmp_path / "images/*.tif"), "sensor": "rgb"}], labels=str(tmp_path / "labels/*.tif"),
            legend=legend,
        )  # fmt: skip

    return write


def means(image, factor=4):
    bands, side, _ = image.shape
    return image.reshape(bands, side // factor, factor, side // factor, factor).astype(float).mean((2, 4))


def modes(labels, factor=4):
    side = len(labels) // factor
    blocks = labels.reshape(side, factor, side, factor).swapaxes(1, 2).reshape(side, side, -1)
    counts = np.stack([(blocks == code).sum(-1) for code in (1, 2, 3)])
    return np.where(counts.max(0) > 0, counts.argmax(0), IGNORE)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_sixteen_chips_become_one(chips, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(store, "BLOCK_PX", 32)
    image, labels, config = chips(dtype=dtype)
    told = write_store(config, tmp_path / "out", tiling=Tiling(SIDE), gsd_m=4)
    assert "16 scenes, joined with their neighbours, are 1 at 4 m" in " ".join(told)
    (scene,) = open_scenes(DataConfig(source="prepared", root=str(tmp_path / "out")))
    sample = scene.read(scene.grid.window, labels=True)
    assert (scene.grid.height, scene.grid.width, scene.grid.gsd_m) == (SIDE, SIDE, 4)
    assert sample.valid.all()
    expected = means(image)
    # Whole numbers stay whole; halves may go either way.
    np.testing.assert_allclose(sample.image["rgb"][0], expected, atol=0.5 if dtype == "uint8" else 1e-3)
    np.testing.assert_array_equal(sample.label, modes(labels))


def test_chips_that_are_not_there_leave_holes_and_parts_stay_apart(chips, tmp_path):
    gone = [(1, 1), (0, 3), (1, 3), (2, 3), (2, 2), (2, 1), (2, 0), (3, 1), (3, 2)]
    image, labels, config = chips(gone)
    told = write_store(config, tmp_path / "out", tiling=Tiling(SIDE, edge="pad", max_nodata=0.7), gsd_m=4)
    assert any("7 scenes, joined with their neighbours, are 3 at 4 m" in line for line in told)
    assert any("2 of 3 tiles left out" in line for line in told)
    rows = list(csv.DictReader((tmp_path / "out/tiles.csv").read_text().splitlines()))
    assert {row["tile"]: row["dropped"] for row in rows} == {
        "c00_and_4_0_0": "",
        "c30_0_0": "93.8% without data",
        "c33_0_0": "93.8% without data",
    }
    (scene,) = open_scenes(DataConfig(source="prepared", root=str(tmp_path / "out")))
    sample = scene.read(scene.grid.window, labels=True)
    there = np.kron([[(row, col) not in gone and row < 2 for col in range(4)] for row in range(4)], np.ones((16, 16)))
    np.testing.assert_array_equal(sample.valid[0], there > 0)
    np.testing.assert_allclose(sample.image["rgb"][0][:, there > 0], means(image)[:, there > 0], atol=0.5)
    np.testing.assert_array_equal(sample.label, np.where(there > 0, modes(labels), IGNORE))


def test_what_cannot_be_simulated_is_refused_by_name(chips, tmp_path):
    _, _, config = chips()
    with pytest.raises(ConfigError, match=r"2\.5 m is no whole multiple of 1 m"):
        write_store(config, tmp_path / "out", gsd_m=2.5)
    _, _, config = chips(shift=8)
    with pytest.raises(GridError, match=r"c\d\d and c\d\d overlap"):
        write_store(config, tmp_path / "out", gsd_m=4)


def test_scenes_without_a_place_are_refused_by_name(tmp_path):
    Wusu.write_miniature(tmp_path)
    with pytest.raises(DataError, match="24 scenes such as train_HS15_2 have no place"):
        write_store(DataConfig(source="wusu", root=str(tmp_path)), tmp_path / "out", gsd_m=4)
    assert not (tmp_path / "out").exists()
