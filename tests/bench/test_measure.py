from __future__ import annotations

import ast
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench import Candidate, Failure, Measurement, evaluate, measure, stats
from edgekit.bench.measure import ROUNDS
from edgekit.devices import Device
from edgekit.errors import MeasurementError
from edgekit.progress import Event

QUICK: dict[str, Any] = {"min_seconds": 0.02, "min_runs": 30}


def direct(path: Path, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """ONNX Runtime in this process, one sample after the other."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": one[None]})[0] for one in inputs])


def direct_litert(path: Path, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """LiteRT in this process, on inputs that fit the file as they are."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    outputs = []
    for one in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], one[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(outputs)


@pytest.mark.parametrize("batch", [1, 3, 7, 64])
def test_evaluate_equals_the_runtime_in_this_process(
    conv: Path, images: Path, device: Device, batch: int
) -> None:
    outputs = evaluate(conv, "onnxruntime", device, images, batch=batch)
    assert outputs.shape == (7, 4)
    np.testing.assert_allclose(outputs, direct(conv, np.load(images)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fixed", [1, 3])
def test_evaluate_takes_a_fixed_batch_from_the_file(
    make_conv: Callable[[int | str], Path], conv: Path, images: Path, device: Device, fixed: int
) -> None:
    """Seven samples in a file that takes three: the last call is filled up, and the filling is cut off."""
    outputs = evaluate(make_conv(fixed), "onnxruntime", device, images, batch=64)
    np.testing.assert_allclose(outputs, direct(conv, np.load(images)), rtol=1e-5, atol=1e-6)


def test_evaluate_transposes_for_a_channels_last_file_and_back(
    channels_last: tuple[Path, Path], tmp_path: Path, device: Device
) -> None:
    import torch

    told = torch.load(channels_last[1], weights_only=True)
    inputs = told["inputs"].numpy()
    np.save(tmp_path / "x.npy", inputs)
    raw = evaluate(channels_last[0], "litert", device, tmp_path / "x.npy", batch=16)
    assert raw.shape == (5, 8, 6, 2)
    np.testing.assert_array_equal(
        raw, direct_litert(channels_last[0], np.ascontiguousarray(np.moveaxis(inputs, 1, -1)))
    )
    back = evaluate(channels_last[0], "litert", device, tmp_path / "x.npy", output_shape=(2, 8, 6))
    np.testing.assert_allclose(back, told["outputs"].numpy(), rtol=1e-4, atol=1e-5)


def test_evaluate_quantises_and_dequantises_integer_input_and_output(
    integer: Path, tmp_path: Path, device: Device
) -> None:
    inputs = np.random.default_rng(5).uniform(-8, 8, (9, 6)).astype(np.float32)  # beyond int8's range as well
    np.save(tmp_path / "x.npy", inputs)
    outputs = evaluate(integer, "litert", device, tmp_path / "x.npy")
    raw_inputs = np.clip(np.rint(inputs / np.float32(0.05)) + 3, -128, 127).astype(np.int8)
    raw_outputs = direct_litert(integer, raw_inputs)
    assert raw_outputs.dtype == np.int8
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, (raw_outputs.astype(np.float32) + 5) * 0.1, rtol=1e-6)
    assert len(np.unique(outputs)) > 5


def test_evaluate_takes_token_ids(tokens: Path, tmp_path: Path, device: Device) -> None:
    ids = np.array([[1, 2, 3], [9, 0, 4]], dtype=np.int64)
    np.save(tmp_path / "ids.npy", ids)
    outputs = evaluate(tokens, "onnxruntime", device, tmp_path / "ids.npy")
    np.testing.assert_array_equal(outputs, direct(tokens, ids))


def test_evaluate_tells_its_progress(conv: Path, tmp_path: Path, device: Device) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1000, 3, 8, 6), dtype=np.float32))
    events: list[Event] = []
    evaluate(conv, "onnxruntime", device, tmp_path / "x.npy", batch=1, progress=events.append)
    assert events
    assert all(event.stage == "evaluate" and event.total == 1000 for event in events)
    assert [event.done for event in events] == sorted(event.done for event in events)


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((2, 3, 8, 7), "float32", "shape"),
        ((2, 6), "float32", "shape"),
        ((0, 3, 8, 6), "float32", "no samples"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    conv: Path, tmp_path: Path, device: Device, shape: tuple[int, ...], dtype: str, says: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, dtype))
    with pytest.raises(MeasurementError, match=says) as caught:
        evaluate(conv, "onnxruntime", device, tmp_path / "x.npy")
    assert "conv-n.onnx in onnxruntime, 1 thread on here" in str(caught.value)


