"""What hosts of data sets offer: names, sizes, checksums and licences of files, before anything is fetched.

    zenodo:RECORD   hf:ORG/NAME[@REVISION]   drive:FILE_ID   https://...   or a layout that declares such records

HF_ENDPOINT, COVERMAP_ZENODO and COVERMAP_DRIVE name mirrors.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from covermap.core.download import Remote, request
from covermap.core.errors import ConfigError, DataError, suggest
from covermap.core.registry import find, names


@dataclass(frozen=True)
class Offer:
    """The files of a record; page: where people read about it."""

    page: str
    licence: str
    files: tuple[Remote, ...]


def find_offer(what: str) -> Offer:
    """The files of a record, an address or a layout; raises ConfigError (unknown), DataError (host, no record)."""
    kind, _, name = what.partition(":")
    hosts: dict[str, Callable[[str], Offer]] = {"zenodo": _zenodo, "hf": hugging_face, "drive": _drive}
    if kind not in (*hosts, "http", "https"):
        return _of_layout(what)
    try:
        return hosts[kind](name) if kind in hosts else _address(what)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{kind} answers in an unknown way about {name}", fix="fetch it in a browser") from error


def _of_layout(name: str) -> Offer:
    """The files of all records of a layout, those of several each in a folder of the record's name."""
    if ":" in name or name not in names("source"):
        forms = "or zenodo:RECORD, hf:ORG/NAME[@REVISION], drive:FILE_ID, https://..."
        raise ConfigError(f"{name!r} is no layout and no address", fix=f"{suggest(name, names('source'))} {forms}")
    source = find("source", name)
    if not source.records:
        form = (sys.modules[source.__module__].__doc__ or "").rstrip()
        raise DataError(
            f"no host is known that hands out {name} by itself",
            fix=f"fetch it by hand from {source.url}. It is read in this form:\n\n{form}",
        )
    files: list[Remote] = []
    for record in source.records:
        folder = f"{PurePosixPath(record).name}/" if len(source.records) > 1 else ""
        files += [replace(file, name=folder + file.name) for file in find_offer(record).files]
    return Offer(source.url, source.licence, tuple(files))


def _zenodo(record: str) -> Offer:
    """developers.zenodo.org, records."""
    base = os.environ.get("COVERMAP_ZENODO", "https://zenodo.org").rstrip("/")
    about, _ = _json(f"{base}/api/records/{quote(record, safe='')}")
    files = [Remote(file["key"], file["links"]["self"], file["size"], file["checksum"]) for file in about["files"]]
    return Offer(f"{base}/records/{record}", about["metadata"].get("license", {}).get("id", "not stated"), tuple(files))


def hugging_face(repo: str, *, kind: str = "datasets") -> Offer:
    """The files of a repository ORG/NAME[@REVISION] (datasets or models) at one commit; raises DataError."""
    from huggingface_hub import constants, get_token

    repo, _, revision = repo.partition("@")
    base = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if constants.HF_HUB_OFFLINE:
        raise DataError(f"{base} is not asked: HF_HUB_OFFLINE is set", fix="unset it")
    token, address = get_token(), f"{base}/api/{kind}/{quote(repo)}"
    about, _ = _json(f"{address}/revision/{quote(revision or 'main', safe='')}", token)
    page = f"{base}/datasets/{repo}" if kind == "datasets" else f"{base}/{repo}"
    files, address = [], f"{address}/tree/{about['sha']}?recursive=true"
    while address:
        rows, links = _json(address, token if address.startswith(base + "/") else None)
        for row in (row for row in rows if row["type"] == "file"):
            checksum = f"sha256:{row['lfs']['oid']}" if row.get("lfs") else f"git:{row['oid']}"
            url = f"{page}/resolve/{about['sha']}/{quote(row['path'])}"
            files.append(Remote(row["path"], url, row["size"], checksum, token))
        following = re.search(r'<([^>]+)>; *rel="next"', links)
        address = following[1] if following else ""
    return Offer(page, (about.get("cardData") or {}).get("license") or "not stated", tuple(files))


def _drive(number: str) -> Offer:
    base = os.environ.get("COVERMAP_DRIVE", "https://drive.usercontent.google.com").rstrip("/")
    return _address(f"{base}/download?id={quote(number, safe='')}&export=download&confirm=t", pages=False)


def _address(url: str, *, pages: bool = True) -> Offer:
    """The file at an address; pages: also an HTML page, which Google Drive shows in place of a file."""
    with request(url) as response:
        if not pages and response.headers.get_content_type() == "text/html":
            raise DataError(f"{url} shows a page: it is not public, or asked for too often", fix="use a browser")
        name = response.headers.get_filename() or unquote(urlsplit(url).path)
        size = response.headers["Content-Length"]
    file = Remote(name.rstrip("/").rpartition("/")[2] or "download", url, int(size) if size else None)
    return Offer(url, "not stated", (file,))


def _json(url: str, token: str | None = None) -> tuple[Any, str]:
    """An answer, and its Link header; raises DataError."""
    with request(url, token=token, headers={"Accept": "application/json"}) as response:
        try:
            return json.load(response), response.headers["Link"] or ""
        except ValueError as error:
            raise DataError(f"{url} does not answer in JSON", fix="is it the right address?") from error
