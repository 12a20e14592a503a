"""What the scripts of compression make of their measurements: ratios, bounds, plans and rows."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edgekit.bench import stats

Load = Callable[[str], Any]
OPTIONS = Namespace(
    epochs=8,
    channel_multiple=2,
    lr=0.05,
    peer_lr=None,
    seed=0,
    threads=2,
    prune_epochs=6,
    qat_epochs=1,
    factor=2.5,
    images=2560,
)

RESNET56 = Namespace(**vars(OPTIONS), device="cpu", plan=None, batch_size=None, weight=None, cutmix=0.0)


def valid(script: Load, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row fits the schema and JSON, and nobody shares its dictionaries."""
    for one in made:
        script("rows").check(one)
    read: list[dict[str, Any]] = json.loads(json.dumps(made, allow_nan=False))
    return read


# --- prune_accuracy, resnet56


@pytest.mark.parametrize(
    ("ours", "share"), [(0.92, 1.0), (0.90, 0.0), (0.91, 0.5), (0.93, 1.5), (0.89, -0.5), (0.905, 0.25)]
)
def test_share_of_the_peers_loss_that_is_won_back(ours: float, share: float, script: Load) -> None:
    assert script("prune_accuracy").won_back(0.92, ours, 0.90) == pytest.approx(share)


def test_a_peer_without_loss_leaves_nothing_to_win(script: Load) -> None:
    assert script("prune_accuracy").won_back(0.92, 0.93, 0.92) is None
    assert script("prune_accuracy").won_back(0.92, 0.91, 0.93) is None


def pruned(accuracy: float, macs: int) -> dict[str, Any]:
    return {"accuracy": accuracy, "macs": macs, "parameters": 10, "history": [], "samples": 10_000}


def test_the_stronger_peer_stands_first(script: Load, about: dict[str, Any]) -> None:
    found = {
        "original": pruned(0.92, 1000),
        "edgekit": pruned(0.915, 490),
        "peer-local": pruned(0.90, 500),
        "peer-global": pruned(0.91, 480),
    }
    made = valid(script, script("prune_accuracy").rows_of(found, OPTIONS, about))
    assert [one["peer"] for one in made] == [0.91, 0.90]
    assert [one["ratio"] for one in made] == pytest.approx([0.5, 0.75])
    assert "global" in made[0]["peer_name"]
    assert made[0]["edgekit_speedup"] == pytest.approx(1000 / 490)
    assert made[0]["samples"] == 10_000


def test_a_row_says_that_the_peer_lost_nothing(script: Load, about: dict[str, Any]) -> None:
    found = {key: pruned(0.92, 500) for key in ("original", "edgekit", "peer-local", "peer-global")}
    made = valid(script, script("prune_accuracy").rows_of(found, OPTIONS, about))
    assert {one["error"] for one in made} == {"the peer lost nothing"}


def test_both_sides_train_alike_but_for_the_method(script: Load) -> None:
    module = script("prune_accuracy")
    ours = module.edgekit_config(OPTIONS).training.model_dump()
    theirs = module.peer_training(OPTIONS).model_dump()
    assert {key for key in ours if ours[key] != theirs[key]} == {"distillation"}
    assert theirs["distillation"]["loss"] == "none"


def test_published_figures_are_named_as_such(script: Load, about: dict[str, Any]) -> None:
    found = {"original": pruned(0.9339, 2100), "edgekit": pruned(0.932, 1000)}
    made = valid(script, script("resnet56").rows_of(found, RESNET56, about))
    assert [one["peer"] for one in made] == [0.9346, 0.9377]
    assert all("published" in one["peer_name"] for one in made)
    assert made[0]["edgekit_speedup"] == pytest.approx(2.1)
    assert made[0]["ratio"] == pytest.approx(0.932 / 0.9346)
    assert {one["required_accuracy"] for one in made} == {0.93}


def test_with_a_gpu_more_is_asked_and_a_plan_says_what_is_cut(script: Load, about: dict[str, Any]) -> None:
    options = Namespace(
        **{**vars(RESNET56), "device": "cuda", "plan": Path("a/plan.json"), "batch_size": 256}
    )
    found = {"original": pruned(0.9339, 2100), "edgekit": pruned(0.932, 1000)}
    (one, _) = valid(script, script("resnet56").rows_of(found, options, about))
    assert one["required_accuracy"] == 0.938
    used = one["settings"]["edgekit"]
    assert (used["plan"], used["speedup"]) == ("a/plan.json", None)
    assert (used["training"]["device"], used["training"]["batch_size"]) == ("cuda", 256)
    assert used["training"]["distillation"]["features"]["kind"] == "attention"  # the recipe's


def test_no_weight_is_no_teacher(script: Load) -> None:
    options = Namespace(**{**vars(RESNET56), "weight": 0.0, "cutmix": 0.3})
    used = script("resnet56").config(options).training
    assert (used.distillation.loss, used.distillation.features, used.cutmix) == ("none", None, 0.3)


# --- pruning_realised


def test_what_is_realised_is_time_over_macs(script: Load, about: dict[str, Any]) -> None:
    models = {"original": nn.Conv2d(3, 8, 3), "edgekit": nn.Conv2d(3, 4, 3), "peer": nn.Conv2d(3, 2, 3)}
    times = {"original": 900, "edgekit": 500, "peer": 450}  # 2x fewer MACs, and 4x fewer
    timed = {name: ((time, time + 2),) * stats.rounds_needed() for name, time in times.items()}
    work = SimpleNamespace(example=lambda count: torch.zeros(count, 3, 8, 8))
    options = SimpleNamespace(rounds=stats.rounds_needed())
    one = script("pruning_realised").row_of("net", models, timed, work, about, {"cut": []}, options)
    valid(script, [one])
    assert one["edgekit"] == pytest.approx(901 / 501 / 2)
    assert one["peer"] == pytest.approx(901 / 451 / 4)
    assert one["edgekit_interval"][0] < one["edgekit"] < one["edgekit_interval"][1]