def test_floats_for_token_ids_are_refused(tokens: Path, tmp_path: Path, device: Device) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(MeasurementError, match="takes int64, the samples are float32"):
        evaluate(tokens, "onnxruntime", device, tmp_path / "x.npy")


def test_measure_both_runtimes(
    conv: Path, channels_last: tuple[Path, Path], images: Path, device: Device
) -> None:
    candidates = [
        Candidate(conv, "onnxruntime", 1),
        Candidate(channels_last[0], "litert", 1),
        Candidate(conv, "onnxruntime", 2),
    ]
    results = measure(candidates, device, sample=images, **QUICK)
    assert [result.candidate for result in results] == candidates
    for result in results:
        assert isinstance(result, Measurement)
        assert len(result.result.rounds) == ROUNDS
        assert len(result.raw_ns) >= 30
        assert sum(result.raw_ns) > 0
        assert all(isinstance(value, int) and value > 0 for value in result.raw_ns)
        assert result.p50_ns == stats.percentile(result.raw_ns, 50) <= result.p90_ns
        assert min(result.result.load, result.result.first) > 0
        assert result.result.peak_rss_bytes >= result.result.base_rss_bytes > 1_000_000
        assert (result.device, result.error) == ("here", None)
    assert [result.result.threads for result in results] == [1, 1, 2]
    assert isinstance(results[0], Measurement)
    assert results[0].result.batch == 1
    assert results[0].result.runtime_version == onnxruntime.__version__


