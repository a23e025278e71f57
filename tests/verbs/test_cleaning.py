"""`sieve` and `smooth`: finished maps again, with what was done and what area changed; and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from scipy import ndimage

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, CovermapError, DataError, LabelError, OutputError
from covermap.core.legend import IGNORE, Legend
from covermap.core.train_config import PredictConfig
from covermap.geo.grid import Grid
from covermap.geo.products import LAYERS, finish_cog, finish_map, layer_beside, legend_of_map
from covermap.geo.smoothing import gaussian
from covermap.geo.writer import RasterWriter
from covermap.verbs import changed_map
from covermap.verbs import smooth as smooth_
from covermap.verbs.polygonize import polygonize
from covermap.verbs.predict import predict
from covermap.verbs.rank import rank
from covermap.verbs.sieve import sieve
from covermap.verbs.smooth import smooth
from covermap.verbs.train import train

LEGEND = Legend.from_dict(
    {"name": "four", "classes": [{"code": c, "name": n} for c, n in ((10, "tree"), (30, "grass"), (40, "crop"), (80, "water"))]}
)  # fmt: skip
WIDE = Legend.from_dict({"name": "wide", "classes": [{"code": c, "name": f"c{c}"} for c in (111, 311, 312, 512)]})
METRES = Affine(10, 0, 4e5, 0, -10, 5e6)


def likely(height: int = 90, width: int = 110, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (4, H, W) of noisy patches, and the index of the highest, IGNORE in one corner."""
    rng = np.random.default_rng(seed)
    score = ndimage.gaussian_filter(rng.normal(size=(4, height, width)), (0, 5, 5))
    score = 3 * score / score.std() + rng.normal(size=score.shape)
    shares = np.exp(score) / np.exp(score).sum(0)
    index = shares.argmax(0).astype(np.uint8)
    index[:20, :30] = IGNORE
    return shares, index


def make(
    folder: Path, name: str = "map.tif", *, legend: Legend = LEGEND, crs: int = 32633, transform: Affine = METRES,
    model: str = "m", seed: int = 0, probs: bool = False,
) -> tuple[Path, np.ndarray]:  # fmt: skip
    """A finished map as predict leaves it, with its probabilities if wanted; its path and class indices."""
    shares, index = likely(seed=seed)
    grid = Grid(CRS.from_epsg(crs), transform, *index.shape)
    plain, out = folder / "plain.tif", folder / name
    with RasterWriter(plain, grid, bands=["c"], dtype=legend.map_dtype, nodata=legend.map_nodata) as writer:
        writer.write(grid.window, legend.decode(index))
    finish_map(plain, out, legend, date="2021-06-01", tags={"COVERMAP_MODEL": model})
    plain.unlink()
    if probs:
        with RasterWriter(plain, grid, bands=legend.names, dtype="uint8", nodata=255, scale=1 / 200) as writer:
            writer.write(grid.window, np.where(index == IGNORE, 255, np.rint(shares * 200)).astype(np.uint8))
        finish_cog(
            plain, layer_beside(out, "probs"), nodata=255, description=legend.names, tags={"COVERMAP_MODEL": model}
        )
        plain.unlink()
    return out, index


def codes_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def tags_of(path: Path) -> dict[str, str]:
    with rasterio.open(path) as dataset:
        return dataset.tags()


