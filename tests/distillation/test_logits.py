from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.training.distillation import dist_loss, distillation_loss, dkd_loss, standardize

Kind = Literal["standardized", "classical"]


def reference(
    student: np.ndarray[Any, Any], teacher: np.ndarray[Any, Any], kind: str, temperature: float
) -> float:
    """KL(teacher ‖ student) · T², written down as in the papers."""

    def softened(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if kind == "standardized":
            logits = (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)
        e: np.ndarray[Any, Any] = np.exp(logits / temperature)
        e /= e.sum(1, keepdims=True)
        return e

    p, q = softened(teacher), softened(student)
    return float((p * np.log(p / q)).sum(1).mean() * temperature**2)


def dkd_reference(
    student: np.ndarray[Any, Any],
    teacher: np.ndarray[Any, Any],
    targets: np.ndarray[Any, Any],
    alpha: float,
    beta: float,
    temperature: float,
) -> float:
    """alpha * TCKD + beta * NCKD, row by row, as in the paper's section 3."""
    total = 0.0
    for s, t, y in zip(student, teacher, targets, strict=True):
        p = [np.exp(side / temperature) / np.exp(side / temperature).sum() for side in (t, s)]
        hit = [np.array([side[y], 1 - side[y]]) for side in p]
        rest = [np.delete(side, y) / (1 - side[y]) for side in p]
        total += alpha * (hit[0] * np.log(hit[0] / hit[1])).sum()
        total += beta * (rest[0] * np.log(rest[0] / rest[1])).sum()
    return float(total / len(student) * temperature**2)


def dist_reference(
    student: np.ndarray[Any, Any],
    teacher: np.ndarray[Any, Any],
    inter: float,
    intra: float,
    temperature: float,
) -> float:
    """One minus the mean of Pearson's correlation of rows, and the same of columns."""
    s, t = (np.exp(side / temperature) for side in (student, teacher))
    s, t = s / s.sum(1, keepdims=True), t / t.sum(1, keepdims=True)
    rows = [np.corrcoef(a, b)[0, 1] for a, b in zip(s, t, strict=True)]
    columns = [np.corrcoef(a, b)[0, 1] for a, b in zip(s.T, t.T, strict=True)]
    return float(inter * (1 - np.mean(rows)) + intra * (1 - np.mean(columns)))


def logits(seed: int, rows: int = 6, classes: int = 5) -> torch.Tensor:
    return 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["standardized", "classical"])
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20))
def test_equals_the_reference(kind: Kind, seed: int, temperature: float) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    loss = distillation_loss(student, teacher, kind=kind, temperature=temperature)
    expected = reference(student.double().numpy(), teacher.double().numpy(), kind, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@given(seed=st.integers(0, 1000), scale=st.floats(0.05, 50), shift=st.floats(-30, 30))
def test_standardized_ignores_scale_and_shift_of_either_side(seed: int, scale: float, shift: float) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    plain = distillation_loss(student, teacher, kind="standardized", temperature=2.0)
    for s, t in ((student, scale * teacher + shift), (scale * student + shift, teacher)):
        moved = distillation_loss(s, t, kind="standardized", temperature=2.0)
        assert float(moved) == pytest.approx(float(plain), rel=1e-3, abs=1e-4)


def test_classical_does_see_the_scale() -> None:
    student, teacher = logits(0), logits(1)
    plain = distillation_loss(student, teacher, kind="classical", temperature=2.0)
    assert (
        abs(float(distillation_loss(student, 3 * teacher, kind="classical", temperature=2.0) - plain)) > 0.1
    )


@pytest.mark.parametrize("kind", ["standardized", "classical"])
@given(seed=st.integers(0, 1000))
def test_zero_at_the_teacher_and_positive_elsewhere(kind: Kind, seed: int) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    assert float(distillation_loss(teacher, teacher, kind=kind, temperature=2.0)) == pytest.approx(
        0, abs=1e-6
    )
    assert float(distillation_loss(student, teacher, kind=kind, temperature=2.0)) > 0


@given(seed=st.integers(0, 1000))
def test_standardized_rows_have_mean_0_and_deviation_1(seed: int) -> None:
    rows = standardize(logits(seed))
    assert torch.allclose(rows.mean(1), torch.zeros(6), atol=1e-5)
    assert torch.allclose(rows.std(1, correction=0), torch.ones(6), atol=1e-4)


@pytest.mark.parametrize("kind", ["standardized", "classical"])
def test_gradients_agree_with_finite_differences(kind: Kind) -> None:
    student, teacher = logits(3, rows=2), logits(4, rows=2)
    student.requires_grad_()
    distillation_loss(student, teacher, kind=kind, temperature=3.0).backward()
    assert student.grad is not None
    base, step = student.detach().double().numpy(), 1e-5
    for i in np.ndindex(*base.shape):
        up, down = base.copy(), base.copy()
        up[i] += step
        down[i] -= step
        want = teacher.double().numpy()
        slope = (reference(up, want, kind, 3.0) - reference(down, want, kind, 3.0)) / (2 * step)
        assert float(student.grad[i]) == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_constant_logits_give_finite_gradients() -> None:
    student = torch.zeros(4, 5, requires_grad=True)
    distillation_loss(student, logits(1, rows=4), kind="standardized", temperature=2.0).backward()
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())


def test_two_classes_are_classical_as_a_z_score_would_keep_the_sign_alone() -> None:
    student, teacher = logits(0, classes=2), logits(1, classes=2)
    standardized = distillation_loss(student, teacher, kind="standardized", temperature=2.0)
    assert torch.equal(standardized, distillation_loss(student, teacher, kind="classical", temperature=2.0))


