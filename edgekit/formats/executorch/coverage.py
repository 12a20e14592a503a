"""int8 coverage of an ExecuTorch program, counted in the file: what was handed to XNNPACK, in which types.

XNNPACK chooses a kernel by the types of an op's tensors and has none that mixes them, so the types that the
delegate's graph declares are those that run. What was not handed over runs in ExecuTorch's portable kernels.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.formats.coverage import Coverage, Layer, telling
from edgekit.scratch import scratch

INTEGERS = {"xnn_datatype_qint8", "xnn_datatype_qcint8"}
CONVOLUTIONS = {"XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d"}
PORTABLE = {"aten::convolution", "aten::linear", "aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"}
PORTABLE |= {"quantized_decomposed::mixed_mm"}


def of_executorch(path: Path) -> Coverage:
    """Count what is executed of a ``.pte`` file. Raises MeasurementError: it is none, or can't be counted."""
    with telling(path):
        return count(path)


def count(path: Path) -> Coverage:
    """Coverage of ``path``, a ``.pte`` file; its layers in the order in which they run.

    Raises:
        ValueError: the file holds a delegate other than XNNPACK, of which nothing is known.
        Exception: whatever ExecuTorch raises for a file that isn't a program.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(path.read_bytes()).program
    plan = next(plan for plan in program.execution_plan if plan.name == "forward")
    layers: list[Layer] = []
    for instruction in (item.instr_args for chain in plan.chains for item in chain.instructions):
        delegate = getattr(instruction, "delegate_index", None)
        if delegate is not None:
            layers.extend(_delegated(_graph_of(program, plan.delegates[delegate])))
        elif hasattr(instruction, "op_index"):
            layers.extend(_portable(plan, instruction))
    return Coverage(tuple(layers))


def _graph_of(program: Any, delegate: Any) -> dict[str, Any]:
    """XNNPACK's graph as ExecuTorch stored it, after its header, read with the schema that it ships."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as serialization
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    if delegate.id != "XnnpackBackend":
        raise ValueError(f"the delegate {delegate.id} is unknown; expected XnnpackBackend")
    content = bytes(program.backend_delegate_data[delegate.processed.index].data)
    header = serialization.XNNHeader.from_bytes(content[: serialization.XNNHeader.EXPECTED_LENGTH])
    end = header.flatbuffer_offset + header.flatbuffer_size
    with scratch() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(serialization._get_schema_bytes())
        (folder / "graph.bin").write_bytes(content[header.flatbuffer_offset : end])
        _flatc_decompile(name, str(folder / "schema.fbs"), str(folder / "graph.bin"), ["--raw-binary"])
        # flatc writes infinite bounds as "inf", Python's JSON reads "Infinity".
        text = re.sub(r": (-?)inf\b", r": \1Infinity", (folder / "graph.json").read_text())
    graph: dict[str, Any] = json.loads(text)
    return graph


def _delegated(graph: dict[str, Any]) -> Iterator[Layer]:
    values = {}
    for value in graph["xvalues"]:
        union = value["xvalue_union"]
        tensor = union.get("tensor_value", union)
        values[tensor["id_out"]] = tensor
    for item in graph["xnodes"]:
        kind, node = item["xnode_union_type"], item["xnode_union"]
        if kind in CONVOLUTIONS:
            tensors = [values[node[key]] for key in ("input1_id", "filter_id", "output_id")]
            macs = _convolution_macs(kind, node, tensors[0]["dims"], tensors[2]["dims"])
        elif kind in {"XNNFullyConnected", "XNNBatchMatrixMultiply"}:
            other = "filter_id" if kind == "XNNFullyConnected" else "input2_id"
            tensors = [values[node[key]] for key in ("input1_id", other, "output_id")]
            macs = math.prod(tensors[2]["dims"]) * tensors[0]["dims"][-1]
        elif kind == "XNNScaledDotProductAttention":
            tensors = [values[node[key]] for key in ("query_id", "key_id", "output_id")]
            macs = 2 * math.prod(tensors[0]["dims"]) * tensors[1]["dims"][-2]
        else:
            continue
        kinds = [tensor["datatype"] for tensor in tensors]
        integer = all(kind in INTEGERS for kind in kinds)
        short = ", ".join(kind.removeprefix("xnn_datatype_") for kind in kinds)
        reason = "" if integer else f"XNNPACK executes {kind} on {short}"
        yield Layer(f"{kind}:{tensors[2]['id_out']}", kind, macs, integer, reason)


def _convolution_macs(kind: str, node: dict[str, Any], x: list[int], y: list[int]) -> int:
    kernel = int(node["kernel_height"]) * int(node["kernel_width"])
    if kind == "XNNConvTranspose2d":
        return math.prod(x) * kernel * int(node["group_output_channels"])
    return math.prod(y) * kernel * int(node["group_input_channels"])


def _portable(plan: Any, instruction: Any) -> Iterator[Layer]:
    kernel = plan.operators[instruction.op_index].name
    if kernel not in PORTABLE:
        return
    tensors = [plan.values[index].val for index in instruction.args]
    shapes = [list(tensor.sizes) for tensor in tensors if hasattr(tensor, "sizes")]
    if kernel == "aten::convolution":
        transposed = bool(tensors[6].bool_val)
        macs = math.prod(shapes[0] if transposed else shapes[-1]) * math.prod(shapes[1][1:])
    else:
        left = shapes[1] if kernel in {"aten::addmm", "aten::baddbmm"} else shapes[0]
        macs = math.prod(shapes[-1]) * left[-1]
    yield Layer(f"{kernel}:{instruction.args[-1]}", kernel, macs, False, "XNNPACK doesn't take it")
