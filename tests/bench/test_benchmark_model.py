"""Phones without Python: a shell of this machine as the phone, a script as benchmark_model."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgekit.bench import Candidate, Failure, Measurement
from edgekit.bench.benchmark_model import SAMPLE, measure_with_benchmark_model, without_python
from edgekit.bench.record import Result
from edgekit.bench.roundtrip import REFERENCE
from edgekit.devices.device import Device, load_device
from edgekit.devices.shell import ShellTransport
from edgekit.errors import MeasurementError
from edgekit.progress import Event

GOLDEN = Path(__file__).parent / "golden"

# Notes how it was called; says what OUTPUT holds, with the mean of its n-th call in it. Files that are named
# after a fault have it.
PROGRAM = """#!/bin/sh
folder=$(dirname "$0")
echo "$*" >> "$folder/calls"
for one in "$@"; do case $one in --graph=*) graph=${one#--graph=} ;; esac; done
[ -f "$graph" ] || { echo "ERROR: no file $graph" >&2; exit 1; }
case $graph in
  *refused*) echo "INFO: STARTING!"; echo "ERROR: Failed to load model $graph" >&2
             echo "ERROR: Benchmarking failed." >&2; exit 1 ;;
  *crashing*) kill -SEGV $$ ;;
  *silent*) echo "INFO: STARTING!"; exit 0 ;;
esac
n=$(wc -l < "$folder/calls")
case $* in
  *op_profiling*) cat "$folder/profiled.txt" ;;
  *) sed "s/avg=1.0575e+06/avg=$((1000 + n)).25/" "$folder/output.txt" ;;
