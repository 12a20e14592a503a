"""What the commands share: errors become messages, results JSON; progress goes to standard error."""

from __future__ import annotations

import codecs
import contextlib
import functools
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgekit.cli.explain import explain, not_written
from edgekit.cli.streams import say
from edgekit.config import configfile
from edgekit.errors import EdgekitError, StageError, printable
from edgekit.files import read_bytes

if TYPE_CHECKING:
    from edgekit.cli.streams import Streams
    from edgekit.cli.views.console import RunView
    from edgekit.monitor.bystander import Bystander

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def exits(command: F) -> F:
    """Turn what a command raises into one message on standard error and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if wants_traceback() and not isinstance(error, KeyboardInterrupt):
                raise
            message, code = explain(error, command_line())
            say(message, err=True)
            raise typer.Exit(code) from None

    return wrapped  # type: ignore[return-value]  # the same signature, which Typer reads through __wrapped__


def show_tracebacks(wanted: bool) -> None:
    """What ``--debug`` does."""
    if wanted:
        os.environ["EDGEKIT_TRACEBACK"] = "1"


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks instead of messages."""
    return os.environ.get("EDGEKIT_TRACEBACK", "0") not in ("", "0")


def command_line() -> str:
    """What was called, to be called again."""
    return shlex.join(["edgekit", *sys.argv[1:]])


def print_json(data: Any) -> None:
    """Print the only thing on standard output; in ASCII where that takes no Unicode."""
    plain = codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8"
    text = json.dumps(data, indent=2, ensure_ascii=plain)
    say(text.encode("utf-8", "backslashreplace").decode())  # halves of surrogates, as JSON spells them


def shown(path: Path) -> str:
    """A file's text for a terminal: what isn't UTF-8, or would be obeyed, is escaped."""
    text = read_bytes(path, most=64 << 20).decode("utf-8", "backslashreplace")
    return printable(text, len(text))


def complete(kind: str) -> Callable[[str], list[str]]:
    """A completion for names of recipes or devices."""

    def names(incomplete: str) -> list[str]:
        listed = configfile.listing("devices" if kind == "devices" else "recipes")
        return [name for name in listed if name.startswith(incomplete)]

    return names


def named(kind: configfile.Kind) -> Callable[[T], T]:
    """What options and arguments that name a recipe or a device are given: it says which file that is, where
    the current folder has one of this name.
    """

    def tell(name: T) -> T:
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # no such folder, no home, no such name
            if isinstance(name, str) and (said := configfile.told(kind, name)):
                say(f"! {printable(said)}", err=True)
        return name

    return tell


DeviceName = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        show_default=False,
        autocompletion=complete("devices"),
        callback=named("devices"),
    ),
]
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
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks, and what libraries print.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")]


@contextlib.contextmanager
def run_view(*, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Progress on standard error, standard output kept free, what libraries print put aside.

    Never silent for more than ten seconds, unless ``quiet``.
    """
    from edgekit.cli.streams import apart
    from edgekit.cli.views.console import RunView
    from edgekit.monitor.heartbeat import Heartbeat
    from edgekit.progress import told_while_reading

    debug = wants_traceback()
    with apart(keep_log=not debug) as streams:
        redirected = False
        try:
            with (
                RunView(streams.terminal, quiet=quiet) as view,
                Heartbeat(
                    view, sparing=not view.is_live, beside=_beside(view, streams), line=view.plain
                ) as told,
                told_while_reading(told),  # what the workload prints meanwhile is seen as well
            ):

                def progress(event: Any) -> None:
                    nonlocal redirected
                    if not redirected:  # the user's workload is loaded by now, and has printed what it wanted
                        redirected = True
                        streams.redirect_to_log()
                    told(event)

                yield progress
        except Exception as error:
            _show_log(error, streams)
            raise


def _beside(view: RunView, streams: Streams) -> Bystander | None:
    """None where nothing is shown, and where a line changes, which other lines would spoil."""
    from edgekit.monitor.bystander import Bystander
    from edgekit.monitor.heartbeat import HELD_UP

    if view.is_live or view.is_quiet:
        return None
    try:
        return Bystander(streams.terminal.fileno(), HELD_UP)
    except (OSError, ValueError):  # no file of the system's
        return None


def _show_log(error: Exception, streams: Streams) -> None:
    unexpected = not isinstance(error, EdgekitError) and not_written(error) is None
    if (unexpected or isinstance(error, StageError)) and (tail := streams.tail()):
        streams.terminal.write(f"The last that libraries printed (--debug shows all):\n{tail}\n\n")
        streams.terminal.flush()
