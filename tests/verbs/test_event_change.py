"""Change of images without labels: event --kind change, on a generated pair and on Taizhou's labelled pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from covermap.core.config import ImageConfig
from covermap.core.errors import ConfigError
from covermap.data import event_index
from covermap.data.event_index import METHODS
from covermap.metrics.confusion import Confusion
from covermap.verbs.event import event

HIT = np.zeros((260, 300), bool)
HIT[40:110, 60:150] = True


def write(path: Path, values: np.ndarray) -> ImageConfig:
    place = {"crs": CRS.from_epsg(32630), "transform": Affine(10, 0, 5e5, 0, -10, 4.5e6)}
    with rasterio.open(
        path, "w", driver="GTiff", height=HIT.shape[0], width=HIT.shape[1], count=len(values), dtype="float32",
        nodata=-1, **place,
    ) as file:  # fmt: skip
        file.write(values.astype(np.float32))
        file.descriptions = ("green", "red", "nir")[: len(values)]
    return ImageConfig(path=str(path))


def pair(folder: Path, bands: int = 3, *, hit: bool = True) -> tuple[list[ImageConfig], list[ImageConfig]]:
    """Another sun and haze everywhere, other ground in HIT; the first rows hold nothing after it."""
    random = np.random.default_rng(0)
    ground = random.gamma(4, 100, (bands, *HIT.shape))
    gain, haze = random.uniform(0.4, 1.6, (2, bands, 1, 1))
    after = gain * ground + 100 * haze + random.normal(0, 8, ground.shape)
    if hit:
        after[:, HIT] = gain[:, 0] * random.gamma(4, 100, (bands, HIT.sum())) + 350
    after[:, :6] = -1
    return [write(folder / "before.tif", ground)], [write(folder / "after.tif", after)]


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_what_changed(tmp_path: Path, method: str, bands: int) -> None:
    before, after = pair(tmp_path, bands)
    cut = "otsu" if bands == 1 else "kmeans"  # two names of one thing
    done = event(before, after, tmp_path / "map.tif", kind="change", method=method, cut=cut)
    with rasterio.open(tmp_path / "map.tif") as file:
        codes = file.read(1)
    assert (codes[:6] == 0).all()
    recall, false = (codes[6:] == 2)[HIT[6:]].mean(), (codes[6:] == 2)[~HIT[6:]].mean()
    assert recall > (0.9 if method == "irmad" and bands == 3 else 0.5)
    assert false < (0.02 if method == "irmad" else 0.2)
    assert done.name == "change"
    assert any("where all pixels part into two groups" in note for note in done.notes)
    with rasterio.open(tmp_path / "change.tif") as file:
        assert np.isnan(file.read(1)[:6]).all()


def test_where_nothing_changed_little_is_mapped_and_it_is_said(tmp_path: Path) -> None:
    before, after = pair(tmp_path, hit=False)
    done = event(before, after, tmp_path / "map.tif", kind="change")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.read(1) == 2).mean() < 0.02
    assert any("pixels do not part into two groups" in note for note in done.notes)
    assert any("correlations came to rest" in note for note in done.notes)


def test_of_large_scenes_some_blocks_teach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = pair(tmp_path)
    found = []
    for most in (event_index.MOST_BLOCKS, 2):
        monkeypatch.setattr(event_index, "MOST_BLOCKS", most)
        event(before, after, tmp_path / f"{most}.tif", kind="change", cut="otsu")
        with rasterio.open(tmp_path / f"{most}.tif") as file:
            found.append(file.read(1))
    assert (found[0] == found[1]).mean() > 0.99


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    before, after = pair(tmp_path)
    for setting, message in (
        ({"kind": "change", "method": "irmda"}, "no index 'irmda' of change"),
        ({"kind": "damage", "method": "mad"}, "no index 'mad' of damage"),
        ({"kind": "change", "cut": "ots"}, "no cut 'ots'"),
        ({"kind": "change", "cut": "otsu", "threshold": 1.0}, "both a threshold"),
    ):
        with pytest.raises(ConfigError, match=message):
            event(before, after, tmp_path / "map.tif", **setting)  # type: ignore[arg-type]


def test_taizhou(covermap, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/landsat_cd_taizhou"
    if not folder.exists():
        pytest.skip("needs ../shared/data/landsat_cd_taizhou")
    code, out, err = covermap(
        "event", folder / "2000TM", folder / "2003TM", tmp_path / "map.tif", "--kind", "change",
        "--bands", "blue,green,red,nir,swir1,swir2",
    )  # fmt: skip
    assert code == 0, err
    assert "IR-MAD" in out
    with rasterio.open(tmp_path / "map.tif") as file:
        found = file.read(1) - 1
    masks = []
    for name in ("change", "unchanged"):
        with rasterio.open(folder / f"{name}.bmp") as file:
            masks.append(file.read(1) > 0)
    reference = np.where(masks[0], 1, np.where(masks[1], 0, 255)).astype(np.uint8)
    confusion = Confusion(2)
    confusion.add(reference, found)
    assert confusion.total == 4227 + 17163
    assert confusion.per_class()["f1"][1] >= 0.94
    assert confusion.scores()["kappa"] >= 0.93
