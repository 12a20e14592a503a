"""Bundles of the demo, built once, with the libraries out of the runtimes' Python packages."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgekit.bundle.contents import Contents
from edgekit.bundle.targets.base import Settings, Tried
from edgekit.bundle.targets.cpp import TARGET
from edgekit.bundle.targets.cpp.building import run
from edgekit.bundle.targets.cpp.numbers import library_name
from edgekit.bundle.targets.cpp.runtimes import link_onnxruntime
from edgekit.bundle.writing import write
from tests.bundle.cpp import fetching


@dataclass(frozen=True)
class Built:
    """A bundle, and what was made of it. ``root``: where its runtime is."""

    contents: Contents
    folder: Path
    scratch: Path
    root: Path
    tried: Tried

    @property
    def name(self) -> str:
        return library_name(self.contents.name)

    @property
    def model(self) -> Path:
        return self.folder / self.contents.model.name

    def program(self, name: str) -> str:
        return str(self.scratch / "build" / f"{self.name}_{name}")

    def outputs(self, samples: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """(N, …) raw samples → (N, …) outputs of the predict program, in the file's own type."""
        given, gotten = self.scratch / "samples.bin", self.scratch / "outputs.bin"
        given.write_bytes(np.ascontiguousarray(samples).tobytes())
        run([self.program("predict"), str(self.model), str(given), "--raw", str(gotten)])
        output = self.contents.output
        return np.fromfile(gotten, output.dtype).reshape(len(samples), *output.shape[1:])


@pytest.fixture(scope="session")
def tools() -> None:
    """Skip without a compiler."""
    for tool in ("cmake", "g++", "ninja"):
        if shutil.which(tool) is None and not (tool == "ninja" and shutil.which("make")):
            pytest.skip(f"no {tool}")


@pytest.fixture(scope="session")
def litert_root() -> Path:
    ai_edge_litert = pytest.importorskip("ai_edge_litert")
    return Path(ai_edge_litert.__file__).parent


@pytest.fixture(scope="session")
def onnxruntime_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import onnxruntime

    try:
        headers = fetching.onnxruntime_headers()
    except fetching.Unavailable as why:
        pytest.skip(str(why))
    library = Path(onnxruntime.__file__).parent / "capi"
    root = link_onnxruntime(library, headers, tmp_path_factory.mktemp("onnxruntime"))
    assert root is not None
    return root


def build(contents: Contents, root: Path, folder: Path) -> Built:
    """Write a bundle, build it with the runtime at ``root``, and run its golden test."""
    bundle = write(contents, TARGET, Settings(), folder / "bundle")
    (folder / "scratch").mkdir()
    variable = {"litert": "EDGEKIT_LITERT_ROOT", "onnx": "EDGEKIT_ONNXRUNTIME_ROOT"}[contents.model.format]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, str(root))
        patch.setenv("CXXFLAGS", "-Werror")
        tried = TARGET.try_out(bundle, folder / "scratch")
    return Built(contents, bundle, folder / "scratch", root, tried)


@pytest.fixture(scope="session")
def built_litert(
    tools: None, contents_litert: Contents, litert_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    return build(contents_litert, litert_root, tmp_path_factory.mktemp("cpp_litert"))


@pytest.fixture(scope="session")
def built_onnx(
    tools: None, contents_onnx: Contents, onnxruntime_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    return build(contents_onnx, onnxruntime_root, tmp_path_factory.mktemp("cpp_onnx"))


@pytest.fixture(params=["litert", "onnx"])
def demo(request: pytest.FixtureRequest) -> Built:
    """The demo in both runtimes."""
    found: Built = request.getfixturevalue(f"built_{request.param}")
    return found
