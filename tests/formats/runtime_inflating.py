"""A runtime that edgekit knows nothing of: it inflates a file, and lets ONNX Runtime run it."""

import tempfile
import zlib
from pathlib import Path
from typing import Any

from runtimes import sibling

OnnxRuntimeModel: Any = sibling("runtime_onnxruntime").OnnxRuntimeModel


class InflatingModel(OnnxRuntimeModel):
    """Its ``backend`` is ONNX Runtime's, its version zlib's."""

    def __init__(self, path: str, threads: int, backend: str = "") -> None:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(zlib.decompress(Path(path).read_bytes()))
            file.flush()
            super().__init__(file.name, threads, backend)

    @classmethod
    def prepare(cls) -> None:
        super().prepare()
        cls.version = zlib.ZLIB_RUNTIME_VERSION


MODEL = InflatingModel
