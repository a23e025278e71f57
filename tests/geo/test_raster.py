import functools
import http.server
import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as copy_raster
from rasterio.transform import from_origin

from covermap.core.errors import BandError, DataError, GridError, OutputError
from covermap.core.sensors import find_sensor
from covermap.data import miniature
from covermap.geo.grid import Grid, Window, windows
from covermap.geo.pictures import read_overview
from covermap.geo.plain import PlainFile
from covermap.geo.raster import open_raster, stack_dates
from covermap.geo.writer import RasterWriter

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 12])
def test_round_trip_of_any_type_through_windows_is_bit_exact(write_tif, tmp_path, dtype, count):
    values = RNG.integers(0, 255, (count, 70, 90)).astype(dtype)
    values[:, 10:20, 5:9] = 7
    names = [f"b{i}x" for i in range(count)]
    source = open_raster(write_tif("in.tif", values, bands=names, nodata=7))
    with RasterWriter(tmp_path / "out.tif", source.grid, bands=names, dtype=dtype, nodata=7) as writer:
        for window in windows(source.grid.window, 32, 5):
            writer.write(window, source.read(window)[0][0])
    with rasterio.open(tmp_path / "in.tif") as a, rasterio.open(tmp_path / "out.tif") as b:
        assert np.array_equal(a.read(), b.read())
        assert (a.crs, a.transform, a.nodata, a.descriptions) == (b.crs, b.transform, b.nodata, b.descriptions)


def test_valid_is_false_for_nodata_nan_inf_and_outside(write_tif):
    values = np.ones((2, 8, 8), "float32")
    values[0, 0, 0], values[1, 1, 1], values[0, 2, 2] = np.nan, np.inf, -9999
    raster = open_raster(write_tif("a.tif", values, bands=["red", "nir"], nodata=-9999))
    _, valid = raster.read(Window(-1, -1, 10, 10))
    expected = np.zeros((10, 10), bool)
    expected[1:9, 1:9] = True
    for i in range(3):
        expected[i + 1, i + 1] = False
    assert np.array_equal(valid[0], expected)


def test_bands_are_picked_by_name_whatever_the_file_order(write_tif):
    values = np.stack([np.full((4, 4), i) for i in (1, 2, 3, 4)]).astype("uint16")
    raster = open_raster(write_tif("g.tif", values, bands=["Blue", "B2_green", "RED", "NIR"]))
    assert raster.bands == ("blue", "green", "red", "nir")
    picked = raster.select(["red", "green", "blue"]).read()[0]
    assert picked[0, :, 0, 0].tolist() == [3, 2, 1]
    with pytest.raises(BandError, match="no band 'swir1'"):
        raster.select(["swir1"])


def test_a_difference_of_two_bands_is_read_in_floating_point(write_tif):
    vv, vh = np.full((4, 4), 30_000, "int16"), np.full((4, 4), -30_000, "int16")
    vh[0, 0] = -1
    one = open_raster(write_tif("s1.tif", np.stack([vv, vh]), bands=["VV", "VH"]))
    picked = one.select(["vv-vh", "vh", "VH-VV"])
    values, _ = picked.read(Window(-1, 0, 2, 2))
    assert picked.bands == ("vv-vh", "vh", "vh-vv")
    assert (values.dtype, picked.differences) == (np.float32, (True, False, True))
    assert values[0, :, 1, 1].tolist() == [60_000, -30_000, -60_000]
    assert values[0, :, 0, 1].tolist() == [0, 0, 0]  # outside
    # The two sides lie in two files, and one of them is a band of its own as well.
    apart = open_raster([write_tif("a_VV.tif", vv), write_tif("a_VH.tif", vh)]).select(["vv", "vh-vv"])
    assert apart.read()[0][0, :, 1, 1].tolist() == [30_000, -60_000]
    assert len(apart.paths) == 2
    assert apart.select(["vh-vv"]).read()[0][0, 0, 0, 0] == -30_001
    assert read_overview(apart, 4)[0][:, 1, 1].tolist() == [30_000, -60_000]
    assert [raster.bands for raster in apart.by_file()] == [("vv", "vh-vv"), ("vh-vv",)]
    with pytest.raises(BandError, match="no band 'vv-hh'"):
        one.select(["vv-hh"])


def test_nameless_and_double_bands_are_refused(write_tif):
    values = np.zeros((3, 4, 4), "uint8")
    nameless = write_tif("n.tif", np.zeros((5, 4, 4), "uint8"))
    with pytest.raises(BandError, match="5 bands without names"):
        open_raster(nameless)
    with pytest.raises(BandError, match="two bands mean blue"):
        open_raster(write_tif("d.tif", values, bands=["B02", "blue", "red"]), sensor=find_sensor("sentinel2"))
    with pytest.raises(BandError, match="2 names were given"):
        open_raster(write_tif("e.tif", values), bands=["red", "green"])


