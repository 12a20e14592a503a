"""AOTInductor packages: computed in the type that was asked for, and the same answers from the compiled file.

Compiling for the CPU takes the C++ compiler a quarter of a minute or more for any network: those are slow.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.bench.measure import Candidate, Measurement, evaluate, measure
from edgekit.devices.device import Device
from edgekit.errors import ExportError, InputError, MissingExtraError
from edgekit.formats import FORMATS, Precision, has
from edgekit.formats.aotinductor import writing
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.graph.capture import capture, export_program
from edgekit.pipeline.export_request import export_request
from edgekit.workload.preprocessing import Preprocessing
from tests.networks import IMAGE_NETWORKS, Residual, images, quantized, seeded, snr_db

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# Of the networks here: 66 dB and more with float16's 11 bits of precision, 47 and more with bfloat16's 8.
FLOOR_DB = {"fp16": 60.0, "bf16": 42.0}


class Mixed(nn.Module):
    """Floats out of nowhere (a divided range, zeros, a constant), a named type, and two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + torch.arange(64)[:, None] / 64 + torch.zeros(64, 8) + torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8])
        x = self.layer(x).softmax(-1, dtype=torch.float32)
        first, second = x.chunk(2, 1)
        return (first + second).mean(1), x.sum(1).argmax(-1)


class Doubled(nn.Module):
    """One weight. (N, 3, 8, 8) to (N, 3)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([factor]))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.factor).mean((2, 3))


def make(folder: Path, model: nn.Module, precision: Precision, options: ExportOptions | None = None) -> Path:
    options = options or ExportOptions(processor="cpu")
    path = folder / f"x_{precision}{FORMATS['aotinductor'].tags(options, precision)}.pt2"
    about = {"classes": '["a\\"b", "ü"]', "recipe": "test"}
    settings: dict[str, Any] = {"format": "aotinductor", "precision": precision, "options": options}
    export(model, images(1), path, metadata=about, **settings)
    return path


def first(answers: Any) -> Tensor:
    several = answers.values() if isinstance(answers, dict) else answers
    answer = next(iter(several)) if isinstance(answers, dict | tuple) else answers
    assert isinstance(answer, Tensor)
    return answer.detach()


# --- before the compiler ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("build", [*IMAGE_NETWORKS, Mixed])
def test_everything_is_computed_in_the_half_width_type(build: type[nn.Module], precision: str) -> None:
    model, dtype, x = seeded(build), HALVES[precision], images(16, seed=5)
    graph = capture(model, images(1))
    narrow = writing._cast(graph, images(1), dtype, "x.pt2")
    program = export_program(narrow, images(2))
    assert {value.dtype for value in program.state_dict.values() if value.is_floating_point()} == {dtype}
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, Tensor) and value.dtype is torch.float32:
            # The answer; zeros and quotients of integers, which are cast at once.
            kinds = ("aten._to_copy.default", "aten.zeros.default", "aten.div.Tensor")
            assert str(node.target) in kinds
    answers = program.module()(x)
    assert first(answers).dtype is torch.float32
    assert snr_db(first(model(x)), first(answers)) > FLOOR_DB[precision]
    torch.testing.assert_close(first(graph(x)), first(model(x)), rtol=1e-4, atol=1e-5)  # as it was


def test_answers_that_are_integers_stay_integers() -> None:
    graph = capture(seeded(Mixed), images(1))
    narrow = writing._cast(graph, images(1), torch.float16, "x.pt2")
    assert [value.dtype for value in narrow(images(2)).values()] == [torch.float32, torch.int64]


def test_a_weight_beyond_float16_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"(?s)factor: .*float16.*got: +70000.*--precision bf16"):
        make(tmp_path, Doubled(7e4), "fp16")
    graph = capture(Doubled(7e4), images(1))
    assert writing._cast(graph, images(1), torch.bfloat16, "x.pt2")(images(1)).isfinite().all()
    assert list(tmp_path.iterdir()) == []


def test_int8_is_refused_with_a_reason_and_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"aotinductor has no int8(.|\n)*integer(.|\n)*next: .*TensorRT"):
        make(tmp_path, quantized(Residual)[1], "int8")
    with pytest.raises(InputError, match=r"aotinductor has none \(.*integer.*onnx or litert or executorch"):
        export_request(["aotinductor"], ["int8"])
    with pytest.raises(InputError, match="it needs --format aotinductor"):
        export_request(["onnx"], ["bf16"])
    assert [name for name in ("fp32", "fp16", "bf16", "int8-dynamic") if has("aotinductor", name)] == [
        "fp32",
        "fp16",
        "bf16",
    ]
    assert list(tmp_path.iterdir()) == []


def test_alone_it_is_exported_in_fp16_unless_something_else_is_asked_for() -> None:
    assert export_request(["aotinductor"]).precisions == ("fp16",)
    assert export_request(["aotinductor"], ["bf16"]).precisions == ("bf16",)
    assert export_request(["onnx", "aotinductor"]).precisions == ()


def test_the_name_says_what_a_file_is_compiled_for() -> None:
    assert FORMATS["aotinductor"].tags(ExportOptions(processor="cuda"), "fp16") == "_cuda"
    assert FORMATS["aotinductor"].tags(ExportOptions(processor="cpu", batch=1), "fp16") == "_cpu_batch1"
    found = "cuda" if torch.cuda.is_available() else "cpu"
    assert FORMATS["aotinductor"].tags(ExportOptions(), "fp16") == f"_{found}"
    assert FORMATS["onnx"].tags(ExportOptions(processor="cuda"), "fp16") == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error_and_not_another_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"(?s)no such device.*finds no CUDA device.*has the GPU"):
        make(tmp_path, Doubled(2.0), "fp16", ExportOptions(processor="cuda"))
    assert list(tmp_path.iterdir()) == []


def test_without_a_compiler_the_package_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingExtraError, match=r"C\+\+ compiler(.|\n)*no no-such-compiler(.|\n)*install g"):
        make(tmp_path, Doubled(2.0), "fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_fails_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch looks for its compiler once, when it is loaded; here it finds one that refuses everything."""
    from torch._inductor import config

    compiler, scratch = tmp_path / "g++", tmp_path / "scratch"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "g++ 12" && exit 0\nexit 1\n')
    compiler.chmod(0o755)
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(config.cpp, "cxx", (None, str(compiler)))
    before = dict(os.environ)
    with pytest.raises(ExportError, match=r"(?s)can't compile.*CppCompileError.*leave aotinductor out"):
        make(tmp_path, Doubled(2.0), "fp32")
    assert os.environ == before
    assert list(scratch.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == [compiler, scratch]


# --- the compiled file -----------------------------------------------------------------------------------


def checked(path: Path, folder: Path, model: nn.Module, x: Tensor, backend: str = "") -> float:
    """Measure a file, and compare its answers with torch's: decibels."""
    device = Device(name="here", transport="local", runtimes=("torch",))
    np.save(folder / "inputs.npy", x.numpy())
    answers = evaluate(path, "torch", device, folder / "inputs.npy", backend=backend)
    candidates = [Candidate(path, "torch", 1, backend=backend)]
    (found,) = measure(candidates, device, sample=None, min_seconds=0, min_runs=5, rounds=2)
    assert isinstance(found, Measurement), found.error
    assert min(found.raw_ns) > 0
    return snr_db(model(x), torch.from_numpy(answers))


def metadata(path: Path) -> dict[str, str]:
    found: dict[str, str] = torch._inductor.aoti_load_package(str(path)).loader.get_metadata()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "floor"), [("fp32", 100.0), *FLOOR_DB.items()])
