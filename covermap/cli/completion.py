"""`covermap completion`, and the words that Tab offers for options whose values are few.

A shell asks covermap itself at each Tab, so nothing heavy is imported here. Where nothing is offered it offers files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import typer


def one_of(*words: str) -> Callable[[], list[str]]:
    """For an option that takes one of these words."""
    return lambda: list(words)


def legends() -> list[str]:
    """Legends by name."""
    from covermap.core.legend import shipped

    return shipped()


def sensors() -> list[str]:
    """Sensors by name."""
    from covermap.core.sensors import SENSORS

    return list(SENSORS)


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Shell that reads it.", metavar="SHELL")],
) -> None:
    """Print what makes Tab complete verbs, options and their values in a shell.

    Examples: eval "$(covermap completion bash)" in ~/.bashrc, the same with zsh in ~/.zshrc after compinit, or
    covermap completion fish > ~/.config/fish/completions/covermap.fish
    """
    from typer import completion as of_typer

    script = of_typer.get_completion_script(prog_name="covermap", complete_var="_COVERMAP_COMPLETE", shell=shell)  # type: ignore[attr-defined]
    typer.echo(script)
