"""One check of a plug-in and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from covermap.core.errors import CovermapError

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """One check: its name, and why it failed ("" where it passed)."""

    name: str
    failure: str = ""


def require(holds: Any, failure: str) -> None:
    """Raise AssertionError where something does not hold."""
    # No assert statement: python -O would leave it out.
    if not holds:
        raise AssertionError(failure)


def run_checks(checks: Sequence[Callable[[T], None]], case: T) -> list[Outcome]:
    """Run all checks on a case; whatever one raises is its failure."""
    return [_outcome(check, case) for check in checks]


def _outcome(check: Callable[[T], None], case: T) -> Outcome:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        check(case)
    except AssertionError as error:
        return Outcome(name, str(error) or "an assertion failed")
    except Exception as error:
        return Outcome(name, f"{type(error).__name__}: {error}")
    return Outcome(name)


def require_conforming(outcomes: Sequence[Outcome], name: str) -> None:
    """Raise CovermapError that lists the checks which failed."""
    failed = [f"{outcome.name}: {outcome.failure}" for outcome in outcomes if outcome.failure]
    if failed:
        raise CovermapError(f"{name} fails {len(failed)} of {len(outcomes)} checks; " + "; ".join(failed))
