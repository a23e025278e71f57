"""How the scores of each kind of task are shown: which numbers, under which names, and the result in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Score(NamedTuple):
    """A row of the scores. form: percent, score, number or count. best: the side that is better, high, low or none."""

    key: str
    title: str
    meaning: str
    form: str = "score"
    best: str = "high"


class Column(NamedTuple):
    """A column of the table by class or number."""

    key: str
    title: str
    form: str = "score"


class Shown(NamedTuple):
    """What the page shows of a task.

    table: its key in metrics.json. name: the key of a row's name. bar: the column that is drawn, with its title.
    """

    scores: tuple[Score, ...]
    table: str
    name: str
    counted: Column
    columns: tuple[Column, ...]
    note: str
    bar: tuple[str, str] | None
    sentence: Callable[[Mapping[str, Any]], str]


def shown_of(metrics: Mapping[str, Any] | None) -> Shown:
    """What is shown of a run's metrics; earlier versions knew classes of pixels only."""
    return _SHOWN[(metrics or {}).get("task", "segmentation")]


def percent(share: float | None, digits: int = 1) -> str:
    """0.912 -> 91.2 %; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def score(value: float | None, digits: int = 3) -> str:
    """0.71234 -> 0.712; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def number(value: float | None) -> str:
    """Four digits, in whatever unit; a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def hectares(value: float) -> str:
    """Three digits where there are that many: 1234.5 -> 1,234 and 1.2345 -> 1.23."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def signed(value: float) -> str:
    """The same with its sign: +12.3, −4.56, 0."""
    text = hectares(abs(value))
    return text if not float(text.replace(",", "")) else f"{'+' if value > 0 else chr(0x2212)}{text}"


_OA = Score("oa", "Overall agreement", "share of the labelled {} that get their label's class", "percent")
_F1 = Score("macro_f1", "Mean F1", "balance of user's and producer's accuracy, mean of the classes present")
_RECALL = Score("macro_recall", "Mean recall", "share found, mean of the classes present: rare ones count alike")
_KAPPA = Score("kappa", "Kappa", "agreement beyond what the class shares give by chance")
_PRESENT = Score("num_present", "Classes present", "classes with at least one labelled {} in this part", "count", "")
_PIXELS = Score(
    "num_pixels", "Labelled pixels", "neighbouring pixels are alike: this is not a number of independent samples",
    "count", "",
)  # fmt: skip
_CHIPS = Score("num_pixels", "Chips", "with a known answer in this part", "count", "")
_CLASS_COLUMNS = (
    Column("iou", "IoU"), Column("f1", "F1"), Column("users", "User's accuracy", "percent"),
    Column("producers", "Producer's accuracy", "percent"),
)  # fmt: skip
_CLASS_NOTE = (
    "User's accuracy: how much of what the model calls a class is that class in the labels. Producer's accuracy: how "
    "much of the labelled class it finds. A dash: nothing labelled, or never predicted."
)


def _of(row: Score, what: str) -> Score:
    return row._replace(meaning=row.meaning.format(what))


def _classes(what: str, scores: tuple[Score, ...], sentence: Callable[[Mapping[str, Any]], str]) -> Shown:
    count = Column("reference_px", f"Labelled {what}", "count")
    return Shown(scores, "per_class", "class", count, _CLASS_COLUMNS, _CLASS_NOTE, ("iou", "IoU"), sentence)


def _agreement(what: str, key: str, words: str) -> Callable[[Mapping[str, Any]], str]:
    def sentence(metrics: Mapping[str, Any]) -> str:
        (name, first), *others = metrics["models"].items()
        scores = first["scores"]
        text = f"{_held(metrics, what)} the {name} agrees with the labels on {percent(scores['oa'])} "
        text += f"({words} {score(scores[key], 2)} over {scores['num_present']} classes)"
        for other, result in others:
            text += f"; the {other} beside it reaches {percent(result['scores']['oa'])} "
            text += f"({score(result['scores'][key], 2)})"
        return text + "."

    return sentence


def _valued(what: str, *shown: tuple[str, str, Callable[[Any], str]]) -> Callable[[Mapping[str, Any]], str]:
    """Sentences such as: On held-out chips the network has F1 0.81 and IoU 0.68; the random forest beside it ..."""

    def values(scores: Mapping[str, Any]) -> str:
        return " and ".join(f"{words} {form(scores[key])}" for key, words, form in shown)

    def sentence(metrics: Mapping[str, Any]) -> str:
        (name, first), *others = metrics["models"].items()
        text = f"{_held(metrics, what)} the {name} has {values(first['scores'])}"
        return text + "".join(f"; the {n} beside it {values(r['scores'])}" for n, r in others) + "."

    return sentence


def _held(metrics: Mapping[str, Any], what: str) -> str:
    return f"On held-out {metrics['part']} {what}" if metrics["is_test"] else f"On {metrics['part']} {what} (no test)"


