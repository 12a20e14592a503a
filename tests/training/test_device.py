"""Training on a GPU, and in float16, whose gradients need a scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, fx, nn

from edgekit.config.settings import TrainingConfig
from edgekit.errors import StageError
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.trainable import trainable
from edgekit.progress import Event
from edgekit.training import TrainingHistory
from edgekit.training.computing.device import CPU, idle_gpu, place, training_device
from edgekit.training.steps.descent import Descent
from tests.training.small import Killed, config, identical, kill_in, run, small, workload

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


def learn(model: nn.Module, folder: Path, settings: TrainingConfig, **more: Any) -> TrainingHistory:
    folder.mkdir(exist_ok=True)
    return run(model, folder, settings, **more)


@WITHOUT_GPU
def test_a_gpu_that_is_not_there_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no GPU to train on") as caught:
        learn(small(), tmp_path, config(device="cuda"))
    assert 'set training.device to "cpu"' in str(caught.value)
    assert training_device(config(), "prune") == CPU


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ([config()], True),
        ([config(), config(device="cuda")], False),
        ([config(epochs=0), config(device="cuda")], False),
        ([config(epochs=0)], False),
        ([], False),
    ],
)
def test_a_gpu_that_is_left_alone_is_told(
    settings: list[TrainingConfig], idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert idle_gpu(settings) == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    note = idle_gpu(settings)
    assert bool(note) == idle
    if idle:
        assert "leaves the Some GPU alone; --set 'stages.*.training.device=cuda'" in note


def test_other_devices_are_refused_in_the_recipe() -> None:
    with pytest.raises(ValidationError):
        TrainingConfig(device="tpu")  # type: ignore[arg-type]


class Makes(nn.Module):
    """Zeros of its own, as recurrent layers begin with."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros(1, 2, device=x.device).expand(len(x), 2)], 1)


def test_what_an_exported_graph_makes_itself_moves_along() -> None:
    graph = torch.export.export(Makes(), (torch.ones(3, 4),)).module()
    assert isinstance(graph, fx.GraphModule)
    code = graph.code
    place(graph, CPU)
    assert graph.code == code
    place(graph, torch.device("meta"))
    made = [node.kwargs["device"] for node in graph.graph.nodes if "device" in node.kwargs]
    assert made
    assert set(made) == {torch.device("meta")}
    assert "'meta'" in graph.code
    place(graph, CPU)
    assert graph.code == code
    assert torch.equal(graph(torch.ones(3, 4)), Makes()(torch.ones(3, 4)))


class TestFloat16:
    def test_it_learns_what_float32_learns(self, tmp_path: Path) -> None:
        one, other = small(), small()
        exact = learn(one, tmp_path / "exact", config(precision="float32", lr=0.01))
        told: list[Event] = []
        settings = config(precision="float16", lr=0.01)
        half = learn(other, tmp_path / "half", settings, progress=told.append)
        assert ["slow on CPUs" in event.message for event in told if event.kind == "warning"] == [True]
        assert half.epochs[-1]["loss"] < 0.9 * half.epochs[0]["loss"]
        assert half.epochs[-1]["loss"] == pytest.approx(exact.epochs[-1]["loss"], rel=0.1)
        assert not identical(one, other)

    def test_killed_and_continued_it_ends_with_the_same_weights(self, tmp_path: Path) -> None:
        settings = config(precision="float16")
        undisturbed, killed = small(), small()
        learn(undisturbed, tmp_path / "whole", settings)
        with pytest.raises(Killed):
            learn(killed, tmp_path / "cut", settings, progress=kill_in(3, "epoch"))
        continued = small()
        learn(continued, tmp_path / "cut", settings)
        assert identical(undisturbed, continued)


def steps(
    precision: str, losses: list[float], state: dict[str, float] | None = None
) -> tuple[float, Descent]:
    """One weight of 1, whose gradients are the losses."""
    weight = nn.Parameter(torch.ones(()))
    descent = Descent(torch.optim.SGD([weight], lr=0.1), [weight], None)
    if state is not None:
        descent.load_state_dict(state)
    descent.scale_for(precision, CPU)
    for gradient in losses:
        descent.step(weight * gradient)
    return float(weight.detach()), descent


def test_the_scale_changes_no_step() -> None:
    assert steps("float16", [1.0, 0.5, 2**-20])[0] == steps("float32", [1.0, 0.5, 2**-20])[0]


def test_a_step_that_overflows_is_left_out_and_the_scale_halved() -> None:
    before = steps("float16", [1.0])[1].state_dict()["scale"]
    weight, descent = steps("float16", [1.0, float("inf"), 1.0])
    assert weight == pytest.approx(0.8)
    assert descent.state_dict()["scale"] == before / 2


def test_a_continued_training_has_the_scale_that_it_had() -> None:
    state = steps("float16", [1.0, float("inf")])[1].state_dict()
    again = steps("float16", [], state)[1]
    assert again.state_dict()["scale"] == state["scale"]
    assert steps("float32", [1.0])[1].state_dict() == {}


class TestOnAGpu:
    pytestmark = GPU

    def test_it_learns_what_the_cpu_learns(self, tmp_path: Path) -> None:
        one, other = small(), small()
        for model in (one, other):
            model.drop.p = 0.0  # a GPU draws other random numbers
        on_cpu = learn(one, tmp_path / "cpu", config(precision="float32"))
        on_gpu = learn(other, tmp_path / "gpu", config(precision="float32", device="cuda"))
        for a, b in zip(on_cpu.epochs, on_gpu.epochs, strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=0.02)  # convolutions in TF32
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            assert q.device == CPU
            torch.testing.assert_close(p, q, rtol=0.1, atol=0.02)

    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
    def test_killed_and_continued_it_ends_with_the_same_weights(self, precision: str, tmp_path: Path) -> None:
        settings = config(precision=precision, device="cuda", ema_decay=0.9)
        undisturbed, killed, continued = small(), small(), small()
        learn(undisturbed, tmp_path / "whole", settings)
        with pytest.raises(Killed):
            learn(killed, tmp_path / "cut", settings, progress=kill_in(3, "epoch"))
        learn(continued, tmp_path / "cut", settings)
        assert identical(undisturbed, continued)

    def test_a_fake_quantised_graph_learns_there(self, tmp_path: Path) -> None:
        model, work = small(), workload()
        graph = trainable(calibrate(capture(model, work.example(2)), [work.example(16)]))
        history = learn(graph, tmp_path, config(device="cuda", lr=0.001))
        assert history.epochs[-1]["loss"] <= history.epochs[0]["loss"]
        assert {p.device for p in graph.parameters()} == {CPU}
