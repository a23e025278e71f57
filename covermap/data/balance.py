"""Uneven classes: weights of the loss from the labelled pixels of the train part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError


def class_weights(
    class_px: npt.NDArray[np.int64],
    method: str | Sequence[float],
    *,
    names: Sequence[str],
    beta: float | None = None,
) -> npt.NDArray[np.float32]:
    """(K,) weights of the loss; classes without a training pixel get 0.

    balanced is N / (K n_c) over present classes (as scikit-learn's), sqrt its square root, none is 1. inverse is
    1 / n_c and effective (1 - beta) / (1 - beta^n_c) (Cui et al. 2019, eq. 4), both with mean 1 over present classes;
    by default beta is 1 - 1 / mean n_c: rare classes as in inverse, common ones nearly alike. A list is taken as it
    is. Raises ConfigError for a list of the wrong length.
    """
    if not isinstance(method, str):
        if len(method) != len(class_px):
            raise ConfigError(
                f"train.class_weights has {len(method)} numbers for {len(class_px)} classes ({', '.join(names)})",
                fix="give one weight for each class in the legend's order",
            )
        return np.asarray(method, np.float32)
    present = class_px > 0
    count = class_px[present].astype(np.float64)
    if method in ("inverse", "effective"):
        if method == "effective":
            beta = 1 - 1 / max(count.mean(), 2) if beta is None else beta
            # beta^n by its logarithm: for many pixels 1 - beta^n would lose its digits.
            count = -np.expm1(count * np.log(beta)) if beta > 0 else np.ones_like(count)
        found = 1 / count / np.mean(1 / count)
    else:
        found = (count.sum() / (len(count) * count)) ** {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[method]
    weights = np.zeros(len(class_px), np.float32)
    weights[present] = found
    return weights
