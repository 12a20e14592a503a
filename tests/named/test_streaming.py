"""Models whose outputs are inputs of the next step."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit import Classification, TokenClassification, Workload
from edgekit.bench.worker import Worker
from edgekit.errors import DataError, WorkloadError
from edgekit.execution import call
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import Streamed, calibrate
from edgekit.noise import Noise
from edgekit.tensors import Sequences, to_numpy
from edgekit.training import evaluate
from tests.named import nets
from tests.spelling import backend_for

STATES = {"h_out": "h_in"}


def workload(model: nn.Module | None = None, task: Any = None, inputs: Any = None, **more: Any) -> Workload:
    given = {"frame": nets.frames(32, 1)} if inputs is None else inputs
    settings = {"states": STATES, **more}
    data = (given, None)
    return Workload("spotter", model or nets.spotter(), task or Classification(4), data, data, **settings)


def looped(model: nn.Module, frames: Tensor) -> list[Tensor]:
    """The scores after each step, by the plainest loop."""
    state, told = torch.zeros(len(frames), 24), []
    with torch.no_grad():
        for step in range(frames.shape[1]):
            found = model(frames[:, step], state)
            state = found["h_out"]
            told.append(found["scores"])
    return told


class TestWorkload:
    def test_states_are_zero_at_the_start_and_of_the_shape_that_the_model_gives(self) -> None:
        made = workload()
        made.check()
        whole, step = made.whole(4), made.example(4)
        assert isinstance(whole, Sequences)
        assert whole["h_in"].shape == (4, 24)
        assert not whole["h_in"].any()
        assert step["frame"].shape == (4, 10)

    def test_the_last_step_counts(self) -> None:
        made = workload()
        expected = looped(made.model, nets.frames(32, 1))[-1]
        assert torch.allclose(evaluate(made.model, made).outputs, expected)

    def test_every_step_counts_where_every_step_has_a_label(self) -> None:
        made = workload(task=TokenClassification(4))
        made.check()
        expected = torch.stack(looped(made.model, nets.frames(32, 1)), 1)
        assert torch.allclose(evaluate(made.model, made).outputs, expected)

    def test_a_state_may_begin_otherwise(self) -> None:
        start = torch.randn(32, 24)
        made = workload(inputs={"frame": nets.frames(32, 1, steps=1), "h_in": start})
        with torch.no_grad():
            expected = made.model(nets.frames(32, 1, steps=1)[:, 0], start)["scores"]
        assert torch.allclose(evaluate(made.model, made).outputs, expected)

    @pytest.mark.parametrize(
        ("more", "error", "text"),
        [
            ({"states": ["h_out"]}, WorkloadError, "which output is which input"),
            ({"states": {"h_out": "h_in", "scores": "h_in"}}, WorkloadError, "which output is which input"),
            ({"states": {"state": "h_in"}}, WorkloadError, "what shape a state has"),
            ({"inputs": {"frame": torch.zeros(8)}}, DataError, "needs sequences"),
            ({"inputs": nets.frames(8, 1)}, DataError, "needs its inputs by name"),
        ],
    )
    def test_mistakes_are_told_before_any_work(self, more: Any, error: type[Exception], text: str) -> None:
        with pytest.raises(error, match=text):
            workload(**more).check()

    def test_a_state_that_comes_out_otherwise_is_told(self) -> None:
        class Growing(nets.Spotter):
            def forward(self, frame: Tensor, h_in: Tensor | None = None) -> dict[str, Tensor]:
                found = super().forward(frame, h_in)
                return {**found, "h_out": found["h_out"][:, :12]}

        given = {"frame": nets.frames(8, 1), "h_in": torch.zeros(8, 24)}
        with pytest.raises(WorkloadError, match=r"h_out \(4, 12\)"):
            workload(Growing().eval(), inputs=given).check()


@pytest.fixture(scope="module")
def int8() -> Any:
    """The int8 graph of a step, calibrated over whole sequences."""
    made = workload()
    sequences = made.whole(32)
    assert isinstance(sequences, Sequences)

    def draw() -> Any:
        with torch.no_grad():
            for given, _ in sequences.walk(lambda step: call(made.model, step)):
                yield given

    return calibrate(capture(made.model, made.example(1)), Streamed(draw))


def served(*requests: dict[str, Any]) -> list[dict[str, Any]]:
    """What a worker answers."""
    out = io.StringIO()
    Worker(out).serve([json.dumps(one).encode() for one in requests])
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    return [one for one in told if "done" not in one]


@pytest.mark.parametrize("stacked", [False, True], ids=["last", "all"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_a_file_gives_over_a_sequence_what_the_graph_gives(
    format: str, precision: str, stacked: bool, int8: Any, tmp_path: Path
) -> None:
    made = workload()
    path = tmp_path / f"step{FORMATS[format].suffix}"
    graph = int8 if precision == "int8" else made.model
    export(graph, made.example(1), path, format=format, precision=precision, metadata={})
    np.save(tmp_path / "inputs.npy", to_numpy(made.whole(8)))
    load: dict[str, Any] = {
        "do": "load",
        "runtime": FORMATS[format].runtime,
        "artifact": str(path),
        "threads": 1,
    }
    if format == "onnx" and precision == "int8":
        load["backend"] = backend_for(path)
    answers = served(
        load,
        {
            "do": "evaluate",
            "inputs": str(tmp_path / "inputs.npy"),
            "outputs": str(tmp_path / "outputs.npy"),
            "batch": 4,
            "states": STATES,
            "stacked": stacked,
        },
    )
    assert not any("error" in one for one in answers), answers
    told = looped_by(graph, made.whole(8))
    wanted = torch.stack(told, 1) if stacked else told[-1]
    noise = Noise(axis=None)
    noise.add(wanted, torch.from_numpy(np.load(tmp_path / "outputs.npy")))
    assert noise.db > (35 if precision == "int8" else 90)


def looped_by(graph: Any, sequences: Sequences) -> list[Tensor]:
    """The same loop, through an int8 graph."""
    with torch.no_grad():
        return [told["scores"] for _, told in sequences.walk(lambda step: call(graph, step))]


def test_int8_keeps_the_state_over_the_steps(int8: Any) -> None:
    made = workload()
    noise = Noise(axis=None)
    noise.add(looped(made.model, nets.frames(32, 1))[-1], looped_by(int8, made.whole(32))[-1])
    assert noise.db > 20


@pytest.mark.parametrize(
    ("states", "text"), [({"h": "h_in"}, "no output h"), ({"h_out": "state"}, "expected streams and state")]
)
def test_states_that_a_file_does_not_have_are_refused(
    states: dict[str, str], text: str, tmp_path: Path
) -> None:
    made = workload()
    export(made.model, made.example(1), tmp_path / "x.onnx", format="onnx", precision="fp32", metadata={})
    np.save(tmp_path / "inputs.npy", to_numpy(made.whole(2)))
    paths = {"inputs": str(tmp_path / "inputs.npy"), "outputs": str(tmp_path / "outputs.npy")}
    _, answer = served(
        {"do": "load", "runtime": "onnxruntime", "artifact": str(tmp_path / "x.onnx"), "threads": 1},
        {"do": "evaluate", **paths, "batch": 4, "states": states},
    )
    assert text in answer["error"]
