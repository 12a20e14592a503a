"""Inputs that went wrong: text, JSON and arrays, changed at random from a seed.

Each function takes a ``random.Random``, and gives the same for the same state of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["HAZARDS", "array", "damaged", "json_text", "yaml_text"]

# What a hand, an editor, another program or somebody mean puts where a value belongs, in YAML.
HAZARDS: tuple[str, ...] = (
    "",
    "~",
    "null",
    "true",
    "maybe",
    "0",
    "-1",
    "1.5",
    "1e999",
    ".nan",
    "-.inf",
    "9" * 400,
    "9" * 20_000,
    "0x" + "f" * 5000,
    '"\\uD800"',
    '"\\0"',
    '"\\e[2J"',
    "'" + "x" * 300 + "'",
    "x" * 5000,
    "[]",
    "{}",
    "[[[]]]",
    "[" * 50_000,
    "{a: " * 500,
    "- " * 500,
    "*nobody",
    "&a [*a]",
    "&a {<<: *a}",
    "<<: x",
    "!!bool maybe",
    "!!int x",
    "!!float x",
    "!!map x",
    "!!binary a",
    "!!timestamp x",
    "!!set {x}",
    "!!python/object/apply:os.system [echo]",
    "!unknown x",
    "? [a]",
    "{1: 2, ~: 3, 1.5: 4, true: 5}",
    "|",
    ">-",
    "---",
    "...",
    "%YAML 9.9",
    "\t",
    "\u202e",
    "ü",
    "*",
    "/dev/null",
    "../../x",
    "🙂" * 50,
)

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "\x00",
    "\x1b[2J",
    "x" * 300,
    "../x",
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    {"": None},
    list(range(50)),
)

BOMB = "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9) if before else 'x'}]"
    for before, name in zip(["", *"abcdefgh"], "abcdefghi", strict=True)
)


def yaml_text(random: random.Random, text: str) -> bytes:
    """A configuration file after one to four mishaps."""
    for _ in range(random.choice((1, 1, 2, 4))):
        text = random.choice(_TEXT)(random, text)
    content = text.encode("utf-8", "surrogatepass")
    return damaged(random, content) if random.random() < 0.2 else content


def json_text(random: random.Random, value: Any) -> bytes:
    """A JSON file after one to four mishaps in its values, or in its bytes."""
    value = json.loads(json.dumps(value))
    for _ in range(random.choice((1, 1, 2, 4))):
        value = _changed(random, value)
    text = json.dumps(value, indent=random.choice((None, 2)))
    if random.random() < 0.1:
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice(("NaN", "1e999", "9" * 5000, "[" * 100_000, "\x00")) + text[at:]
    content = text.encode()
    return damaged(random, content) if random.random() < 0.2 else content


def damaged(random: random.Random, content: bytes) -> bytes:
    """Bytes cut, flipped, doubled, or filled up."""
    if not content:
        return random.randbytes(20)
    at = random.randrange(len(content))
    much = min(len(content) - at, random.choice((1, 2, 8, 64)))
    return random.choice(
        (
            b"",
            content[:at],
            content[at:],
            content[:at] + content[at + much :],
            content[:at] + random.randbytes(much) + content[at + much :],
            content[:at] + bytes(much) + content[at + much :],
            content[:at] + content[at : at + much] * 20 + content[at:],
            b"\xef\xbb\xbf" + content,
            content + random.randbytes(much),
            random.randbytes(200),
        )
    )


def array(random: random.Random, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """An array of samples that isn't what ``shape`` (N, ...) of finite float32 would be."""
    sizes = [random.choice((0, 1, size, size, size + 1)) for size in shape]
    if random.random() < 0.3:
        sizes = sizes[: random.randrange(len(sizes) + 1)]
    if random.random() < 0.1:
        sizes.append(1)
    kind = random.choice(("f4", "f4", "f8", "f2", "i1", "u1", "i8", "c8", "?", "U3", "S2", "M8[s]"))
    values = np.random.default_rng(random.randrange(2**32)).integers(0, 5, sizes).astype(kind)
    if values.size and values.dtype.kind in "fc":
        values.flat[random.randrange(values.size)] = random.choice((np.nan, np.inf, -np.inf, 0.0, 1e4))
    return values


# --- text ------------------------------------------------------------------------------------------------


def _lines(change: Callable[[random.Random, list[str]], list[str]]) -> Callable[[random.Random, str], str]:
    return lambda random, text: "\n".join(change(random, text.split("\n")))


def _without(random: random.Random, lines: list[str]) -> list[str]:
    at = random.randrange(len(lines))
    return lines[:at] + lines[at + random.choice((1, 1, 3)) :]


def _twice(random: random.Random, lines: list[str]) -> list[str]:
    at = random.randrange(len(lines))
    return lines[:at] + lines[at : at + 1] * random.choice((1, 2, 50)) + lines[at:]


def _indented(random: random.Random, lines: list[str]) -> list[str]:
    at = random.randrange(len(lines))
    return [*lines[:at], random.choice((" ", "  ", "\t", "- ")) + lines[at], *lines[at + 1 :]]


def _other_value(random: random.Random, lines: list[str]) -> list[str]:
    at = random.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    return [*lines[:at], f"{key}{colon} {random.choice(HAZARDS)}", *lines[at + 1 :]]


def _other_key(random: random.Random, lines: list[str]) -> list[str]:
    at = random.randrange(len(lines))
    key, colon, value = lines[at].partition(":")
    space = key[: len(key) - len(key.lstrip())]
    return [*lines[:at], f"{space}{random.choice(HAZARDS)}{colon}{value}", *lines[at + 1 :]]


def _more_keys(random: random.Random, lines: list[str]) -> list[str]:
    at = random.randrange(len(lines))
    space = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    count = random.choice((1, 3, 100))
    return [*lines[:at], *(f"{space}unknown{i}: {i}" for i in range(count)), *lines[at:]]


def _aliased(random: random.Random, lines: list[str]) -> list[str]:
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    changed = [*lines, *BOMB.split("\n")] if random.random() < 0.3 else list(lines)
    for at, mark in ((one, "&x "), (other, "*x ")):
        key, colon, value = changed[at].partition(": ")
        changed[at] = f"{key}{colon}{mark}{value}"
    return changed


def _inserted(random: random.Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    return text[:at] + random.choice(HAZARDS) + text[at:]


_TEXT: tuple[Callable[[random.Random, str], str], ...] = (
    *map(_lines, (_without, _twice, _indented, _other_value, _other_value, _other_key, _more_keys, _aliased)),
    _inserted,
)


# --- JSON ------------------------------------------------------------------------------------------------


def _changed(random: random.Random, value: Any) -> Any:
    """One place of a JSON value, anywhere in it, changed."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        if (turn := random.random()) < 0.08:
            return {one: inner for one, inner in value.items() if one != key}
        if turn < 0.12:
            return {**value, random.choice(("unknown", "", "x" * 300, "\x1b")): value[key]}
        return {**value, key: _changed(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.85:
        at = random.randrange(len(value))
        if (turn := random.random()) < 0.08:
            return value[:at] + value[at + 1 :]
        if turn < 0.12:
            return value[:at] + value[at : at + 1] * 3 + value[at:]
        return [*value[:at], _changed(random, value[at]), *value[at + 1 :]]
    if random.random() < 0.05:
        for _ in range(random.choice((3, 200))):
            value = [value] if random.random() < 0.5 else {"x": value}
        return value
    return random.choice(VALUES)
