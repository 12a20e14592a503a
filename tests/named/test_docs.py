"""The task in docs/named-tensors.md: it is whole, and learns what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit import Ragged, Task
from edgekit.errors import EdgekitError
from edgekit.training.evaluation import evaluate
from tests.named import unequal


@pytest.fixture(scope="module")
def names(root: Path) -> dict[str, Any]:
    text = (root / "docs" / "named-tensors.md").read_text()
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", text, re.DOTALL)
    sounds, words = unequal.sounds(128, 1)
    test_sounds, test_words = unequal.sounds(32, 2)
    names: dict[str, Any] = {
        "__name__": "docs",
        "listener": lambda: unequal.Listener().eval(),
        "sounds": sounds,
        "words": words,
        "test_sounds": test_sounds,
        "test_words": test_words,
    }
    exec(compile(code, "named-tensors.md", "exec"), names)
    return names


def test_its_workload_is_taken(names: dict[str, Any]) -> None:
    workload = names["workload"]()
    workload.check()
    assert isinstance(workload.train.targets, Ragged)
    assert workload.task.describe() == {"kind": "words", "metric": "words that are right"}


def test_it_learns(names: dict[str, Any]) -> None:
    torch.manual_seed(0)
    workload = names["workload"]()
    before = evaluate(workload.model, workload).score
    task: Task = workload.task
    assert isinstance(workload.train.targets, Ragged)
    unequal.trained(workload.model, task, workload.train.inputs, workload.train.targets, 150)
    found = evaluate(workload.model, workload)
    assert found.score > before + 0.3
    assert task.agreement(found.outputs, found.outputs) == 1.0


def test_it_refuses_other_targets(names: dict[str, Any]) -> None:
    with pytest.raises(EdgekitError, match="no letters") as error:
        names["Words"]().check_targets(Ragged.of([[0.5], []]))
    assert "(n,) float32" in str(error.value)
