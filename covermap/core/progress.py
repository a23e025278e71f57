"""How long work speaks: lines of text and steps done; whoever calls decides what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes one line about what is going on."""

Tick = Callable[[int, int], None]
"""Takes the steps that are done and all steps."""


def silent(text: str) -> None:
    """A `Say` that says nothing."""
    del text


def unseen(done: int, total: int) -> None:
    """A `Tick` that shows nothing."""
    del done, total
