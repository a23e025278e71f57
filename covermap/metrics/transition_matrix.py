"""What a transition matrix says of each class.

Rows are the classes before, columns those after. Gain, loss, net, swap and total change: Pontius, Shusas and McEachern
(2004), doi:10.1016/j.agee.2003.09.008.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def class_changes(areas: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Of areas (K, K), each (K,): before, after, persistence, gain, loss, net (after - before), swap, total.

    The absolute value of net is the net change; swap is twice the lesser of gain and loss; |net| + swap = gain + loss =
    total.
    """
    table = np.asarray(areas, np.float64)
    before, after, stays = table.sum(1), table.sum(0), np.diagonal(table).copy()
    gain, loss = after - stays, before - stays
    return {
        "before": before, "after": after, "persistence": stays, "gain": gain, "loss": loss, "net": gain - loss,
        "swap": 2 * np.minimum(gain, loss), "total": gain + loss,
    }  # fmt: skip
