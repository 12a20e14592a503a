"""A workload's words, which end up in names of files, JSON and a page: looked at before any work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from edgekit.errors import WorkloadError

__all__ = ["checked_about", "refuse_name", "refuse_unfit"]

_MOST_CHARACTERS = 128  # of a name; with what files are called besides, file systems take 255


def refuse_name(name: str) -> None:
    """Raise WorkloadError for a name that can't name a folder."""
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_MOST_CHARACTERS - 1}}}", name):
        raise WorkloadError(
            "a name that can't name a folder",
            where="Workload(name=…)",
            got=repr(name),
            expected=f"at most {_MOST_CHARACTERS} letters, digits, '.', '_' and '-'",
        )


def checked_about(about: Mapping[str, str] | None) -> dict[str, str]:
    """``about``, which is words by their keys. Raises WorkloadError for anything else."""
    words = about if about is not None else {}
    if not isinstance(words, Mapping) or {type(one) for pair in words.items() for one in pair} - {str}:
        raise WorkloadError(
            "wrong kind of argument",
            where="Workload(about=…)",
            got=repr(about),
            expected='words by their keys, {"license": "Apache-2.0"}',
        )
    refuse_unfit("about", [one for pair in words.items() for one in pair])
    return dict(words)


def refuse_unfit(argument: str, texts: Iterable[str] | None) -> tuple[str, ...] | None:
    """The texts of an argument. Raises WorkloadError for one that no file can hold: it has no UTF-8."""
    if texts is None:
        return None
    found = tuple(map(str, texts))
    for one in found:
        if re.search("[\x00\ud800-\udfff]", one):
            raise WorkloadError(
                "text that no file can hold",
                where=f"Workload({argument}=…)",
                got=ascii(one),
                expected="Unicode without NUL and without halves of surrogate pairs",
                next="decode it with the encoding that it has, or with errors='replace'",
            )
    return found
