"""Which pixels a product's own classification calls cloud, shadow and the like.

scl       Sentinel-2 L2A scene classification, codes 0 to 11 (ESA S2-PDGS-TAS-DI-PSD, scene classification map)
qa_pixel  Landsat Collection 2 pixel quality, bits (USGS LSDS-1618 and LSDS-1619)
fmask     Harmonized Landsat Sentinel-2 v2.0, bits (NASA, HLS user guide v2.0)
classi    Sentinel-2 L1C MSK_CLASSI since baseline 04.00, bands of 0 or 1: opaque cloud, cirrus, snow (same document)
mask      a plain mask: 0 is clear, anything else is cloud
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.config import CloudConfig
from covermap.core.errors import ConfigError, DataError, suggest
from covermap.geo.granule import Granule

CODES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "scl": {
        "defective": (1,), "dark": (2,), "shadow": (3,), "water": (6,), "unclassified": (7,), "cloud": (8, 9),
        "cirrus": (10,), "snow": (11,),
    },
}  # fmt: skip
"""{specification: {kind: codes}}."""

BITS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "qa_pixel": {"dilated": (1,), "cirrus": (2,), "cloud": (3,), "shadow": (4,), "snow": (5,), "water": (7,)},
    "fmask": {"cloud": (1,), "dilated": (2,), "shadow": (3,), "snow": (4,), "water": (5,)},
    "classi": {"cloud": (0,), "cirrus": (1,), "snow": (2,)},
}
"""{specification: {kind: bits}}; of classi the band, from 0."""

CLOUDY = ("cloud", "dilated", "cirrus", "shadow", "defective")
"""The kinds that are masked unless others are named, as far as a specification knows them: clouds with their margin,
thin cirrus, shadows, and pixels without a good measurement. Snow and water are land cover."""

SPECIFICATIONS = (*CODES, *BITS, "mask")
_IN_NAMES = {"scl": r"(?<![a-z])scl(?![a-z])", "qa_pixel": r"qa_pixel", "fmask": r"(?<![a-z])fmask(?![a-z])",
             "classi": r"msk_classi"}  # fmt: skip


@dataclass(frozen=True)
class CloudMask:
    """A classification file of one date, and the kinds of pixels that are not used."""

    path: str
    specification: str
    kinds: tuple[str, ...]

    @staticmethod
    def of(path: str, specification: str | None = None, kinds: Sequence[str] | None = None) -> CloudMask:
        """Found by the file's name unless it is said; raises ConfigError for kinds that the file does not tell apart,
        DataError where the name says nothing."""
        named = specification or find_specification(path)
        known = {"cloud": ()} if named == "mask" else {**CODES, **BITS}.get(named, {})
        if kinds is None:
            return CloudMask(path, named, tuple(kind for kind in CLOUDY if kind in known))
        odd = [kind for kind in kinds if kind not in known]
        if odd or not kinds:
            what = f"no {odd[0]!r}" if odd else "nothing to mask"
            raise ConfigError(
                f"{Path(path).name}: {named} has {what}; it tells apart {', '.join(known)}",
                fix=suggest(odd[0], known) if odd else "name kinds, or set clouds: none",
            )
        return CloudMask(path, named, tuple(kinds))

    @property
    def indexes(self) -> list[int]:
        """The bands of the file that say it."""
        return [1, 2, 3] if self.specification == "classi" else [1]

    def clear(self, layers: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Layers (C, H, W) -> True where none of the kinds holds, and the file holds something; raises DataError."""
        codes = layers[0]
        if self.specification == "classi":
            codes = sum((layer > 0).astype(np.uint8) << bit for bit, layer in enumerate(layers))
        if codes.dtype.kind not in "iu":
            raise DataError(
                f"{self.path} holds {codes.dtype} numbers, {self.specification} whole ones", fix="name another file"
            )
        if self.specification == "mask":
            return np.asarray(codes == 0)
        if self.specification in CODES:
            table = CODES[self.specification]
            highest = int(codes.max(initial=0))
            if highest > 11:
                raise DataError(
                    f"{self.path} holds the code {highest}, {self.specification} ends at 11",
                    fix=f"name its specification: {', '.join(SPECIFICATIONS)}",
                )
            return ~np.isin(codes, [0, *(code for kind in self.kinds for code in table[kind])])
        table = BITS[self.specification]
        wrong = sum(1 << bit for kind in self.kinds for bit in table[kind])
        empty = (codes & 1) > 0 if self.specification == "qa_pixel" else codes == 255  # no classi is 255
        return np.asarray(((codes & wrong) == 0) & ~empty)


def find_mask(clouds: str | CloudConfig, granule: Granule | None) -> CloudMask | None:
    """What an image's `clouds` means; raises ConfigError where it names kinds, but there is no file to tell them."""
    asked = clouds if isinstance(clouds, CloudConfig) else CloudConfig(path=clouds)
    if asked.path == "none":
        return None
    own = granule.clouds if granule else None
    path = asked.path if asked.path != "auto" else own
    if path:
        return CloudMask.of(path, asked.specification, asked.kinds)
    if asked != CloudConfig():
        raise ConfigError("clouds: the image has no classification of its own", fix="name one: clouds: {path: ...}")
    return None


def find_specification(path: str) -> str:
    """scl, qa_pixel or fmask by a file's name; raises DataError."""
    found = specification_in(Path(path).stem)
    if found is None:
        raise DataError(
            f"the name {Path(path).name} does not say how its clouds are written",
            fix=f"name it: clouds: {{path: ..., specification: {' | '.join(SPECIFICATIONS)}}}",
        )
    return found


def specification_in(name: str) -> str | None:
    """The one specification that a name holds; None for none or several."""
    found = [kind for kind, pattern in _IN_NAMES.items() if re.search(pattern, name.lower())]
    return found[0] if len(found) == 1 else None
