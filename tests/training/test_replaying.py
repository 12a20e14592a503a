"""What replaying does without a GPU: which calls are replayed, and what recording leaves behind."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.training.computing import cuda_graphs
from edgekit.training.computing.cuda_graphs import Graphed, NotGraphed
from edgekit.training.computing.device import CPU
from edgekit.training.distillation.taps import Taps
from tests.training.small import small

IMAGES = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A replay answers with ones and zeros; whether each recording was one with gradients."""
    seen: list[bool] = []

    def record(self: Graphed, inputs: Tensor, learns: bool) -> Any:
        seen.append(learns)
        return lambda inputs: (torch.ones(len(inputs), 3), torch.zeros(len(inputs), 6))

    monkeypatch.setattr(Graphed, "_record", record)
    return seen


def test_batches_are_recorded_once_with_gradients_and_once_without(recorded: list[bool]) -> None:
    call = Graphed(small(), 16)
    for _ in range(3):
        assert bool((call(IMAGES) == 1).all())
        with torch.inference_mode():
            assert bool((call(IMAGES) == 1).all())
    assert recorded == [True, False]


def test_other_sizes_go_to_the_model(recorded: list[bool]) -> None:
    model = small()
    assert torch.equal(Graphed(model, 16)(IMAGES[:5]), model(IMAGES[:5]))
    assert recorded == []


def test_taps_are_told_what_a_replay_gave(recorded: list[bool]) -> None:
    model = small()
    taps = Taps(model, ["bn"])
    Graphed(model, 16, taps)(IMAGES)
    (features,) = taps.take()
    assert torch.equal(features, torch.zeros(16, 6))
    assert taps.values == {}


def test_a_model_that_is_refused_is_told_once_and_goes_op_by_op(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Graphed, inputs: Tensor, learns: bool) -> Any:
        raise NotGraphed("it has its reasons")

    monkeypatch.setattr(Graphed, "_record", refuse)
    model, told = small(), list[str]()
    call = Graphed(model, 16, tell=told.append)
    for _ in range(2):
        assert torch.equal(call(IMAGES), model(IMAGES))
    assert told == ["a model goes op by op, not as a CUDA graph: it has its reasons"]
    with pytest.raises(NotGraphed):
        Graphed(model, 16)(IMAGES)


def test_what_a_call_changed_is_put_back() -> None:
    model = small().train()
    model.register_buffer("seen", torch.zeros(()))
    buffers = dict(model.named_buffers())
    before = {name: value.clone() for name, value in buffers.items()}
    torch.manual_seed(3)
    numbers = torch.get_rng_state()
    with cuda_graphs._without_trace(model, CPU):
        model(IMAGES)
        model.seen = torch.ones(())
        assert not torch.equal(model.bn.running_mean, before["bn.running_mean"])
    for name, value in model.named_buffers():
        assert value is buffers[name]
        assert torch.equal(value, before[name])
    assert torch.equal(numbers, torch.get_rng_state())


@pytest.mark.parametrize(
    "draw",
    [random.random, np.random.random, lambda: torch.rand(1), lambda: nn.Linear(2, 2)],
    ids=["random", "numpy", "torch", "init"],
)
def test_numbers_that_are_drawn_on_the_cpu_are_seen(draw: Any) -> None:
    before = cuda_graphs._numbers_of_the_cpu()
    assert cuda_graphs._numbers_of_the_cpu() == before
    draw()
    assert cuda_graphs._numbers_of_the_cpu() != before
