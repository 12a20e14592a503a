"""What takes minutes: sanitizers, the other C API, another processor, a thousand real images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgekit.bundle.answering import Answerer
from edgekit.bundle.gathering import gather
from edgekit.bundle.targets.cpp.building import Failed, build, run
from edgekit.opening import load_workload
from edgekit.pipeline import compress
from tests.bundle.conftest import FAST
from tests.bundle.cpp import fetching
from tests.bundle.cpp.conftest import Built
from tests.bundle.cpp.conftest import build as build_bundle


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_it_is_clean_under_sanitizers(
    demo: Built, sanitizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    litert = demo.contents.model.format == "litert"
    # LiteRT's own library takes memory with new and gives it back with free.
    monkeypatch.setenv("ASAN_OPTIONS", "alloc_dealloc_mismatch=0" if litert else "")
    flags = f"-DCMAKE_CXX_FLAGS=-g -fsanitize={sanitizer} -fno-sanitize-recover=all"
    build(demo.folder, tmp_path / "build", root_option(demo), flags)
    said = run([f"{tmp_path}/build/{demo.name}_selftest", str(demo.model), str(demo.folder / "golden")])
    assert "selftest: passed" in said
    assert "Sanitizer" not in said


def root_option(built: Built) -> str:
    variable = {"litert": "LITERT_ROOT", "onnx": "ONNXRUNTIME_ROOT"}[built.contents.model.format]
    return f"-D{variable}={built.root}"


@pytest.mark.slow
def test_the_file_can_be_inside_of_the_library(built_litert: Built, tmp_path: Path) -> None:
    """In a project of its own, as the README shows."""
    name = built_litert.name
    (tmp_path / "CMakeLists.txt").write_text(f"""
cmake_minimum_required(VERSION 3.16)
project(app LANGUAGES CXX)
set({name.upper()}_EMBED ON CACHE BOOL "")
set({name.upper()}_TOOLS OFF CACHE BOOL "")
add_subdirectory("{built_litert.folder}" model)
add_executable(app app.cpp)
target_link_libraries(app PRIVATE {name}::{name})
""")
    (tmp_path / "app.cpp").write_text(f"""
#include <cstdio>
#include <{name}/{name}.h>
int main() {{
  std::unique_ptr<{name}::Model> model;
  {name}::Status status = {name}::Model::create({name}::Options(), &model);
  {name}::Prediction prediction;
  const {name}::RawValue sample[{name}::kRawSize] = {{}};
  if (status.ok()) status = model->predict(sample, {name}::kRawSize, &prediction);
  std::printf("%d %zu %s|\\n", status.ok(), prediction.ranking.size(), status.message());
}}
""")
    build(tmp_path, tmp_path / "build", root_option(built_litert))
    assert "1 10 |" in run([str(tmp_path / "build" / "app")])


@pytest.fixture(scope="module")
def tflite_root(tools: None) -> Path:
    try:
        return fetching.tflite_root()
    except fetching.Unavailable as why:
        pytest.skip(str(why))


def tflite_selftest(built: Built, root: Path, target: Path) -> str:
    name = built.name.upper()
    build(built.folder, target, f"-D{name}_RUNTIME=tflite", f"-DTFLITE_ROOT={root}", f"-D{name}_WERROR=ON")
    return run([f"{target}/{built.name}_selftest", str(built.model), str(built.folder / "golden")])


@pytest.mark.slow
def test_tensorflow_lites_c_api_serves_a_float_file(
    tflite_root: Path, litert_root: Path, tmp_path: Path
) -> None:
    compress(None, "quick", out=tmp_path / "run", overrides=(*FAST, "exports.precisions=[fp32]"))
    contents = gather(tmp_path / "run", formats=("litert",), precisions=("fp32",))
    built = build_bundle(contents, litert_root, tmp_path)
    said = tflite_selftest(built, tflite_root, tmp_path / "build")
    assert "create: TensorFlow Lite 2.9.0" in said
    assert "selftest: passed" in said


@pytest.mark.slow
def test_a_runtime_that_answers_wrongly_is_told(
    built_litert: Built, tflite_root: Path, tmp_path: Path
) -> None:
    """TensorFlow Lite 2.9 loads an int8 file with a linear layer per channel, and computes something else."""
    with pytest.raises(Failed, match="FAIL outputs: off by"):
        tflite_selftest(built_litert, tflite_root, tmp_path / "build")


@pytest.mark.slow
def test_it_compiles_for_another_processor(built_litert: Built, tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("no aarch64-linux-gnu-g++")
    try:
        root = fetching.arm_litert_root()
    except fetching.Unavailable as why:
        pytest.skip(str(why))
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={built_litert.folder}/cmake/aarch64-linux-gnu.cmake"
    build(built_litert.folder, tmp_path / "build", toolchain, f"-DLITERT_ROOT={root}")
    program = (tmp_path / "build" / f"{built_litert.name}_selftest").read_bytes()
    assert int.from_bytes(program[18:20], "little") == 183, "ELF for AArch64"


@pytest.mark.data
@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_a_thousand_images_get_the_classes_that_the_file_gives_them(
    format: Literal["litert", "onnx"],
    resnet20: str,
    resnet20_run: Path,
    request: pytest.FixtureRequest,
    tools: None,
    tmp_path: Path,
) -> None:
    runtime: Path = request.getfixturevalue({"litert": "litert_root", "onnx": "onnxruntime_root"}[format])
    contents = gather(resnet20_run, resnet20, formats=(format,), precisions=("int8",))
    built = build_bundle(replace(contents, name="resnet-20"), runtime, tmp_path)
    assert built.tried.passed, built.tried.told
    workload = load_workload(resnet20)
    samples = workload.validation.inputs[:1000]
    answerer = Answerer(built.model, format)
    wanted = answerer.outputs(answerer.arranged(workload.preprocessing(samples).numpy()))
    outputs = built.outputs(samples.numpy())
    np.testing.assert_array_equal(outputs.argmax(1), wanted.argmax(1))
    np.testing.assert_array_equal(outputs, wanted)
