from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from edgekit.diagnosis.confidence import calibration, fit_temperature, probabilities


def drawn(seed: int, count: int, classes: int = 5, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels drawn from the very probabilities that they stand for."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, scale, (count, classes))
    chances = softmax(logits, axis=1).cumsum(1)
    return logits, (generator.random((count, 1)) > chances).sum(1).clip(max=classes - 1)


def plain_ece(given: np.ndarray, targets: np.ndarray, bins: int) -> float:
    """Guo et al. 2017, eq. 3, sample by sample."""
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        rows = [i for i, row in enumerate(given) if low < max(row) <= high or (index == 0 and max(row) == 0)]
        if rows:
            right = sum(int(given[i].argmax() == targets[i]) for i in rows) / len(rows)
            sure = sum(float(given[i].max()) for i in rows) / len(rows)
            total += len(rows) * abs(right - sure)
    return total / len(given)


@given(st.integers(0, 10_000), st.integers(1, 200), st.sampled_from([1, 10, 15]))
def test_ece_is_the_plain_one(seed: int, count: int, bins: int) -> None:
    logits, targets = drawn(seed, count)
    found = calibration(softmax(logits, axis=1), targets, bins=bins)
    assert found.ece == pytest.approx(plain_ece(softmax(logits, axis=1), targets, bins), abs=1e-9)
    assert sum(one.samples for one in found.bins) == count
    assert found.nll == pytest.approx(
        log_loss(targets, softmax(logits, axis=1), labels=range(5)), rel=1e-6, abs=1e-9
    )


def test_probabilities_on_the_edges_of_bins() -> None:
    given = np.array([[1.0, 0.0], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]])
    targets = np.array([0, 1, 0, 0])
    found = calibration(given, targets, bins=5)
    assert [one.samples for one in found.bins] == [0, 0, 2, 1, 1]
    assert found.ece == pytest.approx(plain_ece(given, targets, 5), abs=1e-12)


def test_sure_and_wrong() -> None:
    given = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.1, 0.9]])
    found = calibration(given, np.array([1, 0, 1, 1]))
    assert found.sure_but_wrong == 0.25
    assert found.wrong_confidence == pytest.approx((0.95 + 0.6) / 2)
    assert calibration(given, np.array([0, 0, 0, 1])).wrong_confidence is None


@given(st.integers(0, 1000), st.floats(0.3, 4.0))
def test_probabilities_are_softmax(seed: int, temperature: float) -> None:
    logits = drawn(seed, 20, scale=50.0)[0]
    assert np.allclose(probabilities(logits, temperature), softmax(logits / temperature, axis=1), atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature: float) -> None:
    logits, targets = drawn(0, 20_000)
    found = fit_temperature(logits * temperature, targets)
    assert found.value == pytest.approx(temperature, rel=0.05)
    if temperature != 1.0:
        assert found.helps
        assert found.ece_after < 0.02 < found.ece_before


def test_what_a_temperature_is_worth_is_told_for_other_samples() -> None:
    """On pure noise every temperature is fitted to what it saw: with labels that say nothing, to one half."""
    generator = np.random.default_rng(0)
    logits = np.zeros((40, 2))
    logits[:, 0] = generator.choice([-3.0, 3.0], 40)
    targets = np.where(np.arange(40) % 2, logits.argmax(1), 1 - logits.argmax(1))  # one half right, one wrong
    found = fit_temperature(logits, targets)
    assert found.ece_after > 0.4  # each half is judged with what suits the other one


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="expected"):
        calibration(np.ones((3, 2)), np.zeros(2, int))
    with pytest.raises(ValueError, match="expected"):
        calibration(np.ones((0, 2)), np.zeros(0, int))
    with pytest.raises(ValueError, match="N >= 2"):
        fit_temperature(np.ones((1, 2)), np.zeros(1, int))
