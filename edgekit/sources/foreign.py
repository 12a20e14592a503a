"""Files that hold a model in a form that edgekit doesn't start from: what they are, and the way out."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import WorkloadError
from edgekit.files import opened

__all__ = ["refuse_foreign"]

_FUNCTION = (
    "write a function that builds the model in PyTorch, and give its weights: net.py:function --weights FILE"
)
_LOOK = "; edgekit inspect FILE looks into the file"
_WHAT = {
    ".tflite": ("a LiteRT file, which is what edgekit writes", _FUNCTION + _LOOK),
    ".pte": ("an ExecuTorch file, which is what edgekit writes", _FUNCTION + _LOOK),
}
_WEIGHTS = (".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors")


def refuse_foreign(model: str | Path) -> None:
    """Raise WorkloadError if it names such a file that is there."""
    path = Path(model)
    suffix = path.suffix.lower()
    if suffix not in _WHAT and suffix not in _WEIGHTS:
        return
    if not path.is_file():
        return
    what, advice = _WHAT.get(suffix) or _of_weights(path)
    raise WorkloadError(
        "no model to start from",
        where=str(path),
        got=what,
        expected="timm:NAME, torchvision:NAME, hf:FOLDER, net.py:function or a workload file",
        next=advice.replace("FILE", str(path)),
    )


def _of_weights(path: Path) -> tuple[str, str]:
    """Weights alone, or a module that was pickled or scripted; nothing of it is read but its first bytes."""
    try:
        with opened(path) as stream:
            head = stream.read(1 << 16)
    except OSError:
        head = b""
    if b"code/__torch__" in head:
        return (
            "TorchScript: a program without modules that could be cut or captured",
            f"take the module that it was made of: {_FUNCTION}",
        )
    return "weights, or a pickled module, without the code that builds the model", _FUNCTION
