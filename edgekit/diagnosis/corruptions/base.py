"""What a corruption is to the rest, and what kinds of inputs there are to corrupt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.tables import Table

__all__ = ["SEVERITIES", "Change", "Corruption", "InputKind", "Samples", "Span", "View"]

SEVERITIES = (1, 2, 3, 4, 5)
Samples: TypeAlias = npt.NDArray[np.generic]
Span: TypeAlias = tuple[np.float32, np.float32]  # the values that are black and white
# Of values in the form of their kind, by an amount, with random numbers that are this corruption's own.
Change: TypeAlias = Callable[[npt.NDArray[Any], float, np.random.Generator], npt.NDArray[Any]]
# How samples are shown in a page: as a curve, as a picture with time to the right, as ids, or not at all.
View: TypeAlias = Literal["wave", "spectrogram", "ids", ""]


@dataclass(frozen=True)
class Corruption:
    """One row of the table of a kind of inputs.

    Args:
        name: in reports.
        change: gives changed values of the same shape, and leaves its argument as it is.
        amounts: its second argument at each of the five severities.

    Raises ValueError: not five amounts.
    """

    name: str
    change: Change
    amounts: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.amounts) != len(SEVERITIES):
            raise ValueError(f"{self.name}: expected {len(SEVERITIES)} amounts, got {len(self.amounts)}")


@dataclass(frozen=True)
class InputKind:
    """Inputs that suffer the same corruptions.

    Args:
        name: for messages.
        fits: whether raw samples (N, …) are of this kind; its second argument is the layout of their
            preprocessing.
        applied: has a function of values in the form that ``Change`` takes change samples: arguments are the
            samples, the layout, black and white if they are known, and the function.
        view: how samples of this kind are shown.
        corruptions: one row each.
    """

    name: str
    fits: Callable[[Samples, str], bool]
    applied: Callable[[Samples, str, Span | None, Callable[[Any], Any]], Samples]
    view: Callable[[Samples], View]
    corruptions: Table[Corruption]

    def corrupted(
        self,
        samples: Samples,
        layout: str,
        span: Span | None,
        name: str,
        severity: int,
        random: np.random.Generator,
    ) -> Samples:
        """A corrupted copy, of the same shape and type. Raises KeyError: there is no such corruption."""
        one = self.corruptions[name]
        amount = one.amounts[severity - 1]
        return self.applied(samples, layout, span, lambda values: one.change(values, amount, random))
