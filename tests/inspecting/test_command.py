"""``edgekit inspect``: what is printed, and where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgekit.cli import app as cli
from edgekit.devices import Device
from edgekit.inspecting import on_device
from edgekit.inspecting.on_device import describe

Files = dict[str, Path]

WORKLOAD = """
import torch
from torch import nn
from edgekit import Classification, Workload

print("the user's own print")


def workload():
    data = (torch.randn(6, 3, 8, 8), torch.arange(6) % 5)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)).eval()
    return Workload(name="mine", model=model, task=Classification(num_classes=5), train=data, validation=data)


def broken():
    return 1 / 0
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["inspect", *arguments], prog_name="edgekit")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(WORKLOAD, encoding="utf-8")
    return path


def test_the_demo() -> None:
    result = call("--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["name"] == "digits"
    assert found["totals"]["parameters"] == 223_658
    assert len(found["layers"]) == 11
    assert found["runtimes"]["litert"]["coverage"] == 1.0


def test_a_table_of_a_workload(mine: Path) -> None:
    result = call(str(mine), "--device", "local")
    assert result.exit_code == 0, result.stderr
    order = [
        "mine",
        "int8 in ONNX Runtime  100.0 %",
        "\nlayer",
        "convolution",
        "clamps",
        "on local",
    ]
    positions = [result.stdout.index(part) for part in order]
    assert positions == sorted(positions)


def test_only_json_on_stdout_in_a_real_process(mine: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgekit", "inspect", str(mine), "--json", "--device", "local"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"schema", "kind", "totals", "arena", "runtimes", "layers", "operators", "pruning"} <= found.keys()
    assert found["device"]["memory"]["suffices"]
    assert "the user's own print" in done.stderr


@pytest.mark.parametrize("kind", ["onnx", "tflite", "pt2", "onnx_fp32"])
def test_a_table_of_a_file(files: Files, kind: str) -> None:
    result = call(str(files[kind]), "--top", "3")
    assert result.exit_code == 0, result.stderr
    assert "tensor (3 of " in result.stdout
    for part in ("sha256", "input", "weights", "ops"):
        assert part in result.stdout
    assert ("still float" in result.stdout) == ("0 integer" in result.stdout)


def test_json_of_a_file_has_all_tensors(files: Files) -> None:
    found = json.loads(call(str(files["tflite"]), "--json", "--device", "local").stdout)
    assert len(found["tensors"]) == found["tensors_in_file"]
    assert found["device"]["runtimes"]["litert"]["applies"]
    assert found["device"]["memory"]["needed_bytes"] >= found["size_bytes"]


def test_what_was_given_wrong(mine: Path, files: Files, tmp_path: Path) -> None:
    for arguments, words in (
        ([str(mine.with_name("min.py"))], "did you mean 'mine.py'"),
        ([f"{mine}:worklod"], "did you mean 'workload'"),
        ([f"{mine}:broken"], "ZeroDivisionError"),
        ([str(files["onnx"].with_name("int.onnx"))], "did you mean 'int8.onnx'"),
        ([str(mine), "--device", "lokal"], "did you mean 'local'"),
        ([str(tmp_path)], "can't be read"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2, result.stdout
        assert words in result.stderr
        assert not result.stdout
        assert "Traceback" not in result.stderr or "mine.py" in result.stderr


def test_a_refused_file_is_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"1234TFL3 and nothing behind it")
    result = call(str(path), "--json")
    assert result.exit_code == 2
    assert "not a valid Flatbuffer" in result.stderr
    assert not result.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['edgekit', 'inspect', '--help']\nfrom edgekit.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "import edgekit.inspecting, edgekit.guarded\n"
        "print([n for n in ('torch', 'numpy', 'onnx') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == "[]"
    assert "--device" in done.stdout


# --- devices ---------------------------------------------------------------------------------------------

FACTS: dict[str, Any] = {
    "cpu": "a CPU",
    "isa": ["avx2", "fma"],
    "memory_bytes": 1000,
    "runtimes": {"onnxruntime": "1.2.3", "numpy": "2"},
}


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(on_device, "probe", lambda _: FACTS)
    return Device(name="board", transport="local")


def test_memory_runtimes_and_instructions_of_a_device(board: Device) -> None:
    found = describe(board, 1001)
    assert found["memory"] == {
        "bytes": 1000,
        "stated_by": "device",
        "needed_bytes": 1001,
        "suffices": False,
    }
    assert describe(board, 900, 101)["memory"] == found["memory"]
    assert describe(board, 1000)["memory"]["suffices"] is True
    assert found["flash"] is None
    assert describe(board, None)["memory"]["suffices"] is None
    assert found["runtimes"]["onnxruntime"] == {
        "applies": True,
        "version": "onnxruntime 1.2.3",
        "reason": "",
    }
    assert "pip install ai-edge-litert" in found["runtimes"]["litert"]["reason"]
    assert found["int8_dot_product"]["has"] is False
    assert "saturate" in found["int8_dot_product"]["note"]


def test_a_microcontroller_keeps_weights_in_flash() -> None:
    values: dict[str, Any] = {"memory_bytes": 1000, "flash_bytes": 5000}
    found = describe(Device(name="mcu", transport="none", **values), 1000, 5001)
    assert found["memory"]["suffices"] is True
    assert found["flash"] == {"bytes": 5000, "needed_bytes": 5001, "suffices": False}


def test_a_runtime_that_the_profile_leaves_out(board: Device) -> None:
    found = describe(board.model_copy(update={"runtimes": ("litert",)}), 1)
    assert not found["runtimes"]["onnxruntime"]["applies"]
    assert "lists only litert" in found["runtimes"]["onnxruntime"]["reason"]


@pytest.mark.parametrize("flag", ["avx512_vnni", "asimddp", "i8mm"])
def test_dot_products_by_their_flags(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setattr(on_device, "probe", lambda _: FACTS | {"isa": ["avx2", flag]})
    assert describe(Device(name="board", transport="local"), 1)["int8_dot_product"]["by"] == [flag]
