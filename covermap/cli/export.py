"""`covermap export`."""

from __future__ import annotations

from typing import Annotated

import typer

from covermap.cli import show
from covermap.cli.completion import one_of

Form = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="onnx, emd, mlm or hf; default: what OUT's ending says.",
        autocompletion=one_of("onnx", "emd", "mlm", "hf"),
    ),
]


def export(
    model: Annotated[str, typer.Argument(help="Model or run folder, or hf://OWNER/NAME.", metavar="MODEL")],
    out: Annotated[str, typer.Argument(help="File to write; with hf: hf://OWNER/NAME or a folder.", metavar="OUT")],
    to: Form = None,
    size_px: Annotated[
        int | None, typer.Option(help="Side of a window (onnx, emd); default: that of training.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private (hf).")] = False,
    overwrite: show.Overwrite = False,
    as_json: show.AsJson = False,
    quiet: show.Quiet = False,
) -> None:
    """Hand a model over: ONNX, Esri model definition, STAC item, or the model folder for the Hugging Face hub.

    Examples: covermap export runs/gewata gewata.onnx · covermap export runs/gewata gewata.emd ·
    covermap export runs/gewata catalogue/gewata.json --to mlm · covermap export runs/gewata hf://me/gewata
    """
    from covermap.verbs.export import export as work

    show.lines(work(model, out, to=to, size_px=size_px, private=private, overwrite=overwrite), out)
