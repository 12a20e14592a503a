"""Channels of one tensor made alike: the same function, and nearer to it in int8."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, estimate, settle
from edgekit.int8.channel_groups import groups_of
from edgekit.int8.channel_sizes import Size
from edgekit.int8.equalise import Factors, _Reader, equalise, factors_for, restore
from edgekit.int8.lower import lower
from tests.networks import Mobile, Residual, images, seeded, snr_db

WIDTH = 16


class Uneven(nn.Module):
    """Inner channels are 1 to 256 times as loud as they were, and are read with weights that much smaller."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.one, self.inner = nn.Conv2d(3, WIDTH, 3, 2, 1), inner
        self.two, self.head = nn.Conv2d(WIDTH, 8, 3, 1, 1), nn.Linear(8, 5)
        # 9 sizes, in no order.
        factors = 2.0 ** (torch.arange(WIDTH) * 7 % WIDTH * 9 // WIDTH)
        with torch.no_grad():
            self.one.weight.mul_(factors[:, None, None, None])
            self.one.bias.mul_(factors)  # type: ignore[union-attr]
            self.two.weight.div_(factors[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.two(self.inner(self.one(x)))).mean((2, 3)))


class Gated(nn.Module):
    """Squeeze-excite: the gate has its own size, what it multiplies may have another."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(WIDTH, 4, 1), nn.Conv2d(4, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Summed(nn.Module):
    """Two ways that meet in a sum: both have the same factors."""

    def __init__(self) -> None:
        super().__init__()
        self.beside = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return F.relu(x + self.beside(x))


class Normed(nn.Module):
    """Tokens: a linear layer behind a layer norm, whose weights are uneven."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(12, WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 32), nn.Linear(32, 5)
        with torch.no_grad():
            self.norm.weight.copy_(2.0 ** (torch.arange(WIDTH) % 8))
            self.wide.weight.div_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.wide(self.norm(self.embed(x.flatten(2).transpose(1, 2)))))).mean(1)


def depthwise() -> nn.Module:
    return nn.Sequential(nn.ReLU6(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, groups=WIDTH), nn.ReLU6())


def sloped() -> nn.Module:
    return nn.Sequential(nn.PReLU(WIDTH), nn.MaxPool2d(2), nn.ZeroPad2d(1))


INNER: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "depthwise": depthwise,
    "sloped": sloped,
    "gated": Gated,
    "summed": Summed,
}


def lowered(model: nn.Module, x: Tensor) -> fx.GraphModule:
    return lower(capture(model.eval(), x[:1]))


def some_factors(graph: fx.GraphModule, seed: int) -> list[Factors]:
    """For every group, whatever it would be good for; 1 where a clamp has an upper end."""
    draw = torch.Generator().manual_seed(seed)
    return [
        Factors(
            group, 2.0 ** torch.randint(0, 1 if group.ceilings else 8, (group.channels,), generator=draw), 0
        )
        for group in groups_of(graph)
    ]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([*INNER, "residual", "mobile"]), st.integers(0, 1000))
def test_any_powers_of_two_leave_the_function_as_it_is(name: str, seed: int) -> None:
    others: dict[str, Callable[[], nn.Module]] = {"residual": Residual, "mobile": Mobile}
    model = seeded(others[name]) if name in others else seeded(Uneven, INNER[name]())
    x = images(4, seed)
    graph = lowered(model, x)
    before = {key: value.clone() for key, value in graph.state_dict().items()}
    factors = some_factors(graph, seed)
    assert factors
    with torch.no_grad():
        wanted = graph(x)
        equalise(graph, factors)
        torch.testing.assert_close(graph(x), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
        restore(graph, factors)
    for key, value in graph.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", INNER)
def test_uneven_channels_come_nearer_in_int8(name: str) -> None:
    """Channels of one size only lose less; with ReLU6 as much as fits below 6."""
    model, x = seeded(Uneven, INNER[name]()), images(64)
    graph, batches = capture(model.eval(), x[:1]), list(x.split(16))
    told: list[str] = []

    def near(way: str) -> float:
        options = CalibrationOptions(equalise=way)  # type: ignore[arg-type]
        made = settle(estimate(graph, batches, options, tell=told.append))
        with torch.no_grad():
            return snr_db(model(images(32, 9)), made(images(32, 9)))

    plain, tried = near("never"), near("auto")
    assert not told or "taken" in told[0]
    if name != "depthwise":  # what is 256 times as loud is cut off at 6: nothing is left to be had
        assert tried > plain + 3, (plain, tried)
    assert tried > plain - 0.5


def test_tokens_behind_a_norm() -> None:
    model, x = seeded(Normed), images(32).reshape(32, 12, -1)
    graph = lowered(model, x)
    (factors,) = factors_for(graph, [x])
    assert [one.name for one in factors.group.makers] == ["layer_norm"]
    assert factors.gain_db > 6
    # What is loud already stays, what is quiet becomes louder.
    assert factors.values[7] == 1 < factors.values[0]
    with torch.no_grad():
        wanted = graph(x)
        equalise(graph, [factors])
        torch.testing.assert_close(graph(x), wanted, rtol=1e-4, atol=1e-5)


def test_what_could_change_the_function_is_left_alone() -> None:
    class Pinned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3 if i == 0 else 8, 8, 3, 1, 1) for i in range(3))
            self.d = nn.Conv2d(16, 8, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            one = F.relu(self.a(x))  # an output
            two = torch.sigmoid(self.b(one))  # not homogeneous
            three = F.hardtanh(self.c(two), -1, 1)  # nor is this
            return one, self.d(torch.cat([two, three], 1))

    assert groups_of(lowered(seeded(Pinned), images(2))) == []


POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "maximum": lambda x: F.max_pool1d(x, 2),
    "average": lambda x: F.adaptive_avg_pool1d(x, 16),
    "whole": lambda x: x[:, :16] + x.mean(None, keepdim=True),
}


