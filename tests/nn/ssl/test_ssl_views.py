"""Views: their affines for all symmetries, regions that two of them share, and what chance does to brightness."""

import numpy as np
import pytest
import torch

from covermap.core.errors import ConfigError, DataError
from covermap.core.pretrain_config import ViewConfig
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.nn.ssl.heads import region_average
from covermap.nn.ssl.views import SYMMETRIES, View, Views, crop, inverse, matched_regions, move_boxes, resample

SIZE = 32


def entry(sensor, *bands, dates=1):
    return SensorInput(sensor, bands, (0.0,) * len(bands), (2.0,) * len(bands), num_dates=dates)


SPEC = InputSpec((entry("sentinel2", "red", "nir", dates=2), entry("sentinel1", "vv", "vh"), entry("dem", "elevation")))
STILL = ViewConfig(brightness=0, scale=(0.3, 1.0))
SEEDS = [11, 12, 13, 14]


def coordinates(size=SIZE, num=4, dates=2):
    """Windows of which band 0 is x and band 1 is y of each pixel's centre."""
    at = torch.arange(size) + 0.5
    image = torch.stack([at.expand(size, size), at[:, None].expand(size, size)]).expand(num, 1, 2, -1, -1)
    return Batch(
        {
            "sentinel2": image.repeat(1, dates, 1, 1, 1),
            "sentinel1": image.clone(),
            "dem": image[:, :, :1].clone(),
        },
        torch.ones(num, dates, size, size, dtype=torch.bool),
    )  # fmt: skip


def windows(num=4, size=SIZE):
    generator = torch.Generator().manual_seed(0)
    image = {
        e.sensor: torch.randn(num, e.num_dates, len(e.bands), size, size, generator=generator) for e in SPEC.sensors
    }
    return Batch(image, torch.ones(num, 2, size, size, dtype=torch.bool))


def test_symmetries_are_the_eight_of_the_square():
    found = {tuple(each.round().astype(int).flatten()) for each in SYMMETRIES}
    assert len(found) == 8
    assert all(abs(each).sum(0).tolist() == [1, 1] for each in SYMMETRIES)


