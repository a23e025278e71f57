import numpy as np
import pytest

from covermap.core.errors import BandError, ConfigError
from covermap.geo.composite import composite

BANDS = ("red", "nir")


@pytest.fixture(params=[1, 2, 5, 6])
def stack(request):
    """A stack of dates with gaps; some pixels are never seen."""
    rng = np.random.default_rng(request.param)
    values = rng.integers(1, 5000, (request.param, 2, 20, 30)).astype("uint16")
    valid = rng.random((request.param, 20, 30)) > 0.4
    valid[:, 3, 4] = False
    return values, valid


@pytest.mark.filterwarnings("ignore:.*empty slice", "ignore:All-NaN")
@pytest.mark.parametrize(("method", "oracle"), [("median", np.nanmedian), ("mean", np.nanmean)])
def test_equals_numpy_over_the_valid_dates(stack, method, oracle):
    values, valid = stack
    gaps = np.where(valid[:, None], values, np.nan).astype(float)
    found = composite(values, valid, BANDS, method)
    assert found.dtype == np.float32
    assert np.isnan(found[:, 3, 4]).all()
    np.testing.assert_allclose(found, oracle(gaps, axis=0), rtol=1e-6)


def test_the_input_is_left_as_it_is(stack):
    values = stack[0].astype("float32")
    before = values.copy()
    composite(values, stack[1], BANDS, "median")
    assert np.array_equal(values, before)


def test_the_greenest_date_gives_all_bands():
    red = np.array([[300, 100, 0, 50], [100, 100, 0, 50], [10, 100, 9, 60]], "uint16")
    nir = np.array([[400, 300, 0, 60], [900, 100, 0, 70], [900, 900, 9, 80]], "uint16")
    valid = np.ones((3, 1, 4), bool)
    valid[2, 0, :3] = False  # the greenest of the first two pixels is not valid
    valid[:, 0, 3] = False
    found = composite(np.stack([red, nir], 1)[:, :, None], valid, BANDS, "max-ndvi")
    assert found[:, 0, :3].tolist() == [[100, 100, 0], [900, 300, 0]]
    assert np.isnan(found[:, 0, 3]).all()


def test_methods_are_checked():
    values, valid = np.zeros((1, 1, 2, 2)), np.ones((1, 2, 2), bool)
    with pytest.raises(ConfigError, match=r"--composite medain.*\n.*median"):
        composite(values, valid, ["red"], "medain")
    with pytest.raises(BandError, match="max-ndvi needs red and nir, there are red"):
        composite(values, valid, ["red"], "max-ndvi")
