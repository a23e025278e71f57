"""A map beside another one: against brute force, in any CRS and pixel size, with crosswalks; and refusals."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from pyproj import Geod, Transformer

from covermap.core.errors import ConfigError, DataError, GridError, LabelError, OutputError
from covermap.core.legend import load_legend
from covermap.geo.grid import Grid
from covermap.verbs import compare as module
from covermap.verbs.compare import compare

COVER = np.array(load_legend("esa_worldcover").codes, np.uint8)
WORLD = np.array(load_legend("dynamic_world").codes, np.uint8)


def patches(codes: np.ndarray, shape: tuple[int, int], seed: int, side: int = 7) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, len(codes), (shape[0] // side + 1, shape[1] // side + 1))
    return codes[np.kron(coarse, np.ones((side, side), int))[: shape[0], : shape[1]]]


def brute(first: np.ndarray, other: np.ndarray, one: dict[int, int], two: dict[int, int], codes: tuple[int, ...]):
    """Pixels (K, K) by a loop over classes; -1 and what the tables lack is nothing."""
    left, right = (np.vectorize(lambda c, t=t: t.get(int(c), -1))(m) for m, t in ((first, one), (other, two)))
    return np.array([[int(((left == a) & (right == b)).sum()) for b in codes] for a in codes])


def test_worldcover_and_dynamic_world_on_one_grid(write_tif, monkeypatch) -> None:
    monkeypatch.setattr(module, "WINDOW_PX", 32)  # many windows, the last ones cut
    first, other = patches(COVER, (90, 70), 1), patches(WORLD, (90, 70), 2, side=5)
    first[:10], other[:, :4] = 0, 255
    paths = write_tif("map.tif", first, nodata=0), write_tif("dw.tif", other, nodata=255)
    found = compare(*paths, legend="esa_worldcover", other_legend="dynamic_world")
    to = {10: 1, 20: 5, 30: 2, 40: 4, 50: 6, 60: 7, 70: 8, 80: 0, 90: 3}
    expected = brute(first, other, to, {k: k for k in range(9)}, tuple(range(9)))
    np.testing.assert_array_equal(found.matrix_px, expected)
    np.testing.assert_allclose(found.matrix, expected * 0.01)
    assert found.legend.name == "dynamic_world"
    told = found.to_dict()
    assert told["agreement"] == pytest.approx(np.trace(expected) / expected.sum())
    seen = (other != 255) & (first != 0)
    lost = {row["code"]: row["ha"] for row in told["no_counterpart"]["map"]}
    assert lost == pytest.approx({code: 0.01 * ((first == code) & seen).sum() for code in (95, 100)})
    assert told["no_counterpart"]["other"] == []
    assert told["only_map_ha"] == pytest.approx(0.01 * ((first != 0) & (other == 255)).sum())
    assert told["only_other_ha"] == pytest.approx(0.01 * ((first == 0) & (other != 255)).sum())
    assert told["no_counterpart_ha"] == pytest.approx(sum(lost.values()))
    assert any("--as ipcc" in note for note in told["notes"])
    coarse = compare(*paths, legend="esa_worldcover", other_legend="dynamic_world", target="ipcc")
    assert coarse.matrix_px.sum() == seen.sum()
    assert coarse.legend.names[0] == "Forest land"


def test_the_other_map_in_degrees_by_nearest_neighbour_and_geodesic_hectares(write_tif) -> None:
    """A map in degrees, the other in UTM: each centre is looked up with pyproj, each area taken from the ellipsoid."""
    lon, lat, step = 3.0, 45.1, 1e-4
    first = patches(COVER[:6], (60, 80), 3)
    other = patches(COVER[:6], (200, 200), 4, side=9)
    paths = (
        write_tif("map.tif", first, nodata=0, crs="EPSG:4326", origin=(lon, lat), gsd=step),
        write_tif("wc.tif", other, nodata=0, origin=(499_900, 4_995_000), gsd=12.0),
    )
    found = compare(*paths, legend="esa_worldcover", other_legend="esa_worldcover")
    cols, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    x, y = Transformer.from_crs(4326, 32631, always_xy=True).transform(lon + cols * step, lat - rows * step)
    at = (np.floor((4_995_000 - y) / 12).astype(int), np.floor((x - 499_900) / 12).astype(int))
    inside = (at[0] >= 0) & (at[0] < 200) & (at[1] >= 0) & (at[1] < 200)
    assert inside.mean() > 0.3
    near = np.where(inside, other[np.clip(at[0], 0, 199), np.clip(at[1], 0, 199)], 0)
    same = {int(code): int(code) for code in COVER}
    np.testing.assert_array_equal(found.matrix_px, brute(first, near, same, same, tuple(map(int, COVER))))
    geod, expected = Geod(ellps="WGS84"), 0.0
    for row in range(60):
        top = lat - row * step
        area, _ = geod.polygon_area_perimeter([lon, lon + step, lon + step, lon], [top, top, top - step, top - step])
        expected += (inside & (first == near))[row].sum() * abs(area) / 1e4
    assert np.trace(found.matrix) == pytest.approx(expected, rel=1e-9)


def test_a_map_that_is_a_little_finer_is_read_whole(write_tif) -> None:
    first, other = np.full((70, 70), 10, np.uint8), patches(COVER, (100, 100), 5, side=1)
    paths = write_tif("map.tif", first, nodata=0, gsd=10.0), write_tif("fine.tif", other, nodata=0, gsd=7.0)
    found = compare(*paths, legend="esa_worldcover", other_legend="esa_worldcover")
    assert found.parts == 2
    seen = found.other.read(found.grid.window, found.grid)
    assert seen.shape == (140, 140)
    rows = ((np.arange(140) + 0.5) * 5 // 7).astype(int)
    assert set(rows) == set(range(100))  # each pixel of the other holds the centre of a part
    np.testing.assert_array_equal(COVER[seen], other[np.ix_(rows, rows)])


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_finer_map_loses_no_pixel(write_tif, factor: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "WINDOW_PX", 40)
    first = patches(COVER, (30, 40), 5, side=3)
    random = np.random.default_rng(6)
    other = COVER[random.integers(0, 11, (30 * factor, 40 * factor))]
    paths = write_tif("map.tif", first, nodata=0, gsd=30.0), write_tif("fine.tif", other, nodata=0, gsd=30.0 / factor)
    found = compare(*paths, legend="esa_worldcover", other_legend="esa_worldcover")
    big = np.kron(first, np.ones((factor, factor), np.uint8))
    same = {int(code): int(code) for code in COVER}
    np.testing.assert_array_equal(found.matrix_px, brute(big, other, same, same, tuple(map(int, COVER))))
    assert found.parts == factor
    # Hectares are those of each map alone, which no resampling by the most frequent class would keep.
    areas = [0.09 / factor**2 * np.bincount(m.ravel(), minlength=101)[COVER] for m in (big, other)]
    np.testing.assert_allclose(found.matrix.sum(1), areas[0])
    np.testing.assert_allclose(found.matrix.sum(0), areas[1])
    assert f"{factor} x {factor} parts" in found.notes[0]
    back = compare(paths[1], paths[0], legend="esa_worldcover", other_legend="esa_worldcover")
    assert back.parts == 1
    np.testing.assert_array_equal(back.matrix_px, found.matrix_px.T)


def test_tiles_and_corine_as_copernicus_counts_it(write_tif, tmp_path: Path) -> None:
    codes = load_legend("corine").codes
    whole = patches(np.arange(1, 45, dtype=np.uint8), (40, 60), 7, side=4)
    for number, part in enumerate((whole[:, :30], whole[:, 30:])):
        write_tif(f"tiles/{number}.tif", part, nodata=48, origin=(500_000 + number * 300, 5_000_000))
    (tmp_path / "tiles" / "README.txt").write_text("not a tile")
    first = patches(COVER, (40, 60), 8)
    found = compare(
        write_tif("map.tif", first, nodata=0), tmp_path / "tiles", legend="esa_worldcover", other_legend="corine"
    )
    assert found.legend.name == "esa_worldcover"
    assert found.pixels[:-1, :-1].sum() == 2400
    clc = np.array(codes)[whole - 1]
    forest = np.isin(clc, (223, 311, 312, 313))
    assert found.matrix_px[0, 0] == ((first == 10) & forest).sum()
    assert {row["code"] for row in found.lost["other"]} >= {141, 242, 243}


def test_what_is_written(write_tif, tmp_path: Path) -> None:
    first, other = patches(COVER, (64, 48), 9), patches(WORLD, (64, 48), 10)
    first[0], other[:, 0] = 0, 255
    paths = write_tif("map.tif", first, nodata=0), write_tif("dw.tif", other, nodata=255)
    options = {"legend": "esa_worldcover", "other_legend": "dynamic_world", "raster": True}
    found = compare(*paths, tmp_path / "out", **options)
    assert {path.name for path in found.files} == {path.name for path in (tmp_path / "out").iterdir()}
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert told["matrix_px"] == found.matrix_px.tolist()
    with open(tmp_path / "out" / "pairs.csv") as file:
        pairs = list(csv.DictReader(file))
    assert sum(int(row["pixels"]) for row in pairs) == 63 * 47
    mangroves = [row for row in pairs if row["map_code"] == "95"]
    assert {row["map_as"] for row in mangroves} == {""}
    for row in pairs:
        assert int(row["pixels"]) == ((first == int(row["map_code"])) & (other == int(row["other_code"]))).sum()
    with open(tmp_path / "out" / "matrix.csv") as file:
        cells = [[float(v) for v in row[1:]] for row in list(csv.reader(file))[1:]]
    np.testing.assert_allclose(cells, found.matrix, atol=1e-4)
    with open(tmp_path / "out" / "classes.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(load_legend("dynamic_world").names)
    with rasterio.open(tmp_path / "out" / "agreement.tif") as file:
        codes = file.read(1)
        assert file.nodata == 0
    to = {10: 1, 20: 5, 30: 2, 40: 4, 50: 6, 60: 7, 70: 8, 80: 0, 90: 3, 95: -1, 100: -1, 0: -2}
    left = np.vectorize(to.get)(first)
    expected = np.where(left == -1, 3, np.where(left == other, 1, 2))
    np.testing.assert_array_equal(codes, np.where((left == -2) | (other == 255), 0, expected))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(OutputError, match="exists already"):
        compare(*paths, tmp_path / "out", **options)
    (tmp_path / "out" / "mine.txt").write_text("stays")
    compare(*paths, tmp_path / "out", **options, overwrite=True)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert after.pop("mine.txt") == b"stays"
    assert after == before
    assert not list(tmp_path.glob("**/.*"))


def test_a_legend_of_ones_own_by_a_crosswalk_file(write_tif, tmp_path: Path) -> None:
    legend = {"name": "mine", "nodata": 0, "classes": [{"code": 1, "name": "Pine"}, {"code": 2, "name": "Lake"}]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(legend))
    raw = {"from": "mine.yaml", "to": "ipcc", "classes": {"Pine": "Forest land", "Lake": "Wetlands"}}
    (tmp_path / "walk.yaml").write_text(yaml.safe_dump(raw))
    first = patches(np.array([1, 2], np.uint8), (40, 40), 11)
    other = np.where(first == 1, 10, 80).astype(np.uint8)
    paths = write_tif("map.tif", first, nodata=0), write_tif("wc.tif", other, nodata=0)
    options = {"legend": str(tmp_path / "mine.yaml"), "other_legend": "esa_worldcover"}
    with pytest.raises(LabelError, match="'mine' has no crosswalk to 'esa_worldcover'"):
        compare(*paths, **options)
    found = compare(*paths, **options, crosswalks=[tmp_path / "walk.yaml"])
    assert found.scores["agreement"] == 1
    assert found.legend.name == "ipcc"


def test_refusals(write_tif, tmp_path: Path) -> None:
    first = write_tif("map.tif", patches(COVER, (20, 20), 1), nodata=0)
    stated = {"legend": "esa_worldcover", "other_legend": "esa_worldcover"}
    with pytest.raises(LabelError, match="does not say what its codes mean") as caught:
        compare(first, first, legend="esa_worldcover")
    assert "--other-legend esa_worldcover" in caught.value.fix
    odd = write_tif("odd.tif", np.full((20, 20), 77, np.uint8))
    with pytest.raises(LabelError, match="does not say") as caught:
        compare(odd, first, other_legend="esa_worldcover")
    assert "write a legend of its codes (77)" in caught.value.fix
    with pytest.raises(LabelError, match=r"odd\.tif hold codes .*77 \(400 px\)") as caught:
        compare(first, odd, **stated)
    assert "--other-legend" in caught.value.fix
    far = write_tif("far.tif", patches(COVER, (20, 20), 1), nodata=0, origin=(600_000, 5_000_000))
    with pytest.raises(GridError, match=r"far\.tif .* does not overlap"):
        compare(first, far, **stated)
    nowhere = write_tif("nowhere.tif", patches(COVER, (20, 20), 1), nodata=0, crs=None)
    with pytest.raises(GridError, match="no CRS"):
        compare(first, nowhere, **stated)
    smaller = write_tif("smaller.tif", patches(COVER, (10, 20), 1), nodata=0, crs=None)
    with pytest.raises(GridError, match="without a CRS"):
        compare(nowhere, smaller, **stated)
    assert compare(nowhere, nowhere, **stated).scores["agreement"] == 1
    half = patches(COVER, (20, 20), 1)
    half[:, :10] = 0
    left, right = write_tif("right.tif", half, nodata=0), write_tif("left.tif", half[:, ::-1], nodata=0)
    with pytest.raises(GridError, match="no place where both hold a class"):
        compare(left, right, **stated)
    moss = write_tif("moss.tif", np.full((20, 20), 100, np.uint8), nodata=0)
    water = write_tif("water.tif", np.zeros((20, 20), np.uint8))
    with pytest.raises(LabelError, match="none of the classes"):
        compare(moss, water, legend="esa_worldcover", other_legend="dynamic_world")
    masked = write_tif("masked.tif", np.zeros((20, 20), np.uint8), nodata=0)
    with pytest.raises(LabelError, match="says that 0 is nodata, legend 'dynamic_world' that it is 'Water'"):
        compare(moss, masked, legend="esa_worldcover", other_legend="dynamic_world")
    with pytest.raises(LabelError, match="no legend called 'ipc'"):
        compare(first, first, target="ipc", **stated)
    with pytest.raises(LabelError, match="'esa_worldcover' has no crosswalk to 'wusu'"):
        compare(first, first, target="wusu", **stated)
    with pytest.raises(ConfigError, match="has no place"):
        compare(first, first, raster=True, **stated)
    with pytest.raises(ConfigError, match="is no folder"):
        compare(first, first, tmp_path / "out.csv", **stated)
    with pytest.raises(DataError, match="there is no file"):
        compare(first, tmp_path / "gone.tif", **stated)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no GeoTIFF"):
        compare(first, tmp_path / "empty", **stated)
    picture = write_tif("rgb.tif", np.zeros((3, 20, 20), np.uint8))
    with pytest.raises(LabelError, match="3 bands"):
        compare(first, picture, **stated)
    assert not list(tmp_path.glob("**/.*"))


def test_a_killed_comparison_is_made_by_the_same_call(write_tif, tmp_path: Path, monkeypatch) -> None:
    paths = [write_tif(name, patches(COVER, (20, 20), seed), nodata=0) for seed, name in enumerate(("a.tif", "b.tif"))]
    stated = {"legend": "esa_worldcover", "other_legend": "esa_worldcover", "raster": True}
    compare(*paths, tmp_path / "whole", **stated)

    class Killed(BaseException):
        """Nothing is tidied up after it."""

    def die(found, files):
        files["classes"].touch()
        raise Killed

    monkeypatch.setattr(module, "write_tables", die)
    monkeypatch.setattr(module, "only_with", lambda *files: nullcontext())
    monkeypatch.setattr("covermap.core.output.shutil.rmtree", lambda *args, **kwargs: None)
    with pytest.raises(Killed):
        compare(*paths, tmp_path / "out", **stated)
    monkeypatch.undo()
    assert (tmp_path / "out" / "agreement.tif").exists()
    compare(*paths, tmp_path / "out", **stated)
    found, wanted = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.suffix in (".csv", ".tif")}
        for name in ("out", "whole")
    )
    assert found == wanted
    assert not list((tmp_path / "out").glob(".comparison*"))


def test_nothing_is_left_of_a_comparison_that_failed(write_tif, tmp_path: Path) -> None:
    first = write_tif("map.tif", patches(COVER, (20, 20), 1), nodata=0)
    odd = write_tif("odd.tif", np.full((20, 20), 77, np.uint8))
    with pytest.raises(LabelError):
        compare(first, odd, tmp_path / "out", legend="esa_worldcover", other_legend="esa_worldcover", raster=True)
    assert not list((tmp_path / "out").iterdir())


def test_by_the_command_line(covermap, write_tif, tmp_path: Path) -> None:
    first, other = patches(COVER, (30, 30), 1), patches(WORLD, (30, 30), 2)
    paths = write_tif("map.tif", first, nodata=0), write_tif("dw.tif", other, nodata=255)
    options = ("--legend", "esa_worldcover", "--other-legend", "dynamic_world")
    code, out, _ = covermap("compare", *paths, *options)
    assert code == 0
    assert "agreement" in out
    assert "accuracy" not in out.replace("agreement is not accuracy", "")
    assert "no counterpart (map): Mangroves" in out
    code, out, _ = covermap("compare", *paths, tmp_path / "out", *options, "--as", "ipcc", "--raster", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["legend"] == "ipcc"
    assert len(told["matrix_ha"]) == 6
    assert (tmp_path / "out" / "agreement.tif").is_file()
    code, _, err = covermap("compare", *paths)
    assert code == 1
    assert "--legend esa_worldcover" in err


def test_the_real_maps_of_corine(shared: Path, tmp_path: Path) -> None:
    """CORINE 2006 and 2012 of Vaud lie on two slightly different grids."""
    paths = [shared / "data" / "corine_vaud" / f"ls100_{year}.tif" for year in ("06", "12")]
    found = compare(*paths, tmp_path / "out", legend="corine", other_legend="corine", raster=True)
    assert 0.85 < found.scores["agreement"] < 0.97
    assert found.scores["quantity_disagreement"] < 0.01
    assert found.to_dict()["no_counterpart_ha"] == 0
    coarse = compare(*paths, legend="corine", other_legend="corine", target="ipcc")
    assert coarse.scores["agreement"] > found.scores["agreement"]
    with rasterio.open(tmp_path / "out" / "agreement.tif") as file:
        codes = file.read(1)
        grid = Grid(file.crs, file.transform, file.height, file.width)
    with rasterio.open(paths[0]) as file:
        assert grid.is_same(Grid(file.crs, file.transform, file.height, file.width))
    assert (codes == 1).sum() / (codes > 0).sum() == pytest.approx(found.scores["agreement"], abs=1e-6)


def test_the_grid_is_cut_into_the_same_extent() -> None:
    grid = Grid(None, Affine(30, 0, 5, 0, -30, 7), 4, 6)
    cut = grid.coarsen(1 / 3)
    assert (cut.height, cut.width, cut.bounds) == (12, 18, grid.bounds)
