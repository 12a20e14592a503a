"""``FILE.onnx``: a network of which there is nothing but its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import WorkloadError
from edgekit.progress import Event, reading
from edgekit.sources.model_file import ModelFile

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OnnxFile"]


class OnnxFile(ModelFile):
    """See ``sources/onnx/``."""

    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        from edgekit.files import sha256
        from edgekit.sources.onnx.module import OnnxModel
        from edgekit.sources.onnx.nodes import Refused
        from edgekit.sources.onnx.reading import read

        path = Path(name)
        file = read(path)
        for note in file.notes:
            reading(Event("note", "model", f"{path.name}: {note}"))
        try:
            model = OnnxModel(file, sha256(path))
            model.try_out()
        except Refused as error:
            raise WorkloadError(
                "this file can't be read as a model",
                where=name,
                got=str(error),
                expected="a network whose sizes follow from those of its inputs",
                next="export it with fixed sizes but for the number of samples, or build it in PyTorch: "
                "net.py:function",
            ) from error
        return model
