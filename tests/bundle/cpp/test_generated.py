"""Preprocessing, reading out and names in C++ against Python, for all kinds of bundles; no runtime needed.

Every bundle has a namespace of its own, so that one program holds them all: one compilation.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bundle.contents import Contents
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.cpp import TARGET
from edgekit.bundle.targets.cpp.building import run
from edgekit.bundle.targets.cpp.numbers import library_name
from tests.bundle import made

WARNINGS = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=off"]
SOURCES = ("data", "preprocess", "postprocess")

# Reads samples and outputs of one bundle, writes what the library makes of them.
MAIN = """
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <new>
#include <string>
#include <vector>
template <typename Value> std::vector<Value> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<Value> values(bytes.size() / sizeof(Value));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}
template <typename Values> void write(const std::string& path, const Values& values) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(values[0])));
}
"""
ONE = """
namespace {ns} {{
Status::Status(Code code, const char*, const char*) noexcept : code_(code) {{}}
void everything(const std::string& folder) {{
  const auto samples = read<RawValue>(folder + "/golden/samples.bin");
  const auto outputs = read<OutputValue>(folder + "/golden/outputs.bin");
  std::vector<InputValue> inputs(samples.size() / kRawSize * kInputSize);
  std::vector<float> values, probabilities;
  std::vector<std::int32_t> classes;
  Prediction prediction;
  for (std::size_t i = 0; i < samples.size() / kRawSize; ++i) {{
    preprocess(samples.data() + i * kRawSize, inputs.data() + i * kInputSize);
    if (!postprocess(outputs.data() + i * kOutputSize, &prediction).ok()) std::abort();
    values.insert(values.end(), prediction.values.begin(), prediction.values.end());
    {collect}
  }}
  write(folder + "/inputs.out", inputs);
  write(folder + "/values.out", values);
  write(folder + "/probabilities.out", probabilities);
  write(folder + "/classes.out", classes);
}}
}}
"""
COLLECT = {
    "classification": "probabilities.insert(probabilities.end(), prediction.probabilities.begin(), "
    "prediction.probabilities.end());"
    "classes.insert(classes.end(), prediction.ranking.begin(), prediction.ranking.end());",
    "classes": "classes.insert(classes.end(), prediction.labels.begin(), prediction.labels.end());",
    "values": "",
}


def unpack(contents: Contents, folder: Path) -> Path:
    for name, content in TARGET.files(contents, Settings()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def compiled(source: str, folders: list[Path], target: Path, *options: str) -> Path:
    """A program out of one file that includes others."""
    target.with_suffix(".cpp").write_text(source)
    includes = [f"-I{folder}/include" for folder in folders]
    run(["g++", *WARNINGS, *options, *includes, str(target.with_suffix(".cpp")), "-o", str(target)])
    return target


def all_kinds() -> list[Contents]:
    """Each in both formats, and one whose file gives equals and what is no number."""
    kinds = [
        made.contents(kind, format=format, name=f"{kind}-{format}")
        for kind in made.KINDS
        for format in ("litert", "onnx")
    ]
    floats = made.contents("image", name="nan")
    rows = [[1, 2, 2, np.nan, 0, 2, -1, np.nan], [0] * 8, [np.nan] * 8]
    outputs = np.array(rows, np.float32)
    output = replace(floats.output, dtype="float32", scale=None, zero_point=None)
    return [*kinds, made.changed(floats, output=output, golden=replace(floats.golden, outputs=outputs))]


Kinds = dict[str, tuple[Contents, Path]]


@pytest.fixture(scope="module")
def kinds(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    """All kinds in both formats, after one program has preprocessed and read out their golden samples."""
    top = tmp_path_factory.mktemp("kinds")
    found: Kinds = {}
    source, calls = MAIN, ""
    for contents in all_kinds():
        folder = unpack(contents, top / contents.name)
        found[contents.name] = contents, folder
        source += "".join(f'#include "{folder}/src/{name}.cpp"\n' for name in SOURCES)
        task = str(contents.task["kind"])
        classes = "classes" if contents.class_axis is not None else "values"
        name = library_name(contents.name)
        source += ONE.format(ns=name, collect=COLLECT.get(task, COLLECT[classes]))
        calls += f'  {name}::everything("{folder}");\n'
    source += f"int main() {{\n{calls}}}\n"
    folders = [folder for _, folder in found.values()]
    subprocess.run([compiled(source, folders, top / "all", "-fsanitize=undefined,address")], check=True)
    return found


NAMES = [contents.name for contents in all_kinds()]


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_is_python_s(name: str, kinds: Kinds) -> None:
    """Bit for bit where it is plain arithmetic; resized images within rounding."""
    contents, folder = kinds[name]
    wanted = contents.golden.inputs
    inputs = np.fromfile(folder / "inputs.out", wanted.dtype).reshape(wanted.shape)
    if contents.preprocessing["size"] is None:
        np.testing.assert_array_equal(inputs, wanted)
    else:
        assert np.abs(inputs.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_outputs_become_real_numbers_and_classes(name: str, kinds: Kinds) -> None:
    contents, folder = kinds[name]
    raw, output = contents.golden.outputs, contents.output
    real = raw.astype(np.float32)
    if output.scale is not None:
        real = (real - np.float32(output.zero_point or 0)) * np.float32(output.scale)
    np.testing.assert_array_equal(np.fromfile(folder / "values.out", np.float32), real.ravel())
    classes = np.fromfile(folder / "classes.out", np.int32)
    axis = contents.class_axis
    if axis is None:
        assert classes.size == 0
    elif contents.task["kind"] == "classification":
        order = np.argsort(-real, axis=1, kind="stable")
        np.testing.assert_array_equal(classes.reshape(raw.shape), order)
        probabilities = np.fromfile(folder / "probabilities.out", np.float32).reshape(raw.shape)
        np.testing.assert_allclose(probabilities, softmax(real), rtol=1e-5, atol=1e-7)
    else:
        np.testing.assert_array_equal(classes, raw.argmax(axis).ravel())


def softmax(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    raised = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
    shares: npt.NDArray[np.float64] = raised / raised.sum(1, keepdims=True)
    return shares


CODE = [
    "*/",
    "//",
    "??/",
    '"; int x = 0; //',
    "\\",
    "\x00",
    "\u2028",
    "😀",
    "\ud800",
    "#define",
    'R"(',
    "%s",
    "\r\n",
]


def test_any_name_of_a_class_stays_data(tools: None, tmp_path: Path) -> None:
    """Quotes, newlines, zero bytes, surrogates, code: what the compiler makes of them is their UTF-8.

    The examples of a property are collected, and compiled once.
    """
    collected: list[str] = [*made.NASTY, *CODE]

    @given(st.lists(st.text() | st.sampled_from(CODE), max_size=6).map("".join))
    def collect(name: str) -> None:
        collected.append(name)

    collect()
    contents = with_classes(tuple(collected))
    folder = unpack(contents, tmp_path / "bundle")
    name = library_name(contents.name)
    program = f"""
