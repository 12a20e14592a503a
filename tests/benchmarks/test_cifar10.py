from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from edgekit.errors import WorkloadError
from edgekit.opening import load_workload
from edgekit.training import evaluate


@pytest.fixture
def cifar10(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("cifar10", root / "benchmarks" / "workloads" / "cifar10.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("value", [None, "", "no/such/folder"])
def test_without_data_it_says_what_is_missing(
    value: str | None, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEKIT_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("EDGEKIT_DATA", value)
    with pytest.raises(WorkloadError, match="EDGEKIT_DATA"):
        load_workload(f"{root}/benchmarks/workloads/cifar10.py:resnet20")


@pytest.mark.parametrize(("blocks", "parameters"), [(3, 269_722), (9, 853_018)])
def test_networks_have_the_papers_size(blocks: int, parameters: int, cifar10: ModuleType) -> None:
    model = cifar10.ResNet(blocks).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.data
@pytest.mark.parametrize(("name", "score"), [("resnet20", 0.9173), ("resnet56", 0.9339)])
def test_trained_weights_reach_their_accuracy(name: str, score: float, root: Path, data_folder: Path) -> None:
    assert os.environ["EDGEKIT_DATA"]
    workload = load_workload(f"{root}/benchmarks/workloads/cifar10.py:{name}")
    workload.check()
    assert evaluate(workload.model, workload).score == pytest.approx(score, abs=5e-5)
