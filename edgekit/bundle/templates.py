"""Templates of generated files: small, and with a filter for each language's literals."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2

from edgekit.bundle import names

__all__ = ["render"]

_FILTERS = ("c_string", "comment", "kotlin_string", "python_string", "swift_string", "toml_string")


def render(folder: Path, template: str, /, **values: Any) -> bytes:
    """A template of ``folder`` as UTF-8, filled with ``values``.

    ``{{ text | kotlin_string }}`` makes a literal of any text; see ``names``. Raises jinja2.UndefinedError if
    the template asks for what wasn't given.
    """
    return _environment(folder).get_template(template).render(**values).encode("utf-8")


@functools.cache
def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=False,  # no HTML: each value goes through its language's filter
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update({name: getattr(names, name) for name in _FILTERS})
    return environment
