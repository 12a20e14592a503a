"""The prune stage: cut, fine-tuned, stored without pickles, loaded and continued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit import macs
from edgekit.errors import PruneError, WeightsError
from edgekit.progress import Event
from edgekit.stages.base import StageContext, TrainingConfig
from edgekit.stages.prune import load, prune
from edgekit.stages.prune_config import PruneConfig
from edgekit.training import evaluate
from tests.networks import seeded
from tests.pruning.networks import ZeroPadded, asleep
from tests.stages.workloads import LABELS_ONLY, TRAINING, context, workload

CONFIG = PruneConfig(speedup=2.0, training=TRAINING)
LONGER = PruneConfig(speedup=2.0, training=LABELS_ONLY)


def test_the_model_shrinks_and_learns_to_do_without(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    setting, events = context(work, tmp_path)
    result = prune(work.model, LONGER, setting)
    example = work.example(1)
    assert result.changed
    assert macs.count(work.model, example).macs >= 2 * macs.count(result.model, example).macs
    assert evaluate(result.model, work).score > 0.6  # chance: 0.2
    assert not result.model.training
    assert all(torch.equal(before[name], value) for name, value in work.model.state_dict().items())
    assert {event.stage for event in events} == {"prune"}
    assert len(result.details["history"]) == LONGER.training.epochs


def test_the_result_says_what_was_kept_whole_and_why(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    result = prune(work.model, CONFIG, context(work, tmp_path)[0])
    assert result.note.startswith("3.00x fewer MACs, 1 layer cut (2x asked: the smallest step back, ")
    assert "; 1 kept whole (conv2: 16 of its 32 " in result.note
    assert {row["layer"] for row in result.details["kept_whole"]} == {"conv2", "head"}
    assert result.details["cut"] == [
        {"layer": "conv1", "channels_before": 32, "channels_after": 8},
    ]
    assert json.loads(json.dumps(result.details)) == result.details


def test_the_folder_holds_plain_data_from_which_the_result_loads(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    setting, _ = context(work, tmp_path)
    result = prune(work.model, CONFIG, setting)
    files = ["plan.json", "summary.json", "training.csv", "weights.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    again = load(work.model, CONFIG, setting)
    assert (again.changed, again.note, again.details) == (result.changed, result.note, result.details)
    x = work.example(8)
    assert torch.equal(again.model(x), result.model(x))
    assert repr(again.model) == repr(result.model)


def test_a_killed_stage_continues_to_the_same_result(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    config = PruneConfig(speedup=2.0, importance="random", training=TRAINING.model_copy(update={"epochs": 4}))
    whole = prune(work.model, config, context(work, tmp_path / "whole")[0])

    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 3:
            raise Killed

    folder = tmp_path / "killed"
    folder.mkdir()
    with pytest.raises(Killed):
        prune(work.model, config, StageContext(work, work.model, folder, 0, kill))
    assert (folder / "checkpoint.pt").exists()
    setting, events = context(work, folder)
    continued = prune(work.model, config, setting)
    assert any("continuing after epoch 2" in event.message for event in events)
    assert not (folder / "checkpoint.pt").exists()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, continued.model.state_dict()[name]), name
    assert whole.details["cut"] == continued.details["cut"]
    assert (tmp_path / "whole" / "plan.json").read_bytes() == (folder / "plan.json").read_bytes()


@pytest.mark.wide
def test_a_plan_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    setting, _ = context(work, tmp_path)
    prune(work.model, CONFIG, setting)
    result = prune(work.model, CONFIG.model_copy(update={"speedup": 1.2}), setting)
    assert result.details["cut"][0]["channels_after"] == 24


def test_without_training_the_model_is_cut_all_the_same(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    config = PruneConfig(speedup=1.5, training=TrainingConfig(epochs=0))
    result = prune(work.model, config, context(work, tmp_path)[0])
    conv = result.model.get_submodule("conv1")
    assert isinstance(conv, nn.Conv2d)
    assert conv.out_channels == 16
    assert result.details["history"] == []


@pytest.mark.wide
def test_taylor_importance_reads_training_data(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    config = PruneConfig(speedup=1.5, importance="taylor", training=TrainingConfig(epochs=0))
    plans: list[str] = []
    for seed in (0, 0):
        folder = tmp_path / str(len(plans))
        prune(work.model, config, context(work, folder, seed)[0])
        plans.append((folder / "plan.json").read_text())
    assert plans[0] == plans[1]


def test_out_of_reach_leaves_nothing_behind(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    with pytest.raises(PruneError, match="at most 4.90x"):
        prune(work.model, PruneConfig(speedup=10), context(work, tmp_path)[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.wide
@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("plan.json", None, PruneError),
        ("plan.json", "{}", PruneError),
        ("summary.json", None, PruneError),
        ("summary.json", "[]", PruneError),
        ("weights.safetensors", None, WeightsError),
        ("weights.safetensors", "junk", WeightsError),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, name: str, content: str | None, error: type[Exception]
) -> None:
    work = workload(seeded(ZeroPadded))
    setting, _ = context(work, tmp_path)
    config = PruneConfig(speedup=1.5, training=TrainingConfig(epochs=0))
    prune(work.model, config, setting)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=name):
        load(work.model, config, setting)


@pytest.mark.wide
def test_blocks_leave_in_two_steps(tmp_path: Path) -> None:
    """The first cut leaves channels of every block, the second may take a block that was cut."""
    work = workload(asleep("stages.0.1", "stages.1.1"))
    config = PruneConfig(
        speedup=2.2, blocks="may_leave", channel_multiple=4, steps=2, recovery=TRAINING, training=TRAINING
    )
    result = prune(work.model, config, context(work, tmp_path)[0])
    gone = [row["block"] for row in result.details["removed_blocks"]]
    assert gone
    assert f"{', '.join(gone)} left out" in result.note
    assert all(isinstance(result.model.get_submodule(name), nn.Identity) for name in gone)
    assert result.details["speedup"] >= 2.2
    again, x = load(work.model, config, context(work, tmp_path)[0]), work.example(8)
    assert torch.equal(again.model(x), result.model(x))


def test_blocks_may_leave_where_time_is_aimed_at() -> None:
    assert not PruneConfig(speedup=2.0).blocks_may_leave
    assert PruneConfig(latency_ms=1.0).blocks_may_leave
    assert PruneConfig(speedup=2.0, steps_by="latency").blocks_may_leave
    assert not PruneConfig(latency_ms=1.0, blocks="stay").blocks_may_leave
    assert PruneConfig(size_kb=100.0, blocks="may_leave").blocks_may_leave
