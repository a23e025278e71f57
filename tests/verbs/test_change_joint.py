"""Dates decided together inside `change`: against loops in float64, in windows of any size; and what is refused."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin

from covermap.core.errors import ConfigError, DataError, LabelError, OutputError
from covermap.core.legend import IGNORE, LandClass, Legend
from covermap.core.output import write_text
from covermap.geo.grid import Grid
from covermap.geo.products import finish_cog, finish_map, layer_beside
from covermap.geo.writer import RasterWriter
from covermap.ml.transitions import ZERO, TransitionPrior
from covermap.verbs import change_joint as module
from covermap.verbs import change_pair
from covermap.verbs.change import change
from covermap.verbs.change_rules import ChangeRules

NAMES = ("forest", "field", "water", "town")
LEGEND = Legend("mine", tuple(LandClass(c, n, f"#{c:02x}0000") for c, n in zip((1, 2, 5, 9), NAMES, strict=True)))
SHAPE = (70, 90)
ORIGIN = (500_000, 5_000_000)


def shares_of(truth: np.ndarray, seed: int, sharp: float = 3.0) -> np.ndarray:
    """Calibrated shares of normal classes (K, H, W), uint8 in steps of 1/200, 255 in a corner that seed moves."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(4, *truth.shape))
    np.put_along_axis(logits, truth[None], np.take_along_axis(logits, truth[None], 0) + sharp, axis=0)
    p = np.exp(sharp * logits) / np.exp(sharp * logits).sum(0)
    found = np.rint(p * 200).astype(np.uint8)
    found[:, seed * 3 : seed * 3 + 5, :7] = 255
    return found


def truths(num: int) -> list[np.ndarray]:
    random = np.random.default_rng(9)
    first = np.kron(random.integers(0, 4, (7, 9)), np.ones((10, 10), int))
    found = [first]
    for number in range(1, num):
        after = found[-1].copy()
        after[10 * number : 10 * number + 15, 20:50] = 3
        found.append(after)
    return found


def write_date(
    folder: Path, name: str, shares: np.ndarray, *, legend: Legend = LEGEND, bands: tuple[str, ...] | None = None,
    date: str | None = None, origin: tuple[float, float] = ORIGIN, layer: bool = True, model: str = "m",
    crs: int = 32631,
) -> Path:  # fmt: skip
    """A finished map with its layer of probabilities, as predict leaves them."""
    grid, out = Grid(CRS.from_epsg(crs), from_origin(*origin, 10, 10), *shares.shape[1:]), folder / name
    index = np.where(shares[0] == 255, IGNORE, shares.argmax(0)).astype(np.uint8)
    plain = folder / "plain.tif"
    with RasterWriter(plain, grid, bands=["c"], dtype=legend.map_dtype, nodata=legend.map_nodata) as writer:
        writer.write(grid.window, legend.decode(index))
    finish_map(plain, out, legend, date=date, tags={"COVERMAP_MODEL": model})
    plain.unlink()
    if layer:
        bands = bands or legend.names
        with RasterWriter(plain, grid, bands=bands, dtype="uint8", nodata=255, scale=1 / 200) as writer:
            writer.write(grid.window, shares)
        finish_cog(plain, layer_beside(out, "probs"), nodata=255, description=bands, tags={"COVERMAP_MODEL": model})
        plain.unlink()
    return out


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def evidence(shares: np.ndarray) -> np.ndarray:
    """(K, H, W) in float64, nothing below what a layer's 0 stands for; rows of 1 where unknown."""
    return np.where(shares[:1] == 255, 1.0, np.maximum(shares / 200, ZERO))