_SEGMENTATION = _classes(
    "pixels",
    (
        _of(_OA, "pixels"),
        Score("miou", "Mean IoU", "overlap divided by union of map and labels, mean of the classes present"),
        _F1, _KAPPA, _of(_PRESENT, "pixel"), _PIXELS,
    ),
    _agreement("pixels", "miou", "mean IoU"),
)  # fmt: skip
_HAZARD = _classes(
    "pixels",
    (
        Score("auprc", "AUPRC", "average precision over all thresholds, pooled over all pixels"),
        Score("auc", "AUC", "chance that a pixel of the hazard gets the higher probability than another one"),
        Score("f1", "F1", "of the hazard at its threshold"),
        Score("iou", "IoU", "of the hazard at its threshold"),
        Score("precision", "Precision", "share of what is called the hazard that is", "percent"),
        Score("recall", "Recall", "share of the hazard that is found", "percent"),
        Score("num_positive_chips", "Scenes with the hazard", "in this part", "count", ""),
        Score("false_positive_px_negative_chips", "False pixels", "on scenes without the hazard", "count", "low"),
        _PIXELS,
    ),
    _valued("pixels", ("f1", "F1", score), ("auprc", "AUPRC", score)),
)  # fmt: skip
_OF_CHANGE = [row._replace(meaning=row.meaning.replace("the hazard", "change")) for row in _HAZARD.scores[:6]]
_CHANGE = _HAZARD._replace(scores=(*_OF_CHANGE, _PIXELS))
_BY = {"from_to": "one table of pairs of classes", "dates_stacked": "both dates in one table"}
_SEMANTIC_CHANGE = _classes(
    "pixels",
    (
        *(
            score_
            for by, words in _BY.items()
            for score_ in (
                Score(f"sek_{by}", f"SeK ({by})", f"separated kappa, {words}: agreement on change beyond chance"),
                Score(f"fscd_{by}", f"F_scd ({by})", f"F1 of changed pixels with the right classes, {words}"),
                Score(f"score_{by}", f"Score ({by})", "0.3 mean IoU + 0.7 SeK"),
            )
        ),
        Score("miou", "Mean IoU", "of changed and unchanged, whatever the classes"),
        Score("f1", "F1 of change", "changed or not, whatever the classes"),
        Score("scs", "SCS", "mean of IoU of change and of the later classes' mean IoU where it changed"),
        _PIXELS,
    ),
    _valued("pixels", ("sek_from_to", "SeK (from_to)", score), ("f1", "F1 of change", score)),
)  # fmt: skip
_CLASSIFICATION = _classes(
    "chips", (_of(_OA, "chips"), _RECALL, _F1, _KAPPA, _of(_PRESENT, "chip"), _CHIPS),
    _agreement("chips", "macro_recall", "mean recall"),
)  # fmt: skip
_DENSITY = _CLASSIFICATION._replace(
    scores=(
        Score("auc", "AUC", "chance that a chip above a border ranks over one below, mean of the borders"),
        *_CLASSIFICATION.scores,
        Score("mae", "Mean distance", "between the right class and the one given, in classes", "score", "low"),
    )
)
_MULTILABEL = Shown(
    (
        Score("map", "Mean average precision", "over all thresholds, mean of the classes present"),
        Score("macro_f1", "Mean F1", "at the threshold, mean of the classes present"),
        Score("micro_f1", "Pooled F1", "at the threshold, all classes together"),
        Score("num_present", "Classes present", "classes with at least one chip in this part", "count", ""),
        Score("num_chips", "Chips", "with a known answer in this part", "count", ""),
    ),
    "per_class", "class", Column("positives", "Chips", "count"),
    (
        Column("average_precision", "Average precision"), Column("f1", "F1"),
        Column("precision", "Precision", "percent"), Column("recall", "Recall", "percent"),
    ),
    "Precision: how often a class that is named is there. Recall: how often one that is there is named.",
    ("average_precision", "average precision"), _valued("chips", ("map", "mAP", score), ("macro_f1", "mean F1", score)),
)  # fmt: skip
_NUMBERS = Shown(
    (
        Score("rmse", "RMSE", "root of the mean squared error; of several numbers in their std", "number", "low"),
        Score("mae", "MAE", "mean absolute error; of several numbers in their std", "number", "low"),
        Score("bias", "Bias", "mean of what is predicted minus what is known", "number", ""),
        Score("r2", "R2", "share of the variance that is explained; of a constant guess 0"),
        Score("r", "r", "correlation (Pearson)"),
        Score("num_pairs", "Known numbers", "neighbours are alike: not a number of independent samples", "count", ""),
    ),
    "per_number", "target", Column("num_pairs", "Known", "count"),
    (
        Column("rmse", "RMSE", "number"), Column("mae", "MAE", "number"), Column("bias", "Bias", "number"),
        Column("r2", "R2"), Column("r", "r"),
    ),
    "Errors are in the number's own unit. Scores of each place stand in per_place_*.csv.",
    None, _valued("numbers", ("rmse", "RMSE", number), ("r2", "R2", score)),
)  # fmt: skip
_SHOWN: Mapping[str, Shown] = {
    "segmentation": _SEGMENTATION, "hazard": _HAZARD, "classification": _CLASSIFICATION, "density": _DENSITY,
    "change": _CHANGE, "semantic_change": _SEMANTIC_CHANGE, "multilabel": _MULTILABEL,
    "regression": _NUMBERS, "chip_regression": _NUMBERS,
}  # fmt: skip