def test_a_package_for_the_cpu_gives_torchs_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, floor: float
) -> None:
    scratch, out, model = tmp_path / "scratch", tmp_path / "out", seeded(Residual)
    from torch._inductor import codecache

    capture(model, images(1))  # torch makes an empty folder when its compiler is loaded
    scratch.mkdir()
    out.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(codecache, "_HEADER_DIR", str(scratch / "headers"))
    monkeypatch.setattr(codecache, "_HEADER_LOCK_DIR", str(scratch / "locks"))
    path = make(out, model, precision)
    assert list(scratch.iterdir()) == []
    assert list(out.iterdir()) == [path]
    assert path.name == f"x_{precision}_cpu.pt2"
    for samples in (1, 70):  # the batch is free
        assert checked(path, tmp_path, model, images(samples, seed=5)) > floor
    found = metadata(path)
    assert json.loads(found["edgekit_input"]) == {"shape": [None, 3, 8, 8], "dtype": "float32"}
    compiled = json.loads(found["edgekit_compiled_for"])
    assert (compiled["device"], compiled["torch"]) == ("cpu", torch.__version__)
    assert compiled["architecture"] == os.uname().machine
    assert json.loads(found["classes"]) == ['a"b', "ü"]


@pytest.mark.slow
def test_a_fixed_batch_and_embedded_preprocessing(tmp_path: Path) -> None:
    model = seeded(Residual)
    preprocessing = Preprocessing(layout="NHWC", scale=1 / 42, mean=(2.9, 3.0, 3.2), std=(1.0, 0.9, 1.1))
    options = ExportOptions(batch=4, preprocessing=preprocessing, processor="cpu")
    path = make(tmp_path, model, "fp16", options)
    assert path.name == "x_fp16_cpu_batch4_pixels.pt2"
    assert json.loads(metadata(path)["edgekit_input"]) == {"shape": [4, 8, 8, 3], "dtype": "uint8"}
    raw = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))

    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = model(preprocessing(x))
            return answer

    assert checked(path, tmp_path, Whole(), raw) > FLOOR_DB["fp16"]


@pytest.mark.slow
def test_one_channel_that_came_channels_last(tmp_path: Path) -> None:
    """Such an example says that it is contiguous, with the strides of the other order; code checks none."""
    example = torch.randn(1, 8, 8, 1).permute(0, 3, 1, 2).contiguous()
    model, path = nn.Conv2d(1, 4, 3, stride=2, padding=1).eval(), tmp_path / "x.pt2"
    options = ExportOptions(processor="cpu")
    export(model, example, path, format="aotinductor", precision="fp32", metadata={}, options=options)
    assert checked(path, tmp_path, model, torch.randn(5, 1, 8, 8)) > 100


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "floor"), [("fp32", 50.0), ("fp16", 50.0), ("bf16", 35.0)]
)  # fp32: TF32
def test_a_package_for_a_gpu_gives_torchs_answers(tmp_path: Path, precision: Precision, floor: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")
    model = seeded(Residual)
    path = make(tmp_path, model, precision, ExportOptions())
    assert path.name == f"x_{precision}_cuda.pt2"
    for samples in (1, 70):
        assert checked(path, tmp_path, model, images(samples, seed=5), backend="cuda") > floor
    major, minor = torch.cuda.get_device_capability()
    assert json.loads(metadata(path)["edgekit_compiled_for"])["architecture"] == f"sm_{major}{minor}"
