"""How commands of a page are parsed and run."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer
from doc_pages import Page

from covermap.cli import app, main

SHELL_ONLY = re.compile(r"\s(\||>|2>|<|;|&&)\s|\$\(|`")


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
    for part in re.split(r"\s(?:;|\||&&)\s|;\s", re.split(r"\s+#\s", command)[0]):
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


def run_page(page: Page, *, slow: bool) -> list[str]:
    """Save the page's files, run its commands in order in this folder; returns those that ran."""
    ran = []
    for block in page.blocks:
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
    for block in page.blocks:
        for command in block.commands():
            if block.reason(command) or (block.is_slow(command) and not slow):
                continue
            code, said = _run(command, block.text)
            assert code == 0, f"{page.name}:{block.line}: {command}\n{said}"
            assert "Traceback" not in said, said
            ran.append(command)
    return ran


def _run(command: str, text: str) -> tuple[int, str]:
    """Exit code, and all that was said. What needs a shell gets one, all else runs here: starting torch takes seconds."""
    if SHELL_ONLY.search(command.split(" # ")[0]):
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, env=environment)
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
