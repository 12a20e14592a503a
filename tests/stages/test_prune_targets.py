"""What the prune stage can be told to aim at, and how it finds out what will be shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from edgekit.devices.device import Device, load_device
from edgekit.errors import DeviceError, MissingExtraError, PruneError, RecipeError
from edgekit.formats import FORMATS
from edgekit.pipeline import _require_extras
from edgekit.pruning.goals.shipped import Shipped
from edgekit.recipe import load_recipe
from edgekit.runtimes import RUNTIMES
from edgekit.stages.base import Shipping, StageContext, TrainingConfig
from edgekit.stages.prune import prune
from edgekit.stages.prune_config import PruneConfig
from edgekit.stages.shipping import identity, shipped_for
from tests.networks import seeded
from tests.pruning.goals.test_latency_table import Net
from tests.stages.workloads import context, workload

NONE = TrainingConfig(epochs=0)
BOARD = load_device("emulated-cortex-a76")
LOCAL = Device(name="mine", transport="local")


def shipping(
    *devices: Device,
    formats: tuple[str, ...] = ("onnx", "litert"),
    precisions: tuple[str, ...] = ("fp32", "int8"),
) -> Shipping:
    def refuse(device: Device) -> Any:
        raise AssertionError(f"{device.name} was asked")

    return Shipping(formats, precisions, devices, refuse, refuse)


def needed(runtime: str) -> None:
    if not RUNTIMES[runtime].installed():
        pytest.skip(f"needs the runtime: {RUNTIMES[runtime].install()}")


def test_twice_fewer_macs_are_the_target_if_none_is_given() -> None:
    assert PruneConfig().goal.speedup == 2.0
    assert PruneConfig(size_kb=9).goal.speedup == 1.0
    assert PruneConfig(size_kb=9).goal.size_bytes == 9000
    assert PruneConfig(latency_ms=1.5).goal.latency_ns == 1_500_000
    assert PruneConfig.model_validate(PruneConfig(latency_ms=1.5).model_dump()).goal.speedup == 1.0


def test_two_targets_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        ValidationError, match="speedup and latency_ms are all given, expected one main target"
    ):
        PruneConfig(speedup=2, latency_ms=3)
    path = tmp_path / "both.yaml"
    path.write_text(
        "stages: [{kind: prune, size_kb: 10, peak_memory_kb: 5}]\nexports: {precisions: [fp32]}\n"
    )
    with pytest.raises(RecipeError, match="size_kb and peak_memory_kb are all given"):
        load_recipe(path)
    assert PruneConfig(latency_ms=3, shrink=1.5).goal.shrink == 1.5


@pytest.mark.parametrize("wrong", [{"latency_ms": 0}, {"pruning_ratio": 1}, {"size_kb": -1}, {"threads": 0}])
def test_targets_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneConfig(**wrong)


def test_what_is_shipped_is_what_the_recipe_exports() -> None:
    config = PruneConfig(size_kb=10)
    assert identity(config, shipping(LOCAL)) == {"shipped": {"runtime": "litert", "precision": "int8"}}
    only = shipping(LOCAL, formats=("onnx",), precisions=("fp32",))
    assert identity(config, only) == {"shipped": {"runtime": "onnxruntime", "precision": "fp32"}}
    programs = shipping(LOCAL, formats=("executorch", "aotinductor"), precisions=("int8",))
    assert identity(config, programs) == {"shipped": {"runtime": "executorch", "precision": "int8"}}
    named = PruneConfig(size_kb=10, runtime="onnxruntime", precision="fp32")
    assert identity(named, shipping(LOCAL))["shipped"]["runtime"] == "onnxruntime"
    assert identity(PruneConfig(), shipping(LOCAL)) == {}  # MACs are the same everywhere


def test_time_is_measured_on_the_first_device_that_can_be_timed() -> None:
    found = identity(PruneConfig(latency_ms=1), shipping(BOARD, LOCAL))["shipped"]
    assert found["device"]["name"] == "mine"
    named = identity(PruneConfig(latency_ms=1, device="raspberry-pi-5"), shipping(LOCAL))["shipped"]
    assert named["device"]["name"] == "raspberry-pi-5"
    assert identity(PruneConfig(latency_ms=1), None)["shipped"]["device"]["name"] == "local"


def test_devices_that_are_unknown_or_count_instructions_are_refused(tmp_path: Path) -> None:
    work = workload(seeded(Net))
    setting, _ = context(work, tmp_path)
    with pytest.raises(DeviceError):
        identity(PruneConfig(latency_ms=1, device="raspbery-pi"), shipping(LOCAL))
    emulated = PruneConfig(latency_ms=1, device=BOARD.name)
    with pytest.raises(PruneError, match="counts instructions, which are no measure of time"):
        shipped_for(emulated, StageContext(work, work.model, tmp_path, shipping=shipping(BOARD)))
    assert shipped_for(PruneConfig(), setting) is None


def test_what_a_goal_is_looked_at_in_is_asked_for_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(FORMATS["executorch"]), "modules", ("no_such_module",))
    path = tmp_path / "aimed.yaml"
    stage = "{kind: prune, size_kb: 10, runtime: executorch, precision: fp32}"
    path.write_text(f"stages: [{stage}]\nexports: {{precisions: [fp32]}}\n")
    recipe = load_recipe(path)
    with pytest.raises(MissingExtraError, match=r"exporting executorch needs no_such_module"):
        _require_extras(recipe)


@pytest.mark.wide
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("executorch", marks=pytest.mark.slow)])
def test_the_stage_leaves_a_file_of_the_size(tmp_path: Path, runtime: str) -> None:
    needed(runtime)
    work = workload(seeded(Net))
    shipped = Shipped(runtime=runtime, precision="int8")
    whole = shipped.size_bytes(work.model, work.example(2))
    config = PruneConfig(
        size_kb=round(0.75 * whole / 1000, 3),
        channel_multiple=4,
        runtime=runtime,
        precision="int8",
        training=NONE,
    )
    result = prune(work.model, config, context(work, tmp_path)[0])
    told = result.details["size_kb"]
    assert shipped.size_bytes(result.model, work.example(2)) == pytest.approx(told["measured"] * 1000, abs=1)
    assert told["measured"] <= config.size_kb <= told["before"]
    assert result.details["shipped"]["precision"] == "int8"
    assert result.details["shipped"]["runtime"] == runtime


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "executorch"])
def test_the_stage_leaves_a_model_that_is_as_fast_as_asked_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    needed(runtime)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    work = workload(seeded(Net))
    torch.manual_seed(0)
    # As fast as it is.
    config = PruneConfig(latency_ms=1000, channel_multiple=16, runtime=runtime, training=NONE)
    result = prune(work.model, config, context(work, tmp_path / "stage")[0])
    told = result.details["latency_ms"]
    assert 0 < told["measured"] <= 1000
    assert result.details["shipped"]["device"] == "local"
    assert list((tmp_path / "cache" / "latency").glob(f"local-{runtime}-fp32-*.json"))
    again = PruneConfig(
        speedup=1.5, steps_by="latency", channel_multiple="auto", training=NONE, runtime=runtime
    )
    result = prune(work.model, again, context(work, tmp_path / "again")[0])
    assert result.details["speedup"] >= 1.5
    assert result.details["channel_multiple"]["taken"] in (4, 8, 16, 32)
    assert result.details["latency_ms"]["before"] > 0
