"""Banks of ridge fits beside scikit-learn, one thread of BLAS in each process.

Embeddings are generated (power-law spectrum, 11 targets), a curve has budgets of 50 to 2,000 of 6,000 samples in one
order, fitted and scored (r, R2, RMSE) on 1,000 further ones: 66 fits. Sides take turns; medians.

    parity   scores beside scikit-learn's float64 Ridge over all (n, d), also n = d and constant targets; penalties
             chosen by leaving one out beside RidgeCV
    curve    one curve: covermap, Ridge of all targets in float32 and float64, a loop of Ridge and of LinearRegression
             over targets; beside it the share of this core's own rate of matrix products
    many     fits in a second with one process, and with two
    scores   11 x 11 regions from moments and from predictions

usage: .venv/bin/python benchmarks/probe.py [parity curve many scores] [--d 128,384,768,1024] [--rounds 7]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from threadpoolctl import threadpool_limits

from covermap.ml.ridge import RidgePath
from covermap.ml.ridge_bank import SCORES, Moments, Pool

BUDGETS, TARGETS, POOL, TEST = (50, 100, 200, 500, 1000, 2000), 11, 6000, 1000
SECONDS_MANY = 20


def generate(d: int, seed: int = 0, count: int = POOL + TEST) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (count, d) float32 and targets (count, TARGETS), which they tell in part."""
    random = np.random.default_rng(seed)
    spread = (1.0 + np.arange(d)) ** -0.5
    values = random.standard_normal((count, d)) * spread
    targets = values @ (random.standard_normal((d, TARGETS)) * spread[:, None])
    targets = targets / targets.std(0) + 0.5 * random.standard_normal((count, TARGETS))
    return (values + 1).astype(np.float32), targets


def penalty_of(values: np.ndarray, targets: np.ndarray) -> float:
    """What leaving one out chooses for a middle budget, most targets."""
    return float(np.median(RidgePath.of(values[:500], targets[:500]).choose()))


