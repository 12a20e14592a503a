"""The library of a model with two inputs and two outputs, in both runtimes; and its names."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle.contents import Contents
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.cpp import TARGET
from edgekit.bundle.targets.cpp.building import run
from edgekit.bundle.targets.cpp.numbers import library_name
from tests.bundle import made
from tests.bundle.cpp.conftest import Built, build
from tests.bundle.cpp.test_generated import MAIN, compiled, unpack

pytestmark = pytest.mark.wide


@pytest.fixture(scope="module", params=["litert", "onnx"])
def built(request: pytest.FixtureRequest, tools: None, tmp_path_factory: pytest.TempPathFactory) -> Built:
    contents: Contents = request.getfixturevalue(f"ends_{request.param}")
    runtime = {"litert": "litert_root", "onnx": "onnxruntime_root"}[request.param]
    root: Path = request.getfixturevalue(runtime)
    return build(contents, root, tmp_path_factory.mktemp(f"cpp_{request.param}"))


def test_it_answers_as_the_file_did(built: Built) -> None:
    """Built with warnings as errors; the predict program writes what the file gave, into a file for each."""
    assert built.tried.passed, built.tried.told
    for name in ("scores", "boxes"):
        assert f"{name} off by 0 at most" in built.tried.told
    outputs = built.scratch / "outputs"
    outputs.mkdir()
    golden = built.folder / "golden"
    run([built.program("predict"), str(built.model), str(golden), "--raw", str(outputs)])
    for one in built.contents.outputs:
        got = np.fromfile(outputs / f"outputs_{one.end.name}.bin", one.end.dtype)
        np.testing.assert_array_equal(got, one.answers.ravel())
    said = run([built.program("predict"), str(built.model), str(golden), "--top", "3"]).splitlines()
    assert sum(line.startswith("boxes\t") for line in said) == built.contents.golden_samples
    (scores,) = (one for one in built.contents.outputs if one.end.name == "scores")
    firsts = [line.split("\t")[1].split()[0] for line in said if line.startswith("scores\t")]
    assert firsts == [scores.labels[int(row.argmax())] for row in scores.answers]


@pytest.mark.parametrize("name", ["outputs_scores", "outputs_boxes", "inputs_words", "inputs_image"])
def test_every_end_is_compared(built: Built, name: str, tmp_path: Path) -> None:
    golden = shutil.copytree(built.folder / "golden", tmp_path / "golden")
    file = golden / f"{name}.bin"
    file.write_bytes(file.read_bytes()[::-1])
    done = subprocess.run(
        [built.program("selftest"), str(built.model), str(golden)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode > 0
    what, end = ("outputs" if "outputs" in name else "preprocessing"), name.partition("_")[2]
    assert f"FAIL {what}: {end} off by" in done.stdout


def test_preprocessing_and_reading_out_of_each_are_those_of_one_alone(tools: None, tmp_path: Path) -> None:
    """Every kind of input and output in one library: golden inputs and real numbers, as Python makes them."""
    contents = made.several(*made.KINDS)
    folder, name = unpack(contents, tmp_path / "bundle"), library_name(contents.name)
    names = [
        *map("preprocess_{}".format, contents.input_ids),
        *map("postprocess_{}".format, contents.output_ids),
    ]
    includes = "".join(f'#include "{folder}/src/{one}.cpp"\n' for one in ("data", *names))
    body = ""
    for id in contents.input_ids:
        body += f"""
  {{
    using namespace {name}::{id}_input;
    const auto samples = read<RawValue>(folder + "samples_{id}.bin");
    std::vector<InputValue> inputs(samples.size() / kRawSize * kInputSize);
    for (std::size_t i = 0; i < samples.size() / kRawSize; ++i) {{
      preprocess(samples.data() + i * kRawSize, inputs.data() + i * kInputSize);
    }}
    write(folder + "inputs_{id}.out", inputs);
  }}"""
    for id in contents.output_ids:
        body += f"""
  {{
    using namespace {name}::{id}_output;
    const auto outputs = read<OutputValue>(folder + "outputs_{id}.bin");
    std::vector<float> values;
    {name}::{id}_output::Prediction prediction;
    for (std::size_t i = 0; i < outputs.size() / kOutputSize; ++i) {{
      if (!postprocess(outputs.data() + i * kOutputSize, &prediction).ok()) std::abort();
      values.insert(values.end(), prediction.values.begin(), prediction.values.end());
    }}
    write(folder + "values_{id}.out", values);
  }}"""
    source = f"""{MAIN}{includes}
{name}::Status::Status(Code code, const char*, const char*) noexcept : code_(code) {{}}
int main() {{
  const std::string folder = "{folder}/golden/";{body}
}}
"""
    # One program includes all sources, each of which has names of its own file.
    subprocess.run([compiled(source, [folder], tmp_path / "all", "-fsanitize=undefined,address")], check=True)
    for given, id in zip(contents.inputs, contents.input_ids, strict=True):
        got = np.fromfile(folder / "golden" / f"inputs_{id}.out", given.prepared.dtype)
        steps = 0 if given.preprocessing["size"] is None else 1
        np.testing.assert_allclose(got, given.prepared.ravel(), rtol=0, atol=steps)
    for one, id in zip(contents.outputs, contents.output_ids, strict=True):
        real = one.answers.astype(np.float32)
        if one.end.scale is not None:
            real = (real - np.float32(one.end.zero_point or 0)) * np.float32(one.end.scale)
        np.testing.assert_array_equal(
            np.fromfile(folder / "golden" / f"values_{id}.out", np.float32), real.ravel()
        )


def test_names_that_are_code_become_identifiers(tools: None, tmp_path: Path) -> None:
    """The file's names stay in model.json and in one string; the compiler takes all sources."""
    contents = made.several("image", "vector")
    nasty = ('in"; */ int', "class")
    inputs = [
        replace(one, end=replace(one.end, name=name))
        for one, name in zip(contents.inputs, nasty, strict=True)
    ]
    folder = unpack(replace(contents, inputs=tuple(inputs)), tmp_path)
    for file in ("data", "model", "preprocess_in_int", "preprocess_class_"):
        options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{folder}/include"]
        run(["g++", *options, str(folder / "src" / f"{file}.cpp")])
    for path, content in TARGET.files(contents, Settings()).items():
        assert b"{%" not in content, path
