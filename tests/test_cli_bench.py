"""``edgekit bench``, ``compare``, ``gate`` and ``device``, as they are called."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as xml

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from edgekit.bench.record import Record, read_record
from edgekit.bench.roundtrip import REFERENCE
from edgekit.cli import app as cli
from edgekit.errors import DiskFullError
from edgekit.pipeline import benchmarking

ONNX, LITERT = str(REFERENCE / "check.onnx"), str(REFERENCE / "check.tflite")
QUICK = ["--min-seconds", "0", "--min-runs", "400", "--quiet"]

# A shell that starts tests in the background has them ignore Ctrl-C, and their children too.
CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
CTRL_C += "from edgekit.cli.app import main; main()"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), prog_name="edgekit")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both check files, measured in turns on this machine, their answers asked."""
    path = tmp_path_factory.mktemp("bench") / "results.json"
    samples = str(REFERENCE / "samples.npy")
    result = call("bench", ONNX, LITERT, "--input", samples, "--out", str(path), *QUICK)
    assert result.exit_code == 0, result.output
    assert "check.onnx in onnxruntime, 1 thread" in result.output
    return path


def changed(results: Path, target: Path, factor: float, **values: object) -> Path:
    """The results of a device on which every run takes ``factor`` times as long."""
    record = read_record(results)
    slower = [
        one.model_copy(
            update={"rounds": tuple(tuple(round(value * factor) for value in part) for part in one.rounds)}
        )
        for one in record.results
    ]
    Record.model_validate(
        {**record.model_copy(update={"results": tuple(slower), **values}).model_dump()}
    ).save(target)
    return target


def test_bench_keeps_every_run(results: Path) -> None:
    record = read_record(results)
    assert [one.runtime for one in record.results] == ["onnxruntime", "litert"]
    assert all(len(one.rounds) == 20 and len(one.samples) >= 400 for one in record.results)
    assert all(one.accuracy is not None and one.accuracy.samples == 8 for one in record.results)


def test_compare_says_which_is_faster_or_that_it_cant_be_told(results: Path, tmp_path: Path) -> None:
    within = json.loads(call("compare", str(results), "--json").stdout)
    assert len(within["comparisons"]) == 1
    same = call("compare", str(results), str(changed(results, tmp_path / "same.json", 1.0)))
    assert "not distinguishable" in same.output
    slower = call("compare", str(results), str(changed(results, tmp_path / "slower.json", 4.0)))
    assert "slower" in slower.output


def test_an_emulated_device_isnt_compared_with_a_real_one(results: Path, tmp_path: Path) -> None:
    emulated = changed(results, tmp_path / "emulated.json", 1.0, emulated=True)
    result = call("compare", str(results), str(emulated))
    assert result.exit_code == 2
    assert "can't be compared" in result.output


def test_the_gate_closes_on_a_regression(results: Path, tmp_path: Path) -> None:
    junit = tmp_path / "gate.xml"
    passed = call("gate", str(results), "--baseline", str(results))
    assert passed.exit_code == 0, passed.output
    slower = changed(results, tmp_path / "slower.json", 4.0)
    failed = call(
        "gate", str(slower), "--baseline", str(results), "--max-slowdown", "5%", "--junit", str(junit)
    )
    assert failed.exit_code == 1
    assert "slower" in failed.output
    suites = xml.parse(junit).getroot()
    assert int(suites.get("failures", "0")) == len(suites.findall(".//failure")) == 2
    assert call("gate", str(slower), "--baseline", str(results), "--max-slowdown", "900%").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "absent.onnx"], "nothing to measure"),
        (["bench", str(REFERENCE / "samples.npy")], "no runtime for such a file"),
        (["bench", ONNX, "--device", "locl"], "did you mean 'local'"),
        (["bench", ONNX, "--threads", "many"], "no number of threads"),
        (["bench", ONNX, "--device", "mcu-cortex-m4"], "memory budget"),
        (["bench", ONNX, "--device", "raspberry-pi-5"], "edgekit device add my-board --like raspberry-pi-5"),
        (["compare", ONNX], "no JSON"),
        (["gate", ONNX, "--baseline", ONNX], "no JSON"),
        (["gate", ONNX, "--baseline", ONNX, "--max-slowdown", "5"], "%"),
        (["device", "start", "local"], "only emulated boards"),
        (["device", "show", "nowhere"], "unknown device"),
    ],
)
def test_what_was_given_wrong(arguments: list[str], words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_devices_are_listed_shown_and_checked() -> None:
    rows = {row["name"]: row for row in json.loads(call("device", "ls", "--json").stdout)}
    assert {"local", "raspberry-pi-5", "emulated-cortex-a76", "mcu-cortex-m4", "android-phone"} <= set(rows)
    assert not [row for row in rows.values() if "fault" in row]
    shown = json.loads(call("device", "show", "raspberry-pi-5", "--json").stdout)
    assert (shown["arch"], shown["transport"]) == ("aarch64", "ssh")
    checked = call("device", "check", "local", "--quiet")
    assert checked.exit_code == 0, checked.output
    assert "local can be used" in checked.output


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-c",
        CTRL_C,
        "bench",
        ONNX,
        "--min-seconds",
        "60",
        "--out",
        str(tmp_path / "r.json"),
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        argv,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    for _ in range(600):
        if any(tmp_path.glob("edgekit-work-*")):
            break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "it measures anew" in said
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_exit_code_2_for_bench_as_for_inspect(tmp_path: Path) -> None:
    for whole in (ONNX, LITERT):
        path = tmp_path / Path(whole).name
        path.write_bytes(Path(whole).read_bytes()[:300])
        for command in (
            ["bench", str(path), "--out", str(tmp_path / "o.json"), *QUICK],
            ["inspect", str(path)],
        ):
            result = call(*command)
            assert result.exit_code == 2, result.output
            assert path.name in result.stderr


def test_samples_that_do_not_fit_the_file_are_exit_code_2(tmp_path: Path) -> None:
    samples = np.load(REFERENCE / "samples.npy")
    np.save(tmp_path / "x.npy", np.concatenate([samples, samples], axis=-1))
    result = call(
        "bench", ONNX, "--input", str(tmp_path / "x.npy"), "--out", str(tmp_path / "o.json"), *QUICK
    )
    assert result.exit_code == 2, result.output
    assert "these samples don't fit the file" in result.stderr


def test_timings_that_can_not_be_written_are_kept_elsewhere(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = read_record(results)
    saved = Record.save

    def save(self: Record, path: Path) -> None:
        if path.name == "o.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        saved(self, path)

    monkeypatch.setattr(Record, "save", save)
    with pytest.raises(DiskFullError) as caught:
        benchmarking._saved(record, tmp_path / "o.json")
    kept = tmp_path / "bench-results/edgekit-o.json"
    assert str(kept) in caught.value.next
    assert read_record(kept) == record