def test_candidates_take_turns(
    make_conv: Callable[[int | str], Path], images: Path, device: Device, noting: Any
) -> None:
    names = ["conv-n.onnx", "conv-1.onnx", "conv-2.onnx"]
    candidates = [Candidate(make_conv(batch), "onnxruntime", 1) for batch in ("n", 1, 2)]
    with noting() as link:
        events: list[Event] = []
        measure(candidates, device, sample=images, progress=events.append, transport=link, **QUICK)
        loads, times = link.notes[:3], link.notes[3:]
    assert loads == [(name, "load") for name in names]
    there_and_back = [(name, "time") for name in (*names, *reversed(names))]
    assert times == there_and_back * (ROUNDS // 2)
    assert [(event.kind, event.done, event.total) for event in events] == [
        ("step", turn, ROUNDS) for turn in range(1, ROUNDS + 1)
    ]


@pytest.mark.parametrize("verb", ["load", "time"])
def test_a_crash_is_reported_and_the_others_go_on(
    make_conv: Callable[[int | str], Path], images: Path, device: Device, noting: Any, verb: str
) -> None:
    candidates = [Candidate(make_conv(batch), "onnxruntime", 1) for batch in ("n", 1, 2)]
    events: list[Event] = []
    with noting(kill=("conv-1.onnx", verb)) as link:
        results = measure(candidates, device, sample=images, progress=events.append, transport=link, **QUICK)
        assert not any(alive(process.pid) for process in link.spawned)
    assert [type(result) for result in results] == [Measurement, Failure, Measurement]
    assert "SIGKILL" in str(results[1].error)
    assert "conv-1.onnx in onnxruntime, 1 thread on here" in str(results[1].error)
    assert [event.message for event in events if event.kind == "warning"] == [str(results[1].error)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_crash_while_evaluating_is_reported(conv: Path, images: Path, device: Device, noting: Any) -> None:
    with noting(kill=("conv-n.onnx", "evaluate")) as link, pytest.raises(MeasurementError, match="SIGKILL"):
        evaluate(conv, "onnxruntime", device, images, transport=link)


def test_a_hanging_file_is_given_up_and_the_others_go_on(
    conv: Path, endless: Path, images: Path, noting: Any
) -> None:
    device = Device(name="here", transport="local", timeout_seconds=2.5)
    candidates = [Candidate(endless, "onnxruntime", 1), Candidate(conv, "onnxruntime", 1)]
    start = time.monotonic()
    with noting() as link:
        results = measure(candidates, device, sample=images, transport=link, **QUICK)
        assert not alive(link.spawned[0].pid)
    assert time.monotonic() - start < 15
    assert [type(result) for result in results] == [Failure, Measurement]
    said = str(results[0].error)
    assert "no answer in time" in said
    assert "runtime_onnxruntime.py" in said  # where it hung
    assert "set timeout_seconds" in said


def test_files_that_are_none_are_reported(
    conv: Path, integer: Path, images: Path, tmp_path: Path, device: Device
) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"not a model")
    wrong = tmp_path / "junk.tflite"
    wrong.write_bytes(conv.read_bytes())
    candidates = [
        Candidate(junk, "onnxruntime", 1),
        Candidate(wrong, "litert", 1),
        Candidate(tmp_path / "absent.onnx", "onnxruntime", 1),
        Candidate(integer, "litert", 1),  # the samples don't fit
        Candidate(conv, "onnxruntime", 1),
    ]
    results = measure(candidates, device, sample=images, **QUICK)
    assert [type(result) for result in results] == [Failure] * 4 + [Measurement]
    assert "no such file" in str(results[2].error)
    assert "takes samples of shape (6,)" in str(results[3].error)


def test_a_runtime_that_the_device_lacks_is_refused(conv: Path, images: Path) -> None:
    device = Device(name="board", transport="local", runtimes=("litert",))
    (result,) = measure([Candidate(conv, "onnxruntime", 1)], device, sample=images, **QUICK)
    assert isinstance(result, Failure)
    assert "one of: litert" in str(result.error)


def test_a_python_that_is_not_there_is_reported(conv: Path, images: Path) -> None:
    device = Device(name="board", transport="local", python="/nowhere/python3")
    (result,) = measure([Candidate(conv, "onnxruntime", 1)], device, sample=images, **QUICK)
    assert isinstance(result, Failure)
    assert "/nowhere/python3" in str(result.error)


def test_peak_memory_is_the_workers_own(conv: Path, images: Path, device: Device) -> None:
    """A parent that once was large must not show up in its child's peak."""
    large = np.ones(400 * 1024 * 1024 // 8)
    results = measure([Candidate(conv, "onnxruntime", 1)], device, sample=images, **QUICK)
    assert large[-1] == 1
    assert isinstance(results[0], Measurement)
    assert results[0].result.peak_rss_bytes < 300 * 1024 * 1024


@pytest.mark.parametrize(
    "name", ["bench/worker.py", "runtimes/device/runtimes.py", "devices/probe_script.py"]
)
def test_what_runs_on_the_device_is_python_3_8_and_needs_no_more_than_numpy(root: Path, name: str) -> None:
    tree = ast.parse((root / "edgekit" / name).read_text(), feature_version=(3, 8))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = set(sys.stdlib_module_names) | {"numpy", "runtimes", "edgekit"}  # edgekit: for the type checker
    assert imported <= allowed - ({"numpy", "edgekit"} if "probe" in name else set())


@given(st.permutations([3, 8, 6]), st.sampled_from(["auto", "NCHW", "NHWC"]), st.integers(1, 4))
def test_arrange_gives_what_the_file_takes_or_refuses(shape: list[int], layout: str, count: int) -> None:
    """Samples that fit stay, samples that fit transposed are transposed, and all else is refused."""
    from edgekit.runtimes.device.runtimes import Model

    model = Model(None, (8, 6, 3), "float32")
    samples = np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    moved = np.transpose(samples, (0, 2, 3, 1))
    if shape == [8, 6, 3]:
        np.testing.assert_array_equal(model.arrange(samples, layout), samples)
    elif shape == [3, 8, 6] and layout != "NCHW":
        np.testing.assert_array_equal(model.arrange(samples, layout), moved)
    else:
        with pytest.raises(ValueError, match="takes samples of shape"):
            model.arrange(samples, layout)


def test_arrange_follows_the_stated_layout_where_shapes_cannot_tell() -> None:
    from edgekit.runtimes.device.runtimes import Model

    model = Model(1, (4, 4, 4), "float32")
    samples = np.arange(64, dtype=np.float32).reshape(1, 4, 4, 4)
    np.testing.assert_array_equal(model.arrange(samples, "auto"), samples)
    np.testing.assert_array_equal(model.arrange(samples, "NHWC"), np.moveaxis(samples, 1, -1))
