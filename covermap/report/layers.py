"""Layers that `predict` writes beside a map, as the page shows them: a picture, its scale, what it holds in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from covermap.data.scene import Scene
from covermap.geo.products import layer_beside
from covermap.ml.applicability import USUAL
from covermap.report import figures, pictures
from covermap.report.scored import percent

_FARTHEST = 254
DISTANCES = {(0, 50): "#e8f1ea", (51, 100): "#a9cbb7", (101, 150): "#f0b36b", (151, _FARTHEST): "#b8402a"}
"""Colours of distances from the training data in percent of the usual."""
MEANING = {
    "confidence": "Confidence is the network's own share for the class it chose",
    "applicability": "How far the image is from the nearest place of the training data, in what the network is shown",
    "change": "How likely the network finds it that the class is another one on the later date",
}
"""What the values of a layer are, as the beginning of a sentence."""


@dataclass(frozen=True)
class Scale:
    """Colours of the values 0 to 255 (256, 3), and what of them stands beside the picture: a ramp with ends, or steps.

    ramp: colours from left to right.
    """

    table: npt.NDArray[np.uint8]
    ramp: Sequence[str] = ()
    ends: tuple[str, str] = ("", "")
    steps: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class ShownLayer:
    """A layer of all maps that are shown; words: sentences on the values of the pixels shown."""

    key: str
    title: str
    scale: Scale
    words: str
    note: str
    pictures: list[dict[str, str]] = field(default_factory=list)


class About(NamedTuple):
    """What is known of the model. coverage: share of pixels whose sets hold the right class. is_pair: of two dates."""

    num_classes: int
    is_calibrated: bool
    coverage: float
    is_pair: bool = False


def shown_layers(
    maps: Sequence[tuple[Scene, Path]], folder: Path, about: About, *, side_px: int, at_most: int
) -> list[ShownLayer]:
    """The known layers of up to `at_most` scenes, whichever lie beside their maps.

    folder: that of the run.
    """
    shown = []
    for key, describe in _KNOWN.items():
        if key == "change" and not about.is_pair:  # a map that `change` made has the same name
            continue
        files = [(scene, layer) for scene, path in maps if (layer := layer_beside(path, key)).is_file()][:at_most]
        read = [pictures.read_overview(pictures.map_raster(path, scene.grid), side_px) for scene, path in files]
        if not read:
            continue
        one = describe(np.concatenate([values[0][valid] for values, valid in read]), about)
        for (scene, path), (values, valid) in zip(files, read, strict=True):
            picture = figures.png_uri(pictures.painted(values[0], valid, one.scale.table))
            file = path.relative_to(folder).as_posix()
            one.pictures.append({"scene": scene.name, "file": file, "picture": picture})
        shown.append(one)
    return shown


def _confidence(known: npt.NDArray[np.uint8], about: About) -> ShownLayer:
    # The class of a date is chosen together with that of the other, so it need not be the likeliest of its own.
    lowest = math.floor(100 / about.num_classes) if about.num_classes and not about.is_pair else 0
    colours = pictures.CONFIDENCE_COLOURS
    scale = Scale(pictures.ramp(colours, lowest, 100), colours, (_share(lowest), _share(100)))
    calibrated = "Its temperature was fitted on the val part" if about.is_calibrated else "It is not calibrated"
    least = " of the later date." if about.is_pair else f", at least {_share(lowest)} here."
    note = (
        f"{MEANING['confidence']}{least} {calibrated} "
        "and no accuracy: a network can be sure and wrong. Low values show where a look at the image, or more labels, "
        "pay most."
    )
    return ShownLayer("confidence", "Confidence", scale, _typical(known, "confidence", "below"), note)


def _entropy(known: npt.NDArray[np.uint8], about: About) -> ShownLayer:
    colours = pictures.CONFIDENCE_COLOURS[::-1]
    scale = Scale(pictures.ramp(colours, 0, 100), colours, (_share(0), _share(100)))
    note = (
        f"Entropy says how evenly the network shares its answer among all {about.num_classes} classes, in percent of "
        "the most that is possible: 0 where it names one class only, 100 where all are alike. It is the network's own "
        "word, as confidence is."
    )
    return ShownLayer("entropy", "Entropy", scale, _typical(known, "entropy", "above"), note)


def _set_size(known: npt.NDArray[np.uint8], about: About) -> ShownLayer:
    largest = max(2, int(known.max(initial=0)))
    table = pictures.ramp(pictures.CONFIDENCE_COLOURS[::-1], 1, largest)
    shares = np.bincount(known.ravel(), minlength=largest + 1) / max(1, known.size)
    names = ["1 class", *(f"{size} classes" for size in range(2, largest + 1))]
    steps = [("#{:02x}{:02x}{:02x}".format(*table[size]), f"{name}: {percent(shares[size])}")
             for size, name in enumerate(names, 1)]  # fmt: skip
    words = f"A set holds {known.mean():.2f} classes on average of the pixels shown." if known.size else ""
    note = (
        "Each pixel has a set of classes, so chosen that sets hold the right one in "
        f"{_share(100 * about.coverage)} of the pixels of the val part, and of ground like it. One class: the answer "
        "is clear. Several: they cannot be told apart. The likeliest class is always in the set."
    )
    return ShownLayer("set_size", "Classes in a set", Scale(table, steps=steps), words, note)


def _applicability(known: npt.NDArray[np.uint8], about: About) -> ShownLayer:
    table, steps = np.zeros((256, 3), np.uint8), []
    for (first, last), colour in DISTANCES.items():
        table[first : last + 1] = pictures.rgb_of(colour)
        name = f"{first} to {last}" if last < _FARTHEST else f"above {first - 1}"
        share = ((known >= first) & (known <= last)).sum() / max(1, known.size)
        steps.append((colour, f"{name}: {percent(share)}"))
    words = f"{percent((known > 100).mean())} of the pixels shown are unlike the training data." if known.size else ""
    note = (
        f"{MEANING['applicability']}: 100 is the distance that {_share(100 * USUAL)} of the val part keep. "
        "Above it the scores of the test part tell nothing; the map may be right there all the same."
    )
    return ShownLayer("applicability", "Unlike the training data", Scale(table, steps=steps), words, note)


def _change(known: npt.NDArray[np.uint8], about: About) -> ShownLayer:
    colours = pictures.CONFIDENCE_COLOURS[::-1]
    scale = Scale(pictures.ramp(colours, 0, 100), colours, (_share(0), _share(100)))
    words = f"On {percent((known > 50).mean())} of the pixels shown change is likelier than not." if known.size else ""
    note = (
        f"{MEANING['change']}. Where it is above {_share(50)} the maps of both dates differ, elsewhere they are "
        "alike: change is decided first, then its classes."
    )
    return ShownLayer("change", "Probability of change", scale, words, note)


_KNOWN = {
    "confidence": _confidence, "entropy": _entropy, "set_size": _set_size, "applicability": _applicability,
    "change": _change,
}  # fmt: skip


def _typical(known: npt.NDArray[np.uint8], what: str, side: str) -> str:
    """Median, and the share below or above one half, of the pixels shown."""
    if not known.size:
        return ""
    share = (known < 50 if side == "below" else known > 50).mean()
    return f"The median {what} is {_share(np.median(known))}; {percent(share)} of the pixels lie {side} {_share(50)}."


def _share(value: float) -> str:
    return f"{value:.0f}\N{NO-BREAK SPACE}%"
