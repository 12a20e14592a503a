"""What is known about a model before any training: what prunes, what quantises, what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekit import macs
from edgekit.graph import ops
from edgekit.inspecting.channels import cuttable, find_channels
from edgekit.int8.prediction import Graphs, Verdict, op_name
from edgekit.int8.recurrent import matrices
from edgekit.int8.rules import PREDICTED, UNROLLED
from edgekit.memory import graph_arena
from edgekit.tensors import Tensors, each
from edgekit.workload import Workload

__all__ = ["FloatLayer", "float_layers", "inspect_model"]

_COUNTED = {"layer", "matmul", "recurrent"}
_SMALL_MACS = 200_000_000


def inspect_model(workload: Workload, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Everything about the workload's model that can be told without training or calibrating, as JSON.

    MACs and memory are for one sample. ``layers`` are the multiplying ops in the order of execution, with
    batch norm folded; ``operators`` all other kinds. ``tell`` is told what is being done.

    Raises:
        WorkloadError, DataError: the model fails on its own data.
        CaptureError: ``torch.export`` can't capture the model, so no stage can work on its graph.
    """
    workload.check()
    example = workload.example(2)
    tell("capturing the graph")
    graphs = Graphs.of(workload.model, example)
    values = graph_arena.record(graphs.captured, example)
    counted = macs.count(graphs.captured, example)
    tell("trying out which channels can leave")
    with _few_threads(counted.macs):
        pruning = find_channels(workload.model, example)
    layers = _layers(graphs, counted, values, cuttable(pruning))
    whole = macs.count(workload.model, example)
    return {
        "schema": 1,
        "kind": "model",
        "name": workload.name,
        **_ports("input", each(example[:1], "input")),
        **_ports("output", [(name, values[one.name]) for name, one in ops.results(graphs.captured).items()]),
        "totals": {"parameters": whole.parameters, "macs": counted.macs, **_file_sizes(graphs)},
        "arena": _arenas(graphs, values, example),
        "int8_error": graphs.problem,
        "runtimes": {runtime: _runtime(graphs, layers, runtime) for runtime in PREDICTED},
        "layers": layers,
        "operators": _operators(graphs),
        "pruning": pruning,
    }


@dataclass(frozen=True)
class FloatLayer:
    """A layer or op that isn't computed on integers: its module's name, the op, and why."""

    name: str
    op: str
    reason: str


def float_layers(
    model: nn.Module, example: Tensors, runtime: str, *, hybrid: bool = True
) -> list[FloatLayer]:
    """What of a model isn't computed on integers in an int8 file, in the order of execution.

    Those that multiply come first. ``example``: (N, …). ``hybrid``: whether there are kernels that multiply
    int8 weights with floats, as recurrent layers take them. Raises CaptureError.
    """
    graphs = Graphs.of(model, example)
    found: dict[str, FloatLayer] = {}
    nodes = sorted(graphs.nodes(), key=lambda node: graphs.role(node) not in _COUNTED)
    for node in nodes:
        verdict = graphs.verdict(node, runtime)
        if node.target in ops.RECURRENT and not hybrid:
            verdict = Verdict(False, UNROLLED)
        if not verdict.integer and graphs.role(node) in {*_COUNTED, "float"}:
            found.setdefault(_layer_name(node), FloatLayer(_layer_name(node), op_name(node), verdict.reason))
    return list(found.values())


# --- layers ----------------------------------------------------------------------------------------------


