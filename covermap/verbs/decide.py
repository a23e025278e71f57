"""What is fitted on the val part after training: temperature, logit adjustment, threshold (config section decision).

    answers on val -> temperature -> probabilities that are right -> tau, threshold -> the model folder's task

The network's weights stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.core.legend import IGNORE
from covermap.core.progress import Say
from covermap.core.run import Run
from covermap.core.task import Task
from covermap.core.train_config import DecisionConfig, PredictConfig
from covermap.infer import in_sets
from covermap.metrics.binary import BinaryScores
from covermap.metrics.calibration import FEWEST_LABELS, fit_sets, fit_temperature
from covermap.metrics.tradeoff import Tradeoff, best_within, expected_tradeoff
from covermap.models import LandModel, device_of, load_model, read_card, save_card
from covermap.start import Prepared
from covermap.verbs.score import compare

MAX_PX = 200_000
"""Pixels that are looked at; more would not change the second digit."""
TAUS = np.linspace(0, 1.5, 61)
Answers = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def decide(run: Run, ready: Prepared, say: Say) -> None:
    """Fit what the config asks for and write it into the run's model folder, or a note why not."""
    config, folder = run.config.decision, run.path("model")
    card = read_card(folder)
    if not config.needs_val and not config.adjust and config.threshold == 0.5:
        return
    # As if nothing had been fitted before.
    task = replace(card.task, temperature=1.0, offsets=(), threshold=0.5, set_from=0.0, coverage=0.0)
    notes: list[str] = []
    if config.needs_val:
        model = load_model(folder, device=device_of(run.config.predict.device))
        model.task = task
        if task.kind.takes == "presence":
            task, notes = _threshold_of_presence(task, model, ready, run.config.predict)
        else:
            task, notes = _of_classes(task, config, model, ready, run.config.predict)
    else:
        task = _shifted(task, ready, float(config.adjust), config.threshold)  # type: ignore[arg-type]
    facts = card.facts | {"decision": "; ".join(notes)} if notes else card.facts
    save_card(replace(card, task=task, facts=facts), folder)
    for note in notes:
        say(note)


def _of_classes(
    task: Task, config: DecisionConfig, model: LandModel, ready: Prepared, settings: PredictConfig
) -> tuple[Task, list[str]]:
    log_p, label = answers_of(model, ready, settings)
    notes, temperature = [], 1.0
    if config.temperature or config.adjust == "auto":
        if len(label) < FEWEST_LABELS:
            return task, [f"nothing fitted: {len(label)} answers of the val part are fewer than {FEWEST_LABELS}"]
        temperature = fit_temperature(log_p, label)
    if config.temperature:
        task = replace(task, temperature=temperature)
        notes.append(f"temperature {temperature:.3g}, fitted on {len(label):,} answers of the val part")
    tau = config.adjust
    if tau == "auto":
        # Chosen by probabilities that are right, whether or not the model keeps them.
        right = log_p / temperature
        per = 1.0 if config.temperature else 1 / temperature
        rows = expected_tradeoff(right, _prior(ready), TAUS * per)
        best = best_within(rows, config.adjust_loss)
        tau = best.tau / per
        notes.append(_told(rows[0], best, tau))
    threshold = config.threshold
    if threshold == "auto":
        assert task.positive is not None
        scores = BinaryScores()
        p = np.exp(log_p / task.temperature)
        scores.add((p / p.sum(1, keepdims=True))[:, task.positive], (label == task.positive).astype(np.uint8))
        threshold, told = _threshold(scores)
        notes.append(told)
    task = _shifted(task, ready, float(tau), float(threshold))
    if config.conformal is None:
        return task, notes
    return _with_sets(task, config.conformal, log_p, label, notes)


