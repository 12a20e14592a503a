"""Generated C against LiteRT's reference kernels: compiled, called, compared to the last bit."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.bundle.c99 import CSource, generate

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="needs gcc")
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
GUARD = 64  # bytes in front of and behind the arena that nothing may touch


def compile_(folder: Path, sources: Sequence[Path], *options: str, output: str) -> Path:
    """What gcc makes of the sources; its messages are the test's failure."""
    assert GCC is not None
    command = [GCC, *STRICT, *options, *map(str, sources), "-o", str(folder / output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return folder / output


def written(folder: Path, made: CSource, prefix: str) -> Path:
    """The two files in a folder; the path of the .c file."""
    (folder / f"{prefix}.h").write_text(made.header)
    (folder / f"{prefix}.c").write_text(made.source)
    return folder / f"{prefix}.c"


class Library:
    """Generated sources of several files in one shared library; the prefix of number i is "net<i>"."""

    def __init__(self, folder: Path, files: Sequence[Path], *options: str) -> None:
        self.made = [generate(file, prefix=f"net{i}") for i, file in enumerate(files)]
        sources = [written(folder, made, f"net{i}") for i, made in enumerate(self.made)]
        options = options or ("-O0",)
        self.path = compile_(folder, sources, *options, "-shared", "-fPIC", output="nets.so")
        self.library = ctypes.CDLL(str(self.path))

    def __call__(self, sample: NDArray[Any], number: int = 0) -> NDArray[Any]:
        """The answer, with the arena between guards, dirty before, at an odd address."""
        made = self.made[number]
        answer = np.full(made.output.shape, 77, np.dtype(made.output.dtype))
        memory = np.random.default_rng(0).integers(-128, 128, made.arena_bytes + 2 * GUARD + 1, np.int8)
        before = memory.copy()
        source = np.ascontiguousarray(sample)
        kept = source.copy()
        place = memory.ctypes.data + GUARD + 1
        run = getattr(self.library, f"net{number}_run")
        run.restype = None
        run(*(ctypes.c_void_p(address) for address in (source.ctypes.data, answer.ctypes.data, place)))
        np.testing.assert_array_equal(memory[: GUARD + 1], before[: GUARD + 1])
        np.testing.assert_array_equal(memory[GUARD + 1 + made.arena_bytes :], before[-GUARD:])
        np.testing.assert_array_equal(source, kept)
        return answer


class Reference:
    """LiteRT's reference kernels, without any delegate."""

    def __init__(self, file: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.interpreter = Interpreter(
            str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
        )
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def __call__(self, sample: NDArray[Any]) -> NDArray[Any]:
        self.interpreter.set_tensor(self.input["index"], sample)
        self.interpreter.invoke()
        return np.array(self.interpreter.get_tensor(self.output["index"]))


def samples(shape: Sequence[int], dtype: str, count: int = 12, seed: int = 0) -> list[NDArray[Any]]:
    """Both extremes, both mixed, the middle, and random ones from quiet to loud."""
    random = np.random.default_rng(seed)
    if dtype == "float32":
        scales = 10.0 ** random.uniform(-3, 3, count)
        return [(random.normal(size=shape) * scale).astype(np.float32) for scale in scales]
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    made = [np.full(shape, value) for value in (low, high, (low + high) // 2)]
    made.append(random.choice([low, high], shape))
    while len(made) < count:
        middle, width = random.integers(low, high + 1), random.choice([4, 20, 80, 256])
        made.append(random.integers(middle - width, middle + width + 1, shape).clip(low, high))
    return [sample.astype(dtype) for sample in made]


def differing(
    library: Library, files: Sequence[Path], count: int = 12, likely: NDArray[np.float32] | None = None
) -> dict[int, int]:
    """Numbers that differ, by the number of the file; files without any are left out.

    ``likely`` are real inputs of the one int8 file, beside ``count`` that are made up.
    """
    found, seen = {}, set()
    for number, file in enumerate(files):
        reference, made = Reference(file), library.made[number]
        wrong = 0
        given = samples(made.input.shape, made.input.dtype, count)
        if likely is not None:
            assert made.input.scale is not None
            steps = np.rint(likely / made.input.scale) + (made.input.zero_point or 0)
            given += [*steps.clip(-128, 127).astype(np.int8).reshape(-1, *made.input.shape)]
        for sample in given:
            wanted, got = reference(sample), library(sample, number)
            assert wanted.dtype == got.dtype
            assert wanted.shape == got.shape
            seen |= {*np.unique(wanted).tolist()}
            wrong += int((wanted.view(np.uint8) != got.view(np.uint8)).sum())
        if wrong:
            found[number] = wrong
    assert len(seen) > 16, "too few different answers to say anything"
    return found
