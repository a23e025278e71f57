"""`view`: maps, changes and imagery in the browser, without a network; points of a sample are labelled there.

paths -> layers on one frame -> a server on this machine, or a folder of files that needs none
"""

from __future__ import annotations

import html
import os
import shutil
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covermap.core.errors import CovermapError, MissingExtra, OutputError
from covermap.core.progress import Say, Tick, silent, unseen

if TYPE_CHECKING:
    from covermap.view.static import Written

PORT = 8000
LOCAL = "127.0.0.1"


def view(
    paths: Sequence[str | Path], *, host: str = LOCAL, port: int = PORT, static: str | Path | None = None,
    overwrite: bool = False, open_browser: bool = True, token: bool = False, say: Say = silent,
    on_progress: Tick = unseen, on_ready: Callable[[str], None] = lambda url: None,
) -> Written | None:  # fmt: skip
    """Show GeoTIFFs, samples, runs and folders until Ctrl-C, or with `static` write a folder that shows them.

    port: 0 takes any that is free. host: another one than this machine needs the token in the address that `on_ready`
    is given. token: this machine needs it too, and may then be asked by any name, as behind a proxy. Raises DataError
    (nothing to show), OutputError (port or folder taken), MissingExtra.
    """
    if static is not None:
        from covermap.view.layers import open_view
        from covermap.view.static import write_static

        return write_static(open_view(paths, say), Path(static), overwrite=overwrite, say=say, on_progress=on_progress)
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra("starlette" if "starlette" in str(error) else "uvicorn", "web", "covermap view") from error
    from covermap.view.layers import open_view
    from covermap.view.server import Access, build_app
    from covermap.view.serving import serve

    access = Access.for_host(host, by_token=token)
    with _listen(host, port) as listening:  # before the rasters are read: a taken port is told at once
        shown = open_view(paths, say)
        for line in (*shown.notes, *(f"not shown: {one}" for one in shown.skipped)):
            say(f"note: {line}")
        url = _url(host, listening.getsockname()[1], access.token if access.is_open else "")
        on_ready(url)
        with _address(url, secret=access.is_open) as address:
            if open_browser and _has_screen():
                threading.Timer(0.5, webbrowser.open, [address]).start()
            serve(build_app(shown, access, assessed), [listening])
    return None


@contextmanager
def _address(url: str, *, secret: bool) -> Iterator[str]:
    """What the browser is told to open; of a secret address a file that leads there and that only its owner can read,
    for what a program is told stands in the list of processes.
    """  # fmt: skip
    if not secret:
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="covermap-"))  # for its owner alone
    try:
        page, place = folder / "open.html", html.escape(url)
        page.touch(0o600)
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={place}"><a href="{place}">covermap view</a>\n',
            encoding="utf-8",
        )
        yield page.as_uri()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def assessed(source: Path, points: Path) -> dict[str, Any]:
    """What `assess` finds, as the page shows it: a sentence, tables as texts, notes, where it was kept.

    Points without a reference are left out, and a note says how many; raises what `assess` raises.
    """
    from covermap.verbs.assess import assess

    found = assess(source, points, skip_empty=True)
    accuracies, areas = found.table.columns([0, 1, 2]), found.table.columns([0, 3, 4])
    kept = next((Path(file).name for file in found.get("files", ())), None)
    return {
        "sentence": f"{found.sentence[:1].upper()}{found.sentence[1:]}; {found['num_points']:,} points.",
        "tables": [{"head": list(table.head), "rows": table.cells} for table in (accuracies, areas)],
        "notes": found.all_notes, "file": kept,
    }  # fmt: skip


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises OutputError where the port is taken or the host is none of this machine."""
    plain = host.strip("[]")
    if not 0 <= port <= 65535:
        raise OutputError(f"port {port} is none", fix="give 0 (any that is free) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(plain, port, type=socket.SOCK_STREAM)[0]
        # With the protocol asyncio sends at once (TCP_NODELAY); without it each answer waits 40 ms for the client.
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CovermapError(f"there is no host {host!r}: {error.strerror}", fix="leave --host out") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise OutputError(
            f"port {port} at {host} cannot be used: {error.strerror}", fix="add --port 0 for any that is free"
        ) from error
    return listening


def _has_screen() -> bool:
    """Without one the browser would be one of the terminal, and take it away."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _url(host: str, port: int, token: str) -> str:
    name = host.strip("[]")
    if name in ("0.0.0.0", "::"):
        name = socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
