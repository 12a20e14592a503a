"""The table of stages."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from edgekit.stages import STAGES
from edgekit.stages.base import Form
from edgekit.stages.distill import DistillConfig
from edgekit.stages.prune_config import PruneConfig


def test_every_row_names_its_own_kind() -> None:
    assert list(STAGES) == ["distill", "prune", "qat"]
    for kind, stage in STAGES.items():
        config = stage.config(kind=kind)
        assert config.kind == kind
        assert stage.config.model_validate(config.model_dump()) == config


def test_a_chain_of_all_stages_fits_together() -> None:
    form = Form.FLOAT
    for stage in STAGES.values():
        assert stage.requires is form
        form = stage.ensures
    assert form is Form.INT8


def test_reading_the_table_needs_no_torch() -> None:
    heavy = "('torch', 'torch_pruning', 'nncf')"
    code = f"import sys, edgekit.stages; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "values",
    [{"speedup": 1.0}, {"speedup": 65}, {"channel_multiple": 0}, {"max_ratio": 1.0}, {"importance": "best"}],
)
def test_prune_settings_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PruneConfig.model_validate(values)


@pytest.mark.parametrize(
    "values", [{"student": "width"}, {"width": 1.0}, {"width": 0.0}, {"student": "teacher"}]
)
def test_distill_settings_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DistillConfig.model_validate(values)
