"""Three maps and more: a change map for each step, sequences of classes; and areas of change from a sample."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio

from covermap.core.errors import ConfigError, LabelError, OutputError
from covermap.core.legend import load_legend
from covermap.verbs import trajectories as module
from covermap.verbs.assess import assess
from covermap.verbs.change import change
from covermap.verbs.change_rules import ChangeRules
from covermap.verbs.sample import Plan, sample

COVER = np.array(load_legend("esa_worldcover").codes, np.uint8)
WC = {"legends": ["esa_worldcover"]}


def patches(codes: np.ndarray, shape: tuple[int, int], seed: int, side: int = 7) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, len(codes), (shape[0] // side + 1, shape[1] // side + 1))
    return codes[np.kron(coarse, np.ones((side, side), int))[: shape[0], : shape[1]]]


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("gsd", [10.0, 0.01])
def test_three_maps_against_a_loop_over_pixels(write_tif, tmp_path: Path, monkeypatch, gsd: float) -> None:
    monkeypatch.setattr(module, "_WINDOW_PX", (16, 32))
    place = {"crs": "EPSG:4326", "origin": (7.0, 50.0)} if gsd < 1 else {}
    maps = [patches(COVER[:4], (50, 60), seed, side=9) for seed in range(3)]
    maps[2][:25] = maps[0][:25]
    maps[1][:5] = 0
    paths = [write_tif(f"{n}.tif", each, nodata=0, gsd=gsd, **place) for n, each in enumerate(maps)]
    rules = ChangeRules(impossible=("Grassland>Tree cover",))
    done = change(paths, tmp_path / "out", rules=rules, **WC)
    found = done.trajectories
    assert found is not None
    names = dict(zip(map(int, COVER), load_legend("esa_worldcover").names, strict=True))
    wanted = Counter(zip(*(each.ravel().tolist() for each in maps), strict=True))
    wanted = {key: count for key, count in wanted.items() if 0 not in key}
    rows = read_rows(tmp_path / "out" / "trajectories.csv")
    told = {tuple(row[f"date_{n}"] for n in (1, 2, 3)): int(row["pixels"]) for row in rows}
    assert told == {tuple(names[code] for code in key): count for key, count in wanted.items()}
    counts = [int(row["pixels"]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-3)
    flicker = sum(n for (a, b, c), n in wanted.items() if a == c != b)
    wrong = sum(n for (a, b, c), n in wanted.items() if (30, 10) in ((a, b), (b, c)))
    rates = found.rates
    assert rates["pixels"]["flicker"] == flicker > 0
    assert rates["pixels"]["impossible"] == wrong > 0
    assert rates["stable"] + rates["changed_once"] + rates["changed_more"] == pytest.approx(1)
    if gsd > 1:
        assert rates["flicker"] == pytest.approx(flicker / sum(wanted.values()))
    assert found.num_lost == 5 * 60
    assert [pair.path.name for pair in done.pairs] == ["change_1_2.tif", "change_2_3.tif", "change_1_3.tif"]
    assert {path.name for path in done.files} == {path.name for path in (tmp_path / "out").iterdir()}
    last = done.pairs[2]
    assert last.plain.pixels.sum() == 50 * 60
    assert json.loads((tmp_path / "out" / "series.json").read_text())["rates"]["pixels"]["flicker"] == flicker
    with pytest.raises(OutputError, match="exists already"):
        change(paths, tmp_path / "out", rules=rules, **WC)


def test_five_dates_of_many_classes(write_tif, tmp_path: Path) -> None:
    """More sequences than any number of bits would hold: 44 classes over 13 dates."""
    corine = np.array(load_legend("corine").codes, np.uint16)
    random = np.random.default_rng(0)
    maps = [corine[random.integers(0, 44, (20, 20))] for _ in range(13)]
    paths = [write_tif(f"{n}.tif", each) for n, each in enumerate(maps)]
    opened = change(paths, tmp_path / "out", legends=["corine"])
    found = opened.trajectories
    assert found is not None
    wanted = Counter(zip(*(each.ravel().tolist() for each in maps), strict=True))
    codes = found.legend.codes
    assert {tuple(codes[i] for i in key): n for key, (n, _) in found.counted.items()} == wanted
    assert len(opened.pairs) == 13


def test_refusals_of_series(write_tif, tmp_path: Path) -> None:
    paths = [write_tif(f"{n}.tif", patches(COVER, (20, 20), n), nodata=0) for n in range(3)]
    with pytest.raises(ConfigError, match="is no folder, three maps or more"):
        change(paths, tmp_path / "c.tif", **WC)
    dated = [f"{path}@{year}" for path, year in zip(paths, (2018, 2022, 2020), strict=True)]
    with pytest.raises(ConfigError, match=r"2022, after .* of 2020"):
        change(dated, tmp_path / "out", **WC)
    with pytest.raises(ConfigError, match="2 legends for 3 maps"):
        change(paths, tmp_path / "out", legends=["esa_worldcover"] * 2)
    world = write_tif("w.tif", np.zeros((20, 20), np.uint8))
    with pytest.raises(LabelError, match="of different legends"):
        change([*paths[:2], world], tmp_path / "out", legends=["esa_worldcover"] * 2 + ["dynamic_world"])
    done = change(
        [*paths[:2], world], tmp_path / "out", legends=["esa_worldcover"] * 2 + ["dynamic_world"], target="ipcc"
    )
    assert {pair.legend.name for pair in done.pairs} == {"ipcc"}


def _truth_and_maps(write_tif):
    """Three classes on 300 x 300 px; the truth, and maps that are wrong on about 4 % of it in clumps."""
    random = np.random.default_rng(5)
    first = patches(COVER[[0, 3, 4]], (300, 300), 1, side=15)
    grows = patches(np.array([0] * 11 + [50], np.uint8), (300, 300), 2, side=10)
    second = np.where(grows > 0, 50, first).astype(np.uint8)
    maps = []
    for each in (first, second):
        wrong = np.kron(random.random((100, 100)) < 0.04, np.ones((3, 3), bool))
        maps.append(
            np.where(wrong, patches(COVER[[0, 3, 4]], (300, 300), len(maps) + 7, side=3), each).astype(np.uint8)
        )
    return first, second, [write_tif(f"{n}.tif", each, nodata=0) for n, each in enumerate(maps)]


@pytest.mark.parametrize("binary", [True, False])
def test_area_of_change_from_a_sample_holds_the_truth(write_tif, tmp_path: Path, binary: bool) -> None:
    """change > sample > a person who sees the truth > assess: the interval holds the true area, the map's does not."""
    first, second, paths = _truth_and_maps(write_tif)
    rules = ChangeRules(binary=binary, merge=("Ground=40,50",) if not binary else ())
    out = tmp_path / "change.tif"
    found = change(paths, out, rules=rules, **WC).pairs[0]
    if not binary:
        first, second = (np.where(each == 50, 40, each) for each in (first, second))
    truth_ha = float((first != second).sum()) * 0.01
    mapped_ha = found.changed.total["area_ha"]
    assert mapped_ha > 1.3 * truth_ha  # errors of two maps look like change
    hits, estimates = 0, []
    for seed in range(20):
        points = tmp_path / f"s{seed}.csv"
        sample(out, points, Plan(num=600, seed=seed, allocation="equal" if binary else "mixed"))
        rows = read_rows(points)
        for row in rows:
            at = int((5_000_000 - float(row["y"])) / 10), int((float(row["x"]) - 500_000) / 10)
            a, b = (found.legend.codes.index(int(each[at])) for each in (first, second))
            code = 0 if a == b else 1 + a * (len(found.legend) - 1) + b - (b > a)
            row["reference"] = ("unchanged", "changed")[a != b] if binary else str(code)
        with open(points, "w") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        areas = {row["name"]: row for row in assess(out, points)["areas"]}
        stable = areas["unchanged"]
        estimates.append(900.0 - stable["area_ha"])
        hits += abs(estimates[-1] - truth_ha) <= stable["ci95_ha"]
    assert hits >= 16
    assert np.mean(estimates) == pytest.approx(truth_ha, rel=0.05)


