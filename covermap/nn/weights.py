"""Published checkpoints -> our state dict: strict both ways after a written ignore list, with a report of every tensor.

    file -> tensors by published name -> prefix off, ignored ones out -> our names -> bands adapted -> loaded

Nothing is filled in by chance: a key too many, a key too few or another shape is an error that names it. Only tensors
are read (`weights_only`), memory-mapped where the format allows it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from covermap.core.errors import ModelError
from covermap.core.parsing import parse_json
from covermap.nn.published import Selection

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
INDEX = ".safetensors.index.json"
_NESTS = ("state_dict", "model", "teacher", "encoder")

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How the published files of one family are written.

    prefixes: what may stand before all keys of interest, the longest first. ignore: patterns of published names that
    the encoder does not need. rename: pattern and replacement, in order. convert: changes that are more than a name.
    tables: our names of codes that are computed; the file's must be the same.
    """

    prefixes: tuple[str, ...] = ("",)
    ignore: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    convert: Callable[[Tensors], Tensors] = lambda tensors: tensors
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """What became of one tensor: loaded, adapted or ignored; and why."""

    name: str
    shape: tuple[int, ...]
    fate: str
    note: str = ""


@dataclass
class Report:
    """Every tensor of a checkpoint."""

    path: str
    rows: list[Row] = field(default_factory=list)

    def count(self, fate: str) -> int:
        """Number of tensors with one fate."""
        return sum(row.fate == fate for row in self.rows)

    def summary(self) -> str:
        """One line: file and the number of tensors by fate."""
        fates = dict.fromkeys(row.fate for row in self.rows)
        return f"{Path(self.path).name}: " + ", ".join(f"{self.count(fate)} {fate}" for fate in fates)


def read_tensors(path: str | Path) -> Tensors:
    """All tensors of a checkpoint by name, memory-mapped; raises ModelError (missing, damaged, not only tensors)."""
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}", fix="covermap models pull NAME says where to put it")
    if path.name.endswith(INDEX):
        return {name: tensor for part in parts_of(path) for name, tensor in read_tensors(part).items()}
    if path.suffix.lower() not in SUFFIXES:
        raise ModelError(f"{path} does not end like a checkpoint", fix=f"known endings: {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no dict
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged ({error})", fix="download it again") from error
    return tensors_in(read_object(path), path)


def parts_of(path: Path) -> list[Path]:
    """The files that an index of a checkpoint in parts names, beside it; none for other files. Raises ModelError."""
    if not path.name.endswith(INDEX):
        return []
    try:
        names = parse_json(path.read_text(encoding="utf-8"))["weight_map"].values()
        parts = [path.with_name(Path(name).name) for name in dict.fromkeys(names)]
        if odd := [part.name for part in parts if not part.name.lower().endswith(SUFFIXES) or len(part.name) > 255]:
            raise ValueError(f"{odd[0]!r} is no name of a checkpoint")
        return parts
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no index of a checkpoint in parts ({error})", fix="download it again") from error


def read_object(path: Path) -> object:
    """What a .pt or .ckpt holds, by torch's reader of tensors and plain values; raises ModelError for anything else."""
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}", fix="check the path")
    try:
        with warnings.catch_warnings(action="ignore"):  # what is odd about a file follows as an error
            try:
                return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # written before torch 1.6
    except Exception as error:
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'nothing more is said')}"
        if "weights_only" in str(error) or "Unsupported" in str(error):
            # torch's own sentence advises to read it all the same: it is not repeated.
            culprit = re.search(r"GLOBAL (\S+)", str(error))
            what = f"Python objects besides tensors{f' ({culprit[1]})' if culprit else ''}"
            raise ModelError(
                f"{path} holds {what}, which could run code when read",
                fix="save its state_dict alone: torch.save(model.state_dict(), 'weights.pt')",
            ) from error
        raise ModelError(f"{path} is no checkpoint or damaged ({reason})", fix="download it again") from error


def tensors_in(value: object, path: Path) -> Tensors:
    """The dictionary of tensors, which may lie inside others."""
    if isinstance(value, Mapping):
        if value and all(isinstance(v, Tensor) for v in value.values()):
            return {str(key): tensor for key, tensor in value.items()}
        for nest in _NESTS:
            if isinstance(value.get(nest), Mapping):
                return tensors_in(value[nest], path)
        found = {str(key): v for key, v in value.items() if isinstance(v, Tensor)}
        if found:
            return found
    raise ModelError(f"{path} holds no state dict", fix="give a file of weights, or one with a state_dict in it")


Changes = Mapping[str, Callable[[Tensor], Tensor]]


def load(module: nn.Module, path: str | Path, layout: Layout, *, adapt: Changes | None = None) -> Report:
    """Fill a module from a published file; returns what became of every tensor. Raises what its two steps raise."""
    return fill(module, read_tensors(path), layout, adapt=adapt, path=path)


def fill(
    module: nn.Module, published: Tensors, layout: Layout, *, adapt: Changes | None = None, path: str | Path
) -> Report:
    """Fill a module with published tensors.

    adapt: changes by our name, such as kernels for other bands. Raises ModelError that lists names and shapes when a
    tensor is missing, left over or of another shape, and when a computed table differs.
    """
    report = Report(str(path))
    stripped = _strip(published, layout, str(path), report)
    want = module.state_dict()
    try:
        tensors = _renamed(stripped, layout)
        require_numbers(tensors)
        fates = dict.fromkeys(tensors, "loaded")
        for name, change in (adapt or {}).items():
            if name in tensors and (changed := change(tensors[name])) is not tensors[name]:
                tensors[name], fates[name] = changed, "adapted"
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", fix=error.fix) from error
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path} does not fit this model ({type(error).__name__}: {error})",
            fix="is it a checkpoint of another size or family? covermap models show NAME says which file belongs to it",
        ) from error
    _require_same(tensors, want, str(path))
    _require_tables(tensors, want, layout, str(path))
    # Assigning keeps the file's memory map: nothing is read before it is used.
    module.load_state_dict({name: t.to(want[name].dtype) for name, t in tensors.items()}, strict=True, assign=True)
    report.rows += [Row(name, tuple(t.shape), fates[name]) for name, t in tensors.items()]
    return report