@pytest.mark.parametrize("pooled", POOLED)
def test_channels_that_are_pooled_are_no_channels_any_more(pooled: str) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(12, 32), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(POOLED[pooled](F.relu(self.one(x))))

    model, x = seeded(Pooled), torch.randn(32, 12)
    graph = capture(model.eval(), x[:2])
    assert groups_of(lower(graph)) == []
    made = settle(estimate(capture(model, x[:2]), [x], CalibrationOptions(equalise="always")))
    with torch.no_grad():
        assert snr_db(model(x), made(x)) > 25


@pytest.mark.parametrize("seen", ["compared", "chosen"])
def test_what_is_compared_keeps_its_size(seen: str) -> None:
    """A mask or a place that numbers decide would be another one, though it is no float itself."""

    class Decided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.one(x))
            if seen == "compared":
                decided = (y > 0.05).float()
            else:
                decided = y.argmax(1, keepdim=True).float()
            return self.two(y) + decided.mean((1, 2, 3), keepdim=True)

    assert groups_of(lowered(seeded(Decided), images(2))) == []


def test_shared_weights_give_and_take_nothing() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.same, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.same(F.relu(self.same(F.relu(self.stem(x)))))))

    assert groups_of(lowered(seeded(Twice), images(2))) == []


def test_a_clamp_goes_on_cutting_what_it_cut() -> None:
    model, x = seeded(Uneven, nn.ReLU6()), images(64)
    graph = lowered(model, x)
    (group,) = (one for one in groups_of(graph) if one.ceilings)
    (clamp,) = group.ceilings
    found = [one for one in factors_for(graph, [x]) if one.group.ceilings]
    with torch.no_grad():
        wanted = graph(x)
        largest = F.relu6(model.one(x)).amax((0, 2, 3))
        for one in found:
            assert torch.all(one.values[largest >= 6] == 1), clamp
            assert torch.all(largest * one.values <= 6)
        equalise(graph, found)
        torch.testing.assert_close(graph(x), wanted, rtol=1e-5, atol=1e-5)


def test_a_trial_that_brings_nothing_is_undone() -> None:
    """Even channels: nothing is tried. "never": nothing either."""
    told: list[str] = []
    graph, x = capture(seeded(Residual), images(1)), images(32)
    for way in ("auto", "never"):
        estimate(graph, [x], CalibrationOptions(equalise=way), tell=told.append)  # type: ignore[arg-type]
    assert told == []


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4]))
def test_predicted_noise_is_that_of_rounding(seed: int, parts: int) -> None:
    """Beside a simulation: inputs and weights are rounded, and what that does to the outputs is measured."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand((64, 8, 12, 12), generator=draw) * 2.0 ** torch.randint(-6, 1, (8, 1, 1), generator=draw)
    layer = nn.Conv2d(8, 12, 3, groups=parts, bias=False)
    with torch.no_grad():
        layer.weight.normal_(generator=draw)
        factors = 2.0 ** torch.randint(0, 4, (8,), generator=draw)
        graph = lowered(nn.Sequential(layer, nn.ReLU()), x)
        (node,) = (one for one in graph.graph.nodes if "conv2d" in str(one.target))
        size = Size.of(x, 1)
        predicted = _Reader.of(graph, node, size).noise(factors)
        scaled = x * factors[:, None, None]
        weight = layer.weight.reshape(parts, -1, 8 // parts, 9) / factors.reshape(parts, 1, -1, 1)
        weight = weight.reshape(layer.weight.shape)
        step, steps = scaled.max() / 255, weight.abs().amax((1, 2, 3), keepdim=True) / 127
        got = F.conv2d((scaled / step).round() * step, (weight / steps).round() * steps, groups=parts)
        wanted = layer(x)
        # The model takes inputs for independent and of mean zero: so is the signal counted here.
        signal = F.conv2d(x.square().mean(0, keepdim=True), layer.weight.square(), groups=parts).mean()
        measured = float((got - wanted).square().mean() / signal)
    assert 0.3 < predicted / measured < 3


def test_time_is_linear_in_depth() -> None:
    """One visit for each node: a chain of 400 layers has a group between each two."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), *(nn.Conv2d(4, 4, 1) for _ in range(400))))
    graph = lowered(model, images(2))
    assert len(groups_of(graph)) == 400
