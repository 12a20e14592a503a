"""``edgekit cache`` and ``edgekit cache clear``."""

from __future__ import annotations

import sys

import typer

from edgekit.cli.common import Json, exits, print_json
from edgekit.cli.streams import say

cache = typer.Typer(
    help="The cache: what was built, fetched or measured once. Everything in it can be made again.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@cache.callback(invoke_without_command=True)
@exits
def cache_show(context: typer.Context, as_json: Json = False) -> None:
    """Show what lies in the cache, and how large it is."""
    if context.invoked_subcommand is not None:
        return
    from edgekit.caching import cache_folder, entries

    found = entries()
    if as_json:
        rows = [{"name": one.name, "bytes": one.size_bytes, "what": one.what} for one in found]
        print_json({"folder": str(cache_folder()), "entries": rows})
    else:
        from edgekit.cli.views.console import cache_view, console_on

        console_on(sys.stdout).print(cache_view(cache_folder(), found))


@cache.command("clear")
@exits
def cache_clear(as_json: Json = False) -> None:
    """Remove it. Boards that are switched on, and what they run from, stay."""
    from edgekit.caching import cache_folder, clear
    from edgekit.units import human_bytes

    gone = clear()
    total = sum(one.size_bytes for one in gone)
    if as_json:
        print_json({"folder": str(cache_folder()), "removed": [one.name for one in gone], "bytes": total})
    else:
        say(f"removed {human_bytes(total)} from {cache_folder()}" if gone else f"{cache_folder()} is empty")
