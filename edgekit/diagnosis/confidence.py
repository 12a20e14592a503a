"""Whether a probability means what it says, and a temperature that mends it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from edgekit.diagnosis.classes import Labels

__all__ = ["BINS", "Bin", "Calibration", "Temperature", "calibration", "fit_temperature", "probabilities"]

BINS = 15
SURE = 0.9
_TEMPERATURES = (0.05, 20.0)
_FOLDS = 2

Scores = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in (low, high]: how sure they are, and how often they are right."""

    low: float
    high: float
    samples: int
    confidence: float | None  # mean; None without samples
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """``ece``: expected calibration error, 0…1. ``sure_but_wrong``: the share of all samples that is answered
    wrongly with a confidence above 0.9. ``wrong_confidence``: mean confidence of the wrong answers; None if
    there are none. ``nll``: mean negative logarithm of the right class's probability, in nats.
    """

    ece: float
    bins: tuple[Bin, ...]
    nll: float
    sure_but_wrong: float
    wrong_confidence: float | None


@dataclass(frozen=True)
class Temperature:
    """What class scores are to be divided by, and what that is worth on samples that it wasn't fitted on.

    ``ece_before``, ``ece_after``: each half of the samples judged with the other half's temperature.
    ``helps``: whether the error got smaller.
    """

    value: float
    ece_before: float
    ece_after: float

    @property
    def helps(self) -> bool:
        return self.ece_after < self.ece_before


def probabilities(logits: Scores, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Softmax over the last axis in float64, of scores divided by ``temperature``."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(-1, keepdims=True)
    grown = np.exp(scaled)
    found: npt.NDArray[np.float64] = grown / grown.sum(-1, keepdims=True)
    return found


def calibration(given: Scores, targets: Labels, *, bins: int = BINS) -> Calibration:
    """Expected calibration error and reliability diagram (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", §2: confidence is the largest probability, bins of equal width, the first one takes 0 as well).

    Args:
        given: (N, C) probabilities, N >= 1.
        targets: (N,).

    Raises ValueError for other shapes.
    """
    if given.ndim != 2 or targets.shape != given.shape[:1] or not len(targets):
        raise ValueError(f"expected (N, C) and (N,), got {given.shape} and {targets.shape}")
    answers, sure = given.argmax(1), given.max(1).astype(np.float64)
    right = answers == targets
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    confidences = np.bincount(place, weights=sure, minlength=bins)
    rights = np.bincount(place, weights=right, minlength=bins)
    own = np.take_along_axis(given, targets[:, None].astype(np.int64), 1)[:, 0].astype(np.float64)
    return Calibration(
        ece=float(np.abs(rights - confidences).sum() / len(targets)),
        bins=tuple(
            Bin(
                *(float(edges[i]), float(edges[i + 1]), int(counts[i])),
                float(confidences[i] / counts[i]) if counts[i] else None,
                float(rights[i] / counts[i]) if counts[i] else None,
            )
            for i in range(bins)
        ),
        nll=float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()),
        sure_but_wrong=float((~right & (sure > SURE)).mean()),
        wrong_confidence=float(sure[~right].mean()) if not right.all() else None,
    )


def fit_temperature(logits: Scores, targets: Labels) -> Temperature:
    """The temperature with the least negative log likelihood (Guo et al. 2017, §4.2).

    What it is worth is told for samples that it wasn't fitted on: those of the other half.

    Args:
        logits: (N, C), N >= 2.
        targets: (N,).

    Raises ValueError for other shapes.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or len(targets) < _FOLDS:
        raise ValueError(f"expected (N, C) and (N,), N >= 2, got {logits.shape} and {targets.shape}")
    fold = np.arange(len(targets)) % _FOLDS
    judged = np.empty(logits.shape, dtype=np.float64)
    for one in range(_FOLDS):
        value = _fit(logits[fold != one], targets[fold != one])
        judged[fold == one] = probabilities(logits[fold == one], value)
    return Temperature(
        _fit(logits, targets),
        calibration(probabilities(logits), targets).ece,
        calibration(judged, targets).ece,
    )


def _fit(logits: Scores, targets: Labels) -> float:
    scores = logits.astype(np.float64)
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        peak = scaled.max(1, keepdims=True)
        total = peak[:, 0] + np.log(np.exp(scaled - peak).sum(1))
        return float((total - scaled[rows, targets]).mean())

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
