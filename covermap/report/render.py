"""Templates of this folder with their values, and how values are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from covermap.core.scored import hectares, number, percent, score, signed
from covermap.report.areas import interval_of, sensible


def render(template: str, **values: Any) -> str:
    """A page of this folder with its values in it."""
    environment = Environment(
        loader=PackageLoader("covermap", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "score": score, "count": count, "hectares": hectares, "seconds": seconds,
        "signed": signed, "sensible": sensible, "interval": interval_of,
        "as": lambda value, form: _FORMS[form](value),
    }  # fmt: skip
    return environment.get_template(template).render(**values)


def count(value: float | None) -> str:
    """12345 -> 12,345; a dash for None."""
    return "–" if value is None else f"{value:,.0f}"


def seconds(value: float) -> str:
    """A duration in words: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_FORMS: Mapping[str, Callable[[float | None], str]] = {
    "percent": percent, "score": score, "number": number, "count": count,
}  # fmt: skip
