from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgekit.training.logs import COLUMNS, csv_beside
from tests.training.nets import KillAfter, Killed, config, fit, seeded


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        return list(reader)


def test_a_row_for_each_epoch_with_what_the_history_says(tmp_path: Path) -> None:
    history = fit(seeded(), tmp_path, config(early_stopping={"held_out": 0.2}))
    found = rows(tmp_path / "training.csv")
    assert [{key: float(value) for key, value in row.items()} for row in found] == history.epochs


def test_the_columns_are_the_same_without_early_stopping(tmp_path: Path) -> None:
    fit(seeded(), tmp_path)
    assert [row["held_out"] for row in rows(tmp_path / "training.csv")] == [""] * 4


@pytest.mark.parametrize("number", [1, 3])
def test_a_training_that_goes_on_writes_no_row_twice(number: int, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(seeded(), tmp_path, progress=KillAfter(number))
    history = fit(seeded(), tmp_path)
    found = rows(tmp_path / "training.csv")
    assert [row["epoch"] for row in found] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in found] == [entry["loss"] for entry in history.epochs]


def test_a_log_that_was_not_written_before_the_kill_is_made_up_for(tmp_path: Path) -> None:
    fit(seeded(), tmp_path)
    (tmp_path / "training.csv").unlink()
    fit(seeded(), tmp_path)
    assert len(rows(tmp_path / "training.csv")) == 4


def test_another_checkpoint_in_the_same_folder_has_its_own_log(tmp_path: Path) -> None:
    assert csv_beside(tmp_path / "checkpoint.pt").name == "training.csv"
    assert csv_beside(tmp_path / "step-2.pt").name == "training-step-2.csv"
