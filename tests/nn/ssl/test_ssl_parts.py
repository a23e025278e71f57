"""Heads, teacher, and the numbers by which a training is watched."""

import math

import pytest
import torch
from torch import nn

from covermap.nn.ssl import heads, monitors
from covermap.nn.ssl.teacher import Teacher, cosine, warmed


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_head_has_as_many_layers_as_asked(depth, norm):
    head = heads.MlpHead(5, 7, 3, depth=depth, norm=norm)
    assert head(torch.randn(4, 5)).shape == (4, 3)
    assert sum(isinstance(each, nn.Linear) for each in head) == depth


def test_prototypes_answer_with_cosines():
    x, layer = torch.randn(4, 5), heads.Prototypes(5, 6)
    expected = torch.cosine_similarity(x[:, None], layer.direction[None], dim=-1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(3 * x), expected)


def test_style_is_mean_and_variance_of_what_is_valid():
    x, share = torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 4)
    share[0, :2] = 1
    found = heads.style(x, share)
    torch.testing.assert_close(found[0, :3], x[0, :, :2].mean((1, 2)))
    torch.testing.assert_close(found[0, 3:], x[0, :, :2].flatten(1).var(1, correction=0))
    assert found[1].isfinite().all()


def test_region_averages_are_exact_where_boxes_cut_cells():
    x = torch.randn(1, 2, 3, 4).double()
    fine = x.repeat_interleave(10, 2).repeat_interleave(10, 3)
    boxes = torch.tensor([[[0.3, 0.5, 2.7, 2.2], [1.0, 1.0, 2.0, 2.0], [0.0, 0.0, 4.0, 3.0], [0, 0, 0, 0]]]).double()
    found = heads.region_average(x, boxes)
    for found_box, (left, top, right, bottom) in zip(
        found[0], (boxes[0, :3] * 10).round().int().tolist(), strict=False
    ):
        torch.testing.assert_close(found_box, fine[0, :, top:bottom, left:right].mean((1, 2)))
    assert (found[0, 3] == 0).all()


@pytest.mark.parametrize(("cells", "shape"), [(2.0, (2, 2)), (16.0, (16, 16)), (2.5, (3, 3))])
def test_elevation_comes_on_the_grid_asked_for(cells, shape):
    head = heads.CoarseRegressor(6, cells=cells, grid=8)
    found = head(torch.randn(3, 6, *shape))
    assert found.shape == (3, 1, 8, 8)
    apart = head(torch.eye(6)[:1, :, None, None].expand(1, 6, *shape))
    assert cells >= 8 or apart[0, 0, :4, :4].std() > 0  # within a cell of the map numbers differ


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


@pytest.mark.parametrize("policy", ["copy", "average"])
def test_a_teacher_equals_the_closed_form_and_buffers_follow_their_policy(policy):
    student = network()
    teacher = Teacher({"net": student}, buffers=policy)
    own = teacher.parts["net"]
    history, means = [student[0].weight.detach().clone()], [student[1].running_mean.clone()]
    for step in range(5):
        student(torch.randn(8, 3) + step)
        with torch.no_grad():
            student[0].weight.add_(torch.randn(4, 3))
        history.append(student[0].weight.detach().clone())
        means.append(student[1].running_mean.clone())
        own(torch.randn(8, 3) - 5)  # its own batches leave no trace
        teacher.update({"net": student}, 0.8)

    def closed(values):
        return 0.8**5 * values[0] + sum(0.2 * 0.8 ** (5 - k) * values[k] for k in range(1, 6))

    torch.testing.assert_close(own[0].weight.data, closed(history))
    expected = means[-1] if policy == "copy" else closed(means)
    torch.testing.assert_close(own[1].running_mean, expected)
    assert own[1].num_batches_tracked == 5


def test_a_teacher_takes_no_gradient_and_its_norms_the_batch():
    student = network()
    teacher = Teacher({"net": student})
    own, x = teacher.parts["net"], torch.randn(64, 3) * 3 + 1
    assert not any(each.requires_grad for each in teacher.parameters())
    first = own(x)
    torch.testing.assert_close(first, own(x))  # no dropout
    torch.testing.assert_close(first.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    teacher.eval()
    assert own(x).mean(0).abs().max() > 0.1
    teacher.train()
    assert not own[2].training
    assert own[1].training


def test_schedules_begin_and_end_where_they_are_told():
    assert [cosine(p, 0.9, 1.0) for p in (0, 1, 2)] == [pytest.approx(0.9), 1.0, 1.0]
    assert cosine(0.5, 0.9, 1.0) == pytest.approx(0.95)
    assert [warmed(p, 0.04, 0.07, share=1 / 3) for p in (0, 1 / 6, 1 / 3, 1)] == pytest.approx(
        [0.04, 0.055, 0.07, 0.07]
    )


def test_spread_and_rank_of_known_clouds():
    torch.manual_seed(0)
    ball = torch.randn(2000, 16)
    assert monitors.spread(ball) == pytest.approx(1, abs=0.02)
    assert monitors.effective_rank(ball) == pytest.approx(16, abs=0.1)
    assert monitors.spread(torch.ones(50, 16)) == pytest.approx(0, abs=1e-6)
    assert monitors.effective_rank(torch.ones(50, 16)) == 0
    line = torch.randn(50, 1) * torch.randn(1, 16) + 3
    assert monitors.effective_rank(line) == pytest.approx(1, abs=1e-3)
    shares = torch.tensor([0.5, 0.25, 0.25]).double()
    cross = torch.cat([torch.diag(shares), -torch.diag(shares)])
    assert monitors.effective_rank(cross) == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares.tolist())))


def test_the_verdict_is_a_sentence():
    torch.manual_seed(0)
    ball = torch.randn(50, 16)
    assert not monitors.judge(ball).collapsed
    assert monitors.judge(torch.ones(50, 16) + 1e-4 * ball).sentence.startswith("collapsed: all windows get nearly")
    assert "single direction" in monitors.judge(ball[:, :1] * ball[:1]).sentence
    assert "not finite" in monitors.judge(ball / 0).sentence
    assert not monitors.judge(ball[:2]).collapsed


def test_retrieval_counts_partners_among_the_nearest():
    x = torch.randn(20, 8)
    assert monitors.retrieval(x, 2 * x) == {1: 1.0, 5: 1.0}
    assert monitors.retrieval(torch.ones(20, 8), torch.ones(20, 8)) == {1: 0.0, 5: 0.0}
    assert monitors.retrieval(torch.eye(4), torch.eye(4)[[1, 0, 2, 3]], top=(1, 2, 4)) == {1: 0.5, 2: 0.5, 4: 1.0}
