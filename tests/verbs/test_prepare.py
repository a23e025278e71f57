"""Labels onto a coarser grid: a part of the file stands for all of its codes only as long as that is true."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from covermap.core.errors import ConfigError, LabelError
from covermap.data import labels
from covermap.verbs import prepare as verb
from covermap.verbs.prepare import prepare


@pytest.fixture
def many_blocks(monkeypatch):
    """Labels are read for their codes in blocks so small that there are many of them."""
    cut = labels.partition
    monkeypatch.setattr(labels, "partition", lambda area, height, width: cut(area, 8, 16))


def test_a_code_that_the_part_read_first_does_not_show_is_kept(write_tif, tmp_path, many_blocks):
    codes = np.ones((64, 64), "uint8")
    codes[40:60, 20:40] = 7  # in none of the blocks 0, 8, 16, 24
    codes[:4] = 3
    path = write_tif("labels.tif", codes, nodata=0)
    assert labels.infer_legend(path, every=8).codes == (1, 3)
    told = prepare(path, tmp_path / "out.tif", gsd_m=40, resampling="mode").told
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.read(1) == codes[2::4, 2::4]).all()
    assert "  7 class 7: 25 px" in told


def test_values_that_are_no_codes_are_refused_also_where_they_are_rare(write_tif, tmp_path, many_blocks):
    values = np.ones((64, 64), "float32")
    values[50, 30] = 1.5
    path = write_tif("labels.tif", values)
    with pytest.raises(LabelError, match=r"no class codes, such as 1\.5"):
        prepare(path, tmp_path / "out.tif", gsd_m=40, resampling="mode")
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("gsd", [10, 7])
@pytest.mark.parametrize("method", ["nearest", "mode", "weighted_mode"])
def test_the_report_says_what_each_method_would_give(write_tif, tmp_path, monkeypatch, method, gsd):
    # A road one pixel wide: 1 % of the scene, beside the pixel in the middle of each block.
    monkeypatch.setattr(verb, "LABEL_BLOCK_PX", 16)
    codes = np.ones((300, 310), "uint8")
    codes[::100] = 2
    codes[150:, 200:] = 3
    codes[:10, :20] = 0
    path = write_tif("labels.tif", codes, nodata=0, gsd=1)
    done = prepare(path, tmp_path / "out.tif", gsd_m=gsd, resampling=method, report_loss=True)
    for other in ("nearest", "mode", "weighted_mode"):
        prepare(path, tmp_path / f"{other}.tif", gsd_m=gsd, resampling=other, legend=write_legend(tmp_path))
        with rasterio.open(tmp_path / f"{other}.tif") as file, rasterio.open(tmp_path / "out.tif") as mine:
            found = file.read(1)
            assert other != method or (found == mine.read(1)).all()
        for loss in done.losses:
            assert loss[other] == (found == loss["code"]).sum() / (found > 0).sum()
    if gsd == 10:
        assert [loss["pixels"] for loss in done.losses] == [(codes == code).sum() for code in (1, 2, 3)]
        assert [loss["loss"] for loss in done.losses] == ["", "nearest: lost, mode: lost", ""]
        table = (tmp_path / "out.classes.csv").read_text().splitlines()
        assert table[0] == "code,class,pixels,share,nearest,mode,weighted_mode,loss"
        assert table[2].startswith("2,class 2,800,")


def write_legend(folder):
    path = folder / "legend.yaml"
    path.write_text("{name: three, nodata: 0, classes: [{code: 1, name: a}, {code: 2, name: b}, {code: 3, name: c}]}")
    return str(path)


def test_a_report_of_something_else_is_refused(write_tif, tmp_path):
    path = write_tif("image.tif", np.ones((3, 32, 32), "uint8"), bands=["red", "green", "blue"])
    with pytest.raises(LabelError, match="3 bands"):
        prepare(path, tmp_path / "out.tif", gsd_m=20, report_loss=True)
    with pytest.raises(ConfigError, match="--report-loss counts"):
        prepare("fields.gpkg", tmp_path / "out.tif", like=path, field="crop", report_loss=True)
