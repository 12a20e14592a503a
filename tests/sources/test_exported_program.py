"""``edgekit compress FILE.pt2 --data DIR``: a program of torch.export enters where others are captured."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit import load_model
from edgekit.errors import WorkloadError
from tests.pictures.made import folder as photos
from tests.sources.test_onnx_source import QUICK, called


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 2)).eval()


def save(path: Path, *, free: bool = True) -> None:
    example = torch.randn(2, 3, 32, 32)
    shapes = ({0: torch.export.Dim("batch")},) if free else None
    torch.export.save(torch.export.export(network(), (example,), dynamic_shapes=shapes), path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    return tmp_path


def test_the_whole_way(place: Path) -> None:
    save(place / "net.pt2")
    x = torch.randn(3, 3, 32, 32)
    assert torch.allclose(load_model("net.pt2")(x), network()(x), atol=1e-6)
    less = ("--set", "exports.formats=[onnx]")
    done = called("compress", "net.pt2", "--data", "photos", "--recipe", "quick", "-o", "run", *QUICK, *less)
    assert done.exit_code == 0, done.stderr
    files = {Path(one["file"]).name for one in json.loads(done.stdout)["artifacts"]}
    assert any("int8" in one for one in files)
    refused = called("compress", next(map(str, Path("run").rglob("int8_graph.pt2"))), "--data", "photos")
    assert refused.exit_code == 2
    assert "quantised already" in refused.stderr


def _fixed(path: Path) -> None:
    save(path, free=False)


def _damaged(path: Path) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[:500])


def _code(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", "1")
        archive.writestr("archive/data/sample_inputs/model.pt", b"cos\nsystem\n(S'touch gotcha'\ntR.")


def _in_train_mode(path: Path) -> None:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    _saved(nn.Sequential(*layers, nn.Linear(8, 2)).train(), path, torch.randn(2, 3, 32, 32))


class _Scaled(nn.Module):
    def forward(self, x: torch.Tensor, by: int) -> torch.Tensor:
        return x.mean((2, 3)) * by


class _Optional(nn.Module):
    def forward(self, x: torch.Tensor, more: torch.Tensor | None) -> torch.Tensor:
        return x.mean((2, 3))


def _with_nothing(path: Path) -> None:
    _saved(_Optional(), path, torch.randn(2, 3, 32, 32), None)


def _with_a_number(path: Path) -> None:
    _saved(_Scaled(), path, torch.randn(2, 3, 32, 32), 3)


def _saved(model: nn.Module, path: Path, *example: object) -> None:
    free = ({0: torch.export.Dim("batch")}, *[None] * (len(example) - 1))
    torch.export.save(torch.export.export(model, example, dynamic_shapes=free), path)


@pytest.mark.parametrize(
    ("spoil", "recipe", "told"),
    [
        (save, "mobile", "isn't distilled or pruned"),
        (_fixed, "quick", "the number of samples is fixed"),
        (_damaged, "quick", "damaged"),
        (_code, "quick", "nothing of it was executed"),
        (lambda path: None, "quick", "No such file"),
        (_in_train_mode, "quick", "a program in train mode: batch_norm, dropout"),
        (_with_a_number, "quick", "no tensor: by is a number (int)"),
        (_with_nothing, "quick", "no tensor: more is None"),
    ],
    ids=["mobile", "fixed", "damaged", "code", "gone", "train mode", "number", "None"],
)
def test_refused_in_one_message(spoil: object, recipe: str, told: str, place: Path) -> None:
    assert callable(spoil)
    spoil(place / "net.pt2")
    done = called("compress", "net.pt2", "--data", "photos", "--recipe", recipe, "--quiet")
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert not Path("runs").exists()
    assert not Path("gotcha").exists()


@pytest.mark.parametrize("precision", [(), ("--precision", "fp32"), ("--precision", "int8")])
def test_a_float_program_is_exported_without_a_workload(precision: tuple[str, ...], place: Path) -> None:
    save(place / "net.pt2")
    refused = called("export", "net.pt2", "my_workload.py", "--format", "onnx", *precision, "--quiet")
    assert refused.exit_code == 2
    assert "a float program, which is the source itself" in " ".join(refused.stderr.split())


def test_statistics_of_a_batch_norm_that_keeps_none_are_no_train_mode(place: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)).eval()
    x = torch.randn(2, 3, 8, 8)
    _saved(model, place / "net.pt2", x)
    assert torch.allclose(load_model("net.pt2")(x), model(x), atol=1e-6)


def test_a_file_has_its_own_classes(place: Path) -> None:
    save(place / "net.pt2")
    with pytest.raises(WorkloadError, match="a file's classes are fixed"):
        load_model("net.pt2", num_classes=10)
