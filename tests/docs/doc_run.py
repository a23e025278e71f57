"""How commands of a page are parsed and run."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import doc_setups
import readme_setups
import typer
from doc_pages import Page, Part

from covermap.cli import app, main

SETUPS = vars(doc_setups) | vars(readme_setups)
SHELL_ONLY = re.compile(r"^until |\s(\||>|2>|<|;|&&)\s|\$\(|`")


def words_of(command: str) -> list[str]:
    """The words that a shell makes of a command, patterns and comments included."""
    done = subprocess.run(
        ["bash", "-c", rf"printf '%s\0' {command}"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.rstrip("\0").split("\0")


@functools.cache
def _root() -> Any:
    return typer.main.get_command(app)


def parse(command: str) -> None:
    """Raise AssertionError where the verb, an option or the number of arguments is not what the command line takes."""
    plain = re.sub(r'^until |^eval "\$\(|\)"', "", re.split(r"\s+#\s", command)[0])
    for part in re.split(r"\s(?:;|\||&&)\s|;\s", plain):
        words = words_of(re.split(r"\s2?>\s", part)[0])
        if words[0] != "covermap" or len(words) == 1:
            continue
        group = _root()
        name, rest = "covermap", words[1:]
        while hasattr(group, "commands") and rest and rest[0] in group.commands:
            group, name, rest = group.commands[rest[0]], f"{name} {rest[0]}", rest[1:]
        if rest in (["--help"], ["--version"]):
            continue
        assert not hasattr(group, "commands"), f"{command}: there is no verb {rest[:1]}"
        try:
            group.make_context(name, list(rest))
        except Exception as error:
            raise AssertionError(f"{command}: {error}") from error


def run_part(page: Page, part: Part, folder: Path, *, slow: bool) -> list[str]:
    """Make the data of a part in `folder`, save the page's files, run its commands in their order; returns those that ran."""
    place = folder / "page"
    with _within(place):
        for setup in part.setups:
            SETUPS[setup](slow=slow)
        for block in page.blocks:
            if block.file:
                Path(block.file).write_text(block.text, encoding="utf-8")
    ran = []
    for number, (block, command) in enumerate(part.commands()):
        if block.is_slow(command) and not slow:
            continue
        here = shutil.copytree(place, folder / str(number)) if part.fresh else place
        with _within(here):
            code, said = (_serve if block.serves(command) else _run)(command)
            assert code == 0, f"{page.name}:{block.line}: {command}\n{said}"
            assert "Traceback" not in said, said
            for person in block.after(command):
                SETUPS[person]()
        ran.append(command)
    return ran


@contextlib.contextmanager
def _within(folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _serve(command: str) -> tuple[int, str]:
    """Ask a server, at any free port, for its page, and end it by Ctrl-C: exit code, and what it said."""
    words = [sys.executable, "-m", *words_of(command), "--port", "0", "--no-open"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stuck = threading.Timer(300, process.kill)
    stuck.start()
    try:
        told = process.stdout.readline() if process.stdout else ""
        if address := re.search(r"http://127\.0\.0\.1:\d+/\S*", told):
            with urllib.request.urlopen(address[0], timeout=60) as answer:
                page = answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate()
        stuck.cancel()
    assert address, f"{command} told no address: {told}{rest}{said}"
    assert "<title>" in page, page
    return process.returncode, told + rest + said


def _run(command: str) -> tuple[int, str]:
    """Exit code, and all that was said. What needs a shell gets one, all else runs here: starting torch takes seconds."""
    if SHELL_ONLY.search(command.split(" # ")[0]):
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-ec", command], capture_output=True, text=True, env=environment
        )
        return done.returncode, done.stdout + done.stderr
    words = words_of(command)
    said = io.StringIO()
    before = sys.argv
    sys.argv = words if words[0] == "covermap" else words[1:]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            if words[0] == "covermap":
                main()
            elif words[1] in ("-m", "-c"):
                return subprocess.run([sys.executable, *words[1:]], capture_output=True).returncode, said.getvalue()
            else:
                runpy.run_path(words[1], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        sys.argv = before
    return 0, said.getvalue()
