"""Losses against forms written out in float64, against lightly 1.5.22, and over two processes against one."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from covermap.nn.ssl import losses
from covermap.nn.ssl.teacher import Teacher, cosine

GOLDEN = Path(__file__).parents[2] / "golden" / "ssl" / "lightly_1.5.22.npz"
NUM, WIDTH = 6, 5


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def close(found, expected):
    assert float(found.detach()) == pytest.approx(expected, abs=1e-6, rel=1e-6)


def pair(rng, *shape):
    return (torch.from_numpy(rng.standard_normal(shape or (NUM, WIDTH))).requires_grad_() for _ in range(2))


def cos(x, y):
    return float(x @ y / math.sqrt(float(x @ x) * float(y @ y)))


def written_nt_xent(a, b, temperature, *, drop_positive=False, present=None):
    views = [a.detach().numpy(), b.detach().numpy()]
    there = [i for i in range(len(a)) if present is None or present[i]]
    costs = []
    for view in (0, 1):
        for i in there:
            positive = cos(views[view][i], views[1 - view][i]) / temperature
            others = [
                cos(views[view][i], views[w][j]) / temperature
                for w in (0, 1)
                for j in there
                if (w, j) != (view, i) and not (drop_positive and j == i)
            ]
            if others:
                costs.append(math.log(sum(map(math.exp, others))) - positive)
    return sum(costs) / len(costs) if costs else 0.0


@pytest.mark.parametrize("drop_positive", [False, True])
@pytest.mark.parametrize("present", [None, [1, 1, 0, 1, 0, 1], [0, 0, 1, 0, 0, 0], [0] * NUM])
def test_nt_xent(rng, drop_positive, present):
    a, b = pair(rng)
    mask = None if present is None else torch.tensor(present, dtype=torch.bool)
    if present is not None:
        with torch.no_grad():
            a[~mask] = torch.nan  # what a missing window holds counts in nothing
    found = losses.nt_xent(a, b, 0.3, drop_positive=drop_positive, present=mask)
    close(found, written_nt_xent(a, b, 0.3, drop_positive=drop_positive, present=present))
    found.backward()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()


def test_nt_xent_and_dcl_are_those_of_lightly(golden):
    for i, temperature in enumerate((0.1, 0.5)):
        for drop, name in ((False, "ntxent"), (True, "dcl")):
            close(losses.nt_xent(golden["a"], golden["b"], temperature, drop_positive=drop), float(golden[name][i]))


def test_info_nce_over_all_pairs_of_sensors_that_are_there(rng):
    vectors = {name: torch.from_numpy(rng.standard_normal((NUM, WIDTH))).requires_grad_() for name in "abc"}
    there = {
        name: torch.tensor(flags, dtype=torch.bool)
        for name, flags in {"a": [1, 1, 1, 0, 1, 0], "b": [1, 1, 0, 1, 1, 0], "c": [0, 1, 0, 0, 0, 1]}.items()
    }
    costs = []
    for x in "abc":
        for y in "abc":
            for i in range(NUM):
                if x == y or not (there[x][i] and there[y][i]):
                    continue
                own = vectors[x][i].detach().numpy()
                score = {j: cos(own, vectors[y][j].detach().numpy()) / 0.2 for j in range(NUM) if there[y][j]}
                costs.append(math.log(sum(map(math.exp, score.values()))) - score[i])
    with torch.no_grad():
        vectors["a"][3] = torch.nan
    found = losses.info_nce_pairs(vectors, there, math.log(0.2))
    close(found, sum(costs) / len(costs))
    found.backward()
    assert all(x.grad.isfinite().all() for x in vectors.values())


def test_info_nce_without_a_pair_is_0_and_its_gradients_finite(rng):
    vectors = dict(zip("ab", pair(rng), strict=True))
    there = {"a": torch.tensor([True] * 3 + [False] * 3), "b": torch.tensor([False] * 3 + [True] * 3)}
    temperature = torch.tensor(0.1).log().requires_grad_()
    found = losses.info_nce_pairs(vectors, there, temperature)
    found.backward()
    assert found == 0
    assert all((x.grad == 0).all() for x in vectors.values())
    assert temperature.grad == 0


def test_dino_is_that_of_lightly_its_centre_included(golden):
    centre = torch.zeros(7, dtype=torch.float64)
    for step, temperature in enumerate((0.04, 0.05, 0.07)):
        teacher = losses.centred(golden["teacher"][step], centre, temperature)
        # lightly stores the temperature as float32
        assert float(losses.dino_cross_entropy(golden["student"][step], teacher, 0.1)) == pytest.approx(
            float(golden["dino"][step]), rel=1e-6
        )
        centre = losses.moved_centre(centre, golden["teacher"][step])
        torch.testing.assert_close(centre, golden["centre"][step], rtol=1e-6, atol=1e-6)


def test_dino_and_entropy_written_out(rng):
    student, teacher = rng.standard_normal((4, 3, 6)), rng.standard_normal((2, 3, 6))

    def soft(x):
        return np.exp(x) / np.exp(x).sum()

    costs = [
        -sum(p * math.log(q) for p, q in zip(soft(teacher[g, i] / 0.5), soft(student[v, i] / 0.7), strict=True))
        for g in range(2) for v in range(4) for i in range(3) if g != v
    ]  # fmt: skip
    p = losses.centred(torch.from_numpy(teacher), torch.zeros(6, dtype=torch.float64), 0.5)
    close(losses.dino_cross_entropy(torch.from_numpy(student), p, 0.7), np.mean(costs))
    each = [-sum(q * math.log(q) for q in soft(teacher[g, i] / 0.5)) for g in range(2) for i in range(3)]
    close(losses.entropy(p), np.mean(each))
    assert losses.entropy(torch.eye(3)) == 0


def test_sinkhorn_written_out_and_even(rng):
    logits = rng.uniform(-1, 1, (2, 5, 3))
    q = np.exp(logits.reshape(10, 3) / 0.3)
    for _ in range(3):
        q = q / q.sum(0) / 3
        q = q / q.sum(1, keepdims=True) / 10
    found = losses.sinkhorn(torch.from_numpy(logits), 0.3)
    np.testing.assert_allclose(found.numpy().reshape(10, 3), q * 10, atol=1e-6)
    even = losses.sinkhorn(torch.from_numpy(logits), 0.3, iterations=200)
    np.testing.assert_allclose(even.mean((0, 1)), 1 / 3, atol=1e-6)
    sharp = losses.sinkhorn(torch.from_numpy(logits * 100).float(), 0.04)  # exp of it is beyond float32
    assert sharp.isfinite().all()


@pytest.mark.parametrize("norm_pix", [False, True])
def test_masked_mse_written_out(rng, norm_pix):
    prediction, target = pair(rng, 2, 4, 9)
    hidden = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
    known = torch.from_numpy(rng.random((2, 4, 9)) > 0.2)
    known[1, 3] = False
    with torch.no_grad():
        target[0, 2] = 5.0  # a constant patch
        target[~known] = torch.nan
    target, errors = target.detach(), ([], [])
    for i, j in hidden.nonzero().tolist():
        values = [float(v) for v, k in zip(target[i, j], known[i, j], strict=True) if k]
        if norm_pix and values:
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
            values = [(v - mean) / math.sqrt(variance + 1e-6) for v in values]
        told = zip(prediction.detach()[i, j][known[i, j]], values, strict=True)
        errors[i].extend((float(p) - v) ** 2 for p, v in told)
    found = losses.masked_mse(prediction, target, hidden[..., None] & known, norm_pix=norm_pix)
    close(found, np.mean([np.mean(each) for each in errors]))
    found.backward()
    assert prediction.grad.isfinite().all()
    assert losses.masked_mse(prediction, target, torch.zeros_like(known), norm_pix=norm_pix) == 0


@pytest.mark.parametrize("kind", ["l1", "l2", "cosine"])
def test_latent_distance_written_out(rng, kind):
    a, b = pair(rng, 3, 4, WIDTH)
    mask = torch.from_numpy(rng.random((3, 4)) > 0.4)
    parts = []
    for i, j in mask.nonzero().tolist():
        x, y = a[i, j].detach().numpy(), b[i, j].detach().numpy()
        parts += [1 - cos(x, y)] if kind == "cosine" else list(abs(x - y) ** (2 if kind == "l2" else 1))
    close(losses.latent_distance(a, b, mask, kind=kind), np.mean(parts))


def test_patch_discrimination_written_out(rng):
    a, b = pair(rng, 3, 4, WIDTH)
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    windows = []
    for i in range(2):
        tokens = mask[i].nonzero()[:, 0].tolist()
        x, y = a[i].detach().numpy(), b[i].detach().numpy()
        costs = [math.log(sum(math.exp(cos(x[j], y[k]) / 0.1) for k in tokens)) - cos(x[j], y[j]) / 0.1 for j in tokens]
        windows.append(np.mean(costs))
    found = losses.patch_discrimination(a, b, mask)
    close(found, 0.2 * np.mean(windows))
    found.backward()
    assert a.grad.isfinite().all()


def test_masked_regression_counts_what_is_known(rng):
    a, b = pair(rng)
    known = torch.from_numpy(rng.random((NUM, WIDTH)) > 0.5)
    with torch.no_grad():
        b[~known] = torch.nan
    close(losses.masked_regression(a, b, known), float(((a - b).detach()[known] ** 2).mean()))
    nothing = losses.masked_regression(a, b, torch.zeros_like(known))
    nothing.backward()
    assert nothing == 0
    assert (a.grad == 0).all()


def test_half_precision_comes_out_as_float32(rng):
    a, b = (x.detach().to(torch.bfloat16) for x in pair(rng))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses.nt_xent(a, b, 0.1)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(written_nt_xent(a.double(), b.double(), 0.1), rel=1e-5)


def test_schedule_and_average_are_those_of_lightly(golden):
    np.testing.assert_allclose([cosine(step / 10, 0.996, 1.0) for step in range(11)], golden["cosine"], atol=1e-12)
    student, start = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    with torch.no_grad():
        student.weight.copy_(golden["weights"][0])
        start.weight.copy_(golden["weights"][1])
    teacher = Teacher({"layer": start})
    for _ in range(3):
        teacher.update({"layer": student}, 0.9)
    torch.testing.assert_close(teacher.parts["layer"].weight.data, golden["averaged"], rtol=1e-6, atol=1e-6)


TWO = """
import sys, torch
from torch import distributed
from covermap.nn.ssl import losses
torch.set_num_threads(1)

