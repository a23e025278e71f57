"""What hosts of data sets offer: names, sizes, checksums and licences of files, before anything is fetched.

    zenodo:RECORD   hf:ORG/NAME[@REVISION]   drive:FILE_ID   https://...   or a layout that declares such records

HF_ENDPOINT, COVERMAP_ZENODO and COVERMAP_DRIVE name mirrors.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from covermap.core.download import Remote, request
from covermap.core.errors import ConfigError, DataError
from covermap.core.registry import find


@dataclass(frozen=True)
class Offer:
    """The files of a record; page: where people read about it."""

    page: str
    licence: str
    files: tuple[Remote, ...]


def find_offer(what: str) -> Offer:
    """The files of a record, an address or a layout; raises ConfigError (unknown), DataError (host, no record)."""
    kind, _, name = what.partition(":")
    hosts: dict[str, Callable[[str], Offer]] = {
        "zenodo": zenodo, "hf": hugging_face, "drive": _drive, "http": _address, "https": _address
    }  # fmt: skip
    if kind not in hosts:
        return _of_layout(what)
    try:
        return hosts[kind](what if kind.startswith("http") else name)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{kind} answers in an unknown way about {name}", fix="fetch it in a browser") from error


def _of_layout(name: str) -> Offer:
    try:
        source = find("source", name)
    except ConfigError as error:
        raise ConfigError(
            error.message, fix=f"{error.fix} Or give zenodo:RECORD, hf:ORG/NAME, drive:FILE_ID or https://..."
        ) from error
    if not source.records:
        raise DataError(
            f"no host is known that hands out {name} by itself",
            fix=f"fetch it by hand from {source.url}, and put it as data/sources/{name}.py begins: "
            + " ".join((source.__doc__ or "").split("\n\n")[0].split()),
        )
    offers = [find_offer(record) for record in source.records]
    if len(offers) == 1:
        return replace(offers[0], licence=source.licence)
    folders = [PurePosixPath(record).name for record in source.records]
    files = [
        replace(file, name=f"{folder}/{file.name}")
        for folder, offer in zip(folders, offers, strict=True)
        for file in offer.files
    ]
    return Offer(source.url, source.licence, tuple(files))


def zenodo(record: str) -> Offer:
    """The files of a Zenodo record (developers.zenodo.org, records); raises DataError."""
    base = os.environ.get("COVERMAP_ZENODO", "https://zenodo.org").rstrip("/")
    about, _ = _json(f"{base}/api/records/{quote(record, safe='')}")
    files = [Remote(file["key"], file["links"]["self"], file["size"], file["checksum"]) for file in about["files"]]
    if not files:
        raise DataError(f"the Zenodo record {record} shows no files", fix=f"ask for access at {base}/records/{record}")
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
    files = [
        Remote(
            row["path"], f"{page}/resolve/{about['sha']}/{quote(row['path'])}", row["size"],
            f"sha256:{row['lfs']['oid']}" if row.get("lfs") else f"git:{row['oid']}", token,
        )
        for row in _pages(f"{address}/tree/{about['sha']}?recursive=true", base, token)
        if row["type"] == "file"
    ]  # fmt: skip
    return Offer(page, (about.get("cardData") or {}).get("license") or "not stated", tuple(files))


def _pages(address: str, base: str, token: str | None) -> Iterator[dict[str, Any]]:
    while address.startswith(base + "/"):
        rows, link = _json(address, token)
        yield from rows
        following = re.search(r'<([^>]+)>; *rel="next"', link)
        address = following[1] if following else ""


def _drive(number: str) -> Offer:
    base = os.environ.get("COVERMAP_DRIVE", "https://drive.usercontent.google.com").rstrip("/")
    page = f"https://drive.google.com/file/d/{number}"
    offer = _address(f"{base}/download?id={quote(number, safe='')}&export=download&confirm=t", whole=False)
    return replace(offer, page=page)


def _address(url: str, *, whole: bool = True) -> Offer:
    """The file at an address; whole: a page is a file, too."""
    with request(url) as response:
        if not whole and response.headers.get_content_type() == "text/html":
            raise DataError(
                f"{url} shows a page, not a file: it is not public, or was fetched too often",
                fix="fetch it in a browser",
            )
        named = response.headers.get_filename() or unquote(urlsplit(url).path)
        size = response.headers["Content-Length"]
    name = named.rstrip("/").rpartition("/")[2] or "download"
    return Offer(url, "not stated", (Remote(name, url, int(size) if size else None),))


def _json(url: str, token: str | None = None) -> tuple[Any, str]:
    """An answer, and its Link header; raises DataError."""
    with request(url, token=token, headers={"Accept": "application/json"}) as response:
        try:
            return json.load(response), response.headers["Link"] or ""
        except ValueError as error:
            raise DataError(f"{url} does not answer in JSON", fix="is it the right address?") from error
