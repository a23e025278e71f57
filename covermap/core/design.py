"""How a sample was drawn: the file that travels with the points, without which no area can be estimated from them.

S.gpkg or S.csv   id, x, y, stratum, reference (empty until interpreted), cluster (of cluster samples)
S.design.json     method, seed, crs, strata: [{code, num_pixels, num_samples}], and what else is known
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from covermap.core.errors import DataError
from covermap.core.output import write_text
from covermap.core.parsing import parse_json

SAME_GROUND = 0.01
"""Share of a map's area by which that of a sample's strata may differ."""
Method = Literal["stratified", "random", "systematic", "cluster"]


class _Part(BaseModel):
    # Other programs may say more.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Stratum(_Part):
    """Pixels of which some were drawn at random; code: that of the points' column `stratum`."""

    code: int
    num_pixels: int = Field(ge=0)
    num_samples: int = Field(ge=0)
    area_ha: float | None = Field(None, ge=0, allow_inf_nan=False)
    name: str = ""


class Cluster(_Part):
    """A square that was drawn as a whole; num_pixels: those that could be drawn in it."""

    id: int
    num_pixels: int = Field(gt=0)
    num_samples: int = Field(gt=0)


class Design(_Part):
    """A probability design: every pixel of the map had a known chance to be drawn.

    strata_of: whether strata are the map's own classes or those of another raster; None: not known.
    """

    method: Method
    seed: int | None
    crs: str | None
    strata: tuple[Stratum, ...] = Field(min_length=1)
    clusters: tuple[Cluster, ...] = ()
    map: str = ""
    map_checksum: str = ""
    strata_of: Literal["map", "raster"] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Design:
        codes = [stratum.code for stratum in self.strata]
        if len(set(codes)) < len(codes):
            raise ValueError("a code of strata stands twice")
        for one in self.strata:
            if one.num_samples > one.num_pixels:
                raise ValueError(f"stratum {one.code} has more samples than pixels")
        if self.method != "stratified" and len(self.strata) > 1:
            raise ValueError(f"method {self.method} has one stratum, not {len(self.strata)}")
        if self.method == "cluster" and not self.clusters:
            raise ValueError("method cluster needs clusters: [{id, num_pixels, num_samples}]")
        return self

    @property
    def num_samples(self) -> int:
        """Of all strata."""
        return sum(stratum.num_samples for stratum in self.strata)

    def write(self, path: Path) -> Path:
        """As JSON; what is not known is left out."""
        return write_text(path, json.dumps(self.model_dump(mode="json", exclude_defaults=True), indent=1) + "\n")

    @staticmethod
    def load(path: str | Path) -> Design:
        """Read a design file; raises DataError."""
        path = Path(path)
        if not path.is_file():
            raise DataError(
                f"there is no design {path}: without it nobody knows how likely each point was to be drawn",
                fix="draw the sample with covermap sample, which writes it; areas from points that were chosen by "
                "hand, or from a model's test split, have no valid interval (scores of those: covermap evaluate)",
            )
        try:
            raw: Any = parse_json(path.read_text(encoding="utf-8"))
            return Design.model_validate(raw)
        except (ValueError, RecursionError) as error:
            what = _first(error) if isinstance(error, ValidationError) else str(error)
            raise DataError(
                f"{path} is no design of a sample: {what}",
                fix='it holds {"method": "stratified", "seed": 0, "crs": "EPSG:...", "strata": [{"code": 1, '
                '"num_pixels": 1000, "num_samples": 50}]}',
            ) from error


def design_beside(points: str | Path) -> Path:
    """S.design.json of S.gpkg or S.csv."""
    return Path(points).with_suffix(".design.json")


def assessment_beside(source: str | Path) -> Path:
    """Where the assessment of a run's map lies: assessment.json of map.tif, other.assessment.json of other.tif."""
    path = Path(source)
    return path.with_name("assessment.json" if path.stem == "map" else f"{path.stem}.assessment.json")


def _first(error: ValidationError) -> str:
    one = error.errors(include_url=False)[0]
    where = ".".join(map(str, one["loc"]))
    return f"{where}: {one['msg']}" if where else str(one["msg"])
