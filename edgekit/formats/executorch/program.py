"""An ExecuTorch program as it stands in its file: its methods, and what runs in them. Nothing is executed."""

from __future__ import annotations

import functools
import importlib.util
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.formats.executorch.flatbuffer import Schema

__all__ = ["FORWARD", "XNNPACK", "Call", "Partition", "Program"]

IDENTIFIER = b"ET12"  # bytes 4 to 8 of every file
FORWARD = "forward"  # the method that is the model
XNNPACK = "XnnpackBackend"  # the delegate whose graphs are known
_OUTSIDE = 0xFFFFFFFF  # the external number of a value that stays inside of its partition


@dataclass(frozen=True)
class Partition:
    """What was handed to XNNPACK in one piece, as its schema (xnnpack/serialization/schema.fbs) has it.

    Args:
        nodes: (kind, fields), in the order of execution.
        values: tensors by number, each with ``quant_params_type`` and ``quant_params`` beside its fields.
        constants: of the entries that ``constant_buffer_idx`` names: (name, bytes), in other partitions the
            same where they share it. The first stands for no constant.
        blobs: the content of those.
    """

    nodes: tuple[tuple[str, dict[str, Any]], ...]
    values: dict[int, dict[str, Any]]
    constants: tuple[tuple[str, int], ...]
    blobs: tuple[bytes, ...]


@dataclass(frozen=True)
class Call:
    """One instruction: a kernel of ExecuTorch's own, or a delegate. ``partition``: what XNNPACK was given.

    ``name``: of the kernel without its overload ("aten::add"), or of the delegate. ``args``: numbers of the
    method's values; a delegate's stand where the external numbers of its own values say.
    """

    name: str
    args: tuple[int, ...]
    partition: Partition | None = None
    delegated: bool = False


class Program:
    """A file's content.

    Args:
        path: the file.

    Attributes:
        plan: the method ``forward`` as ExecuTorch's schema (exir/_serialize/program.fbs) has it.
        methods: all of them, by name.
        version: of the schema.

    Raises ValueError: it is no program, or damaged. OSError: it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        if self._content[4:8] != IDENTIFIER:
            raise ValueError(f"bytes 4 to 8 are {self._content[4:8]!r}, of a program {IDENTIFIER!r}")
        size, self._segments_at = _header(self._content)
        self._root = _schema("exir/_serialize/scalar_type.fbs", "exir/_serialize/program.fbs").read(
            self._content[:size]
        )
        self.version: int = self._root["version"]
        self.methods: dict[str, dict[str, Any]] = {one["name"]: one for one in self._root["execution_plan"]}
        if FORWARD not in self.methods:
            raise ValueError(f"a program without the method {FORWARD}: it has {', '.join(self.methods)}")
        self.plan = self.methods[FORWARD]

    def calls(self) -> Iterator[Call]:
        """What runs in ``forward``, in order."""
        for one in (one for chain in self.plan["chains"] for one in chain["instructions"]):
            kind, item = one["instr_args_type"], one["instr_args"]
            if kind == "DelegateCall":
                number = item["delegate_index"]
                name = self.plan["delegates"][number]["id"]
                partition = self._partition(number) if name == XNNPACK else None
                yield Call(name, tuple(item["args"]), partition, delegated=True)
            elif kind == "KernelCall":
                yield Call(self.plan["operators"][item["op_index"]]["name"], tuple(item["args"]))

    def constants(self) -> dict[str, str]:
        """Text that the other methods return without computing anything."""
        found = {}
        for name, plan in self.methods.items():
            if any(chain["instructions"] for chain in plan["chains"]) or len(plan["outputs"]) != 1:
                continue
            value = plan["values"][plan["outputs"][0]]
            if value["val_type"] == "String":
                found[name] = str(value["val"]["string_val"])
        return found

    def _partition(self, index: int) -> Partition:
        place = self.plan["delegates"][index]["processed"]
        if place["location"] == "INLINE":
            content = self._root["backend_delegate_data"][place["index"]]["data"]
        else:
            content = self._segment(place["index"])
        at, size, constants_at = _xnnpack_header(content)
        graph = _schema("backends/xnnpack/serialization/schema.fbs").read(content[at : at + size])
        constants, blobs = [], []
        for number, one in enumerate(graph["constant_data"]):
            key, length = one["named_key"], int(one["size"])
            blob = self._named(key) if key else content[constants_at + one["offset"] :][:length]
            constants.append((key or f"{place['index']}:{number}", length))
            blobs.append(blob)
        values = {}
        for one in graph["xvalues"]:
            value = one["xvalue_union"]
            own = value.get("tensor_value", value)
            values[own["id_out"]] = {**value, **own}
        nodes = tuple((one["xnode_union_type"], one["xnode_union"]) for one in graph["xnodes"])
        return Partition(nodes, values, tuple(constants), tuple(blobs))

    def _named(self, key: str) -> bytes:
        """A constant that partitions share; empty where it lies in another file."""
        entries = (one["segment_index"] for one in self._root["named_data"] if one["key"] == key)
        number = next(entries, None)
        return b"" if number is None else self._segment(number)

    def _segment(self, index: int) -> bytes:
        one = self._root["segments"][index]
        start = self._segments_at + one["offset"]
        return self._content[start : start + one["size"]]


def outside(value: dict[str, Any]) -> int | None:
    """Which argument of its call a partition's value is; None: it stays inside."""
    number = int(value["external_id"])
    return None if number == _OUTSIDE else number


def _header(content: bytes) -> tuple[int, int]:
    """Bytes of the flatbuffer, and where segments begin: of the extended header, if there is one."""
    if content[8:12] != b"eh00" or len(content) < 32:
        return len(content), 0
    size, segments_at = struct.unpack_from("<QQ", content, 16)
    return size, segments_at


def _xnnpack_header(content: bytes) -> tuple[int, int, int]:
    """Where the graph begins, its bytes, and where constants begin; see xnnpack_graph_serialize.py there."""
    if content[4:8] != b"XH00" or len(content) < 30:
        raise ValueError(f"bytes 4 to 8 of a partition are {content[4:8]!r}, of XNNPACK's b'XH00'")
    at, size, constants_at = struct.unpack_from("<III", content, 10)
    return at, size, constants_at


@functools.cache
def _schema(*names: str) -> Schema:
    """Of files that ExecuTorch ships. They are read without importing it, which takes seconds."""
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("executorch, whose schemas are needed, is not installed")
    folder = Path(found.submodule_search_locations[0])
    return Schema("\n".join((folder / name).read_text(encoding="utf-8") for name in names))
