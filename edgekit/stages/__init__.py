"""The table of stages. A new stage is one file here, one row, and one test file.

Reading the table needs no torch: stage files import it inside their functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgekit.stages import distill, prune, prune_config, qat
from edgekit.stages.base import Form, Stage

__all__ = ["STAGES"]

# What it is set with, how it runs, how its result is loaded again, what it takes and what it gives.
STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "distill": Stage(distill.DistillConfig, distill.distill, distill.load, Form.FLOAT, Form.FLOAT),
        "prune": Stage(prune_config.PruneConfig, prune.prune, prune.load, Form.FLOAT, Form.FLOAT),
        "qat": Stage(qat.QatConfig, qat.qat, qat.load, Form.FLOAT, Form.INT8),
    }
)