@pytest.mark.parametrize("symmetry", range(8))
def test_an_affine_says_where_each_pixel_lies(symmetry):
    affine = torch.from_numpy(crop(20.0, np.array([3.0, 7.5]), symmetry, 16))[None]
    seen = resample(coordinates(num=1), affine, 16)
    at = torch.arange(16, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    expected = torch.einsum("ij,hwj->ihw", affine[0], torch.stack([x, y, torch.ones_like(x)], -1))
    torch.testing.assert_close(seen.image["sentinel1"][0, 0].double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.image["dem"][0, 0, 0].double(), expected[0], rtol=0, atol=1e-4)
    assert seen.valid.all()
    assert View(seen, affine).extent.tolist() == [[3.0, 7.5, 23.0, 27.5]]
    back = move_boxes(inverse(affine), move_boxes(affine, torch.tensor([[[1.0, 2.0, 5.0, 9.0]]]).double()))
    torch.testing.assert_close(back, torch.tensor([[[1.0, 2.0, 5.0, 9.0]]]).double())


@pytest.mark.parametrize("symmetry", range(8))
def test_a_whole_window_is_only_turned(symmetry):
    batch = windows(num=1)
    seen = resample(batch, torch.from_numpy(crop(SIZE, np.zeros(2), symmetry, SIZE))[None], SIZE)
    x = batch.image["sentinel1"][0, 0]
    turned = [torch.rot90(y, k, (1, 2)) for y in (x, x.flip(2)) for k in range(4)]
    near = [float((seen.image["sentinel1"][0, 0] - each).abs().max()) for each in turned]
    assert min(near) < 1e-4
    assert sum(each < 1e-4 for each in near) == 1


def test_regions_hold_the_same_pixels_in_both_views():
    views = Views(STILL, SPEC, ("sentinel2", "sentinel1"), SIZE)
    shared = 0
    for seed in range(20):
        seeds = [seed * 10 + i for i in range(4)]
        first, second = views(coordinates(), seeds, 0), views(coordinates(), seeds, 1)
        *boxes, there = matched_regions(first, second, seeds, count=3, side_px=8)
        shared += int(there.sum())
        means = [
            region_average(view.batch.image["sentinel1"][:, 0], where)
            for view, where in zip((first, second), boxes, strict=True)
        ]
        torch.testing.assert_close(means[0][there], means[1][there], rtol=0, atol=2e-2)
        # In the window: squares of the side that was asked for, apart from each other, at that mean.
        inside = move_boxes(first.affine, boxes[0].double())
        middle = (inside[..., :2] + inside[..., 2:]) / 2
        torch.testing.assert_close(means[0].double()[there], middle[there], rtol=0, atol=2e-2)
        torch.testing.assert_close(
            (inside[..., 2:] - inside[..., :2])[there], torch.full((int(there.sum()), 2), 8.0).double()
        )
        for corners, exist in zip(inside[..., :2], there, strict=True):
            for i in range(3):
                for j in range(i):
                    assert not (exist[i] and exist[j]) or float((corners[i] - corners[j]).abs().max()) >= 8 - 1e-6
    assert shared > 100


def test_a_pixel_is_valid_where_all_that_it_is_made_of_is():
    batch = windows()
    batch.valid[0, 0, 10, 10] = False
    batch.image["sentinel2"][0, 0, :, 10, 10] = 1e9
    seen = resample(batch, torch.from_numpy(crop(20.0, np.array([4.2, 4.2]), 0, SIZE))[None].repeat(4, 1, 1), SIZE)
    lost = ~seen.valid[0, 0]
    assert 4 <= lost.sum() <= 16
    assert (seen.image["sentinel2"][0, 0, :, lost] == 0).all()
    assert seen.image["sentinel2"].abs().max() < 10
    assert seen.valid[0, 1].all()
    assert (seen.image["sentinel1"][0, 0, :, lost] != 0).all()  # of one date, which goes with any
    assert seen.valid[1:].all()


def test_what_a_window_shows_follows_from_its_own_seed():
    config = ViewConfig(noise=0.1, speckle=4, drop_bands=0.3)
    views = Views(config, SPEC, ("sentinel2", "sentinel1"), SIZE)
    whole = views(windows(), SEEDS, 1)
    again = views(windows(), SEEDS, 1)
    part = views(_half(windows()), SEEDS[2:], 1)
    assert torch.equal(whole.affine[2:], part.affine)
    for name, x in whole.batch.image.items():
        assert torch.equal(x, again.batch.image[name])
        assert torch.equal(x[2:], part.batch.image[name])
    without = Views(config, SPEC, ("sentinel1",), SIZE)(windows(), SEEDS, 1)
    assert torch.equal(without.batch.image["sentinel1"], whole.batch.image["sentinel1"])
    other = views(windows(), SEEDS, 0)
    assert not torch.equal(other.affine, whole.affine)


def _half(batch):
    return Batch({name: x[2:] for name, x in batch.image.items()}, batch.valid[2:])


def test_brightness_varies_in_the_inputs_alone_and_missing_bands_stay_missing():
    batch = windows()
    batch.image["sentinel1"][1] = 0  # this window lacks the sensor
    batch.image["sentinel2"][2, :, 1] = 0  # and this one a band
    plain = Views(STILL, SPEC, ("sentinel2", "sentinel1"), SIZE)(batch, SEEDS, 0).batch.image
    seen = Views(ViewConfig(noise=0.1), SPEC, ("sentinel2", "sentinel1"), SIZE)(batch, SEEDS, 0).batch.image
    assert torch.equal(plain["dem"], seen["dem"])
    assert (seen["sentinel1"][1] == 0).all()
    assert (seen["sentinel2"][2, :, 1] == 0).all()
    assert (seen["sentinel1"][0] != plain["sentinel1"][0]).all()


def test_speckle_is_laid_on_backscatter_alone_and_keeps_the_mean_power():
    config = ViewConfig(brightness=0, speckle=4)
    batch = windows(size=128)
    views = Views(config, SPEC, ("sentinel2", "sentinel1"), 128)
    plain = Views(STILL, SPEC, ("sentinel1",), 128)(batch, SEEDS, 0).batch.image
    seen = views(batch, SEEDS, 0).batch.image
    assert torch.equal(plain["sentinel2"], seen["sentinel2"])
    power = 10 ** ((seen["sentinel1"] - plain["sentinel1"]) * 2 / 10)
    assert float(power.mean()) == pytest.approx(1, abs=0.01)
    assert float(power.var()) == pytest.approx(1 / 4, abs=0.01)


def test_bands_are_dropped_of_all_dates_and_one_stays():
    seen = Views(ViewConfig(brightness=0, drop_bands=0.99), SPEC, ("sentinel2",), SIZE)(windows(), SEEDS, 0).batch
    gone = (seen.image["sentinel2"] == 0).flatten(3).all(-1)
    assert (gone.sum(2) == 1).all()
    assert torch.equal(gone[:, 0], gone[:, 1])


def test_settings_without_effect_are_refused():
    with pytest.raises(ConfigError, match="speckle has no effect"):
        Views(ViewConfig(speckle=4), SPEC, ("sentinel2",), SIZE)
    power = InputSpec((SensorInput("sentinel1", ("vv", "vh"), (0.1, 0.02), (1.0, 1.0)),))
    with pytest.raises(ConfigError, match=r"mean of 0\.1, which is no backscatter"):
        Views(ViewConfig(speckle=4), power, ("sentinel1",), SIZE)
    with pytest.raises(ConfigError, match="drop_bands has no effect"):
        Views(ViewConfig(drop_bands=0.5), SPEC, ("dem",), SIZE)
    oblong = Batch({"dem": torch.zeros(1, 1, 1, 8, 16)}, torch.ones(1, 1, 8, 16, dtype=torch.bool))
    with pytest.raises(DataError, match="8 x 16"):
        Views(STILL, SPEC, ("dem",), SIZE)(oblong, [0], 0)
