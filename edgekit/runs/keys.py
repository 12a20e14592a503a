"""What a result depends on, as hashes: which code made it, and from which model.

The code enters by a hash of what can be executed for the result (``reach``), not by ``__version__`` alone:
between two releases the sources change under one version, and a run that was begun before a fix must not pass
off its old stages as made by the new code. Nobody keeps a list of what counts: only where each part begins
stands here, and a new file counts for those that come to call it. A definition counts by what it does
(``definitions``): an hour of training survives a better comment, a message or a column of a table. Modules
that tell or keep (``reach.TELL_OR_KEEP``) and what a run knows of itself (``_BOOKKEEPING``) are left out:
what they hand over comes out as it went in. Versions of the libraries imported on the way count as well.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any, TypeAlias

from edgekit import __version__
from edgekit.caching import cache_folder
from edgekit.errors import EdgekitError
from edgekit.files import sha256_of, write_json
from edgekit.runs.reach import Package, Reached

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LIBRARIES", "PARTS", "Part", "code_version", "model_digest", "parts", "reached", "versions"]

# One of ``parts()``: a kind of stage, one of ``PARTS``, "export FORMAT", or all "stages".
Part: TypeAlias = str

# Where each part begins, beside the stages, which begin where their table says.
PARTS: dict[str, tuple[str, ...]] = {
    "baseline": ("edgekit.training.evaluation:evaluate", "edgekit.macs:count"),
    "precision": (
        "edgekit.pipeline.contract:_chosen",
        "edgekit.int8.fake_quantize:fake_quantize",
        "edgekit.training.evaluation:evaluate",
    ),
    "preflight": ("edgekit.pipeline.preflight:_Rehearsal",),
    "export": ("edgekit.formats.exporting:export", "edgekit.workload.workload:Workload.example"),
    "evaluation": (
        "edgekit.pipeline.evaluation:write_inputs",
        "edgekit.pipeline.evaluation:_evaluate",
        "edgekit.pipeline.chain:answers_of_few",
        "edgekit.int8.integers:OnIntegers",
        "edgekit.training.evaluation:evaluate",
    ),
    "bench": (
        "edgekit.bench.benchmark:benchmark",
        "edgekit.pipeline.measuring:_candidates",
        "edgekit.pipeline.measuring:_check",
        "edgekit.pipeline.measuring:_sample",
    ),
    "diagnosis": (
        "edgekit.pipeline.diagnosing:_Diagnosing",
        "edgekit.pipeline.diagnosing:_Diagnosing.run",
        "edgekit.int8.fake_quantize:fake_quantize",  # called by the int8 graph that it is given
        "edgekit.int8.fake_quantize:fake_quantize_channels",
        "edgekit.training.evaluation:evaluate",
    ),
}
_EVERY_STAGE = ("edgekit.training.seeds:seeded", *PARTS["baseline"])
_INT8 = ("edgekit.int8.integers:OnIntegers",)  # what asks an int8 graph
_GIVEN = ("edgekit.workload.workload:Workload",)  # to every part
# What a run knows of itself: its settings, folder and ways to devices. Their values are in the keys.
_BOOKKEEPING = (
    "edgekit.pipeline.artifacts:Manifest",
    "edgekit.pipeline.chain:Rung",
    "edgekit.pipeline.connections:Connections",
    "edgekit.pipeline.job:Job",
    "edgekit.recipe:Recipe",
)

# Libraries that compute, by the names that they are imported under: the distributions that have them.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "PIL": ("pillow",),
    "ai_edge_litert": ("ai-edge-litert",),
    "ai_edge_quantizer": ("ai-edge-quantizer",),
    "executorch": ("executorch",),
    "flatbuffers": ("flatbuffers",),
    "google": ("protobuf",),
    "litert_torch": ("litert-torch",),
    "nncf": ("nncf",),
    "numpy": ("numpy",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "onnxscript": ("onnxscript",),
    "openvino": ("openvino",),
    "safetensors": ("safetensors",),
    "scipy": ("scipy",),
    "sklearn": ("scikit-learn",),
    "tflite_micro": ("tflite-micro",),
    "tflite_runtime": ("tflite-runtime",),
    "torch": ("torch",),
    "torch_pruning": ("torch-pruning",),
    "torchao": ("torchao",),
    "torchvision": ("torchvision",),
}
_KEPT = 16  # versions of the package whose hashes are remembered


def parts() -> tuple[Part, ...]:
    """All that there are."""
    from edgekit.formats import FORMATS
    from edgekit.stages import STAGES

    return (*STAGES, *PARTS, *(f"export {name}" for name in FORMATS))


@functools.cache
def code_version(part: Part, without: tuple[str, ...] = ()) -> str:
    """sha256 over the code and library versions that the results of a part depend on.

    Args:
        part: see ``Part``.
        without: definitions ("module:name") that aren't executed with these settings.

    Raises LookupError: there is no such part.
    """
    code, libraries = _remembered(part, without)
    wanted = (name for library in libraries for name in LIBRARIES.get(library, ()))
    return sha256_of([__version__, code, versions(tuple(wanted))])


def reached(package: Package, part: Part, without: Iterable[str] = ()) -> Reached:
    """What can be executed for a part.

    Raises LookupError: there is no such part.
    """
    starts, others = _begin(part)
    return package.reach(starts, _GIVEN, (*_BOOKKEEPING, *others, *without))


def _begin(part: Part) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where a part begins, and rows of tables that aren't asked for."""
    from edgekit.formats import FORMATS
    from edgekit.stages import STAGES
    from edgekit.stages.base import Form

    kinds = {
        kind: (
            f"{stage.run.__module__}:{stage.run.__qualname__}",
            *_EVERY_STAGE,
            *(_INT8 if stage.ensures is Form.INT8 else ()),
        )
        for kind, stage in STAGES.items()
    }
    name, _, format = part.partition(" ")
    if part == "stages":
        return tuple(start for starts in kinds.values() for start in starts), ()
    if format:
        rows = {one: f"{type(row).__module__}:{type(row).__qualname__}" for one, row in FORMATS.items()}
        own = rows.pop(format)
        return PARTS[name], tuple(set(rows.values()) - {own})
    return (kinds | PARTS)[part], ()


def _remembered(part: Part, without: tuple[str, ...]) -> tuple[str, list[str]]:
    """The hash of all that is reached, and the libraries in it.

    Both are kept in the user's cache, for the very same sources.
    """
    package = _package()
    path = cache_folder() / "code" / f"{package.digest[:32]}.json"
    name = " ".join([part, *without])
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(path.read_text()))
    with contextlib.suppress(KeyError, ValueError, TypeError):
        code, libraries = known[name]
        return str(code), [str(one) for one in libraries]
    found = reached(package, part, without)
    known[name] = sha256_of(found.own), sorted(found.outside & LIBRARIES.keys())
    with contextlib.suppress(OSError, EdgekitError):  # it is found out anew, then
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, known)
        for old in sorted(path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    code, libraries = known[name]
    return code, libraries


@functools.cache
def _package() -> Package:
    return Package(resources.files(__package__.partition(".")[0]))


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions; a package that is missing is left out."""
    return {package: found for package in packages if (found := _version(package)) is not None}


@functools.cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
