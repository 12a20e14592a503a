"""When a layer of a file is wrong by itself: differences in steps, made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edgekit.formats.parity.layers import Differences, LayerParity, first_wrong, furthest, is_exact
from edgekit.graph.probes import quantized_tensors
from tests.networks import Residual, quantized

STEP = 0.25


def found(change: Callable[[Tensor], Tensor], *, exact: bool = True, values: int = 4000) -> LayerParity:
    """A layer whose file has ``change`` of the unrounded numbers, in steps."""
    generator = torch.Generator().manual_seed(0)
    real = 25 * torch.randn(1, 4, values // 4, 1, generator=generator)
    right, file = (one.clamp(-128, 127).round() * STEP for one in (real, change(real)))
    differences = Differences(STEP, -128 * STEP, 127 * STEP)
    differences.add(right, file)
    return differences.of("layer", exact=exact)


def one_value(real: Tensor, by: float) -> Tensor:
    changed = real.clone()
    changed[0, 0, 0, 0] += by
    return changed


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda real: real - 0.5, "on average"),
        (lambda real: real + 1, "on average"),
        (lambda real: real * 1.015, "too large"),
        (lambda real: real / 1.015, "too small"),
        (lambda real: one_value(real, 3), "up to 3 steps"),
        (lambda real: real.flip(1), "steps of its grid off"),
        (lambda real: real * math.nan, "inf steps"),
    ],
)
def test_each_way_of_being_wrong_is_seen_and_said(change: Callable[[Tensor], Tensor], why: str) -> None:
    if why in ("too large", "too small"):  # else the loudest are two steps off, which is said first
        quiet = found(lambda real: torch.where(real.abs() < 60, change(real), real))
        assert why in quiet.why
    else:
        assert why in found(change).why


@pytest.mark.parametrize("chance", [0.02, 0.2])
def test_roundings_that_fall_the_other_way_are_right(chance: float) -> None:
    generator = torch.Generator().manual_seed(1)

    def moved(real: Tensor) -> Tensor:
        drawn = torch.rand(real.shape, generator=generator)
        return real + (drawn < chance / 2).float() - (drawn > 1 - chance / 2).float()

    for values in (40, 400, 40_000):
        assert found(moved, values=values).why == ""


def test_halves_rounded_up_instead_of_to_even_are_right() -> None:
    """As averages over two integers are: half of them lie on a tie."""
    integers = torch.randint(0, 200, (1, 4, 1000, 1), generator=torch.Generator().manual_seed(0))
    differences = Differences(1.0, -128, 127)
    differences.add((integers / 2).round(), torch.floor(integers / 2 + 0.5))
    layer = differences.of("pool", exact=True)
    assert layer.moved > 0.2
    assert layer.why == ""


def test_what_runtimes_approximate_may_be_two_steps_off_in_places() -> None:
    assert found(lambda real: one_value(real, 2), exact=False).why == ""
    assert found(lambda real: real + 2, exact=False).why != ""


def test_numbers_at_the_ends_of_the_grid_say_nothing_about_drift() -> None:
    layer = found(lambda real: (real + 500).clamp(-128, 127))
    assert layer.bias == 0.0
    assert "steps of its grid off" in layer.why


def test_the_first_wrong_one_is_found() -> None:
    layers = [LayerParity("a"), LayerParity("b", steps=2.0), LayerParity("c", steps=3.0)]
    assert first_wrong(layers) is layers[1]
    assert first_wrong(layers[:1]) is None


def test_layers_of_integers_are_exact() -> None:
    tensors = quantized_tensors(quantized(Residual)[1])
    makers = {name: reader.args[0].args[0] for name, reader in tensors.items()}  # type: ignore[union-attr]
    assert all(is_exact(makers[name]) for name in ("first", "second", "add", "head"))
    assert not is_exact(None)


def test_how_far_the_furthest_layers_are_is_told() -> None:
    generator = torch.Generator().manual_seed(0)
    exact = found(
        lambda real: torch.where(torch.rand(real.shape, generator=generator) < 0.002, real + 2, real)
    )
    island = found(lambda real: real + 0.6, exact=False)
    told = furthest([exact, island])
    assert (told["layers"], round(told["layers_peak"])) == (2, 2)
    assert 0 < told["layers_far"] < 0.01
    assert told["layers_rms"] == pytest.approx(island.steps)
    assert furthest([]) == {"layers": 0, "layers_peak": 0.0, "layers_far": 0.0, "layers_rms": 0.0}


@pytest.mark.parametrize("places", [2, 4])
def test_averages_whose_ties_are_rounded_away_from_zero_are_right(places: int) -> None:
    """As LiteRT's own kernel does; quiet numbers of either sign, where it weighs most."""
    generator = torch.Generator().manual_seed(0)
    sums = (4 * places**0.5 * torch.randn(1, 4, 4000, 1, generator=generator)).round()
    away = sums.sign() * ((sums.abs() + places // 2) // places)

    def judged(*, average: bool) -> LayerParity:
        differences = Differences(1.0, -128, 127, average=average)
        differences.add((sums / places).round(), away)
        return differences.of("layer", exact=True)

    assert not judged(average=True).why
    if places == 2:
        assert "too large" in judged(average=False).why


def test_a_scale_that_is_wrong_behind_an_average_is_still_seen() -> None:
    numbers = 25 * torch.randn(1, 4, 1000, 1, generator=torch.Generator().manual_seed(0))
    differences = Differences(1.0, -128, 127, average=True)
    differences.add(numbers.round(), (numbers * 1.015).round())
    assert "too large" in differences.of("layer", exact=True).why


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (2, 3, 7), (1, 40), (3, 1, 2, 2)])
@pytest.mark.parametrize("chance", [0.05, 0.9])
@pytest.mark.parametrize("last", [False, True])
def test_sums_are_those_of_plain_loops(shape: tuple[int, ...], chance: float, last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    own = torch.randint(-5, 6, shape, generator=generator).float()
    drawn = torch.rand(shape, generator=generator) < chance
    file = own + torch.where(drawn, torch.randint(-3, 4, shape, generator=generator).float(), 0.0)
    low, high = -4.0, 4.0
    differences = Differences(STEP, low * STEP, high * STEP)
    given = [one * STEP for one in (own, file)]
    if last and len(shape) == 4:
        given = [one.contiguous(memory_format=torch.channels_last) for one in given]
    differences.add(*given)
    squares = [0.0] * (shape[1] if len(shape) > 2 else 1)
    sums = [0.0] * 6
    moved = far = 0
    for index in range(own.numel()):
        place = torch.unravel_index(torch.tensor(index), shape)
        v, w = float(own[place]), float(file[place])
        squares[int(place[1]) if len(shape) > 2 else 0] += (w - v) ** 2
        moved, far = moved + (abs(w - v) >= 0.5), far + (abs(w - v) >= 1.5)
        if low < v - 0.5 and v < high - 0.5 and low < w - 0.5 and w < high - 0.5:
            for position, value in enumerate((1, v, w - v, v * v, v * (w - v), (w - v) ** 2)):
                sums[position] += value
    if torch.equal(own, file):  # says nothing of a drift
        sums = [0.0] * 6
    assert torch.as_tensor(differences.squares).tolist() == pytest.approx(squares)
    assert differences.sums.tolist() == pytest.approx(sums)
    assert (differences.moved, differences.far, differences.count) == (moved, far, own.numel())
