import pytest
import torch
from torch import nn
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.legend import IGNORE
from covermap.core.types import Batch, InputSpec, SensorInput
from covermap.nn.build import build_model
from covermap.nn.layers import fold_norms
from covermap.nn.losses.cross_entropy import CrossEntropy
from covermap.nn.model import pad_to_multiple


def spec(bands=3, dates=1):
    names = tuple(f"b{i}" for i in range(bands))
    return InputSpec((SensorInput("s", names, (0.0,) * bands, (1.0,) * bands, num_dates=dates),))


def batch(height, width, bands=3, dates=1, size=2):
    torch.manual_seed(0)
    return Batch(
        {"s": torch.randn(size, dates, bands, height, width)}, torch.ones(size, dates, height, width, dtype=torch.bool)
    )


@pytest.mark.parametrize(("bands", "dates"), [(1, 1), (3, 1), (13, 1), (6, 3)])
@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (8, 200), (1, 5)])
def test_logits_have_the_size_of_the_input(bands, dates, shape):
    model = build_model(spec(bands, dates), 5, backbone_options={"widths": [4, 8, 8]}).eval()
    assert model(batch(*shape, bands, dates)).shape == (2, 5, *shape)


def test_two_sensors_are_stacked():
    two = InputSpec((SensorInput("a", ("x",), (0.0,), (1.0,)), SensorInput("b", ("y", "z"), (0.0,) * 2, (1.0,) * 2)))
    inputs = {"a": torch.randn(1, 1, 1, 16, 16), "b": torch.randn(1, 1, 2, 16, 16)}
    model = build_model(two, 3, backbone_options={"widths": [4, 8]})
    assert model(Batch(inputs, torch.ones(1, 1, 16, 16, dtype=torch.bool))).shape == (1, 3, 16, 16)


def test_the_skips_are_real():
    """The finest map must reach the logits other than through the coarser ones."""
    model = build_model(spec(), 3, backbone_options={"widths": [4, 8]}).eval()
    features = model.backbone(batch(16, 16))
    cut = type(features)((torch.zeros_like(features.maps[0]), features.maps[1]), features.strides)
    assert not torch.allclose(model.decoder(features, (16, 16)), model.decoder(cut, (16, 16)))


def test_a_pixel_far_away_does_not_matter_but_a_near_one_does():
    model = build_model(spec(), 3, backbone_options={"widths": [4, 8]}).eval()
    inputs = batch(64, 64, size=1)
    before = model(inputs)
    inputs.image["s"][0, 0, :, 60, 60] += 5
    change = (model(inputs) - before).abs().sum(1)[0]
    assert change[60, 60] > 0
    assert change[:30, :30].max() == 0


def test_padding_repeats_the_edge_and_adds_no_valid_pixel():
    padded = pad_to_multiple(batch(5, 6), 4)
    assert padded.image["s"].shape[-2:] == padded.valid.shape[-2:] == (8, 8)
    assert torch.equal(padded.image["s"][..., 7, 0], padded.image["s"][..., 4, 0])
    assert padded.valid.sum() == 2 * 5 * 6


def test_unknown_parts_and_options_are_refused():
    with pytest.raises(ConfigError, match="no backbone called 'unett'"):
        build_model(spec(), 3, backbone="unett")
    with pytest.raises(ConfigError, match="widht"):
        build_model(spec(), 3, backbone_options={"widht": [4, 8]})
    with pytest.raises(ConfigError, match="do not make a U-Net"):
        build_model(spec(), 3, backbone_options={"widths": [4]})


def test_cross_entropy_is_the_weighted_sum_over_labelled_pixels():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 4, 5, 6, dtype=torch.float64), torch.randint(0, 4, (2, 5, 6))
    label[0, :2] = IGNORE
    weights = torch.tensor([1.0, 2.0, 0.0, 0.5], dtype=torch.float64)
    loss = CrossEntropy(weights)
    total, weight = loss(logits, label), loss.mass(label)
    expected = expected_weight = 0.0
    for b in range(2):
        for r in range(5):
            for c in range(6):
                y = int(label[b, r, c])
                if y != IGNORE:
                    p = torch.softmax(logits[b, :, r, c], 0)[y]
                    expected -= float(weights[y] * p.log())
                    expected_weight += float(weights[y])
    assert float(total) == pytest.approx(expected)
    assert float(weight) == pytest.approx(expected_weight)
    mean = functional.cross_entropy(logits, label, weights, ignore_index=IGNORE)
    assert float(total / weight) == pytest.approx(float(mean))


def test_a_batch_without_labels_gives_zero_and_a_finite_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss, label = CrossEntropy(torch.ones(3)), torch.full((1, 4, 4), IGNORE)
    total = loss(logits, label)
    total.backward()
    assert (float(total.detach()), float(loss.mass(label))) == (0, 0)
    assert torch.isfinite(logits.grad).all()


def test_the_pixel_expert_sees_single_pixels_and_each_expert_learns_alone():
    model = build_model(spec(), 3, backbone_options={"widths": [4, 8]}, pixel_width=8)
    inputs = batch(16, 16, size=64)
    model.eval()
    context = build_model(spec(), 3, backbone_options={"widths": [4, 8]})
    context.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("pixel")})
    alone = context.eval()(inputs)
    pixel = model.pixel(inputs.image["s"][:, 0])
    assert torch.allclose(model(inputs), alone + pixel, atol=1e-6)
    moved = inputs.image["s"].clone()
    moved[0, 0, :, 3, 3] += 5
    change = (model.pixel(moved[:, 0]) - pixel).abs().sum(1)[0]
    assert (change > 0).sum() == 1
    model.backbone.eval()
    model.decoder.eval()
    model.training = True
    joined = model(inputs)
    kinds = [torch.allclose(joined[i], one[i], atol=1e-6) for i in range(64) for one in (alone, pixel, alone + pixel)]
    assert sum(kinds) == 64
    assert all(any(kinds[start::3]) for start in range(3))


def test_folded_norms_change_nothing_but_the_time():
    torch.manual_seed(0)
    model = build_model(spec(), 4, backbone_options={"widths": [6, 8, 12]}, pixel_width=4)
    for _ in range(3):
        model(batch(32, 32))  # norms with statistics that matter
    folded = fold_norms(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert model.training
    inputs = batch(30, 34)
    with torch.inference_mode():
        assert torch.allclose(folded(inputs), model.eval()(inputs), atol=1e-5)
    assert fold_norms(folded) is folded