@pytest.mark.parametrize(("legend", "crs", "transform"), [
    (LEGEND, 32633, METRES), (WIDE, 32633, METRES), (LEGEND, 4326, Affine(1e-4, 0, 10, 0, -1e-4, 55)),
])  # fmt: skip
@pytest.mark.parametrize("step", [["sieve", "--min-area", "0.2ha"], ["smooth", "--radius", "2"]])
def test_a_step_gives_a_whole_map_and_says_what_area_changed(covermap, tmp_path, step, legend, crs, transform) -> None:
    source, index = make(tmp_path, legend=legend, crs=crs, transform=transform)
    out = tmp_path / "sub" / "clean.tif"
    code, text, err = covermap(step[0], source, out, *step[1:], "--json")
    assert code == 0, err
    done = json.loads(text)
    with rasterio.open(source) as before, rasterio.open(out) as after:
        old, new, areas = (
            before.read(1),
            after.read(1),
            Grid(before.crs, before.transform, *before.shape).row_areas_ha(),
        )
        assert (after.nodata, after.dtypes, after.crs, after.transform) == (before.nodata, before.dtypes, before.crs, before.transform)  # fmt: skip
        assert after.colormap(1) == before.colormap(1)
        tags = after.tags()
    assert legend_of_map(out) == legend
    assert ((new == legend.map_nodata) == (index == IGNORE)).all()
    assert {Path(file).name for file in done["files"]} == {path.name for path in out.parent.iterdir()} == {
        "clean.tif", "clean.tif.aux.xml", "clean.tif.vat.dbf", "clean.qml", "clean.clr", "clean.areas.csv", "clean.stac.json", "clean.changed.csv",
    }  # fmt: skip
    (history,) = json.loads(tags["COVERMAP_HISTORY"])
    assert (history["step"], history["from"]) == (step[0], "map.tif")
    assert tags["COVERMAP_MODEL"] == "m"
    item = json.loads((out.parent / "clean.stac.json").read_text())
    assert item["properties"]["datetime"].startswith("2021-06-01")
    assert [link["href"] for link in item["links"] if link["rel"] == "derived_from"] == ["map.tif"]
    # Areas counted here by pixels, in the printed result and in the table.
    ground = np.broadcast_to(np.array(areas)[:, None], old.shape)
    changed = (ground * (old != new)).sum()
    assert changed > 0
    assert done["changed"]["changed_ha"] == history["changed_ha"] == pytest.approx(changed, abs=1e-3)
    assert done["changed"]["share"] == pytest.approx(changed / ground[index != IGNORE].sum(), abs=1e-5)
    with open(out.parent / "clean.changed.csv") as file:
        table = list(csv.DictReader(file))
    for row, listed, each in zip(table, done["changed"]["classes"], legend.classes, strict=True):
        want = {
            "before_ha": ground[old == each.code].sum(), "after_ha": ground[new == each.code].sum(),
            "gained_ha": ground[(new == each.code) & (old != each.code)].sum(),
            "lost_ha": ground[(new != each.code) & (old == each.code)].sum(),
        }  # fmt: skip
        assert (row["step"], row["class"], int(row["code"])) == (step[0], each.name, each.code)
        for key, value in want.items():
            assert listed[key] == float(row[key]) == pytest.approx(value, abs=1e-3)


def test_results_are_printed_as_a_table(covermap, tmp_path) -> None:
    source, _ = make(tmp_path)
    code, text, err = covermap("sieve", source, tmp_path / "o.tif", "--min-area", "9px", "-q")
    assert code == 0, err
    assert err == ""
    assert "gained_ha" in text
    assert "sieve changed" in text
    assert "note:" not in text
    code, _, err = covermap("sieve", source, tmp_path / "o.tif", "--min-area", "9px")
    assert code == 1
    assert "exists already" in err
    before = (tmp_path / "o.tif").read_bytes()
    code, text, err = covermap("sieve", source, tmp_path / "o.tif", "--min-area", "9px", "--overwrite")
    assert code == 0, err
    assert "patches were smaller than 9px" in text
    assert (tmp_path / "o.tif").read_bytes() == before


def test_steps_follow_each_other_and_the_map_keeps_them_all(tmp_path) -> None:
    source, _ = make(tmp_path)
    smooth(source, tmp_path / "a.tif", radius=1)
    done = sieve(tmp_path / "a.tif", tmp_path / "b.tif", min_area="20px", connectivity=8)
    steps = json.loads(tags_of(tmp_path / "b.tif")["COVERMAP_HISTORY"])
    assert [(each["step"], each["from"]) for each in steps] == [("smooth", "map.tif"), ("sieve", "a.tif")]
    assert steps[1]["connectivity"] == 8
    assert done.changed.changed_ha == pytest.approx(
        (codes_of(tmp_path / "a.tif") != codes_of(tmp_path / "b.tif")).sum() / 100
    )


