"""Functions for worker processes, in a module that is imported in no time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from covermap.core.errors import DataError


def die_once(task):
    """Ten times a number; the process of the first call for 3 is killed."""
    folder, number = task
    mark = Path(folder) / "dead"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


def die_always(number):
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number):
    raise DataError(f"{number} is no number", fix="give another one")


def stay(folder):
    """Say who is at work, and never be done."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(3600)
