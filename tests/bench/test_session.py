"""What a benchmark makes of a device that does what devices do, on one in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bench import Candidate, Failure, Measurement, evaluate, measure
from edgekit.bench.benchmark import Check, benchmark, candidates_for, check_device_identity
from edgekit.bench.record import Record, read_record
from edgekit.devices.device import Device
from edgekit.devices.fake import FakeTransport, Fault
from edgekit.errors import ComparisonError, MeasurementError, OutOfMemoryError, UnreachableError
from edgekit.progress import Event

QUICK: dict[str, Any] = {"min_seconds": 0.0, "min_runs": 40}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path in made:
        path.write_bytes(path.name.encode())
    return made


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.arange(60, dtype=np.float32).reshape(10, 6))
    return tmp_path / "x.npy"


def candidates(files: tuple[Path, ...]) -> list[Candidate]:
    return [Candidate(path, "onnxruntime", 1) for path in files]


def test_what_the_device_measured_is_what_comes_home(files: tuple[Path, Path], sample: Path) -> None:
    link = FakeTransport(latency_ns={"a.onnx": 100, "b.onnx": 300})
    one, two = measure(candidates(files), link.device, sample=sample, transport=link, **QUICK)
    assert isinstance(one, Measurement)
    assert isinstance(two, Measurement)
    assert (set(one.raw_ns), set(two.raw_ns)) == ({100}, {300})
    assert len(one.result.rounds) == 20
    assert (one.result.load, one.result.first, one.result.restarts) == (500, 200, 0)
    assert link.log.count("lock alone") == 1
    assert link.log.index("lock alone") < link.log.index("load a.onnx")


@pytest.mark.parametrize("verb", ["push", "spawn", "load", "time"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_lost_connection_is_taken_up_again(
    files: tuple[Path, Path], sample: Path, verb: Any, nth: int
) -> None:
    events: list[Event] = []
    link = FakeTransport(latency_ns={"a.onnx": 100, "b.onnx": 300}, faults=[Fault("lost", verb, nth)])
    found = measure(
        candidates(files), link.device, sample=sample, transport=link, progress=events.append, **QUICK
    )
    assert all(isinstance(one, Measurement) and len(one.result.rounds) == 20 for one in found)
    assert link.log.count("reconnect") == 1
    assert sum(one.result.restarts for one in found if isinstance(one, Measurement)) == 1
    assert [event.message for event in events if "was lost" in event.message]


def test_a_device_that_never_comes_back_is_given_up(files: tuple[Path, Path], sample: Path) -> None:
    class Gone(FakeTransport):
        def reconnect(self) -> None:
            raise self.gone()

    link = Gone(faults=[Fault("lost", "time", 3)])
    found = measure(candidates(files), link.device, sample=sample, transport=link, **QUICK)
    assert all(isinstance(one, Failure) and isinstance(one.error, UnreachableError) for one in found)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("killed", "SIGKILL"),
        ("hang", "no answer in time"),
        ("garbage", "spoke no JSON"),
        ("refused", "not this file"),
        ("clock", "the clock went backwards"),
    ],
)
def test_a_worker_that_fails_takes_nobody_along(
    files: tuple[Path, Path], sample: Path, kind: Any, said: str
) -> None:
    link = FakeTransport(faults=[Fault(kind, "time", 4)])  # the second round is b, a: so it is a's
    one, two = measure(candidates(files), link.device, sample=sample, transport=link, **QUICK)
    assert isinstance(one, Failure)
    assert said in str(one.error)
    assert "a.onnx in onnxruntime, 1 thread on fake" in str(one.error)
    assert isinstance(two, Measurement)
    assert "reconnect" not in link.log
    assert not any(process.alive for process in link.processes)


@pytest.mark.parametrize(("kind", "said"), [("full", "disk is full"), ("damaged", "arrived damaged")])
def test_an_upload_that_fails_is_told(files: tuple[Path, Path], sample: Path, kind: Any, said: str) -> None:
    class OnModel(FakeTransport):
        def push(self, source: Path, name: str = "") -> str:
            if source.name == "a.onnx":
                raise MeasurementError(f"the device: {said}")
            return super().push(source, name)

    one, two = measure(
        candidates(files), Device(name="fake", transport="fake"), sample=sample, transport=OnModel(), **QUICK
    )
    assert isinstance(one, Failure)
    assert said in str(one.error)
    assert isinstance(two, Measurement)


def test_negative_times_are_refused(files: tuple[Path, Path], sample: Path) -> None:
    link = FakeTransport(latency_ns=lambda name, run: -5 if run == 7 else 100)
    (one,) = measure(candidates(files[:1]), link.device, sample=sample, transport=link, **QUICK)
    assert isinstance(one, Failure)
    assert "clock" in str(one.error)


def test_evaluating_in_parts_gives_the_same(files: tuple[Path, Path], sample: Path) -> None:
    link = FakeTransport()
    whole = evaluate(files[0], "onnxruntime", link.device, sample, transport=link)
    parts = FakeTransport(faults=[Fault("lost", "evaluate", 2)])
    again = evaluate(files[0], "onnxruntime", parts.device, sample, part_bytes=3 * 24, transport=parts)
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_allclose(whole[:, 0], np.load(sample).mean(axis=1))
    assert parts.log.count("evaluate a.onnx") == 5  # four parts, one of them twice
    assert "reconnect" in parts.log
    assert not [path for path in parts.files if "inputs" in path or "outputs" in path]


def test_an_emulated_device_counts_and_never_tells_nanoseconds(
    files: tuple[Path, Path], sample: Path
) -> None:
    device = Device(name="emulated", transport="emulated", cpu="cortex-a76")
    link = FakeTransport(device=device, latency_ns={"a.onnx": 680_000})
    (one,) = measure(candidates(files[:1]), device, sample=sample, transport=link)
    assert isinstance(one, Measurement)
    assert one.result.unit == "instructions"
    assert set(one.result.samples) == {680_000}
    with pytest.raises(ValueError, match="no nanoseconds"):
        _ = one.raw_ns


def test_a_record_says_everything_and_comes_back(
    files: tuple[Path, Path], sample: Path, tmp_path: Path
) -> None:
    link = FakeTransport(latency_ns={"a.onnx": 100, "b.onnx": 300})
    check = Check(lambda candidate: sample, lambda candidate, outputs: {"accuracy": 0.5})
    record = benchmark(
        candidates(files),
        link.device,
        sample=sample,
        names={files[0]: "artifacts/a.onnx"},
        check=check,
        transport=link,
        **QUICK,
    )
    assert [one.artifact for one in record.results] == ["artifacts/a.onnx", "b.onnx"]
    assert record.results[0].accuracy is not None
    assert (record.results[0].accuracy.accuracy, record.results[0].accuracy.samples) == (0.5, 10)
    assert record.about["board"] == "a fake board"
    assert link.log.index("evaluate a.onnx") < link.log.index("time a.onnx")  # right before fast
    record.save(tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record


def test_a_worker_that_is_killed_while_it_evaluates_has_fewer_samples_at_once(
    files: tuple[Path, Path], sample: Path
) -> None:
    told: list[str] = []
    link = FakeTransport(faults=[Fault("killed", "evaluate", nth) for nth in (1, 2)])
    again = evaluate(
        files[0],
        "onnxruntime",
        link.device,
        sample,
        transport=link,
        progress=lambda event: told.append(event.message),
    )
    np.testing.assert_allclose(again[:, 0], np.load(sample).mean(axis=1))
    assert [text.rpartition("; ")[2] for text in told if text] == [
        "going on with 16 at once",
        "going on with 4 at once",
    ]
    always = FakeTransport(faults=[Fault("killed", "evaluate", nth) for nth in range(1, 9)])
    with pytest.raises(OutOfMemoryError, match="answering 1 sample at once"):
        evaluate(files[0], "onnxruntime", always.device, sample, transport=always)


def test_a_file_that_answers_nothing_isnt_timed(files: tuple[Path, Path], sample: Path) -> None:
    link = FakeTransport(faults=[Fault("garbage", "evaluate", 1)])
    record = benchmark(
        candidates(files),
        link.device,
        sample=sample,
        check=Check(lambda one: sample),
        transport=link,
        **QUICK,
    )
    assert [one.artifact for one in record.failures] == ["a.onnx"]
    assert [one.artifact for one in record.results] == ["b.onnx"]
    assert "time a.onnx" not in link.log


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", "aarch64"), ("armv7l", "aarch64")])
def test_another_architecture_is_refused(machine: str, arch: Any) -> None:
    with pytest.raises(MeasurementError, match="isn't what its profile says"):
        check_device_identity(Device(name="x", transport="ssh", arch=arch), {"machine": machine})


def test_a_gpu_that_isnt_there_is_no_such_device() -> None:
    gpu = Device(name="gpu", transport="local", gpu="any", providers=("CUDAExecutionProvider",))
    with pytest.raises(MeasurementError, match="no such device"):
        check_device_identity(gpu, {"machine": "x86_64", "gpus": []})
    check_device_identity(gpu, {"machine": "x86_64", "gpus": ["NVIDIA H100"]})


def test_on_a_gpu_nothing_is_measured_on_the_cpu(tmp_path: Path) -> None:
    gpu = Device(
        name="gpu",
        transport="local",
        gpu="any",
        runtimes=("onnxruntime", "torch"),
        providers=("CUDAExecutionProvider",),
    )
    found = candidates_for(tmp_path / "a", gpu.runtimes, [1], gpu)
    assert [(one.runtime, one.backend) for one in found] == [
        ("onnxruntime", "CUDAExecutionProvider"),
        ("torch", "cuda"),
    ]


@pytest.mark.parametrize(
    ("machine", "arch"), [("arm64", "aarch64"), ("amd64", "x86_64"), ("armv8l", "armv7l")]
)
def test_other_names_of_an_architecture_are_known(machine: str, arch: Any) -> None:
    check_device_identity(Device(name="x", transport="ssh", arch=arch), {"machine": machine})


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema_version": "edgekit-bench/9"}', '{"schema_version": "edgekit-bench/1"}'],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ComparisonError):
        read_record(tmp_path / "x.json")
    with pytest.raises(ComparisonError, match="can't be read"):
        read_record(tmp_path / "absent.json")


def test_records_refuse_what_they_dont_know() -> None:
    with pytest.raises(ValueError, match="extra"):
        Record.model_validate({"surprise": 1})
