"""Codes, scales, overviews and files of embedding rasters."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from covermap.geo.embedding_codes import (
    DTYPES,
    NODATA,
    decode,
    dequantise,
    encode,
    halved,
    quantise,
    unit,
    with_scale,
)
from covermap.geo.embedding_cog import band_names, finished_embeddings, plain_writer
from covermap.geo.grid import Grid
from covermap.geo.tessera import cell_name, write_cells


def vectors(dimensions, height, width, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(dimensions, height, width)).astype(np.float32))


def written(path, values, dtype, *, crs="EPSG:32631"):
    grid = Grid(CRS.from_user_input(crs), Affine(10, 0, 5e5, 0, -10, 5e6), *values.shape[1:])
    with plain_writer(path, grid, len(values), dtype) as writer:
        writer.write(grid.window, encode(values, dtype))
    return path


def test_all_255_codes_come_back_and_nodata_is_masked():
    codes = np.arange(-127, 128, dtype=np.int8)
    values = dequantise(codes)
    np.testing.assert_array_equal(quantise(values), codes)
    np.testing.assert_allclose(values, np.sign(codes) * (np.abs(codes.astype(float)) / 127.5) ** 2, rtol=1e-6)
    assert np.isnan(dequantise(np.array([NODATA], np.int8))).all()
    assert quantise(np.array([np.nan, 1.0, -1.0, 0.0], np.float32)).tolist() == [NODATA, 127, -127, 0]


def test_scales_give_back_the_numbers_to_half_a_step():
    values = 3 * vectors(5, 4, 3)
    values[:, 0, 0], values[:, 1, 1] = np.nan, 0
    codes, scale = with_scale(values)
    assert codes.dtype == np.int8
    assert np.isnan(scale[0, 0])
    back = codes * scale
    known = np.isfinite(values)
    assert (np.abs(back - values)[known] <= np.broadcast_to(scale, values.shape)[known] / 2 + 1e-6).all()
    assert not back[:, 1, 1].any()


def test_halves_are_means_of_what_is_known_brought_to_length_1():
    values = vectors(6, 5, 7)
    values[:, :2, :2] = np.nan
    values[:, 2, 0] = np.nan
    half = halved(values)
    assert half.shape == (6, 3, 4)
    assert np.isnan(half[:, 0, 0]).all()
    three = values[:, [2, 3, 3], [1, 0, 1]].mean(1)
    np.testing.assert_allclose(half[:, 1, 0], three / np.linalg.norm(three), rtol=1e-5)
    np.testing.assert_allclose(half[:, 2, 3], values[:, 4, 6], rtol=1e-5)  # the corner alone


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_finished_raster_is_a_cog_with_overviews_of_unit_length(tmp_path, dtype):
    from rio_cogeo import cog_validate

    values = vectors(4, 601, 530)
    values[:, :100, :64] = np.nan
    out = tmp_path / "o.tif"
    with finished_embeddings(written(tmp_path / "p.tif", values, dtype), out, dtype, tags={"A": "b"}):
        pass
    assert cog_validate(out)[0]
    step = {"int8": 0.02, "float16": 1e-3, "float32": 1e-6}[dtype]
    with rasterio.open(out) as dataset:
        assert list(dataset.descriptions) == band_names(4) == ["A00", "A01", "A02", "A03"]
        assert dataset.dtypes[0] == ("int8" if dtype == "int8" else "float32")
        assert dataset.tags()["A"] == "b"
        assert dataset.overviews(1) == [2, 4]
        full = decode(dataset.read(), dataset.nodata)
    assert np.isnan(full[:, :100, :64]).all()
    known = np.isfinite(values)
    assert np.abs(full - values)[known].max() < step
    above = decode(encode(values, dtype))
    for level in (0, 1):
        with rasterio.open(out, overview_level=level) as dataset:
            seen = decode(dataset.read(), dataset.nodata)
        above = decode(encode(halved(above), dtype))
        np.testing.assert_allclose(seen, above, atol=step)
        length = np.linalg.norm(seen, axis=0)
        assert np.isnan(length[: 100 >> (level + 1), : 64 >> (level + 1)]).all()
        assert np.abs(length[np.isfinite(length)] - 1).max() < 2 * step + 1e-5


def test_cells_of_a_tenth_of_a_degree_hold_the_vectors(tmp_path):
    values = vectors(3, 300, 400)
    values[:, :20] = np.nan
    plain = written(tmp_path / "p.tif", values, "float32")
    files = write_cells(plain, tmp_path / "out", "2024", overwrite=False)
    assert files
    names = {file.parent.name for file in files}
    assert cell_name(3.01, 45.14) == "grid_3.05_45.15"
    assert cell_name(-0.01, -0.01) == "grid_-0.05_-0.05"
    assert names == {"grid_3.05_45.15", "grid_3.05_45.05", "grid_3.05_45.25"} & names
    name = sorted(names)[0]
    folder = tmp_path / "out/2024" / name
    codes, scales = np.load(folder / f"{name}.npy"), np.load(folder / f"{name}_scales.npy")
    assert codes.dtype == np.int8
    assert codes.shape[:2] == scales.shape
    with rasterio.open(folder / f"{name}.tiff") as dataset:
        assert (dataset.height, dataset.width) == scales.shape
        row = round((5e6 - dataset.transform.f) / 10)
        np.testing.assert_array_equal(dataset.read(1) > 0, np.isfinite(scales))
    truth = values[:, row : row + scales.shape[0], : scales.shape[1]].transpose(1, 2, 0)
    known = np.isfinite(truth)
    assert np.abs(codes * scales[..., None] - truth)[known].max() < 1 / 127