#include <cstdio>
#include "{folder}/src/data.cpp"
int main() {{
  for (std::size_t i = 0; i < {name}::kClasses; ++i) {{
    const std::string_view text = {name}::label(i);
    std::printf("%zu\\n", text.size());
    std::fwrite(text.data(), 1, text.size(), stdout);
  }}
  return static_cast<int>({name}::label({name}::kClasses).size());
}}
"""
    for option in ("-std=c++17", "-std=gnu++17"):  # with trigraphs, and without
        path = compiled(program, [folder], tmp_path / "labels", option)
        said = subprocess.run([path], capture_output=True, check=True).stdout
        assert list(read_back(said)) == [utf8(text) for text in collected]


def with_classes(classes: tuple[str, ...]) -> Contents:
    """A classifier of that many classes."""
    contents = made.contents("image")
    return made.changed(
        contents,
        classes=classes,
        output=replace(contents.output, shape=(1, len(classes))),
        task=contents.task | {"num_classes": len(classes)},  # type: ignore[operator]
        card_markdown="\n".join(classes).encode("utf-8", "replace").decode(),
    )


def read_back(said: bytes) -> Any:
    while said:
        size, said = said.split(b"\n", 1)
        yield said[: int(size)]
        said = said[int(size) :]


def utf8(text: str) -> bytes:
    """A surrogate without its partner is no text: it becomes what stands for the unreadable."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


@given(name=st.text(max_size=12) | st.sampled_from(CODE))
def test_no_name_of_a_file_reaches_code(name: str) -> None:
    contents = made.contents("vector")
    marked = f"é{name}\n\"'é.tflite"
    files = TARGET.files(replace(contents, model=replace(contents.model, name=marked)), Settings())
    for path, content in files.items():
        assert path.isascii()
        if path.endswith((".cpp", ".h", ".txt", ".cmake")):
            assert content.isascii()
            assert marked.encode("utf-8", "replace") not in content
