"""Help that names what the tables hold, put together when help is asked for: tables take time to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from typer.core import TyperCommand

__all__ = ["TableCommand", "any_of"]


def any_of(names: Iterable[str]) -> str:
    """``a, b or c``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _criteria() -> str:
    from edgekit.pruning.importance.criteria import CRITERIA

    return any_of(CRITERIA)


def _formats() -> str:
    from edgekit.formats import FORMATS

    return ", ".join(f"{name}{f' ({row.remark})' if row.remark else ''}" for name, row in FORMATS.items())


def _precisions() -> str:
    from edgekit.formats import PRECISIONS

    return ", ".join(PRECISIONS)


def _runtimes() -> str:
    from edgekit.runtimes import RUNTIMES

    return any_of(RUNTIMES)


def _suffixes() -> str:
    from edgekit.formats import FORMATS

    return ", ".join(row.suffix for row in FORMATS.values())


def _targets() -> str:
    from edgekit.bundle.targets import NAMES

    return any_of(NAMES)


def _addresses() -> str:
    from edgekit.devices.transports import TRANSPORTS

    return "; ".join(f"{name}: {row.address}" for name, row in TRANSPORTS.items() if row.address)


_TOLD: dict[str, Callable[[], str]] = {
    "criteria": _criteria,
    "formats": _formats,
    "precisions": _precisions,
    "runtimes": _runtimes,
    "suffixes": _suffixes,
    "targets": _targets,
    "addresses": _addresses,
}


class TableCommand(TyperCommand):
    """A command whose help may have ``{criteria}`` and the like in it: the names that stand in that table."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """As any command's, the names filled in."""
        for one in self.params:
            if text := getattr(one, "help", None):
                one.help = re.sub(r"\{(\w+)\}", lambda found: _TOLD[found[1]](), text)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)
