"""What the generated README and comments say."""

from __future__ import annotations

from typing import Any

from edgekit.bundle.contents import Contents, Input, Output, Tensor
from edgekit.bundle.names import comment
from edgekit.bundle.words import latency_words, memory_words, preprocessing_words, raw_words
from edgekit.units import human_bytes, human_share

__all__ = ["input_words", "output_words", "words"]


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
        "litert": litert,
        "fitting": "litert|tflite" if litert else "onnxruntime",
        "root": "LITERT_ROOT" if litert else "ONNXRUNTIME_ROOT",
        "other_artifact": "FILE.onnx" if litert else "FILE.tflite",
    }


def input_words(one: Input) -> dict[str, str]:
    """The same of an input."""
    return {
        "name": comment(one.end.name),
        "file_name": one.end.name,
        "raw_words": raw_words(one),
        "preprocessing_words": preprocessing_words(one),
        "input_words": _end(one.end),
    }


def output_words(one: Output, prediction: str = "prediction", label: str = "label") -> dict[str, str]:
    """The same of an output. ``prediction``, ``label``: what they are called in code."""
    return {
        "name": comment(one.end.name),
        "file_name": one.end.name,
        "output_words": _end(one.end),
        "tolerance_words": "absolute" if one.end.dtype.startswith("float") else "steps of its grid",
        "use_words": _use(one, prediction, label),
        "reads_out": _reads_out(one),
    }


def _end(end: Tensor) -> str:
    shape = " x ".join(map(str, end.shape))
    if end.scale is None:
        return f"{end.dtype}, {shape}"
    return f"{end.dtype}, {shape}, scale {end.scale:.9g}, zero point {end.zero_point}"


def _use(one: Output, prediction: str, label: str) -> str:
    if one.class_axis is None:
        return f"{prediction}.values: real numbers"
    if one.one_class:
        return f"{prediction}.ranking[0]: the best class; .probabilities: softmax; {label}(i): its name"
    return f"{prediction}.labels: the best class of each position; {label}(i): its name"


def _reads_out(one: Output) -> str:
    real = "real numbers"
    if one.class_axis is None:
        return real
    if one.one_class:
        return f"{real}, their softmax, and all classes, best first (of equals the first, as argmax says)"
    return f"{real}, and the best class of each position"
