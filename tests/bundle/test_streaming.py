"""Bundles of a model whose outputs are inputs of the next step."""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("litert_torch", reason="needs the extra litert")

from edgekit.bundle.c99 import generate
from edgekit.bundle.contents import Contents
from edgekit.bundle.gathering import gather
from edgekit.bundle.targets import NAMES, load
from edgekit.bundle.targets.base import Settings
from edgekit.bundle.targets.python.package import named
from edgekit.bundle.targets.python.package.file import File
from edgekit.bundle.writing import write
from edgekit.pipeline import compress
from tests.bundle import streams
from tests.bundle.c99.running import compile_, needs_gcc, written
from tests.bundle.conftest import FAST
from tests.bundle.python.test_python import call, install
from tests.named import nets
from tests.once import once

pytestmark = pytest.mark.wide


@pytest.fixture(scope="session")
def workload(root: Path) -> str:
    return str(root / "tests" / "bundle" / "streams.py")


@pytest.fixture(scope="session")
def run(workload: str) -> Path:
    """Calibrated over whole sequences, not trained."""
    made = once("stream", lambda folder: compress(workload, "quick", out=folder / "run", overrides=FAST))
    return made / "run"


@pytest.fixture(scope="module", params=["litert", "onnx"])
def kept(request: pytest.FixtureRequest, run: Path, workload: str) -> Contents:
    return gather(run, workload, formats=(request.param,), precisions=("int8",))


def test_golden_samples_are_steps_with_the_states_that_a_stream_came_to(kept: Contents) -> None:
    given = {one.end.name: one for one in kept.inputs}
    assert (given["frame"].raw.shape, given["h_in"].raw.shape) == ((10,), (24,))
    assert not given["h_in"].samples[0].any()  # the first step of the first
    assert all(one.any() for one in given["h_in"].samples[len(given["h_in"].samples) // 3 :])
    outputs = {one.end.name: one for one in kept.outputs}
    assert (outputs["scores"].task["kind"], outputs["scores"].labels) == ("classification", streams.WORDS)
    assert (outputs["h_out"].task["kind"], outputs["h_out"].labels) == ("regression", ())
    assert kept.spec()["states"] == kept.states == streams.STATES


@pytest.mark.parametrize("name", NAMES)
def test_every_target_says_what_is_handed_on(name: str, run: Path, workload: str, tmp_path: Path) -> None:
    contents, target = gather(run, workload, formats=("litert",), precisions=("int8",)), load(name)
    write(contents, target, Settings(), tmp_path / "bundle")
    assert "h_in of the next step" in (tmp_path / "bundle" / "README.md").read_text().replace("\\_", "_")
    (tmp_path / "scratch").mkdir()
    if name != "cpp":  # takes a minute to build, and is built for others
        tried = target.try_out(tmp_path / "bundle", tmp_path / "scratch")
        assert tried.passed is not False, tried.told


class TestPython:
    @pytest.fixture
    def installed(self, kept: Contents, tmp_path: Path) -> Path:
        write(kept, load("python"), Settings(), tmp_path / "bundle")
        return install(tmp_path / "bundle", tmp_path / "site")

    def test_a_stream_answers_every_step_as_the_run_did(
        self, installed: Path, kept: Contents, run: Path, tmp_path: Path
    ) -> None:
        frames = nets.frames(40, 2).numpy()
        answers = np.load(run / "answers" / f"{kept.model.name}.npy")
        assert answers.shape == (40, 6, 4)
        for index in (0, 7):
            np.savez(tmp_path / f"{index}.npz", frame=frames[index])
        files = str(tmp_path / "0.npz"), str(tmp_path / "7.npz")
        done = call(installed, *files, "--stream", "--json", package="spotter")
        assert done.returncode == 0, done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(told) == 2 * 6
        assert all(set(one) == {"file", "scores"} for one in told)
        best = [streams.WORDS.index(one["scores"]["top"][0]["label"]) for one in told]
        assert best == answers[[0, 7]].argmax(-1).ravel().tolist()

    def test_states_are_kept_between_steps_and_forgotten_on_reset(
        self, installed: Path, kept: Contents, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(installed))
        for name in [one for one in sys.modules if one.split(".")[0] == "spotter"]:
            monkeypatch.delitem(sys.modules, name)
        model = importlib.import_module("spotter").Model.load()
        frames = nets.frames(40, 2).numpy()[3]
        answers = np.load(run / "answers" / f"{kept.model.name}.npy")[3]
        stream, other = model.stream(), model.stream()
        for _ in range(2):
            stream.reset()
            for frame, expected in zip(frames, answers, strict=True):
                other.step(frame=-frame)  # of its own
                found = stream.step(frame=frame)["scores"].scores
                np.testing.assert_allclose(found, expected, atol=1e-5)
        with pytest.raises(ValueError, match="h_in: a state"):
            stream.step(frame=frames[0], h_in=np.zeros(24, np.float32))
        with pytest.raises(ValueError, match="expected"):
            stream.step(frame=frames[0][:3])

    def test_wrong_files_are_told_in_one_line(self, installed: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "wrong.npz", frames=np.zeros((6, 10), np.float32))
        done = call(installed, str(tmp_path / "wrong.npz"), "--stream", package="spotter")
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert "expected" in done.stderr


@needs_gcc
def test_c_streams_as_the_reference_kernels_do_to_the_last_bit(
    run: Path, workload: str, tmp_path: Path
) -> None:
    """Whole sequences, each by its own states: what comes out of a step goes into the next."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    contents = gather(run, workload, formats=("litert",), precisions=("int8",))
    file = tmp_path / contents.model.name
    file.write_bytes(contents.model.content)
    made = generate(file, prefix="net")
    library = compile_(tmp_path, [written(tmp_path, made, "net")], "-O2", "-shared", "-fPIC", output="net.so")
    compiled = ctypes.CDLL(str(library)).net_run
    compiled.restype = None
    reference = Interpreter(str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    reference.allocate_tensors()

    def in_c(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        arena = np.zeros(made.arena_bytes, np.int8)
        rows = {one.end.name: np.full(one.end.shape, 77, one.end.dtype) for one in contents.outputs}
        every = [
            *(np.ascontiguousarray(given[one.end.name]) for one in contents.inputs),
            *rows.values(),
            arena,
        ]
        compiled(*(ctypes.c_void_p(one.ctypes.data) for one in every))
        return rows

    def in_reference(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for end, one in zip(reference.get_input_details(), contents.inputs, strict=True):
            reference.set_tensor(end["index"], given[one.end.name])
        reference.invoke()
        found = [reference.get_tensor(one["index"]) for one in reference.get_output_details()]
        return {one.end.name: rows for one, rows in zip(contents.outputs, found, strict=True)}

    class Compiled:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            answers = in_c(inputs)
            for name, expected in in_reference(inputs).items():
                np.testing.assert_array_equal(answers[name], expected, err_msg=name)
            return answers

    stream = named.Model(File(contents.spec(), Compiled())).stream()
    expected = np.load(run / "answers" / f"{contents.model.name}.npy")
    step = next(one.end.scale for one in contents.outputs if one.end.name == "scores") or 1.0
    for frames, answers in zip(nets.frames(40, 2).numpy(), expected, strict=True):
        stream.reset()
        told = np.array([stream.step(frame=frame)["scores"].scores for frame in frames])
        # Optimised kernels may round otherwise, by a step at first, and the states carry that on.
        np.testing.assert_allclose(told, answers, atol=4 * step)
