"""How far two maps agree, and in what they differ: in how much of each class there is, or in where it lies.

Neither map is the truth: nothing here is an accuracy. Rows are the one map, columns the other. Quantity and allocation
disagreement: Pontius and Millones (2011), doi:10.1080/01431161.2011.552923; the two add up to 1 - agreement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.metrics.confusion import ratio


def agreement_of(areas: npt.NDArray[Any]) -> dict[str, float]:
    """agreement, quantity_disagreement and allocation_disagreement of areas (K, K), shares of all; NaN of nothing."""
    each, total = agreement_per_class(areas), np.asarray(areas, np.float64).sum()
    quantity, allocation = (each[key].sum() / 2 for key in ("quantity", "allocation"))
    found = {"agreement": each["both"].sum(), "quantity_disagreement": quantity, "allocation_disagreement": allocation}
    return {key: float(ratio(value, total)) for key, value in found.items()}


def agreement_per_class(areas: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Of areas (K, K), each (K,): what the maps hold of a class, and how it agrees; shares are NaN of nothing.

    first, other, both: areas. of_first, of_other, of_either: both as a share of them (of_either: Jaccard index).
    quantity: difference of the areas without its sign. allocation: what could be exchanged between places.
    """
    table = np.asarray(areas, np.float64)
    first, other, both = table.sum(1), table.sum(0), np.diagonal(table)
    return {
        "first": first, "other": other, "both": both, "of_first": ratio(both, first), "of_other": ratio(both, other),
        "of_either": ratio(both, first + other - both), "quantity": np.abs(first - other),
        "allocation": 2 * np.minimum(first - both, other - both),
    }  # fmt: skip
