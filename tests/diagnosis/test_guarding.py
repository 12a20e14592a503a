from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.diagnosis.guarding import LIMITS, breaches
from edgekit.diagnosis.judged import judge
from edgekit.diagnosis.record import Corrupted, Diagnosis
from edgekit.tasks import Classification, Regression

FILE = "artifacts/net_int8.onnx"


def logits(answers: list[int], sure: float = 4.0) -> torch.Tensor:
    return sure * torch.eye(2)[torch.tensor(answers)]


def found(**more: object) -> Diagnosis:
    """Class 0 falls from 100 to 75 %, class 1 stays at 75 %; group a loses, group b doesn't."""
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    before, after = [0, 0, 0, 0, 1, 1, 1, 0], [1, 0, 0, 0, 1, 1, 1, 0]
    groups = ["a", "b", "a", "b", "a", "b", "a", "b"]
    judged = judge(Classification(2), targets, logits(before), logits(after, 8.0), groups)
    corrupted = (Corrupted("noise", 1, 0.9, 0.85), Corrupted("noise", 2, 0.7, 0.71))
    values = {"probed": FILE, "probe_samples": 8, "corrupted": corrupted, **more}
    return Diagnosis(reference="original", files={FILE: judged}, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "grown"),
    [("worst_class_drop", 25.0), ("group_gap_increase", 0.0), ("corruption_drop", 2.0)],
)
def test_a_limit_is_kept_up_to_itself(limit: str, grown: float) -> None:
    assert breaches(found(), FILE, {limit: grown}) == []
    if grown:
        (broken,) = breaches(found(), FILE, {limit: grown - 0.1})
        assert broken.found == pytest.approx(grown)
        assert f"{limit} allows {grown - 0.1:g}" in broken.message


def test_the_group_gap_is_best_minus_worst_after_less_the_same_before() -> None:
    # Before: a 4 of 4, b 3 of 4. After: a 3 of 4, b 3 of 4. The gap shrank by 25 points.
    _, message = LIMITS["group_gap_increase"](found(), FILE)
    assert message == "the gap between groups grew from 25.0 to 0.0 points"


def test_the_calibration_error_is_that_of_the_answers() -> None:
    judged = found().files[FILE]
    assert judged.calibration_before is not None
    assert judged.calibration_after is not None
    grown = judged.calibration_after.ece - judged.calibration_before.ece
    # 7 of 8 are right with 1 / (1 + e^-4), then 6 of 8 with 1 / (1 + e^-8).
    sure = 1 / (1 + np.exp([-4.0, -8.0]))
    assert grown == pytest.approx(abs(sure[1] - 6 / 8) - abs(sure[0] - 7 / 8), abs=1e-6)
    assert breaches(found(), FILE, {"ece_increase": grown}) == []
    assert breaches(found(), FILE, {"ece_increase": grown - 1e-3})


def test_the_class_is_named_and_whether_it_may_be_chance() -> None:
    (broken,) = breaches(found(class_names=("cat", "dog")), FILE, {"worst_class_drop": 1.0})
    assert "class cat fell from 100.0 to 75.0 %, by 25.0 points (within chance, 4 samples)" in broken.message


def test_the_original_keeps_every_limit() -> None:
    assert breaches(found(), "original", dict.fromkeys(LIMITS, 0.0)) == []


def test_what_cannot_be_looked_at_is_not_kept() -> None:
    numbers = judge(Regression(), torch.zeros(4, 1), torch.zeros(4, 1), torch.ones(4, 1))
    nothing = Diagnosis(reference="original", files={FILE: numbers}, probed=FILE, missing=("it hung",))
    broken = breaches(nothing, FILE, dict.fromkeys(LIMITS, 100.0))
    assert [one.limit for one in broken] == list(LIMITS)
    assert all(one.found is None for one in broken)
    assert "it hung" in broken[-1].message
    assert (
        "its answers weren't kept"
        in breaches(Diagnosis(reference="original", files={}), FILE, {"worst_class_drop": 100.0})[0].message
    )
    # Another file was put to the probes than the one that is asked for.
    assert breaches(found(probed="another"), FILE, {"corruption_drop": 100.0})


def test_an_unknown_limit_is_an_error() -> None:
    with pytest.raises(KeyError):
        breaches(found(), FILE, {"mood": 1.0})
