"""A flatbuffer as plain objects, by the text of its schema.

ExecuTorch ships its schemas as text. Its own readers import torch and its whole compiler, which takes
longer than all else that `inspect` does; and of XNNPACK's graphs they make JSON with six digits behind the
point, too few for a scale. Binary format: flatbuffers.dev, "FlatBuffer Internals".
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

__all__ = ["Schema"]

_SCALARS = {
    "bool": "?",
    "byte": "b",
    "ubyte": "B",
    "short": "h",
    "ushort": "H",
    "int": "i",
    "uint": "I",
    "int32": "i",
    "uint32": "I",
    "long": "q",
    "ulong": "Q",
    "uint64": "Q",
    "int64": "q",
    "float": "f",
    "double": "d",
}
_DECLARATION = re.compile(r"(table|enum|union)\s+(\w+)\s*(?::\s*(\w+)\s*)?\{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"(\w+)\s*:\s*(\[?)\s*(\w+)\s*\]?\s*(?:=\s*[^;(]+)?(\([^)]*\))?\s*;")


@dataclass(frozen=True)
class _Field:
    name: str
    type: str
    many: bool
    slot: int


class Schema:
    """Of tables, enums, unions, strings and vectors: what the schemas that are read here are made of.

    Args:
        text: the content of a .fbs file. Fields with a default other than 0 aren't known.

    Raises ValueError: it names no root.
    """

    def __init__(self, text: str) -> None:
        text = re.sub(r"//[^\n]*", "", text)  # comments
        self._enums: dict[str, tuple[str, dict[int, str]]] = {}
        self._unions: dict[str, list[tuple[str, str]]] = {}
        bodies = {}
        for kind, name, type, body in _DECLARATION.findall(text):
            if kind == "enum":
                entries = (entry.partition("=") for entry in body.split(",") if entry.strip())
                self._enums[name] = type, {int(value): key.strip() for key, _, value in entries}
            elif kind == "union":
                members = (entry.partition(":") for entry in body.split(",") if entry.strip())
                self._unions[name] = [(key.strip(), (of or key).strip()) for key, _, of in members]
            else:
                bodies[name] = body
        self._tables = {name: self._fields(body) for name, body in bodies.items()}
        root = re.search(r"root_type\s+(\w+)", text)
        if root is None:
            raise ValueError("a schema without root_type")
        self._root = root[1]

    def _fields(self, body: str) -> list[_Field]:
        found, slot = [], 0
        for name, bracket, type, attributes in _FIELD.findall(body):
            slot += type in self._unions  # its kind stands in a slot of its own, in front
            if "deprecated" not in attributes:
                found.append(_Field(name, type, bool(bracket), slot))
            slot += 1
        return found

    def read(self, content: bytes) -> dict[str, Any]:
        """The root table: numbers, names of enums, text, lists, bytes, tables as dicts.

        ``x_type`` beside ``x`` tells which of a union that is. What a buffer leaves out is 0, "", [] or None,
        as its type has it.

        Raises ValueError: the buffer points beyond its ends, or has what the schema doesn't know.
        """
        return _Reader(self._tables, self._enums, self._unions, content).table(0, self._root)


@dataclass(frozen=True)
class _Reader:
    tables: dict[str, list[_Field]]
    enums: dict[str, tuple[str, dict[int, str]]]
    unions: dict[str, list[tuple[str, str]]]
    content: bytes

    def table(self, at: int, type: str) -> dict[str, Any]:
        """The table that the offset at ``at`` leads to."""
        start = at + self.number("I", at)
        offsets = start - self.number("i", start)
        size = self.number("H", offsets)
        found: dict[str, Any] = {}
        for field in self.tables[type]:
            place = self._place(start, offsets, size, field.slot)
            if field.type not in self.unions:
                found[field.name] = self._value(place, field)
                continue
            kind = self._place(start, offsets, size, field.slot - 1)
            number = self.number("B", kind) if kind else 0
            if number > len(self.unions[field.type]):
                raise ValueError(f"{field.name} of kind {number}, which the schema doesn't have")
            name, of = self.unions[field.type][number - 1] if number and place else ("NONE", "")
            found[f"{field.name}_type"] = name
            found[field.name] = self.table(place, of) if of else None
        return found

    def number(self, code: str, at: int) -> Any:
        """One scalar, little-endian."""
        size = struct.calcsize(f"<{code}")
        if not 0 <= at <= len(self.content) - size:
            raise ValueError(f"it points to byte {at} of {len(self.content)}")
        return struct.unpack_from(f"<{code}", self.content, at)[0]

    def _place(self, start: int, offsets: int, size: int, slot: int) -> int:
        """Where a field is; 0: it was left out."""
        entry = 4 + 2 * slot
        offset = self.number("H", offsets + entry) if entry + 2 <= size else 0
        return start + offset if offset else 0

    def _value(self, at: int, field: _Field) -> Any:
        if field.many and field.type in ("byte", "ubyte"):
            return self._bytes(at) if at else b""
        if field.many:
            return self._vector(at, field.type) if at else []
        if field.type == "string":
            return self._bytes(at).decode("utf-8", "replace") if at else ""
        if field.type in self.tables:
            return self.table(at, field.type) if at else None
        return self._scalar(at, field.type)

    def _scalar(self, at: int, type: str) -> Any:
        stored, names = self.enums.get(type, (type, {}))
        value = self.number(_SCALARS[stored], at) if at else 0
        return names.get(value, f"unknown ({value})") if names else value

    def _vector(self, at: int, type: str) -> list[Any]:
        code = _SCALARS.get(self.enums.get(type, (type, {}))[0], "I")
        first, count, step = self._span(at, struct.calcsize(f"<{code}"))
        places = range(first, first + count * step, step)
        if type in self.tables:
            return [self.table(place, type) for place in places]
        return [self._scalar(place, type) for place in places]

    def _bytes(self, at: int) -> bytes:
        first, count, _ = self._span(at, 1)
        return self.content[first : first + count]

    def _span(self, at: int, step: int) -> tuple[int, int, int]:
        """Of a vector: where its first entry is, how many there are, and the bytes of one."""
        start = at + self.number("I", at)
        count = self.number("I", start)
        if start + 4 + count * step > len(self.content):
            raise ValueError(f"a list of {count} entries at byte {start} of {len(self.content)}")
        return start + 4, count, step
