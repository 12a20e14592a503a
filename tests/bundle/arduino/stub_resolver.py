"""A stand-in for TFLM's resolver header, with the method names that its public header has."""

from __future__ import annotations

from edgekit.formats.litert.tflm_ops import METHODS

_TEXT = """#pragma once
enum TfLiteStatus {{ kTfLiteOk, kTfLiteError }};
namespace tflite {{
class MicroOpResolver {{}};
template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {{
 public:
{methods}
}};
}}  // namespace tflite
"""


def header() -> bytes:
    methods = (f"  TfLiteStatus {name}() {{ return kTfLiteOk; }}" for name in sorted(METHODS.values()))
    return _TEXT.format(methods="\n".join(methods)).encode()
