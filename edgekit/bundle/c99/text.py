"""Names and numbers as C text. What comes out of a file never ends a comment or a line."""

from __future__ import annotations

import re
import textwrap

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError

__all__ = ["check_prefix", "floating", "numbers", "plain"]

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}\Z")
# No prefix needs to be one of these; they are refused because they read badly.
_WORDS = re.compile(
    r"(auto|bool|break|case|catch|char|class|const|continue|default|delete|do|double|else|enum|extern|false|float"
    r"|for|goto|if|inline|int|long|namespace|new|operator|private|protected|public|register|restrict|return"
    r"|short|signed|sizeof|static|struct|switch|template|this|throw|true|try|typedef|union|unsigned|using"
    r"|virtual|void|volatile|while)\Z"
)
_WIDTH = 110


def check_prefix(prefix: str) -> str:
    """The prefix, if all names made from it are valid in C and C++.

    Raises:
        ExportError: it isn't.
    """
    if not _PREFIX.match(prefix) or _WORDS.match(prefix) or "__" in prefix:
        raise ExportError(
            "no prefix for C names",
            got=repr(prefix),
            expected="a letter, then letters, digits and single underscores, 48 at most; no word of C or C++",
            next="for example: net",
        )
    return prefix


def plain(name: str, limit: int = 60) -> str:
    """A name for a comment: letters, digits and a few signs, none of which means anything to a C compiler.

    Everything else, ends of comments and lines, trigraphs and other alphabets included, becomes "_".
    """
    safe = re.sub(r"[^A-Za-z0-9_.:;,+=()-]", "_", name)
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."


def floating(value: float) -> str:
    """A float32 as a constant that reads back to the same bits (9 digits do)."""
    text = f"{float(np.float32(value)):.9g}"
    return f"{text}f" if any(sign in text for sign in ".en") else f"{text}.0f"


def numbers(values: NDArray[np.integer]) -> str:
    """The rows of an initialiser."""
    # -2147483648 is an expression in C: minus a number that doesn't fit into int.
    words = ["(-2147483647 - 1)" if v == -(2**31) else str(v) for v in values.reshape(-1).tolist()]
    body = textwrap.wrap(
        ",".join(words).replace(",", ", "), _WIDTH - 4, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(f"    {line}" for line in body)
