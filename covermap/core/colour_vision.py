"""Which colours of a legend look alike, also to people who do not see red, green or blue as most do.

Colours are turned into what such eyes see with the matrices of Machado, Oliveira and Fernandes (2009,
doi:10.1109/TVCG.2009.113) at full severity, and compared as distances in CIE L*a*b* (D65, 1976).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.legend import Legend

ALIKE = 10.0
"""Distance in L*a*b* below which two areas of a map are easily confused; about 2 is the least that eyes can tell."""
VISION = {
    "normal": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""What becomes of linear red, green and blue; without cones for red, for green, for blue."""
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def alike(legend: Legend, *, distance: float = ALIKE) -> list[dict[str, Any]]:
    """Pairs of classes whose colours lie closer than `distance`, the closest first: vision, two names, distance."""
    rgb = [c.rgb for c in legend.classes]
    found = []
    for vision in VISION:
        seen = lab(rgb, vision=vision)
        for i, j in combinations(range(len(legend)), 2):
            apart = float(np.linalg.norm(seen[i] - seen[j]))
            if apart < distance:
                names = legend.names[i], legend.names[j]
                found.append({"vision": vision, "first": names[0], "second": names[1], "distance": round(apart, 1)})
    return sorted(found, key=lambda row: row["distance"])


def lab(rgb: Sequence[Sequence[int]], *, vision: str = "normal") -> npt.NDArray[np.float64]:
    """sRGB 0 to 255 (N, 3) -> L*, a*, b* (N, 3) of what eyes of this kind see."""
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(VISION[vision]).T, 0, 1)
    white = np.sum(_XYZ, axis=1)
    t = seen @ np.asarray(_XYZ).T / white
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
