"""`covermap models`: what can be trained, and what is in a model folder."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import legends

app = typer.Typer(help="What can be trained, published weights, and what a model folder holds.", no_args_is_help=True)


@app.command("list")
def list_(as_json: show.AsJson = False, quiet: show.Quiet = False) -> None:
    """Backbones, decoders, losses and baselines. Example: covermap models list --json"""
    from covermap.verbs.models import list_models

    rows = list_models()
    if as_json:
        show.as_json(rows)
    else:
        show.table([list(row.values()) for row in rows], list(rows[0]))


@app.command("show")
def show_(
    model: Annotated[str, typer.Argument(help="A name from models list, a model or run folder, or hf://OWNER/NAME.")],
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """What a model takes and gives. Examples: covermap models show unet · covermap models show runs/gewata"""
    from covermap.verbs.models import show_model

    found = show_model(model)
    if as_json:
        show.as_json(found)
        return
    for key, value in found.items():
        typer.echo(f"{key:>22}  {_plain(value)}")


@app.command()
def pull(
    model: Annotated[str, typer.Argument(help="A backbone from models list, or hf://OWNER/NAME\\[@REVISION].")],
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Download a backbone's published weights, or the newest state of a model; offline, say which file to put where.

    Example: covermap models pull presto
    """
    from covermap.verbs.models import pull_model

    with show.progress("downloading, MB") as tick:
        found = pull_model(model, on_progress=tick)
    if as_json:
        show.as_json(found)
    else:
        typer.echo(f"{found['path']}  ({found['bytes'] / 1e6:.1f} MB, SHA-256 {found['sha256']}, {found['licence']})")


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="Model folder or run folder.")],
    dest: Annotated[str, typer.Argument(help="hf://OWNER/NAME on the Hugging Face hub, or a new folder.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Hand a model on: to the hub, where others use it by name, or to a folder such as a shared drive.

    Examples: covermap models push runs/gewata hf://me/gewata · covermap predict hf://me/gewata IMAGE.tif MAP.tif
    """
    from covermap.verbs.models import push_model

    place = push_model(model, dest, private=private, overwrite=overwrite)
    if as_json:
        show.as_json({"model": place})
        return
    typer.echo(place)
    show.say(f"next: covermap predict {place} IMAGE.tif MAP.tif")


@app.command("import")
def import_(
    checkpoint: Annotated[str, typer.Argument(help="A .ckpt that TerraTorch wrote: Prithvi or TerraMind, fine-tuned.")],
    out: Annotated[str, typer.Argument(help="Model folder to write.")],
    legend: Annotated[
        str | None,
        typer.Option(help="Legend of its classes, in their order: a name or YAML file.", autocompletion=legends),
    ] = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Turn a fine-tuned TerraTorch checkpoint into a model folder that gives the same logits.

    The file does not say how its images were scaled: the published means and stds of the backbone are taken.
    Example: covermap models import flood.ckpt flood/ --legend legend.yaml
    """
    from covermap.verbs.models import import_model

    show.lines(import_model(checkpoint, out, legend=legend, overwrite=overwrite), out)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Model or run folder, or hf://OWNER/NAME.")],
    out: Annotated[str, typer.Argument(help="File to write, .onnx.")],
    size_px: Annotated[int | None, typer.Option(help="Side of a window; default: that of training.")] = None,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Write a network as ONNX, which takes file numbers and gives logits; checked against ours (extra onnx).

    Example: covermap models export runs/gewata/model gewata.onnx
    """
    from covermap.verbs.export_onnx import export_onnx

    show.lines(export_onnx(model, out, size_px=size_px, overwrite=overwrite), out)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(each)}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
