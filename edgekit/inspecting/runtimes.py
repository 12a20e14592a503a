"""What a runtime on this machine makes of a file: whether it loads, and what it executes.

Runs in a child process (see ``guarded``). Whatever the runtime raises is left as it is: its own words.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.int8 import coverage

__all__ = ["NAMES", "executed", "installed", "load"]

NAMES = {"onnx": "onnxruntime", "litert": "litert"}  # format → the runtime that reads it
_MODULES = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}
_PACKAGES = {"onnx": "onnxruntime", "litert": "ai-edge-litert"}


def installed(format: str) -> bool:
    """Whether the runtime for this format is there, without importing it."""
    return importlib.util.find_spec(_MODULES[format]) is not None


def load(path: str, format: str) -> None:
    """Load a file as for running it. Raises what the runtime raises."""
    if format == "onnx":
        _session(path)
    else:
        _interpreter(path)


def executed(path: str, format: str) -> dict[str, Any]:
    """Load a file, and tell what is executed after the runtime's own optimisation, as JSON.

    ``xnnpack_partitions``: in how many pieces LiteRT hands the graph to XNNPACK (one is best).
    ``arena_bytes``: what LiteRT's own planner reserves for tensors, scratch space of its kernels included.
    ``coverage`` is None where the file can't be run on zeros (``coverage_error`` says why).
    """
    facts = _onnx(path) if format == "onnx" else _litert(path)
    row: dict[str, Any] = {
        "runtime": NAMES[format],
        "version": metadata.version(_PACKAGES[format]),
        **facts,
        "coverage": None,
        "coverage_error": "",
    }
    try:
        found = coverage.of_file(Path(path), format)
    except Exception as error:
        return {**row, "coverage_error": " ".join(str(error).split())}
    return {**row, "coverage": found.describe()}


def _session(path: str, options: Any = None) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _onnx(path: str) -> dict[str, Any]:
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "executed.onnx")
        _session(path, options)
        model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    return {"operators": dict(operators.most_common()), "xnnpack_partitions": None, "arena_bytes": None}


def _interpreter(path: str, **options: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1, **options)
    interpreter.allocate_tensors()
    return interpreter


def _litert(path: str) -> dict[str, Any]:
    from ai_edge_litert.interpreter import OpResolverType

    plain = _interpreter(path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    with_delegates = _interpreter(path)
    names = Counter(operation["op_name"] for operation in plain._get_ops_details())
    delegates = [op for op in with_delegates._get_ops_details() if op["op_name"] == "DELEGATE"]
    return {
        "operators": dict(names.most_common()),
        "xnnpack_partitions": len(delegates),
        "arena_bytes": _planned_bytes(plain),
    }


def _planned_bytes(interpreter: Any) -> int:
    """How far apart the tensors of LiteRT's arena lie, from their addresses.

    Constants lie in the file's own memory, apart from the arena: only what ops write counts, and the inputs.
    """
    written = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"] if i >= 0}
    written |= {detail["index"] for detail in interpreter.get_input_details()}
    spans = []
    for index in written:
        with contextlib.suppress(ValueError, RuntimeError):
            view = np.asarray(interpreter.tensor(index)())
            spans.append((view.ctypes.data, view.ctypes.data + view.nbytes))
    return max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0
