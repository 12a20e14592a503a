"""The ``edgekit`` command: parse, call one function, render. The only file that exits.

``--help`` has to be instant: everything heavy is imported inside the commands.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

import edgekit
from edgekit.errors import EdgekitError, Interrupted, StageError
from edgekit.explain import disk_full, explain

if TYPE_CHECKING:
    from edgekit.streams import Streams

F = TypeVar("F", bound=Callable[..., Any])

app = typer.Typer(
    name="edgekit",
    help="From a trained PyTorch model to small, fast, measured ONNX and LiteRT files.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes twice as long to appear
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes = typer.Typer(
    help="Recipes: how a model is compressed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(recipes, name="recipe")


# --- what every command shares ---------------------------------------------------------------------------


def main() -> NoReturn:
    """Entry point of the ``edgekit`` command."""
    try:
        app()
    except KeyboardInterrupt:  # outside of a command: nothing had begun
        sys.exit(Interrupted.exit_code)
    sys.exit(0)


def exits(command: F) -> F:
    """Turn what a command raises into one message on standard error and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if _wants_traceback() and not isinstance(error, KeyboardInterrupt):
                raise
            message, code = explain(error, _command())
            typer.echo(message, err=True)
            raise typer.Exit(code) from None

    return wrapped  # type: ignore[return-value]  # the same signature, which Typer reads through __wrapped__


def _wants_traceback() -> bool:
    return os.environ.get("EDGEKIT_TRACEBACK", "0") not in ("", "0")


def _command() -> str:
    return shlex.join(["edgekit", *sys.argv[1:]])


def print_json(data: Any) -> None:
    """Print the only thing on standard output."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekit {edgekit.__version__}")
        raise typer.Exit


def _complete(kind: str) -> Callable[[str], list[str]]:
    def names(incomplete: str) -> list[str]:
        from edgekit import configfile

        listed = configfile.listing("devices" if kind == "devices" else "recipes")
        return [name for name in listed if name.startswith(incomplete)]

    return names


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, as the only thing on stdout.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a setting of the recipe, e.g. stages.prune.speedup=3. Repeatable.",
        show_default=False,
    ),
]
RecipeName = Annotated[
    str,
    typer.Argument(metavar="NAME|FILE", show_default=False, autocompletion=_complete("recipes")),
]


@app.callback()
def edgekit_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """From a trained PyTorch model to small, fast, measured ONNX and LiteRT files."""


# --- compress --------------------------------------------------------------------------------------------


@app.command()
@exits
def compress(
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="my_workload.py or my_workload.py:function; without one, the embedded demo.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            "-r",
            metavar="NAME|FILE",
            help="How to compress; see `edgekit recipe ls`.",
            autocompletion=_complete("recipes"),
        ),
    ] = "mobile",
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="Where to measure, instead of the recipe's devices. Repeatable.",
            show_default=False,
            autocompletion=_complete("devices"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="The run folder; by default one under runs/. An interrupted run in it goes on.",
            show_default=False,
        ),
    ] = None,
    sets: Sets = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and what libraries print.")
    ] = False,
) -> None:
    """Distill, prune and quantize a trained model, export it, and measure the files.

    Killed at any moment, the same command goes on where it was.
    """
    if debug:
        os.environ["EDGEKIT_TRACEBACK"] = "1"
    with _run_view(quiet=quiet) as progress:
        from edgekit.pipeline import compress as run

        report = run(
            workload,
            recipe=recipe,
            devices=tuple(device or ()),
            out=out,
            overrides=tuple(sets or ()),
            progress=progress,
        )
    if as_json:
        print_json(report.to_json())
    else:
        from edgekit.console import console_on, report_view

        console = console_on(sys.stdout)
        console.print(report_view(report.to_json(), console.width))


@app.command()
@exits
def inspect(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD|FILE",
            help="my_workload.py[:function], or an .onnx, .tflite or .pt2 file; else the embedded demo.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="Also say whether it fits this device.",
            show_default=False,
            autocompletion=_complete("devices"),
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            min=1,
            metavar="N",
            help="How many tensors of a file to list, the largest first (10; with --json all).",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Look into a model before any training, or into an exported file.

    A model: what will prune and quantise, what the runtimes lack, MACs and memory. A file: its ops, types,
    scales, the size of its tensors, and what its runtime executes.
    """
    with _run_view(quiet=quiet) as progress:
        from edgekit.inspecting import inspect as look

        found = look(target, device=device, top=top, progress=progress)
    if as_json:
        print_json(found)
    else:
        from edgekit.console import console_on
        from edgekit.console_inspect import inspect_view

        console = console_on(sys.stdout)
        console.print(inspect_view(found, console.width, top))


