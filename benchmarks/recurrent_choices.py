"""Ways to compute an LSTM or a GRU in each runtime: the figures behind edgekit's choices (docs/int8.md).

    python benchmarks/recurrent_choices.py

One layer with random weights, one sample, one thread, all ways of a runtime in turns; microseconds, the least
of 60. ONNX Runtime: its float ops, DynamicQuantizeLSTM, and steps spelled one by one, whose inputs are
multiplied all at once and whose states at each step, by integers. LiteRT: steps unrolled, in float and with
int8 weights, as edgekit writes them, and the runtime's own op for a whole LSTM, in float and with int8
weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from provenance import surroundings
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate

SIZES = ((64, 64, 40), (64, 128, 40), (128, 256, 20))  # inputs, hidden units, steps
OUT = Path(__file__).resolve().parent / "results" / "recurrent_choices.json"
ROUNDS, EACH = 12, 5

Array = npt.NDArray[Any]
Run = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = surroundings(("torch", "onnxruntime", "ai-edge-litert", "litert-torch", "onnx", "numpy"))
    rows = []
    for inputs, hidden, steps in SIZES:
        row: dict[str, Any] = {"inputs": inputs, "hidden": hidden, "steps": steps}
        row["onnxruntime"] = in_turns(onnx_ways(inputs, hidden, steps))
        with tempfile.TemporaryDirectory(prefix="edgekit-benchmark-") as folder:
            row["litert"] = in_turns(litert_ways(inputs, hidden, steps, Path(folder)))
        rows.append(row)
        print(json.dumps(row), flush=True)
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return 0


def in_turns(ways: Mapping[str, Run]) -> dict[str, float]:
    """Microseconds of each, the least that was seen."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, run in ways.items():
            run()
            for _ in range(EACH):
                started = time.perf_counter()
                run()
                least[name] = min(least[name], time.perf_counter() - started)
    return {name: round(1e6 * seconds, 1) for name, seconds in least.items()}


def drawn(rows: int, columns: int, seed: int) -> Array:
    """A matrix (rows, columns), float32."""
    values = np.random.default_rng(seed).standard_normal((rows, columns)) / np.sqrt(columns)
    return values.astype(np.float32)


def on_grid(weight: Array) -> tuple[Array, Array]:
    """int8 and the scale of each row."""
    scale = np.abs(weight).max(1) / 127
    return np.rint(weight / scale[:, None]).astype(np.int8), scale.astype(np.float32)


# --- ONNX Runtime ------------------------------------------------------------------------------------------


def onnx_ways(inputs: int, hidden: int, steps: int) -> dict[str, Run]:
    x = np.random.default_rng(2).standard_normal((steps, 1, inputs)).astype(np.float32)
    found = {}
    for kind, gates in (("LSTM", 4), ("GRU", 3)):
        weights = drawn(gates * hidden, inputs, 0), drawn(gates * hidden, hidden, 1)
        settings: dict[str, Any] = {"hidden_size": hidden}
        if kind == "GRU":
            settings["linear_before_reset"] = 1
        plain = {"W": weights[0][None], "R": weights[1][None]}
        found[f"{kind} in float"] = session([(kind, ["x", "W", "R"], ["y"], settings)], plain, x)
        if kind == "LSTM":
            found["DynamicQuantizeLSTM"] = session(*dynamic(weights, hidden), x)
        found[f"{kind}, integer steps"] = session(*spelled(kind, weights, hidden, steps), x)
    return found


