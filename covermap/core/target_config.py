"""The config's section of numbers to be learnt; data/target.py reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from covermap.core.section import Section


class TargetConfig(Section):
    """Numbers to be learnt: of a raster (biomass, elevation), or the share of each class; a layout may give its own."""

    path: str | None = Field(None, description="One file for all scenes, or a pattern with * of files named as they.")
    shares: bool = Field(False, description="Instead of path: the share of each class of the labels.")
    variable: str | None = Field(None, description="Variable of a netCDF file.")
    bands: list[str] | None = Field(None, description="Band names in file order, if the file has none.")
    use: list[str] | None = Field(None, description="Bands to learn, by name; default: all.")
    nodata: float | None = Field(None, description="Overrides the file's nodata value.")
    replace: dict[float, float | None] = Field(
        default={}, description="File numbers that mean another one, or null: not known."
    )
    scale: float = Field(1.0, description="Factor from file number to unit.")
    offset: float = Field(0.0, description="Added after scaling.")
    unit: str | None = Field(
        None, description="For people: Mg/ha, %, m, ...; of a share, 0 to 1, answers are kept between."
    )
    resampling: Literal["mean", "sum"] = Field(
        "mean", description="What is kept on other pixels. sum: of amounts for each pixel, such as people or m2."
    )
    size_px: int | None = Field(None, ge=1, description="Rows and columns of the target of a window, whatever its own.")
    factor: float | None = Field(None, ge=1, description="Side of the target's pixels in the image's; default: 1.")
    per_chip: bool = Field(False, description="One number for a window as a whole.")

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> TargetConfig:
        given = self.changed - {"path", "shares", "size_px", "factor", "per_chip"}
        if given and (self.path is None or self.shares):
            raise ValueError(f"{', '.join(sorted(given))}: only with path, not with shares or a layout's own target")
        if self.path is not None and self.shares:
            raise ValueError("name either path or shares")
        if sum(map(bool, (self.size_px, self.factor, self.per_chip))) > 1:
            raise ValueError("size_px, factor and per_chip exclude each other")
        if self.resampling == "sum" and self.offset:
            raise ValueError("an offset would be added once for each pixel of a sum: leave it out")
        return self
