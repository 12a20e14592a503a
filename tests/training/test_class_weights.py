from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import StageError
from edgekit.tasks import Classification, Regression, Segmentation
from edgekit.training import evaluate
from edgekit.training.data.class_weights import balanced
from tests.training.nets import config, fit, points, seeded, workload


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_every_class_has_the_same_share_and_the_mean_is_one(labels: list[int]) -> None:
    weights = balanced(Classification(5), torch.tensor(labels)).numpy()
    counts = np.bincount(labels, minlength=5)
    shares = (weights * counts)[counts > 0]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-5)
    np.testing.assert_allclose(weights[labels].mean(), 1, rtol=1e-5)
    assert (weights[counts == 0] == 1).all()


def test_ignored_labels_do_not_count() -> None:
    targets = torch.tensor([[[0, 0], [0, 1]], [[255, 255], [255, 255]]])
    weights = balanced(Segmentation(2, ignore_label=255), targets)
    torch.testing.assert_close(weights, torch.tensor([4 / (2 * 3), 4 / 2]))


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1]))
def test_the_loss_is_a_weighted_mean(seed: int, smoothing: float) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(9, 4)), random.integers(0, 4, 9)
    weights = random.uniform(0.1, 3, 4)
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    hard = -(weights[labels] * log[np.arange(9), labels]).sum()
    soft = -(weights * log).sum() / 4  # a smoothed target holds every class, each with its own weight
    expected = ((1 - smoothing) * hard + smoothing * soft) / weights[labels].sum()
    found = Classification(4).loss(
        torch.tensor(logits),
        torch.tensor(labels),
        label_smoothing=smoothing,
        weights=torch.tensor(weights),
    )
    np.testing.assert_allclose(float(found), expected, rtol=1e-6)


def test_a_task_without_classes_refuses(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="a task with classes"):
        balanced(Regression(), torch.randn(4))


def test_a_rare_class_is_learned(tmp_path: Path) -> None:
    inputs, labels = points(600, 0)
    kept = (labels != 2) | (torch.arange(600) % 25 == 0)
    unbalanced = workload(train=(inputs[kept], labels[kept]))
    found = {}
    for choice in ("none", "balanced"):
        model = seeded()
        fit(model, tmp_path / choice, config(epochs=8, class_weights=choice), workload=unbalanced)
        answers = evaluate(model, unbalanced).outputs.argmax(1)
        rare = unbalanced.validation.targets == 2
        found[choice] = float((answers[rare] == 2).double().mean())
    assert found["balanced"] > found["none"] + 0.2
