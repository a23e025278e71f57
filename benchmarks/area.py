"""Do 95 % intervals of areas hold? 1,000 maps with known truth and a biased classifier, a sample of each, two answers.

A map: 4 to 8 classes, errors of a tenth to two fifths that lean to the large classes, 10 to 100 million pixels. Its
sample: 640 points, at least 50 of each class (mixed allocation), pixels without replacement; or the same number without
strata. Counted: how often the interval holds the true area, of classes above 2 % of the map and of those below; and how
often an interval as wide around the mapped area (counting pixels) would.

usage: .venv/bin/python benchmarks/area.py [--maps 1000] [--seed 0]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from covermap.metrics.design_based import Units, accuracy, allocate, poststrata, weights_of

HA = 0.01


def draw_map(random: np.random.Generator) -> np.ndarray:
    """Pixels (K, K) by class on the map (rows) and in reality."""
    k = int(random.integers(4, 9))
    shares = np.sort(random.dirichlet(np.full(k, 0.7)))
    shares = np.maximum(shares, 0.005)
    shares /= shares.sum()
    total = int(random.integers(10_000_000, 100_000_000))
    truth = np.maximum((shares * total).astype(np.int64), 1)
    confusion = np.zeros((k, k), np.int64)
    for j in range(k):  # pixels that are j: most mapped as j, the others lean to large classes
        to = shares * random.uniform(0.3, 3, k)
        to[j] = 0
        p = random.uniform(0.1, 0.4) * to / to.sum()
        p[j] = 1 - p.sum()
        confusion[:, j] = random.multinomial(truth[j], p)
    return confusion


def answer(random: np.random.Generator, confusion: np.ndarray, *, stratified: bool) -> Iterator[tuple[float, ...]]:
    """(true share, estimate, low, high, mapped share) of each class."""
    size = confusion.sum(1)
    if stratified:
        num = allocate(640, size.tolist(), method="mixed", users=[0.8] * len(size), floor=50)
        rows = [random.multivariate_hypergeometric(row, n) for row, n in zip(confusion, num, strict=True)]
        counts = np.array(rows)
    else:
        counts = random.multivariate_hypergeometric(confusion.ravel(), 640, method="marginals").reshape(confusion.shape)
    mapped, reference = (np.repeat(v.ravel(), counts.ravel()) for v in np.indices(counts.shape))
    group = np.arange(len(size)) if stratified else poststrata(counts.sum(1).tolist())
    strata, areas = group[mapped], np.bincount(group, size * HA, len(size))
    weight = weights_of(strata, areas.tolist(), np.full(len(mapped), HA))
    pure = bool((group == np.arange(len(group))).all())
    found = accuracy(Units(mapped, reference, strata, np.arange(len(mapped)), weight, pure), len(size))
    total = size.sum()
    for k, one in enumerate(found.areas):
        yield confusion[:, k].sum() / total, one.value, one.low, one.high, size[k] / total


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    head = ("design", "classes", "intervals", "hold the true area", "around counted pixels", "error", "of counting")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for stratified in (True, False):
        random, found = np.random.default_rng(given.seed), []
        for _ in range(given.maps):
            found += answer(random, draw_map(random), stratified=stratified)
        true, value, low, high, mapped = np.array(found).T
        for name, chosen in (("above 2 %", true > 0.02), ("below 2 %", true <= 0.02)):
            holds = (low <= true) & (true <= high)
            counted = (low - value <= true - mapped) & (true - mapped <= high - value)
            error = [np.mean(np.abs((v - true)[chosen]) / true[chosen]) for v in (value, mapped)]
            shown = " | ".join(f"{100 * v[chosen].mean():.1f} %" for v in (holds, counted))
            design = "stratified" if stratified else "random, post-stratified"
            print(
                f"| {design} | {name} | {chosen.sum():,} | {shown} | {100 * error[0]:.0f} % | {100 * error[1]:.0f} % |"
            )


if __name__ == "__main__":
    main()
