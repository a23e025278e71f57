"""Sums of losses: what is read, what is refused, and that a step of several batches is one of them all."""

import pytest
import torch

from covermap.core.errors import ConfigError
from covermap.nn.losses.expression import make_loss, parse_loss
from covermap.testing import check_loss

ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("text", "terms"),
    [("focal", {"focal": 1}), ("cross_entropy + 0.5 * dice", {"cross_entropy": 1, "dice": 0.5}),
     ("2*lovasz+1e-2*boundary + cross_entropy", {"lovasz": 2, "boundary": 0.01, "cross_entropy": 1})],
)  # fmt: skip
def test_terms_and_factors(text, terms):
    assert parse_loss(text) == terms
    assert make_loss(text, class_weights=ONES).names == tuple(terms)


@pytest.mark.parametrize(
    ("text", "said"),
    [("cross_entropy + 0.5 * dise", "did you mean 'dice'"), ("cross_entropy +", "'' in"), ("", "'' in"),
     ("dice + 2 * dice", "dice stands twice"), ("half * dice", r"'half \* dice' in"), ("dice * 0.5", r"'dice \* 0.5'"),
     ("0 * dice", "above 0"), ("-1 * dice", "above 0"), ("nan * dice", "above 0"), ("inf * dice", "above 0"),
     ("2 * ", r"'2 \*'"), ("cross_entropy - dice", "no loss called 'cross_entropy - dice'"),
     ("cross_entropy + mse", "cross_entropy takes classes, mse takes numbers"),
     ("ordinal + dice", "ordinal takes order, dice takes classes")],
)  # fmt: skip
def test_wrong_expressions_are_refused(text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        make_loss(text, class_weights=ONES)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [("cross_entropy + dice", {"label_smoothing": 0.1}, "'label_smoothing' is no term"),
     ("cross_entropy + dice", {"dice": 0.1}, "'dice' is no term"), ("cross_entropy + dice", {"focal": {}}, "'focal'"),
     ("cross_entropy + dice", {"dice": {"clases": [1]}}, "did you mean 'classes'"),
     ("cross_entropy", {"cross_entropy": {"label_smoothing": 0.1}}, "no option 'cross_entropy'")],
)  # fmt: skip
def test_options_of_no_term_are_refused(text, options, said):
    with pytest.raises(ConfigError, match=said):
        make_loss(text, options, class_weights=ONES)


def test_a_loss_of_classes_needs_some():
    with pytest.raises(ConfigError, match="dice takes classes, the target has none"):
        make_loss("dice")


def test_options_reach_their_terms():
    loss = make_loss(
        "cross_entropy + 0.5 * dice",
        {"dice": {"classes": [1]}, "cross_entropy": {"label_smoothing": 0.1}},
        class_weights=ONES,
    )
    assert loss.terms[0].label_smoothing == 0.1
    assert loss.terms[1].weight.tolist() == [0, 1, 0]
    assert loss.factors.tolist() == [1, 0.5]
    assert loss.weighted
    assert not make_loss("dice", {"classes": [1]}, class_weights=ONES).weighted


def test_each_term_is_divided_by_its_own_mass():
    """Windows of unlike labels: a mean over batches would differ."""
    torch.manual_seed(0)
    logits, label = torch.randn(8, 3, 6, 6), torch.randint(0, 3, (8, 6, 6))
    label[0] = 255
    label[1, 2:] = 255
    loss = make_loss("cross_entropy + 0.5 * dice", class_weights=torch.tensor([1.0, 2.0, 5.0]))

    def step(parts):
        mass = sum(loss.mass(y) for _, y in parts)
        return sum(float((loss.factors * loss(x, y) / mass).sum()) for x, y in parts)

    whole = step([(logits, label)])
    assert step(list(zip(logits.split(2), label.split(2), strict=True))) == pytest.approx(whole, rel=1e-6)
    terms = [make_loss(name, class_weights=torch.tensor([1.0, 2.0, 5.0])) for name in ("cross_entropy", "dice")]
    apart = [float(term(logits, label) / term.mass(label)) for term in terms]
    assert whole == pytest.approx(apart[0] + 0.5 * apart[1], rel=1e-6)


class Truncating(torch.nn.Module):
    takes = "numbers"

    def forward(self, prediction, target):
        return (prediction - target.long()).square().nansum()

    def mass(self, target):
        return (~target.isnan()).sum()


class WithoutWeights(torch.nn.Module):
    """As S0's: it takes weights and leaves them, and says nothing of it."""

    def __init__(self, class_weights):
        super().__init__()

    def forward(self, logits, label):
        return torch.nn.functional.cross_entropy(logits, label, ignore_index=255, reduction="sum")

    def mass(self, label):
        return (label != 255).sum()


class OfMeans(WithoutWeights):
    weighted = False

    def forward(self, logits, label):
        return torch.nn.functional.cross_entropy(logits, label, ignore_index=255)


@pytest.mark.parametrize(
    ("kind", "checks"),
    [(Truncating, {"what is not known does not count", "nothing known gives nothing"}),
     (WithoutWeights, {"class weights have the effect that is claimed"}),
     (OfMeans, {"sums and masses add up over batches", "nothing known gives nothing"})],
)  # fmt: skip
def test_each_way_to_be_wrong_is_found(kind, checks):
    assert checks <= {outcome.name for outcome in check_loss(kind) if outcome.failure}
