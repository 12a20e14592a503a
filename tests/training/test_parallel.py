from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.errors import StageError
from edgekit.training.computing.parallel import Group, current, joined
from edgekit.training.data.batches import Batch
from tests.training import two_processes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes on this machine got."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.training.two_processes", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"process-{rank}" / "results.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", two_processes.CASES)
def test_two_processes_train_as_one(name: str, both: list[dict[str, Any]], tmp_path: Path) -> None:
    alone = two_processes.trained(name, tmp_path)
    assert alone["note"] == both[0][name]["note"] == both[1][name]["note"]
    assert ("diverged" in alone["note"]) == (name == "diverging")
    assert alone["loss"] == pytest.approx(both[0][name]["loss"], rel=1e-5)
    for key, value in alone["state"].items():
        torch.testing.assert_close(both[0][name]["state"][key], value, rtol=1e-5, atol=1e-5)


def test_both_end_with_the_same_bits(both: list[dict[str, Any]]) -> None:
    for name in (*two_processes.CASES, "normed"):
        first, second = (one[name]["state"] for one in both)
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_the_first_alone_writes(both: list[dict[str, Any]]) -> None:
    names = (*two_processes.CASES, "normed")
    assert both[0]["files"] == sorted(
        f"{name}/{file}" for name in names for file in ("checkpoint.pt", "training.csv")
    )
    assert both[1]["files"] == []


def test_batches_that_are_too_small_are_refused(both: list[dict[str, Any]]) -> None:
    for one in both:
        assert "3 samples for 2 processes" in one["small"]


def test_an_error_of_the_first_ends_all(both: list[dict[str, Any]]) -> None:
    assert both[0]["first"].startswith("ZeroDivisionError")
    assert "ZeroDivisionError" in both[1]["first"]
    assert both[1]["first"].startswith("StageError")


class TestAlone:
    def test_without_torchrun_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR"):
            monkeypatch.delenv(name, raising=False)
        with joined() as group:
            assert group == current() == Group(0, 1)

    def test_nothing_is_changed(self) -> None:
        group, model = Group(), torch.nn.Linear(1, 1)
        batch = Batch(torch.arange(3), torch.randn(3, 1), torch.zeros(3))
        values: Tensor = torch.randn(3)
        assert group.part(batch) is batch
        assert group.gather(values, 3) is values
        assert group.wrap(model) is model
        assert group.first(lambda: 7) == 7


@pytest.mark.parametrize(("count", "size"), [(8, 2), (7, 2), (7, 3), (9, 4)])
def test_every_sample_has_one_process(count: int, size: int) -> None:
    batch = Batch(torch.arange(count), torch.randn(count, 1), torch.zeros(count))
    rows = [Group(rank, size).part(batch).rows for rank in range(size)]
    assert torch.equal(torch.cat(rows), batch.rows)


def test_one_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import distributed

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("connection refused\nmore")

    monkeypatch.setattr(distributed, "init_process_group", refuse)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StageError, match="lost each other") as error, joined():
        pass
    assert error.value.got == "connection refused"
    assert "process 1" in error.value.where
