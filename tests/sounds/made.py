"""Sounds and folders of them, made here."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 8000


def tone(hertz: float = 440.0, seconds: float = 0.5, rate: int = RATE) -> npt.NDArray[np.float64]:
    """A sine of half the full scale."""
    found: npt.NDArray[np.float64] = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return found


def wav(samples: npt.NDArray[np.float64], rate: int = RATE, kind: str = "16", channels: int = 1) -> bytes:
    """A WAV file; ``kind``: bits, "f32", "f64", or bits and "x" for the extended header."""
    bits = int(kind.strip("fx"))
    several = np.repeat(samples[:, None], channels, 1)
    if kind.startswith("f"):
        data = several.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        data = (np.round(several * 128) + 128).clip(0, 255).astype(np.uint8).tobytes()
    else:
        whole = np.round(several * 2.0 ** (bits - 1)).astype("<i4" if bits != 16 else "<i2")
        raw = whole.tobytes()
        data = b"".join(raw[at : at + 3] for at in range(0, len(raw), 4)) if bits == 24 else raw
    code = 3 if kind.startswith("f") else 1
    block = channels * bits // 8
    header = struct.pack(
        "<HHIIHH", 0xFFFE if "x" in kind else code, channels, rate, rate * block, block, bits
    )
    if "x" in kind:
        header += struct.pack("<HHIH", 22, bits, 0, code) + bytes(14)
    return chunks((b"fmt ", header), (b"LIST", b"odd"), (b"data", data))


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for name, part in parts
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def folder(path: Path, classes: str = "low high", each: int = 5) -> Path:
    """``path/low/0.wav`` and so on: tones of another height for each class."""
    for label, name in enumerate(classes.split()):
        (path / name).mkdir(parents=True)
        for index in range(each):
            samples = tone(300 * (1 + 3 * label) + 10 * index, 0.3 + 0.02 * index)
            (path / name / f"{index}.wav").write_bytes(wav(samples))
    return path