esac
"""


@dataclass
class Channel:
    """A shell of this machine as a device. ``breaks_at``: the connection breaks once with this line."""

    name: str = "sh"
    env: dict[str, str] = field(default_factory=dict)
    breaks_at: str = ""
    revived: int = 0

    def argv(self, line: str) -> list[str]:
        if self.breaks_at and self.breaks_at in line:
            self.breaks_at = ""
            return ["sh", "-c", "exit 255"]
        return ["sh", "-c", line]

    def lost(self, returncode: int, stderr: str) -> str | None:
        return "unplugged" if returncode == 255 else None

    def revive(self) -> None:
        self.revived += 1

    def close(self) -> None:
        pass


@dataclass
class Phone:
    folder: Path
    channel: Channel
    device: Device
    link: ShellTransport
    events: list[Event] = field(default_factory=list)

    def measure(self, *files: Path, backend: str = "", runtime: str = "litert", **more: int) -> list[object]:
        candidates = [Candidate(one, runtime, 2, backend=backend) for one in files]  # type: ignore[arg-type]
        settings: dict[str, object] = {"min_seconds": 0.4, "min_runs": 30, "rounds": 4, **more}
        found = measure_with_benchmark_model(
            candidates,
            self.device,
            self.link,
            progress=self.events.append,
            **settings,  # type: ignore[arg-type]
        )
        return list(found)

    def result(self, file: Path, **more: object) -> Result:
        (found,) = self.measure(file, **more)  # type: ignore[arg-type]
        assert isinstance(found, Measurement), found
        return found.result

    def failure(self, file: Path, **more: object) -> MeasurementError:
        (found,) = self.measure(file, **more)  # type: ignore[arg-type]
        assert isinstance(found, Failure)
        return found.error

    @property
    def calls(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "calls").read_text().splitlines()]

    def says(self, text: str) -> bool:
        return any(text in event.message for event in self.events)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    monkeypatch.setattr("edgekit.devices.shell.BACK_OFF_SECONDS", (0.01,))
    program = tmp_path / "program"
    program.mkdir()
    (program / "benchmark_model").write_text(PROGRAM)
    (program / "benchmark_model").chmod(0o755)
    shutil.copy(GOLDEN / "plain.txt", program / "output.txt")
    shutil.copy(GOLDEN / "profiled.txt", program)
    device = Device(
        name="phone", transport="adb", runtimes=("litert",), benchmark_model=str(program / "benchmark_model")
    )
    channel = Channel()
    with ShellTransport(channel, device, str(tmp_path / "there")).connect() as link:
        yield Phone(program, channel, device, link)


def file(tmp_path: Path, name: str = "net") -> Path:
    """A real .tflite, for its shape."""
    target = tmp_path / f"{name}.tflite"
    shutil.copy(REFERENCE / "check.tflite", target)
    return target


def test_a_sample_is_the_mean_of_a_call(phone: Phone, tmp_path: Path) -> None:
    result = phone.result(file(tmp_path))
    # The first call is for loading; the rounds are calls 2 to 5, and their means are 1002.25 µs and so on.
    assert result.rounds == ((1_002_250,), (1_003_250,), (1_004_250,), (1_005_250,))
    assert (result.load, result.first) == (18_777_000, 64_791_000)
    assert (result.peak_rss_bytes, result.base_rss_bytes) == (30.75 * 2**20, 12.25 * 2**20)
    assert (result.backend, result.runtime, result.unit) == ("benchmark_model", "litert", "ns")
    assert (result.threads, result.batch, result.accuracy) == (2, 1, None)
    assert result.unstable is not None  # four samples say little
    assert phone.says(SAMPLE)
    assert phone.says("answers can't be checked")


def test_how_the_program_is_called(phone: Phone, tmp_path: Path) -> None:
    phone.result(file(tmp_path))
    loading, *rounds = phone.calls
    assert {"--num_threads=2", "--num_runs=1", "--report_peak_memory_footprint=true"} <= set(loading)
    for call in rounds:
        assert {"--num_threads=2", "--num_runs=8", "--min_secs=0.100000", "--use_xnnpack=true"} <= set(call)
        assert not [flag for flag in call if "report_peak" in flag or "profiling" in flag]
        longest = next(float(flag.partition("=")[2]) for flag in call if flag.startswith("--max_secs"))
        assert longest > 0.1 + 8 * 0.064791  # the runs fit, be they as slow as the first


def test_candidates_take_turns(phone: Phone, tmp_path: Path) -> None:
    phone.measure(file(tmp_path, "a"), file(tmp_path, "b"))
    names = [flag[-8] for call in phone.calls for flag in call if flag.startswith("--graph=")]
    assert "".join(names) == "ab" + "ab" + "ba" + "ab" + "ba"


def test_ops_come_from_a_call_of_their_own(phone: Phone, tmp_path: Path) -> None:
    result = phone.result(file(tmp_path), profile=20)
    assert result.ops[0].name == "Delegate/Convolution (NHWC, QS8) IGEMM:0"
    assert len(phone.calls) == 6
    assert {"--enable_op_profiling=true", "--num_runs=20"} <= set(phone.calls[-1])
    assert len(result.rounds) == 4


def test_no_profile_fails_nothing(phone: Phone, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "plain.txt", phone.folder / "profiled.txt")
    assert phone.result(file(tmp_path), profile=20).ops == ()
    assert phone.says("no profile of net.tflite")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refused", "exit code 1: ERROR: Failed to load model"),
        ("crashing", "killed by SIGSEGV"),
        ("silent", "0 lines of statistics"),
    ],
)
def test_what_happens_to_one_file_is_its_own_failure(
    phone: Phone, tmp_path: Path, name: str, words: str
) -> None:
    bad, good = phone.measure(file(tmp_path, name), file(tmp_path, "good"))
    assert isinstance(bad, Failure)
    assert words in bad.error.got
    assert f"{name}.tflite in litert" in bad.error.where
    assert isinstance(good, Measurement)
    assert len(good.result.rounds) == 4
    assert len([call for call in phone.calls if name in call[0]]) == 1  # it isn't tried again


def test_other_runtimes_need_a_python_there(phone: Phone, tmp_path: Path) -> None:
    error = phone.failure(file(tmp_path), runtime="onnxruntime")
    assert "set `python`" in error.next


@pytest.mark.parametrize(("executable", "what"), [(None, "isn't there"), (False, "can't be executed")])
def test_a_program_that_is_missing_says_how_to_push_it(
    phone: Phone, tmp_path: Path, executable: bool | None, what: str
) -> None:
    program = phone.folder / "benchmark_model"
    if executable is None:
        program.unlink()
    else:
        program.chmod(0o644)
    with pytest.raises(MeasurementError, match=what) as caught:
        phone.measure(file(tmp_path))
    assert ("adb push benchmark_model" in caught.value.next) == (executable is None)
    assert "adb shell chmod 755" in caught.value.next
    assert str(program) in caught.value.next


def test_a_program_of_another_architecture_is_no_answer(phone: Phone, tmp_path: Path) -> None:
    (phone.folder / "benchmark_model").write_bytes(b"\x7fELF" + bytes(60))
    error = phone.failure(file(tmp_path))
    assert "can't be started" in error.what or "refused" in error.what


def test_a_lost_connection_is_taken_up_again(phone: Phone, tmp_path: Path) -> None:
    phone.channel.breaks_at = "--num_runs=8"
    result = phone.result(file(tmp_path))
    assert (len(result.rounds), result.restarts) == (4, 1)
    assert phone.says("is back")


def test_a_delegate_that_did_nothing_is_no_measurement(phone: Phone, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "percentiles.txt", phone.folder / "output.txt")
    assert "it ignored --use_gpu=true" in phone.failure(file(tmp_path), backend="gpu").got
    error = phone.failure(file(tmp_path), backend="/data/libfoo.so")
    assert "--external_delegate_path=/data/libfoo.so" in error.expected
    assert phone.result(file(tmp_path)).backend == "benchmark_model"  # the default took what it knows


def test_a_delegate_is_named_beside_the_program(phone: Phone, tmp_path: Path) -> None:
    assert phone.result(file(tmp_path), backend="nnapi").backend == "benchmark_model, nnapi"
    assert "--use_nnapi=true" in phone.calls[-1]
    assert phone.result(file(tmp_path), backend="none").backend == "benchmark_model, none"
    assert "--use_xnnpack=false" in phone.calls[-1]


def test_a_build_with_another_default_says_so(phone: Phone, tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "litert.txt", phone.folder / "output.txt")
    assert phone.result(file(tmp_path)).peak_rss_bytes == 40.25 * 2**20
    assert phone.says("doesn't know --use_xnnpack")


def test_cores_are_bound_by_taskset(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phone.device = phone.device.model_copy(update={"affinity": (0,)})
    said = phone.folder / "taskset"
    said.write_text('#!/bin/sh\nmask=$1; shift; exec "$@" --bound=$mask\n')
    said.chmod(0o755)
    monkeypatch.setenv("PATH", f"{phone.folder}:/usr/bin:/bin")
    phone.result(file(tmp_path))
    assert all("--bound=1" in call for call in phone.calls)


def test_without_taskset_cores_can_not_be_bound(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "env", "flock", "sha256sum", "mkdir", "rm"):
        (tools / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(tools))
    phone.device = phone.device.model_copy(update={"affinity": (4, 5)})
    with pytest.raises(MeasurementError, match="no taskset") as caught:
        phone.measure(file(tmp_path))
    assert "`affinity`" in caught.value.next


def test_too_hot_it_rests(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edgekit.bench.benchmark_model.zones", lambda device, link: {"cpu-0-0": 55.0, "battery": 90.0}
    )
    phone.device = phone.device.model_copy(
        update={"temperature_limit_celsius": 50.0, "cooldown_seconds": 0.001}
    )
    result = phone.result(file(tmp_path))
    assert result.sensors == ({"temperature_celsius": 55.0},) * 4
    rests = [event for event in phone.events if "phone is at 55 °C; resting" in event.message]
    assert len(rests) == 3  # before each call but the first


def test_a_file_that_can_not_be_read_here_counts_one_sample_a_run(phone: Phone, tmp_path: Path) -> None:
    odd = tmp_path / "odd.tflite"
    odd.write_bytes(b"no flatbuffer")
    assert phone.result(odd).batch == 1
    assert phone.says("odd.tflite: a run is counted as one sample")


def test_which_devices_are_measured_so() -> None:
    assert without_python(load_device("android-phone"))
    assert not without_python(load_device("android-phone").model_copy(update={"python": sys.executable}))
    assert not without_python(load_device("raspberry-pi-5"))
    assert not without_python(Device(name="local", transport="local", benchmark_model="/b"))
