"""Whether LiteRT for Microcontrollers (TFLM) takes an int8 file: asked of the first one, before any training.

TFLM has fewer ops than LiteRT, and stricter ones: a recurrent layer, which LiteRT's converter unrolls over
time, may become a concatenation of more tensors than TFLM's kernel holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from edgekit.errors import ExportError, MeasurementError
from edgekit.tensors import Tensors

__all__ = ["refuse"]

_MOST = 4  # layers that are named


def refuse(path: Path, model: nn.Module, example: Tensors) -> str:
    """Ask TFLM about a LiteRT file that was made of ``model``, whose inputs are like ``example`` (N, …).

    Returns what couldn't be asked, "" if nothing. Raises ExportError: TFLM refuses the file; with the layers
    that aren't computed on integers there, and the reason.
    """
    from edgekit import guarded
    from edgekit.formats.litert import reading, tflm, tflm_ops

    described = guarded.call(reading.describe, str(path), what="this file can't be read", where=path.name)
    missing = tflm_ops.missing(described["operators"])
    if missing:
        raise _refused(model, example, f"it has no {', '.join(missing)}")
    if not tflm.available():
        return "only the kinds of ops were looked up, as tflite-micro isn't installed (extra: micro)"
    try:
        said = guarded.call(tflm.refusal, str(path), what="TFLM can't load this file", where=path.name)
    except MeasurementError as error:  # it ended the process
        said = error.got or error.what
    if said:
        raise _refused(model, example, said)
    return ""


def _refused(model: nn.Module, example: Tensors, said: str) -> ExportError:
    from edgekit.inspecting.model import float_layers

    layers = float_layers(model, example, "litert", hybrid=False)
    kinds = list(dict.fromkeys(f"{layer.op}: {layer.reason}" for layer in layers))
    told = [f"layer {layer.name!r}" for layer in layers]
    return ExportError(
        "a microcontroller can't run the file that this model becomes",
        where=_some(told),
        got="; ".join([*kinds[:_MOST], f"LiteRT for Microcontrollers says: {said}"]),
        expected="ops that LiteRT for Microcontrollers has, on integers",
        next=(f"replace {_some(told)} by " if told else "write the model with ")
        + "layers that compute on integers (convolutions, linear layers, attention); or, for a device with "
        "LiteRT's full runtime, set exports.microcontroller=false",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST]) + (", …" if len(names) > _MOST else "")
