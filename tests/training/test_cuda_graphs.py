"""Passes replayed as CUDA graphs: the same training, and no trace of having been recorded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.config.settings import DistillationConfig, FeaturesConfig, TrainingConfig
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.trainable import trainable
from edgekit.progress import Event
from edgekit.training import loop
from edgekit.training.computing import speed
from edgekit.training.computing.cuda_graphs import Graphed, NotGraphed
from edgekit.training.computing.speed import Choice, Precision
from edgekit.training.distillation.taps import Taps
from tests.training.small import Killed, Small, config, identical, kill_in, run, small, workload

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each pass that was recorded: whether it was one with gradients."""
    seen: list[bool] = []
    record = Graphed._record

    def noted(self: Graphed, inputs: Tensor, learns: bool) -> Any:
        replay = record(self, inputs, learns)
        seen.append(learns)
        return replay

    monkeypatch.setattr(Graphed, "_record", noted)
    return seen


def learn(
    model: nn.Module,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    graphs: bool,
    precision: Precision = "float32",
    **changes: Any,
) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(loop, "choose", lambda *_, **__: Choice(precision, graphs=graphs))
    settings: TrainingConfig = changes.pop("settings", config(device="cuda", ema_decay=0.9))
    run(model, folder, settings, **changes)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_replayed_training_ends_like_one_op_by_op(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[bool]
) -> None:
    one, other = small(), small()
    learn(one, tmp_path / "a", monkeypatch, graphs=False, precision=precision)
    assert recorded == []
    learn(other, tmp_path / "b", monkeypatch, graphs=True, precision=precision)
    assert recorded == [False, True]  # teacher and student
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_feature_maps_come_out_of_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[bool]
) -> None:
    told = DistillationConfig(features=FeaturesConfig(kind="attention", weight=10.0))
    settings = config(device="cuda", distillation=told)
    one, other, without = small(), small(), small()
    learn(one, tmp_path / "a", monkeypatch, graphs=False, settings=settings)
    learn(other, tmp_path / "b", monkeypatch, graphs=True, settings=settings)
    learn(without, tmp_path / "c", monkeypatch, graphs=True)
    assert recorded == [False, True] * 2
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(one.conv.weight, without.conv.weight, atol=1e-3)


def test_killed_and_continued_it_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[bool]
) -> None:
    undisturbed, killed, continued = small(), small(), small()
    learn(undisturbed, tmp_path / "whole", monkeypatch, graphs=True)
    with pytest.raises(Killed):
        learn(killed, tmp_path / "cut", monkeypatch, graphs=True, progress=kill_in(3, "epoch"))
    learn(continued, tmp_path / "cut", monkeypatch, graphs=True)
    assert len(recorded) == 6
    assert identical(undisturbed, continued)


def test_a_fake_quantised_graph_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[bool]
) -> None:
    made, work = [], workload()
    for _ in range(2):
        graph = trainable(calibrate(capture(small(), work.example(2)), [work.example(16)]))
        made.append(graph)
    settings = config(device="cuda", lr=0.001)
    learn(made[0], tmp_path / "a", monkeypatch, graphs=False, settings=settings)
    learn(made[1], tmp_path / "b", monkeypatch, graphs=True, settings=settings)
    assert recorded == [False, True]
    for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_whether_it_pays_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_MEASURE_FROM", 1)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    told: list[Event] = []
    run(small(), tmp_path, config(device="cuda", epochs=1), progress=told.append)
    (note,) = [event.message for event in told if event.message.startswith("computes in")]
    assert "float32 in CUDA graphs" in note


# --- alone -----------------------------------------------------------------------------------------------


def batch() -> Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)).cuda()


def test_recording_leaves_no_trace() -> None:
    model = small().cuda().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    numbers = torch.cuda.get_rng_state()
    call = Graphed(model, 16)
    call._record(batch(), learns=True)
    with torch.inference_mode():
        call._record(batch(), learns=False)
    assert torch.equal(numbers, torch.cuda.get_rng_state())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_answers_gradients_and_features_are_those_of_the_model() -> None:
    plain, replayed = small().cuda().train(), small().cuda().train()
    taps = Taps(replayed, ["bn"])
    call = Graphed(replayed, 16, taps)
    for scale in (1.0, 0.5, -2.0):
        torch.manual_seed(7)
        wanted = plain(batch() * scale)
        torch.manual_seed(7)
        answer = call(batch() * scale)
        torch.testing.assert_close(answer, wanted)
        (features,) = taps.take()
        assert features.shape == (16, 6, 8, 8)
        for model, output in ((plain, wanted), (replayed, answer)):
            model.zero_grad()
            output.square().sum().backward()
        for a, b in zip(plain.parameters(), replayed.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(plain.bn.running_mean, replayed.bn.running_mean)


def test_other_sizes_go_to_the_model() -> None:
    model = small().cuda().eval()
    call = Graphed(model, 16)
    with torch.no_grad():
        assert torch.equal(call(batch()[:5]), model(batch()[:5]))
    assert call.recorded == {}


class DrawsOnTheCpu(Small):
    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = super().forward(x)
        return kept if random.random() < 2 else kept * 0


class LooksAtValues(Small):
    def forward(self, x: Tensor) -> Tensor:
        kept: Tensor = super().forward(x)
        return kept * 2 if float(x.mean()) > 0 else kept


class Counts(Small):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        kept: Tensor = super().forward(x)
        return kept * self.calls


class ReplacesABuffer(Small):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        kept: Tensor = super().forward(x)
        return kept


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (DrawsOnTheCpu, "draws random numbers on the CPU"),
        (LooksAtValues, "synchroniz"),
        (Counts, "answers differently"),
        (ReplacesABuffer, "replaces its buffers"),
    ],
)
def test_what_a_graph_would_freeze_goes_op_by_op(
    kind: type[Small], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, told = kind().eval(), list[Event]()
    with pytest.raises(NotGraphed, match=reason):
        Graphed(kind().cuda().train(), 16)(batch())
    learn(model, tmp_path, monkeypatch, graphs=True, progress=told.append)
    notes = [event.message for event in told if "op by op" in event.message]
    assert len(notes) == 1
    assert reason in notes[0]
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
