"""Defects of peers and of the seed codes that concern decoders, freezing, rates, necks: each is a test that passes here.

Numbers: rows of checkpoints.md, section 2 (11, 13 and 14 are in test_adapt.py); sections: of requirements.md, 4.
"""

import pytest
import torch
from torch.nn import functional

from covermap.core.errors import ConfigError
from covermap.core.legend import load_legend
from covermap.core.registry import find, names
from covermap.core.train_config import AdaptConfig, TrainConfig
from covermap.core.types import InputSpec, SensorInput
from covermap.models import NetworkModel
from covermap.nn.adapt import adapt, parameter_groups
from covermap.nn.backbones.plain_vit import PlainViT
from covermap.nn.build import build_model
from covermap.nn.optimiser import make_optimiser, make_schedule
from covermap.testing import random_batch

BANDS = ("blue", "green", "red", "nir")
SPEC = InputSpec((SensorInput("planetscope", BANDS, (0.0,) * 4, (1.0,) * 4),), 3, 64)
DECODERS = names("decoder")
RESNET = {"hidden_sizes": (8, 12, 16, 24), "depths": (1, 1, 1, 1), "layer_type": "basic", "embedding_size": 8}
BACKBONES = {"vit": {}, "resnet18": {"sizes": {"config": RESNET}}}


class ViTMini(PlainViT):
    """Eight blocks, of which four give maps."""

    width, depth, heads = 32, 8, 2


def make(backbone="vit", decoder="unet", **settings):
    torch.manual_seed(0)
    return build_model(
        SPEC, 3, backbone=ViTMini if backbone == "vit" else backbone, backbone_options=BACKBONES[backbone],
        decoder=decoder, decoder_options=find("decoder", decoder).miniature, **settings,
    )  # fmt: skip


def losses(model):
    """A loss of a batch by the decoder's own rule, or of its logits."""
    batch = random_batch(SPEC, 64, 64)
    label = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(1))
    if model.decoder.has_own_loss:
        return model.decoder.own_loss(model.features(batch), label)[0]
    return functional.cross_entropy(model(batch), label)


def leaves(loss):
    """Tensors that a loss would change, found by walking its graph."""
    found, todo, seen = set(), [loss.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo += [before for before, _ in node.next_functions]
    return found


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_4_1_the_optimiser_holds_all_that_the_loss_reaches_and_nothing_else(backbone, decoder):
    """Skip convolutions, projections and the class predictor of a seed code stayed at random for the whole training.

    The other way round (a part that no gradient reaches) were the last eight of its 32 blocks (`SelectIndices`), and a
    fully connected layer that was built and never used (4.5).
    """
    model = make(backbone, decoder).train()
    held = {id(p) for group in parameter_groups(model, lr=1e-3, weight_decay=0) for p in group["params"]}
    reached = leaves(losses(model))
    assert reached == held, [n for n, p in model.named_parameters() if (id(p) in held) != (id(p) in reached)]


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_12_rates_hold_whichever_the_optimiser_and_schedule(optimiser, schedule):
    """The peer ignores its lr_overrides as soon as an optimiser is named."""
    model = make()
    config = TrainConfig(optimiser=optimiser, schedule=schedule, rates={"backbone": 0.1}, layer_decay=0.5, epochs=2)
    made = make_optimiser(model, config)
    steps = make_schedule(made, config, 5)
    made.step()
    steps.step(1.0) if schedule == "plateau" else steps.step()
    rate = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    top = rate[id(model.decoder.classify.weight)]
    assert rate[id(model.neck.levels[0][0][0].weight)] == top
    assert rate[id(model.backbone.trunk.blocks[7].mlp.fc1.weight)] == pytest.approx(0.1 * 0.5 * top)
    assert rate[id(model.backbone.trunk.blocks[0].mlp.fc1.weight)] == pytest.approx(0.1 * 0.5**8 * top)
    # What the log shows is the rate of a factor of 1, whichever group is the first.
    assert [group["lr"] / group["factor"] for group in made.param_groups] == pytest.approx(
        [top] * len(made.param_groups)
    )


@pytest.mark.parametrize("factor", [-1, 0])
def test_12_a_rate_that_climbs_or_stands_still_is_no_rate(factor):
    with pytest.raises(ValueError, match="rates"):
        TrainConfig(rates={"backbone": factor})


@pytest.mark.parametrize("method", ["frozen", "head"])
def test_12_layer_decay_of_what_does_not_train_is_refused(method):
    model = make()
    adapt(model, AdaptConfig(method=method))
    with pytest.raises(ConfigError, match="layer_decay has no effect: of the backbone nothing trains"):
        parameter_groups(model, lr=1e-3, weight_decay=0, layer_decay=0.75)


def test_11_a_target_that_is_no_pattern_is_refused():
    with pytest.raises(ConfigError, match=r"targets: '\(qkv'"):
        adapt(make(), AdaptConfig(method="lora", targets=["(qkv"]))


@pytest.mark.parametrize("decoder", DECODERS)
def test_4_4_logits_are_not_cut_at_zero(decoder):
    """A ReLU behind the last layer left classes dead and many pixels all zero."""
    with torch.inference_mode():
        logits = make("resnet18", decoder).eval()(random_batch(SPEC, 64, 64))
    assert (logits == 0).float().mean() < 0.01
    assert (logits < 0).any()


@pytest.mark.parametrize("training", [True, False])
def test_4_5_scores_are_of_evaluation_mode(training):
    """Norms in training mode during evaluation: a window's score depended on its batch, and the norms moved."""
    model = make("resnet18").train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = random_batch(SPEC, 64, 64)
    first, second = (
        NetworkModel(SPEC, load_legend({1: "a", 2: "b", 3: "c"}), model, {}).answers(batch) for _ in range(2)
    )
    expected = make("resnet18").eval()(batch).softmax(1).detach().numpy()
    assert abs(first - expected).max() < 1e-5
    assert (first == second).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_4_1_a_neck_reads_the_blocks_that_were_named_and_the_last_one_always_counts():
    """Numbers of blocks were taken from a model of another depth."""
    assert make("vit").backbone.layers == (1, 3, 5, 7)
    for decoder in DECODERS:
        model = make("vit", decoder).eval()
        batch = random_batch(SPEC, 64, 64)
        with torch.no_grad():
            before = model(batch)
            model.backbone.trunk.blocks[7].mlp.fc2.weight.add_(0.5)
            assert not torch.equal(before, model(batch)), decoder