def test_none_is_zero() -> None:
    assert float(distillation_loss(logits(0), logits(1), kind="none", temperature=2.0)) == 0


def test_half_precision_logits_are_computed_in_float32() -> None:
    student, teacher = logits(0).bfloat16(), logits(1).bfloat16()
    loss = distillation_loss(student, teacher, kind="standardized", temperature=2.0)
    assert loss.dtype == torch.float32
    full = distillation_loss(student.float(), teacher.float(), kind="standardized", temperature=2.0)
    assert torch.equal(loss, full)


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "temperature"),
    [
        ((3, 5), (3, 4), "classical", 1.0),
        ((5,), (5,), "classical", 1.0),
        ((3, 5), (3, 5), "classical", 0.0),
        ((3, 5), (3, 5), "cosine", 1.0),
        ((3, 5), (4, 5), "dkd", 1.0),
        ((3, 5), (3, 5), "dist", -1.0),
    ],
)
def test_nonsense_is_refused(student: Any, teacher: Any, kind: Any, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"logits|temperature|unknown"):
        distillation_loss(torch.zeros(student), torch.zeros(teacher), kind=kind, temperature=temperature)


@given(seed=st.integers(0, 1000), alpha=st.floats(0, 4), beta=st.floats(0, 10), temperature=st.floats(0.5, 8))
def test_dkd_equals_the_reference(seed: int, alpha: float, beta: float, temperature: float) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    targets = torch.randint(5, (6,), generator=torch.Generator().manual_seed(seed))
    loss = dkd_loss(student, teacher, targets, alpha=alpha, beta=beta, temperature=temperature)
    sides = student.double().numpy(), teacher.double().numpy()
    expected = dkd_reference(*sides, targets.numpy(), alpha, beta, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@given(seed=st.integers(0, 1000))
def test_dkd_is_classical_where_the_others_weigh_what_the_teacher_gives_them(seed: int) -> None:
    student, teacher = logits(seed, rows=1), logits(seed + 1, rows=1)
    others = 1 - float(torch.softmax(teacher / 3, 1)[0, 2])
    loss = dkd_loss(student, teacher, torch.tensor([2]), alpha=1.0, beta=others, temperature=3.0)
    classical = distillation_loss(student, teacher, kind="classical", temperature=3.0)
    assert float(loss) == pytest.approx(float(classical), rel=1e-3, abs=1e-4)


def test_dkd_without_targets_takes_the_teachers_answers() -> None:
    student, teacher = logits(0), logits(1)
    told = dkd_loss(student, teacher, teacher.argmax(1), temperature=2.0)
    assert torch.equal(dkd_loss(student, teacher, temperature=2.0), told)
    assert not torch.equal(dkd_loss(student, teacher, teacher.argmin(1), temperature=2.0), told)
    with pytest.raises(ValueError, match="targets"):
        dkd_loss(student, teacher, torch.zeros(5), temperature=2.0)


@given(seed=st.integers(0, 1000), inter=st.floats(0, 4), intra=st.floats(0, 4), temperature=st.floats(0.5, 8))
def test_dist_equals_the_reference(seed: int, inter: float, intra: float, temperature: float) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    loss = dist_loss(student, teacher, inter=inter, intra=intra, temperature=temperature)
    sides = student.double().numpy(), teacher.double().numpy()
    # Where a class has almost no probability anywhere, its spread is below what counts as one.
    if min(float(torch.softmax(x / temperature, 1).std(0).min()) for x in (student, teacher)) > 1e-4:
        assert float(loss) == pytest.approx(dist_reference(*sides, inter, intra, temperature), abs=1e-3)


@pytest.mark.parametrize("kind", ["dkd", "dist"])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_others_are_zero_at_the_teacher_with_gradients_that_lead_there(
    kind: Literal["dkd", "dist"], classes: int
) -> None:
    student, teacher = logits(0, classes=classes), logits(1, classes=classes)
    same = distillation_loss(teacher, teacher, kind=kind, temperature=2.0)
    assert float(same) == pytest.approx(0, abs=1e-5)
    student.requires_grad_()
    before = distillation_loss(student, teacher, kind=kind, temperature=2.0)
    before.backward()
    assert student.grad is not None
    after = distillation_loss(student - 0.1 * student.grad, teacher, kind=kind, temperature=2.0)
    assert after.item() < before.item()


def test_the_weights_of_dkd_and_dist_reach_them() -> None:
    student, teacher, targets = logits(0), logits(1), torch.tensor([0, 1, 2, 3, 4, 0])
    dkd = distillation_loss(student, teacher, kind="dkd", temperature=2.0, targets=targets, dkd=(2.0, 3.0))
    assert torch.equal(dkd, dkd_loss(student, teacher, targets, alpha=2.0, beta=3.0, temperature=2.0))
    dist = distillation_loss(student, teacher, kind="dist", temperature=2.0, dist=(2.0, 3.0))
    assert torch.equal(dist, dist_loss(student, teacher, inter=2.0, intra=3.0, temperature=2.0))


def test_dist_of_constant_scores_has_finite_gradients() -> None:
    student = torch.zeros(4, 5, requires_grad=True)
    dist_loss(student, logits(1, rows=4), temperature=2.0).backward()
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())


@pytest.mark.parametrize("kind", ["standardized", "classical", "dkd", "dist"])
def test_no_rows_are_no_loss(kind: Kind) -> None:
    student = torch.zeros(0, 5, requires_grad=True)
    loss = distillation_loss(student, torch.zeros(0, 5), kind=kind, temperature=2.0)
    assert loss.item() == 0
    loss.backward()
