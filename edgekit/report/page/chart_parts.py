"""What all charts are put together from: a view, its axes, its height."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "MOST_ROWS",
    "PERCENT",
    "Spec",
    "height_of",
    "nominal",
    "ordinal",
    "percent_axis",
    "quantity",
    "spec_of",
]

Spec = dict[str, Any]
PERCENT = ".1%"
MOST_ROWS = 60


def spec_of(rows: Sequence[Mapping[str, Any]], description: str, height: int, **more: Any) -> Spec:
    """One view, as wide as the page lets it be. ``height``: pixels."""
    return {
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": list(rows)},
        **more,
    }


def height_of(count: int, pixels: int, *, gaps: int = 0) -> int:
    """Height of so many rows, with axis and legend."""
    return count * pixels + gaps * 6 + 90


def quantity(field: str, title: str, **more: Any) -> Spec:
    """A channel that shows a number."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def nominal(field: str, title: str | None, **more: Any) -> Spec:
    """A channel that tells things apart."""
    return {"field": field, "type": "nominal", "title": title, **more}


def ordinal(field: str, title: str | None, **more: Any) -> Spec:
    """A channel whose values have an order."""
    return {"field": field, "type": "ordinal", "title": title, **more}


def percent_axis(**more: Any) -> Spec:
    """An axis of shares, in percent."""
    return {"format": "%", **more}
