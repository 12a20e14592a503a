"""What a result depends on, as hashes: which code made it, and from which model.

The code enters by a hash of the sources, not by ``__version__`` alone: between two releases the sources
change under one version, and a run that was begun before a fix must not pass off its old stages as made by
the new code. Sources that can't change a result (the command line, tables, progress, the report) are left
out, so that an hour of training survives a change of the table. The list names what is left out, not what
counts: a new file counts until somebody says otherwise. Versions of the libraries that compute count as well.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgekit import __version__
from edgekit.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

Part = Literal["stages", "export", "bench", "diagnosis"]

_PACKAGE = Path(__file__).parent.parent
_NEVER = {  # presents, finds or stores results, but makes none
    "__init__.py", "__main__.py", "bundle", "checkpoint.py", "cli", "config/configfile.py",
    "errors.py", "files.py", "inspecting", "monitor", "pipeline", "processes.py", "progress.py", "recipe.py",
    "report", "runs", "units.py", "weights.py", "workload/items.py", "workload/loading.py", "opening.py",
    "zoo",  # the demo: its model and data are in the workload's fingerprint
}  # fmt: skip
_LATER = {"formats", "runtimes", "bench", "devices", "diagnosis"}  # what comes after the stages
_BENCH = (
    "bench",
    "devices",
    "formats",
    "runtimes",
    "tasks",
    "tensors.py",
    "workload/preprocessing.py",
)
_DIAGNOSIS = ("diagnosis", "noise.py", "batching.py", "tasks", "tensors.py", "workload/preprocessing.py")

LIBRARIES: dict[Part, tuple[str, ...]] = {
    "stages": ("torch", "torch-pruning", "nncf", "torchao", "numpy"),
    "export": ("torch", "onnx", "onnxscript", "litert-torch", "ai-edge-quantizer", "executorch"),
    "bench": ("onnxruntime", "ai-edge-litert", "openvino", "executorch", "torch", "numpy"),
    "diagnosis": ("numpy", "scipy", "torch"),
}


@functools.cache
def code_version(part: Part) -> str:
    """sha256 over the sources and library versions that the results of a part depend on."""
    sources = {
        path.relative_to(_PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(_PACKAGE.rglob("*.py"))
        if _counts(path.relative_to(_PACKAGE), part)
    }
    return sha256_of([__version__, sources, versions(LIBRARIES[part])])


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions; a package that is missing is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def model_digest(model: nn.Module) -> str:
    """sha256 over all tensors of a model, and over the code of a captured graph."""
    digest = hashlib.sha256()
    code = getattr(model, "code", None)
    digest.update(code.encode() if isinstance(code, str) else type(model).__qualname__.encode())
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name in sorted(tensors):
        digest.update(_bytes_of(name, tensors[name]))
    return digest.hexdigest()


def _bytes_of(name: str, value: Tensor) -> bytes:
    import torch

    plain = value.detach().cpu().contiguous().reshape(-1)
    head = f"{name} {plain.dtype} {tuple(value.shape)} ".encode()
    return head + plain.view(torch.uint8).numpy().tobytes()


def _counts(source: Path, part: Part) -> bool:
    first, name = source.parts[0], source.as_posix()
    if part in ("bench", "diagnosis"):
        return name.startswith(_BENCH if part == "bench" else _DIAGNOSIS)
    if part == "export" and first == "formats":
        return True
    return not {first, name} & (_NEVER | _LATER)
