"""The one place that asks the int8 packages what they will do with a graph. Nothing is calibrated.

The graph is captured as every stage captures it, rewritten as for int8, and annotated by edgekit's placement
policy; ``rules`` adds what the runtimes lack.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch import Tensor, fx, nn

from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.graph.depthwise import MOST_TAPS, is_large_depthwise
from edgekit.int8.lower import lower
from edgekit.int8.placement import KEY, EdgeQuantizer
from edgekit.int8.recurrent import matrices
from edgekit.int8.rules import PREDICTED, rule_of
from edgekit.tensors import Tensors

__all__ = ["Graphs", "Role", "Verdict", "op_name"]

Role = Literal["layer", "matmul", "recurrent", "integer", "clamp", "move", "float", "index"]

_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
_PRODUCTS = {"scaled_dot_product_attention", "einsum", "baddbmm", "addmm", "mm", "addbmm", "bilinear"}
_PLAIN = {"getitem", "zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "arange"}
_LARGE_DEPTHWISE = f"depthwise, more than {MOST_TAPS} taps: XNNPACK is faster on parts of it, in float"
_COMPUTED = "its weight is computed in the model, not a parameter"
_WAY_OUT = "spell it with conv, linear or matmul, or leave it in float"


@dataclass(frozen=True)
class Verdict:
    """What is predicted for one op in one runtime; ``reason`` says why not ``integer``."""

    integer: bool
    reason: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Graphs:
    """``captured`` has the ops as the model spells them, ``prepared`` those that are quantised.

    ``problem`` says why the int8 path ends before it begins ("" if it doesn't): then nothing is integer.
    """

    captured: fx.GraphModule
    prepared: fx.GraphModule
    problem: str = ""

    @classmethod
    def of(cls, model: nn.Module, example: Tensors) -> Graphs:
        """Capture and prepare. ``example``: (N, …). Raises CaptureError."""
        captured = capture(model, example)
        try:
            prepared = lower(copy.deepcopy(captured))
            EdgeQuantizer().annotate(prepared)
        except Exception as error:  # what the qat stage would stumble over, too
            lines = str(error).strip().splitlines() or [""]
            return cls(captured, captured, f"can't be prepared for int8: {type(error).__name__}: {lines[0]}")
        return cls(captured, prepared)

    def nodes(self) -> Iterator[fx.Node]:
        """The ops of ``captured`` that a runtime will execute: not what is dead, or computed beforehand."""
        for node in self.captured.graph.nodes:
            if node.op == "call_function" and node.users and not ops.is_constant(node):
                yield node

    @cached_property
    def quantized(self) -> set[fx.Node]:
        """Nodes of ``prepared`` whose values will be int8 in the file."""
        found: set[fx.Node] = set()
        for node in self.prepared.graph.nodes:
            annotation = node.meta.get(KEY)
            if annotation is None:
                continue
            if annotation.output_qspec is not None:
                found.add(node)
            found.update(source for source in annotation.input_qspec_map if source.op != "get_attr")
        for node in self.prepared.graph.nodes:  # what a clamp finishes never stands in memory as float
            clamps = [user for user in node.users if user.target in ops.CLAMPS and user in found]
            if clamps and len(clamps) == len(node.users):
                found.add(node)
        return found

    @cached_property
    def _prepared_by_name(self) -> dict[str, fx.Node]:
        return {node.name: node for node in self.prepared.graph.nodes}

    def role(self, node: fx.Node) -> Role:
        """What a node of ``captured`` is."""
        if not _makes_floats(node) or op_name(node) in _PLAIN:
            return "index"
        if node.target in ops.WEIGHTED or op_name(node) in {"conv3d", "conv_transpose3d"}:
            return "layer"
        if node.target in ops.MATMULS or op_name(node) in _PRODUCTS:
            return "matmul"
        if op_name(node) in _RECURRENT:
            return "recurrent"
        if node.target in ops.CLAMPS:
            return "clamp"
        if node.target in ops.MOVES:
            return "move"
        integer = any(self.verdict(node, runtime).integer for runtime in PREDICTED)
        return "integer" if integer else "float"

    def verdict(self, node: fx.Node, runtime: str) -> Verdict:
        """Whether a node of ``captured`` is predicted to compute on integers in a runtime."""
        rule = rule_of(op_name(node))
        if rule is not None and (reason := rule.reason(runtime)):
            return Verdict(False, reason, rule.refused_by(runtime))
        reason = self.problem or self._reason_against(node)
        if not reason and runtime == "litert" and is_large_depthwise(node):
            reason = _LARGE_DEPTHWISE
        return Verdict(not reason, reason)

    def way_out(self, node: fx.Node) -> str:
        """What one can do about an op that isn't integer everywhere."""
        rule = rule_of(op_name(node))
        return rule.way_out if rule else _WAY_OUT

    def _reason_against(self, node: fx.Node) -> str:
        """Why the placement policy leaves this node in float; "" if it doesn't."""
        twin = self._prepared_by_name.get(node.name)
        if twin is None or twin.target is not node.target or not twin.users:
            return ""  # rewritten for int8 into ops that compute on integers
        if node.target in ops.WEIGHTED:
            if KEY in twin.meta and any(s.op == "get_attr" for s in twin.meta[KEY].input_qspec_map):
                return ""
            return _COMPUTED
        if node.target in ops.RECURRENT:
            return "" if all(one.op == "get_attr" for one in matrices(twin)) else _COMPUTED
        return "" if twin in self.quantized else "edgekit has no integer form for it"


def op_name(node: fx.Node) -> str:
    """ATen name without namespace and overload: "conv2d", "layer_norm"; of Python functions their own."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def _makes_floats(node: fx.Node) -> bool:
    """Whether one of the node's results is a float tensor; its shape and index arithmetic isn't."""
    value: Any = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else [value]
    return any(isinstance(each, Tensor) and each.is_floating_point() for each in values)
