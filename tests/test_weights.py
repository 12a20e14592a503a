from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekit.errors import WeightsError
from edgekit.weights import load_weights


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def other_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict()


def same(model: nn.Module, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3, "best": 0.5},
        lambda w: {"model_state_dict": w},
        lambda w: {f"module.{k}": v for k, v in w.items()},
        lambda w: {"state_dict": {f"_orig_mod.module.{k}": v for k, v in w.items()}},
        lambda w: {f"module._orig_mod.{k}": v for k, v in w.items()},
        lambda w: {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["plain", "nested", "nested otherwise", "DataParallel", "compiled", "both", "old batch norm"],
)
def test_torch_files_as_training_scripts_write_them(wrap: Any, tmp_path: Path) -> None:
    model, weights = net(), other_weights()
    torch.save(wrap(weights), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert same(model, weights)


def test_legacy_format_and_half_precision(tmp_path: Path) -> None:
    model, weights = net(), {k: v.half() if v.is_floating_point() else v for k, v in other_weights().items()}
    torch.save(weights, tmp_path / "w.th", _use_new_zipfile_serialization=False)
    load_weights(model, tmp_path / "w.th")
    assert torch.equal(model.state_dict()["0.weight"], weights["0.weight"].float())


def test_safetensors(tmp_path: Path) -> None:
    model, weights = net(), other_weights()
    save_file(weights, tmp_path / "w.safetensors")
    load_weights(model, str(tmp_path / "w.safetensors"))
    assert same(model, weights)


class Bomb:
    """A pickle that runs a command when it is loaded carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", ["torch", "torch-legacy", "pickle"])
def test_code_in_a_pickle_is_never_executed(writer: str, tmp_path: Path) -> None:
    trace, path, model = tmp_path / "executed", tmp_path / "w.pt", net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bomb = {"state_dict": other_weights(), "extra": Bomb(trace)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(WeightsError) as error:
        load_weights(model, path)
    assert not trace.exists()
    assert same(model, before)
    assert "not executed" in str(error.value)
    assert "weights_only" not in str(error.value)


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="not plain tensors"):
        load_weights(net(), tmp_path / "w.pt")


def test_every_fault_is_listed_and_the_model_untouched(tmp_path: Path) -> None:
    weights = other_weights()
    weights["0.weight"] = torch.zeros(4, 5)
    weights["2.bias"] = weights.pop("0.bias")
    save_file(weights, tmp_path / "w.safetensors")
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_weights(model, tmp_path / "w.safetensors")
    for part in ("1 missing: 0.bias", "1 unexpected: 2.bias", "0.weight is (4, 5), the model has (4, 3)"):
        assert part in error.value.got
    assert same(model, before)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_files(name: str, damage: str, tmp_path: Path) -> None:
    path, weights = tmp_path / name, other_weights()
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"hello " * 50}[damage])
    with pytest.raises(WeightsError, match=name):
        load_weights(net(), path)


@pytest.mark.parametrize("content", [[1, 2], {}, torch.zeros(2), {"0.weight": 3}, {1: torch.zeros(2)}])
def test_files_without_named_tensors(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError):
        load_weights(net(), tmp_path / "w.pt")


def test_nan_weights(tmp_path: Path) -> None:
    weights = other_weights()
    weights["0.bias"][0] = float("nan")
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"NaN(.|\n)*0\.bias"):
        load_weights(net(), tmp_path / "w.pt")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing there"):
        load_weights(net(), tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="a folder"):
        load_weights(net(), tmp_path)