def all_losses(x, target, flags, width):
    a, b, c = x.split(width, 1)
    local = losses.nt_xent(a.reshape(-1, 2), b.reshape(-1, 2), 0.2, present=flags.repeat_interleave(2))
    there = {"a": flags, "b": ~flags | (a[:, 0] > 0), "c": torch.ones_like(flags)}
    return torch.stack([
        losses.nt_xent(a, b, 0.2), losses.nt_xent(a, b, 0.2, drop_positive=True, present=flags), local,
        losses.info_nce_pairs({"a": a, "b": b, "c": c}, there, -1.0),
        losses.masked_regression(a, target, target > 0), losses.patch_discrimination(
            a.unflatten(1, (2, 2)), b.unflatten(1, (2, 2)), torch.stack([flags, c[:, 0] > 0], 1)),
        losses.dino_cross_entropy(torch.stack([a, b, c]), losses.sinkhorn(torch.stack([b, a]), 0.3), 0.2),
        losses.moved_centre(torch.zeros(width).double(), a).square().sum(),
    ])

def run(rank, size, file):
    torch.manual_seed(0)
    x, target, weight = torch.randn(8, 6).double(), torch.randn(8, 4).double(), torch.randn(6, 12).double()
    flags = torch.tensor([1, 1, 1, 1, 1, 0, 0, 1], dtype=torch.bool)
    part = slice(rank * 8 // size, (rank + 1) * 8 // size)
    weight.requires_grad_()
    values = all_losses(x[part] @ weight, target[part], flags[part], 4)
    grads = torch.stack([torch.autograd.grad(v, weight, retain_graph=True)[0] for v in values[:-1]])
    out = torch.cat([values.detach(), grads.flatten()])
    if size > 1:
        distributed.all_reduce(out)
        out /= size
    return out

rank, file = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
found = run(rank, 2, file)
distributed.destroy_process_group()
if rank == 0:
    torch.testing.assert_close(found, run(0, 1, file), rtol=1e-9, atol=1e-9)
    print("equal")
"""


@pytest.mark.slow
def test_two_processes_share_one_loss_and_its_gradients(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [each.communicate(timeout=120) for each in started]
    assert outputs[0][0].strip() == "equal", outputs