@pytest.mark.parametrize("mode", ["majority", "probabilities"])
def test_smoothing_does_not_depend_on_strips(tmp_path, monkeypatch, mode) -> None:
    source, _ = make(tmp_path, probs=True)
    smooth(source, tmp_path / "a.tif", mode=mode, radius=3)
    monkeypatch.setattr(smooth_, "STRIP_PX", 110 * 2)
    ticks = []
    smooth(source, tmp_path / "b.tif", mode=mode, radius=3, on_progress=lambda *at: ticks.append(at))
    assert ticks[-1] == (45, 45)
    np.testing.assert_array_equal(codes_of(tmp_path / "a.tif"), codes_of(tmp_path / "b.tif"))


def test_smoothed_probabilities_decide_as_a_gaussian_of_them_does(tmp_path) -> None:
    source, index = make(tmp_path, probs=True)
    smooth(source, tmp_path / "a.tif", mode="probabilities", radius=4)
    with rasterio.open(tmp_path / "probs.tif") as dataset:
        shares = dataset.read().astype(float)
    shares[:, index == IGNORE] = 0
    weights = gaussian(4)
    for axis in (1, 2):
        shares = ndimage.correlate1d(shares, weights, axis=axis, mode="constant")
    two = np.sort(shares, axis=0)[-2:]
    sure = (two[1] > two[0]) & (index != IGNORE)
    assert sure.mean() > 0.9
    want = LEGEND.decode(shares.argmax(0).astype(np.uint8))
    np.testing.assert_array_equal(codes_of(tmp_path / "a.tif")[sure], want[sure])
    assert (codes_of(tmp_path / "a.tif")[index == IGNORE] == 0).all()


def test_bands_of_the_layer_are_known_by_name(tmp_path) -> None:
    source, _ = make(tmp_path, probs=True)
    smooth(source, tmp_path / "a.tif", mode="probabilities")
    with rasterio.open(tmp_path / "probs.tif") as dataset:
        values, profile, names, tags = dataset.read(), dataset.profile, dataset.descriptions, dataset.tags()
    with rasterio.open(tmp_path / "probs.tif", "w", **{**profile, "driver": "GTiff"}) as dataset:
        dataset.write(values[::-1])
        dataset.descriptions = names[::-1]
        dataset.update_tags(**tags)
    smooth(source, tmp_path / "b.tif", mode="probabilities")
    np.testing.assert_array_equal(codes_of(tmp_path / "a.tif"), codes_of(tmp_path / "b.tif"))


def test_a_map_of_a_trained_model_is_smoothed_by_its_probabilities(tiny, tmp_path) -> None:
    run = train(parse_config(tiny)).folder
    settings = PredictConfig(size_px=32, workers=1, probabilities=True)
    predict(run / "model", [ImageConfig(path=tiny["data"]["image"])], tmp_path / "map.tif", settings=settings)
    done = smooth(tmp_path / "map.tif", tmp_path / "smooth.tif", mode="probabilities", radius=2)
    assert done.summary.num_pixels != (0, 0, 0)
    assert tags_of(tmp_path / "smooth.tif")["COVERMAP_MODEL"] == tags_of(tmp_path / "map.tif")["COVERMAP_MODEL"]
    assert any("does not say of which date" in note for note in done.notes)


def test_probabilities_that_are_missing_or_not_of_this_map_are_refused(tmp_path) -> None:
    def refused(source: Path, words: str) -> None:
        with pytest.raises(DataError, match=words):
            smooth(source, tmp_path / "out.tif", mode="probabilities")
        assert not list(tmp_path.glob("*out*"))

    def beside(source: Path, name: str, **other: object) -> Path:
        """A map without a layer of its own gets that of another."""
        folder = tmp_path / name
        folder.mkdir()
        wrong, _ = make(folder, probs=True, **other)
        layer_beside(wrong, "probs").rename(layer_beside(source, "probs"))
        return source

    lone, _ = make(tmp_path, "lone.tif")
    refused(lone, r"no probabilities beside .*lone\.tif: .*lone_probs\.tif is missing")
    refused(beside(lone, "a", transform=Affine(10, 0, 4.1e5, 0, -10, 5e6)), "belongs to another map")
    other = Legend.from_dict({"name": "x", "classes": [{"code": c, "name": n} for c, n in ((10, "tree"), (30, "grass"), (40, "crop"), (80, "sea"))]})  # fmt: skip
    refused(beside(lone, "b", legend=other), "has probabilities of tree, grass, crop, sea, .* has the classes")
    refused(beside(lone, "c", model="n"), "by another model")
    refused(beside(lone, "d", seed=5), "does not belong to .*: at row")
    layer_beside(lone, "probs").write_text("no raster")
    refused(lone, "is not a raster that can be read")
    # A map that a step has changed has not the classes of its probabilities any more.
    source, _ = make(tmp_path, probs=True)
    sieve(source, tmp_path / "s.tif", min_area="9px")
    (tmp_path / "probs.tif").rename(tmp_path / "s_probs.tif")
    refused(tmp_path / "s.tif", "does not belong to")


