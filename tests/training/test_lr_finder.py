from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.progress import Event
from edgekit.training.steps.lr_finder import STEPS, range_of, range_test
from tests.training.nets import KillAfter, Killed, Normed, config, fit, identical, seeded, without_times


@given(st.floats(1e-3, 1.0))
def test_a_tenth_of_where_a_loss_is_lowest(edge: float) -> None:
    """A loss that falls until ``edge`` and rises steeply after it."""

    def step(lr: float) -> float:
        return 2 - math.log10(lr / 1e-5) / 6 + 5 * max(math.log10(lr / edge), 0)

    found = range_test(step, 1e-5, 10.0, usual=1.0)
    # Rates are tried in steps, and the smoothed loss lags behind, by less than a decade.
    assert edge / 1.2 <= found.lowest_at < 10 * edge
    assert found.lr == pytest.approx(found.lowest_at / 10)


def test_ends_where_the_loss_breaks_or_explodes() -> None:
    tried: list[float] = []

    def step(lr: float) -> float:
        tried.append(lr)
        return math.nan if lr > 0.1 else 1.0 - lr

    found = range_test(step, 1e-4, 1.0)
    assert math.isclose(tried[0], 1e-4)
    assert found.lowest_at <= 0.1
    assert found.steps == len(tried) < STEPS
    exploding = range_test(lambda lr: 1.0 if lr < 1e-2 else 1000.0, 1e-4, 1.0, usual=1.0)
    assert exploding.steps < STEPS


def test_a_first_loss_that_is_no_number_gives_the_lowest_rate() -> None:
    assert range_test(lambda lr: math.nan, 1e-5, 1.0).lr == 1e-5


def test_adamw_is_tried_at_smaller_rates() -> None:
    assert range_of(config(optimizer="adamw"))[1] < range_of(config())[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_finds_a_rate_to_learn_with(optimizer: str, tmp_path: Path) -> None:
    events: list[Event] = []
    settings = config(epochs=20, lr="auto", optimizer=optimizer)
    history = fit(seeded(), tmp_path, settings, progress=events.append)
    lr = history.facts["lr_found"]["lr"]
    assert history.epochs[-1]["accuracy"] > 0.85
    assert f"lr {lr:.2g} by a range test" in history.note
    assert [event.message for event in events if event.kind == "note"] == [history.note]
    assert max(entry["lr"] for entry in history.epochs) <= lr


def test_the_test_leaves_no_trace_but_the_rate(tmp_path: Path) -> None:
    found, given_it = seeded(Normed), seeded(Normed)
    history = fit(found, tmp_path / "a", config(lr="auto", ema_decay=0.9))
    lr = history.facts["lr_found"]["lr"]
    expected = fit(given_it, tmp_path / "b", config(lr=lr, ema_decay=0.9))
    assert identical(found, given_it)
    assert without_times(history) == without_times(expected)


@pytest.mark.parametrize(("number", "kind"), [(1, "note"), (1, "epoch"), (3, "epoch")])
def test_killed_and_continued(number: int, kind: str, tmp_path: Path) -> None:
    settings = config(lr="auto")
    undisturbed, continued = seeded(Normed), seeded(Normed)
    expected = fit(undisturbed, tmp_path / "a", settings)
    with pytest.raises(Killed):
        fit(seeded(Normed), tmp_path / "b", settings, progress=KillAfter(number, kind))
    got = fit(continued, tmp_path / "b", settings)
    assert identical(continued, undisturbed)
    assert got.facts == expected.facts
