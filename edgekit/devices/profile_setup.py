"""``setup`` in a profile: where a board's Python looks for packages, changed without losing comments."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from edgekit.config import configfile
from edgekit.files import atomic_write

_KEY = "PYTHONPATH="
# The key with what belongs to it: the rest of its line, and lines that are indented or list items.
_ENTRY = re.compile(r"^setup:.*(?:\n(?:[ \t]+\S.*|-.*))*\n?", re.MULTILINE)


def pointed_at(setup: Sequence[str], folder: str, ours: str) -> tuple[str, ...]:
    """The variables with ``folder`` first in PYTHONPATH, instead of others below one named ``ours``.

    An empty ``folder`` only takes ours away.
    """
    paths = [folder] if folder else []
    for one in setup:
        if one.startswith(_KEY):
            paths += [path for path in one[len(_KEY) :].split(":") if path and f"/{ours}/" not in f"{path}/"]
    rest = tuple(one for one in setup if not one.startswith(_KEY))
    return (*rest, _KEY + ":".join(paths)) if paths else rest


def write_setup(path: Path, setup: Sequence[str]) -> bool:
    """Change ``setup`` in a profile, and nothing else; False, with the file as it was, if that can't be done.

    It can't where the text that belongs to the key isn't told apart, such as in a mapping of one line.
    """
    text = path.read_text(encoding="utf-8")
    expected = configfile.parse_yaml(text)
    if setup:
        expected["setup"] = list(setup)
    else:
        expected.pop("setup", None)
    line = f"setup: {json.dumps(list(setup), ensure_ascii=False)}\n" if setup else ""
    changed, found = _ENTRY.subn(lambda match: line, text, count=1)
    if not found:
        changed = text if not text or text.endswith("\n") else text + "\n"
        changed += line
    try:
        if configfile.parse_yaml(changed) != expected:
            return False
    except ValueError:
        return False
    atomic_write(path, changed.encode())
    return True