def _strip(tensors: Tensors, layout: Layout, path: str, report: Report) -> Tensors:
    """Keys with the family's prefix, without it; what is ignored or stands outside of the prefix is reported."""
    prefix = next((p for p in layout.prefixes if p and any(key.startswith(p) for key in tensors)), "")
    if not prefix and "" not in layout.prefixes:
        raise ModelError(
            f"{path} holds no key that starts with {' or '.join(layout.prefixes)}; it has "
            f"{', '.join(list(tensors)[:3])}, ...",
            fix="is it a checkpoint of another model? covermap models list names them",
        )
    kept: Tensors = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(prefix)
        if not key.startswith(prefix):
            report.rows.append(Row(key, tuple(tensor.shape), "ignored", f"does not start with {prefix}"))
        elif pattern := next((p for p in layout.ignore if re.match(p, name)), None):
            report.rows.append(Row(key, tuple(tensor.shape), "ignored", f"not part of the encoder ({pattern})"))
        else:
            kept[name] = tensor
    return kept


def require_numbers(tensors: Tensors) -> None:
    """Raise ModelError that names a tensor with NaN or inf: a sum is a number only where all that is summed are."""
    for name, tensor in tensors.items():
        if not tensor.is_meta and tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
            raise ModelError(
                f"{name} holds values that are no numbers", fix="download it again, or take another checkpoint"
            )


def _renamed(tensors: Tensors, layout: Layout) -> Tensors:
    found: Tensors = {}
    for name, tensor in layout.convert(tensors).items():
        new = name
        for pattern, replacement in layout.rename:
            new = re.sub(pattern, replacement, new)
        if new in found:
            raise ModelError(f"two tensors of the checkpoint mean {new}", fix="is it a checkpoint of another model?")
        found[new] = tensor
    return found


def _require_same(have: Tensors, want: Mapping[str, Tensor], path: str) -> None:
    missing = [f"{name} {tuple(want[name].shape)}" for name in want if name not in have]
    surplus = [f"{name} {tuple(have[name].shape)}" for name in have if name not in want]
    wrong = [
        f"{name} {tuple(have[name].shape)} instead of {tuple(want[name].shape)}"
        for name in have
        if name in want and have[name].shape != want[name].shape
    ]
    require_whole(path, missing=missing, surplus=surplus, wrong=wrong)


def require_whole(path: str, *, missing: Sequence[str], surplus: Sequence[str], wrong: Sequence[str]) -> None:
    """Raise ModelError that lists tensors which are missing, left over or of another shape, if there are any."""
    said = [
        f"{len(names)} {what}: {_few(names)}"
        for what, names in (("missing", missing), ("left over", surplus), ("of another shape", wrong))
        if names
    ]
    if said:
        raise ModelError(
            f"{path} does not fit this model; {'; '.join(said)}",
            fix="is it a checkpoint of another size or family? covermap models show NAME says which file belongs to it",
        )


def _few(names: Sequence[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _require_tables(have: Tensors, want: Mapping[str, Tensor], layout: Layout, path: str) -> None:
    """Codes that are computed must equal the file's: another table means another family or another grid."""
    for name in layout.tables:
        if want[name].is_meta or have[name].is_meta:
            continue
        # A file of half precision holds the table as rounded as that.
        apart = float((have[name].float() - want[name].to(have[name].dtype).float()).abs().max())
        if apart > 1e-4:
            raise ModelError(
                f"{path}: the table {name} is not this model's (largest difference {apart:.2g})",
                fix="is it a checkpoint of another family, or made for another image size?",
            )


def adapt_bands(kernel: Tensor, selection: Selection) -> Tensor:
    """Kernels (D, C, ...) of a first layer for other bands: `sources[i]` is the pretrained channel of band i.

    A pretrained channel that no band uses is left out, which is the same as feeding its mean. A new band (None) gets
    the mean of the channels in use, zeros or random kernels; with mean and random all are scaled so that the layer's
    variance for equal, independent bands stays what it was. Raises ModelError for a file with other channels.
    """
    sources, known, new = selection.sources, selection.known, selection.new
    if kernel.dim() < 2 or kernel.shape[1] != known:
        raise ModelError(
            f"the checkpoint's first layer {tuple(kernel.shape)} is not one for the {known} published bands",
            fix="is it a checkpoint that was fine-tuned on other bands, or of another model?",
        )
    if list(sources) == list(range(known)):
        return kernel
    used = [source for source in sources if source is not None]

    def kernel_of(source: int | None) -> Tensor:
        if source is not None:
            return kernel[:, source]
        if new == "random":
            return torch.randn_like(kernel[:, 0]) * kernel.std()
        mean = kernel[:, used or slice(None)].mean(1)
        return torch.zeros_like(mean) if new == "zeros" else mean

    out = torch.stack([kernel_of(source) for source in sources], 1)
    if None in sources and new != "zeros":
        out = out * (kernel[:, used or slice(None)].square().sum() / out.square().sum()).sqrt()
    return out
