"""Microcontrollers: an Arduino library with the model for TFLM and, where its ops allow it, in plain C99.

::

    making.py         contents → files
    memory.py         RAM and flash against a device's
    plain_c.py        the dependency-free C99 beside it
    surroundings.py   preprocessing, postprocessing and golden samples, as values for the templates
    literals.py       numbers and arrays in C
    trying.py         the golden test on this machine
    tflm_named.py     TFLM's answers for any number of inputs and outputs
    templates/        the files themselves

With several inputs or outputs the names of each one's code begin with its own (``digits_image_preprocess``);
the rest has structs with a member for each (``*_named`` among the templates).
"""

from __future__ import annotations

from edgekit.bundle.targets.arduino.making import files
from edgekit.bundle.targets.arduino.trying import try_out
from edgekit.bundle.targets.base import Target

__all__ = ["TARGET"]

TARGET = Target(
    name="arduino",
    about="Microcontrollers: an Arduino library for TensorFlow Lite Micro, and plain C99",
    formats=("litert",),
    files=files,
    try_out=try_out,
    precisions=("int8",),
    several=True,
)
