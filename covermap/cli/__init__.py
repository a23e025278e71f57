"""The command line: one verb per file; a verb's work is imported only when it is called.

Exit codes: 0 ok, 1 data or settings, 2 usage, 3 interrupted and resumable.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, NoReturn

import typer

from covermap import __version__
from covermap.cli import (
    assess,
    attention,
    change,
    change_study,
    check,
    check_plugin,
    compare,
    completion,
    demo,
    doctor,
    embed,
    evaluate,
    event,
    export,
    fetch,
    info,
    init,
    legend,
    models,
    polygonize,
    predict,
    prepare,
    pretrain,
    probe,
    rank,
    report,
    run,
    sample,
    show,
    sieve,
    similar,
    smooth,
    space,
    study,
    train,
    tune,
    view,
)  # fmt: skip
from covermap.cli import schema as schema_
from covermap.core.errors import CovermapError, MissingExtra, suggest, within_memory

app = typer.Typer(
    name="covermap",
    help="Satellite rasters and a few labels in; land-cover maps, scores and areas out.\n\n"
    "First steps: covermap doctor, covermap demo OUT. Own data: covermap init IMAGE LABELS.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"covermap {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors.", envvar="COVERMAP_DEBUG"),
) -> None:
    show.reset()
    if debug:
        os.environ["COVERMAP_DEBUG"] = "1"


app.command()(doctor.doctor)
app.command()(info.info)
app.command()(init.init)
app.command()(check.check)
app.add_typer(models.app, name="models")
app.command()(fetch.fetch)
app.command()(prepare.prepare)
app.command()(train.train)
app.command()(pretrain.pretrain)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(embed.embed)
app.command()(similar.similar)
app.command()(attention.attention)
app.command()(event.event)
app.command()(rank.rank)
app.command()(sieve.sieve)
app.command()(smooth.smooth)
app.command()(polygonize.polygonize)
app.command()(sample.sample)
app.command()(assess.assess)
app.command()(compare.compare)
app.command()(change.change)
app.command(name="change-study")(change_study.change_study)
app.command()(probe.probe)
app.command()(space.space)
app.command()(report.report)
app.command()(view.view)
app.add_typer(study.app, name="study")
app.add_typer(legend.app, name="legend")
app.command()(export.export)
app.command()(tune.tune)
app.command()(run.run)
app.command()(schema_.schema)
app.command()(demo.demo)
app.command()(completion.completion)
app.command(name="check-plugin")(check_plugin.check_plugin)


# typer carries its own click since 0.29, so the base classes are found through typer's public name.
_UsageError, _ClickException = typer.BadParameter.__mro__[1:3]
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; errors become one message and an exit code, never a traceback (but with --debug)."""
    os.environ.setdefault("COVERMAP_WIDE_PRODUCTS", "1")  # the process is ours: see nn/products.py
    try:
        with within_memory("this command", fix="lower the number of workers, or give smaller windows or blocks"):
            code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except CovermapError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted\n  fix: the same command goes on where it was (train, pretrain and run: add --resume)", 3)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if isinstance(error, _UsageError):
            _fail(_usage(error), 2)
        if isinstance(error, _ClickException):
            _fail(str(error), 2)
        if isinstance(error, ModuleNotFoundError) and (missing := MissingExtra.of(error, "this command")):
            _fail(str(missing), 1)
        _fail(f"a bug in covermap: {type(error).__name__}: {error}\n  fix: report it with what --debug prints", 1)


def _usage(error: Any) -> str:
    """A usage error with a suggestion, or the help to look at."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return f"a verb is missing\n  fix: {error.ctx.command_path} --help"
    text = error.format_message()
    if text.startswith("No such command"):
        word = text.split("'")[1]
        return f"there is no verb {word!r}\n  fix: {suggest(word, error.ctx.command.commands)}"
    return f"{text}\n  fix: {error.ctx.command_path if error.ctx else 'covermap'} --help"


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("COVERMAP_DEBUG"):
        traceback.print_exc()
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)
