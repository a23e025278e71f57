"""The attribute table as ArcGIS reads it: MAP.tif.vat.dbf, the same columns as in GDAL's .aux.xml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from covermap.core.legend import LandClass
from covermap.core.output import replacing, scratch, writing

_DAY = "1980-01-01"
"""A dBASE file holds the day on which it was written: with a fixed one the same work gives the same bytes."""


def write_vat(
    classes: Sequence[LandClass], num_pixels: Sequence[int], areas_ha: Sequence[float], path: Path,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> list[Path]:  # fmt: skip
    """Write the table of a map to `path` (.vat.dbf), one row per class; replaces it. Raises OutputError.

    Names that Latin-1 cannot hold are written in UTF-8, and a file .vat.cpg says so. num_pixels, areas_ha: per class.
    columns: further texts of each class, by name.
    """
    import pandas as pd
    import pyogrio

    rgb, names = [c.rgb for c in classes], [c.name for c in classes]
    table = {
        "Value": pd.Series([c.code for c in classes], dtype="int32"),
        "Count": pd.Series(num_pixels, dtype="float64"),  # large maps have more pixels than 32 bits can count
        "Class": pd.Series(names),
        **{name: pd.Series([c[i] for c in rgb], dtype="int32") for i, name in enumerate(("Red", "Green", "Blue"))},
        "Alpha": pd.Series([255] * len(names), dtype="int32"),
        "Area_ha": pd.Series(areas_ha, dtype="float64").round(4),
        **{name: pd.Series(texts) for name, texts in (columns or {}).items()},
    }
    latin = all(_is_latin(name) for name in names)
    page = path.with_suffix(".cpg")
    with writing(path), scratch(path) as folder:
        plain = folder / "table.dbf"  # GDAL knows the format by this ending alone
        pyogrio.write_dataframe(
            pd.DataFrame(table), plain, driver="ESRI Shapefile", encoding="ISO-8859-1" if latin else "UTF-8",
            layer_options={"DBF_DATE_LAST_UPDATE": _DAY},
        )  # fmt: skip
        files = [(plain, path)]
        if latin:
            page.unlink(missing_ok=True)
        else:
            files.append((plain.with_suffix(".cpg"), page))
        for source, goal in files:
            with replacing(goal) as partial:
                source.replace(partial)
    return [goal for _, goal in files]


def _is_latin(name: str) -> bool:
    try:
        name.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
