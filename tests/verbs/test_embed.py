"""`embed`: chips and pixels of a config or a model: the same bytes however they are made, with what is known beside."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pystac
import pytest
import rasterio
import torch

from covermap.core.config import ImageConfig
from covermap.core.config_file import parse_config
from covermap.core.errors import ConfigError, DataError, MissingExtra, ModelError, OutputError
from covermap.core.legend import LandClass, Legend
from covermap.core.task import Task
from covermap.core.types import InputSpec, SensorInput
from covermap.data.chips import image_batch
from covermap.data.embedding_rows import grid_cell, unique_id
from covermap.data.embeddings import Embeddings, facts_of, read_pixels
from covermap.data.scene import open_scenes
from covermap.data.simulate_chips import chip_classes, write_chips
from covermap.geo.embedding_codes import decode, unit
from covermap.geo.grid import Window
from covermap.models import NetworkModel, save_model
from covermap.nn.build import build_model
from covermap.verbs import embed_chips, embed_pixels
from covermap.verbs.embed import EmbedSettings, embed
from covermap.verbs.encoder import RANDOM, pooled, shown_by_config

pytest.importorskip("pyarrow", reason="extra [parquet]")

ONE = EmbedSettings(size_px=16, workers=1, device="cpu")
DATE = "2020-07-14"


@pytest.fixture
def config(tiny):
    """tiny with a date, blocks of whole chips and no buffer; 6 x 8 chips of 16 px."""
    image = {"path": tiny["data"].pop("image"), "date": DATE}
    tiny["data"]["image"] = [image]
    tiny["split"] = {"block_px": 32, "buffer_px": 0}
    return tiny


def parsed(raw, **changes):
    return parse_config(json.loads(json.dumps(raw | changes)))


def test_chips_carry_their_place_their_part_and_what_the_labels_tell(config, tmp_path):
    done = embed(parsed(config), tmp_path / "e.parquet", settings=ONE)
    found = Embeddings.read(tmp_path / "e.parquet")
    assert len(found) == done.count == 48
    assert found.values.shape == (48, 16)
    assert len(set(found.ids)) == 48
    assert any("random weights (seed 0)" in note for note in done.notes)
    assert found.encoder["weights"] == RANDOM
    shown = shown_by_config(parsed(config), device="cpu")
    (scene,) = shown.scenes
    assert found.scene == [scene.name] * 48
    assert found.pixel_bbox[9].tolist() == [16, 16, 32, 32]
    for number in (0, 9, 47):
        left, upper, right, lower = found.pixel_bbox[number]
        window = Window(upper, left, lower - upper, right - left)
        parts = shown.told.split.part_mask(scene.name, window)
        assert found.part[number] == ("none", "train", "val", "test")[parts[0, 0]]
        index = scene.read_labels(window)
        assert found.class_pixels[number].tolist() == np.bincount(index.ravel(), minlength=3).tolist()
        sample = scene.read(window)
        pixels = sample.image["image"][0].reshape(3, -1).astype(float)
        np.testing.assert_allclose(found.raw[number], [*pixels.mean(1), *pixels.std(1)], rtol=1e-3)
        np.testing.assert_allclose(found.centre[number], scene.grid.lat_lon(window), rtol=1e-6)
        cells, share = shown.encoder.cells(image_batch([sample], shown.encoder.spec))
        np.testing.assert_allclose(found.values[number], pooled(cells, share, "mean")[0], rtol=1e-4, atol=1e-6)
    assert set(found.part) == {"train", "val", "test"}
    assert found.legend == scene.legend


def test_the_file_is_geoparquet_with_major_toms_columns_and_a_stac_item(config, tmp_path):
    import geopandas as gpd

    embed(parsed(config), tmp_path / "e.parquet", settings=ONE)
    table = gpd.read_parquet(tmp_path / "e.parquet")
    assert table.crs.to_string() == "OGC:CRS84"
    assert list(table.columns[:13]) == [
        "unique_id", "embedding", "timestamp", "product_id", "grid_cell", "grid_row_u", "grid_col_r", "geometry",
        "centre_lat", "centre_lon", "utm_footprint", "utm_crs", "pixel_bbox",
    ]  # fmt: skip
    assert table.grid_row_u.dtype == np.int16
    assert table.centre_lat.dtype == np.float32
    row = table.iloc[0]
    assert row.timestamp == DATE
    assert row.product_id == "image"
    assert row.utm_crs == "EPSG:32631"
    assert row.utm_footprint.startswith("POLYGON ((500000 5000000, 500000 4999840,")
    assert row.geometry.exterior.is_ccw
    assert grid_cell(row.centre_lat, row.centre_lon) == (row.grid_cell, row.grid_row_u, row.grid_col_r)
    item = pystac.Item.from_file(str(tmp_path / "e.stac.json"))
    assert item.properties["emb:type"] == "chip"
    assert item.properties["emb:dimensions"] == 16
    assert item.properties["emb:chip_layout"]["chip_size"] == [16, 16]
    assert list(item.assets) == ["embeddings"]


def test_cells_of_major_toms_grid():
    assert grid_cell(0.01, 0.01) == ("0U_0R", 0, 0)
    assert grid_cell(-0.01, -0.01) == ("1D_1L", -1, -1)
    name, row, col = grid_cell(45.05, 3.0)
    assert name == f"{row}U_{col}R"
    assert row * 180 / 2004 <= 45.05 < (row + 1) * 180 / 2004
    assert grid_cell(0.01, -179.99)[2] * 360 / 4008 >= -180


def test_arrays_that_print_alike_have_other_ids():
    one = np.linspace(0, 1, 2000, dtype=np.float32)
    two = one.copy()
    two[1000] = np.nextafter(two[1000], 2)
    assert str(one) == str(two)
    assert unique_id(one, "a") != unique_id(two, "a")
    assert unique_id(one, "a") != unique_id(one, "b")
    assert unique_id(one, "a") == unique_id(one.copy(), "a")


def test_a_killed_call_goes_on_to_the_same_bytes_and_so_do_other_workers(config, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_chips, "_PIECE_PX", 32)
    monkeypatch.setattr(embed_chips, "_UNIT_PX", 32 * 32)
    embed(parsed(config), tmp_path / "whole.parquet", settings=ONE)
    out = tmp_path / "killed.parquet"

    def kill(done, total):
        assert total == 12
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(parsed(config), out, settings=ONE, on_progress=kill)
    assert not out.exists()
    begun = tmp_path / "begun.parquet.work"  # killed while it wrote what is being made
    begun.mkdir()
    for name in (".lock", ".job.partial.json"):
        (begun / name).touch()
    embed(parsed(config), tmp_path / "begun.parquet", settings=ONE)
    assert not begun.exists()
    with pytest.raises(OutputError, match="interrupted call with other facts"):
        embed(parsed(config), out, settings=replace(ONE, valid=0.9))
    seen = []
    embed(parsed(config), out, settings=ONE, on_progress=lambda done, total: seen.append(done))
    assert seen == [*range(4, 13)] or seen == [*range(5, 13)]
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not (tmp_path / "killed.parquet.work").exists()
    for age, stays in (
        (-9, False),
        (9, True),
    ):  # killed before it was cleared away; while another was to take its place
        begun = tmp_path / "killed.parquet.work"
        begun.mkdir(exist_ok=True)
        for name in ("0.parquet", "job.json"):
            (begun / name).touch()
            os.utime(begun / name, (out.stat().st_mtime + age,) * 2)
        with pytest.raises(OutputError, match="exists"):
            embed(parsed(config), out, settings=ONE)
        assert begun.exists() is stays
    shutil.rmtree(begun)
    embed(parsed(config), tmp_path / "two.parquet", settings=replace(ONE, workers=2))
    assert out.read_bytes() == (tmp_path / "two.parquet").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        embed(parsed(config), out, settings=ONE)


def test_chips_do_not_depend_on_the_units_that_they_are_computed_in(config, tmp_path, monkeypatch):
    embed(parsed(config), tmp_path / "one.parquet", settings=ONE)
    monkeypatch.setattr(embed_chips, "_PIECE_PX", 16)
    embed(parsed(config), tmp_path / "many.parquet", settings=ONE)
    one, many = Embeddings.read(tmp_path / "one.parquet"), Embeddings.read(tmp_path / "many.parquet")
    np.testing.assert_allclose(one.values, many.values, rtol=1e-4, atol=1e-6)
    assert one.pixel_bbox.tolist() == many.pixel_bbox.tolist()


def test_chips_with_too_little_in_them_are_counted(config, tmp_path, write_tif):
    with rasterio.open(config["data"]["image"][0]["path"]) as dataset:
        values = dataset.read()
    values[:, :16, :10] = 0
    values[:, :16, 16:22] = 0
    write_tif("image.tif", values, bands=["green", "red", "nir"], nodata=0)
    done = embed(parsed(config), tmp_path / "e.parquet", settings=ONE)
    assert (done.count, done.skipped) == (47, 1)
    assert any("1 chips have less than 50%" in note for note in done.notes)
    found = Embeddings.read(tmp_path / "e.parquet")
    assert found.pixel_bbox[0].tolist() == [16, 0, 32, 16]
    embed(parsed(config), tmp_path / "all.parquet", settings=replace(ONE, valid=0.1))
    assert len(Embeddings.read(tmp_path / "all.parquet")) == 48
    odd = embed(parsed(config), tmp_path / "odd.parquet", settings=replace(ONE, size_px=20))
    assert odd.count == 5 * 6 - 1  # the last row of chips holds 16 of 20 px, the last column 8; the first chip is empty
    assert Embeddings.read(tmp_path / "odd.parquet").pixel_bbox[-1].tolist() == [100, 80, 120, 96]


def test_all_points_of_a_part_count_in_any_thread(config, tmp_path, monkeypatch):
    import geopandas as gpd
    import shapely

    rng = np.random.default_rng(0)
    places = shapely.points(500_000 + rng.uniform(0, 1280, 40), 5_000_000 - rng.uniform(0, 960, 40))
    gpd.GeoDataFrame({"class": ["a", "b"] * 20}, geometry=places, crs=32631).to_file(tmp_path / "p.gpkg")
    config["data"] |= {"labels": str(tmp_path / "p.gpkg"), "legend": {1: "a", 2: "b"}, "field": "class"}
    shown = shown_by_config(parsed(config), device="cpu")
    (scene,), split = shown.scenes, shown.told.split
    real, asked = type(scene.labels).object_windows, []

    def slow(labels):
        for found in real(labels):
            asked.append(found)
            if len(asked) == 2:  # as another thread would, while the table is made
                assert split.part_of_object(scene, 40) != "none"
            yield found

    monkeypatch.setattr(type(scene.labels), "object_windows", slow)
    parts = split.labels_and_parts(scene, scene.grid.window)[1]
    assert asked
    assert (parts[scene.read_labels(scene.grid.window) != 255] > 0).all()
    embed(parsed(config), tmp_path / "e.parquet", settings=replace(ONE, workers=2))
    counted = Embeddings.read(tmp_path / "e.parquet").class_pixels
    assert counted.sum() == (scene.read_labels(scene.grid.window) != 255).sum()


def test_cells_count_by_their_valid_share():
    cells = np.array([[[[1.0, 5.0], [100.0, 100.0]]]], np.float32)
    share = np.array([[[1.0, 0.5], [0.0, 0.0]]], np.float32)
    assert pooled(cells, share, "mean").tolist() == [[pytest.approx(3.5 / 1.5)]]
    assert pooled(cells, share, "max").tolist() == [[5.0]]


def test_images_without_crs_date_or_labels_say_so(config, tmp_path, write_tif):
    with rasterio.open(config["data"]["image"][0]["path"]) as dataset:
        path = write_tif("plain.tif", dataset.read(), bands=["green", "red", "nir"], crs=None)
    config["data"] = {"image": path}
    done = embed(parsed(config), tmp_path / "e.parquet", settings=ONE)
    told = " ".join(done.notes)
    for words in ("have no CRS", "have no date", "no STAC item", "names no labels"):
        assert words in told
    assert [file.name for file in done.files] == ["e.parquet"]
    found = Embeddings.read(tmp_path / "e.parquet")
    assert found.centre is None
    assert found.class_pixels is None
    assert set(found.part) == {"none"}
    assert len(set(found.ids)) == len(found)


def test_of_tasks_of_chips_the_answers_come_along(config, tmp_path):
    raw = config | {"task": "multilabel"}
    embed(parsed(raw), tmp_path / "e.parquet", settings=replace(ONE, size_px=None))
    found = Embeddings.read(tmp_path / "e.parquet")
    assert found.encoder["size_px"] == 32
    assert found.names == ("field", "water", "town")
    np.testing.assert_array_equal(found.numbers > 0, found.class_pixels > 0)
    raw = config | {"task": "regression"}
    raw["data"] = raw["data"] | {"target": {"path": raw["data"]["image"][0]["path"], "bands": ["a", "b", "c"]}}
    del raw["data"]["labels"], raw["data"]["legend"]
    embed(parsed(raw), tmp_path / "n.parquet", settings=ONE)
    found = Embeddings.read(tmp_path / "n.parquet")
    np.testing.assert_allclose(found.numbers, found.raw[:, :3], rtol=1e-3)


def test_chips_with_one_class_each_come_as_they_are(tmp_path):
    split = write_chips(tmp_path / "lucas", num_train=30, num_val=10, num_test=10)
    data = {"source": "lucas", "root": str(tmp_path / "lucas")}
    raw = {"data": data, "task": "classification", "split": {"method": "csv", "path": str(split)}}
    done = embed(parsed(raw), tmp_path / "e.parquet", settings=replace(ONE, size_px=None))
    assert done.parts == {"train": 30, "val": 10, "test": 10}
    found = Embeddings.read(tmp_path / "e.parquet")
    assert found.class_pixels is None
    expected = dict(zip((str(44_000_000 + i) for i in range(50)), chip_classes(0, range(50)), strict=True))
    assert found.legend is not None
    codes = [found.legend.codes[i] for i in found.labels]
    assert codes == [expected[name] + 1 for name in found.scene]
    assert (found.pixel_bbox == [0, 0, 32, 32]).all()
    shown = shown_by_config(parsed(raw), device="cpu")
    for number in (0, 49):
        scene = next(s for s in shown.scenes if s.name == found.scene[number])
        batch = image_batch([scene.read(scene.grid.window)], shown.encoder.spec)
        alone = pooled(*shown.encoder.cells(batch), "mean")[0]
        np.testing.assert_allclose(found.values[number], alone, rtol=1e-4, atol=1e-6)


def test_the_seed_makes_the_random_encoder(config, tmp_path):
    shown = [
        shown_by_config(parsed(config, train=config["train"] | {"seed": seed}), device="cpu") for seed in (0, 0, 1)
    ]
    sums = [each.encoder.facts["parameters_sha256"] for each in shown]
    assert sums[0] == sums[1] != sums[2]


def saved_model(folder):
    """An untrained network that takes the image of tiny."""
    entry = SensorInput("image", ("green", "red", "nir"), (700.0, 1000.0, 1500.0), (500.0,) * 3)
    spec = InputSpec((entry,), 10.0, 32)
    legend = Legend("l", (LandClass(1, "a", "#000000"), LandClass(2, "b", "#ffffff")))
    build = {"backbone": "unet", "decoder": "unet", "backbone_options": {"widths": [8, 16]}}
    torch.manual_seed(0)
    network = build_model(spec, 2, **build)
    return save_model(NetworkModel(spec, Task("segmentation", legend), network, {"run": "r"}), folder, build=build)


def test_pixels_are_unit_vectors_on_the_grid_of_cells(config, tmp_path):
    done = embed(parsed(config), tmp_path / "e.tif", settings=replace(ONE, size_px=32))
    assert any("a cell is 2 px: 20 m" in note for note in done.notes)
    with rasterio.open(tmp_path / "e.tif") as dataset:
        assert dataset.shape == (48, 64)
        assert dataset.transform.a == 20
        assert dataset.descriptions[:2] == ("A00", "A01")
        assert dataset.nodata == -128
        values = decode(dataset.read(), dataset.nodata)
        assert dataset.tags()["COVERMAP_BACKBONE"] == "unet"
    length = np.linalg.norm(values, axis=0)
    assert 0.97 < length.min() < length.max() < 1.03
    item = pystac.Item.from_file(str(tmp_path / "e.stac.json"))
    assert item.properties["emb:type"] == "pixel"
    assert item.properties["emb:quantization"]["quantized_dtype"] == "int8"
    assert item.properties["gsd"] == 20
    assert len(item.assets["embeddings"].to_dict()["bands"]) == 16


def test_blocks_of_pixels_equal_the_whole_scene_and_a_killed_call_goes_on(config, tmp_path, monkeypatch):
    settings = replace(ONE, size_px=32, dtype="float32")
    embed(parsed(config), tmp_path / "whole.tif", settings=settings)
    monkeypatch.setattr(embed_pixels, "_HELD", 2 * 16 * 20**2)
    embed(parsed(config), tmp_path / "blocks.tif", settings=settings)

    def kill(done, total):
        assert total > 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(parsed(config), tmp_path / "killed.tif", settings=settings, on_progress=kill)
    embed(parsed(config), tmp_path / "killed.tif", settings=replace(settings, workers=2))
    assert (tmp_path / "killed.tif").read_bytes() == (tmp_path / "blocks.tif").read_bytes()
    with rasterio.open(tmp_path / "whole.tif") as one, rasterio.open(tmp_path / "blocks.tif") as two:
        np.testing.assert_allclose(one.read(), two.read(), atol=1e-5)
    # One window over all of it has the same features in its middle, where the others' borders are far.
    shown = shown_by_config(parsed(config), device="cpu")
    (scene,) = shown.scenes
    cells, _ = shown.encoder.cells(image_batch([scene.read(scene.grid.window)], shown.encoder.spec))
    with rasterio.open(tmp_path / "whole.tif") as dataset:
        middle = dataset.read()[:, 6:10, 6:10]
    np.testing.assert_allclose(middle, unit(cells[0])[:, 6:10, 6:10], atol=1e-4)


def test_nodata_stays_and_formats_agree(config, tmp_path, write_tif):
    with rasterio.open(config["data"]["image"][0]["path"]) as dataset:
        values = dataset.read()
    values[:, 40:60, 50:90] = 0
    write_tif("image.tif", values, bands=["green", "red", "nir"], nodata=0)
    settings = replace(ONE, size_px=32)
    for dtype in ("int8", "float16", "float32"):
        embed(parsed(config), tmp_path / f"{dtype}.tif", settings=replace(settings, dtype=dtype))
    embed(parsed(config), tmp_path / "tessera", settings=replace(settings, tessera=True))
    (scene,) = open_scenes(parsed(config).data)
    rows, cols = np.mgrid[3:96:9, 3:128:11].reshape(2, -1)
    lonlat = [scene.grid.lat_lon(Window(r, c, 1, 1))[::-1] for r, c in zip(rows, cols, strict=True)]
    found = {name: read_pixels(tmp_path / f"{name}.tif", lonlat=lonlat) for name in ("int8", "float16", "float32")}
    found["tessera"] = read_pixels(tmp_path / "tessera", lonlat=lonlat)
    hole = (rows >= 40) & (rows < 60) & (cols >= 50) & (cols < 90)
    for name, vectors in found.items():
        assert np.isnan(vectors[hole]).all(), name
        assert np.isfinite(vectors[~hole]).all(), name
        assert np.abs(vectors - found["float32"])[~hole].max() < {"float16": 1e-3}.get(name, 0.01), name
    at = np.stack([rows // 2, cols // 2], 1)
    np.testing.assert_array_equal(read_pixels(tmp_path / "float32.tif", rowcol=at), found["float32"])


def test_many_scenes_go_into_a_folder_and_what_is_there_stays(config, tmp_path):
    path = config["data"]["image"][0]["path"]
    (tmp_path / "many").mkdir()
    for name in "ab":
        shutil.copy(path, tmp_path / "many" / f"{name}.tif")
    config["data"] = {"image": [{"path": str(tmp_path / "many/*.tif"), "date": DATE}]}
    settings = replace(ONE, size_px=32)
    with pytest.raises(OutputError, match="there are 2 scenes, and one file"):
        embed(parsed(config), tmp_path / "e.tif", settings=settings)
    done = embed(parsed(config), tmp_path / "out", settings=settings)
    assert [file.name for file in done.files] == ["a.tif", "a.stac.json", "b.tif", "b.stac.json"]
    (tmp_path / "out/b.tif").unlink()
    done = embed(parsed(config), tmp_path / "out", settings=settings)
    assert [file.name for file in done.files] == ["b.tif", "b.stac.json"]
    (tmp_path / "out/b.tif").unlink()
    os.utime(tmp_path / "many/a.tif", (4e9, 4e9))  # from a machine whose clock is wrong
    assert len(embed(parsed(config), tmp_path / "out", settings=settings).files) == 2
    os.utime(tmp_path / "many/a.tif")
    os.utime(tmp_path / "out/a.tif")
    with pytest.raises(OutputError, match="of another encoder"):
        embed(parsed(config, train=config["train"] | {"seed": 3}), tmp_path / "out", settings=settings)
    shutil.copyfile(path, tmp_path / "many/a.tif")  # another image of the same name
    with pytest.raises(OutputError, match="of another encoder or image"):
        embed(parsed(config), tmp_path / "out", settings=settings)
    with pytest.raises(OutputError, match="join scenes that share a cell"):
        embed(parsed(config), tmp_path / "t", settings=replace(settings, tessera=True))


def test_a_model_s_encoder_over_an_image(config, tmp_path, covermap):
    folder = saved_model(tmp_path / "model")
    path = config["data"]["image"][0]["path"]
    code, out, _ = covermap("embed", folder, f"{path}@{DATE}", tmp_path / "m.parquet", "--size", 16, "--json")
    assert code == 0
    assert json.loads(out)["count"] == 48
    found = Embeddings.read(tmp_path / "m.parquet")
    assert found.encoder["weights"] == "trained: r"
    assert found.class_pixels is None
    item = json.loads((tmp_path / "m.stac.json").read_text())
    assert item["links"] == [{"rel": "emb:model", "href": "model/item.stac.json", "type": "application/geo+json"}]
    code, out, _ = covermap("embed", folder, path, tmp_path / "m.tif")
    assert code == 0
    assert "no STAC item was written" in out
    one = embed(folder, tmp_path / "n.parquet", images=[ImageConfig(path=path, date=DATE)], settings=ONE)
    assert one.count == 48
    assert (tmp_path / "n.parquet").read_bytes() == (tmp_path / "m.parquet").read_bytes()


def test_a_config_that_starts_from_a_model_has_its_encoder(config, tmp_path):
    folder = saved_model(tmp_path / "model")
    path = config["data"]["image"][0]["path"]
    config["model"] = {"start": str(folder)}
    embed(parsed(config), tmp_path / "c.parquet", settings=ONE)
    embed(folder, tmp_path / "m.parquet", images=[ImageConfig(path=path, date=DATE)], settings=ONE)
    one, two = Embeddings.read(tmp_path / "c.parquet"), Embeddings.read(tmp_path / "m.parquet")
    assert one.encoder["parameters_sha256"] == two.encoder["parameters_sha256"]
    np.testing.assert_allclose(one.values, two.values, rtol=1e-5, atol=1e-6)
    assert one.class_pixels is not None
    with pytest.raises(ConfigError, match=r"model\.extra adds features behind the encoder"):
        embed(parsed(config, model={"extra": str(folder)}), tmp_path / "x.parquet", settings=ONE)


def test_the_command_line_says_what_was_made(config, tmp_path, covermap):
    import yaml

    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    code, out, err = covermap("embed", tmp_path / "c.yaml", tmp_path / "e.parquet", "--set", "train.seed=4")
    assert code == 0
    assert "48 embeddings of 16 numbers (test " in out
    assert "random weights (seed 4)" in out
    assert "a second" in err
    for arguments, said in (
        ([tmp_path / "c.yaml", "image.tif", "e.parquet"], "goes with a model"),
        ([tmp_path / "c.yaml", "e.parquet", "--sensor", "sentinel2"], "--sensor goes with a model"),
        ([tmp_path / "model", "e.parquet"], "a model needs an image"),
        ([tmp_path / "c.yaml", "e.parquet", "--pool", "cls"], "--pool cls is not known"),
        ([tmp_path / "c.yaml", "e", "--format", "zarr"], "--format zarr is not known"),
    ):
        code, _, err = covermap("embed", *arguments)
        assert code == 1
        assert said in err
        assert "fix:" in err


@pytest.mark.parametrize(
    ("out", "change", "error", "said"),
    [
        ("e.csv", {}, OutputError, "not written as .csv"),
        ("e.parquet", {"size_px": 1}, ConfigError, "chips of 1 px are smaller than the 2 px that unet needs"),
        ("e.parquet", {"dtype": "int8"}, ConfigError, "--dtype has no effect"),
        ("e.parquet", {"valid": 1.5}, ConfigError, "is no share"),
        ("e.tif", {"pool": "max"}, ConfigError, "--pool has no effect on pixels"),
        ("e.tif", {"dtype": "int4"}, ConfigError, "--dtype int4 is not known"),
        ("e.tif", {"size_px": 33}, ConfigError, "whole multiples of 2 px"),
        ("e.tif", {"tessera": True}, ConfigError, "name a folder"),
    ],
)
def test_what_cannot_be_is_refused(config, tmp_path, out, change, error, said):
    with pytest.raises(error, match=said):
        embed(parsed(config), tmp_path / out, settings=replace(ONE, **change))
    assert not (tmp_path / out).exists()
    assert not list(tmp_path.glob("*.work"))


def test_an_empty_image_leaves_nothing_behind(config, tmp_path, write_tif):
    folder = saved_model(tmp_path / "model")
    path = write_tif("empty.tif", np.zeros((3, 64, 64), np.uint16), bands=["green", "red", "nir"], nodata=0)
    images = [ImageConfig(path=path, date=DATE)]
    with pytest.raises(DataError, match=r"no chip of 16 px has 50% of its pixels valid \(16 were looked at\)"):
        embed(folder, tmp_path / "e.parquet", images=images, settings=ONE)
    with pytest.raises(DataError, match="has no valid cell"):
        embed(folder, tmp_path / "e.tif", images=images, settings=replace(ONE, size_px=32))
    assert not list(tmp_path.glob("e.*"))
    undated = [ImageConfig(path=path)]
    with pytest.raises(DataError, match="TESSERA's folders are years"):
        embed(folder, tmp_path / "t", images=undated, settings=replace(ONE, size_px=32, tessera=True))


def test_a_forest_has_no_encoder_and_strides_must_be_whole(config, tmp_path, monkeypatch):
    folder = saved_model(tmp_path / "model")
    card = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(card | {"kind": "forest"}))
    with pytest.raises(ModelError, match="is a forest: it has no encoder"):
        embed(folder, tmp_path / "e.tif", images=[ImageConfig(path=config["data"]["image"][0]["path"])], settings=ONE)
    shown = shown_by_config(parsed(config), device="cpu")
    shown.encoder.backbone.strides = (1.75, 3.5)
    with pytest.raises(ModelError, match=r"cells of 3\.5 px"):
        _ = shown.encoder.stride


def test_without_pyarrow_it_says_what_to_install(config, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match="pyarrow"):
        embed(parsed(config), tmp_path / "e.parquet", settings=ONE)


def test_what_follows_from_the_position_within_a_chip_is_kept_by_unit(config, tmp_path, monkeypatch):
    large = replace(ONE, size_px=32)
    whole = embed(parsed(config), tmp_path / "whole.parquet", settings=large)
    monkeypatch.setattr(embed_chips, "_PIECE_PX", 32)
    monkeypatch.setattr(embed_chips, "_UNIT_PX", 32 * 32)
    out = tmp_path / "killed.parquet"

    def kill(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(parsed(config), out, settings=large, on_progress=kill)
    embed(parsed(config), out, settings=large)
    one, other = (share_of(tmp_path / name) for name in ("whole.parquet", "killed.parquet"))
    assert one["cells"] == [16, 16]
    assert one["chips"] == other["chips"] == 12
    assert one["expected"] == 255 / (12 * 256 - 1)
    assert other["share"] == pytest.approx(one["share"], rel=1e-6)
    assert any("follows from their position within the chip" in note for note in whole.notes)
    shown = shown_by_config(parsed(config), device="cpu")
    (scene,) = shown.scenes
    samples = [scene.read(Window(32 * (i // 4), 32 * (i % 4), 32, 32)) for i in range(12)]
    cells = np.concatenate([shown.encoder.cells(image_batch([s], shown.encoder.spec))[0] for s in samples])
    cells = cells.astype(np.float64)
    between = 12 * ((cells.mean(0) - cells.mean((0, 2, 3))[:, None, None]) ** 2).sum()
    assert one["share"] == pytest.approx(
        between / ((cells - cells.mean((0, 2, 3))[:, None, None]) ** 2).sum(), rel=1e-4
    )
    odd = embed(parsed(config), tmp_path / "odd.parquet", settings=replace(ONE, size_px=20))
    told = share_of(tmp_path / "odd.parquet")  # chips at the right and lower end are not whole
    assert (told["cells"], told["chips"], odd.count) == ([10, 10], 24, 30)


def share_of(path):
    import pyarrow.parquet

    return facts_of(pyarrow.parquet.ParquetFile(path))["positional_share"]
