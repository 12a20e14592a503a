"""The report of a run: what came out, measured, and which file to take.

summary.py    the report's content, as kept in report.json
recommend.py  which file is recommended, and why
tabular.py    the report as rows, for tables and pandas
verdicts.py   what came out slower, larger or worse than it should, and why
"""

from __future__ import annotations

from edgekit.report.recommend import recommend
from edgekit.report.summary import (
    Artifact,
    Budget,
    BudgetRound,
    Counted,
    Failed,
    Figures,
    FloatLayer,
    InRuntime,
    LadderStep,
    LostChannel,
    LostChannels,
    Measured,
    Recommended,
    Report,
    Sensitive,
    StageRow,
    Warned,
)
from edgekit.report.verdicts import verdicts

__all__ = [
    "Artifact",
    "Budget",
    "BudgetRound",
    "Counted",
    "Failed",
    "Figures",
    "FloatLayer",
    "InRuntime",
    "LadderStep",
    "LostChannel",
    "LostChannels",
    "Measured",
    "Recommended",
    "Report",
    "Sensitive",
    "StageRow",
    "Warned",
    "recommend",
    "verdicts",
]