def _with_sets(
    task: Task, coverage: float, log_p: npt.NDArray[np.float64], label: npt.NDArray[np.int64], notes: list[str]
) -> tuple[Task, list[str]]:
    """The task with conformal sets of its final probabilities."""
    if len(label) < FEWEST_LABELS:
        return task, [*notes, f"no sets: {len(label)} answers of the val part are fewer than {FEWEST_LABELS}"]
    shifted = log_p / task.temperature + (np.asarray(task.offsets) if task.offsets else 0)
    p = np.exp(shifted - np.logaddexp.reduce(shifted, 1, keepdims=True))
    set_from = fit_sets(p, label, coverage)
    size = float(in_sets(p.T.astype(np.float32), set_from).sum(0).mean())
    told = (
        f"sets from probability {set_from:.3g} hold the right class in {coverage:.0%} of val, {size:.2f} classes each"
    )
    return replace(task, set_from=set_from, coverage=coverage), [*notes, told]


def _told(plain: Tradeoff, best: Tradeoff, tau: float) -> str:
    gain, cost = best.macro_recall - plain.macro_recall, plain.accuracy - best.accuracy
    return (
        f"logit adjustment {tau:.3g}: mean recall +{gain:.3f} for {cost:.3f} of overall agreement, as expected on val"
    )


def _prior(ready: Prepared) -> npt.NDArray[np.float64]:
    """Shares of the classes in the train part; 0 for those that it lacks."""
    counts = ready.survey.class_px
    return np.asarray(counts / counts.sum())


def _shifted(task: Task, ready: Prepared, tau: float, threshold: float) -> Task:
    """The task with tau * log share taken off each class, and a hazard's threshold as a shift of its own."""
    if task.kind.takes == "presence":
        return replace(task, threshold=threshold)
    prior = _prior(ready)
    offsets = -tau * np.log(np.where(prior > 0, prior, 1))  # what was never seen is not made likelier
    if task.positive is not None:
        offsets[task.positive] -= np.log(threshold / (1 - threshold))
    return replace(task, offsets=tuple(offsets.tolist()) if offsets.any() else ())


def answers_of(model: LandModel, ready: Prepared, settings: PredictConfig) -> Answers:
    """Log-probabilities (N, K) and class indices (N,) known on val, at most MAX_PX drawn at random."""
    rng, kept = np.random.default_rng(0), _Drawn(np.empty((0, len(model.legend)), np.float32), *np.empty((2, 0)))
    for one in compare(model, ready.scenes, ready.split, "val", settings=settings):
        known = one.reference != IGNORE
        label = one.reference[known]
        more = _Drawn(one.answers[:, known].T.astype(np.float32), label, rng.random(label.size))
        kept = _Drawn(*(np.concatenate(pair) for pair in zip(kept, more, strict=True)))
        if len(kept.lot) > 2 * MAX_PX:
            kept = kept.lowest(MAX_PX)
    kept = kept.lowest(MAX_PX)
    return np.log(np.maximum(kept.p.astype(np.float64), 1e-12)), kept.label.astype(np.int64)


class _Drawn(NamedTuple):
    """Answers, labels and a random number of each, by whose lowest a fair sample is kept."""

    p: npt.NDArray[Any]
    label: npt.NDArray[Any]
    lot: npt.NDArray[Any]

    def lowest(self, count: int) -> _Drawn:
        keep = np.sort(np.argsort(self.lot, kind="stable")[:count])
        return _Drawn(*(values[keep] for values in self))


def _threshold_of_presence(
    task: Task, model: LandModel, ready: Prepared, settings: PredictConfig
) -> tuple[Task, list[str]]:
    """One threshold for all classes, of most F1 over all of them together."""
    scores = BinaryScores()
    for one in compare(model, ready.scenes, ready.split, "val", settings=settings):
        known = np.isfinite(one.reference)
        scores.add(one.answers, np.where(known, one.reference, IGNORE).astype(np.uint8))
    threshold, told = _threshold(scores)
    return replace(task, threshold=threshold), [told]


def _threshold(scores: BinaryScores) -> tuple[float, str]:
    """The one of most F1, away from 0 and 1, or 0.5 where the val part has no positive; and a sentence."""
    threshold, f1 = scores.best_threshold()
    if np.isnan(threshold):
        return 0.5, "threshold 0.5: the val part has no positive to choose another by"
    threshold = float(np.clip(threshold, 1e-6, 1 - 1e-6))
    return threshold, f"threshold {threshold:.3f}: F1 {f1:.3f} on the val part, which chose it"
