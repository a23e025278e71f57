"""Sums of losses in a run: trained, logged and refused through the configuration."""

import copy
import math

import pytest
import torch

from covermap.core.config import RunConfig
from covermap.core.errors import ConfigError
from covermap.verbs.check import check
from covermap.verbs.train import train


def config(tiny, **settings):
    tiny["train"] |= {"epochs": 2, **settings}
    return RunConfig.model_validate(tiny)


def test_a_sum_of_losses_trains(tiny):
    run = train(config(tiny, loss="cross_entropy + 0.5 * dice", loss_options={"dice": {"classes": [1]}}))
    first, last = run.read_log()
    assert 0 < last["loss"] < first["loss"]
    assert last["val_miou"] > 0.3


def test_the_logged_loss_is_the_sum_of_its_terms(tiny):
    """A rate near 0 leaves the network as it is: losses of separate runs add up, by windows and by pixels' weights."""
    logged = {}
    for name in ("cross_entropy", "dice", "cross_entropy + 0.5 * dice"):
        tiny["name"] = f"run{len(logged)}"
        done = train(config(copy.deepcopy(tiny), loss=name, lr=1e-12, weight_decay=0, epochs=1, accumulate=2))
        logged[name] = done.read_log()[0]["loss"]
    expected = logged["cross_entropy"] + 0.5 * logged["dice"]
    assert logged["cross_entropy + 0.5 * dice"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["cross_entropy + 0.5 * dice", "lovasz + 0.01 * boundary"])
def test_four_batches_of_two_train_as_one_of_eight(tiny, monkeypatch, loss):
    """Without batch norm's statistics, which do depend on the batch; plain descent, whose step shows the gradient."""
    monkeypatch.setattr(torch.nn.modules.batchnorm._BatchNorm, "forward", lambda self, x: x)
    found = []
    for name, batch, parts in (("one", 8, 1), ("four", 2, 4)):
        tiny["name"] = name
        run = train(
            config(copy.deepcopy(tiny), loss=loss, batch_size=batch, accumulate=parts, optimiser="sgd", epochs=1,
                   steps_per_epoch=2, clip=0)
        )  # fmt: skip
        state = torch.load(run.path("checkpoints/last.pt"), weights_only=True)
        found.append((run.read_log()[0]["loss"], state["network"]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for key, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"loss": "cross_entropy + 0.5 * dise"}, "did you mean 'dice'"), ({"loss": "mse"}, "segmentation learns classes"),
     ({"loss": "cross_entropy + dice", "loss_options": {"classes": [1]}}, "'classes' is no term"),
     ({"loss": "dice", "loss_options": {"classes": [7]}}, "indices from 0 to 2")],
)  # fmt: skip
def test_bad_losses_are_refused_before_anything_is_written(tiny, settings, said):
    with pytest.raises(ConfigError, match=said):
        train(config(tiny, **settings))
    assert not config(tiny).folder.exists()


def test_weights_without_an_effect_are_noted(tiny):
    run = train(config(tiny, loss="dice", loss_options={"classes": [1]}, epochs=1))
    assert "train.class_weights has no effect on train.loss: dice" in run.read_json("notes.json")
    assert math.isfinite(run.read_log()[0]["loss"])


def test_check_reads_sums(tiny):
    check(config(tiny, loss="focal + dice"))
    with pytest.raises(ConfigError, match="no loss called 'dise'"):
        check(config(tiny, loss="focal + dise"))
    with pytest.raises(ConfigError, match="segmentation learns classes"):
        check(config(tiny, loss="mse"))
