"""Where published weights lie on this machine, and how they get here.

Looked for in this order: COVERMAP_WEIGHTS/NAME/FILE (default ~/.cache/covermap/weights), then the cache of the Hugging
Face hub. Nothing is downloaded unless it is asked for: `covermap models pull NAME` puts it in the first.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

from covermap.core.download import checksum, download
from covermap.core.errors import DataError, ModelError
from covermap.data.hosts import hugging_face
from covermap.nn.published import Published
from covermap.nn.weights import parts_of


def weights_folder() -> Path:
    """The folder that holds NAME/FILE for each published model."""
    return Path(os.environ.get("COVERMAP_WEIGHTS") or Path.home() / ".cache" / "covermap" / "weights")


def place_of(name: str, published: Published) -> Path:
    """Where a file that was fetched by hand belongs."""
    return weights_folder() / name / PurePosixPath(published.file).name


def find_file(name: str, published: Published) -> Path | None:
    """The file of a published model, if it is on this machine."""
    if not published.repo:
        return None
    from huggingface_hub import try_to_load_from_cache

    for file in _forms(published.file):
        by_hand = place_of(name, published).with_name(PurePosixPath(file).name)
        cached = try_to_load_from_cache(published.repo, file)
        for path in (by_hand, *([Path(cached)] if isinstance(cached, str) else [])):
            if path.is_file() and all(part.is_file() for part in parts_of(path)):
                return path
    return None


def require_file(name: str, published: Published) -> Path:
    """The file of a published model; raises ModelError that says how to get it."""
    found = find_file(name, published)
    if found is None:
        raise ModelError(
            f"the weights of {name} are not on this machine",
            fix=f"covermap models pull {name}, or put {_address(published)} at {place_of(name, published)}; "
            "model.weights: none starts from random weights",
        )
    return found


def pull(name: str, published: Published) -> Path:
    """Download a published file, going on where it stopped, unless it is here; gives its path.

    Raises ModelError (nothing published, offline, not allowed) and OutputError (no space).
    """
    if not published.repo:
        raise ModelError(f"no weights of {name} have been published", fix="covermap models list shows which have")
    found = find_file(name, published)
    return found or _download(name, published)


def _download(name: str, published: Published) -> Path:
    """The file, or what repositories have in its place: the other format, or a large one in parts."""
    try:
        offered = {file.name: file for file in hugging_face(published.repo, kind="models").files}
        file = next((form for form in _forms(published.file) if form in offered), None)
        if file is None:
            raise DataError("the repository does not hold it")
        found = download(offered[file], place_of(name, published).with_name(PurePosixPath(file).name))
        for part in parts_of(found):
            if not part.is_file():
                download(offered[str(PurePosixPath(file).with_name(part.name))], part)
        return found
    except (DataError, KeyError, TypeError) as error:
        reason = error.message if isinstance(error, DataError) else f"what the hub says of it lacks {error}"
        consent = (
            f"accept its licence ({published.licence}) at https://huggingface.co/{published.repo}, then hf auth login; "
        )
        raise ModelError(
            f"{published.file} of {published.repo} cannot be downloaded ({reason})",
            fix=f"{consent if published.gated else ''}on a machine with a connection fetch {_address(published)}, "
            f"and put it at {place_of(name, published)}",
        ) from error


def _forms(file: str) -> list[str]:
    """The names under which the library publishes the same weights, the given one first."""
    path = PurePosixPath(file)
    if path.name not in ("model.safetensors", "pytorch_model.bin"):
        return [file]
    others = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return list(dict.fromkeys([file, *(str(path.with_name(name)) for name in others)]))


def _address(published: Published) -> str:
    return f"https://huggingface.co/{published.repo}/resolve/main/{published.file}"


def require_sum(path: Path, published: Published) -> str:
    """SHA-256 of a checkpoint; raises ModelError where it is not the published one (as far as that is known)."""
    digest = checkpoint_sum(path)
    if not digest.startswith(published.sha256):
        raise ModelError(
            f"{path} is not the published file: its SHA-256 begins with {digest[:16]}, not {published.sha256[:16]}",
            fix="delete it and pull it again; if it is your own, name it in model.weights",
        )
    return digest


def checkpoint_sum(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal; of a checkpoint in parts, that of the list of its parts' sums."""
    parts = parts_of(Path(path))
    if parts:
        return hashlib.sha256("\n".join(checkpoint_sum(part) for part in parts).encode()).hexdigest()
    return checksum(Path(path), "sha256")