def session(
    nodes: Sequence[tuple[str, list[str], list[str], dict[str, Any]]], constants: Any, x: Array
) -> Run:
    """Of nodes (op, inputs, outputs, attributes); "y" is what they give."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    made = [helper.make_node(op, given, results, **settings) for op, given, results, settings in nodes]
    graph = helper.make_graph(
        made,
        "way",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    ready = onnxruntime.InferenceSession(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString(),
        settings,
        providers=["CPUExecutionProvider"],
    )
    return lambda: ready.run(None, {"x": x})


def dynamic(weights: tuple[Array, Array], hidden: int) -> tuple[list[Any], dict[str, Array]]:
    constants: dict[str, Array] = {}
    for name, weight in zip("WR", weights, strict=True):
        integers, scale = on_grid(weight)
        constants |= {name: np.ascontiguousarray(integers.T)[None], f"{name}s": scale[None]}
        constants[f"{name}z"] = np.zeros_like(scale[None], np.int8)
    given = ["x", "W", "R", "", "", "", "", "", "Ws", "Wz", "Rs", "Rz"]
    settings = {"hidden_size": hidden, "domain": "com.microsoft"}
    return [("DynamicQuantizeLSTM", given, ["y"], settings)], constants


def spelled(
    kind: str, weights: tuple[Array, Array], hidden: int, steps: int
) -> tuple[list[Any], dict[str, Array]]:
    """Each state on 1/128, the grid that holds -1 … 1; gates, cells and states in float."""
    own = {"domain": "com.microsoft"}
    constants: dict[str, Array] = {"first": np.zeros((1, hidden), np.float32), "axis": np.array([0])}
    for name, weight in zip("WR", weights, strict=True):
        integers, scale = on_grid(weight)
        constants |= {name: np.ascontiguousarray(integers.T), f"{name}s": scale}
        constants[f"{name}z"] = np.zeros(len(scale), np.int8)
    constants |= {"xs": np.float32(4 / 128), "hs": np.float32(1 / 128), "z": np.uint8(128)}  # type: ignore[dict-item]
    constants |= {"times": np.ones(steps, np.int64), "each": np.full(len(weights[0]) // hidden, hidden)}
    constants |= {"two": np.array([2 * hidden, hidden]), "one": np.array([hidden, hidden])}
    each = [f"x{step}" for step in range(steps)]
    nodes: list[Any] = [
        ("QuantizeLinear", ["x", "xs", "z"], ["xq"], {}),
        ("MatMulIntegerToFloat", ["xq", "W", "xs", "Ws", "z", "Wz"], ["xp"], own),
        ("Split", ["xp", "times"], each, {"axis": 0}),
    ]
    state, cell, states = "first", "first", []
    for t in range(steps):
        nodes += [
            ("Squeeze", [f"x{t}", "axis"], [f"given{t}"], {}),
            ("QuantizeLinear", [state, "hs", "z"], [f"hq{t}"], {}),
            ("MatMulIntegerToFloat", [f"hq{t}", "R", "hs", "Rs", "z", "Rz"], [f"held{t}"], own),
        ]
        if kind == "LSTM":
            nodes += lstm_step(t, cell)
            cell = f"c{t}"
        else:
            nodes += gru_step(t, state)
        state = f"h{t}"
        states.append(state)
    return [*nodes, ("Concat", states, ["y"], {"axis": 0})], constants


def lstm_step(t: int, cell: str) -> list[Any]:
    return [
        ("Add", [f"given{t}", f"held{t}"], [f"g{t}"], {}),
        ("Split", [f"g{t}", "each"], [f"i{t}", f"o{t}", f"f{t}", f"n{t}"], {"axis": 1}),
        *((op, [f"{gate}{t}"], [f"{gate}a{t}"], {}) for op, gate in zip(_GATES, "iofn", strict=True)),
        ("Mul", [f"fa{t}", cell], [f"kept{t}"], {}),
        ("Mul", [f"ia{t}", f"na{t}"], [f"new{t}"], {}),
        ("Add", [f"kept{t}", f"new{t}"], [f"c{t}"], {}),
        ("Tanh", [f"c{t}"], [f"ct{t}"], {}),
        ("Mul", [f"oa{t}", f"ct{t}"], [f"h{t}"], {}),
    ]


_GATES = ("Sigmoid", "Sigmoid", "Sigmoid", "Tanh")


def gru_step(t: int, state: str) -> list[Any]:
    return [
        ("Split", [f"given{t}", "two"], [f"xg{t}", f"xn{t}"], {"axis": 1}),
        ("Split", [f"held{t}", "two"], [f"hg{t}", f"hn{t}"], {"axis": 1}),
        ("Add", [f"xg{t}", f"hg{t}"], [f"g{t}"], {}),
        ("Sigmoid", [f"g{t}"], [f"ga{t}"], {}),
        ("Split", [f"ga{t}", "one"], [f"r{t}", f"u{t}"], {"axis": 1}),
        ("Mul", [f"r{t}", f"hn{t}"], [f"rh{t}"], {}),
        ("Add", [f"rh{t}", f"xn{t}"], [f"n{t}"], {}),
        ("Tanh", [f"n{t}"], [f"na{t}"], {}),
        ("Sub", [state, f"na{t}"], [f"d{t}"], {}),
        ("Mul", [f"u{t}", f"d{t}"], [f"ud{t}"], {}),
        ("Add", [f"na{t}", f"ud{t}"], [f"h{t}"], {}),
    ]


# --- LiteRT ------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """(N, steps, inputs) to (N, steps, hidden)."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], inputs: int, hidden: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.memory, self.head = kind(inputs, hidden, batch_first=True), nn.Linear(hidden, 4)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.memory(x)[0][:, -1])
        return logits


