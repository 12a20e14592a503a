"""Measuring exported files in their runtimes, on the devices where they will run."""

from __future__ import annotations

from edgekit.bench.measure import Candidate, Failure, Measurement, evaluate, measure

__all__ = ["Candidate", "Failure", "Measurement", "evaluate", "measure"]
