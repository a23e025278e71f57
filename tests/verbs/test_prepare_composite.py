"""Several dates as one image, by the verb and the command."""

import numpy as np
import pytest
import rasterio

from covermap.core.config import DataConfig
from covermap.core.errors import ConfigError, DataError, OutputError
from covermap.core.registry import find
from covermap.data.scene import open_scenes
from covermap.verbs import prepare as verb
from covermap.verbs.prepare import prepare


@pytest.fixture
def dates(write_tif):
    """Five dates with gaps: values (5, 2, 300, 200) with 0 for nothing, and the files."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 3000, (5, 2, 300, 200)).astype("uint16")
    values = np.where(rng.random((5, 1, 300, 200)) > 0.5, values, 0).astype("uint16")
    paths = [
        write_tif(f"d{t}.tif", v, bands=["red", "nir"], nodata=0) + f"@2023-0{t + 1}-15" for t, v in enumerate(values)
    ]
    return values, paths


def read(path):
    with rasterio.open(path) as dataset:
        assert np.isnan(dataset.nodata)
        return dataset.read()


@pytest.mark.filterwarnings("ignore:.*empty slice", "ignore:All-NaN")
@pytest.mark.parametrize(("method", "oracle"), [("median", np.nanmedian), ("mean", np.nanmean)])
def test_blocks_together_equal_numpy(dates, tmp_path, monkeypatch, method, oracle):
    values, paths = dates
    monkeypatch.setattr(verb, "COMPOSITE_BYTES", 1)  # blocks of 128 px
    ticks = []
    told = prepare(paths, tmp_path / "out.tif", composite=method, on_progress=lambda *at: ticks.append(at)).told
    assert ticks[-1] == (6, 6)
    gaps = np.where(values > 0, values, np.nan).astype(float)
    np.testing.assert_allclose(read(tmp_path / "out.tif"), oracle(gaps, axis=0), rtol=1e-6)
    never, mean = (values[:, 0] == 0).all(0).mean(), (values[:, 0] > 0).sum(0).mean()
    assert told[-1] == f"  not valid on any date: {never:.1%}; valid dates of a pixel: {mean:.1f}"
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.descriptions == ("red", "nir")


def test_a_period_is_chosen_by_date(dates, tmp_path):
    values, paths = dates
    told = prepare(paths[::-1], tmp_path / "out.tif", composite="mean", dates="2023-02/2023-03-15").told
    assert any("mean of 2 images: 2023-02-15, 2023-03-15" in line for line in told)
    assert any("3 images are of other dates" in line for line in told)
    found = read(tmp_path / "out.tif")
    both = (values[1:3, 0] > 0).all(0)
    assert found[:, both] == pytest.approx(values[1:3][:, :, both].mean(0))
    for given, error, message in (
        ({"dates": "2024/2025"}, DataError, "none of the 5 images is of 2024/2025: they are of 2023-01-15"),
        ({"composite": None, "dates": "2023"}, ConfigError, "need --composite"),
        ({"composite": None}, ConfigError, "several images or --dates need --composite"),
        ({"field": "class"}, ConfigError, "not with labels"),
        ({"resampling": "mode"}, ConfigError, "is not for images"),
        ({"composite": "max"}, ConfigError, "--composite max is not known"),
    ):
        with pytest.raises(error, match=message):
            prepare(paths, tmp_path / "b.tif", **{"composite": "mean"} | given)
    with pytest.raises(ConfigError, match=r"the date of .*d0\.tif is not known"):
        prepare([p.split("@")[0] for p in paths], tmp_path / "b.tif", composite="mean", dates="2023")
    with pytest.raises(OutputError, match="is an input"):
        prepare(paths, paths[1].split("@")[0], composite="mean", overwrite=True)
    assert not (tmp_path / "b.tif").exists()


def test_every_date_has_the_mask_of_its_name(write_tif, tmp_path):
    values = np.full((3, 1, 40, 40), 100, "uint16") * np.arange(1, 4, dtype="uint16").reshape(3, 1, 1, 1)
    paths = [write_tif(f"d{t}.tif", v, bands=["red"]) for t, v in enumerate(values)]
    for t in range(3):
        mask = np.zeros((40, 40), "uint8")
        mask[10 * t : 10 * (t + 1)] = 1
        write_tif(f"masks/d{t}_cloud.tif", mask)
    clouds = f"mask:{tmp_path}/masks/*.tif"
    prepare(paths, tmp_path / "out.tif", composite="mean", clouds=clouds)
    found = read(tmp_path / "out.tif")[0]
    assert [found[10 * i, 0] for i in range(4)] == pytest.approx([250, 200, 150, 200])
    prepare(paths[0], tmp_path / "one.tif", clouds=f"mask:{tmp_path}/masks/d0_cloud.tif")
    with rasterio.open(tmp_path / "one.tif") as one:
        assert (one.read(1)[:10] == 0).all()
        assert (one.read(1)[10:] == 100).all()
    write_tif("masks/d1_other.tif", np.zeros((40, 40), "uint8"))
    for given, message in (
        (clouds, r"has 2 for d1\n.*name a mask as its image"),
        (f"{tmp_path}/masks/d0*.tif", "has none for d1"),
        (f"{tmp_path}/masks/d0_cloud.tif", "auto, none or a pattern: each date has its own"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            prepare(paths, tmp_path / "b.tif", composite="mean", clouds=given)


def test_clouds_of_products_are_left_out_and_filled(tmp_path, covermap):
    """One product is without clouds: under the clouds of the other the composite is that product's."""
    find("source", "safe").write_miniature(tmp_path / "s2")
    first, second = sorted((tmp_path / "s2").glob("*T32UNE*.SAFE"))
    scl = next(second.rglob("*_SCL_20m.jp2"))
    scl.unlink()  # nothing says that the second is cloudy

    def run(*arguments):
        code, out, err = covermap(*arguments)
        assert not code, err
        return out

    out = tmp_path / "mean.tif"
    said = run("prepare", first, second, out, "--composite", "mean")
    assert "mean of 2 images: 2021-07-10, 2023-07-10" in said
    found = read(out)
    assert found.shape == (12, 120, 120)
    one, two = (open_scenes(DataConfig(image=str(p)))[0] for p in (first, second))
    values = [s.read(s.grid.window).image["sentinel2"][0] for s in (one, two)]
    assert found[:, :40, :40] == pytest.approx(values[1][:, :40, :40], rel=1e-5)
    assert found[:, 40:, 40:] == pytest.approx((values[0] + values[1])[:, 40:, 40:] / 2, rel=1e-5)
    run("prepare", first, tmp_path / "one.tif", "--gsd", "20")
    assert np.isnan(read(tmp_path / "one.tif")[:, :20, :20]).all()
    run("prepare", first, tmp_path / "all.tif", "--clouds", "none")
    assert read(tmp_path / "all.tif") == pytest.approx(values[0])
