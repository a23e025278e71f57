"""`covermap schema`."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from covermap.cli import show


def schema(
    what: Annotated[
        Literal["config", "study", "label_budget", "pretraining", "tune", "pretrain"],
        typer.Argument(help="A config, a plan, or a recipe (pretrain)."),
    ] = "config",
    out: Annotated[str | None, typer.Option("--output", "-o", help="File to write; default: print.")] = None,
    overwrite: show.Overwrite = False,
) -> None:
    """Print the JSON Schema of a config or plan: every key, its type, default and meaning.

    Example: covermap schema -o covermap.schema.json, then put this on the config's first line:
    # yaml-language-server: $schema=covermap.schema.json
    """
    from pydantic import BaseModel

    from covermap.core.config import RunConfig
    from covermap.core.label_budget_plan import LabelBudgetPlan
    from covermap.core.output import claim, write_text
    from covermap.core.pretrain_config import PretrainConfig
    from covermap.core.pretraining_plan import PretrainingPlan
    from covermap.core.study_plan import StudyPlan
    from covermap.core.tune_plan import TunePlan

    kinds: dict[str, type[BaseModel]] = {
        "config": RunConfig,
        "study": StudyPlan,
        "label_budget": LabelBudgetPlan,
        "pretraining": PretrainingPlan,
        "tune": TunePlan,
        "pretrain": PretrainConfig,
    }
    text = json.dumps(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **kinds[what].model_json_schema()}, indent=2
    )
    if out is None:
        typer.echo(text)
    else:
        claim(out, overwrite=overwrite)
        typer.echo(str(write_text(out, text + "\n")))
