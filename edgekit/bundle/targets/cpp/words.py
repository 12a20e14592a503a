"""What the generated README and comments say."""

from __future__ import annotations

from typing import Any

from edgekit.bundle.contents import Contents, Tensor
from edgekit.bundle.names import comment
from edgekit.bundle.words import latency_words, memory_words, preprocessing_words, raw_words
from edgekit.units import human_bytes, human_share

__all__ = ["words"]


def words(contents: Contents) -> dict[str, Any]:
    """Values of the templates that are text to read."""
    litert = contents.model.format == "litert"
    return {
        "metric": comment(str(contents.task["metric"])),
        "accuracy": human_share(contents.accuracy),
        "size": human_bytes(len(contents.model.content)),
        "memory": memory_words(contents),
        "latency": latency_words(contents),
        "license": comment(contents.license),
        "raw_words": raw_words(contents),
        "preprocessing_words": preprocessing_words(contents),
        "input_words": _end(contents.input),
        "output_words": _end(contents.output),
        "litert": litert,
        "fitting": "litert|tflite" if litert else "onnxruntime",
        "root": "LITERT_ROOT" if litert else "ONNXRUNTIME_ROOT",
        "other_artifact": "FILE.onnx" if litert else "FILE.tflite",
        "tolerance_words": "absolute" if contents.output.dtype.startswith("float") else "steps of its grid",
        "use_words": _use(contents),
        "reads_out": _reads_out(contents),
    }


def _end(end: Tensor) -> str:
    shape = " x ".join(map(str, end.shape))
    if end.scale is None:
        return f"{end.dtype}, {shape}"
    return f"{end.dtype}, {shape}, scale {end.scale:.9g}, zero point {end.zero_point}"


def _use(contents: Contents) -> str:
    if contents.class_axis is None:
        return "prediction.values: real numbers"
    if contents.task["kind"] == "classification":
        return "prediction.ranking[0]: the best class; .probabilities: softmax; label(i): its name"
    return "prediction.labels: the best class of each position; label(i): its name"


def _reads_out(contents: Contents) -> str:
    real = "real numbers"
    if contents.class_axis is None:
        return real
    if contents.task["kind"] == "classification":
        return f"{real}, their softmax, and all classes, best first (of equals the first, as argmax says)"
    return f"{real}, and the best class of each position"
