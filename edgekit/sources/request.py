"""A model by its name and data by their folder, in the place of a workload file. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PREFIXES", "Source", "is_model_file", "is_python", "is_source"]

PREFIXES = ("timm", "torchvision", "hf")
MODEL_FILES = (".onnx", ".pt2")
_PYTHON = re.compile(r"\.py(:\w+)?$")


@dataclass(frozen=True)
class Source:
    """What ``load_workload`` and ``compress`` take instead of a workload.

    Args:
        model: ``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER``, ``net.py:function``, an ONNX file or an
            exported program (.pt2).
        data: pictures, sounds, texts or boxes; see ``ImageFiles``, ``SoundFiles``, ``TextFiles``,
            ``BoxFiles``. None: none, for what looks at the model alone.
        weights: a .safetensors or .pth file; see ``load_weights``.
        pretrained: fetch the weights from the model's hub. Nothing else is ever fetched.
        skip_damaged: leave out what can't be read.
        size: of pictures in pixels along a side, of texts in tokens, of sounds in milliseconds; None: what
            the model's own configuration says, else by the data.
        validation, seed: see ``ImageFiles``.
        mean, std: of pictures of classes, in units of bytes / 255, for each channel or all; None: what the
            model's own configuration says. Refused for any other data.
    """

    model: str
    data: str | Path | None = None
    weights: str | Path | None = None
    pretrained: bool = False
    skip_damaged: bool = False
    size: int | None = None
    validation: float = 0.2
    seed: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __str__(self) -> str:
        return self.model if self.data is None else f"{self.model} on {self.data}"


def is_model_file(path: str | Path) -> bool:
    """Whether it names a file that holds a whole model, without code: ONNX, torch's ExportedProgram."""
    return Path(path).suffix.lower() in MODEL_FILES


def is_python(text: str) -> bool:
    """Whether it names a Python file, or a function in one."""
    return _PYTHON.search(text) is not None


def is_source(text: str) -> bool:
    """Whether it reads ``PREFIX:NAME``, known or not, and is no file of that name."""
    return re.match(r"[A-Za-z_]{2,}:", text) is not None and not is_python(text) and not Path(text).exists()
