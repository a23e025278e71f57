"""Sources of products as delivered: what their layouts share. Granules are grouped by place and ordered by date."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from covermap.core.config import CloudConfig, ImageConfig
from covermap.core.config_file import parse_section
from covermap.core.errors import ConfigError, DataError
from covermap.data.label_file import LabelFile
from covermap.data.source import SceneFiles, Source, by_place, inside, is_series
from covermap.geo.granule import Granule

Delivered = tuple[Path, Granule]


class GranuleSource(Source):
    """Products below one folder.

    dates: series (a scene for each tile with all its dates) or single (a scene for each product). level, sensor: which
    products, where there are several kinds. use: bands. clouds: as in an image's entry. labels: a file below the root
    with the labels of all scenes; {tile} in its name stands for the tile.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        dates: str = "series",
        level: str | None = None,
        sensor: str | None = None,
        use: Sequence[str] | None = None,
        clouds: str | Mapping[str, Any] = "auto",
        labels: str | None = None,
    ) -> None:
        super().__init__(root)
        self.series, self.wanted = is_series(dates), {"sensor": sensor, "level": level}
        self.use = list(use) if use is not None else None
        self.clouds = (
            clouds if isinstance(clouds, str) else parse_section(CloudConfig, clouds, where="data.options.clouds")
        )
        self.labels = labels

    @abstractmethod
    def products(self) -> list[Delivered]:
        """Every product below the root with what its metadata says; raises DataError for damaged ones."""

    def scenes(self) -> list[SceneFiles]:
        images = [
            (
                granule.tile,
                ImageConfig(path=str(path), sensor=granule.sensor, date=granule.date, use=self.use, clouds=self.clouds),
            )
            for path, granule in self._chosen()
        ]
        return by_place(images, self._labels, series=self.series)

    def _labels(self, tile: str, images: Sequence[ImageConfig]) -> dict[str, LabelFile]:
        """The labels of a tile; raises DataError where they are missing."""
        if not self.labels:
            return {}
        path = inside(self.root, self.labels.replace("{tile}", tile))
        if not path.is_file():
            raise DataError(f"there are no labels {path}", fix="set data.options.labels to a file below data.root")
        return {"class": LabelFile(str(path))}

    def _chosen(self) -> list[Delivered]:
        """The products of one sensor and level; the others are counted in the notes. Raises DataError, ConfigError."""
        found = self.products()
        for what, wanted in self.wanted.items():
            counts = Counter(str(getattr(granule, what)) for _, granule in found)
            listed = ", ".join(f"{count} of {kind}" for kind, count in sorted(counts.items()))
            if wanted is not None and wanted not in counts:
                raise ConfigError(f"data.options.{what}: there is nothing of {wanted}", fix=f"there are {listed}")
            if wanted is None and len({_kind(what, kind) for kind in counts}) > 1:
                raise DataError(
                    f"{self.root} holds several kinds of products: {listed}",
                    fix=f"choose one: data.options.{what}: {min(counts)}",
                )
            kept = [(path, g) for path, g in found if wanted is None or getattr(g, what) == wanted]
            if len(kept) < len(found):
                self.notes.append(f"{len(found) - len(kept)} of {len(found)} products are not of {what} {wanted}")
            found = kept
        return found


def _kind(what: str, value: str) -> str:
    """Levels such as L1TP and L1GT hold the same numbers: only the 1 matters."""
    return value[:2] if what == "level" else value
