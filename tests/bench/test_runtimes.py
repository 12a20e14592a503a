"""The runtimes behind their one interface, and the backends that they refuse rather than replace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.runtimes.device import op_profile, runtimes
from edgekit.runtimes.device.runtime_litert import LiteRTModel
from edgekit.runtimes.device.runtime_onnxruntime import CPU, OnnxRuntimeModel
from edgekit.runtimes.device.runtime_torch import TorchModel
from tests.bench.worker_process import QUICK, Process, load, started

COMPILE = """
import json, sys, torch
program = torch.export.load(sys.argv[1])
told = {"edgekit_input": json.dumps({"shape": [1, 3, 8, 8], "dtype": "float32"})}
settings = {"aot_inductor.metadata": told if sys.argv[3] == "told" else {}}
torch._inductor.aoti_compile_and_package(program, package_path=sys.argv[2], inductor_configs=settings)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    yield from started(tmp_path)


def answer(kind: Any, path: Path, inputs: np.ndarray[Any, Any], backend: str = "") -> Any:
    kind.prepare()
    model = kind(str(path), 1, backend)
    outputs = []
    for one in inputs:
        model.bind(model.arrange(one[None]))
        model.runner()()
        outputs.append(model.output())
    return np.concatenate(outputs)


# --- ONNX Runtime ----------------------------------------------------------------------------------------


def test_a_provider_that_is_not_built_in_is_refused(start: Callable[..., Process], conv: Path) -> None:
    told = start().ask(load(conv, random=0, backend="NoSuchExecutionProvider"))
    assert told["kind"] == "ValueError"
    assert told["error"] == (
        "this onnxruntime has no NoSuchExecutionProvider; it has "
        + ", ".join(onnxruntime.get_available_providers())
    )


def test_a_provider_that_is_asked_for_is_told(start: Callable[..., Process], conv: Path) -> None:
    worker = start()
    assert worker.ask(load(conv, random=0))["backend"] == ""
    assert worker.ask(load(conv, random=0, backend=CPU))["backend"] == CPU