def test_a_change_map_of_too_many_codes_says_what_to_do(write_tif, tmp_path: Path) -> None:
    corine = np.array(load_legend("corine").codes, np.uint16)
    random = np.random.default_rng(0)
    paths = [write_tif(f"{n}.tif", corine[random.integers(0, 44, (40, 40))]) for n in range(2)]
    change(paths, tmp_path / "c.tif", legends=["corine"])
    with pytest.raises(LabelError, match="changes between 44 classes") as caught:
        sample(tmp_path / "c.tif", tmp_path / "s.csv", Plan(num=100))
    assert "--binary" in caught.value.fix
    change(paths, tmp_path / "b.tif", legends=["corine"], rules=ChangeRules(binary=True))
    assert sample(tmp_path / "b.tif", tmp_path / "s.csv", Plan(num=100)).design.strata[1].name == "changed"


@pytest.mark.parametrize("binary", [False, True])
def test_change_maps_of_three_dates_are_asked_whether_they_contradict_each_other(
    write_tif, tmp_path: Path, binary: bool
) -> None:
    maps = [patches(COVER[:4], (60, 70), seed, side=5) for seed in range(3)]
    maps[2][:30] = maps[0][:30]
    maps[1][:4] = 0
    paths = [write_tif(f"{n}.tif", each, nodata=0) for n, each in enumerate(maps)]
    plain = change(paths, tmp_path / "plain", rules=ChangeRules(binary=binary), **WC)
    assert plain.contradictions is not None
    assert plain.contradictions.rate == 0
    assert plain.contradictions.known == 56 * 70
    done = change(paths, tmp_path / "small", rules=ChangeRules(binary=binary, min_area="30px"), **WC)
    codes = [rasterio.open(pair.path).read(1) for pair in done.pairs]
    still, none = (1, 0) if binary else (0, 65535)
    known = np.logical_and.reduce([code != none for code in codes])
    c12, c23, c13 = (code != still for code in codes)
    broken = (~c12 & ~c23 & c13) | (c12 & ~c23 & ~c13) | (~c12 & c23 & ~c13)
    assert done.contradictions is not None
    assert done.contradictions.rate == pytest.approx((broken & known).sum() / known.sum())
    assert done.contradictions.rate > 0
    told = json.loads((tmp_path / "small" / "series.json").read_text())["contradictions"]
    assert told["known"] == known.sum()