def test_a_sensor_names_a_nameless_file_with_exactly_its_bands(write_tif):
    raster = open_raster(write_tif("l.tif", np.zeros((6, 4, 4), "int16")), sensor=find_sensor("landsat7"))
    assert raster.bands == ("blue", "green", "red", "nir", "swir1", "swir2")


def test_a_folder_of_bands_at_three_resolutions_is_brought_to_the_finest(write_tif):
    fine = RNG.integers(100, 200, (60, 60)).astype("uint16")
    write_tif("s2/T31_B02.tif", fine, gsd=10)
    write_tif("s2/T31_B05.tif", np.full((30, 30), 500, "uint16"), gsd=20)
    write_tif("s2/T31_B01.tif", np.full((10, 10), 900, "uint16"), gsd=60)
    folder = write_tif("s2/T31_B8A.tif", np.kron([[10, 30]], np.ones((30, 15))).astype("uint16"), gsd=20)
    raster = open_raster(folder.rsplit("/", 1)[0], sensor=find_sensor("sentinel2"))
    assert raster.bands == ("coastal", "blue", "rededge1", "nir_narrow")
    values, valid = raster.read()
    assert values.shape == (1, 4, 60, 60)
    assert valid.all()
    assert np.array_equal(values[0, 1], fine)
    assert (values[0, 0] == 900).all()
    assert (values[0, 2] == 500).all()
    assert values[0, 3, 0, 0] == 10
    assert values[0, 3, 0, -1] == 30
    piece, _ = raster.read(Window(13, 17, 20, 20))
    assert np.array_equal(piece, values[:, :, 13:33, 17:37])


def test_files_of_different_crs_in_one_image_are_refused(write_tif):
    write_tif("m/a_red.tif", np.zeros((8, 8), "uint8"))
    path = write_tif("m/a_nir.tif", np.zeros((8, 8), "uint8"), crs="EPSG:32632")
    with pytest.raises(GridError, match="EPSG:32632"):
        open_raster(path.rsplit("/", 1)[0])


def test_a_coarser_pixel_size_averages(write_tif):
    values = np.arange(64, dtype="float32").reshape(8, 8)
    raster = open_raster(write_tif("f.tif", values, bands=["red"]), gsd_m=80)
    got, valid = raster.read()
    assert raster.grid.height == raster.grid.width == 1
    assert valid.all()
    assert got[0, 0, 0, 0] == pytest.approx(values.mean(), rel=0.05)


def test_vrt(write_tif, tmp_path):
    values = RNG.integers(0, 99, (2, 20, 20)).astype("uint8")
    path = write_tif("v.tif", values, bands=["red", "nir"])
    copy_raster(path, tmp_path / "v.vrt", driver="VRT")
    raster = open_raster(tmp_path / "v.vrt")
    assert raster.bands == ("red", "nir")
    assert np.array_equal(raster.read()[0][0], values)


