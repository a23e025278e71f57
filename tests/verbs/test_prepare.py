"""Labels onto a coarser grid: a part of the file stands for all of its codes only as long as that is true."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from covermap.core.errors import LabelError
from covermap.data import labels
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
    told = prepare(path, tmp_path / "out.tif", gsd_m=40, resampling="mode")
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