@app.command()
@exits
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CHECKPOINT",
            help="A run folder, an int8_graph.pt2, or a workload file (its trained model).",
            show_default=False,
        ),
    ],
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="The workload of a run or an int8 graph; a run of the embedded demo needs none.",
            show_default=False,
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="LIST", help="Any of onnx, litert, executorch.", show_default=True
        ),
    ] = "onnx,litert",
    precisions: Annotated[
        str,
        typer.Option(
            "--precision",
            "-p",
            metavar="LIST",
            help="Of fp32, fp16, int8, int8-dynamic, int16x8; by default int8 where there is an int8 graph.",
            show_default=False,
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="A folder for the files; those of a run are in its artifacts/ in any case.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="NAME|FILE",
            help="What ONNX files are spelled for, instead of the run's device.",
            show_default=False,
            autocompletion=_complete("devices"),
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", metavar="N", help="A fixed batch; else free in ONNX, 1 in LiteRT."),
    ] = None,
    io: Annotated[
        str | None,
        typer.Option(
            "--io",
            metavar="TYPE",
            help="Ends of quantised LiteRT files: float32, int8 or uint8; else their activations'.",
            show_default=False,
        ),
    ] = None,
    embed_preprocessing: Annotated[
        bool, typer.Option("--embed-preprocessing", help="Files that take raw uint8 pixels, (N, H, W, C).")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and what libraries print.")
    ] = False,
) -> None:
    """Export what is compressed already in further formats and precisions, without training.

    Nothing is calibrated again: int8 files come from the run's int8 graph.
    """
    if debug:
        os.environ["EDGEKIT_TRACEBACK"] = "1"
    with _run_view(quiet=quiet) as progress:
        from edgekit.pipeline.exporting import export_files
        from edgekit.pipeline.wanted import wanted

        listed = [
            [name.strip() for name in text.split(",") if name.strip()] for text in (formats, precisions)
        ]
        what = wanted(*listed, batch=batch, io=io, embed_preprocessing=embed_preprocessing)
        entries = export_files(source, workload, what, device=device, out=out, progress=progress)
    if as_json:
        print_json(entries)
    else:
        from edgekit.console import console_on
        from edgekit.console_export import export_view

        console_on(sys.stdout).print(export_view(entries))


@contextlib.contextmanager
def _run_view(*, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Progress on standard error, standard output kept free, what libraries print put aside."""
    from edgekit.console import RunView
    from edgekit.streams import apart

    debug = _wants_traceback()
    with apart(keep_log=not debug) as streams:
        hushed = False
        try:
            with RunView(streams.terminal, quiet=quiet) as view:

                def progress(event: Any) -> None:
                    nonlocal hushed
                    if not hushed:  # the user's workload is loaded by now, and has printed what it wanted
                        hushed = True
                        streams.hush()
                    view(event)

                yield progress
        except Exception as error:
            _show_log(error, streams)
            raise


def _show_log(error: Exception, streams: Streams) -> None:
    unexpected = not isinstance(error, EdgekitError) and disk_full(error) is None
    if (unexpected or isinstance(error, StageError)) and (tail := streams.tail()):
        streams.terminal.write(f"The last that libraries printed (--debug shows all):\n{tail}\n\n")
        streams.terminal.flush()


# --- recipe ----------------------------------------------------------------------------------------------


@recipes.command("ls")
@exits
def recipe_ls(as_json: Json = False) -> None:
    """List the recipes that have a name."""
    from edgekit.recipe import list_recipes

    infos = list_recipes()
    if as_json:
        rows = [{"name": i.name, "description": i.description, "path": str(i.path)} for i in infos]
        faults = [{"fault": i.fault} if i.fault else {} for i in infos]
        print_json([row | fault for row, fault in zip(rows, faults, strict=True)])
    else:
        from edgekit.console import console_on, recipes_view

        console_on(sys.stdout).print(recipes_view(infos))


@recipes.command("show")
@exits
def recipe_show(
    name: RecipeName,
    effective: Annotated[
        bool, typer.Option("--effective", help="With every default written out, instead of the file.")
    ] = False,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Print a recipe: its file, or what it amounts to."""
    from edgekit.recipe import dump, find_recipe, load_recipe

    if as_json:
        print_json(load_recipe(name, sets or ()).model_dump(mode="json"))
    elif effective or sets:
        typer.echo(dump(load_recipe(name, sets or ())), nl=False)
    else:
        typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)


@recipes.command("check")
@exits
def recipe_check(name: RecipeName, sets: Sets = None, as_json: Json = False) -> None:
    """Check a recipe, and tell all its faults at once."""
    from edgekit.errors import RecipeError
    from edgekit.recipe import load_recipe

    try:
        recipe = load_recipe(name, sets or ())
    except RecipeError as error:
        if as_json:
            print_json({"valid": False, "message": error.what, "faults": list(error.faults)})
        raise
    kinds = [stage.kind for stage in recipe.stages]
    if as_json:
        print_json({"valid": True, "name": recipe.name, "stages": kinds})
    else:
        typer.echo(f"{recipe.name}: can be used ({' → '.join(kinds) or 'no stages'})")


@recipes.command("cp")
@exits
def recipe_cp(
    name: RecipeName,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="A new file, or a folder.")],
    as_json: Json = False,
) -> None:
    """Copy a recipe to make it your own. Never overwrites."""
    from edgekit.errors import RecipeError
    from edgekit.recipe import find_recipe

    source = find_recipe(name)
    target = destination / source.name if destination.is_dir() else destination
    if target.suffix not in (".yaml", ".yml"):
        target = target.with_name(target.name + ".yaml")
    try:
        with target.open("xb") as file:
            file.write(source.read_bytes())
    except FileExistsError:
        raise RecipeError(
            "this file is already there, and is left as it is", where=str(target), next="give another name"
        ) from None
    except FileNotFoundError:
        raise RecipeError(
            "the folder isn't there", where=str(target.parent), next=f"mkdir -p {target.parent}"
        ) from None
    if as_json:
        print_json({"source": str(source), "path": str(target)})
    else:
        typer.echo(f"wrote {target}; use it with: edgekit compress --recipe {shlex.quote(str(target))}")
