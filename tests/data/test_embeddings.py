"""Embeddings as they are read back: ours, Major TOM's and Clay's."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from covermap.core.errors import DataError, MissingExtra, UnreadableError
from covermap.core.legend import LandClass, Legend
from covermap.data.embeddings import Embeddings, read_pixels
from covermap.geo.embedding_codes import NODATA, dequantise

pa = pytest.importorskip("pyarrow", reason="extra [parquet]")
pq = pytest.importorskip("pyarrow.parquet", reason="extra [parquet]")

LEGEND = Legend("two", (LandClass(3, "water", "#0072b2"), LandClass(7, "trees", "#009e73")))
FACTS = {
    "encoder": {"backbone": "unet", "weights": "random initialisation", "parameters_sha256": "ab"},
    "input": {"sensors": [{"sensor": "image"}]}, "size_px": 16, "gsd_m": 10.0, "pool": "mean", "dimensions": 3,
    "legend": LEGEND.to_dict(), "names": [],
}  # fmt: skip


def write(path, facts=FACTS, num=4, **columns):
    rng = np.random.default_rng(0)
    table = {
        "unique_id": [f"id{i}" for i in range(num)],
        "embedding": pa.array(rng.normal(size=(num, 3)).astype(np.float32).tolist(), pa.list_(pa.float32())),
        "scene": ["a"] * num,
        "part": ["train", "val", "test", "none"][:num],
        "pixel_bbox": [[16 * i, 0, 16 * i + 16, 16] for i in range(num)],
        "centre_lat": pa.array([1.0, None, 3.0, 4.0][:num]),
        "centre_lon": pa.array([5.0, None, 7.0, 8.0][:num]),
        "raw_statistics": [[0.0, 1.0]] * num,
        "class_pixels": [[256, 0]] * num,
    } | columns
    found = pa.table({k: v for k, v in table.items() if v is not None})
    pq.write_table(found.replace_schema_metadata({"covermap": json.dumps(facts)} if facts else None), path)
    return path


def test_ours_come_back_with_all_that_is_known(tmp_path):
    found = Embeddings.read(write(tmp_path / "e.parquet"))
    assert found.values.shape == (4, 3)
    assert found.values.dtype == np.float32
    assert found.ids == ["id0", "id1", "id2", "id3"]
    assert found.part == ["train", "val", "test", "none"]
    assert found.place == ["", "", "", ""]
    assert found.centre is not None
    assert np.isnan(found.centre[1]).all()
    assert found.centre[2].tolist() == [3, 7]
    assert found.class_pixels is not None
    assert found.class_pixels.tolist() == [[256, 0]] * 4
    assert found.labels is None
    assert found.numbers is None
    assert found.legend == LEGEND
    assert found.pixel_bbox[1].tolist() == [16, 0, 32, 16]
    assert found.encoder["backbone"] == "unet"


def test_unknown_labels_and_numbers_are_minus_one_and_nan(tmp_path):
    columns = {"label": pa.array([0, None, 1, 1]), "values": [[1.0, None], [2.0, 3.0], [None, None], [0.0, 1.0]]}
    found = Embeddings.read(write(tmp_path / "e.parquet", {**FACTS, "names": ["x", "y"]}, **columns))
    assert found.labels is not None
    assert found.labels.tolist() == [0, -1, 1, 1]
    assert found.numbers is not None
    np.testing.assert_array_equal(found.numbers, [[1, np.nan], [2, 3], [np.nan, np.nan], [0, 1]])
    assert found.names == ("x", "y")


def test_clay_and_major_tom_files_are_read(tmp_path):
    points = shapely.to_wkb(shapely.box([5, 6], [1, 2], [5.2, 6.2], [1.2, 2.2]))
    clay = pa.table({"embeddings": [[1.0, 2.0], [3.0, 4.0]], "source_url": ["s3://a.tif", "s3://b.tif"],
                     "date": ["2020-01-01"] * 2, "geometry": list(points)})  # fmt: skip
    pq.write_table(clay, tmp_path / "31UDP_v1.gpq")
    found = Embeddings.read(tmp_path / "31UDP_v1.gpq")
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert found.scene == ["s3://a.tif", "s3://b.tif"]
    assert found.ids == ["31UDP_v1:0", "31UDP_v1:1"]
    assert found.centre is not None
    np.testing.assert_allclose(found.centre, [[1.1, 5.1], [2.1, 6.1]])
    assert found.encoder == {}
    tom = write(tmp_path / "tom.parquet", None, scene=None, part=None, raw_statistics=None, class_pixels=None,
                product_id=["p"] * 4)  # fmt: skip
    found = Embeddings.read(tom)
    assert found.scene == ["p"] * 4
    assert found.part == ["none"] * 4
    assert found.raw is None
    assert found.legend is None


def test_columns_of_others_may_mean_other_things(tmp_path):
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    table = pa.table({"vector": fixed, "label": ["oak", "ash"], "values": ["x", "y"], "pixel_bbox": [[1], None]})
    pq.write_table(table, tmp_path / "o.parquet")
    found = Embeddings.read(tmp_path / "o.parquet")
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert found.labels is found.numbers is found.centre is None
    assert found.pixel_bbox.tolist() == [[-1] * 4] * 2


def test_files_of_one_encoder_go_together(tmp_path):
    more = write(tmp_path / "b.parquet", {**FACTS, "gsd_m": 10.4}, num=2, unique_id=["id8", "id9"])
    paths = [write(tmp_path / "a.parquet"), more]
    found = Embeddings.read_all(paths)
    assert len(found) == len(found.ids) == len(found.scene) == 6
    assert found.centre is not None
    assert found.centre.shape == (6, 2)
    assert found.source == f"{paths[0]}, {paths[1]}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder": {**FACTS["encoder"], "parameters_sha256": "cd"}}, "parameters_sha256"),
        ({"pool": "max"}, "pool"),
        ({"gsd_m": 20.0}, "gsd_m"),
        ({"input": {"sensors": [{"sensor": "other"}]}}, "input"),
    ],
)
def test_files_of_different_encoders_are_refused(tmp_path, change, said):
    paths = [write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet", {**FACTS, **change})]
    with pytest.raises(DataError, match=said):
        Embeddings.read_all(paths)


def test_files_that_are_no_embeddings_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="there is no file"):
        Embeddings.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(UnreadableError, match="cannot be read"):
        Embeddings.read(tmp_path / "text.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="has no embeddings; its columns are x"):
        Embeddings.read(tmp_path / "x.parquet")
    pq.write_table(pa.table({"embedding": [[1.0], [1.0, 2.0]]}), tmp_path / "odd.parquet")
    with pytest.raises(DataError, match="same count"):
        Embeddings.read(tmp_path / "odd.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match="pyarrow"):
        Embeddings.read(tmp_path / "odd.parquet")


def aef(path, *, bottom_up=False, dtype="int8", nodata=NODATA):
    """A file as AlphaEarth's: codes of 64 bands, here one of 30 x 40 px; the codes."""
    codes = np.random.default_rng(0).integers(-127, 128, (64, 30, 40)).astype(dtype)
    codes[:, 5, 7] = nodata
    step, top = (10, 4_999_700) if bottom_up else (-10, 5_000_000)
    profile = {"driver": "GTiff", "count": 64, "height": 30, "width": 40, "dtype": dtype, "crs": "EPSG:32631"}
    with rasterio.open(path, "w", **profile, nodata=nodata, transform=Affine(10, 0, 500_000, 0, step, top)) as file:
        file.write(codes[:, ::-1] if bottom_up else codes)
    return codes


