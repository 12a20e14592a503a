from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import root_mean_squared_error

from edgekit.diagnosis import judged
from edgekit.diagnosis.errors import errors
from edgekit.diagnosis.judged import judge
from edgekit.tasks import Classification, Reconstruction, Regression, Segmentation, TokenClassification


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(classes: int, *shape: int) -> torch.Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(9))


def test_classification_says_all_there_is() -> None:
    targets, before = labels(4, 200), scores(200, 4) + 3 * torch.eye(4)[labels(4, 200)]
    after = before + 0.8 * scores(200, 4, seed=1)
    found = judge(Classification(4), targets, before, after, ["a", "b"] * 100)
    changed = (before.argmax(1) != after.argmax(1)).double().mean()
    assert found.unit == "samples"
    assert found.churn is not None
    assert found.churn.changed.value == pytest.approx(float(changed))
    assert len(found.flips) == min(judged.MOST_FLIPS, int(200 * changed))
    assert np.array(found.matrices).shape == (2, 4, 4)
    assert sum(one.after - one.before for one in found.confused) == round(
        200 * (Classification(4).score(before, targets) - Classification(4).score(after, targets))
    )
    right = (after.argmax(1) == targets).double()
    assert [group.after.value for group in found.groups] == pytest.approx(
        [float(right[0::2].mean()), float(right[1::2].mean())]
    )
    assert found.calibration_after is not None
    assert found.temperature is not None
    assert found.errors is None


def test_equal_answers_have_changed_nothing() -> None:
    targets, before = labels(4, 50), scores(50, 4)
    found = judge(Classification(4), targets, before, before.clone())
    assert found.churn is not None
    assert found.churn.changed.value == 0
    assert not found.flips
    assert not found.confused
    assert found.calibration_before == found.calibration_after


@pytest.mark.parametrize(
    ("task", "shape", "unit"),
    [
        (TokenClassification(3, ignore_label=-1), (6, 7, 3), "tokens"),
        (Segmentation(3, ignore_label=-1), (6, 3, 5, 4), "pixels"),
    ],
)
def test_what_does_not_count_is_left_out(task: object, shape: tuple[int, ...], unit: str) -> None:
    spatial = [size for index, size in enumerate(shape) if index != task.class_dim % len(shape)]  # type: ignore[attr-defined]
    targets = labels(3, *spatial)
    targets[:, 0] = -1
    before, after = scores(*shape), scores(*shape, seed=1)
    found = judge(task, targets, before, after)  # type: ignore[arg-type]
    assert (found.unit, found.samples) == (unit, int((targets != -1).sum()))
    rights = (task.answers(after) == targets) & (targets != -1)  # type: ignore[attr-defined]
    counted = sum(row.samples * (row.after.value or 0) for row in found.classes)
    assert counted == pytest.approx(int(rights.sum()))


def test_many_classes_have_no_whole_matrix() -> None:
    found = judge(Classification(60), labels(60, 300), scores(300, 60), scores(300, 60, seed=1))
    assert found.matrices == ()
    assert len(found.confused) == judged.MOST_CONFUSED


def test_too_many_pixels_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged, "MOST_ANSWERS", 500)
    targets = labels(3, 10, 20, 20)
    before, after = scores(10, 3, 20, 20), scores(10, 3, 20, 20, seed=1)
    found = judge(Segmentation(3), targets, before, after)
    assert found.samples == 500
    assert found.churn is not None
    whole = float((before.argmax(1) != after.argmax(1)).double().mean())
    assert found.churn.changed.value == pytest.approx(whole, abs=0.08)


@pytest.mark.parametrize("task", [Regression(), Reconstruction()])
def test_numbers_have_errors(task: object) -> None:
    targets, before = scores(40, 3, seed=2), scores(40, 3)
    after = before + 0.5 * scores(40, 3, seed=1)
    found = judge(task, targets, before, after).errors  # type: ignore[arg-type]
    assert found is not None
    assert found.rmse_after == pytest.approx(
        root_mean_squared_error(targets.flatten(), after.flatten()), rel=1e-6
    )
    each = (after - targets).square().mean(1).sqrt() - (before - targets).square().mean(1).sqrt()
    assert found.worse[0].row == int(each.argmax())
    assert all(row.after > row.before for row in found.worse)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="equal shape"):
        judge(Classification(3), labels(3, 5), scores(5, 3), scores(4, 3))
    with pytest.raises(ValueError, match="equal shapes"):
        errors(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 2)))