def test_http(write_tif, tmp_path):
    values = RNG.integers(0, 99, (2, 600, 600)).astype("uint8")
    write_tif("cog.tif", values, bands=["red", "nir"], tiled=True, blockxsize=256, blockysize=256)

    class Ranges(http.server.SimpleHTTPRequestHandler):
        """Serves byte ranges, as any store of COGs does."""

        def log_message(self, *args):
            pass

        def do_GET(self):
            data = (tmp_path / self.path.lstrip("/")).read_bytes()
            first, last = 0, len(data) - 1
            if span := self.headers.get("Range"):
                first, last = (int(v) if v else len(data) - 1 for v in span.removeprefix("bytes=").split("-"))
                last = min(last, len(data) - 1)
            self.send_response(206 if span else 200)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            self.wfile.write(data[first : last + 1])

    handler = functools.partial(Ranges, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        raster = open_raster(f"http://127.0.0.1:{server.server_port}/cog.tif")
        got, _ = raster.read(Window(300, 200, 40, 50))
        server.shutdown()
    assert np.array_equal(got[0], values[:, 300:340, 200:250])


def test_what_is_no_raster_is_said(tmp_path, write_tif):
    (tmp_path / "text.tif").write_text("not a raster")
    for path, words in (("text.tif", "not a raster"), ("none.tif", "no file"), ("empty", "no raster")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=words):
            open_raster(tmp_path / path)


def test_a_truncated_file_names_itself_and_the_place(write_tif, tmp_path):
    values = RNG.integers(0, 255, (3, 400, 400)).astype("uint8")
    path = write_tif("t.tif", values, bands=["red", "green", "blue"], compress="deflate")
    data = (tmp_path / "t.tif").read_bytes()
    (tmp_path / "t.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"t\.tif"):
        open_raster(path).read(Window(350, 0, 50, 400))


def _wrong_windows(raster, want, seed):
    """Windows out of forty drawn by lot whose numbers are not those of the file."""
    rng = np.random.default_rng(seed)
    height, width = want.shape[1:]
    wrong = 0
    for _ in range(40):
        row, col = int(rng.integers(height - 40)), int(rng.integers(width - 40))
        window = Window(row, col, int(rng.integers(1, 40)), int(rng.integers(1, 40)))
        wrong += not np.array_equal(raster.read(window)[0][0], want[(slice(None), *window.slices)])
    return wrong


def _compressed(write_tif, values):
    return write_tif("k.tif", values, bands=["red", "nir"], tiled=True, blockxsize=32, blockysize=32, compress="lzw")


def _as_mosaic(write_tif, values):
    cut = values[:, :, :300], values[:, :, 300:]
    return [
        write_tif(f"m{i}.tif", part, bands=["red", "nir"], origin=(500_000 + 3000 * i, 5_000_000), compress="deflate",
                  tiled=True, blockxsize=32, blockysize=32)
        for i, part in enumerate(cut)
    ]  # fmt: skip


def _plain(write_tif, values):
    grid = open_raster(_compressed(write_tif, values)).grid
    file = PlainFile(Path(write_tif("p.tif", values[:1, :1, :1])), grid, ("red", "nir"), "uint16", 0)
    file.path.unlink()
    file.write([(grid.window, values, np.ones(values.shape[1:], bool))])
    file.finish()
    return str(file.path)


def _netcdf(write_tif, values):
    path = Path(write_tif("n.tif", values[:1, :1, :1])).with_suffix(".nc")
    miniature.write_variable(path, values, "v", {"band": ["red", "nir"]})
    return str(path)


@pytest.mark.parametrize("form", [_compressed, _as_mosaic, _plain, _netcdf])
def test_handles_opened_before_a_fork_do_not_disturb_each_other(write_tif, form):
    """The parent reads first and goes on reading beside four forked and two spawned processes."""
    values = RNG.integers(1, 60_000, (2, 500, 600)).astype("uint16")
    path = form(write_tif, values)
    given = {"variable": "v", "bands": ["red", "nir"]} if form is _netcdf else {"tiles": form is _as_mosaic}
    raster = open_raster(path, **given)
    assert _wrong_windows(raster, values, 0) == 0
    pools = [multiprocessing.get_context("fork").Pool(4), multiprocessing.get_context("spawn").Pool(2)]
    try:
        found = [
            pool.starmap_async(_wrong_windows, [(raster, values, seed) for seed in range(1, 13)], chunksize=1)
            for pool in pools
        ]
        beside = [_wrong_windows(raster, values, seed) for seed in range(20, 40)]
        assert [each for async_ in found for each in async_.get(120)] == [0] * 24
        assert beside == [0] * 20
    finally:
        for pool in pools:
            pool.terminate()
            pool.join()


def test_dates_are_stacked_by_band_name_not_by_order(write_tif):
    one = open_raster(write_tif("d1.tif", np.stack([np.full((4, 4), v) for v in (1, 2)]).astype("uint8"), bands=["red", "nir"]), date="2020-01-01")  # fmt: skip
    two = open_raster(write_tif("d2.tif", np.stack([np.full((4, 4), v) for v in (20, 10)]).astype("uint8"), bands=["nir", "red"]), date="2021-01-01")  # fmt: skip
    both = stack_dates([one, two])
    assert both.read()[0][:, :, 0, 0].tolist() == [[1, 2], [10, 20]]
    assert both.dates == ("2020-01-01", "2021-01-01")
    with pytest.raises(BandError):
        stack_dates([one, two.select(["red"])])


def test_an_existing_output_stays_without_overwrite(write_tif, tmp_path):
    grid = open_raster(write_tif("x.tif", np.zeros((4, 4), "uint8"), bands=["red"])).grid
    before = (tmp_path / "x.tif").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        RasterWriter(tmp_path / "x.tif", grid, bands=["a"], dtype="uint8")
    assert (tmp_path / "x.tif").read_bytes() == before


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    grid = Grid(None, rasterio.Affine.identity(), 4, 4)

    def fail():
        with RasterWriter(tmp_path / "y.tif", grid, bands=["a"], dtype="uint8") as writer:
            writer.write(Window(0, 0, 2, 4), np.zeros((2, 4), "uint8"))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
@pytest.mark.parametrize(("kind", "nodata"), [("uint16", 0), ("float32", np.nan)])
def test_nodata_of_one_band_alone_does_not_bleed_into_its_neighbours(write_tif, resampling, kind, nodata):
    values = np.full((2, 40, 40), 1000, kind)
    values[0, 20, 20] = nodata
    raster = open_raster(write_tif("one.tif", values, bands=["a", "b"], nodata=nodata))
    side = 30 if resampling == "average" else 10
    grid = Grid(raster.grid.crs, from_origin(500_005, 4_999_995, side, side), 390 // side, 390 // side)
    found, valid = raster.on(grid, resampling=resampling).read(grid.window)
    assert valid.any()
    np.testing.assert_allclose(found[0][:, valid[0]], 1000, rtol=1e-6)
