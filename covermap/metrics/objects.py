"""Whether edges are sharp and small objects are found: boundary IoU, and recall of objects by size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from covermap.core.errors import ConfigError, DataError, MissingExtra
from covermap.core.legend import IGNORE, histogram
from covermap.metrics.confusion import ratio, same_shape


class BoundaryIoU:
    """IoU of each class's inner boundary, `distance` px deep (Cheng et al. 2021); (H, W) class indices.

    What lies beyond the image or is IGNORE is unknown: it makes no boundary, and is not counted.
    """

    def __init__(self, num_classes: int, distance: int = 2) -> None:
        if distance < 1:
            raise ConfigError(f"a boundary of {distance} px holds nothing", fix="give a distance of 1 px or more")
        self.distance = distance
        self._pixels = np.zeros((3, num_classes), np.int64)  # both, either, reference

    def add(self, reference: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]) -> None:
        """Count the boundaries of an image."""
        same_shape(reference, prediction)
        known = reference != IGNORE
        edge, predicted = (self._boundary(index, known) for index in (reference, prediction))
        both = np.where(edge == predicted, edge, IGNORE)
        a, b, hit = (
            histogram(index.astype(np.uint8, copy=False))[: self._pixels.shape[1]] for index in (edge, predicted, both)
        )
        self._pixels += [hit, a + b - hit, a]

    def merge(self, other: BoundaryIoU) -> None:
        """Add the counts of another one with the same classes and distance."""
        same_shape(self._pixels, other._pixels)
        if self.distance != other.distance:
            raise DataError("boundaries differ in distance", fix="score both alike")
        self._pixels += other._pixels

    def per_class(self) -> npt.NDArray[np.float64]:
        """Boundary IoU (K,); NaN where the reference has no boundary of a class."""
        both, either, reference = self._pixels
        return ratio(both, either * (reference > 0))

    def scores(self) -> dict[str, float | int]:
        """boundary_iou: mean over the classes with a boundary in the reference, whose number is given."""
        present = self._pixels[2] > 0
        value = float(ratio(self.per_class()[present].sum(), present.sum()))
        return {"boundary_iou": value, "distance_px": self.distance, "num_present": int(present.sum())}

    def _boundary(self, index: npt.NDArray[np.integer], known: npt.NDArray[np.bool_]) -> npt.NDArray[np.integer]:
        """The class of pixels with another class within `distance`, along rows, columns or both; IGNORE elsewhere."""
        low, high = np.where(known, index, IGNORE), np.where(known, index, 0)
        for _ in (0, 1):  # over the columns of the square, then, transposed, over its rows
            low, high = self._slide(np.minimum, low, IGNORE).T, self._slide(np.maximum, high, 0).T
        return np.where(known & (low != high), index, IGNORE)

    def _slide(self, choose: np.ufunc, index: npt.NDArray[Any], beyond: int) -> npt.NDArray[Any]:
        d, padded = self.distance, np.pad(index, ((self.distance, self.distance), (0, 0)), constant_values=beyond)
        return reduce(choose, (padded[shift : shift + len(index)] for shift in range(2 * d + 1)))


class ObjectRecall:
    """Share of reference objects found, by class and size.

    An object is a connected patch of a class (by edges or corners); it is found when more than half of its pixels are
    predicted as its class. Objects that an image cuts count as what is left of them. `edges` part the sizes, in px, or
    in ha where `pixel_ha` says how large a pixel is.
    """

    def __init__(self, num_classes: int, edges: Sequence[float] = (10, 100, 1000), pixel_ha: float | None = None):
        self.sizes, self.pixel_ha = list(pairwise((0, *edges, float("inf")))), pixel_ha
        self.unit = "px" if pixel_ha is None else "ha"
        self._objects = np.zeros((2, num_classes, len(self.sizes)), np.int64)  # all, found

    def add(self, reference: npt.NDArray[np.integer], prediction: npt.NDArray[np.integer]) -> None:
        """Count the objects of an image, (H, W) class indices; raises MissingExtra without scipy."""
        try:
            from scipy import ndimage
        except ImportError as error:
            raise MissingExtra("scipy", "ml", "recall of objects") from error
        same_shape(reference, prediction)
        for c in range(self._objects.shape[1]):
            patch, count = ndimage.label(reference == c, np.ones((3, 3)))
            size = np.bincount(patch.ravel(), minlength=count + 1)[1:]
            hit = np.bincount(patch[prediction == c], minlength=count + 1)[1:]
            at = np.searchsorted([high for _, high in self.sizes], size * (self.pixel_ha or 1), side="right")
            for row, chosen in enumerate((at, at[2 * hit > size])):
                self._objects[row, c] += np.bincount(chosen, minlength=len(self.sizes))

    def merge(self, other: ObjectRecall) -> None:
        """Add the objects of another one with the same classes and sizes."""
        same_shape(self._objects, other._objects)
        if (self.sizes, self.pixel_ha) != (other.sizes, other.pixel_ha):
            raise DataError("objects differ in sizes or unit", fix="score both alike")
        self._objects += other._objects

    def scores(self) -> dict[str, float | int]:
        """object_recall and number of objects, over all and by size, such as object_recall_10_100_px."""
        every, found = self._objects.sum(1)
        names = [f"_{low}_{high}_{self.unit}".replace("_inf", "_up") for low, high in self.sizes]
        each = zip(["", *names], [every.sum(), *every], [found.sum(), *found], strict=True)
        rows = [(name, float(ratio(hits, n)), int(n)) for name, n, hits in each]
        return {k: v for name, recall, n in rows for k, v in ((f"object_recall{name}", recall), (f"objects{name}", n))}

    def table(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """A row for each class and size: objects, found, recall; NaN where there is no object."""
        return [
            {"class": name, "from": low, "to": high, "unit": self.unit, "objects": int(n), "found": int(hits),
             "recall": float(ratio(hits, n))}
            for name, every, found in zip(names, *self._objects, strict=True)
            for (low, high), n, hits in zip(self.sizes, every, found, strict=True)
        ]  # fmt: skip
