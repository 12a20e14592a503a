"""What each op of a file takes, from what the runtimes themselves tell of it.

Runs on the device beside ``worker.py``: standard library, Python 3.8 or later. A row is
``{"name", "kind", "calls", "share"}``: a layer's name, the kind of kernel, its calls in all runs, and its
share of the time of all ops; where a runtime says so, "integer": whether it computes in integers.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Tuple

Row = Dict[str, Any]
Call = Tuple[str, str, int, float]  # name, kind, calls, and their time in any one unit

INTEGER_TYPES = {"int8", "uint8", "int4", "uint4", "int16", "uint16"}
# ONNX Runtime's kernels that take floats and multiply in integers, and those that only convert.
INTEGER_KINDS = {"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "DynamicQuantizeConv"}
CONVERTERS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


def rows(calls: Iterable[Call], integers: dict[str, bool | None] | None = None) -> list[Row]:
    """One row for each name, the largest share first. ``integers``: name → computes in integers."""
    found: dict[str, tuple[str, int, float]] = {}
    for name, kind, count, time in calls:
        _, counted, spent = found.get(name, (kind, 0, 0.0))
        found[name] = (kind, counted + count, spent + time)
    whole = sum(spent for _, _, spent in found.values())
    if not whole > 0:
        return []
    listed: list[Row] = [
        {"name": name, "kind": kind, "calls": count, "share": min(1.0, spent / whole)}
        for name, (kind, count, spent) in found.items()
    ]
    for row in listed:
        integer = (integers or {}).get(row["name"])
        if integer is not None:
            row["integer"] = integer
    return sorted(listed, key=lambda row: (-row["share"], row["name"]))


def onnx_rows(events: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows of an ONNX Runtime profile (its JSON, a list of Chrome trace events), without the first run."""
    events = list(events)
    runs = sorted(one["ts"] + one["dur"] for one in events if one.get("name") == "model_run")
    begin = runs[0] if len(runs) > 1 else 0
    calls, integers = [], {}
    for one in events:
        name = str(one.get("name", ""))
        if one.get("cat") != "Node" or not name.endswith("_kernel_time") or one["ts"] < begin:
            continue
        node, about = name[: -len("_kernel_time")], one.get("args", {})
        kind = str(about.get("op_name", ""))
        calls.append((node, kind, 1, float(one["dur"])))
        integers[node] = _integer(kind, about.get("input_type_shape"))
    return rows(calls, integers)


def _integer(kind: str, inputs: Any) -> bool | None:
    """Whether an ONNX Runtime kernel computes in integers, by the type of its first input."""
    if kind in INTEGER_KINDS:
        return True
    if kind in CONVERTERS:
        return False
    if not isinstance(inputs, list) or not inputs or not isinstance(inputs[0], dict) or not inputs[0]:
        return None
    first = next(iter(inputs[0]))
    if first in INTEGER_TYPES:
        return True
    return False if "float" in first or first == "double" else None
