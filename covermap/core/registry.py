"""Plug-ins by name: `@register("backbone", "unet")` puts a class in, `find("backbone", "unet")` gets it.

A kind's own files are imported when it is first asked for; a config may also name `my_file.py:name`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from covermap.core.errors import ConfigError, suggest

ROOMS = {
    "backbone": "covermap.nn.backbones",
    "decoder": "covermap.nn.decoders",
    "loss": "covermap.nn.losses",
    "source": "covermap.data.sources",
}
_entries: dict[str, dict[str, Any]] = {kind: {} for kind in ROOMS}
T = TypeVar("T")


def register(kind: str, name: str) -> Callable[[T], T]:
    """Decorator that makes a class or function known as `name` of `kind`."""

    def add(thing: T) -> T:
        known = _entries[kind].setdefault(name, thing)
        assert getattr(known, "__qualname__", "") == getattr(thing, "__qualname__", ""), f"{kind} {name} is taken"
        _entries[kind][name] = thing
        return thing

    return add


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    room = importlib.import_module(ROOMS[kind])
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
        importlib.import_module(module.name)
    return sorted(_entries[kind])


def find(kind: str, name: str | Callable[..., Any]) -> Any:
    """The plug-in called `name` (a class is itself); raises ConfigError with a suggestion when there is none."""
    if not isinstance(name, str):
        return name
    path, _, attribute = name.partition(":")
    if attribute:
        return _from_file(kind, Path(path), attribute)
    if name not in _entries[kind] and name not in names(kind):
        raise ConfigError(f"there is no {kind} called {name!r}", fix=suggest(name, _entries[kind]))
    return _entries[kind][name]


def _from_file(kind: str, path: Path, attribute: str) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise ConfigError(f"{kind} {path}:{attribute}: there is no Python file {path}", fix="give FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        raise ConfigError(f"{path} has no {attribute!r}", fix=suggest(attribute, vars(module)))
    return getattr(module, attribute)
