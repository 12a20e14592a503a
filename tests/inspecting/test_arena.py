"""Peak memory: the fast computation against a slow simulation, and known cases by hand."""

from __future__ import annotations

from collections.abc import Hashable

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.graph.capture import capture
from edgekit.memory import graph_arena
from edgekit.memory.arena import Step, plan

Model = tuple[dict[int, int], list[Step], list[int], list[int], dict[int, int]]


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Sizes, steps, inputs, outputs and shared memory of a random graph whose tensors are numbered."""
    inputs = list(range(draw(st.integers(1, 2))))
    made, steps = list(inputs), []
    shares: dict[int, int] = {}
    for index in range(draw(st.integers(1, 8))):
        reads = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))
        writes = [len(made) + n for n in range(draw(st.integers(1, 2)))]
        if draw(st.booleans()):
            shares[writes[0]] = reads[0]
        made += writes
        steps.append(Step(str(index), tuple(reads), tuple(writes), draw(st.integers(0, 3))))
    sizes = {tensor: draw(st.integers(0, 50)) for tensor in made}
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=2))
    return sizes, steps, inputs, outputs, shares


def simulated(model: Model) -> int:
    """Step by step: what holds memory now is what was written before and is wanted now or later."""
    sizes, steps, inputs, outputs, shares = model

    def root(tensor: int) -> int:
        return root(shares[tensor]) if tensor in shares else tensor

    highest = 0
    for now, step in enumerate(steps):
        needed = step.scratch_bytes
        for owner in {root(tensor) for tensor in sizes}:
            family = [tensor for tensor in sizes if root(tensor) == owner]
            written = any(t in inputs for t in family) or any(
                t in other.writes for other in steps[: now + 1] for t in family
            )
            wanted = any(t in inputs or t in outputs for t in family) or any(
                t in (*other.reads, *other.writes) for other in steps[now:] for t in family
            )
            if written and wanted:
                needed += max(sizes[t] for t in family)
        highest = max(highest, needed)
    return highest


@given(models())
def test_the_peak_is_that_of_a_simulation(model: Model) -> None:
    sizes, steps, inputs, outputs, shares = model
    arena = plan(dict(sizes), steps, inputs=inputs, outputs=outputs, shares=dict(shares))
    assert arena.peak_bytes == simulated(model)
    scratch = next(step.scratch_bytes for step in steps if step.name == arena.at)
    assert sum(size for _, size in arena.live) + scratch == arena.peak_bytes


@given(models())
def test_the_peak_lies_between_the_largest_tensor_and_all_of_them(model: Model) -> None:
    sizes, steps, inputs, outputs, shares = model
    steps = [Step(step.name, step.reads, step.writes) for step in steps]
    arena = plan(dict(sizes), steps, inputs=inputs, outputs=outputs, shares=dict(shares))
    assert max(sizes.values()) <= arena.peak_bytes <= sum(sizes.values())


def test_a_chain_needs_its_input_and_two_neighbours() -> None:
    sizes: dict[Hashable, int] = {"in": 1, "a": 10, "b": 20, "out": 5}
    steps = [Step("1", ("in",), ("a",)), Step("2", ("a",), ("b",)), Step("3", ("b",), ("out",))]
    arena = plan(sizes, steps, inputs=["in"], outputs=["out"])
    assert (arena.peak_bytes, arena.at) == (31, "2")
    assert arena.live == (("b", 20), ("a", 10), ("in", 1))


def test_a_skip_connection_lives_until_its_sum() -> None:
    sizes: dict[Hashable, int] = {"in": 0, "a": 10, "b": 10, "c": 10, "out": 10}
    steps = [
        Step("1", ("in",), ("a",)),
        Step("2", ("a",), ("b",)),
        Step("3", ("b",), ("c",)),
        Step("sum", ("a", "c"), ("out",)),
    ]
    assert plan(sizes, steps, inputs=["in"], outputs=["out"]).peak_bytes == 30


def test_a_model_without_ops_needs_its_input() -> None:
    assert plan({"in": 7}, [], inputs=["in"], outputs=["in"]).peak_bytes == 7


class Views(nn.Module):
    """ReLU behind a convolution, a flattening, a transpose that is copied: (N, 2, 4, 4) to (N, 16, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).flatten(2).transpose(1, 2) * 2


def test_views_and_clamps_of_a_graph_count_once() -> None:
    example = torch.randn(2, 2, 4, 4)
    graph = capture(Views().eval(), example)
    arena = graph_arena.measure(graph, graph_arena.record(graph, example))
    one = 2 * 4 * 4 * 4  # bytes of one sample in float32: every tensor here has that size
    # In the last step: the input (kept), what the transpose wrote, and the result. The convolution, its ReLU
    # and the flattening are one tensor, which is gone by then.
    assert arena.peak_bytes == 3 * one
    halves = graph_arena.measure(graph, graph_arena.record(graph, example), lambda _node, _tensor: 2)
    assert halves.peak_bytes == arena.peak_bytes // 2


class Branches(nn.Module):
    """A value with two readers: the ReLU can't be done in place of what the sum still wants."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        return F.relu(y) + y


def test_a_clamp_of_what_is_still_wanted_has_its_own_memory() -> None:
    example = torch.randn(2, 8)
    graph = capture(Branches(), example)
    arena = graph_arena.measure(graph, graph_arena.record(graph, example))
    assert arena.peak_bytes == 4 * 8 * 4  # input, y, relu(y), the sum


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


def test_fused_attention_is_counted_with_its_scores() -> None:
    example = torch.randn(2, 2, 64, 4)
    graph = capture(Attention(), example)
    arena = graph_arena.measure(graph, graph_arena.record(graph, example))
    assert arena.peak_bytes == 2 * (2 * 64 * 4 * 4) + 2 * (2 * 64 * 64 * 4)


def test_a_lopsided_padding_is_a_copy_of_its_own() -> None:
    """At stride 2 the padding of both sides is none that LiteRT's kernels know; at stride 1 it is."""
    example, found = torch.randn(2, 2, 8, 8), []
    for stride in (1, 2):
        graph = capture(nn.Conv2d(2, 2, 3, stride, padding=1), example)
        arena = graph_arena.measure(graph, graph_arena.record(graph, example))
        found.append(arena.peak_bytes)
    assert found == [4 * 2 * (64 + 64), 4 * 2 * (64 + 100 + 16)]
