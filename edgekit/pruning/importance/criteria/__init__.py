"""The criteria of importance, one file each; docs/adding-a-criterion.md says how another one is added.

A file here holds a ``Criterion`` (base.py) by the name of ``ROW``, and is in the table by being there. They
are torch-pruning's measures by their names and formulas, computed here on slices.py: what a channel's weights
are is right there for grouped and depthwise convolutions, recurrent layers and bare parameters too. Where
torch-pruning and the paper differ, the paper counts: FPGM measures distances between filters (not between
their squares), Taylor includes batch norm, and Hessian averages over all samples (torch-pruning 1.6 keeps the
last one alone).

Reading the table needs no torch: what needs it is imported inside of methods.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from edgekit.pruning.importance.criteria.base import Backward, Criterion
from edgekit.tables import Table, collected

__all__ = ["CRITERIA", "Backward", "Criterion", "CriterionName", "tried"]

_ROWS: list[Criterion] = collected(__name__, __path__)
CRITERIA: Table[Criterion] = Table("criterion", sorted(_ROWS, key=lambda row: (row.tried is None, row.tried)))
CriterionName: TypeAlias = Annotated[str, AfterValidator(CRITERIA.check)]


def tried() -> tuple[str, ...]:
    """Those that ``importance: auto`` chooses among."""
    return tuple(name for name, row in CRITERIA.items() if row.tried is not None)
