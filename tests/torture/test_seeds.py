"""Inputs that once ended in a traceback, in a message of megabytes, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit import Workload
from edgekit.config.configfile import parse_yaml
from edgekit.devices import load_device
from edgekit.files import read_json, write_json
from edgekit.inspecting.artifact import format_of
from edgekit.pipeline import compress
from edgekit.pipeline.benchmarking import bench
from edgekit.pipeline.pruning import replay_plan
from edgekit.pipeline.samples_of_files import cut
from edgekit.pruning.plans.plan import Cut, Plan
from edgekit.recipe import load_recipe
from edgekit.report import page
from edgekit.runs.folder import RunFolder
from edgekit.runtimes.executorch import EXECUTORCH
from tests.pipeline import tiny
from tests.torture import mutations
from tests.torture.told import command, message

HEAD = "name: a\nstages: []\n"

CONFIGURATIONS = {
    "an alias bomb": mutations.BOMB,
    "an alias to itself": "a: &a [*a]",
    "a merge of itself": "a: &a {<<: *a}",
    "neither true nor false": "a: !!bool maybe",
    "no number": "a: !!int x",
    "a mapping that is text": "a: !!map x",
    "a date": "a: !!timestamp x",
    "20,000 digits": f"seed: {'9' * 20_000}",
    "5,000 hexadecimal digits": f"seed: 0x{'f' * 5000}",
    "half a surrogate pair": 'description: "\\uD800"',
    "NUL": 'description: "\\0"',
    "an escape sequence": 'description: "\\e[2J"',
    "a name of 300 characters": f"name: {'x' * 300}",
    "brackets of 50,000 levels": "[" * 50_000,
    "braces of 5,000 levels": "{a: " * 5000,
    "20,000 unknown keys": "\n".join(f'"\u202ekey{i}": {i}' for i in range(20_000)),
    "1,500 unknown keys": "\n".join(f'"\u202ekey{i}": {i}' for i in range(1500)),
    "keys that are no text": "{1: 2, ~: 3, 1.5: 4}",
    "a list as a key": "? [a]\n: b",
    "two documents": "--- a\n--- b",
    "a megabyte": "# " + "x" * (1 << 20),
    "a key of 100,000 characters": f"{'x' * 100_000}: 1",
    "1,000 wrong stages": "stages: [" + "{kind: x}, " * 1000 + "]",
}


@pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
@pytest.mark.parametrize("load", [load_recipe, load_device], ids=["recipe", "device"])
def test_a_configuration_is_told_to_be_none(tmp_path: Path, load: object, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    assert callable(load)
    assert message(lambda: load(path)).startswith("error: ")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"name: \x9b2J", b"\x00" * 99, "ü".encode("latin-1")])
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    for arguments in (("recipe", "check"), ("recipe", "show"), ("device", "show")):
        result = command(*arguments, str(path))
        assert all(one.isprintable() or one in "\n\t" for one in result.stdout)


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 5000) + "=1",
        f"stages[{'9' * 5000}].lr=1",
        "seed=" + "[" * 5000,
        "seed=" + "9" * 5000,
        "\x1b[2J=1",
        "a\udcff=1",
        "=",
        "",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_setting_that_is_none(text: str) -> None:
    assert message(lambda: load_recipe("mobile", [text]))


@pytest.mark.parametrize("suffix", ["", ".yaml", ".onnx", ".py"])
@pytest.mark.parametrize(
    "arguments", [("recipe", "check"), ("device", "show"), ("inspect",), ("bench",), ("report",)]
)
def test_a_name_of_300_characters(arguments: tuple[str, ...], suffix: str) -> None:
    assert command(*arguments, "x" * 300 + suffix).exit_code == 2


def test_aliases_and_merges_that_anybody_could_write_are_read() -> None:
    assert parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 2}\nz: [*x, *x]") == {
        "x": {"a": 1},
        "y": {"a": 1, "b": 2},
        "z": [{"a": 1}, {"a": 1}],
    }


# --- run folders -----------------------------------------------------------------------------------------

RECORDS = ("report.json", "diagnosis.json", "manifest.json", "baseline.json", "stages/2-prune/summary.json")
NO_RECORDS = {
    "not JSON": "{",
    "nested": "[" * 100_000,
    "NaN": '{"accuracy": NaN}',
    "a list": "[]",
    "other types": '{"artifacts": 3, "accuracy": "x", "diagnosis": [], "details": 1}',
    "5,000 digits": f'{{"accuracy": {"9" * 5000}}}',
}


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run's folder that may be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize("text", NO_RECORDS.values(), ids=NO_RECORDS)
def test_damaged_records_are_named_and_the_rest_is_shown(copy: Path, text: str) -> None:
    for name in RECORDS:
        whole = (copy / name).read_bytes()
        (copy / name).write_text(text)
        if name == "baseline.json":  # the report has its figures as well
            (copy / "report.json").rename(copy / "kept.json")
        run = page.load(copy)
        assert [line for line in run.missing if line.startswith(f"{name} is damaged")]
        assert f"{name} is damaged" in page.build([run], scripts=False)
        assert "Way of the run" in page.build([run], scripts=False) or name == "baseline.json"
        (copy / name).write_bytes(whole)
    assert command("report", str(copy), "--json").exit_code == 0


def test_folders_in_the_place_of_records(copy: Path) -> None:
    for name in (*RECORDS[:3], "stages/3-qat/training.csv"):
        (copy / name).unlink()
        (copy / name).mkdir()
    result = command("report", str(copy))
    assert result.exit_code == 0
    assert result.stderr.count("json") >= 3


@pytest.mark.parametrize("to", ["nowhere", RECORDS[0]], ids=["dangling", "loop"])
def test_links_in_the_place_of_records_are_followed_by_nobody(copy: Path, to: str) -> None:
    (copy / RECORDS[0]).unlink()
    (copy / RECORDS[0]).symlink_to(to)
    result = command("report", str(copy))
    assert result.exit_code == 2
    assert f"{RECORDS[0]}: a link to {to}" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "epoch,loss\n1,2,3\n",
        "loss\n1\n",
        "epoch,accuracy\n1,nan\n",
        "epoch\nx\n",
        "epoch\n\0\n",
        "a" * 200_000,
    ],
)
def test_a_damaged_training_log_is_named(copy: Path, text: str) -> None:
    log = copy / "stages/3-qat/training.csv"
    log.write_text(text)
    run = page.load(copy)
    wrong = [line for line in run.missing if line.startswith("stages/3-qat/training.csv is damaged")]
    assert wrong or text == "a" * 200_000  # a head alone is a log without epochs
    assert page.build([run], scripts=False)


def test_values_that_contradict_each_other_cost_one_section(copy: Path) -> None:
    report = json.loads((copy / "report.json").read_text())
    report["recommended"]["artifact"] = "\ud800"
    report["artifacts"] = report["artifacts"][:1] * 2
    report["baseline"]["macs"] = -1
    (copy / "report.json").write_text(json.dumps(report))
    assert command("report", str(copy)).exit_code == 0
    assert "Learning curves" in (copy / "report.html").read_text()


def test_a_whole_run_is_shown_whole(trained: Path) -> None:
    run = page.load(trained)
    assert run.missing == ()
    assert "damaged values" not in page.build([run], scripts=False)


@pytest.mark.parametrize("name", ["0x-a", "a-b", "9" * 5000 + "-x", "-"])
def test_a_folder_that_is_no_stage_is_passed_over(copy: Path, name: str) -> None:
    (copy / "stages" / name[:200]).mkdir()
    assert page.load(copy).cut


# --- samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((0, 3)), "no samples"),
        (np.zeros((3, 0)), "no samples"),
        (np.float32(1), "no samples"),
        (np.array([[1.0], [np.nan]]), "sample 1"),
        (np.array([[np.inf]]), "sample 0"),
        (np.zeros((2, 2), "c8"), "real numbers"),
        (np.zeros((2, 2), "U3"), "real numbers"),
        (np.zeros((2, 2), "M8[s]"), "real numbers"),
        (np.zeros((2, 2), object), "can't be read"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_samples_that_no_model_takes(tmp_path: Path, array: np.ndarray, expected: str) -> None:
    np.save(tmp_path / "x.npy", array)
    assert expected in message(cut, tmp_path / "x.npy", tmp_path / "y.npy", 4)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x09\x09"]
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_samples_that_are_no_array(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content)
    assert "can't be read" in message(cut, path, tmp_path / "y.npy", 4)


# --- words and names, before any work --------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x" * 300},
        {"name": "x\n"},
        {"classes": ["a", "b\ud800", "c", "d"]},
        {"groups": ["a\0"] * 64},
        {"about": {"license": "\udcff"}},
        {"about": {"\ud800": "x"}},
    ],
    ids=str,
)
def test_words_that_no_file_can_hold_are_refused_at_once(change: dict[str, Any]) -> None:
    whole = tiny.workload()
    given: dict[str, Any] = {
        "name": "tiny",
        "model": whole.model,
        "task": whole.task,
        "train": whole.train,
        "validation": whole.validation,
    }
    Workload(**given)
    assert message(lambda: Workload(**given | change)).startswith("error: Workload(")


def test_text_of_samples_with_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"text": "\ud800ü"})
    assert read_json(tmp_path / "x.json") == {"text": "\ud800ü"}


@pytest.mark.parametrize("name", ["report.json", "manifest.json", ".lock", "preflight.json"])
def test_a_folder_in_the_place_of_a_file_is_told_before_any_work(copy: Path, name: str) -> None:
    identity = json.loads((copy / "run.json").read_text())["run"]
    (copy / name).unlink()
    (copy / name).mkdir()
    assert f"{name} is a folder" in message(RunFolder.open, copy, identity)


def test_an_output_folder_that_is_no_utf_8(tmp_path: Path) -> None:
    assert "no UTF-8" in message(RunFolder.open, tmp_path / "\udcff", {})


@pytest.mark.parametrize(
    "call",
    [
        lambda path: format_of(path),
        lambda path: bench([path]),
        lambda path: cut(path, Path("y.npy"), 4),
        lambda path: replay_plan(path),
        lambda path: load_recipe(path),
        lambda path: load_device(path),
        lambda path: compress(None, "quick", out=path),
        lambda path: page.load(path),
    ],
    ids=["inspect", "bench", "samples", "plan", "recipe", "device", "out", "report"],
)
def test_nul_in_a_path(call: Callable[[Path], object], tmp_path: Path) -> None:
    """Only Python can give one: no command line holds it."""
    assert message(call, tmp_path / "a\0.onnx")


@pytest.mark.skipif(EXECUTORCH.installed(), reason="ExecuTorch is installed")
def test_a_file_for_a_runtime_that_isnt_installed(tmp_path: Path) -> None:
    (tmp_path / "x.pte").write_bytes(b"\0\0\0\0ET12")
    for name in ("bench", "inspect"):
        result = command(name, str(tmp_path / "x.pte"), "--quiet")
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 3
        assert "pip install 'edgekit-toolkit[executorch]'" in result.stderr


@pytest.mark.parametrize("kind", ["none", "pipe", "json", "another network's"])
@pytest.mark.parametrize("by", ["prune", "compress"])
def test_what_is_given_as_a_plan(kind: str, by: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "json":
        path.write_text("{}")
    elif kind != "none":
        path.write_text(Plan((Cut("nowhere", "out", 4, (0,)),), {}).to_json())
    if by == "prune":
        result = command("prune", "--plan", str(path), "--quiet")
    else:
        setting = "{kind: prune, plan: plan.json}, {kind: qat, training: {epochs: 0}}"
        (tmp_path / "x.yaml").write_text(f"name: x\nstages: [{setting}]\n".replace("plan.json", str(path)))
        told = ("--recipe", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "run"), "--quiet")
        result = command("compress", *told)
    assert result.exit_code == 2
    assert "plan" in result.stderr
    assert "leave the format out" not in result.stderr


def test_names_inside_a_model_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    tensor = onnx.helper.make_tensor_value_info("x\x1b[2J", onnx.TensorProto.FLOAT, [1, 3])
    out = onnx.helper.make_tensor_value_info("y\x07", onnx.TensorProto.FLOAT, [1, 3])
    node = onnx.helper.make_node("Relu", ["x\x1b[2J"], ["y\x07"], name="\u202e")
    graph = onnx.helper.make_graph([node], "g\x1b", [tensor], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "x.onnx"))
    result = command("inspect", str(tmp_path / "x.onnx"))
    assert result.exit_code == 0, result.stderr
    assert all(one.isprintable() or one == "\n" for one in result.stdout)


def test_no_file_can_be_opened_before_a_command_begins() -> None:
    """Its parser imports what help needs: that ended in a traceback."""
    script = (
        "import resource, sys\n"
        "from edgekit.cli.app import main\n"
        "sys.argv = ['edgekit', 'prune', '--help']\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no more files can be open at once" in done.stderr
    assert "Traceback" not in done.stderr