def by_loop(shares: list[np.ndarray], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes before and after, and P(change), of all pairs: the plainest way."""
    one, other = (evidence(each) for each in shares)
    value = one[:, None] * other[None] * weights[:, :, None, None]
    flat = value.reshape(16, *value.shape[2:])
    best = flat.argmax(0)
    stays = np.einsum("kkhw->hw", value)
    change_p = 1 - stays / flat.sum(0)
    known = [each[0] != 255 for each in shares]
    change_p[~(known[0] & known[1])] = np.nan
    return np.where(known[0], best // 4, IGNORE), np.where(known[1], best % 4, IGNORE), change_p


@pytest.fixture
def pair(tmp_path: Path):
    shares = [shares_of(each, seed) for seed, each in enumerate(truths(2))]
    maps = [write_date(tmp_path, f"{n}.tif", each, date=f"20{20 + n}") for n, each in enumerate(shares)]
    return shares, maps


def table_of(prior: np.ndarray, path: Path) -> str:
    rows = [",".join(["before", *NAMES])]
    rows += [",".join([name, *map(str, row)]) for name, row in zip(NAMES, prior.tolist(), strict=True)]
    write_text(path, "\n".join(rows))
    return str(path)


T = np.array([[0.9, 0.06, 0.01, 0.03], [0.05, 0.85, 0.02, 0.08], [0.01, 0.02, 0.96, 0.01], [0.0, 0.01, 0.0, 0.99]])


@pytest.mark.parametrize("windows", [512, 32])
def test_a_pair_is_that_of_a_loop(pair, tmp_path: Path, monkeypatch, windows: int) -> None:
    monkeypatch.setattr(module, "_SIDE_PX", windows)
    monkeypatch.setattr(change_pair, "WINDOW_PX", (windows, windows))
    shares, maps = pair
    prior, out = table_of(T, tmp_path / "given.csv"), tmp_path / "out" / "change.tif"
    rules = ChangeRules(impossible=("field>town",))
    done = change(maps, out, rules=rules, probabilities=True, prior=prior)
    weights = T.copy()
    weights[1, 3] = 0
    before, after, p = by_loop(shares, weights)
    codes = np.array(LEGEND.codes)
    for name, index in (("change_before.tif", before), ("change_after.tif", after)):
        np.testing.assert_array_equal(read(out.with_name(name)), np.append(codes, 0)[np.minimum(index, 4)], name)
    said = read(out.with_name("change_probability.tif"))
    known = ~np.isnan(p)
    np.testing.assert_array_equal(said == 255, ~known)
    assert np.abs(said[known] - 100 * p[known]).max() <= 0.5 + 1e-3
    mapped = read(out)
    changed = known & (before != after)
    np.testing.assert_array_equal((mapped > 0) & (mapped < 65535), changed)
    found = done.pairs[0]
    assert found.set_aside["impossible transitions"].pixels.sum() == 0
    assert found.errors is not None
    assert found.errors.false_change == pytest.approx((1 - p[changed]).sum() * 0.01, rel=1e-5)
    assert found.errors.missed_change == pytest.approx(p[known & ~changed].sum() * 0.01, rel=1e-5)
    told = json.loads(out.with_name("change.json").read_text())
    if prior == "none":
        assert told["expected_errors"] is None
    else:
        assert told["expected_errors"]["false_ha"] == pytest.approx(found.errors.false_change)
        assert "are expected to be errors of the maps" in told["expected_errors"]["in_words"]
    alone = [np.where(each[0] == 255, 9, each.argmax(0)) for each in shares]
    assert told["decision"]["alone"]["pixels"]["changed_once"] == ((alone[0] != alone[1]) & known).sum() > changed.sum()
    again = TransitionPrior.read(out.with_name("prior.csv"), LEGEND)
    np.testing.assert_allclose(again.table[0], T[0] / T[0].sum(), atol=1e-5)
    assert again.table[1, 3] == 0
    assert {path for path in done.files if path.exists()} == set(done.files)
    assert {path.name for path in out.parent.iterdir()} == {path.name for path in done.files}
    with rasterio.open(out.with_name("change_after.tif")) as dataset:
        assert dataset.tags()["COVERMAP_DATE"] == "2021"
        assert json.loads(dataset.tags()["COVERMAP_HISTORY"])[0]["prior"] == prior
    item = json.loads(out.with_name("change.stac.json").read_text())
    assert "probability" in item["assets"]


def test_no_prior_is_each_date_alone(pair, tmp_path: Path) -> None:
    shares, maps = pair
    done = change(maps, tmp_path / "c.tif", probabilities=True)
    change(maps, tmp_path / "plain.tif")
    np.testing.assert_array_equal(read(tmp_path / "c.tif"), read(tmp_path / "plain.tif"))
    for path, of in zip((tmp_path / "c_before.tif", tmp_path / "c_after.tif"), maps, strict=True):
        np.testing.assert_array_equal(read(path), read(of))
    assert done.pairs[0].decision["prior"] == "none"
    assert done.pairs[0].expected_errors is None  # dates that tell nothing of each other: far off
    assert done.alone is None
    one, other = (evidence(each) for each in shares)
    one, other = one / one.sum(0), other / other.sum(0)
    p, said = 1 - (one * other).sum(0), read(tmp_path / "c_probability.tif")
    assert np.abs(said - 100 * p)[said != 255].max() <= 0.5 + 1e-3


def test_probabilities_without_a_temperature_are_not_trusted(covermap, pair, tmp_path: Path) -> None:
    maps = pair[1]
    for number, certain in enumerate((False, True)):
        if certain:
            for path in maps:
                with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
                    dataset.update_tags(COVERMAP_TEMPERATURE="1.7")
        out = tmp_path / str(number) / "change.tif"
        code, text, err = covermap("change", *maps, out, "--probabilities", "--prior", "estimate")
        assert code == 0, err
        told = json.loads(out.with_name("change.json").read_text())
        assert told["expected_errors"]["calibrated"] == certain
        assert f"{told['expected_errors']['missed_ha']:,.1f} ha of change not to be in the map" in " ".join(
            text.split()
        )
        for said in (" ".join(text.split()), " ".join(told["notes"])):
            assert ("not calibrated: P(change)" in said) != certain


def test_estimated_and_persistent_priors(pair, tmp_path: Path) -> None:
    maps = pair[1]
    rules = ChangeRules(impossible=("town>*",))
    done = change(maps, tmp_path / "c.tif", rules=rules, probabilities=True, prior="estimate")
    truth = truths(2)
    true_share = (truth[0] != truth[1]).mean()
    prior = TransitionPrior.read(tmp_path / "c.prior.csv", LEGEND)
    assert prior.table[3].tolist() == [0, 0, 0, 1]
    assert done.pairs[0].decision is not None
    assert done.pairs[0].decision["changed_by_prior"][0] == pytest.approx(true_share, abs=0.01)
    maps_alone = (read(maps[0]) != read(maps[1])).mean()
    assert done.pairs[0].scores["changed_share"] < 0.5 * maps_alone
    before = read(tmp_path / "c_before.tif")
    assert not ((before == 9) & (read(tmp_path / "c_after.tif") != 9) & (read(tmp_path / "c.tif") != 65535)).any()
    done = change(maps, tmp_path / "p.tif", probabilities=True, prior="0.95")
    assert done.pairs[0].decision["changed_by_prior"] == [pytest.approx(0.05, abs=1e-6)]
    # What a shift explains says nothing of the prior.
    strict = change(maps, tmp_path / "t.tif", rules=ChangeRules(tolerance=1), probabilities=True, prior="estimate")
    assert strict.pairs[0].decision["changed_by_prior"] != done.pairs[0].decision["changed_by_prior"]


def test_the_prior_that_is_written_decides_the_same(pair, tmp_path: Path) -> None:
    rules = ChangeRules(impossible=("town>*",))
    change(pair[1], tmp_path / "c.tif", rules=rules, probabilities=True, prior="estimate")
    change(pair[1], tmp_path / "d.tif", probabilities=True, prior=str(tmp_path / "c.prior.csv"))
    for layer in ("before", "after", "probability"):
        np.testing.assert_array_equal(read(tmp_path / f"c_{layer}.tif"), read(tmp_path / f"d_{layer}.tif"), layer)


def test_the_estimate_does_not_depend_on_windows(pair, tmp_path: Path, monkeypatch) -> None:
    maps, rules = pair[1], ChangeRules(tolerance=1, confidence=0.8, min_area="4px")
    change(maps, tmp_path / "a" / "change.tif", rules=rules, probabilities=True, prior="estimate")
    monkeypatch.setattr(module, "_SIDE_PX", 32)
    monkeypatch.setattr(change_pair, "WINDOW_PX", (16, 32))
    change(maps, tmp_path / "b" / "change.tif", rules=rules, probabilities=True, prior="estimate")
    for path in sorted((tmp_path / "a").iterdir()):
        if path.name != "change.json":
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_change_of_little_probability_is_set_aside(pair, tmp_path: Path) -> None:
    shares, maps = pair
    prior = table_of(T, tmp_path / "t.csv")
    rules = ChangeRules(confidence=0.9, goals=("town",))
    found = change(maps, tmp_path / "c.tif", rules=rules, probabilities=True, prior=prior).pairs[0]
    before, after, p = by_loop(shares, T)
    changed = ~np.isnan(p) & (before != after)
    unsure = changed & (p < 0.9)
    assert found.set_aside["probability of change below 0.9"].pixels.sum() == unsure.sum() > 0
    codes = read(tmp_path / "c.tif")
    np.testing.assert_array_equal((codes > 0) & (codes < 65535), changed & ~unsure & (after == 3))
    assert found.errors.false_change == pytest.approx((1 - p)[changed & ~unsure & (after == 3)].sum() * 0.01, rel=1e-5)


def test_errors_are_as_many_as_expected(tmp_path: Path) -> None:
    """Of calibrated probabilities: false and missed change in hectares, against the truth."""
    truth = [np.kron(each, np.ones((4, 4), int)) for each in truths(2)]
    maps = [write_date(tmp_path, f"{n}.tif", shares_of(each, n, 2.5)) for n, each in enumerate(truth)]
    found = change(maps, tmp_path / "c.tif", probabilities=True, prior="estimate").pairs[0]
    codes, really = read(tmp_path / "c.tif"), truth[0] != truth[1]
    known = codes != 65535
    false, missed = (codes > 0) & known & ~really, (codes == 0) & really
    assert found.errors is not None
    assert found.errors.false_change == pytest.approx(false.sum() * 0.01, rel=0.3)
    assert found.errors.missed_change == pytest.approx(missed.sum() * 0.01, rel=0.5)
    assert found.errors.known == pytest.approx(known.sum() * 0.01)


def test_a_confidence_that_layers_cannot_give_is_told(pair, tmp_path: Path) -> None:
    done = change(pair[1], tmp_path / "c.tif", rules=ChangeRules(confidence=1.0), probabilities=True, prior="estimate")
    assert any("no change of two dates can be more probable than" in note for note in done.notes)
    assert done.pairs[0].mapped.total["pixels"] == 0
    done = change(pair[1], tmp_path / "d.tif", rules=ChangeRules(confidence=0.5), probabilities=True, prior="estimate")
    assert not any("can be more probable" in note for note in done.notes)


def test_merges_sum_and_other_grids_are_laid_on_the_first(tmp_path: Path) -> None:
    """Four bands of 8 bits: GDAL takes the last one for alpha, here it is town."""
    shares = [shares_of(each, seed) for seed, each in enumerate(truths(2))]
    maps = [
        write_date(tmp_path, "a.tif", shares[0]),
        write_date(tmp_path, "b.tif", shares[1], origin=(500_004, 5_000_026)),
    ]
    prior = tmp_path / "p.yaml"
    prior.write_text("land: {land: 0.9, town: 0.1}\ntown: {land: 0.02, town: 0.98}\nwater: {water: 1}\n")
    rules = ChangeRules(merge=("land=forest,field",))
    change(maps, tmp_path / "c.tif", rules=rules, probabilities=True, prior=str(prior))
    rows, cols = np.arange(SHAPE[0]) + 3, np.arange(SHAPE[1])  # centres at +2.6 and -0.4 px of the other
    moved = np.full_like(shares[1], 255)
    inside = rows < SHAPE[0]
    moved[:, : inside.sum()] = shares[1][:, rows[inside]][:, :, cols]
    names = ("land", "water", "town")
    with rasterio.open(tmp_path / "c_before.tif") as dataset:
        legend = Legend.from_dict(json.loads(dataset.tags()["COVERMAP_LEGEND"]))
    order = [names.index(name) for name in legend.names]
    one, other = (np.stack([s[0] + s[1], s[2], s[3]])[order] for s in (shares[0].astype(int), moved.astype(int)))
    table = np.array([[0.9, 0, 0.1], [0, 1, 0], [0.02, 0, 0.98]])[np.ix_(order, order)]
    known = (shares[0][0] != 255) & (moved[0] != 255)
    value = np.maximum(one / 200, ZERO)[:, None] * np.maximum(other / 200, ZERO)[None] * table[:, :, None, None]
    best = value.reshape(9, *SHAPE).argmax(0)
    codes = np.array(legend.codes)
    np.testing.assert_array_equal(read(tmp_path / "c_before.tif")[known], codes[best // 3][known])
    np.testing.assert_array_equal(read(tmp_path / "c_after.tif")[known], codes[best % 3][known])
    np.testing.assert_array_equal(read(tmp_path / "c.tif") == 65535, ~known)


def test_another_crs_does_not_depend_on_windows(pair, write_tif, tmp_path: Path, monkeypatch) -> None:
    """The layer is read at the very pixels that the map is read at."""
    shares, (first, _) = pair
    other = write_date(tmp_path, "far.tif", shares[1], crs=32632, origin=(28_400, 5_017_600))
    made = []
    for side in (512, 16):
        monkeypatch.setattr(module, "_SIDE_PX", side)
        out = tmp_path / str(side) / "c.tif"
        found = change([first, other], out, probabilities=True, prior="none")
        made.append([read(out.with_name(f"c{part}.tif")) for part in ("", "_before", "_after", "_probability")])
    for whole, parts in zip(*made, strict=True):
        np.testing.assert_array_equal(whole, parts)
    plain = change([first, other], tmp_path / "plain.tif").pairs[0]
    assert plain.counted.pixels[:-1, :-1].sum() == found.pairs[0].counted.pixels[:-1, :-1].sum() > 1000
    index = plain.pair.read(plain.pair.grid.window)[1]
    assert (np.append(LEGEND.codes, 0)[np.minimum(index, 4)] == made[0][2])[made[0][0] != 65535].mean() > 0.98


@pytest.mark.parametrize("windows", [512, 32])
def test_three_dates_are_the_best_of_all_sequences(tmp_path: Path, monkeypatch, windows: int) -> None:
    monkeypatch.setattr(module, "_SIDE_PX", windows)
    shares = [shares_of(each, seed, 2.5) for seed, each in enumerate(truths(3))]
    maps = [write_date(tmp_path, f"{n}.tif", each) for n, each in enumerate(shares)]
    rules = ChangeRules(impossible=("water>forest",))
    prior = table_of(T, tmp_path / "t.csv")
    done = change(maps, tmp_path / "out", rules=rules, probabilities=True, prior=prior)
    joint = 0.25 * T.copy()
    joint[2, 0] = 0
    joint /= joint.sum()
    table = joint / joint.sum(1, keepdims=True)
    seen = [evidence(each) for each in shares]
    sequences = np.array(list(product(range(4), repeat=3)))
    value = np.stack([
        joint.sum(1)[s[0]] * np.prod([table[a, b] for a, b in pairwise(s)]) * np.prod([e[c] for e, c in zip(seen, s, strict=True)], 0)
        for s in sequences
    ])  # fmt: skip
    best, codes = sequences[value.argmax(0)], np.append(np.array(LEGEND.codes), 0)
    known = [each[0] != 255 for each in shares]
    for number in range(3):
        of = read(tmp_path / "out" / f"date_{number + 1}.tif")
        np.testing.assert_array_equal(of, np.where(known[number], codes[best[..., number]], 0))
    value /= value.sum(0)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        p = value[sequences[:, a] != sequences[:, b]].sum(0)
        said = read(tmp_path / "out" / f"change_{a + 1}_{b + 1}_probability.tif")
        both = known[a] & known[b]
        np.testing.assert_array_equal(said == 255, ~both)
        assert np.abs(said[both] - 100 * p[both]).max() <= 0.61
    told = json.loads((tmp_path / "out" / "series.json").read_text())
    assert told["decision"]["alone"]["flicker"] > 3 * told["rates"]["flicker"]
    assert told["decision"]["alone"]["impossible"] > told["rates"]["impossible"] == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"change_1_2.prior.csv", "change_2_3.prior.csv"} <= names
    assert "change_1_3.prior.csv" not in names
    assert names == {path.name for path in done.files}


def test_what_is_refused(pair, write_tif, tmp_path: Path) -> None:
    shares, (a, b) = pair
    out = tmp_path / "out" / "c.tif"
    lone = write_date(tmp_path, "lone.tif", shares[1], layer=False)
    with pytest.raises(DataError, match=r"lone_probs\.tif is missing") as caught:
        change([a, lone], out, probabilities=True)
    assert "predict MODEL IMAGE MAP.tif --probabilities" in caught.value.fix
    other = write_date(tmp_path, "names.tif", shares[1], bands=("forest", "field", "water", "city"))
    with pytest.raises(DataError, match="has probabilities of forest, field, water, city"):
        change([a, other], out, probabilities=True)
    moved = write_date(tmp_path, "moved.tif", shares[1], layer=False)
    far = write_date(tmp_path, "far.tif", shares[1], origin=(500_100, 5_000_000))
    layer_beside(far, "probs").rename(layer_beside(moved, "probs"))
    with pytest.raises(DataError, match="belongs to another map than"):
        change([a, moved], out, probabilities=True)
    floats = write_date(tmp_path, "floats.tif", shares[1], layer=False, model="m")
    path = write_tif("floats_probs.tif", shares[1] / np.float32(200), bands=NAMES)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(COVERMAP_MODEL="m")
    with pytest.raises(DataError, match="8-bit steps of 1 / 200"):
        change([a, floats], out, probabilities=True)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("before,forest,lake\nforest,0.5,0.5\nlake,0,1\n")
    with pytest.raises(LabelError, match="no class 'lake'"):
        change([a, b], out, probabilities=True, prior=str(wrong))
    wrong.write_text("before,forest,field\nforest,0.5,0.5\nfield,0,1\n")
    with pytest.raises(ConfigError, match="not one row for each class of mine: water, town"):
        change([a, b], out, probabilities=True, prior=str(wrong))
    with pytest.raises(ConfigError, match=r"there is no file .*none\.csv"):
        change([a, b], out, probabilities=True, prior=str(tmp_path / "none.csv"))
    wrong.write_text("what")
    with pytest.raises(ConfigError, match="not one row for each class"):
        change([a, b], out, probabilities=True, prior=str(wrong))
    wrong.write_text("from \\ to,class 1,class 2,total\nclass 1,5,1,6\nclass 2,0,4,4\ntotal,5,5,10\n")
    with pytest.raises(LabelError, match=r"by number only \(class 1\)") as caught:
        change([a, b], out, probabilities=True, prior=str(wrong))
    assert "--legend FILE.yaml" in caught.value.fix
    for text in ("estimat", "1.5", "0", "nan", "-1"):
        with pytest.raises(ConfigError, match=r"is no prior|stays cannot be"):
            change([a, b], out, probabilities=True, prior=text)
    for value in (0, 1.5, -0.1, float("nan"), 80):
        with pytest.raises(ConfigError, match="is no probability"):
            ChangeRules(confidence=value)
    for more in ({"prior": "0.9"}, {"rules": ChangeRules(confidence=0.8)}):
        with pytest.raises(ConfigError, match="maps are compared as they are"):
            change([a, b], out, **more)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_what_is_read_is_not_written_over(pair, tmp_path: Path) -> None:
    maps = pair[1]
    prior = table_of(T, tmp_path / "c.prior.csv")
    for out, more in ((maps[0], {}), (layer_beside(maps[1], "probs"), {}), (tmp_path / "c.tif", {"prior": prior})):
        with pytest.raises(OutputError, match="is an input of this call"):
            change(maps, out, probabilities=True, overwrite=True, **more)


def test_a_plain_map_leaves_nothing_of_a_joint_one(pair, tmp_path: Path) -> None:
    out = tmp_path / "out" / "c.tif"
    change(pair[1], out, probabilities=True, prior="estimate")
    plain = {path.name for path in change(pair[1], tmp_path / "plain" / "c.tif").files}
    inputs = [out.with_name("c_before.tif"), out.with_name("c_after.tif")]
    change(inputs, out, overwrite=True)
    there = {path.name for path in out.parent.iterdir()}
    assert {"c_before.tif", "c_after.tif", "c_before.qml"} < there
    change(pair[1], out, overwrite=True)
    assert {path.name for path in out.parent.iterdir()} == plain
    own = out.with_name("c_before.tif")  # by another hand
    own.write_bytes(pair[1][0].read_bytes())
    out.with_name("c.prior.csv").write_text("mine")
    change(pair[1], out, overwrite=True)
    assert {path.name for path in out.parent.iterdir()} == plain | {"c_before.tif", "c.prior.csv"}


def test_binary_maps_of_a_question(covermap, pair, tmp_path: Path) -> None:
    maps = pair[1]
    options = ("--probabilities", "--prior", "estimate", "--binary", "--to", "town", "--tolerance", "1")
    options = (*options, "--confidence", "0.7")
    code, out, err = covermap("change", *maps, tmp_path / "b.tif", *options)
    assert code == 0, err
    for words in ("expected errors: of the", "maps on their own", "decided together", "b_probability.tif"):
        assert words in " ".join(out.split()), words
    assert set(np.unique(read(tmp_path / "b.tif"))) <= {0, 1, 2}
    code, out, _ = covermap("change", *maps, tmp_path / "d.tif", *options, "--json")
    assert code == 0
    assert json.loads(out)["decision"]["prior"] == "estimate"
    code, _, err = covermap("change", *maps, tmp_path / "b.tif", *options)
    assert code == 1
    assert "exists already" in err
    # A plain map of the name leaves no layer of the former one.
    code, _, _ = covermap("change", *maps, tmp_path / "b.tif", "--overwrite")
    assert code == 0
    assert not (tmp_path / "b_probability.tif").exists()


def test_ground_without_a_counterpart_stays_unknown(pair, tmp_path: Path) -> None:
    """Of water no class is made by what little is left of others; it is told as of maps alone."""
    shares, maps = pair
    classes = "{forest: Forest land, field: Cropland, water: null, town: Settlements}"
    own = tmp_path / "own.yaml"
    legend = ", ".join(f"{{code: {c.code}, name: {c.name}, color: '{c.colour}'}}" for c in LEGEND.classes)
    own.write_text(f"from: {{name: mine, classes: [{legend}]}}\nto: ipcc\nclasses: {classes}\n")
    way = {"target": "ipcc", "crosswalks": [own]}
    done = change(maps, tmp_path / "c.tif", probabilities=True, prior="none", **way)
    for path, of in zip((tmp_path / "c_before.tif", tmp_path / "c_after.tif"), shares, strict=True):
        lost = (of.argmax(0) == 2) & (of[0] != 255)
        np.testing.assert_array_equal(read(path) == 0, lost | (of[0] == 255))
    plain = change(maps, tmp_path / "p.tif", **way)
    told, alone = done.to_dict(), plain.to_dict()
    assert [row["name"] for row in told["no_counterpart"]["before"]] == ["water"]
    assert told["no_counterpart"] == alone["no_counterpart"]
    said = [note for note in alone["notes"] if "without counterpart" in note]
    assert len(said) == 1
    assert said[0] in told["notes"]
