"""What XNNPACK took of a LiteRT file, read back from the interpreter."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

__all__ = ["Delegated", "delegated"]


@dataclass(frozen=True)
class Delegated:
    """``partitions`` of XNNPACK, ``outside``: how many ops of each kind TFLite's own kernels execute between
    them, ``transposes``: how many there are in the whole file.
    """

    partitions: int
    outside: dict[str, int]
    transposes: int


def delegated(interpreter: Any) -> Delegated:
    """Look at an interpreter with LiteRT's default delegate, its tensors allocated."""
    ops = interpreter._get_ops_details()
    delegates = [op for op in ops if op["op_name"] == "DELEGATE"]
    plain = [op for op in ops if op["op_name"] != "DELEGATE"]
    makes = {int(tensor): number for number, op in enumerate(plain) for tensor in op["outputs"]}
    taken: set[int] = set()
    for delegate in delegates:  # from its outputs back to its inputs
        border = {int(tensor) for tensor in delegate["inputs"]}
        todo = [int(tensor) for tensor in delegate["outputs"]]
        while todo:
            number = makes.get(tensor) if (tensor := todo.pop()) not in border else None
            if number is not None and number not in taken:
                taken.add(number)
                todo += [int(tensor) for tensor in plain[number]["inputs"]]
    outside = Counter(op["op_name"] for number, op in enumerate(plain) if number not in taken)
    transposes = sum(op["op_name"] == "TRANSPOSE" for op in plain)
    return Delegated(len(delegates), dict(outside.most_common()), transposes)
