"""Class weights from the labelled pixels of the train part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError


def class_weights(
    class_px: npt.NDArray[np.int64], method: str | Sequence[float], *, names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """(K,) weights of the loss; classes without a training pixel get 0.

    balanced is N / (K n_c) over present classes (as scikit-learn's), sqrt its square root, none is 1; a list is taken
    as it is. Raises ConfigError for a list of the wrong length.
    """
    if not isinstance(method, str):
        if len(method) != len(class_px):
            raise ConfigError(
                f"train.class_weights has {len(method)} numbers for {len(class_px)} classes ({', '.join(names)})",
                fix="give one weight for each class in the legend's order",
            )
        return np.asarray(method, np.float32)
    present = class_px > 0
    balanced = np.zeros(len(class_px))
    balanced[present] = class_px.sum() / (present.sum() * class_px[present])
    power = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[method]
    return np.where(present, balanced**power, 0).astype(np.float32)