def test_a_provider_that_fell_back_to_the_cpu_is_an_error(
    conv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where CUDA is built in and its driver is missing: ONNX Runtime warns, and goes on."""
    kind = OnnxRuntimeModel
    kind.prepare()
    monkeypatch.setattr(
        kind.module, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    refused = pytest.raises(ValueError, match="could not be started, and ONNX Runtime took CPUExecution")
    with pytest.warns(UserWarning, match="not in available provider names"), refused:
        kind(str(conv), 1, "CUDAExecutionProvider")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_onnx_runtime_on_a_gpu_agrees_with_the_cpu(
    start: Callable[..., Process], conv: Path, images: Path, backend: str
) -> None:
    if backend not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {backend}")
    inputs = np.load(images)
    np.testing.assert_allclose(
        answer(OnnxRuntimeModel, conv, inputs, backend),
        answer(OnnxRuntimeModel, conv, inputs),
        rtol=1e-2,
        atol=1e-2,  # TF32
    )
    worker = start()
    assert worker.ask(load(conv, sample=str(images), backend=backend))["backend"] == backend
    timed = worker.ask(QUICK)
    assert len(timed["with_copies_ns"]) == len(timed["samples_ns"])


# --- LiteRT ----------------------------------------------------------------------------------------------


@pytest.mark.wide
def test_litert_without_its_delegate_gives_the_same_and_says_so(
    start: Callable[..., Process], channels_last: tuple[Path, Path], images: Path
) -> None:
    worker = start()
    loaded = worker.ask(load(channels_last[0], random=0, backend="none"))
    assert (loaded["backend"], loaded["shape"]) == ("none", [8, 6, 3])
    inputs = np.load(images)
    plain = answer(LiteRTModel, channels_last[0], inputs, "none")
    np.testing.assert_allclose(plain, answer(LiteRTModel, channels_last[0], inputs), rtol=1e-4, atol=1e-5)
    assert not delegated(channels_last[0], "none")
    assert delegated(channels_last[0], "")


def delegated(path: Path, backend: str) -> bool:
    """Whether a delegate took over any op."""
    model = LiteRTModel(str(path), 1, backend)
    return any(one["op_name"] == "DELEGATE" for one in model._interpreter._get_ops_details())


def test_a_delegate_that_can_not_be_loaded_is_refused(
    start: Callable[..., Process], integer: Path, tmp_path: Path
) -> None:
    worker = start()
    told = worker.ask(load(integer, random=0, backend="/nowhere/libdelegate.so"))
    assert told["kind"] == "ValueError"
    assert "there is no file /nowhere/libdelegate.so" in told["error"]
    (tmp_path / "libnone.so").write_bytes(b"no library")
    told = worker.ask(load(integer, random=0, backend=str(tmp_path / "libnone.so")))
    assert "can't be loaded" in told["error"]
    assert "there is no file" not in told["error"]


# --- torch -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An ExportedProgram (.pt2) of (N, 3, 8, 8) → (N, 5), and what torch said to seven inputs (.npz)."""
    import torch

    folder = tmp_path_factory.mktemp("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 5)
    ).eval()
    inputs = torch.randn(7, 3, 8, 8)
    free = ({0: torch.export.Dim("n", min=1, max=512)},)
    for name, batch, shapes in (("net.pt2", 2, free), ("one.pt2", 1, None)):
        torch.export.save(torch.export.export(net, (inputs[:batch],), dynamic_shapes=shapes), folder / name)
    np.savez(folder / "wanted.npz", inputs=inputs.numpy(), outputs=net(inputs).detach().numpy())
    return folder / "net.pt2", folder / "wanted.npz"


@pytest.fixture(scope="session")
def package(program: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """AOTInductor packages of the same, with a batch of one; "told" ones say what their input looks like."""
    if shutil.which("g++") is None:
        pytest.skip("AOTInductor needs g++")
    folder = tmp_path_factory.mktemp("aoti")

    def make(kind: str) -> Path:
        path = folder / f"{kind}.pt2"
        if not path.exists():
            source = str(program[0].with_name("one.pt2"))
            subprocess.run(
                [sys.executable, "-c", COMPILE, source, str(path), kind], check=True, capture_output=True
            )
        return path

    return make


def test_torch_runs_an_exported_program(
    start: Callable[..., Process], program: tuple[Path, Path], tmp_path: Path
) -> None:
    wanted = np.load(program[1])
    np.save(tmp_path / "x.npy", wanted["inputs"])
    worker = start()
    loaded = worker.ask(load(program[0], sample=str(tmp_path / "x.npy")))
    assert (loaded["shape"], loaded["dtype"], loaded["batch"]) == ([3, 8, 8], "float32", 1)
    timed = worker.ask(QUICK)
    assert min(timed["samples_ns"]) > 0
    assert "with_copies_ns" not in timed
    rows = worker.ask({"do": "profile", "runs": 3})["ops"]
    assert {"aten::conv2d", "aten::addmm"} <= {row["name"] for row in rows}
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    request = {"do": "evaluate", "inputs": str(tmp_path / "x.npy"), "outputs": str(tmp_path / "y.npy")}
    worker.ask(request | {"batch": 3})
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted["outputs"], rtol=1e-4, atol=1e-5)
    assert worker.ask(load(program[0], random=0))["first_ns"] > 0


def test_torch_refuses_what_it_can_not_do(
    start: Callable[..., Process], program: tuple[Path, Path], tmp_path: Path
) -> None:
    import torch

    worker = start()
    if not torch.cuda.is_available():
        assert "no such device" in worker.ask(load(program[0], random=0, backend="cuda"))["error"]
    assert "no backend 'tpu'" in worker.ask(load(program[0], random=0, backend="tpu"))["error"]
    (tmp_path / "junk.pt2").write_bytes(b"junk")
    assert "no .pt2 archive" in worker.ask(load(tmp_path / "junk.pt2", random=0))["error"]
    assert (
        "takes samples of shape (3, 8, 8)" in worker.ask(load(program[0], sample=_saved(tmp_path)))["error"]
    )


def _saved(folder: Path) -> str:
    np.save(folder / "wrong.npy", np.zeros((2, 3, 8, 7), np.float32))
    return str(folder / "wrong.npy")


@pytest.mark.slow
def test_torch_runs_a_compiled_package(
    start: Callable[..., Process], program: tuple[Path, Path], package: Callable[[str], Path], tmp_path: Path
) -> None:
    wanted = np.load(program[1])
    np.save(tmp_path / "x.npy", wanted["inputs"])
    worker = start()
    loaded = worker.ask(load(package("told"), native=True, random=0))
    assert (loaded["shape"], loaded["batch"], loaded["backend"]) == ([3, 8, 8], 1, "")
    assert min(worker.ask(QUICK)["samples_ns"]) > 0
    assert "fused kernels" in worker.ask({"do": "profile", "runs": 1})["reason"]
    request = {"do": "evaluate", "inputs": str(tmp_path / "x.npy"), "outputs": str(tmp_path / "y.npy")}
    worker.ask(request | {"batch": 64})
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted["outputs"], rtol=1e-4, atol=1e-5)
    assert (
        "takes samples of shape"
        in worker.ask(load(package("told"), native=True, sample=_saved(tmp_path)))["error"]
    )


@pytest.mark.slow
def test_a_package_that_does_not_say_what_its_input_is_still_reads_no_other_memory(
    start: Callable[..., Process], package: Callable[[str], Path], program: tuple[Path, Path], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.load(program[1])["inputs"])
    worker = start()
    loaded = worker.ask(load(package("untold"), native=True, sample=str(tmp_path / "x.npy")))
    assert (loaded["shape"], loaded["dtype"]) == (None, None)
    assert min(worker.ask(QUICK)["samples_ns"]) > 0
    assert (
        "unmatched dim value"
        in worker.ask(load(package("untold"), native=True, sample=_saved(tmp_path)))["error"]
    )
    assert "give a sample" in worker.ask(load(package("untold"), native=True, random=0))["error"]


