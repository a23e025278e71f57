"""Labels from vectors: pixels against point-in-polygon tests, windows against the whole, files with every defect."""

from __future__ import annotations

import pickle
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from shapely.geometry import MultiPolygon, Point, Polygon, box

from covermap.core.errors import DataError, GridError, LabelError
from covermap.core.legend import IGNORE, Legend
from covermap.geo.grid import Grid, Window
from covermap.geo.rasterize import VectorLabels

UTM = CRS.from_epsg(32633)
LEFT, TOP = 400_000.0, 5_000_000.0
GRID = Grid(UTM, Affine(10, 0, LEFT, 0, -10, TOP), 40, 60)


def px(shape: shapely.Geometry) -> shapely.Geometry:
    """A shape drawn in pixels of GRID (x right, y down), in UTM metres."""
    return shapely.transform(shape, lambda xy: np.c_[LEFT + 10 * xy[:, 0], TOP - 10 * xy[:, 1]])


def save(folder: Path, shapes: list, name: str = "labels.gpkg", **columns: list) -> Path:
    placed = [None if s is None else px(s) for s in shapes]
    table = gpd.GeoDataFrame(columns, geometry=placed, crs=32633)
    table.to_file(folder / name)
    return folder / name


def inside(shape: shapely.Geometry, height: int = 40, width: int = 60) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    return shapely.contains_xy(shape, cols + 0.5, rows + 0.5)


def star(rng: np.random.Generator, corners: int) -> Polygon:
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(2, 14, corners)
    return Polygon(np.c_[rng.uniform(0, 60) + radius * np.cos(angle), rng.uniform(0, 40) + radius * np.sin(angle)])


def test_polygons_cover_the_pixels_whose_centre_they_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [star(rng, 7) for _ in range(8)]
    names = ["water", "forest"] * 4
    labels = VectorLabels.open(save(tmp_path, shapes, kind=names), field="kind", grid=GRID)
    assert labels.legend.names == ("forest", "water")
    assert labels.legend.codes == (1, 2)
    count = {n: sum(inside(s) for s, m in zip(shapes, names, strict=True) if m == n) for n in ("forest", "water")}
    expected = np.full((40, 60), IGNORE)
    expected[(count["forest"] > 0) & (count["water"] == 0)] = 0
    expected[(count["water"] > 0) & (count["forest"] == 0)] = 1
    assert (count["forest"] * count["water"] > 0).any()
    np.testing.assert_array_equal(labels.read(), expected)


def test_objects_are_rows_and_their_windows_bound_them(tmp_path: Path) -> None:
    shapes = [box(2, 3, 9.4, 8.2), box(50, 30, 70, 50), box(20, 3, 24, 9)]
    labels = VectorLabels.open(save(tmp_path, shapes, lc=[7, 5, 7]), field="lc", grid=GRID)
    objects = labels.read_objects()
    expected = np.zeros((40, 60), int)
    for number, shape in enumerate(shapes, 1):
        expected[inside(shape)] = number
    np.testing.assert_array_equal(objects, expected)
    assert objects.dtype == np.int32
    assert labels.legend.codes == (5, 7)
    assert labels.object_windows() == [
        (1, 1, Window(3, 2, 6, 8)),
        (2, 0, Window(30, 50, 10, 10)),
        (3, 1, Window(3, 20, 6, 4)),
    ]


