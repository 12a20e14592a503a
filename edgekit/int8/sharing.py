"""Layers that are used in several places (siamese branches, heads over several scales, ALBERT): one weight,
one pair of quantisers, which every place reads.
"""

from __future__ import annotations

from torch import fx

from edgekit.graph import ops

__all__ = ["share_weight_pairs"]


def share_weight_pairs(graph: fx.GraphModule) -> int:
    """Let all layers that read a weight read its quantised form, in place.

    NNCF puts the pair behind the first reader of a weight that it comes across; the others would multiply
    with the float weight, in float.

    Returns:
        How many layers there were.
    """
    changed = 0
    for weight in [node for node in graph.graph.nodes if node.op == "get_attr"]:
        pairs = [user for user in weight.users if user.target is ops.qd.quantize_per_channel.default]
        plain = [user for user in weight.users if user.target in ops.WEIGHTED and user.args[1] is weight]
        if len(pairs) != 1 or not plain:
            continue
        (quantize,) = pairs
        back = next(user for user in quantize.users if user.target in ops.DEQUANTIZE)
        _put_first(weight, quantize, back)
        for layer in plain:
            layer.update_arg(1, back)
            changed += 1
    if changed:
        graph.graph.lint()
        graph.recompile()
    return changed


def _put_first(weight: fx.Node, quantize: fx.Node, back: fx.Node) -> None:
    """In front of all that read them: the pair and its grid right behind the weight."""
    place = weight
    constants = [one for one in dict.fromkeys([*quantize.args, *back.args]) if isinstance(one, fx.Node)]
    for node in [*(one for one in constants if one.op == "get_attr" and one is not weight), quantize, back]:
        place.append(node)
        place = node
