"""A map in another legend, pixel by pixel as the crosswalk says, finished as any map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from covermap.core.errors import ConfigError, LabelError, OutputError
from covermap.core.legend import load_legend
from covermap.geo.products import legend_of_map
from covermap.verbs.reclassify import reclassify

COVER = np.array([0, *load_legend("esa_worldcover").codes], np.uint8)


@pytest.fixture
def cover(write_tif):
    codes = COVER[np.random.default_rng(0).integers(0, 12, (70, 130))]
    return codes, write_tif("wc.tif", codes, nodata=0)


def test_each_pixel_goes_where_the_crosswalk_says(cover, tmp_path: Path) -> None:
    codes, path = cover
    done = reclassify(path, tmp_path / "esri.tif", target="esri_io", legend="esa_worldcover", date="2021")
    to = {0: 0, 10: 2, 20: 11, 30: 11, 40: 5, 50: 7, 60: 8, 70: 9, 80: 1, 90: 4, 95: 0, 100: 0}
    with rasterio.open(tmp_path / "esri.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.vectorize(to.get)(codes))
        assert file.nodata == 0
        assert file.tags()["COVERMAP_CROSSWALK"] == "esa_worldcover > esri_io"
    assert [(row["code"], row["pixels"]) for row in done.lost] == [(c, (codes == c).sum()) for c in (95, 100)]
    assert legend_of_map(tmp_path / "esri.tif") == load_legend("esri_io")
    item = json.loads((tmp_path / "esri.stac.json").read_text())
    assert item["properties"]["start_datetime"].startswith("2021")
    # The result says what its codes mean, and when it was seen.
    again = reclassify(tmp_path / "esri.tif", tmp_path / "ipcc.tif", target="ipcc")
    assert again.lost == []
    assert (tmp_path / "ipcc.stac.json").is_file()


def test_a_crosswalk_file_says_where_to(cover, tmp_path: Path) -> None:
    codes, path = cover
    raw = {
        "from": "esa_worldcover", "to": {"name": "two", "nodata": 0, "classes": [{"code": 300, "name": "Green"}, {"code": 1, "name": "Rest"}]},
        "classes": {c: "Green" if c < 50 else "Rest" for c in load_legend("esa_worldcover").codes},
    }  # fmt: skip
    (tmp_path / "walk.yaml").write_text(yaml.safe_dump(raw))
    reclassify(path, tmp_path / "two.tif", legend="esa_worldcover", crosswalks=[tmp_path / "walk.yaml"])
    with rasterio.open(tmp_path / "two.tif") as file:
        np.testing.assert_array_equal(file.read(1), np.where(codes == 0, 0, np.where(codes < 50, 300, 1)))
        assert file.dtypes == ("uint16",)


def test_refusals(cover, write_tif, tmp_path: Path) -> None:
    _, path = cover
    with pytest.raises(ConfigError, match="not said which legend"):
        reclassify(path, tmp_path / "x.tif", legend="esa_worldcover")
    with pytest.raises(LabelError, match="does not say what its codes mean"):
        reclassify(path, tmp_path / "x.tif", target="ipcc")
    with pytest.raises(LabelError, match="no legend called 'ipccc'"):
        reclassify(path, tmp_path / "x.tif", target="ipccc", legend="esa_worldcover")
    with pytest.raises(LabelError, match=r"hold codes .* 95 \("):
        reclassify(path, tmp_path / "x.tif", target="ipcc", legend="esri_io")
    with pytest.raises(ConfigError, match=r"does not end in \.tif"):
        reclassify(path, tmp_path / "x.png", target="ipcc", legend="esa_worldcover")
    with pytest.raises(OutputError, match="is an input"):
        reclassify(path, path, target="ipcc", legend="esa_worldcover", overwrite=True)
    moss = write_tif("moss.tif", np.full((20, 20), 100, np.uint8), nodata=0)
    with pytest.raises(LabelError, match="no class of it has a counterpart"):
        reclassify(moss, tmp_path / "x.tif", target="esri_io", legend="esa_worldcover")
    empty = write_tif("empty.tif", np.zeros((20, 20), np.uint8), nodata=0)
    with pytest.raises(LabelError, match="it holds no class"):
        reclassify(empty, tmp_path / "x.tif", target="esri_io", legend="esa_worldcover")
    assert not list(tmp_path.glob("x*"))
    assert not list(tmp_path.glob(".*"))
    reclassify(path, tmp_path / "x.tif", target="ipcc", legend="esa_worldcover")
    with pytest.raises(OutputError, match="exists already"):
        reclassify(path, tmp_path / "x.tif", target="ipcc", legend="esa_worldcover")


def test_by_the_command_line(covermap, cover, tmp_path: Path) -> None:
    _, path = cover
    code, out, _ = covermap("legend", "crosswalk", "corine", "ipcc")
    assert code == 0
    assert "Sea and ocean" in out
    assert "none" in out
    code, out, _ = covermap("legend", "crosswalk", "esri_io", "esa_worldcover", "--json")
    told = json.loads(out)
    assert told["route"] == ["esri_io", "esa_worldcover"]
    assert next(row for row in told["classes"] if row["name"] == "Rangeland")["to_code"] is None
    code, out, _ = covermap(
        "legend", "apply", path, tmp_path / "esri.tif", "--legend", "esa_worldcover", "--to", "esri_io"
    )
    assert code == 0
    assert "no counterpart: 95 Mangroves" in out
    code, out, _ = covermap("legend", "apply", tmp_path / "esri.tif", tmp_path / "ipcc.tif", "--to", "ipcc", "--json")
    assert json.loads(out)["no_counterpart"] == []
    code, _, err = covermap("legend", "crosswalk", "wusu", "ipcc")
    assert code == 1
    assert "has no crosswalk to 'ipcc'" in err