def test_a_foreign_map_keeps_its_nodata_and_its_own_codes(tmp_path, write_tif) -> None:
    codes = np.full((20, 30), 3, np.uint8)
    codes[:, 15:] = 7
    codes[5, 5], codes[8, 20], codes[12, 12] = 9, 0, 255
    source = write_tif("foreign.tif", codes, nodata=255)
    done = sieve(source, tmp_path / "out.tif", min_area="2px")
    want = codes.copy()
    want[5, 5], want[8, 20] = 3, 7
    np.testing.assert_array_equal(codes_of(tmp_path / "out.tif"), want)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata == 255
    # Classes that have lost their last pixel stay in the legend.
    assert legend_of_map(tmp_path / "out.tif").codes == (0, 3, 7, 9)
    assert [row["after_ha"] for row in done.changed.rows] == [0, 2.99, 3, 0]
    assert not (tmp_path / "out.stac.json").exists()


def test_a_patch_in_nodata_stays_and_is_counted(tmp_path, write_tif) -> None:
    codes = np.zeros((20, 20), np.uint8)
    codes[:8] = 1
    codes[12:14, 12:15] = 2
    codes[13, 13] = 1
    done = sieve(write_tif("m.tif", codes, nodata=0), tmp_path / "o.tif", min_area="9px")
    got = codes_of(tmp_path / "o.tif")
    assert (got[12:14, 12:15] == 2).all()
    np.testing.assert_array_equal(got == 0, codes == 0)
    assert any(note.startswith("1 are so even with all that they touch") for note in done.notes)


