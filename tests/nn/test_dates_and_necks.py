import pytest
import torch

from covermap.core.errors import ConfigError
from covermap.core.types import Batch, Features
from covermap.nn.coordinates import day_codes, locations, months, week_codes
from covermap.nn.dates import MergeDates, fold_dates
from covermap.nn.necks import Pyramid


def series(dates=3, size=2, channels=4, side=8):
    torch.manual_seed(0)
    maps = torch.randn(size, dates, channels, side // 4, side // 4)
    return Features((maps,), (4,)), torch.ones(size, dates, side, side, dtype=torch.bool)


def test_dates_become_windows_and_a_sensor_of_one_date_goes_with_each():
    batch = Batch(
        {"s2": torch.arange(2 * 3 * 4.0).view(2, 3, 1, 2, 2), "dem": torch.ones(2, 1, 1, 2, 2)},
        torch.ones(2, 3, 2, 2, dtype=torch.bool), dates=(("2019", "2020", None), ("2021", "2022", "2023")),
        location=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    )  # fmt: skip
    folded = fold_dates(batch)
    assert folded.image["s2"].shape == folded.image["dem"].shape == (6, 1, 1, 2, 2)
    assert torch.equal(folded.image["s2"][4, 0], batch.image["s2"][1, 1])
    assert folded.dates[2] == (None,)
    assert folded.dates[3] == ("2021",)
    assert folded.location[:, 0].tolist() == [1, 1, 1, 3, 3, 3]


@pytest.mark.parametrize("method", ["mean", "max", "attention"])
def test_a_date_without_data_does_not_count(method):
    torch.manual_seed(0)
    merge = MergeDates(method, 3, (4,))
    features, valid = series()
    valid[:, 1] = False
    spoilt = Features((features.maps[0].clone(),), (4,))
    spoilt.maps[0][:, 1] = 1e6
    assert torch.allclose(merge(features, valid).maps[0], merge(spoilt, valid).maps[0])
    valid[:] = False  # nothing at all: still a number
    assert merge(features, valid).maps[0].isfinite().all()


def test_what_the_methods_give():
    features, valid = series()
    x = features.maps[0]
    assert torch.allclose(MergeDates("mean", 3, (4,))(features, valid).maps[0], x.mean(1), atol=1e-6)
    assert torch.equal(MergeDates("max", 3, (4,))(features, valid).maps[0], x.amax(1))
    assert torch.equal(MergeDates("concat", 3, (4,))(features, valid).maps[0], x.flatten(1, 2))
    difference = MergeDates("difference", 3, (4,))
    assert difference.factor == 2
    assert torch.equal(difference(features, valid).maps[0][:, 4:], x[:, 2] - x[:, 1])
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        MergeDates("meen", 3, (4,))


@pytest.mark.parametrize(
    ("stride", "strides"),
    [(16, (4, 8, 16, 32)), (14, (3.5, 7, 14, 28)), (4, (1, 2, 4, 8)), (2, (1, 2, 4, 8)), (1, (1, 2, 4, 8))],
)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_pyramid_has_four_levels_whatever_the_patch(stride, strides, count):
    neck = Pyramid((8,) * count, stride).eval()
    assert neck.strides == strides
    maps = neck(Features((torch.randn(1, 8, 3, 5),) * count, (stride,) * count)).maps
    finest = (round(3 * stride / strides[0]), round(5 * stride / strides[0]))
    assert tuple(maps[0].shape[-2:]) == finest
    assert [x.shape[-1] for x in maps] == sorted((x.shape[-1] for x in maps), reverse=True)


def test_dates_and_places_as_numbers():
    batch = Batch(
        {}, torch.ones(2, 3, 1, 1, dtype=torch.bool),
        dates=(("2019-12-31", "2019-07", "2020-12-31"), (None, "2019-01-01T06:00:00", "2019-02-01/2019-02-03")),
    )  # fmt: skip
    codes = day_codes(batch)
    assert codes[0].tolist() == [[2019, 365], [2019, 197], [2020, 366]]
    assert codes[1, 0].isnan().all()
    assert codes[1, 2].tolist() == [2019, 33]
    assert months(batch).tolist() == [[11, 6, 11], [-1, 0, 1]]
    assert locations(batch).isnan().all()
    hours = Batch({}, torch.ones(2, 1, 1, 1, dtype=torch.bool), dates=(("2019-01-01T06:00:00",), ("2019-01-01",)))
    weeks = week_codes(hours)
    assert weeks[0, 2:].tolist() == pytest.approx([1, 0], abs=1e-6)  # a quarter of the day
    assert weeks[1, 2:].tolist() == [0, 0]  # the hour is not known
    assert weeks[1, :2].tolist() == pytest.approx(weeks[0, :2].tolist())
    assert not week_codes(Batch({}, torch.ones(2, 1, 1, 1, dtype=torch.bool))).any()
