"""The error tree: every failure that a user can cause or mend is a `CovermapError`.

    CovermapError (ValueError)
    ├── ConfigError     a setting is unknown, missing or contradicts another
    ├── DataError       a raster, label file or table cannot be used
    │   ├── GridError   places do not fit: CRS, GSD, extent, alignment
    │   ├── BandError   a band or sensor is missing, double or unknown
    │   ├── LabelError  codes, classes, fields or splits of the labels
    │   └── UnreadableError  a file or a part of it is damaged
    ├── ModelError      a model folder or checkpoint is damaged or does not fit the data
    ├── OutputError     something cannot be written: exists, read-only, full
    ├── OutOfMemory     a step does not fit into the memory of the GPU or of the machine
    └── MissingExtra    an optional package is not installed

A message says what was given and what is needed; `fix` says what to do, if possible as a command.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class CovermapError(ValueError):
    """Base of all errors that are meant for the user; `fix` is one sentence or command that mends it."""

    def __init__(self, message: str, *, fix: str = "") -> None:
        message, fix = shortened(message), shortened(fix)
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # The default would drop `fix` on the way back from a worker process.
        return (_rebuild, (type(self), self.message, self.fix))


def _rebuild(cls: type[CovermapError], message: str, fix: str) -> CovermapError:
    return cls(message, fix=fix)


def shortened(text: str, most: int = 4000) -> str:
    """A text as it is, of a very long one its beginning: what is quoted of a damaged file may be the whole file."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text):,} characters)"


class ConfigError(CovermapError):
    """A setting is unknown, missing or contradicts another."""


class DataError(CovermapError):
    """A raster, label file or table cannot be used."""


class GridError(DataError):
    """Places do not fit: CRS, GSD, extent or alignment."""


class BandError(DataError):
    """A band or sensor is missing, double or unknown."""


class LabelError(DataError):
    """Codes, classes, fields or splits of the labels do not fit."""


class UnreadableError(DataError):
    """A file or a part of it is damaged."""


class ModelError(CovermapError):
    """A model folder or checkpoint is damaged or does not fit the data."""


class OutputError(CovermapError):
    """Something cannot be written."""


class OutOfMemory(CovermapError):
    """A step does not fit into the memory of the GPU or of the machine."""


@contextmanager
def within_memory(step: str, *, fix: str) -> Iterator[None]:
    """Whatever runs out of memory in here becomes an OutOfMemory that names the step.

    torch has an error of its own for a GPU; for a processor it is a RuntimeError in its allocator's words.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = ("out of memory", "not enough memory", "DefaultCPUAllocator", "ALLOC_FAILED")
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in words):
            raise
        raise OutOfMemory(f"out of memory in {step}", fix=fix) from error


EXTRAS = {
    "ml": (("sklearn", "scipy", "threadpoolctl"), "random forest, probes"),
    "web": (("starlette", "uvicorn"), "covermap view"),
    "parquet": (("pyarrow",), "GeoParquet, embeddings of chips"),
    "stac": (("pystac_client", "pystac"), "STAC catalogues"),
    "onnx": (("onnx", "onnxscript", "onnxruntime"), "export to ONNX and ArcGIS"),
    "track": (("tensorboard",), "TensorBoard logs"),
    "hpo": (("optuna",), "covermap tune"),
    "ray": (("ray",), "clusters"),
    "umap": (("umap",), "UMAP of embeddings"),
}
"""{extra: (modules that it brings, what for)}."""


class MissingExtra(CovermapError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            fix=f"pip install 'covermap[{extra}]'",
        )
        self.args_for_rebuild = (package, extra, purpose)

    def __reduce__(self) -> tuple[object, ...]:
        return (MissingExtra, self.args_for_rebuild)

    @classmethod
    def of(cls, error: ModuleNotFoundError, purpose: str) -> MissingExtra | None:
        """The error in words, where the module is one that an extra brings."""
        module = (error.name or "").split(".")[0]
        extra = next((name for name, (modules, _) in EXTRAS.items() if module in modules), None)
        return cls(module, extra, purpose) if extra else None


def suggest(word: str, known: Iterable[str]) -> str:
    """A "did you mean" sentence for a misspelt word, or the known words when none is near."""
    names = sorted({str(name) for name in known})
    near = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=3, cutoff=0.55)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in names if name.lower() in near) + "?"
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"known: {shown}" if names else "none is known"
