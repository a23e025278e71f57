"""The conformance suite itself: ours pass, and each way to be wrong is found by the check that is meant for it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from covermap.core.errors import ConfigError, CovermapError
from covermap.core.types import Features, InputSpec, SensorInput
from covermap.nn.model import Backbone, stack_inputs
from covermap.testing import check_backbone, require_conforming, suitable_spec


class Good(Backbone):
    """One convolution."""

    def __init__(self, spec, *, width=4):
        super().__init__()
        self.layer = nn.Conv2d(spec.num_channels, width, 4, 4)
        self.channels, self.strides = (width,), (4,)

    def forward(self, batch):
        return Features((self.layer(stack_inputs(batch)),), self.strides)


def failed(kind):
    return {outcome.name: outcome.failure for outcome in check_backbone(kind) if outcome.failure}


@pytest.mark.parametrize("name", ["unet", "galileo_nano", "presto", "vit_tiny"])
def test_ours_pass(name):
    assert [outcome.failure for outcome in check_backbone(name) if outcome.failure] == []


@pytest.mark.parametrize("options", [{}, {"own_blocks": 2, "class_token": True}, {"own_blocks": 4}])
def test_sensor_vit_passes_with_several_sensors(options):
    parts = (("sentinel2", ("blue", "red", "nir")), ("sentinel1", ("vv", "vh")), ("dem", ("elevation",)))
    spec = InputSpec(tuple(SensorInput(name, b, (0.0,) * len(b), (1.0,) * len(b)) for name, b in parts), 10, 32)
    outcomes = check_backbone("sensor_vit_nano", spec=spec, options={"patch_px": 8, **options})
    assert [outcome.failure for outcome in outcomes if outcome.failure] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["prithvi_eo_v2_tiny_tl", "prithvi_eo_v1_100", "terramind_v1_tiny", "clay_v1", "resnet18", "segformer_b0",
     "swin_tiny", "convnext_tiny", "dinov2_small", "vit_base_in21k", "galileo_base"],
)  # fmt: skip
def test_the_larger_ones_pass_too(name):
    assert [outcome.failure for outcome in check_backbone(name) if outcome.failure] == []


def test_a_class_of_a_user_passes():
    outcomes = check_backbone(Good, options={"width": 6})
    assert not any(outcome.failure for outcome in outcomes)
    require_conforming(outcomes, "Good")


class Shifted(Good):
    """As the peer whose class token stands last while the first is dropped (checkpoints.md, defect 10)."""

    def forward(self, batch):
        x = super().forward(batch).maps[0]
        return Features((x.flatten(2).roll(1, 2).view_as(x),), self.strides)


class Transposed(Good):
    def forward(self, batch):
        x = self.layer(stack_inputs(batch))
        return Features((x.transpose(2, 3).reshape(x.shape),), self.strides)


class Moving(Good):
    """Running means that move in a frozen network (defect 14): one that counts in its forward, whatever the mode."""

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch):
        self.calls += 1
        return super().forward(batch)


class Meddling(Good):
    """As the peer that sets the precision of matrix products for the whole process when imported (defect 18)."""

    def forward(self, batch):
        torch.set_float32_matmul_precision("medium")
        return super().forward(batch)


class Sociable(Good):
    def forward(self, batch):
        x = super().forward(batch).maps[0]
        return Features((x - x.mean(0, keepdim=True),), self.strides)


class Idle(Good):
    def __init__(self, spec):
        super().__init__(spec)
        self.spare = nn.Linear(2, 2)


class Careless(Good):
    def forward(self, batch):
        x = super().forward(batch).maps[0]
        return Features((x / batch.valid.float().mean((1, 2, 3)).view(-1, 1, 1, 1),), self.strides)


class Lying(Good):
    def __init__(self, spec):
        super().__init__(spec)
        self.channels = (5,)


class Forgetful(Good):
    def __init__(self, spec):
        super().__init__(spec)
        self.gain = float(torch.rand(()))

    def forward(self, batch):
        return Features((super().forward(batch).maps[0] * self.gain,), self.strides)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Shifted, "keeps things in their place"),
        (Transposed, "keeps things in their place"),
        (Moving, "stays as it is when frozen"),
        (Meddling, "leaves the process alone"),
        (Sociable, "gives each window the same result alone and in company"),
        (Idle, "trains every parameter"),
        (Careless, "survives missing data"),
        (Lying, "gives the maps that it announces"),
        (Forgetful, "is whole in its state dict"),
    ],
)
def test_each_way_to_be_wrong_is_found(kind, check):
    before = torch.get_float32_matmul_precision()
    try:
        found = failed(kind)
    finally:
        torch.set_float32_matmul_precision(before)
    assert check in found
    with pytest.raises(CovermapError, match=check):
        require_conforming(check_backbone(kind), kind.__name__)
    torch.set_float32_matmul_precision(before)


def test_one_too_large_to_run_is_refused():
    with pytest.raises(ConfigError, match=r"6\.7 thousand million parameters"):
        check_backbone("dinov3_sat_vit7b16")


def test_an_input_that_suits_a_published_model():
    spec = suitable_spec("terramind_v1_tiny")
    assert [entry.sensor for entry in spec.sensors] == ["sentinel2", "rgb", "sentinel1", "dem"]
    assert suitable_spec("unet").sensors[0].sensor == "landsat7"


def test_the_backbone_of_the_documentation_passes(tmp_path):
    page = Path(__file__).resolve().parent.parent / "docs" / "add_a_backbone.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "my_backbone.py").write_text(code)
    outcomes = check_backbone(f"{tmp_path}/my_backbone.py:Mine", options={"width": 16})
    assert [outcome.failure for outcome in outcomes if outcome.failure] == []
