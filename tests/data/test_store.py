"""The store: what is written equals what was read, stops and goes on, and says why a tile is missing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine

from covermap.core.config import Box, CloudConfig, DataConfig, ImageConfig, SplitConfig
from covermap.core.config_file import load_config, parse_config
from covermap.core.errors import CovermapError, DataError, OutputError
from covermap.core.output import at_work
from covermap.data import store
from covermap.data.scene import open_scenes
from covermap.data.store import Ledger, verify, write_store
from covermap.data.tiles import Tiling, cut
from covermap.geo.grid import Grid, Window
from covermap.geo.plain import PlainFile
from covermap.start import prepare_run
from covermap.verbs.prepare_scenes import prepare_scenes

BANDS = ["blue", "green", "red", "nir"]


@pytest.fixture
def config(write_tif):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 9000, (4, 150, 220)).astype("uint16")
    image[:, :40, :60] = 0
    labels = rng.integers(1, 4, (150, 220)).astype("uint8")
    labels[100:] = 0
    write_tif("image.tif", image, bands=BANDS, nodata=0)
    return DataConfig(
        image=write_tif("image.tif", image, bands=BANDS, nodata=0),
        labels=write_tif("labels.tif", labels, nodata=0),
        sensor="planetscope",
    )


@pytest.fixture
def tiny_config(config, write_tif, tmp_path):
    labels = np.kron(np.random.default_rng(2).integers(1, 4, (15, 22)), np.ones((10, 10))).astype("uint8")
    write_tif("labels.tif", labels, nodata=0)
    return parse_config({
        "data": config.model_dump(exclude_defaults=True), "output": str(tmp_path / "runs"),
        "train": {"epochs": 2, "size_px": 32}, "baseline": False, "split": {"block_px": 30, "buffer_px": 2},
    })  # fmt: skip


def prepared(root):
    return open_scenes(DataConfig(source="prepared", root=str(root)))


def assert_same(one, other, window=None):
    a = one.read(window or one.grid.window, labels=True)
    b = other.read(window or other.grid.window, labels=True)
    assert one.grid.is_same(other.grid)
    assert (a.valid == b.valid).all()
    for sensor, values in a.image.items():
        assert (np.where(a.valid[:, None], values, 0) == np.where(b.valid[:, None], b.image[sensor], 0)).all()
    assert one.legend.codes == other.legend.codes
    assert (a.label == b.label).all()


def test_pixels_labels_and_legend_come_back(config, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BLOCK_PX", 64)
    write_store(config, tmp_path / "out")
    (before,), (after,) = open_scenes(config), prepared(tmp_path / "out")
    assert_same(before, after)
    assert_same(before, after, Window(-20, 100, 90, 224))
    assert after.rasters["planetscope"].dtype == "uint16"
    assert verify(tmp_path / "out") == []


def test_the_files_are_plain_geotiffs_that_hold_no_empty_squares(config, tmp_path, write_tif):
    image = np.zeros((4, 600, 900), "uint16")
    image[:, :256, :256] = 7
    config = DataConfig(image=write_tif("wide.tif", image, bands=BANDS, nodata=0), labels=None, sensor="planetscope")
    write_store(config, tmp_path / "out")
    path = tmp_path / "out/wide/planetscope_1.tif"
    with rasterio.open(path) as file:
        assert (file.compression, file.block_shapes[0], file.descriptions) == (None, (256, 256), tuple(BANDS))
        assert (file.read() == image).all()
    assert path.stat().st_size < 1.2 * 4 * 2 * 256**2
    (scene,) = prepared(tmp_path / "out")
    assert scene.read(scene.grid.window).valid.sum() == 256**2


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_pixels_without_data_stay_so_in_files_without_nodata(write_tif, tmp_path, dtype):
    image = np.arange(3 * 40 * 50).reshape(3, 40, 50).astype(dtype)
    first = write_tif("one.tif", image, bands=["red", "green", "blue"])
    coarse = write_tif("two.tif", image[:1, ::2, ::2][:, :, :20].copy(), bands=["elevation"], gsd=20)
    images = [ImageConfig(path=first, sensor="rgb"), ImageConfig(path=coarse, sensor="dem")]
    config = DataConfig(image=images)
    write_store(config, tmp_path / "out")
    (before,), (after,) = open_scenes(config), prepared(tmp_path / "out")
    a, b = before.read(before.grid.window), after.read(after.grid.window)
    assert not a.valid[:, :, 45:].any()
    assert (a.valid == b.valid).all()
    assert (a.image["rgb"] == b.image["rgb"]).all()
    assert after.rasters["rgb"].dtype == dtype


def test_the_offset_of_sentinel2_is_taken_off_for_good(write_tif, tmp_path):
    image = np.random.default_rng(1).integers(1005, 6000, (3, 64, 64)).astype("uint16")
    image[:, 0, 0] = 0
    path = write_tif("s2.tif", image, bands=["blue", "green", "red"], nodata=0)
    config = DataConfig(image=path, sensor="sentinel2")
    told = write_store(config, tmp_path / "out", tiling=Tiling(32))
    assert any("1000" in line for line in told)
    first, *_ = prepared(tmp_path / "out")
    assert first.rasters["sentinel2"].dtype == "int16"
    assert first.added["sentinel2"] == (0.0,)
    sample = first.read(first.grid.window)
    assert not sample.valid[0, 0, 0]
    expected = image[:, :32, :32].astype(int) - 1000
    assert (sample.image["sentinel2"][0] == expected)[:, sample.valid[0]].all()


def test_a_stopped_writer_goes_on_where_it_was(config, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BLOCK_PX", 64)
    written = []
    plain = PlainFile.write

    def fails_after_two(self, blocks):
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(self.path.name)
        return plain(self, blocks)

    monkeypatch.setattr(PlainFile, "write", fails_after_two)
    with pytest.raises(OSError, match="No space left"):
        write_store(config, tmp_path / "out")
    with pytest.raises(DataError, match="no finished prepared data"):
        prepared(tmp_path / "out")
    with open(tmp_path / "out/ledger.jsonl", "a") as ledger:
        ledger.write('{"file": "image/plan')  # a line that was being written
    count = []
    monkeypatch.setattr(PlainFile, "write", lambda self, blocks: count.append(1) or plain(self, blocks))
    write_store(config, tmp_path / "out")
    assert len(count) == 2 * 3 - 2  # rows of blocks of two files, less those of the first call
    assert_same(*open_scenes(config), *prepared(tmp_path / "out"))
    assert verify(tmp_path / "out") == []
    with pytest.raises(OutputError, match="finished already"):
        write_store(config, tmp_path / "out")


def test_other_settings_do_not_go_on_in_the_same_folder(config, tmp_path):
    write_store(config, tmp_path / "out")
    with pytest.raises(OutputError, match="other files or settings"):
        write_store(config, tmp_path / "out", tiling=Tiling(64))
    write_store(config, tmp_path / "out", tiling=Tiling(64), overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.doc").write_text("years of work")
    with pytest.raises(OutputError, match="no folder of prepared data"):
        write_store(config, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine/thesis.doc").exists()


def test_what_a_killed_writer_tore_is_written_anew(config, tmp_path, monkeypatch):
    """A file without its directory, as GDAL leaves it, and one whose finished block is not what the ledger says."""
    monkeypatch.setattr(store, "BLOCK_PX", 64)
    plain = PlainFile.write

    def killed_after_one(self, blocks):
        if self.partial.is_file():
            raise KeyboardInterrupt
        return plain(self, blocks)

    monkeypatch.setattr(PlainFile, "write", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        write_store(config, tmp_path / "out")
    (half,) = (tmp_path / "out").rglob("*.partial.tif")
    monkeypatch.setattr(PlainFile, "write", plain)
    for torn in (b"II*\0\x08\0\0\0", b"", half.read_bytes()[:-3000] + bytes(3000)):
        half.write_bytes(torn)
        shutil.copytree(tmp_path / "out", tmp_path / "copy")
        write_store(config, tmp_path / "copy")
        assert verify(tmp_path / "copy") == []
        assert not list((tmp_path / "copy").rglob("*.partial.*"))
        shutil.rmtree(tmp_path / "copy")


def test_a_folder_is_written_by_one_call_and_looks_finished_only_at_the_end(config, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with at_work(out, alone=True), pytest.raises(OutputError, match="another call is at work"):
        write_store(config, out)

    def fail(manifest):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(config, out, beside=fail)
    write_store(config, out, beside=lambda manifest: (out / "covermap.yaml").write_text("x"))
    monkeypatch.setattr(shutil, "rmtree", fail)  # while it is emptied
    with pytest.raises(KeyboardInterrupt):
        write_store(config, out, overwrite=True)
    with pytest.raises(DataError, match="no finished prepared data"):
        prepared(out)
    monkeypatch.undo()
    write_store(config, out, overwrite=True)
    assert verify(out) == []


def test_a_full_disk_is_said(config, tmp_path, monkeypatch):
    def full(*_, **__):
        raise rasterio.errors.RasterioIOError("write failed: No space left on device")

    monkeypatch.setattr(PlainFile, "_open", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_store(config, tmp_path / "out")


def test_damage_is_found(config, tmp_path):
    write_store(config, tmp_path / "out")
    with rasterio.open(tmp_path / "out/image/class.tif", "r+") as file:
        file.write(np.full((1, 1), 3, "uint8"), 1, window=Window(0, 0, 1, 1).rasterio)
    assert verify(tmp_path / "out") in (["image/class.tif"], [])
    (tmp_path / "out/image/planetscope_1.tif").unlink()
    assert "image/planetscope_1.tif" in verify(tmp_path / "out")


@pytest.mark.parametrize("edge", ["shift", "pad"])
@pytest.mark.parametrize("overlap", [0, 16])
def test_tiles_put_together_are_the_scene(config, tmp_path, edge, overlap):
    write_store(config, tmp_path / "out", tiling=Tiling(64, overlap, edge))
    (whole,) = open_scenes(config)
    full = whole.read(whole.grid.window, labels=True)
    seen = np.zeros((150, 220), bool)
    for tile in prepared(tmp_path / "out"):
        assert (tile.grid.height, tile.grid.width) == (64, 64)
        x, y = map(int, tile.name.split("_")[1:])
        assert whole.grid.window_grid(Window(y, x, 64, 64)).is_same(tile.grid)
        part = tile.read(tile.grid.window, labels=True)
        rows, cols = slice(y, min(150, y + 64)), slice(x, min(220, x + 64))
        inner = slice(0, rows.stop - y), slice(0, cols.stop - x)
        seen[rows, cols] = True
        assert (part.valid[0][inner] == full.valid[0][rows, cols]).all()
        good = part.valid[0][inner]
        here, there = part.image["planetscope"][0][:, *inner], full.image["planetscope"][0][:, rows, cols]
        assert (here == there)[:, good].all()
        assert (part.label[inner] == full.label[rows, cols]).all()
    assert seen.all()


def test_every_dropped_tile_has_its_reason(config, tmp_path):
    (scene,) = open_scenes(config)
    tiles = {t.name: t.dropped for t in cut(scene, Tiling(32, max_nodata=0.5, min_labelled=0.1))}
    assert tiles["image_0_0"] == "no data"
    assert tiles["image_32_0"] == "87.5% without data"
    assert tiles["image_64_118"] == "0.0% labelled"
    assert tiles["image_64_64"] == ""
    told = write_store(config, tmp_path / "out", tiling=Tiling(32, max_nodata=0.5, min_labelled=0.1))
    rows = (tmp_path / "out/tiles.csv").read_text().splitlines()
    assert len(rows) == 1 + len(tiles)
    assert sum(row.endswith(",") for row in rows[1:]) == len(prepared(tmp_path / "out"))
    assert any("tiles left out: no data" in line for line in told)


def test_a_tile_of_forest_alone_is_kept_and_of_water_alone_is_not(write_tif, tmp_path):
    labels = np.ones((32, 96), "uint8")
    labels[:, 32:64] = 2
    labels[:, 80:] = 2
    config = DataConfig(
        image=write_tif("i.tif", np.full((1, 32, 96), 5, "uint8"), bands=["red"]), sensor="rgb",
        labels=write_tif("l.tif", labels), legend={1: "forest", 2: "water"},
    )  # fmt: skip
    (scene,) = open_scenes(config)
    assert [t.dropped for t in cut(scene, Tiling(32, only=("water",)))] == ["", "only water", ""]
    with pytest.raises(CovermapError, match="watre"):
        cut(scene, Tiling(32, only=("watre",)))


def test_a_path_of_the_manifest_that_leaves_the_folder_is_refused(config, tmp_path):
    write_store(config, tmp_path / "out")
    path = tmp_path / "out/store.json"
    found = json.loads(path.read_text())
    found["scenes"][0]["images"][0]["path"] = "../image.tif"
    path.write_text(json.dumps(found))
    with pytest.raises(DataError, match="leads out of"):
        prepared(tmp_path / "out")
    path.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        prepared(tmp_path / "out")


def test_the_folder_can_be_moved(config, tmp_path):
    write_store(config, tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert_same(*open_scenes(config), *prepared(tmp_path / "elsewhere"))


def test_a_ledger_reads_back(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add("a.tif", [(Window(0, 0, 5, 5), 17)])
    assert Ledger(tmp_path / "ledger.jsonl").done == {"a.tif": {Window(0, 0, 5, 5): 17}}


def test_the_config_that_prepare_writes_trains_on_the_same_parts(tiny_config, tmp_path):
    told = prepare_scenes(tiny_config, tmp_path / "out")
    assert told[-1] == f"next: covermap train {tmp_path / 'out/covermap.yaml'}"
    new = load_config(tmp_path / "out/covermap.yaml")
    before, after = prepare_run(tiny_config), prepare_run(new)
    assert before.split.tiles == after.split.tiles
    assert (before.survey.class_px == after.survey.class_px).all()
    first, second = before.spec.sensors[0], after.spec.sensors[0]
    assert (first.bands, first.mean, first.std, first.scale) == (second.bands, second.mean, second.std, second.scale)
    assert new.train == tiny_config.train


def test_named_scenes_become_their_tiles_and_boxes_are_not_guessed(tiny_config, tmp_path):
    named = tiny_config.model_copy(update={"split": SplitConfig(test=["image"], val=0.0)})
    prepare_scenes(named, tmp_path / "named", tiling=Tiling(64))
    found = load_config(tmp_path / "named/covermap.yaml").split.test
    assert sorted(found) == sorted(scene.name for scene in prepared(tmp_path / "named"))
    boxed = tiny_config.model_copy(update={"split": SplitConfig(test=Box(cols=(0, 40)))})
    told = prepare_scenes(boxed, tmp_path / "boxed", tiling=Tiling(64))
    assert any("boxes of split" in line for line in told)
    assert load_config(tmp_path / "boxed/covermap.yaml").split == SplitConfig()


def test_a_dry_run_counts_and_writes_nothing(tiny_config, tmp_path):
    told = prepare_scenes(tiny_config, tmp_path / "out", tiling=Tiling(64, min_labelled=0.5), dry_run=True)
    assert "scenes, at most" in told[0]
    assert not (tmp_path / "out").exists()


def test_fractions_without_a_number_become_nodata_of_whole_numbers(tmp_path):
    values = np.array([[[1.4, np.nan], [70000.0, -3.0]]], "float32")
    file = PlainFile(tmp_path / "a.tif", Grid(None, Affine.identity(), 2, 2), ("red",), "uint16", 9.0)
    file.write([(Window(0, 0, 2, 2), values, np.isfinite(values[0]))])
    file.finish()
    with rasterio.open(tmp_path / "a.tif") as written:
        assert written.read(1).tolist() == [[1, 9], [65535, 0]]


def test_each_date_keeps_its_own_clouds(write_tif, tmp_path):
    image = np.full((1, 40, 40), 500, "uint16")
    clear, cloudy = np.zeros((2, 40, 40), "uint8")
    cloudy[:, 20:] = 1
    entries = [
        ImageConfig(
            path=write_tif(f"i{n}.tif", image, bands=["red"], nodata=0), sensor="sentinel2", date=f"2020-0{n}-01",
            clouds=CloudConfig(path=write_tif(f"c{n}.tif", mask), specification="mask"), offset=0,
        )
        for n, mask in ((1, clear), (2, cloudy))
    ]  # fmt: skip
    write_store(DataConfig(image=entries), tmp_path / "out")
    (scene,) = prepared(tmp_path / "out")
    valid = scene.read(scene.grid.window).valid
    assert valid[0].all()
    assert (valid[1] == (cloudy == 0)).all()