# --- kd_throughput


def test_throughput_is_compared_round_by_round(script: Load, about: dict[str, Any]) -> None:
    slow = [100.0, 50.0, 200.0]  # the machine's mood hits both sides of a round
    found = {"edgekit": [3 * speed for speed in slow], "peer": slow, "bound": [4 * s for s in slow]}
    (one,) = valid(script, script("kd_throughput").rows_of(found, OPTIONS, about))
    assert one["ratio"] == pytest.approx(3)
    assert "ratio_low" not in one  # three rounds support no interval
    assert one["bound_ratio"] == pytest.approx(4)
    assert one["rounds"][1] == {"edgekit": 150.0, "peer": 50.0, "bound": 200.0}


def test_enough_rounds_carry_an_interval(script: Load, about: dict[str, Any]) -> None:
    count = stats.rounds_needed()
    found = {"edgekit": [300.0 + turn for turn in range(count)], "peer": [100.0] * count}
    found["bound"] = [400.0] * count
    (one,) = valid(script, script("kd_throughput").rows_of(found, OPTIONS, about))
    assert one["ratio_low"] < one["ratio"] < one["ratio_high"]


# --- chain_wall_time


@given(
    seconds=st.floats(500, 50_000),
    epochs=st.tuples(st.integers(1, 30), st.integers(1, 10)),
    speeds=st.tuples(st.floats(20, 1000), st.floats(20, 1000)),
)
def test_a_plan_fills_its_time_in_the_right_proportion(
    seconds: float, epochs: tuple[int, int], speeds: tuple[float, float], script: Load
) -> None:
    first, second = script("chain_wall_time").split(seconds, epochs, speeds, 50_000, 128)
    a_step = 128 / speeds[0], 128 / speeds[1]
    taken = first * a_step[0] + second * a_step[1]
    assert taken == pytest.approx(seconds, abs=sum(a_step))
    assert first / epochs[0] == pytest.approx(second / epochs[1], abs=1 / epochs[0] + 1 / epochs[1])


def test_a_plan_has_a_step_of_each(script: Load) -> None:
    assert script("chain_wall_time").split(0.01, (6, 1), (100.0, 50.0), 512, 128) == (1, 1)


@pytest.mark.parametrize(
    ("accuracy", "bound"), [(0.90, "at least"), (0.9088, "at least"), (0.9090, "at most"), (0.92, "at most")]
)
def test_the_ratio_is_a_bound_of_the_right_kind(
    accuracy: float, bound: str, script: Load, about: dict[str, Any]
) -> None:
    ours = {"seconds": 600.0, "accuracy": 0.91, "starts": 1, "stages": []}
    theirs = {"seconds": 1500.0, "accuracy": accuracy, "accuracy_of": "the ONNX file"}
    made = script("chain_wall_time").rows_of(ours, theirs, OPTIONS, about, samples=10_000)
    (one,) = valid(script, made)
    assert one["ratio"] == 2.5
    assert one["bound"] == bound
    assert one["reached"] == (bound == "at most")
    assert one["interruptions"] == 0


def test_the_chain_is_a_valid_recipe(script: Load) -> None:
    recipe = script("chain_wall_time").recipe(OPTIONS)
    assert [stage.kind for stage in recipe.stages] == ["prune", "qat"]
    assert recipe.stages[0].training.epochs == 6
    assert recipe.exports.formats == ("onnx",)


# --- qat_recovers, keyword_spotting


def test_recovered_share_of_the_peers_drop(script: Load, about: dict[str, Any]) -> None:
    found: dict[str, dict[str, Any]] = {
        "float": {"accuracy": 0.90, "samples": 10_000},
        "qat": {"accuracy": 0.896},
        "ptq": {"accuracy": 0.87},
        "peer": {"accuracy": 0.88},
    }
    qat, ptq = valid(script, script("qat_recovers").rows_of(found, OPTIONS, about))
    assert qat["ratio"] == pytest.approx(0.8)
    assert ptq["ratio"] == pytest.approx(-0.5)
    assert "required" in qat
    assert "required" not in ptq
    assert qat["settings"]["edgekit"]["training"]["epochs"] == 8
    assert ptq["settings"]["edgekit"]["training"]["epochs"] == 0


def test_each_runtime_is_compared_with_its_own_fp32_file(script: Load, about: dict[str, Any]) -> None:
    def files(onnx: float, litert: float) -> dict[str, Any]:
        return {
            "onnxruntime": {"accuracy": onnx, "size_bytes": 10},
            "litert": {"accuracy": litert, "size_bytes": 20},
        }

    found = {
        "float": {"files": files(0.98, 0.97), "samples": 300},
        "qat": {"files": files(0.98, 0.98)},
        "ptq": {"files": files(0.95, 0.96)},
    }
    made = valid(script, script("keyword_spotting").rows_of(found, OPTIONS, about))
    assert [one["points"] for one in made] == pytest.approx([0, 1, -3, -1])
    assert ["required_points" in one for one in made] == [True, True, False, False]
    assert made[0]["points_of_one_clip"] == pytest.approx(1 / 3)