def degrees(rows, cols):
    from pyproj import Transformer

    to = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)
    lon, lat = to.transform(500_000 + 10 * (np.array(cols) + 0.5), 5_000_000 - 10 * (np.array(rows) + 0.5))
    return np.stack([lon, lat], 1)


@pytest.mark.parametrize("bottom_up", [False, True])
def test_pixels_of_alphaearth_are_found_whichever_way_up_the_file_is(tmp_path, bottom_up):
    codes = aef(tmp_path / "a.tif", bottom_up=bottom_up)
    rows, cols = [0, 29, 5, 12, 40], [0, 39, 7, 3, 3]
    found = read_pixels(tmp_path / "a.tif", lonlat=degrees(rows, cols))
    assert found.shape == (5, 64)
    for number in (0, 1, 3):
        np.testing.assert_array_equal(found[number], dequantise(codes[:, rows[number], cols[number]]))
    assert np.isnan(found[[2, 4]]).all()  # nodata, and outside
    stored = read_pixels(tmp_path / "a.tif", rowcol=[[0, 0]])
    np.testing.assert_array_equal(stored[0], dequantise(codes[:, 29 if bottom_up else 0, 0]))


def test_rasters_of_other_numbers_and_folders_without_cells_are_refused(tmp_path):
    aef(tmp_path / "i.tif", dtype="int16")
    with pytest.raises(DataError, match="holds int16 with nodata -128"):
        read_pixels(tmp_path / "i.tif", rowcol=[[0, 0]])
    with pytest.raises(UnreadableError, match="cannot be read as a raster"):
        read_pixels(tmp_path / "none.tif", rowcol=[[0, 0]])
    with pytest.raises(DataError, match="missing, or given twice"):
        read_pixels(tmp_path / "i.tif")
    (tmp_path / "t/2024/grid_3.05_45.15").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has none of the cells grid_9\.05_9\.05"):
        read_pixels(tmp_path / "t", lonlat=[[9.01, 9.01]])
    with pytest.raises(DataError, match="have no rows in common"):
        read_pixels(tmp_path / "t", rowcol=[[0, 0]])
    (tmp_path / "t/2025/grid_3.05_45.15").mkdir(parents=True)
    with pytest.raises(DataError, match="holds 2 years of cells"):
        read_pixels(tmp_path / "t", lonlat=[[3.01, 45.11]])


def test_pixels_of_a_tessera_folder_as_others_write_it(tmp_path):
    name = "grid_3.05_45.15"
    folder = tmp_path / "2024" / name
    folder.mkdir(parents=True)
    codes = np.random.default_rng(0).integers(-127, 128, (30, 40, 8)).astype(np.int8)
    scales = np.random.default_rng(1).uniform(0.01, 0.1, (30, 40)).astype(np.float32)
    scales[2, 2] = np.inf
    np.save(folder / f"{name}.npy", codes)
    np.save(folder / f"{name}_scales.npy", scales)
    with pytest.raises(DataError, match="no GeoTIFF that says where"):
        read_pixels(tmp_path, lonlat=degrees([1], [3]))
    profile = {"driver": "GTiff", "count": 1, "height": 30, "width": 40, "dtype": "uint8", "crs": "EPSG:32631"}
    with rasterio.open(
        folder / f"{name}_landmask.tif", "w", **profile, transform=Affine(10, 0, 500_000, 0, -10, 5_000_000)
    ) as f:
        f.write(np.ones((1, 30, 40), np.uint8))
    found = read_pixels(tmp_path, lonlat=degrees([1, 2, 35], [3, 2, 3]))
    np.testing.assert_allclose(found[0], codes[1, 3] * scales[1, 3], rtol=1e-6)
    assert np.isnan(found[1:]).all()
