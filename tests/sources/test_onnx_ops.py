"""Each op of an ONNX file against ONNX Runtime, alone and for another number of samples than it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.graph.capture import capture
from edgekit.sources.onnx.module import OnnxModel
from edgekit.sources.onnx.nodes import Refused
from edgekit.sources.onnx.reading import parsed

RANDOM = np.random.default_rng(0)


def constant(*shape: int, low: float = -1.0) -> Any:
    return RANDOM.uniform(low, 1.0, shape).astype(np.float32)


def whole(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def made(
    nodes: list[Any],
    constants: dict[str, Any],
    shape: tuple[int, ...] = (4, 8, 8),
    opset: int = 20,
    batch: int | str = "batch",
) -> Any:
    """A model from "x" (N, …) to "y"."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def compared(
    model: Any, shape: tuple[int, ...], samples: int = 3, captured: bool = True
) -> torch.fx.GraphModule | None:
    """Both answers to a batch are the same, and so are those of the captured graph."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ours = OnnxModel(parsed(model, Path("test.onnx")), "").eval()
    x = torch.from_numpy(RANDOM.uniform(-2, 2, (samples, *shape)).astype(np.float32))
    fixed = isinstance(session.get_inputs()[0].shape[0], int)
    rows = x.split(session.get_inputs()[0].shape[0]) if fixed else [x]
    want = np.concatenate([session.run(None, {"x": one.numpy()})[0] for one in rows])
    with torch.no_grad():
        np.testing.assert_allclose(ours(x).numpy(), want, atol=2e-5, rtol=1e-4)
        if not captured:
            return None
        graph = capture(ours, x[:2])
        np.testing.assert_allclose(graph(x).numpy(), want, atol=2e-5, rtol=1e-4)
    return graph


def node(op: str, *inputs: str, out: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, list(inputs), [out], name=f"{op}_{out}", **attributes)


C43 = {"w": constant(6, 4, 3, 3), "b": constant(6)}
ONES: dict[str, tuple[list[Any], dict[str, Any], tuple[int, ...], int]] = {}


def case(
    name: str,
    nodes: list[Any],
    constants: dict[str, Any] | None = None,
    shape: tuple[int, ...] = (4, 8, 8),
    opset: int = 20,
) -> None:
    ONES[name] = (nodes, constants or {}, shape, opset)


case("conv", [node("Conv", "x", "w", "b", strides=[2, 2], pads=[1, 1, 1, 1])], C43)
case("conv one-sided", [node("Conv", "x", "w", strides=[2, 2], pads=[0, 0, 1, 1])], {"w": C43["w"]})
case("conv same", [node("Conv", "x", "w", strides=[2, 2], auto_pad="SAME_UPPER")], {"w": C43["w"]})
case("conv same lower", [node("Conv", "x", "w", auto_pad="SAME_LOWER")], {"w": constant(6, 4, 2, 2)})
case("depthwise", [node("Conv", "x", "w", group=4, dilations=[2, 2])], {"w": constant(4, 1, 3, 3)})
case("conv1d", [node("Conv", "x", "w", pads=[1, 1])], {"w": constant(6, 4, 3)}, (4, 9))
up = {"w": constant(4, 6, 3, 3)}
case("transposed", [node("ConvTranspose", "x", "w", strides=[2, 2], pads=[1, 1, 1, 1])], up)
case("transposed more", [node("ConvTranspose", "x", "w", strides=[2, 2], output_padding=[1, 1])], up)
case("transposed one-sided", [node("ConvTranspose", "x", "w", strides=[2, 2], pads=[0, 0, 1, 1])], up)
case("transposed same", [node("ConvTranspose", "x", "w", strides=[2, 2], auto_pad="SAME_UPPER")], up)
case(
    "gemm", [node("Gemm", "x", "w", "b", transB=1, alpha=0.5)], {"w": constant(5, 7), "b": constant(5)}, (7,)
)
case("gemm plain", [node("Gemm", "x", "w", "b")], {"w": constant(7, 5), "b": constant(1, 5)}, (7,))
case("matmul", [node("MatMul", "x", "w")], {"w": constant(7, 5)}, (3, 7))
case(
    "batch norm",
    [node("BatchNormalization", "x", "s", "b", "m", "v")],
    {"s": constant(4), "b": constant(4), "m": constant(4), "v": constant(4, low=0.1)},
)
case("layer norm", [node("LayerNormalization", "x", "s", "b")], {"s": constant(8), "b": constant(8)})
case("instance norm", [node("InstanceNormalization", "x", "s", "b")], {"s": constant(4), "b": constant(4)})
case(
    "group norm",
    [node("GroupNormalization", "x", "s", "b", num_groups=2)],
    {"s": constant(4), "b": constant(4)},
    opset=21,
)
case("lp norm", [node("LpNormalization", "x", axis=1, p=2)])
case("max pool", [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])])
case("max pool one-sided", [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])])
case("max pool ceil", [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)])
case("average", [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2])])
case(
    "average counted", [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)]
)
case("average one-sided", [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])])
case("global average", [node("GlobalAveragePool", "x")])
case("global maximum", [node("GlobalMaxPool", "x")])
case("lrn", [node("LRN", "x", size=3)])
for name in (
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Exp",
    "Abs",
    "Neg",
    "HardSwish",
    "Mish",
    "Softplus",
    "Softsign",
):
    case(name, [node(name, "x")])
for name in ("LeakyRelu", "Elu", "Selu", "HardSigmoid", "Softmax", "LogSoftmax", "Gelu"):
    case(name, [node(name, "x")])
case("gelu tanh", [node("Gelu", "x", approximate="tanh")])
case("hard sigmoid of torch", [node("HardSigmoid", "x", alpha=1 / 6)])
case("softmax as it was", [node("Softmax", "x", axis=1)], opset=11)
case("prelu", [node("PRelu", "x", "s")], {"s": constant(4, 1, 1)})
case("clip", [node("Clip", "x", "low", "high")], {"low": np.float32(0), "high": np.float32(6)})
case("clip as it was", [node("Clip", "x", min=-0.5, max=0.5)], opset=9)
case("min", [node("Min", "x", "m")], {"m": np.float32(0.3)})
case("square", [node("Pow", "x", "p")], {"p": np.float32(2)})
case("means", [node("ReduceMean", "x", "axes", keepdims=0)], {"axes": whole(2, 3)})
case("means as they were", [node("ReduceMean", "x", axes=[-1])], opset=13)
case("sums", [node("ReduceSum", "x", "axes", keepdims=0)], {"axes": whole(1)})
case("l2", [node("ReduceL2", "x", "axes")], {"axes": whole(1)})
case("reshape", [node("Reshape", "x", "to")], {"to": whole(0, 2, -1)})
case("flatten", [node("Flatten", "x", axis=1)])
case("transpose", [node("Transpose", "x", perm=[0, 2, 3, 1])])
case("squeeze", [node("Unsqueeze", "x", "axes", out="u"), node("Squeeze", "u", "axes")], {"axes": whole(2)})
case("slices", [node("Slice", "x", "from", "to", "axes", "by")],
     {"from": whole(1, 0), "to": whole(7, 2**62), "axes": whole(2, 3), "by": whole(2, 2)})  # fmt: skip
case("slice backwards", [node("Slice", "x", "from", "to", "axes", "by")],
     {"from": whole(-1), "to": whole(-(2**62)), "axes": whole(1), "by": whole(-1)})  # fmt: skip
case("slice as it was", [node("Slice", "x", starts=[1], ends=[3], axes=[1])], opset=9)
case("gather one", [node("Gather", "x", "i", axis=1)], {"i": np.array(2, dtype=np.int64)})
case("gather some", [node("Gather", "x", "i", axis=1)], {"i": whole(3, -4, 1)})
case("pad", [node("Pad", "x", "by")], {"by": whole(0, 0, 1, 2, 0, 0, 0, 1)})
case("pad mirrored", [node("Pad", "x", "by", mode="reflect")], {"by": whole(0, 0, 1, 2, 0, 0, 0, 1)})
case("tile", [node("Tile", "x", "by")], {"by": whole(1, 2, 1, 1)})
case("depth to space", [node("DepthToSpace", "x", blocksize=2)])
case("depth to space CRD", [node("DepthToSpace", "x", blocksize=2, mode="CRD")])
case("space to depth", [node("SpaceToDepth", "x", blocksize=2)])
case("doubled", [node("Resize", "x", "", "by", mode="nearest")], {"by": np.float32([1, 1, 2, 2])})
case("floor", [node("Resize", "x", "", "by", mode="nearest", nearest_mode="floor",
     coordinate_transformation_mode="asymmetric")], {"by": np.float32([1, 1, 3, 3])})  # fmt: skip
twice = {"by": np.float32([1, 1, 2, 2])}
case("bilinear", [node("Resize", "x", "", "by", mode="linear")], twice)
corners = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
case("corners", [node("Resize", "x", "", "by", **corners)], twice)
case("split", [helper.make_node("Split", ["x"], ["a", "c"], axis=1, num_outputs=2), node("Mul", "a", "c")])
case("einsum", [node("Einsum", "x", "w", equation="bchw,cd->bdhw")], {"w": constant(4, 3)})
case("trilu", [node("Trilu", "x", upper=0)])
recurrent = {"w": constant(1, 20, 8), "r": constant(1, 20, 5), "b": constant(1, 40)}
for op, gates, more in (("LSTM", 4, {}), ("GRU", 3, {"linear_before_reset": 1})):
    held = {"w": constant(1, gates * 5, 8), "r": constant(1, gates * 5, 5), "b": constant(1, gates * 10)}
    rows = [
        node("Transpose", "x", out="t", perm=[1, 0, 2]),
        node(op, "t", "w", "r", "b", out="s", hidden_size=5, **more),
    ]
    case(op, [*rows, node("Squeeze", "s", "one", out="q"), node("Transpose", "q", perm=[1, 0, 2])],
         {**held, "one": whole(1)}, (6, 8))  # fmt: skip


one_sided = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}
case("max pool one-sided ceil", [node("MaxPool", "x", **one_sided)])
case("max pool one-sided ceil, odd", [node("MaxPool", "x", **one_sided)], shape=(4, 7, 9))
case("max pool ceil to the begin", [node("MaxPool", "x", **one_sided | {"pads": [1, 1, 0, 0]})])
case("average one-sided ceil", [node("AveragePool", "x", **one_sided)], shape=(4, 7, 9))
case("prelu of columns", [node("PRelu", "x", "s")], {"s": constant(4)}, (4, 4, 4))
case("prelu of a row", [node("PRelu", "x", "s")], {"s": constant(5)}, (5,))
case("prelu of all", [node("PRelu", "x", "s")], {"s": constant(1)})
three = {"a": np.float32([1, 2]), "c": np.float32([2, 1]), "e": np.float32([0.5, 3])}
for name in ("Min", "Max"):
    case(
        f"{name} of three constants", [node(name, "a", "c", "e", out="m"), node("Mul", "x", "m")], three, (2,)
    )
for mode in ("half_pixel", "pytorch_half_pixel"):
    half = node("Resize", "x", "", "by", mode="linear", coordinate_transformation_mode=mode)
    case(f"one and a half, {mode}", [half], {"by": np.float32([1, 1, 1.5, 0.5])})
case(
    "corners of any factor", [node("Resize", "x", "", "by", **corners)], {"by": np.float32([1, 1, 1.3, 0.7])}
)
case("corners, cut off in single precision", [node("Resize", "x", "", "by", **corners)],
     {"by": np.float32([1, 1, 1.3, 1.3])}, (4, 10, 10))  # fmt: skip
case("nearest of halves", [node("Resize", "x", "", "by", mode="nearest",
     coordinate_transformation_mode="asymmetric")], twice)  # fmt: skip
case("gather a table from behind", [node("Gather", "x", "i", axis=2)], {"i": np.array([[0, -1], [-3, 2]])})
case("gather elements from behind", [node("GatherElements", "x", "i", axis=2)],
     {"i": RANDOM.integers(-8, 8, (3, 4, 5, 8))})  # fmt: skip
case("flat constants", [node("Flatten", "k", axis=2, out="f"), node("MatMul", "x", "f")],
     {"k": constant(2, 2, 3, 1)}, (4,))  # fmt: skip
small = {"k": constant(1, 3)}
case("tiled constants", [node("Tile", "k", "by", out="t"), node("Mul", "x", "t")],
     small | {"by": whole(1, 2)}, (6,))  # fmt: skip
case("padded constants", [node("Pad", "k", "by", out="t"), node("Mul", "x", "t")],
     small | {"by": whole(0, 1, 0, 2)}, (6,))  # fmt: skip
case("resized constants", [node("Resize", "p", "", "by", out="t"), node("Mul", "x", "t")],
     {"p": constant(1, 1, 4, 4), "by": np.float32([1, 1, 2, 2])})  # fmt: skip

CAPTURED = ("conv one-sided", "average one-sided", "slices", "gather some", "depth to space", "LSTM", "GRU")


@pytest.mark.parametrize("name", ONES)
def test_an_op_computes_what_onnx_runtime_computes(name: str) -> None:
    nodes, constants, shape, opset = ONES[name]
    compared(made(nodes, constants, shape, opset), shape, captured=name in CAPTURED)


def test_sizes_that_are_computed_from_the_input() -> None:
    """As exporters write ``x.reshape(len(x), -1, 4)``, and a token that is repeated for each sample."""
    nodes = [
        node("Shape", "x", out="s"),
        node("Gather", "s", "zero", out="n"),
        node("Unsqueeze", "n", "first", out="u"),
        helper.make_node("Concat", ["u", "rest"], ["to"], axis=0),
        node("Reshape", "x", "to", out="r"),
        helper.make_node("Concat", ["u", "one", "four"], ["of"], axis=0),
        node("Expand", "token", "of", out="e"),
        helper.make_node("Concat", ["e", "r"], ["y"], axis=1),
    ]
    constants = {
        "zero": np.array(0, dtype=np.int64),
        "first": whole(0),
        "rest": whole(-1, 4),
        "one": whole(1),
        "four": whole(4),
        "token": constant(1, 1, 4),
    }
    compared(made(nodes, constants, (8, 8)), (8, 8))


def test_a_file_for_one_sample_becomes_one_for_any() -> None:
    nodes = [
        node("Reshape", "x", "to", out="r"),
        helper.make_node("Concat", ["token", "r"], ["c"], axis=1),
        node("Reshape", "c", "windows", out="w"),
        node("Softmax", "w", axis=-1, out="s"),
        node("Reshape", "s", "back"),
    ]
    constants = {
        "to": whole(1, 15, 4),
        "token": constant(1, 1, 4),
        "windows": whole(4, 4, 4),
        "back": whole(1, -1),
    }
    compared(made(nodes, constants, (60,), batch=1), (60,))


def written_out_norm(squared: tuple[Any, ...], factor: int, **more: Any) -> torch.fx.GraphModule:
    """A layer norm in pieces, of which the graph that is read is compared with the file."""
    nodes = [
        node("ReduceMean", "x", axes=[-1], out="m"),
        node("Sub", "x", "m", out="d"),
        node(*squared, out="p"),
        node("ReduceMean", "p", axes=[-1], out="v"),
        node("Add", "v", "tiny", out="e"),
        node("Sqrt", "e", out="r"),
        node("Div", "d", "r", out="n"),
        node("Mul", "n", "w", out="s"),
        node("Add", "s", "b"),
    ]
    constants = {"tiny": np.float32(1e-5), "w": constant(factor), "b": constant(8), **more}
    graph = compared(made(nodes, constants, opset=13), (4, 8, 8))
    assert graph is not None
    return graph


def test_a_layer_norm_that_is_written_out_is_one_op() -> None:
    graph = written_out_norm(("Pow", "d", "two"), 8, two=np.float32(2))
    called = [str(one.target) for one in graph.graph.nodes if one.op == "call_function"]
    assert called == ["aten.layer_norm.default"]


def test_a_layer_norm_with_one_factor_for_all_stays_written_out() -> None:
    graph = written_out_norm(("Mul", "d", "d"), 1)
    assert "aten.layer_norm.default" not in [str(one.target) for one in graph.graph.nodes]


def test_an_input_may_be_called_like_a_word_of_python() -> None:
    model = made([node("Relu", "in")], {})
    model.graph.input[0].name = "in"
    ours = OnnxModel(parsed(model, Path("test.onnx")), "")
    assert ours.file_names == {"input": "in", "output": "y"}
    x = torch.randn(3, 4, 8, 8)
    assert torch.equal(capture(ours, x[:2])(x), x.relu())


def test_layers_are_called_as_the_file_calls_them() -> None:
    nodes = [
        node("Conv", "x", "stem.conv.weight", out="a"),
        helper.make_node("Relu", ["a"], ["r"], name="/stem/stem.act/Relu"),
        helper.make_node("Conv", ["r", "onnx::Conv_7"], ["y"], name="/body/body.0/conv/Conv"),
    ]
    constants = {"stem.conv.weight": constant(6, 4, 3, 3), "onnx::Conv_7": constant(2, 6, 1, 1)}
    model = OnnxModel(parsed(made(nodes, constants), Path("test.onnx")), "")
    layers = [step.layer for step in model.steps]
    assert layers == ["stem.conv", "stem.act.Relu", "body.0.conv"]


@pytest.mark.parametrize(
    ("nodes", "constants", "told"),
    [
        ([node("Resize", "x", "", "by", mode="cubic")], {"by": np.float32([1, 1, 2, 2])}, "cubic resize"),
        ([node("Reshape", "x", "n")], {}, "depend on the values of an input"),
        ([node("ConstantOfShape", "huge", out="z"), node("Add", "x", "z")], {"huge": whole(1 << 40)}, "1,09"),
        ([node("Expand", "one", "huge", out="z"), node("Add", "x", "z")],
         {"one": np.float32([1]), "huge": whole(1 << 20, 1 << 20)}, "numbers that"),
        ([node("Resize", "x", "", "by", mode="linear")], {"by": np.float32([1, 1, 1.3, 1.3])}, "8 by 1.3"),
        ([node("Slice", "x", "a", "c", "d", out="s"), node("Resize", "s", "", "by", mode="linear")],
         {"a": whole(0), "c": whole(7), "d": whole(3), "by": np.float32([1, 1, 1, 0.5])}, "7 by 0.5"),
        ([node("Resize", "x", "", "by", mode="linear", coordinate_transformation_mode="pytorch_half_pixel")],
         {"by": np.float32([1, 1, 0.125, 1])}, "to a size of 1"),
        ([node("Resize", "x", "", "by", mode="nearest", coordinate_transformation_mode="asymmetric",
               nearest_mode="round_prefer_ceil")], twice, "asymmetric, round_prefer_ceil"),
        ([node("ArgMax", "x", axis=1, select_last_index=1)], {"unused": whole(0)}, "select_last_index"),
        ([node("Pow", "two", "less", out="p"), node("Cast", "p", out="q", to=1), node("Mul", "x", "q")],
         {"two": whole(2), "less": whole(-1)}, "Pow 'Pow_p': .*negative integer powers"),
        ([*(node("Concat", f"k{n}", f"k{n}", out=f"k{n + 1}", axis=0) for n in range(40)),
          node("ReduceMean", "k40", keepdims=0, out="m"), node("Mul", "x", "m")],
         {"k0": constant(64)}, "Concat 'Concat_k17': 8,388,608 numbers"),
        ([node("Shape", "x", out="k0"),
          *(node("Concat", f"k{n}", f"k{n}", out=f"k{n + 1}", axis=0) for n in range(40)),
          node("Cast", "k40", out="c", to=1), node("ReduceMean", "c", keepdims=0, out="m"),
          node("Mul", "x", "m")], {"unused": whole(0)}, "Concat 'Concat_k21': 8,388,608 numbers"),
        ([node("ConstantOfShape", "tall", out="a"), node("ConstantOfShape", "wide", out="c"),
          node("Add", "a", "c", out="s"), node("ReduceMean", "s", keepdims=0, out="m"),
          node("Mul", "x", "m")],
         {"tall": whole(1 << 20, 1), "wide": whole(1, 1 << 20)}, "Add 'Add_s': 1,099,511,627,776 numbers"),
        ([node("Tile", "one", "many", out="t"), node("ReduceMean", "t", keepdims=0, out="m"),
          node("Mul", "x", "m")],
         {"one": constant(64), "many": whole(1 << 40)}, "Tile 'Tile_t': 70,368,744,177,664 numbers"),
    ],
    ids=["cubic", "data-dependent", "huge", "huge-expand", "1.3", "half of seven", "to one", "ceil", "last",
         "power", "doubled", "sizes", "broadcast", "tiled"],
)  # fmt: skip
def test_what_cannot_be_computed_is_told_with_its_node(
    nodes: list[Any], constants: dict[str, Any], told: str
) -> None:
    if not constants:
        nodes = [node("Cast", "x", out="n", to=TensorProto.INT64), *nodes]
    with pytest.raises(Refused, match=told) as caught:
        OnnxModel(parsed(made(nodes, constants), Path("test.onnx")), "").try_out()
    assert f"{nodes[0 if constants else 1].name}" in str(caught.value) or constants
