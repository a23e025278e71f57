"""Out of memory: the message names the step and the settings to lower, and the run goes on with them."""

import json

import pytest
import torch
import yaml

from covermap.core.config_file import parse_config
from covermap.core.errors import CovermapError, OutOfMemory, OutputError
from covermap.core.train_config import PredictConfig
from covermap.nn.model import Model
from covermap.verbs.predict import predict
from covermap.verbs.train import train

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.fixture
def failing(monkeypatch):
    """failing(error, after=0, training=True): the network raises it from a number of calls on, in training or not."""

    def fail(error, *, after=0, training=True):
        real, calls = Model.forward, []

        def forward(self, *arguments, **options):
            if self.training == training:
                calls.append(1)
                if len(calls) > after:
                    raise error
            return real(self, *arguments, **options)

        monkeypatch.setattr(Model, "forward", forward)

    return fail


def config_of(tiny, **train_settings):
    raw = json.loads(json.dumps(tiny)) | {"baseline": False}
    raw["train"] |= {"epochs": 2} | train_settings
    return raw


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__ + str(error)[-12:])
def test_training_says_what_to_lower_and_goes_on_with_it(tiny, failing, monkeypatch, error):
    raw = config_of(tiny)
    failing(error, after=8)
    with pytest.raises(OutOfMemory, match=r"a training step of epoch 2") as caught:
        train(parse_config(raw))
    for words in ("train.batch_size=2 --set train.accumulate=2 --resume", "train.size_px below 32", "frozen or lora"):
        assert words in str(caught.value)
    monkeypatch.undo()
    raw["train"] |= {"batch_size": 2, "accumulate": 2}
    run = train(parse_config(raw), resume=True)
    assert [row["epoch"] for row in run.read_log()] == [1, 2]


def test_only_the_same_step_in_more_parts_resumes_a_run(tiny):
    train(parse_config(config_of(tiny, epochs=1)))
    with pytest.raises(OutputError, match="other settings in train"):
        train(parse_config(config_of(tiny, epochs=1, batch_size=2)), resume=True)


def test_a_batch_of_one_and_an_adapted_network_get_no_empty_advice(tiny, failing):
    failing(MemoryError())
    with pytest.raises(OutOfMemory) as caught:
        train(parse_config(config_of(tiny, batch_size=1, accumulate=4)))
    assert "batch_size" not in str(caught.value)
    assert "train.size_px below 32" in str(caught.value)


def test_other_errors_stay_themselves(tiny, failing):
    failing(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(parse_config(config_of(tiny)))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__ + str(error)[-12:])
def test_prediction_says_what_to_lower_and_finished_blocks_stay(tiny, failing, monkeypatch, tmp_path, error):
    run = train(parse_config(config_of(tiny, epochs=1)))
    settings = PredictConfig(size_px=32, block_px=32, workers=1, batch_size=2)
    failing(error, after=12, training=False)
    with pytest.raises(OutOfMemory, match="prediction: 2 windows of 32 px at once") as caught:
        predict(run.path("model"), tiny["data"]["image"], tmp_path / "map.tif", settings=settings)
    assert "--batch-size" in str(caught.value)
    assert "--size" in str(caught.value)
    monkeypatch.undo()
    done = predict(run.path("model"), tiny["data"]["image"], tmp_path / "map.tif", settings=settings)
    assert done.num_resumed > 0


def test_validation_that_does_not_fit_names_its_own_settings(tiny, failing):
    failing(MemoryError(), training=False)
    with pytest.raises(OutOfMemory, match=r"predict\.batch_size"):
        train(parse_config(config_of(tiny)))


def test_the_command_line_prints_one_message(tiny, failing, tmp_path, covermap):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config_of(tiny)))
    failing(ERRORS[0])
    code, _, told = covermap("train", tmp_path / "c.yaml")
    assert code == 1
    assert "error: out of memory in a training step of epoch 1" in told
    assert issubclass(OutOfMemory, CovermapError)
