"""Stops a process group with SIGKILL just before its n-th change of a file below a folder (see stress.py).

STRESS_FOLDER: where changes count. STRESS_EVENTS: a file that gets a line for each, shared by all processes of a call.
STRESS_KILL_AT: the number of the change that is not made any more. Writes by GDAL and torch are not seen.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def install() -> None:
    """Watch this process from now on; without the variables nothing is done."""
    if "STRESS_EVENTS" not in os.environ:
        return
    folder, last = os.environ["STRESS_FOLDER"], int(os.environ.get("STRESS_KILL_AT") or 0)
    lines = os.open(os.environ["STRESS_EVENTS"], os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def changed(event: str, args: Any) -> str | None:
        if event == "open":
            path, mode, flags = args
            writes = (
                any(sign in mode for sign in "wax+") if isinstance(mode, str) else flags & (os.O_RDWR | os.O_WRONLY)
            )
            return _path(path, -1) if writes else None
        if event in _CHANGES:
            numbers = [arg for arg in args[1:] if isinstance(arg, int)]
            return _path(args[0], numbers[-1] if numbers and event != "os.mkdir" else -1)
        return None

    def watch(event: str, args: Any) -> None:
        path = changed(event, args)
        if path is None or not path.startswith(folder):
            return
        os.write(lines, f"{time.time():.3f} {event} {path[len(folder) :]}\n".encode())
        if last and os.pread(lines, 1 << 24, 0).count(b"\n") == last:
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(watch)


def _path(path: Any, folder: int) -> str | None:
    if isinstance(path, int):
        return None
    name = os.fsdecode(path)
    if folder >= 0 and not os.path.isabs(name):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
    return os.path.abspath(name)


install()
