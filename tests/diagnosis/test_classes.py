from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, recall_score

from edgekit.diagnosis.classes import confusion, per_class, worst
from edgekit.diagnosis.judged import judge
from edgekit.tasks import Classification, Segmentation

CLASSES = 4
LABELS = st.integers(0, CLASSES - 1)
THREE = st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=60).map(
    lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True))
)


@given(THREE)
def test_confusion_and_recall_are_sklearns(columns: tuple[np.ndarray, ...]) -> None:
    targets, before, after = columns
    for answers in (before, after):
        expected = confusion_matrix(targets, answers, labels=range(CLASSES))
        assert np.array_equal(confusion(targets, answers, CLASSES), expected)
    recalls = [
        recall_score(targets, answers, labels=range(CLASSES), average=None, zero_division=0)
        for answers in (before, after)
    ]
    for row in per_class(targets, before, after, CLASSES):
        assert row.samples == int((targets == row.index).sum())
        if row.samples:
            assert row.before.value == pytest.approx(recalls[0][row.index], abs=1e-9)
            assert row.after.value == pytest.approx(recalls[1][row.index], abs=1e-9)
            assert row.change.value == pytest.approx(row.after.value - row.before.value, abs=1e-9)
        else:
            assert row.before.value is row.change.value is None


def test_the_worst_class_lost_most() -> None:
    targets = np.array([0, 0, 1, 1, 2, 2])
    before = targets.copy()
    after = np.array([0, 0, 1, 0, 0, 0])
    found = worst(per_class(targets, before, after, 5))
    assert found is not None
    assert (found.index, found.change.value) == (2, -1.0)
    assert worst(per_class(targets[:0], before[:0], after[:0], 3)) is None


@pytest.mark.parametrize(
    ("targets", "answers"),
    [([0, 4], [0, 0]), ([0, 1], [0, -1]), ([0], [0, 1]), ([0.0], [0])],
)
def test_labels_that_are_none(targets: list[float], answers: list[int]) -> None:
    with pytest.raises(ValueError, match="labels"):
        confusion(np.array(targets), np.array(answers), CLASSES)


def test_twenty_thousand_classes_take_no_table_of_pairs() -> None:
    """ImageNet-21k's heads: a table of all pairs has 477 million entries."""
    classes = 21_841
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(classes, (40,), generator=generator)
    before = torch.randn(40, classes, generator=generator)
    before[torch.arange(40), targets] = 20.0
    after = before.clone()
    after[:3, 7] = 30.0
    task = Classification(num_classes=classes)
    tracemalloc.start()
    try:
        found = judge(task, targets, before, after)
        score = Segmentation(num_classes=classes).score(before[:, :, None, None], targets[:, None, None])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200e6
    assert score == 1.0
    assert found.matrices == ()
    assert len(found.classes) == classes
    lost = [(one.target, one.answer, one.before, one.after) for one in found.confused]
    assert lost == [(int(target), 7, 0, 1) for target in targets[:3].sort().values]
