"""`check-plugin`: the conformance suite on a plug-in, one of ours or a user's own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from covermap import testing
from covermap.core.errors import ConfigError, suggest
from covermap.testing import Outcome

_SUITES: dict[str, Callable[..., list[Outcome]]] = {
    "backbone": testing.check_backbone,
    "decoder": testing.check_decoder,
    "loss": testing.check_loss,
    "source": testing.check_source,
}


def check_plugin(kind: str, name: str, *, options: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Run the checks of a kind on `name` (or `my_file.py:Name`); a failure is in its Outcome.

    Raises ConfigError for a kind or name that is not known.
    """
    if kind not in _SUITES:
        raise ConfigError(f"there are no checks for {kind!r}", fix=suggest(kind, _SUITES))
    return _SUITES[kind](name, options=options)
