"""The ``edgekit`` command: what there is, each in a file beside this one. The only part that exits.

A command parses, calls one function, renders. ``--help`` has to be instant: everything heavy is imported
inside the commands.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import Annotated, NoReturn

import typer

import edgekit
from edgekit.cli.bench import bench
from edgekit.cli.bundle import bundle
from edgekit.cli.cache import cache
from edgekit.cli.choices import TableCommand
from edgekit.cli.compare import compare, gate
from edgekit.cli.compress import compress
from edgekit.cli.data import data
from edgekit.cli.device import devices
from edgekit.cli.export import export
from edgekit.cli.init import init
from edgekit.cli.inspect import inspect
from edgekit.cli.prune import prune
from edgekit.cli.recipe import recipes
from edgekit.cli.report import report
from edgekit.cli.streams import say
from edgekit.errors import DiskFullError, Interrupted
from edgekit.shortage import shortage

app = typer.Typer(
    name="edgekit",
    help="From a trained PyTorch model to small, fast, measured ONNX and LiteRT files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes twice as long to appear
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (compress, init, data, inspect, prune, export, bench, compare, gate, report, bundle):
    app.command(cls=TableCommand)(command)
app.add_typer(recipes, name="recipe")
app.add_typer(devices, name="device")
app.add_typer(cache, name="cache")


# What they say is about parts of themselves that edgekit doesn't use.
_CHATTY = ("torchao", "torch.utils._pytree")


def main() -> NoReturn:
    """Entry point of the ``edgekit`` command."""
    from edgekit.cli.streams import open_standard, unwritten

    open_standard()
    code: int | str | None = 0
    if "--debug" not in sys.argv:
        for library in _CHATTY:
            logging.getLogger(library).setLevel(logging.ERROR)
    try:
        app()
    except KeyboardInterrupt:  # outside of a command: nothing had begun
        code = Interrupted.exit_code
    except SystemExit as end:
        code = end.code
    except (OSError, MemoryError) as refused:  # outside of a command: its own code could not be read
        wanting = shortage(refused)
        if wanting is None:
            raise
        say(f"error: {wanting}", err=True)
        code = wanting.exit_code
    finally:
        # The process ends now. Looking through all that converters left for cycles would take seconds, in
        # silence after the report; what is registered to be closed at the end is closed all the same.
        gc.disable()
        gc.freeze()
    if (failure := unwritten()) is not None and not code:
        error = DiskFullError(
            "standard output can't be written, and what was to be shown is lost",
            got=failure.strerror or str(failure),
            next="what the command made is there; send its output elsewhere",
        )
        say(f"error: {error}", err=True)
        code = error.exit_code
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"edgekit {edgekit.__version__}")
        raise typer.Exit


@app.callback()
def edgekit_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """From a trained PyTorch model to small, fast, measured ONNX and LiteRT files."""
