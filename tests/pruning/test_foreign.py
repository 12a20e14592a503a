"""Networks that are not edgekit's own, at their own resolution."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from edgekit.pruning.build import for_goal, prepare
from edgekit.pruning.goals.search import Goal, Limits

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm isn't installed: make reach"
)
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ghostnet_100", "densenet121", "mobilevit_xxs", "dpn48b"])
def test_foreign_networks_reach_what_is_asked(name: str) -> None:
    """The plan is checked as a whole at the real size (``for_goal`` does)."""
    import foreign

    network = foreign.make(f"timm:{name}")
    example = network.inputs(2, 1)
    built = for_goal(prepare(network.model, example), example, Goal(1.5), Limits(8, 0.75))
    assert 1.5 <= built.speedup <= 1.65
    assert all(cut.kept for cut in built.plan.cuts)