@given(data=st.data(), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_any_window_equals_the_whole(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = [star(rng, 5) for _ in range(6)] + [Point(x, y) for x, y in rng.uniform(0, 40, (4, 2))]
    # Corners on half pixels put edges exactly through pixel centres, where rounding would decide.
    shapes += [shapely.transform(star(rng, 6), lambda xy: np.round(xy * 2) / 2) for _ in range(4)]
    shapes = [s for s in shapes if s.is_valid and not s.is_empty]
    classes = rng.integers(1, 4, len(shapes)).tolist()
    path = save(tmp_path_factory.mktemp("v"), shapes, name="v.geojson", c=classes)
    labels = VectorLabels.open(path, field="c", grid=GRID, point_px=3)
    row, col = data.draw(st.integers(-5, 39)), data.draw(st.integers(-5, 59))
    window = Window(row, col, data.draw(st.integers(1, 45)), data.draw(st.integers(1, 65)))
    padded = Window(-5, -5, 90, 130)
    slices = window.within(padded).slices
    np.testing.assert_array_equal(labels.read(window), labels.read(padded)[slices])
    np.testing.assert_array_equal(labels.read_objects(window), labels.read_objects(padded)[slices])


@pytest.mark.parametrize(("side", "first"), [(1, (12, 7)), (2, (12, 6)), (3, (11, 6))])
def test_a_point_covers_a_square_around_it(tmp_path: Path, side: int, first: tuple[int, int]) -> None:
    path = save(tmp_path, [Point(7.4, 12.6)], c=["a"])
    got = VectorLabels.open(path, field="c", grid=GRID, point_px=side).read()
    expected = np.full((40, 60), IGNORE)
    expected[first[0] : first[0] + side, first[1] : first[1] + side] = 0
    np.testing.assert_array_equal(got, expected)


def test_overlaps_of_different_classes_are_told_and_not_used(tmp_path: Path) -> None:
    shapes = [box(0, 0, 10, 10), box(5, 0, 15, 10), box(10, 0, 20, 10), box(5, 5, 8, 8), box(20, 0, 30, 10)]
    labels = VectorLabels.open(save(tmp_path, shapes, c=["a", "b", "b", "b", "a"]), field="c", grid=GRID)
    got = labels.read()
    assert (got[:10, :5] == 0).all()
    assert (got[:10, 5:10] == IGNORE).all()
    assert (got[:10, 10:20] == 1).all()  # shared by two shapes of one class
    assert (got[:10, 20:30] == 0).all()  # neighbours that only share an edge
    assert labels.notes == [
        "2 pairs of shapes of different classes overlap on 0.59 ha; pixels that two classes claim are not used"
    ]


def test_overlaps_of_equal_shapes_are_counted_as_of_others(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    few = [star(random, 6) for _ in range(5)]
    shapes = [few[i] for i in random.integers(0, 5, 40)]
    names = random.choice(["a", "b", "c"], 40).tolist()
    labels = VectorLabels.open(save(tmp_path, shapes, c=names), field="c", grid=GRID)
    pairs = [(i, j) for i in range(40) for j in range(i) if names[i] != names[j]]
    on = [labels.shapes[i].intersection(labels.shapes[j]).area for i, j in pairs]
    note = labels.notes[-1]  # the first says what was repaired
    assert note.startswith(f"{sum(area > 1e-3 for area in on):,} pairs of shapes of different classes")
    assert float(note.partition("overlap on ")[2].split()[0]) == pytest.approx(sum(on) * 0.01, rel=1e-3)


def test_three_shapes_on_one_pixel_are_an_overlap_whatever_their_order(tmp_path: Path) -> None:
    labels = VectorLabels.open(save(tmp_path, [box(0, 0, 4, 4)] * 3, c=["a", "b", "a"]), field="c", grid=GRID)
    assert (labels.read() == IGNORE).all()


def test_defects_are_repaired_or_counted(tmp_path: Path) -> None:
    bow_tie = Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    hole = Polygon([(30, 0), (40, 0), (40, 10), (30, 10)], [[(32, 2), (38, 2), (38, 8), (32, 8)]])
    shapes = [bow_tie, box(20, 0, 25, 5), box(20, 20, 25, 25), None, Polygon(), hole, box(500, 500, 501, 501)]
    path = save(tmp_path, shapes, c=["a", None, " ", "a", "b", "b", "a"])
    labels = VectorLabels.open(path, field="c", grid=GRID)
    assert labels.notes == [
        "2 shapes have no class in 'c' and were left out",
        "2 shapes have no place in the image's CRS and were left out",
        "1 shapes were not valid polygons and were repaired",
        "1 shapes lie outside of the image and were left out",
    ]
    expected = np.full((40, 60), IGNORE)
    halves = MultiPolygon([Polygon([(0, 0), (5, 5), (0, 10)]), Polygon([(10, 0), (5, 5), (10, 10)])])
    # Centres on the diagonals lie on an edge: both answers are right there.
    rows, cols = np.mgrid[:40, :60]
    sure = ~((rows < 10) & (cols < 10) & ((rows == cols) | (rows + cols == 9)))
    expected[inside(halves)] = 0
    expected[inside(hole)] = 1
    np.testing.assert_array_equal(labels.read()[sure], expected[sure])
    assert [number for number, _, _ in labels.object_windows()] == [1, 6]


def test_a_given_legend_matches_names_and_codes(tmp_path: Path) -> None:
    legend = Legend.from_dict({"name": "mine", "ignore": [99], "classes": [{"code": 4, "name": "Water"}, {"code": 2, "name": "Trees"}]})  # fmt: skip
    shapes = [box(0, 0, 5, 5), box(10, 0, 15, 5)]
    by_name = VectorLabels.open(save(tmp_path, shapes, c=["water", "TREES "]), field="c", grid=GRID, legend=legend)
    by_code = VectorLabels.open(save(tmp_path, shapes, c=[4.0, 2.0]), field="c", grid=GRID, legend=legend)
    by_text = VectorLabels.open(save(tmp_path, shapes, c=["4", "2"]), field="c", grid=GRID, legend=legend)
    for labels in (by_name, by_code, by_text):
        assert [labels.read()[0, 0], labels.read()[0, 10]] == [0, 1]
    ignored = VectorLabels.open(save(tmp_path, shapes, c=[4, 99]), field="c", grid=GRID, legend=legend)
    assert (ignored.read() != IGNORE).sum() == 25
    assert ignored.notes == ["1 shapes belong to classes that the legend ignores and were left out"]
    with pytest.raises(LabelError, match=r"'mine' does not know: Treez \(1\)") as caught:
        VectorLabels.open(save(tmp_path, shapes, c=["water", "Treez"]), field="c", grid=GRID, legend=legend)
    assert caught.value.fix == "did you mean 'Trees'?"
    with pytest.raises(LabelError, match=r"does not know: 3 \(2\)"):
        VectorLabels.open(save(tmp_path, shapes, c=[3, 3]), field="c", grid=GRID, legend=legend)


def test_another_crs_is_brought_to_the_grid(tmp_path: Path) -> None:
    shape = box(4.2, 6.2, 20.8, 15.8)
    path = save(tmp_path, [shape], c=["a"])
    gpd.read_file(path).to_crs(4326).to_file(tmp_path / "ll.geojson")
    labels = VectorLabels.open(tmp_path / "ll.geojson", field="c", grid=GRID)
    np.testing.assert_array_equal(labels.read() == 0, inside(shape))


def test_csv_of_points(tmp_path: Path) -> None:
    lon, lat = gpd.GeoSeries([Point(LEFT + 75, TOP - 125)], crs=32633).to_crs(4326)[0].coords[0]
    rows = "id;Lon;LAT;cover\n1;{};{};forest\n2;;;forest\n".format(*(f"{v:.9f}".replace(".", ",") for v in (lon, lat)))
    (tmp_path / "p.csv").write_text("\ufeff" + rows, encoding="utf-8")
    labels = VectorLabels.open(tmp_path / "p.csv", field="cover", grid=GRID)
    assert np.argwhere(labels.read() == 0).tolist() == [[12, 7]]
    assert labels.notes == ["1 shapes have no place in the image's CRS and were left out"]
    (tmp_path / "q.csv").write_text(f"x,y,cover\n{LEFT + 75},{TOP - 125},3\n")
    with pytest.raises(GridError, match="no CRS"):
        VectorLabels.open(tmp_path / "q.csv", field="cover", grid=GRID)
    labels = VectorLabels.open(tmp_path / "q.csv", field="cover", grid=GRID, epsg=32633)
    assert np.argwhere(labels.read() == 0).tolist() == [[12, 7]]
    (tmp_path / "r.csv").write_text("east,north,cover\n1,2,3\n")
    with pytest.raises(LabelError, match="east, north, cover"):
        VectorLabels.open(tmp_path / "r.csv", field="cover", grid=GRID)
    (tmp_path / "s.csv").write_text(f"x,y,cover\n9223372036854775808,{TOP - 125},3\n")
    with pytest.raises(GridError, match=r"no shape of .* is left"):
        VectorLabels.open(tmp_path / "s.csv", field="cover", grid=GRID, epsg=32633)


def test_missing_field_crs_and_overlap_are_explained(tmp_path: Path) -> None:
    path = save(tmp_path, [box(0, 0, 5, 5)] * 3, fid2=[1, 2, 3], land_cover=["a", "b", "a"])
    with pytest.raises(LabelError, match="no field 'lc'; its fields are fid2, land_cover") as caught:
        VectorLabels.open(path, field="lc", grid=GRID)
    assert caught.value.fix == "name the class field: field: land_cover"
    bare = save(tmp_path, [box(0, 0, 5, 5)], name="bare.shp", c=["a"])
    bare.with_suffix(".prj").unlink()
    with pytest.raises(GridError, match="no CRS"):
        VectorLabels.open(bare, field="c", grid=GRID)
    assert (VectorLabels.open(bare, field="c", grid=GRID, epsg=32633).read() == 0).sum() == 25
    with pytest.raises(GridError, match="says EPSG:32633, epsg says 32632"):
        VectorLabels.open(path, field="land_cover", grid=GRID, epsg=32632)
    far = Grid(UTM, Affine(10, 0, 600_000, 0, -10, 5_100_000), 40, 60)
    with pytest.raises(GridError, match=r"shapes \(400000, 4999950, 400050, 5000000\), image \(600000, 5099600"):
        VectorLabels.open(path, field="land_cover", grid=far)
    with pytest.raises(GridError, match="the image has no CRS"):
        VectorLabels.open(path, field="land_cover", grid=Grid(None, Affine.identity(), 9, 9))


def test_files_that_cannot_be_labels(tmp_path: Path) -> None:
    (tmp_path / "broken.gpkg").write_text("no such thing")
    with pytest.raises(DataError, match=r"broken\.gpkg is not a vector file"):
        VectorLabels.open(tmp_path / "broken.gpkg", field="c", grid=GRID)
    with pytest.raises(DataError, match="there is no file"):
        VectorLabels.open(tmp_path / "gone.gpkg", field="c", grid=GRID)
    with pytest.raises(LabelError, match="1 lines"):
        VectorLabels.open(save(tmp_path, [shapely.LineString([(0, 0), (5, 5)])], c=["a"]), field="c", grid=GRID)
    with pytest.raises(LabelError, match=r"holds 1\.5, no class code"):
        VectorLabels.open(save(tmp_path, [box(0, 0, 1, 1)], c=[1.5]), field="c", grid=GRID)
    with pytest.raises(LabelError, match="no geometry has a class"):
        VectorLabels.open(save(tmp_path, [box(0, 0, 1, 1)], c=[None]), field="c", grid=GRID)
    two = save(tmp_path, [box(0, 0, 1, 1)], name="two.gpkg", c=["a"])
    gpd.read_file(two).to_file(two, layer="second")
    with pytest.raises(LabelError, match="layers two, second"):
        VectorLabels.open(two, field="c", grid=GRID)
    assert (VectorLabels.open(two, field="c", grid=GRID, layer="second").read() == 0).sum() == 1


def test_labels_travel_to_worker_processes(tmp_path: Path) -> None:
    labels = VectorLabels.open(save(tmp_path, [box(0, 0, 5, 5)], c=["a"]), field="c", grid=GRID)
    before = labels.read()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(labels)).read(), before)


def grid_of_file(path: Path) -> Grid:
    with rasterio.open(path) as file:
        return Grid(file.crs, file.transform, file.height, file.width)


def test_leipzig_points(shared: Path) -> None:
    grid = grid_of_file(shared / "data/leipzig/leipzig_raster.tif")
    labels = VectorLabels.open(shared / "data/leipzig/leipzig_points.gpkg", field="land_cover", grid=grid)
    assert labels.legend.names == ("forest", "pasture", "urban", "water")
    assert np.bincount(labels.classes).tolist() == [28, 20, 36, 13]
    index = labels.read()
    table = gpd.read_file(shared / "data/leipzig/leipzig_points.gpkg")
    for point, name in zip(table.geometry, table.land_cover, strict=True):
        col, row = (int(v) for v in ~grid.transform * (point.x, point.y))
        assert index[row, col] == labels.legend.index_of(name)
    assert labels.notes == []


def test_porto_velho_codes_are_floats(shared: Path) -> None:
    grid = grid_of_file(shared / "data/porto_velho/LC08_232066_20190727.tif")
    labels = VectorLabels.open(shared / "data/porto_velho/endmembers.shp", field="class", grid=grid)
    assert labels.legend.codes == (0, 1, 2, 3)
    assert labels.legend.map_nodata == 255
    assert np.bincount(labels.classes).tolist() == [8, 27, 30, 26]
    assert (labels.read() != IGNORE).sum() == len({box.row * 10_000 + box.col for _, _, box in labels.object_windows()})


def test_gewata_polygons(shared: Path) -> None:
    grid = grid_of_file(shared / "data/gewata/gewata_landsat7_etm_sr_west.tif")
    path = shared / "data/gewata/gewata_training_west.geojson"
    labels = VectorLabels.open(path, field="Class", grid=grid)
    areas = gpd.read_file(path).dissolve("Class").area / 900
    counts = np.bincount(labels.read().ravel(), minlength=256)[: len(labels.legend)]
    np.testing.assert_allclose(counts, areas[list(labels.legend.names)], rtol=0.02)
