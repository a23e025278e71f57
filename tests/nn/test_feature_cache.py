"""Cached features: the same numbers as the backbone's, in a fraction of its calls."""

from dataclasses import replace

import pytest
import torch

from covermap.core.errors import ConfigError
from covermap.core.types import InputSpec, SensorInput
from covermap.nn.build import build_model
from covermap.nn.feature_cache import FeatureCache, require_cacheable
from covermap.testing import random_batch

BANDS = ("blue", "green", "red", "nir")


def make(num_dates=1, decoder="linear"):
    torch.manual_seed(0)
    entry = SensorInput("planetscope", BANDS, (0.0,) * 4, (1.0,) * 4, num_dates=num_dates)
    model = build_model(InputSpec((entry,), 3, 64), 3, backbone="vit_tiny", decoder=decoder).eval()
    model.freeze()
    return model


@pytest.mark.parametrize("num_dates", [1, 3])
@pytest.mark.parametrize("side", [64, 56])
def test_logits_from_cached_features_equal_those_of_the_whole_model(tmp_path, num_dates, side):
    model = make(num_dates)
    batch = random_batch(model.spec, side, side)
    cache = FeatureCache(tmp_path / "features", 4)
    with torch.inference_mode():
        whole, first = model(batch), model(batch, cache.encode(model, batch))
        again = model(batch, cache.encode(model, batch))
    assert torch.equal(first, again)
    assert (first - whole).abs().max() < 2e-3 * whole.abs().max()
    cache.clear()
    assert not (tmp_path / "features").exists()


def test_each_window_is_computed_once(tmp_path):
    model = make()
    calls = []
    model.backbone.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    batch = random_batch(model.spec, 64, 64)
    cache = FeatureCache(tmp_path / "features", 4)
    cache.encode(model, batch)
    cache.encode(model, batch)
    mixed = replace(batch, keys=("1", "new"))
    cache.encode(model, mixed)
    twice = replace(batch, keys=("other", "other"))
    cache.encode(model, twice)
    assert calls == [2, 1, 1]


def test_what_would_not_stay_the_same_is_refused():
    model = make()
    require_cacheable(model, sizes=1, variations=[])
    with pytest.raises(ConfigError, match="one window size"):
        require_cacheable(model, sizes=2, variations=[])
    with pytest.raises(ConfigError, match=r"train\.augment\.noise"):
        require_cacheable(model, sizes=1, variations=["train.augment.noise"])
    with pytest.raises(ConfigError, match="the backbone trains"):
        require_cacheable(build_model(model.spec, 3, backbone="vit_tiny", decoder="linear"), sizes=1, variations=[])