def reference_scores(predicted: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """SCORES (T,) of predictions (M, T) in float64, NaN where undefined."""
    errors = ((predicted - targets) ** 2).sum(0)
    deviation, other = targets - targets.mean(0), predicted - predicted.mean(0)
    square, constant = (deviation**2).sum(0), np.ptp(targets, axis=0) == 0
    still = constant | (np.ptp(predicted, axis=0) < 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (deviation * other).sum(0) / np.sqrt(square * (other**2).sum(0))
        r2 = 1 - errors / square
    return {"r": np.where(still, np.nan, r), "r2": np.where(constant, np.nan, r2),
            "rmse": np.sqrt(errors / len(targets))}  # fmt: skip


def parity(d: int) -> None:
    values, targets = generate(d)
    targets[:, 3] = 0.25
    targets[POOL:, 4] = 1.0
    penalty, order = penalty_of(values, targets), np.random.default_rng(1).permutation(POOL)
    budgets = sorted({*BUDGETS, d})
    found = Pool.of(values[:POOL], targets[:POOL]).fit(order, budgets, penalty)
    scores = Moments.of(values[POOL:], targets[POOL:]).scores(found.weights, found.intercepts)
    worst = dict.fromkeys(SCORES, 0.0)
    for number, n in enumerate(budgets):
        model = Ridge(alpha=penalty).fit(values[order[:n]].astype(np.float64), targets[order[:n]])
        expected = reference_scores(model.predict(values[POOL:].astype(np.float64)), targets[POOL:])
        for key in SCORES:
            mine, theirs = scores[key][number], expected[key]
            assert (np.isnan(mine) == np.isnan(theirs)).all(), (d, n, key)
            worst[key] = max(worst[key], float(np.nanmax(np.abs(mine - theirs))))
    same = total = 0
    for n in budgets:
        x, y = values[order[:n]].astype(np.float64), np.delete(targets[order[:n]], 3, 1)
        path = RidgePath.of(x, y)
        same += int((RidgeCV(alphas=path.penalties, alpha_per_target=True).fit(x, y).alpha_ == path.choose()).sum())
        total += y.shape[1]
    said = ", ".join(f"{key} {value:.1e}" for key, value in worst.items())
    print(f"d {d}: largest differences {said}; penalties of RidgeCV {same} of {total}", flush=True)


def median_ms(work: Callable[[], object], rounds: int) -> float:
    """Median of several calls."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def floor_gflop(d: int) -> float:
    """Sums that the factors and solves of one curve need at least (Gram matrices, Cholesky, weights, scores)."""
    few, many = [n for n in BUDGETS if n < d], [n for n in BUDGETS if n >= d]
    total = 0.0
    if few:
        n = few[-1]
        total += n * n * d + n**3 / 3 + n * n * TARGETS + sum(m * m * TARGETS + 2 * m * d * TARGETS for m in few)
    if many:
        total += many[-1] * d * d + len(many) * (d**3 / 3 + 2 * d * d * TARGETS)
    return (total + 2 * len(BUDGETS) * TARGETS * d * d) / 1e9


def sgemm_gflops(d: int) -> float:
    """This core's rate of matrix products of the curve's own size."""
    left, right = (np.random.default_rng(0).standard_normal((n, d)).astype(np.float32) for n in (2000, 2000))
    return 2 * 2000 * 2000 * d / 1e6 / median_ms(lambda: left @ right.T, 5)


def curve(d: int, rounds: int) -> None:
    values, targets = generate(d)
    penalty, random = penalty_of(values, targets), np.random.default_rng(1)
    pool, moments = Pool.of(values[:POOL], targets[:POOL]), Moments.of(values[POOL:], targets[POOL:])
    double, test = values.astype(np.float64), targets[POOL:]
    orders = [random.permutation(POOL) for _ in range(rounds)]

    def ours(order: np.ndarray) -> None:
        found = pool.fit(order, BUDGETS, penalty)
        moments.scores(found.weights, found.intercepts)

    def together(order: np.ndarray, given: np.ndarray, own: np.ndarray) -> None:
        for n in BUDGETS:
            model = Ridge(alpha=penalty).fit(given[order[:n]], own[order[:n]])
            reference_scores(model.predict(given[POOL:]), test)

    def loop(order: np.ndarray, make: Callable[[], Ridge | LinearRegression]) -> None:
        for n in BUDGETS:
            predicted = [make().fit(double[order[:n]], targets[order[:n], t]).predict(double[POOL:])
                         for t in range(TARGETS)]  # fmt: skip
            reference_scores(np.stack(predicted, 1), test)

    short = targets.astype(np.float32)
    sides: dict[str, Callable[[np.ndarray], None]] = {
        "covermap": ours,
        "Ridge, all targets, float32": lambda order: together(order, values, short),
        "Ridge, all targets, float64": lambda order: together(order, double, targets),
        "Ridge, a loop over targets": lambda order: loop(order, lambda: Ridge(alpha=penalty)),
        "LinearRegression, a loop": lambda order: loop(order, LinearRegression),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number, order in enumerate(orders):
        for name, side in sides.items():
            if number >= 3 and "loop" in name:
                continue
            start = time.perf_counter()
            side(order)
            times[name].append(1000 * (time.perf_counter() - start))
    mine, peak = statistics.median(times["covermap"]), sgemm_gflops(d)
    rate = floor_gflop(d) / mine * 1000
    print(f"d {d}: {mine:.2f} ms, {66 / mine * 1000:,.0f} fits/s, {rate:.0f} of {peak:.0f} GFLOP/s "
          f"({rate / peak:.0%})", flush=True)  # fmt: skip
    for name, taken in list(times.items())[1:]:
        print(f"   {name}: {statistics.median(taken):,.1f} ms, {statistics.median(taken) / mine:.1f} x", flush=True)


def _work(d: int, seed: int, seconds: float) -> int:
    """Fits that one process makes in so many seconds."""
    with threadpool_limits(1, user_api="blas"):
        values, targets = generate(d)
        penalty, random = penalty_of(values, targets), np.random.default_rng(seed)
        pool, moments = Pool.of(values[:POOL], targets[:POOL]), Moments.of(values[POOL:], targets[POOL:])
        fits, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            found = pool.fit(random.permutation(POOL), BUDGETS, penalty)
            moments.scores(found.weights, found.intercepts)
            fits += len(BUDGETS) * TARGETS
        return fits


def many(d: int) -> None:
    for processes in (1, 2):
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            fits = sum(pool.starmap(_work, [(d, seed, SECONDS_MANY) for seed in range(processes)]))
        rate = fits / SECONDS_MANY
        print(f"d {d}, {processes} processes: {rate:,.0f} fits/s, 500,000 in {500_000 / rate:.0f} s", flush=True)


def scores(d: int, rounds: int) -> None:
    values, targets = generate(d, count=11 * 3000)
    parts = [slice(3000 * i, 3000 * (i + 1)) for i in range(11)]
    fits = [RidgePath.of(values[part][:1000], targets[part][:1000]).fit(1.0) for part in parts]
    weights, intercepts = (np.stack([fit[i] for fit in fits]) for i in (0, 1))
    kept = [Moments.of(values[part], targets[part]) for part in parts]
    areas = [(values[part].astype(np.float64), targets[part]) for part in parts]

    def predicted() -> list[dict[str, np.ndarray]]:
        return [reference_scores(x @ fit.weights.T + fit.intercepts, y) for x, y in areas for fit in fits]

    def from_moments() -> list[dict[str, np.ndarray]]:
        return [one.scores(weights, intercepts) for one in kept]

    far = max(
        float(np.abs(mine["r2"][i] - theirs["r2"]).max())
        for (area, mine) in enumerate(from_moments())
        for i, theirs in enumerate(predicted()[11 * area : 11 * area + 11])
    )
    first, second = median_ms(predicted, rounds), median_ms(from_moments, rounds)
    print(f"d {d}: 11 x 11 regions of 3,000: predictions {first:.0f} ms, moments {second:.1f} ms "
          f"({first / second:.1f} x), largest difference of R2 {far:.0e}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["parity", "curve", "many", "scores"])
    parser.add_argument("--d", default="128,384,768,1024", help="features, several by commas")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    dims = [int(d) for d in args.d.split(",")]
    with threadpool_limits(1, user_api="blas"):
        for d in dims if "parity" in args.what else ():
            parity(d)
        for d in dims if "curve" in args.what else ():
            curve(d, args.rounds)
        for d in dims if "scores" in args.what else ():
            scores(d, args.rounds)
    for d in dims if "many" in args.what else ():
        many(d)


if __name__ == "__main__":
    main()