@pytest.mark.gpu
def test_torch_on_a_gpu_agrees_with_the_cpu(
    start: Callable[..., Process], program: tuple[Path, Path], tmp_path: Path
) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    wanted = np.load(program[1])
    outputs = answer(TorchModel, program[0], wanted["inputs"], "cuda")
    np.testing.assert_allclose(outputs, wanted["outputs"], rtol=1e-2, atol=1e-2)  # TF32
    np.save(tmp_path / "x.npy", wanted["inputs"])
    worker = start()
    assert worker.ask(load(program[0], sample=str(tmp_path / "x.npy"), backend="cuda"))["backend"] == "cuda"
    timed = worker.ask(QUICK)
    assert min(timed["samples_ns"]) > 0
    assert len(timed["with_copies_ns"]) == len(timed["samples_ns"])
    assert worker.ask({"do": "profile", "runs": 3})["ops"]


# --- what is known of ops --------------------------------------------------------------------------------


def events(*runs: list[tuple[str, str, str, int]]) -> list[dict[str, Any]]:
    """A profile of ONNX Runtime: (node, op, type of the first input, µs) of each run."""
    made: list[dict[str, Any]] = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9}]
    now = 10
    for run in runs:
        begin = now
        for node, kind, dtype, time in run:
            about = {"op_name": kind, "input_type_shape": [{dtype: [1, 2]}]}
            made.append({"cat": "Node", "name": f"{node}_kernel_time", "ts": now, "dur": time, "args": about})
            now += time
        made.append({"cat": "Session", "name": "model_run", "ts": begin, "dur": now - begin})
        now += 1
    return made


def test_the_first_run_of_a_profile_is_not_counted() -> None:
    slow, fast = [("a", "Conv", "float", 1000), ("b", "Relu", "float", 1)], [("a", "Conv", "float", 3)]
    rows = op_profile.onnx_rows(json.loads(json.dumps(events(slow, [*fast, ("b", "Relu", "float", 1)]))))
    assert rows == [
        {"name": "a", "kind": "Conv", "calls": 1, "share": 0.75, "integer": False},
        {"name": "b", "kind": "Relu", "calls": 1, "share": 0.25, "integer": False},
    ]
    assert op_profile.onnx_rows([]) == []


@pytest.mark.parametrize(
    ("kind", "dtype", "integer"),
    [
        ("QLinearConv", "uint8", True),
        ("MatMulInteger", "int8", True),
        ("DynamicQuantizeMatMul", "float", True),
        ("QuantizeLinear", "float", False),
        ("DequantizeLinear", "int8", False),
        ("MatMulNBits", "float16", False),
        ("Conv", "double", False),
        ("Gather", "int64", None),
    ],
)
def test_a_kernel_computes_in_integers_or_does_not(kind: str, dtype: str, integer: bool | None) -> None:
    (row,) = op_profile.onnx_rows(events([("n", kind, dtype, 1)], [("n", kind, dtype, 1)]))
    assert row.get("integer") is integer


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9), st.integers(0, 1000)), max_size=20))
def test_shares_add_up(calls: list[tuple[str, int, int]]) -> None:
    rows = op_profile.rows((name, "", count, float(time)) for name, count, time in calls)
    whole = sum(time for _, _, time in calls)
    assert bool(rows) == (whole > 0)
    for row in rows:
        own = [(count, time) for name, count, time in calls if name == row["name"]]
        assert row["calls"] == sum(count for count, _ in own)
        assert row["share"] == pytest.approx(sum(time for _, time in own) / whole)


# --- the interface ---------------------------------------------------------------------------------------


@given(
    st.none() | st.integers(1, 4),
    st.lists(st.none() | st.integers(1, 5), max_size=3),
    st.sampled_from(["float32", "float16", "int8", "uint8", "int64", "bool"]),
    st.integers(0, 2**32),
)
def test_a_random_input_fits_and_is_always_the_same(
    batch: int | None, shape: list[int | None], dtype: str, seed: int
) -> None:
    model = runtimes.Model(batch, tuple(shape), dtype)
    made = model.random(seed)
    assert made.shape == tuple(size or 1 for size in (batch, *shape))
    assert made.dtype == dtype
    assert np.isfinite(made.astype(np.float64)).all()
    np.testing.assert_array_equal(made, model.random(seed))
    np.testing.assert_array_equal(model.arrange(made, "NCHW"), made)


def test_classes_are_found_by_their_runtime_s_name_and_nothing_else_is() -> None:
    assert LiteRTModel is runtimes.find("litert")
    for name in ("abacus", "../runtimes", ""):
        with pytest.raises(ValueError, match="unknown runtime"):
            runtimes.find(name)