def litert_ways(inputs: int, hidden: int, steps: int, folder: Path) -> dict[str, Run]:
    x = torch.randn(8, steps, inputs, generator=torch.Generator().manual_seed(0))
    found = {}
    for kind in (nn.LSTM, nn.GRU):
        graph = capture(Layer(kind, inputs, hidden), x[:1])
        for precision, source in (("fp32", graph), ("int8", calibrate(graph, [x]))):
            path = folder / f"{kind.__name__}_{precision}.tflite"
            how: Any = {"format": "litert", "precision": precision}
            export(source, x[:1], path, metadata={}, **how)
            found[f"{kind.__name__}, steps in {precision}"] = interpreter(path, x[:1].numpy())
    for name, integer in (("float", False), ("int8 weights", True)):
        path = folder / f"whole_{integer}.tflite"
        path.write_bytes(whole(inputs, hidden, steps, integer=integer))
        found[f"whole LSTM, {name}"] = interpreter(path, x[:1].numpy())
    return found


def interpreter(path: Path, x: Array) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    ready = Interpreter(str(path), num_threads=1)
    ready.allocate_tensors()
    (entry,) = ready.get_input_details()
    ready.set_tensor(entry["index"], x)
    return lambda: ready.invoke()


def whole(inputs: int, hidden: int, steps: int, *, integer: bool) -> bytes:
    """A file of one UNIDIRECTIONAL_SEQUENCE_LSTM; its kernel demands one scale for each matrix."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs, graph.tensors = 3, [schema.BufferT()], [graph], []

    def tensor(shape: tuple[int, ...], values: Array | None = None, scale: float = 0.0) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.hasRank, one.buffer = f"t{len(graph.tensors)}", list(shape), True, 0
        one.type = schema.TensorType.INT8 if scale else schema.TensorType.FLOAT32
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            model.buffers.append(buffer)
            one.buffer = len(model.buffers) - 1
        if scale:
            one.quantization = schema.QuantizationParametersT()
            one.quantization.scale, one.quantization.zeroPoint = [scale], [0]
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    def matrix(columns: int, seed: int) -> int:
        values = drawn(hidden, columns, seed)
        scale = float(np.abs(values).max() / 127) if integer else 0.0
        stored = np.rint(values / scale).astype(np.int8) if integer else values
        return tensor((hidden, columns), stored, scale)

    x = tensor((1, steps, inputs))
    given = [x, *(matrix(inputs, gate) for gate in range(4)), *(matrix(hidden, gate) for gate in range(4))]
    given += [-1] * 3 + [tensor((hidden,), np.zeros(hidden, np.float32)) for _ in range(4)] + [-1] * 2
    for _ in range(2):
        given.append(tensor((1, hidden)))
        graph.tensors[-1].isVariable = True
    code, operator = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    code.version = 3
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    operator.opcodeIndex, operator.inputs = 0, [*given, *[-1] * 4]
    operator.outputs = [tensor((1, steps, hidden))]
    operator.builtinOptions = options
    operator.builtinOptionsType = schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions
    model.operatorCodes, graph.operators = [code], [operator]
    graph.inputs, graph.outputs = [x], operator.outputs
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    raise SystemExit(main())
