"""Pipes, devices and sockets where a file should be: refused at once by every command, never waited for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from edgekit import checkpoint
from edgekit.bench.roundtrip import REFERENCE
from edgekit.cli import app as cli
from edgekit.errors import InputError, PlanError, RunFolderError, WeightsError
from edgekit.files import NotAFile, opened, read_bytes, read_text, require_file, sha256
from edgekit.formats.onnx.ends import companions
from edgekit.pipeline import compress
from edgekit.runs.folder import Damaged, read_record
from edgekit.stages.cutting import read_plan
from edgekit.weights import load_weights

KINDS = ("pipe", "device", "socket", "folder")
SECONDS = 120  # far more than any of it takes on a slow machine, and none that waits comes back


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make(kind: str, path: Path) -> Path:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's whole path may have about 100 characters
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(one) for one in arguments], prog_name="edgekit")


def refused(result: Result) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_none_is_opened(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path / "x")
    for read in (opened, read_bytes, read_text, require_file, sha256):
        with pytest.raises(OSError, match="not a file|No such device"):
            read(path)


def test_a_text_has_a_largest_size(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("12345")
    assert read_text(tmp_path / "x", most=5) == "12345"
    with pytest.raises(NotAFile, match="more than the 4"):
        read_text(tmp_path / "x", most=4)


COMMANDS: list[tuple[str, ...]] = [
    ("inspect", "{}.onnx"),
    ("inspect", "{}.tflite"),
    ("inspect", "{}.pt2"),
    ("inspect", "{}.py"),
    ("bench", "{}.onnx"),
    ("bench", "{}.pt2"),
    ("bench", str(REFERENCE / "check.onnx"), "--input", "{}.npy"),
    ("bench", str(REFERENCE / "check.onnx"), "--device", "{}.yaml"),
    ("export", "{}.pt2", "--format", "onnx"),
    ("export", "{}.py", "--format", "onnx"),
    ("compress", "{}.py"),
    ("compress", "--recipe", "{}.yaml"),
    ("compress", "--device", "{}.yaml"),
    ("recipe", "show", "{}.yaml"),
    ("recipe", "cp", "{}.yaml", "new.yaml"),
    ("device", "show", "{}.yaml"),
    ("compare", "{}.json"),
    ("gate", "{}.json", "--baseline", "{}.json"),
]


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: " ".join(command).replace(str(REFERENCE) + "/", "")
)
def test_no_command_waits_for_it(
    kind: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = next(Path(word.format("it")).suffix for word in command if "{}" in word)
    make(kind, tmp_path / f"it{place}")
    refused(call(*(word.format("it") for word in command)))


def test_listings_pass_it_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("devices", "recipes"):
        (tmp_path / kind).mkdir()
        os.mkfifo(tmp_path / kind / "waits.yaml")
    for command in ("device", "recipe"):
        listed = call(command, "ls", "--json")
        assert listed.exit_code == 0
        (row,) = (one for one in json.loads(listed.stdout) if "waits" in one["path"])
        assert row["fault"]


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_no_record_is_waited_for(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="can't be read"):
        read_record(make(kind, tmp_path / "manifest.json"))


@pytest.mark.wide
@pytest.mark.parametrize(
    ("kind", "name"),
    [("pipe", "run.json"), ("device", "manifest.json"), ("socket", "new"), ("pipe", "stages")],
)
def test_no_run_folder_holds_it(kind: str, name: str, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished / "run.json", run)
    (run / name).unlink(missing_ok=True)
    make(kind, run / name)
    for command in (("bench", run), ("export", run), ("bundle", run, "--target", "python"), ("report", run)):
        result = call(*command)
        refused(result)
        assert "what edgekit never makes" in result.stderr
    with pytest.raises(RunFolderError):
        compress(None, "quick", out=run)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_weights_plans_and_checkpoints(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path / "x.pt")
    with pytest.raises(WeightsError):
        load_weights(torch.nn.Linear(2, 2), path)
    with pytest.raises(PlanError):
        read_plan(path, torch.nn.Identity())
    found, reason = checkpoint.read(path, "x")
    assert found is None
    assert reason


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/dev/zero"])
def test_weights_beside_an_onnx_file(place: str, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "weights.bin")
    (tmp_path / "weights.bin").write_bytes(np.ones(4, "float32").tobytes())
    tensor = TensorProto(name="w", dims=[4], data_type=1, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    value = helper.make_tensor_value_info("x", 1, [4])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", 1, [4])],
        [tensor],
    )
    path = folder / "it.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert onnx.load(str(path), load_external_data=False).graph.node
    with pytest.raises(InputError, match="where none belong"):
        companions(path)
    refused(call("inspect", path))
    refused(call("bench", path))


def test_a_worker_on_the_device_doesnt_wait_either(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "it.pt2")
    code = "import sys; from edgekit.runtimes.device.runtime_torch import compiled; compiled(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "it.pt2")], capture_output=True, text=True, timeout=100
    )
    assert "is no file" in done.stderr
