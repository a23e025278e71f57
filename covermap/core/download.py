"""Files from the network: continued where they stopped, checked, and under their name only when they are whole.

Remote (what a host says of a file) -> NAME.part, continued by HTTP ranges (RFC 9110, 14) -> checksum -> NAME
"""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

from covermap.core.errors import DataError
from covermap.core.output import writing

TRIES, BACK_OFF_S, TIMEOUT_S, CHUNK_BYTES = 4, 1.0, 60, 1 << 20


@dataclass(frozen=True)
class Remote:
    """A file that a host offers. num_bytes, checksum (md5:, sha256: or git:HEX): as far as the host says them.

    token: shown to this host alone, not to where it sends on.
    """

    name: str
    url: str
    num_bytes: int | None = None
    checksum: str = ""
    token: str | None = None


def request(url: str, *, token: str | None = None, headers: Mapping[str, str] | None = None) -> Any:
    """The open response of an http(s) address, asked again while the host is busy; raises DataError."""
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url} is no http address", fix="give one that begins with https://")
    asked = urllib.request.Request(url, headers={"User-Agent": "covermap", **(headers or {})})
    if token:
        asked.add_unredirected_header("Authorization", f"Bearer {token}")
    for tried in range(TRIES):
        time.sleep(BACK_OFF_S * (2**tried - 1))
        try:
            return urllib.request.urlopen(asked, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            reason, code = f"HTTP {error.code}, {error.reason}", error.code
            if code in (401, 403):
                raise DataError(
                    f"{url} is refused ({reason}): it is only for those who logged in or accepted its terms",
                    fix="do so in a browser (Hugging Face: and hf auth login), or put the file there by hand",
                ) from error
            if code < 500 and code != 429:
                raise DataError(f"{url} cannot be had ({reason})", fix="check the address in a browser") from error
        except (OSError, http.client.HTTPException) as error:
            reason = f"no network: {getattr(error, 'reason', error)}"
            if isinstance(getattr(error, "reason", None), socket.gaierror):
                break
    raise DataError(
        f"{url} cannot be reached ({reason})",
        fix="try again later, or fetch it on a machine with a connection and put the files there by hand",
    )


def part_of(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(path.name + ".part")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def download(remote: Remote, path: Path, *, on_bytes: Callable[[int], None] = lambda done: None) -> Path:
    """Fetch a file to `path`, going on with what PATH.part holds; on_bytes takes how much is here.

    Raises DataError (host, checksum) and OutputError (disk); what was fetched stays for the next call.
    """
    part, idle, whole = part_of(path), 0, False
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while not whole:
            before = size_of(part)
            whole = (before == remote.num_bytes and part.is_file()) or _go_on(remote, part, on_bytes)
            idle = 0 if size_of(part) > before else idle + 1
            if not whole and idle == TRIES:
                raise DataError(
                    f"the connection to {remote.url} broke {TRIES} times after {before:,} bytes",
                    fix="the same command goes on from there",
                )
        kind, _, wanted = remote.checksum.partition(":")
        if kind and (found := checksum(part, kind)) != wanted.lower():
            part.unlink()
            raise DataError(
                f"{remote.name} is not what its host says: its {kind} is {found}, not {wanted}",
                fix="it was deleted; run the command again",
            )
        os.replace(part, path)
    return path


def _go_on(remote: Remote, part: Path, on_bytes: Callable[[int], None]) -> bool:
    """Add what the host sends to `part`; whether that was all of it, and not a connection that broke."""
    have, size = size_of(part), remote.num_bytes
    have = 0 if size is None or have > size else have
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and not remote.checksum:  # nothing else would tell whether the host's file changed since
        headers["If-Range"] = formatdate(part.stat().st_mtime, usegmt=True)
    with request(remote.url, token=remote.token, headers=headers) as response, open(part, "ab") as file:
        start = file.seek(file.truncate(have if response.status == 206 else 0))
        place, left = response.headers["Content-Range"], response.headers["Content-Length"]
        if (start and place and not place.startswith(f"bytes {start}-")) or size not in (None, start + int(left or 0)):
            raise DataError(f"{remote.url} sends another file than its host said", fix="try again, or later")
        try:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                on_bytes(file.tell())
            return not left or file.tell() == start + int(left)
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException):
            return False
        finally:
            file.flush()
            if response.headers["Last-Modified"]:
                os.utime(part, (0, parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()))


def checksum(path: Path, kind: str) -> str:
    """Checksum of a file in hexadecimal: md5, sha256 or git (SHA-1 of a git blob)."""
    start = b"blob %d\0" % path.stat().st_size if kind == "git" else b""
    name = "sha1" if kind == "git" else kind
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, start, usedforsecurity=False)).hexdigest()
