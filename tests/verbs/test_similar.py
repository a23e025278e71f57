"""`similar`: the chips and pixels that are likest to examples."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError, OutputError, UnreadableError
from covermap.data.embeddings import Embeddings
from covermap.data.simulate import SceneRecipe, write_scene
from covermap.geo.embedding_codes import unit
from covermap.geo.embedding_cog import finished_embeddings
from covermap.verbs.embed import EmbedSettings, embed
from covermap.verbs.similar import query, similar
from tests.geo.test_embedding_codes import written

pa = pytest.importorskip("pyarrow", reason="extra [parquet]")
pq = pytest.importorskip("pyarrow.parquet", reason="extra [parquet]")


@pytest.fixture
def chips(tmp_path):
    """60 chips in a row, 0.01 degrees wide, in groups of 7 rows; their vectors."""
    values = unit(np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32), 1)
    west = np.arange(60) / 100
    table = pa.table({
        "unique_id": [f"{i:02d}id" for i in range(60)], "embedding": values.tolist(), "scene": ["s"] * 60,
        "geometry": list(shapely.to_wkb(shapely.box(west, 0, west + 0.01, 0.01))),
        "centre_lat": [0.005] * 60, "centre_lon": (west + 0.005).tolist(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "e.parquet", row_group_size=7)
    return tmp_path / "e.parquet", values


def test_the_likest_come_first_without_the_example(chips, tmp_path):
    path, values = chips
    done = similar(path, tmp_path / "o.gpkg", ["31id"], top=9)
    score = values @ values[31]
    expected = [i for i in np.argsort(-score).tolist() if i != 31][:9]
    assert [int(row["unique_id"][:2]) for row in done.rows] == expected
    table = gpd.read_file(tmp_path / "o.gpkg")
    assert list(table["rank"]) == list(range(1, 10))
    np.testing.assert_allclose(table.similarity, score[expected], atol=1e-5)
    assert table.crs.to_epsg() == 4326
    np.testing.assert_allclose(table.geometry.iloc[0].bounds[0], expected[0] / 100)


def test_a_place_an_id_s_beginning_and_a_file_of_points_name_the_same(chips, tmp_path):
    path, _ = chips
    points = gpd.GeoDataFrame(geometry=shapely.points([[0.315, 0.005]]), crs=4326).to_crs(32631)
    points.to_file(tmp_path / "p.gpkg")
    found = [
        similar(path, tmp_path / f"{i}.csv", [like], top=5).rows
        for i, like in enumerate(("31id", "31", "0.315,0.005", str(tmp_path / "p.gpkg")))
    ]
    assert found[0] == found[1] == found[2] == found[3]
    assert (tmp_path / "0.csv").read_text().splitlines()[0] == "rank,similarity,unique_id,scene,lon,lat"


def test_several_examples_and_counter_examples(chips, tmp_path):
    path, values = chips
    done = similar(path, tmp_path / "o.geojson", ["01", "02"], unlike=["03"], top=57)
    sought = values[[1, 2]].mean(0) - values[3]
    score = values @ (sought / np.linalg.norm(sought))
    order = [i for i in np.argsort(-score).tolist() if i not in (1, 2, 3)]
    assert [int(row["unique_id"][:2]) for row in done.rows] == order
    assert done.notes == ("examples: 2, counter-examples: 1; they are not listed",)
    assert len(gpd.read_file(tmp_path / "o.geojson")) == 57
    with pytest.raises(DataError, match="nothing is left to look for"):
        query(values[:1], values[:1])


@pytest.mark.parametrize(
    ("like", "out", "error", "said"),
    [
        ("zz", "o.csv", DataError, "has no chip zz"),
        ("9,9", "o.csv", DataError, "has no chip 9,9"),
        ("0", "o.csv", DataError, "10 chips have an id that begins with 0"),
        ("200,0", "o.csv", ConfigError, "no longitude and latitude"),
        ("31", "o.shp", OutputError, "does not end in .gpkg"),
    ],
)
def test_examples_that_are_not_there_are_refused(chips, tmp_path, like, out, error, said):
    with pytest.raises(error, match=said):
        similar(chips[0], tmp_path / out, [like])


def test_files_that_cannot_be_searched_are_refused(chips, tmp_path):
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(UnreadableError):
        similar(tmp_path / "x.parquet", tmp_path / "o.csv", ["1"])
    with pytest.raises(DataError, match="there is no file"):
        similar(tmp_path / "y.parquet", tmp_path / "o.csv", ["1"])
    with pytest.raises(ConfigError, match="nothing says what is looked for"):
        similar(chips[0], tmp_path / "o.csv", [])
    table = pq.read_table(chips[0]).drop_columns(["geometry", "centre_lat", "centre_lon"])
    pq.write_table(table, tmp_path / "n.parquet")
    with pytest.raises(DataError, match="chips without a place"):
        similar(tmp_path / "n.parquet", tmp_path / "o.gpkg", ["31"])
    assert similar(tmp_path / "n.parquet", tmp_path / "o.csv", ["31"]).rows[0]["lon"] is None


def test_a_raster_becomes_a_map_of_similarity(tmp_path, covermap):
    values = unit(np.random.default_rng(0).normal(size=(6, 90, 130)).astype(np.float32))
    values[:, :10] = np.nan
    raster = tmp_path / "e.tif"
    with finished_embeddings(written(tmp_path / "p.tif", values, "float32"), raster, "float32", tags={}):
        pass
    with rasterio.open(raster) as dataset:
        x, y = dataset.xy(50, 60)
    from pyproj import Transformer

    lon, lat = Transformer.from_crs(32631, 4326, always_xy=True).transform(x, y)
    code, out, _ = covermap("similar", raster, tmp_path / "s.tif", "--like", f"{lon},{lat}")
    assert code == 0
    assert "examples: 1" in out
    with rasterio.open(tmp_path / "s.tif") as dataset:
        found = dataset.read(1)
        assert dataset.descriptions == ("similarity",)
    assert np.isnan(found[:10]).all()
    expected = np.tensordot(values[:, 50, 60], values, 1)
    np.testing.assert_allclose(found[10:], expected[10:], atol=1e-5)
    assert found[50, 60] == pytest.approx(1, abs=1e-5)
    with pytest.raises(DataError, match="holds nothing at 0,0"):
        similar(raster, tmp_path / "t.tif", ["0,0"])
    with pytest.raises(ConfigError, match="no place in it"):
        similar(raster, tmp_path / "t.tif", ["31id"])
    with pytest.raises(OutputError, match=r"does not end in \.tif"):
        similar(raster, tmp_path / "t.csv", ["0,0"])


def test_neighbours_of_a_water_chip_are_water_chips(tmp_path, shared, covermap):
    weights = shared / "weights/galileo_nano/encoder.pt"
    if not weights.is_file():
        pytest.skip("needs ../shared/weights/galileo_nano")
    write_scene(SceneRecipe(height=384, width=384, seed=1), tmp_path / "scene")
    names = ["blue", "green", "red", "nir", "swir1", "swir2"]
    config = parse_config({
        "data": {
            "image": [{"path": str(tmp_path / "scene/image.tif"), "sensor": "sentinel2", "bands": names}],
            "labels": str(tmp_path / "scene/truth.tif"), "legend": str(tmp_path / "scene/legend.yaml"),
        },
        "model": {"backbone": "galileo_nano", "weights": str(weights), "decoder": "linear"},
    })  # fmt: skip
    embed(config, tmp_path / "e.parquet", settings=EmbedSettings(size_px=8, workers=1, device="cpu"))
    found = Embeddings.read(tmp_path / "e.parquet")
    share = found.class_pixels / found.class_pixels.sum(1, keepdims=True)
    water = share[:, found.legend.names.index("water")]
    pure = np.flatnonzero(water == 1)
    assert 5 < len(pure) < len(water) / 5
    for number in pure[:: len(pure) // 5][:5]:
        name = found.ids[number]
        code, out, _ = covermap("similar", tmp_path / "e.parquet", tmp_path / f"{name}.csv", "--like", name,
                                "--top", 5, "--json")  # fmt: skip
        assert code == 0
        likest = [water[found.ids.index(row["unique_id"])] for row in json.loads(out)["rows"]]
        assert np.mean(likest) > 0.8, likest


def test_neighbours_of_water_are_water_in_a_real_image(tmp_path, shared):
    weights, folder = shared / "weights/galileo_nano/encoder.pt", shared / "data/sen1floods11_spain"
    if not weights.is_file() or not folder.is_dir():
        pytest.skip("needs ../shared/weights/galileo_nano and data/sen1floods11_spain")
    image, labels = (str(folder / f"Spain_7370579_{kind}Hand.tif") for kind in ("S2", "Label"))
    config = parse_config({
        "task": {"name": "hazard", "positive": "water"},
        "data": {
            "image": [{"path": image, "sensor": "sentinel2", "date": "2019-09-18"}], "labels": labels,
            "label_nodata": -1, "legend": {0: "dry", 1: "water"},
        },
        "model": {"backbone": "galileo_nano", "weights": str(weights), "decoder": "linear"},
    })  # fmt: skip
    embed(config, tmp_path / "e.parquet", settings=EmbedSettings(size_px=16, workers=1, device="cpu"))
    found = Embeddings.read(tmp_path / "e.parquet")
    total = found.class_pixels.sum(1)
    water = np.where(total > 0, found.class_pixels[:, 1] / np.maximum(total, 1), 0)
    pure = np.flatnonzero((water == 1) & (total == 256))
    assert len(pure) > 10
    assert (water > 0.5).mean() < 0.3
    for number in pure[:: len(pure) // 4][:4]:
        rows = similar(tmp_path / "e.parquet", tmp_path / f"{number}.csv", [found.ids[number]], top=5).rows
        likest = [found.ids.index(row["unique_id"]) for row in rows]
        assert (water[likest][total[likest] > 128] > 0.5).mean() >= 0.8


def test_chips_that_are_no_numbers_are_counted_and_not_listed(chips, tmp_path):
    path, values = chips
    table = pq.read_table(path)
    broken = [[float("nan")] * 5 if i % 4 == 0 else row.tolist() for i, row in enumerate(values)]
    table = table.set_column(table.column_names.index("embedding"), "embedding", pa.array(broken))
    pq.write_table(table, path, row_group_size=7)
    done = similar(path, tmp_path / "o.gpkg", ["31id"], top=50)
    score = values @ values[31]
    expected = [i for i in np.argsort(-score).tolist() if i != 31 and i % 4]
    assert [int(row["unique_id"][:2]) for row in done.rows] == expected
    assert done.notes[1].startswith("15 chips have embeddings that are no numbers")
    with pytest.raises(DataError, match="no number"):
        similar(path, tmp_path / "other.csv", ["32id"])


def test_a_file_that_holds_nothing_but_the_example_lists_nothing(chips, tmp_path):
    pq.write_table(pq.read_table(chips[0]).slice(31, 1), tmp_path / "one.parquet")
    for name in ("o.csv", "o.gpkg", "o.geojson"):
        assert similar(tmp_path / "one.parquet", tmp_path / name, ["31id"]).rows == ()
        assert (tmp_path / name).is_file()
