"""Where published weights lie on this machine, and how they get here.

Looked for in this order: COVERMAP_WEIGHTS/NAME/FILE (default ~/.cache/covermap/weights), then the cache of the Hugging
Face hub. Nothing is downloaded unless it is asked for: `covermap models pull NAME`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

from covermap.core.errors import ModelError
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
        if by_hand.is_file():
            return by_hand
        cached = try_to_load_from_cache(published.repo, file)
        if isinstance(cached, str):
            return Path(cached)
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
    """Download a published file, with progress and resumption, unless it is here; gives its path.

    Raises ModelError: nothing published, offline, not allowed, not enough space.
    """
    if not published.repo:
        raise ModelError(f"no weights of {name} have been published", fix="covermap models list shows which have")
    found = find_file(name, published)
    return found or _download(name, published)


def _download(name: str, published: Published) -> Path:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        return _fetch(published)
    except GatedRepoError as error:
        raise ModelError(
            f"{published.repo} is only for those who accepted its licence ({published.licence})",
            fix=f"accept it at https://huggingface.co/{published.repo}, then: hf auth login",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{published.file} of {published.repo} cannot be downloaded ({reason})",
            fix=f"on a machine with a connection fetch {_address(published)}, and put it at "
            f"{place_of(name, published)}",
        ) from error


def _fetch(published: Published) -> Path:
    """The file, or what repositories have in its place: the other format, or a large one in parts."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in _forms(published.file):
        try:
            found = Path(hf_hub_download(published.repo, file))
            for part in parts_of(found):
                hf_hub_download(published.repo, str(PurePosixPath(file).with_name(part.name)))
            return found
        except LocalEntryNotFoundError:  # no connection
            raise
        except EntryNotFoundError as error:
            missing = error
    raise missing


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
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
