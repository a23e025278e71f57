"""Where published weights and shared models lie on this machine, how they get here, and how models are shared.

Weights are looked for in COVERMAP_WEIGHTS/NAME/FILE (default ~/.cache/covermap/weights), then in the cache of the
Hugging Face hub; `covermap models pull NAME` puts them in the first. hf://OWNER/NAME[@REVISION] is a model folder on
the hub: it is fetched to COVERMAP_WEIGHTS/hf when it is named first. Nothing else is ever downloaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from covermap.card import MODEL_FILES
from covermap.core.download import checksum, download, part_of
from covermap.core.errors import ConfigError, DataError, ModelError, OutputError
from covermap.core.output import claim, replacing
from covermap.core.progress import Tick, unseen
from covermap.core.run import is_pretraining
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


def pull(name: str, published: Published, *, on_progress: Tick = unseen) -> Path:
    """Download a published file, going on where it stopped, unless it is here; gives its path.

    on_progress: hears of megabytes. Raises ModelError (nothing published, offline, not allowed), OutputError (no
    space).
    """
    if not published.repo:
        raise ModelError(f"no weights of {name} have been published", fix="covermap models list shows which have")
    found = find_file(name, published)
    return found or _download(name, published, on_progress)


def _download(name: str, published: Published, on_progress: Tick) -> Path:
    """The file, or what repositories have in its place: the other format, or a large one in parts."""
    try:
        offered = {file.name: file for file in hugging_face(published.repo, kind="models").files}
        file = next((form for form in _forms(published.file) if form in offered), None)
        if file is None:
            raise DataError("the repository does not hold it")
        remote, place = offered[file], place_of(name, published).with_name(PurePosixPath(file).name)
        total = (remote.num_bytes or 0) >> 20
        found = download(remote, place, on_bytes=lambda done: on_progress(done >> 20, max(total, done >> 20)))
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


def on_hub(name: str | Path) -> tuple[str, str] | None:
    """OWNER/NAME and the revision ("" for the newest) of hf://OWNER/NAME[@REVISION]; None for a path.

    Raises ConfigError for hf:// with something else behind it.
    """
    if not str(name).startswith("hf:/"):
        return None
    # A Path has one / left.
    parts = re.fullmatch(r"hf://?((?!\S*(?:--|\.\.))\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?", str(name))
    if not parts:
        raise ConfigError(f"{name} names no model of the hub", fix="write hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return parts[1], parts[2] or ""


def model_folder(name: str | Path, *, again: bool = False) -> Path:
    """The folder of a model: a path, that of a run, or hf://OWNER/NAME[@REVISION], which is fetched once.

    again: fetch it even if it is here. Raises ConfigError, ModelError (hub, no model of ours) and OutputError (disk).
    """
    found = on_hub(name)
    if found is None:
        inner = Path(name) / "model"
        if not (inner / "config.json").is_file() and (Path(name) / "config.yaml").is_file():
            verb = "pretrain" if is_pretraining(name) else "train"
            raise ModelError(
                f"the run {name} has no trained model yet",
                fix=f"go on with: covermap {verb} {name}/config.yaml --resume",
            )
        return inner if (inner / "config.json").is_file() else Path(name)
    repo, revision = found
    folder = weights_folder() / "hf" / f"{repo}@{quote(revision or 'main', safe='')}"
    if again or not (folder / "config.json").is_file():
        try:
            _fetch(f"{repo}@{revision}", folder)
        except (DataError, KeyError, TypeError) as error:
            reason = error.message if isinstance(error, DataError) else f"the hub's answer lacks {error}"
            raise ModelError(
                f"{name} cannot be fetched ({reason})",
                fix=f"is it at https://huggingface.co/{repo}, with that revision? If it is private: hf auth login. "
                f"Without a connection put its files in {folder}",
            ) from error
    return folder


def _fetch(repo: str, folder: Path) -> None:
    """The files of a model folder as they are at one commit; `folder` appears, or changes, when all are here."""
    offered = {file.name: file for file in hugging_face(repo, kind="models").files if file.name in MODEL_FILES}
    lacks, part = [name for name in MODEL_FILES[:2] if name not in offered], part_of(folder)
    for name in (name for name in MODEL_FILES if name in offered and not lacks):
        path, (kind, _, wanted) = part / name, offered[name].checksum.partition(":")
        if not path.is_file() or checksum(path, kind) != wanted:
            download(offered[name], path)
        if name == "config.json" and b'"legend"' not in path.read_bytes():  # before the large file
            lacks = ["legend in its config.json"]
    if lacks:
        raise ModelError(
            f"hf://{repo.rstrip('@')} is no model of covermap: it has no {' and no '.join(lacks)}",
            fix="name one that covermap models push wrote",
        )
    with replacing(folder) as partial:
        for stray in {path.name for path in part.iterdir()} - set(offered):
            (part / stray).unlink()
        part.rename(partial)


def push(folder: Path, dest: str, *, private: bool = False, overwrite: bool = False) -> str:
    """Copy the files of a model folder to a new folder, or to hf://OWNER/NAME as a new commit; all or none.

    Gives where they are. Raises OutputError, ConfigError.
    """
    if on_hub(dest):
        return _upload(folder, dest, private=private)
    if private:
        raise ConfigError("--private is for the hub; a folder is as open as the one around it", fix="leave it out")
    place = claim(dest, overwrite=overwrite)
    if place.is_dir() and (others := {path.name for path in place.iterdir()} - set(MODEL_FILES)):
        raise OutputError(f"{place} holds more than a model: {', '.join(sorted(others)[:5])}", fix="name a new folder")
    with replacing(place) as partial:
        partial.mkdir()
        for name in (name for name in MODEL_FILES if (folder / name).is_file()):
            shutil.copyfile(folder / name, partial / name)  # without its mode: others shall read it
    return str(place)


def _upload(folder: Path, dest: str, *, private: bool) -> str:
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of httpx or httpx2

    repo, revision = on_hub(dest) or ("", "")
    if revision:
        raise ConfigError(f"{dest}: a push makes a revision and cannot have one", fix=f"push to hf://{repo}")
    if not get_token():
        raise OutputError("you are not logged in to the hub", fix="hf auth login, or a token that writes in HF_TOKEN")
    api, files = HfApi(), list(MODEL_FILES)
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        seen_by_all = private and not api.model_info(repo).private  # the hub keeps what it was
        if not seen_by_all:
            api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=files)
    except (HTTPError, OSError, ValueError) as error:
        remedies = {
            401: "the token is not valid: hf auth login",
            403: f"the token needs the right to write to {repo}",
            404: f"is there an account or organisation {repo.partition('/')[0]}?",
        }
        code = getattr(getattr(error, "response", None), "status_code", 0)
        raise OutputError(
            f"{dest} cannot be written: {str(error).strip().partition(chr(10))[0]}",
            fix=remedies.get(code, "is there a connection, and HF_HUB_OFFLINE unset? Otherwise push to a folder"),
        ) from error
    if seen_by_all:
        raise OutputError(f"{dest} is there already and open to all", fix="make it private there, or choose another")
    return dest
