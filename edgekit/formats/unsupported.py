"""A converter's refusal in one message: which layer, which op, and what else could be done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import fx

from edgekit.errors import ExportError
from edgekit.graph.ops import is_constant

# How torch's ONNX exporter and litert-torch name an op that they have no conversion for.
_MISSING = (
    re.compile(r"No ONNX function found for <OpOverload\(op='(?:\w+)\.(\w+)'"),
    re.compile(r"Lowering not found: (?:\w+)\.(\w+)"),
    re.compile(r"[Ff]ailed to legalize operation '([\w.]+)'"),
    re.compile(r"'tfl\.(\w+)' op (?:operand|result) #\d+ must be"),  # the op is known, not with these types
)
# The op is known, and so are its types, but not together: a number that is added to an int16 tensor which
# something else reads as well.
_UNFIT = re.compile(r"'tfl\.(\w+)' op failed to verify")


def explained(
    error: Exception, graph: fx.GraphModule, format: str, title: str, file: str, precision: str = ""
) -> ExportError:
    """What to raise for ``error``, which a converter raised over ``graph``.

    ``format``, ``title``: what recipes and people call the format.
    """
    away = f"leave {format} out of exports.formats to get the other files"
    op = missing_op(error)
    if op is None and (unfit := next((f[1] for e in _chain(error) if (f := _UNFIT.search(str(e)))), "")):
        layers = _with_numbers(graph, unfit) or layers_of(graph, unfit)
        return ExportError(
            f"the {title} converter refuses an {unfit!r}" + (f" in {precision}" if precision else ""),
            where=f"{file}: layer {layers[0]!r}" if layers else file,
            got=_first_line(error),
            next=f"compute the same with other ops in that forward(), export another precision, or {away}",
        )
    if op is None:
        return ExportError(
            f"{title} export failed",
            where=file,
            got=f"{type(error).__name__}: {_first_line(error)}",
            next=away,
        )
    layers = layers_of(graph, op)
    return ExportError(
        f"the {title} converter has no {op!r}" + (f" in {precision}" if precision else ""),
        where=f"{file}: layer {layers[0]!r}" if layers else file,
        got=op + (f", also in {', '.join(layers[1:4])}" if layers[1:] else ""),
        expected=f"ops that {title} has" + (f" in {precision}" if precision else ""),
        next=f"compute the same with other ops in that forward(), export another precision, or {away}",
    )


def missing_op(error: BaseException) -> str | None:
    """The op that a converter lacks, without its namespace; None if the error is about something else."""
    for link in _chain(error):
        for pattern in _MISSING:
            if found := pattern.search(str(link)):
                return found[1]
    return None


def layers_of(graph: fx.GraphModule, op: str) -> list[str]:
    """Dotted names of the modules whose forward() calls an op, or the node's name outside of any."""
    return _layers(_calls(graph, op))


def _calls(graph: fx.GraphModule, op: str) -> list[fx.Node]:
    def named(node: fx.Node) -> bool:
        return op.replace("_", "") in str(node.target).replace("_", "")

    return [node for node in graph.graph.nodes if node.op == "call_function" and named(node)]


def _layers(nodes: Iterable[fx.Node]) -> list[str]:
    found = []
    for node in nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]) if stack else ""
        found.append(path.removeprefix("L['self'].") or node.name)
    return list(dict.fromkeys(found))


def _with_numbers(graph: fx.GraphModule, op: str) -> list[str]:
    """``layers_of``, those alone in which a constant is an operand."""
    return _layers(node for node in _calls(graph, op) if any(map(is_constant, node.all_input_nodes)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _first_line(error: BaseException) -> str:
    """The first line that says something: of the error at the bottom of the chain."""
    deepest = list(_chain(error))[-1]
    for link in (deepest, error):
        for line in str(link).splitlines():
            if line.strip():
                return line.strip()
    return ""
