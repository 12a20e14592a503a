"""C of a file with several inputs and outputs, against LiteRT's reference kernels, to the last bit."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("litert_torch", reason="needs the extra litert")

from edgekit.bundle.c99 import generate
from tests.bundle.c99.named import written_to
from tests.bundle.c99.running import compile_, needs_gcc, samples, written


@needs_gcc
def test_every_output_has_the_same_bits(tmp_path: Path) -> None:
    """Inputs stay as they are; outputs don't share memory, whatever they have in common."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    file = written_to(tmp_path / "net.tflite")
    made = generate(file, prefix="net")
    assert "net_run(const int8_t *input_image, const int8_t *input_numbers, int8_t *output_map" in made.header
    path = compile_(tmp_path, [written(tmp_path, made, "net")], "-O2", "-shared", "-fPIC", output="net.so")
    run = ctypes.CDLL(str(path)).net_run
    run.restype = None
    reference = Interpreter(
        str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
    )
    reference.allocate_tensors()
    draws = [samples(one.shape, one.dtype, count=30, seed=at) for at, one in enumerate(made.inputs)]
    seen = set()
    for given in zip(*draws, strict=True):
        kept = [one.copy() for one in given]
        answers = [np.full(one.shape, 77, np.dtype(one.dtype)) for one in made.outputs]
        memory = np.zeros(made.arena_bytes, np.int8)
        run(*(ctypes.c_void_p(one.ctypes.data) for one in (*given, *answers, memory)))
        for end, one in zip(reference.get_input_details(), given, strict=True):
            reference.set_tensor(end["index"], one)
        reference.invoke()
        for end, answer in zip(reference.get_output_details(), answers, strict=True):
            np.testing.assert_array_equal(answer, reference.get_tensor(end["index"]), err_msg=end["name"])
            seen |= {*np.unique(answer).tolist()}
        assert all((one == before).all() for one, before in zip(given, kept, strict=True))
    assert len(seen) > 100
