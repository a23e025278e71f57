"""`covermap schema`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from covermap.cli import show


def schema(
    out: Annotated[str | None, typer.Option("--output", "-o", help="File to write; default: print.")] = None,
    overwrite: show.Overwrite = False,
) -> None:
    """Print the JSON Schema of the config: every key, its type, default and meaning.

    Example: covermap schema -o covermap.schema.json, then put this on the config's first line:
    # yaml-language-server: $schema=covermap.schema.json
    """
    from covermap.core.config import RunConfig
    from covermap.core.output import claim, write_text

    text = json.dumps(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunConfig.model_json_schema()}, indent=2
    )
    if out is None:
        typer.echo(text)
    else:
        claim(out, overwrite=overwrite)
        typer.echo(str(write_text(out, text + "\n")))