def _layers(
    graphs: Graphs, counted: macs.Complexity, values: dict[str, Any], channels: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    costs: dict[str, int] = {}
    for layer in counted.layers:
        costs[layer.name] = costs.get(layer.name, 0) + layer.macs
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for node in graphs.nodes():
        if not costs.get(node.name) and graphs.role(node) not in _COUNTED:
            continue
        name = _layer_name(node)
        constants = _constants(graphs.captured, node)
        new = {key: value for key, value in constants.items() if key not in seen}  # shared ones count once
        seen.update(new)
        rows.append(
            {
                "name": name,
                "op": op_name(node),
                "kind": _kind(graphs, node),
                "input": _shape(values, node.all_input_nodes[0]),
                "weight": next((list(value.shape) for value in constants.values() if value.dim() > 1), None),
                "output": _shape(values, node),
                "macs": costs.get(node.name, 0),
                "parameters": sum(value.numel() for value in new.values()),
                "prunable": channels.get(name, _no_channels(node)),
                **{runtime: _verdict(graphs, node, runtime) for runtime in PREDICTED},
            }
        )
    return rows


def _layer_name(node: fx.Node) -> str:
    """The module's name: by its weight, else by where the op stands."""
    if node.target in ops.WEIGHTED and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr":
        weight = str(node.args[1].target)
        return weight.removesuffix(".weight") if weight.endswith(".weight") else weight
    stack = node.meta.get("nn_module_stack") or {}
    path = [str(name) for name, _ in stack.values()][-1:]
    return (
        ".".join([*filter(None, path), node.name]) if node.target in ops.MATMULS else (path or [node.name])[0]
    )


def _constants(graph: fx.GraphModule, node: fx.Node) -> dict[str, Tensor]:
    """Weights and biases that the node reads, by name."""
    names = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
    return {name: ops.attribute(graph, name) for name in names}


def _kind(graphs: Graphs, node: fx.Node) -> str:
    name = op_name(node)
    if name == "scaled_dot_product_attention":
        return "attention"
    role = graphs.role(node)
    if role != "layer":
        return role
    if node.target in ops.LINEAR:
        return "linear"
    weight = ops.shape_of(node.args[1])
    kind = "transposed convolution" if "transpose" in name else "convolution"
    if kind == "convolution" and weight is not None and weight[1] == 1 and _groups(node) == weight[0] > 1:
        return "depthwise convolution"
    return kind if weight is None or _groups(node) == 1 else f"grouped {kind}"


def _groups(node: fx.Node) -> int:
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    return groups if isinstance(groups, int) and "transpose" not in op_name(node) else 1


def _verdict(graphs: Graphs, node: fx.Node, runtime: str) -> dict[str, Any]:
    verdict = graphs.verdict(node, runtime)
    row: dict[str, Any] = {"integer": verdict.integer, "reason": verdict.reason}
    return row if verdict.integer else row | {"way_out": graphs.way_out(node)}


def _no_channels(node: fx.Node) -> dict[str, Any]:
    own = node.target in ops.WEIGHTED
    reason = "no layer that the prune stage can cut" if own else "no channels of its own"
    return {"cut": False, "channels": None, "with": [], "reason": reason}


# --- the other ops, and what the runtimes lack -----------------------------------------------------------


def _operators(graphs: Graphs) -> list[dict[str, Any]]:
    """Kinds of ops that multiply nothing, the most frequent first; a float one is an island of its own."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for node in graphs.nodes():
        role = graphs.role(node)
        if role in _COUNTED:
            continue
        row = found.setdefault((op_name(node), role), {"op": op_name(node), "role": role, "count": 0})
        row["count"] += 1
        if role in {"integer", "float"}:
            row.update({runtime: _verdict(graphs, node, runtime) for runtime in PREDICTED})
    return sorted(found.values(), key=lambda row: (-row["count"], row["op"]))


def _runtime(graphs: Graphs, layers: list[dict[str, Any]], runtime: str) -> dict[str, Any]:
    """What is lacking, and predicted coverage: integer share of the MACs; None where there is no file."""
    lacks: dict[str, dict[str, Any]] = {}
    for node in graphs.nodes():
        verdict = graphs.verdict(node, runtime)
        if verdict.integer or (graphs.role(node) in {"clamp", "move", "index"} and not verdict.refused):
            continue
        row = lacks.setdefault(op_name(node), {"op": op_name(node), "count": 0})
        row["count"] += 1
        row |= {"reason": verdict.reason, "way_out": graphs.way_out(node), "refused": verdict.refused}
        lacks[op_name(node)] = row
    total = sum(row["macs"] for row in layers)
    integer = sum(row["macs"] for row in layers if row[runtime]["integer"])
    exports = not any(row["refused"] for row in lacks.values())
    return {
        "exports": exports,
        "coverage": (integer / total if total else 0.0) if exports else None,
        "integer_macs": integer,
        "lacks": sorted(lacks.values(), key=lambda row: (not row["refused"], -row["count"])),
    }


# --- sizes -----------------------------------------------------------------------------------------------


def _file_sizes(graphs: Graphs) -> dict[str, int]:
    """Bytes of the constants in a float file and in an int8 one (structure and names come on top).

    int8: quantised weights in one byte an element with a float32 scale for each output channel, their biases
    in int32; everything else as it is.
    """
    graph, floats, integers = graphs.captured, 0, 0
    constants = {
        str(node.target): ops.attribute(graph, str(node.target))
        for node in graph.graph.nodes
        if node.op == "get_attr" and node.users
    }
    small: set[str] = set()
    for node in graph.graph.nodes:
        if node.target in ops.WEIGHTED and graphs.verdict(node, "onnxruntime").integer:
            small.add(str(node.args[1].target))
        elif node.target in ops.RECURRENT:  # also where the kernel widens them
            small.update(str(one.target) for one in matrices(node))
    for name, value in constants.items():
        floats += value.numel() * value.element_size()
        scales = 4 * value.shape[0] if name in small else 0
        integers += value.numel() * (1 if name in small else value.element_size()) + scales
    return {"fp32_bytes": floats, "int8_bytes": integers}


def _arenas(graphs: Graphs, values: dict[str, Any], example: Tensors) -> dict[str, Any]:
    prepared = graph_arena.record(graphs.prepared, example)

    def item_size(node: fx.Node, tensor: Tensor) -> int:
        return 1 if node in graphs.quantized else tensor.element_size()

    return {
        "fp32": graph_arena.measure(graphs.captured, values).describe(),
        "int8": graph_arena.measure(graphs.prepared, prepared, item_size).describe(),
    }


# --- small things ----------------------------------------------------------------------------------------


@contextmanager
def _few_threads(macs: int) -> Iterator[None]:
    """One thread for a small model: hundreds of short runs spend their time waiting for each other else."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if macs < _SMALL_MACS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _port(value: Tensor) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}


def _ports(side: str, tensors: Sequence[tuple[str, Tensor]]) -> dict[str, Any]:
    """One alone as {"input": …}; several by name in {"inputs": …}."""
    if len(tensors) == 1:
        return {side: _port(tensors[0][1])}
    return {f"{side}s": {name: _port(one) for name, one in tensors}}


def _shape(values: dict[str, Any], node: fx.Node) -> list[int] | None:
    value = values.get(node.name)
    if isinstance(value, tuple) and value:
        value = value[0]
    return list(value.shape) if isinstance(value, Tensor) else None