def test_a_map_without_a_pixel_of_a_class_stays_so(tmp_path) -> None:
    grid = Grid(CRS.from_epsg(32633), METRES, 30, 30)
    with RasterWriter(tmp_path / "p.tif", grid, bands=["c"], dtype="uint8", nodata=0) as writer:
        writer.write(grid.window, np.zeros((30, 30), np.uint8))
    finish_map(tmp_path / "p.tif", tmp_path / "map.tif", LEGEND)
    for done in (sieve(tmp_path / "map.tif", tmp_path / "a.tif", min_area="9px"), smooth(tmp_path / "map.tif", tmp_path / "b.tif")):  # fmt: skip
        assert (done.changed.changed_ha, done.changed.share) == (0, 0)
        assert (codes_of(done.summary.path) == 0).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"radius": 0}, ConfigError, "radius of 0 px smoothes nothing"),
        ({"mode": "mean"}, ConfigError, "no mode 'mean'"),
        ({"out": "map.tif"}, OutputError, "is an input of this call"),
        ({"out": "map.tiff"}, OutputError, "map.qml is an input of this call"),
        ({"out": "out.png"}, OutputError, "does not end in .tif"),
        ({"source": "none.tif"}, DataError, "there is no file"),
        ({"source": "probs.tif"}, CovermapError, "bands; labels are one band"),
        ({"source": "confidence.tif"}, DataError, "numbers that a model gave"),
        ({"source": "odd.tif"}, LabelError, "no class codes"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(tmp_path, write_tif, call, error, words) -> None:
    make(tmp_path, probs=True)
    write_tif("odd.tif", np.full((20, 20), 0.5, np.float32))
    write_tif("one.tif", np.full((20, 20), 50, np.uint8), nodata=255)
    finish_cog(tmp_path / "one.tif", tmp_path / "confidence.tif", nodata=255, description="c", tags={"COVERMAP_MODEL": "m"})  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = {"source": "map.tif", "out": "out.tif", **call}
    source, out = tmp_path / given.pop("source"), tmp_path / given.pop("out")
    with pytest.raises(error, match=words):
        smooth(source, out, overwrite=True, **given)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_step_that_fails_leaves_nothing(tmp_path, monkeypatch, covermap) -> None:
    source, _ = make(tmp_path)
    before = set(tmp_path.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(changed_map, "finish_map", full)
    for step in (["sieve", "--min-area", "9px"], ["smooth"]):
        code, _, err = covermap(step[0], source, tmp_path / "out.tif", *step[1:])
        assert code == 1
        assert "the disk is full" in err
        assert set(tmp_path.iterdir()) == before


def test_places_are_not_ranked_by_the_confidence_of_classes_that_a_step_has_changed(tmp_path, write_tif) -> None:
    two = Legend.from_dict({1: "dry", 2: "flood"})
    codes = np.ones((40, 40), np.uint8)
    codes[10:30, 10:30] = 2
    codes[3, 3] = 2
    plain = write_tif("plain.tif", codes, nodata=0)
    finish_map(plain, tmp_path / "map.tif", two, tags={"COVERMAP_MODEL": "m"})
    sieve(tmp_path / "map.tif", tmp_path / "b.tif", min_area="4px")
    for name in ("map.tif", "b.tif"):
        layer = write_tif("layer.tif", np.full((40, 40), 90, np.uint8), nodata=255)
        finish_cog(layer, layer_beside(tmp_path / name, "confidence"), nodata=255, description="c", tags={"COVERMAP_MODEL": "m"})  # fmt: skip
    assert "expected_ha" in rank(tmp_path / "map.tif", tmp_path / "a.csv", classes=["flood"]).rows[0]
    assert "expected_ha" not in rank(tmp_path / "b.tif", tmp_path / "c.csv", classes=["flood"]).rows[0]


def folder_of_tiles(
    folder: Path, *, legends: tuple[dict[int, str], ...] = ({1: "Water", 2: "Forest"},) * 2, **tags: list[str]
) -> Path:
    """Two finished maps side by side, 10 x 10 px each."""
    folder.mkdir(parents=True)
    for number, legend in enumerate(legends):
        grid = Grid(CRS.from_epsg(32633), METRES @ Affine.translation(10 * number, 0), 10, 10)
        found = Legend.from_dict(
            {"name": "own", "nodata": 0, "classes": [{"code": c, "name": n} for c, n in legend.items()]}
        )
        plain = folder / "plain"
        with RasterWriter(plain, grid, bands=["c"], dtype="uint8", nodata=0) as writer:
            codes = np.ones((10, 10), np.uint8)
            codes[3, 3] = 2
            writer.write(grid.window, codes)
        finish_map(
            plain, folder / f"{'ab'[number]}.tif", found, tags={key: values[number] for key, values in tags.items()}
        )
        plain.unlink()
    return folder


@pytest.mark.parametrize(("given", "error", "words"), [
    ({"legends": ({1: "Water", 2: "Forest"}, {1: "Forest", 2: "Water"})}, LabelError, "not of one legend"),
    ({"COVERMAP_MODEL": ["m", "n"]}, DataError, "not by one model"),
    ({"COVERMAP_HISTORY": ['[{"step": "sieve", "min_area": "4px"}]', "[]"]}, DataError, "by the same steps"),
])  # fmt: skip
def test_maps_that_are_no_tiles_of_one_are_refused(tmp_path, given, error, words) -> None:
    folder = folder_of_tiles(tmp_path / "maps", **given)
    with pytest.raises(error, match=rf"a\.tif and .*b\.tif .*{words}"):
        sieve(folder, tmp_path / "o.tif", min_area="4px")


def test_tiles_share_what_is_true_of_all(tmp_path) -> None:
    steps = ['[{"step": "smooth", "radius_px": 1, "from": "x.tif", "changed_ha": 1}]',
             '[{"step": "smooth", "radius_px": 1, "from": "y.tif", "changed_ha": 2}]']  # fmt: skip
    folder = folder_of_tiles(
        tmp_path / "maps", COVERMAP_MODEL=["m", "m"], COVERMAP_DATE=["2020", "2021"], COVERMAP_HISTORY=steps
    )
    done = sieve(folder, tmp_path / "o.tif", min_area="4px")
    tags = tags_of(tmp_path / "o.tif")
    first, second = json.loads(tags["COVERMAP_HISTORY"])
    assert first == {"step": "smooth", "radius_px": 1}
    assert second["from"] == "maps"
    assert tags["COVERMAP_MODEL"] == "m"
    assert "COVERMAP_DATE" not in tags
    assert not any("VRT" in note for note in done.notes)


@pytest.mark.parametrize("out", ["maps/a.tif", "maps/b.tiff"])
@pytest.mark.parametrize("step", [["sieve", "--min-area", "4px"], ["smooth"]])
def test_a_tile_of_a_folder_is_not_written_over(covermap, tmp_path, step, out) -> None:
    folder = folder_of_tiles(tmp_path / "maps")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    code, _, err = covermap(step[0], folder, tmp_path / out, *step[1:], "--overwrite")
    assert code == 1
    assert "is an input of this call" in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_polygons_do_not_take_the_style_of_a_tile(tmp_path) -> None:
    folder = folder_of_tiles(tmp_path / "maps")
    with pytest.raises(OutputError, match=r"a\.qml is an input of this call"):
        polygonize(folder, folder / "a.gpkg", overwrite=True)


def test_a_folder_of_maps_is_smoothed_by_classes_only(tmp_path) -> None:
    folder = folder_of_tiles(tmp_path / "maps")
    with pytest.raises(DataError, match=r"maps is a folder of maps: .* one by one"):
        smooth(folder, tmp_path / "o.tif", mode="probabilities")


def test_a_folder_of_maps_is_ranked_as_one(tmp_path) -> None:
    done = rank(folder_of_tiles(tmp_path / "maps"), tmp_path / "o.csv", classes=["Forest"], side_px=10)
    assert [(row["row"], row["col"], row["pixels"]) for row in done.rows] == [(0, 0, 1), (0, 10, 1)]


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_beside_a_map_of_a_folder_are_left_out(tmp_path, layer) -> None:
    folder = folder_of_tiles(tmp_path / "maps")
    plain = tmp_path / "plain.tif"
    grid = Grid(CRS.from_epsg(32633), METRES, 10, 10)
    with RasterWriter(plain, grid, bands=["x"], dtype="float32") as writer:
        writer.write(grid.window, np.zeros((10, 10), np.float32))
    plain.rename(layer_beside(folder / "a.tif", layer))
    assert sieve(folder, tmp_path / "o.tif", min_area="4px").summary.num_pixels == (200, 0)


def test_a_changed_map_has_the_hash_of_its_own_codes(tmp_path) -> None:
    source, _ = make(tmp_path)
    sieve(source, tmp_path / "o.tif", min_area="9px")
    want = hashlib.sha256(codes_of(tmp_path / "o.tif").tobytes()).hexdigest()
    assert tags_of(tmp_path / "o.tif")["COVERMAP_CONTENT"] == f"sha256:{want}"


def test_a_real_map_of_another_maker_is_sieved(shared, tmp_path) -> None:
    source = shared / "data" / "corine_vaud" / "ls100_06.tif"
    done = sieve(source, tmp_path / "clean.tif", min_area="25ha")
    old, new = codes_of(source), codes_of(tmp_path / "clean.tif")
    assert ((old == 255) == (new == 255)).all()
    with rasterio.open(source) as dataset:
        pixel_ha = abs(dataset.transform.determinant) / 1e4
    assert done.changed.changed_ha == pytest.approx((old != new).sum() * pixel_ha)
    sizes = [np.bincount(ndimage.label(new == code)[0].ravel())[1:] for code in np.unique(new[new != 255])]
    # CORINE's own unit is 25 ha: only at the cut border of the region may patches be smaller.
    assert (np.concatenate(sizes) * pixel_ha < 25).sum() <= 1
