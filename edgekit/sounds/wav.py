"""WAV from its bytes: PCM of 8 to 32 bits and floats, any number of channels (RIFF, Microsoft and IBM 1991).

The standard library's ``wave`` knows neither floats nor, before Python 3.12, the extended header that 24 bits
have.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.media.sorts import Unreadable

__all__ = ["Sound", "read_wav"]

_PCM, _FLOAT, _EXTENDED = 1, 3, 0xFFFE
_OTHERS = {2: "ADPCM", 6: "A-law", 7: "mu-law", 0x11: "IMA ADPCM", 0x31: "GSM 6.10", 0x55: "MP3"}
_UNKNOWN_LENGTH = 0x7FFFF000  # and more: of what was written while nobody knew its end
RATES = (1000, 384_000)


@dataclass(frozen=True)
class Sound:
    """samples: (N, channels) float32, of -1 to 1. rate: in Hz. kind: how they were stored."""

    samples: npt.NDArray[np.float32]
    rate: int
    kind: str


def read_wav(content: bytes) -> Sound:
    """All samples of a WAV file. Raises Unreadable: damaged, cut off, or compressed."""
    if content[:4] not in (b"RIFF", b"RF64") or content[8:12] != b"WAVE":
        raise Unreadable(_what(content))
    header, data = _chunks(content)
    if header is None or len(header) < 16:
        raise Unreadable("a damaged WAV: no description of its samples")
    code, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", header)
    if code == _EXTENDED and len(header) >= 26:
        (code,) = struct.unpack_from("<H", header, 24)
    if code not in (_PCM, _FLOAT):
        name = _OTHERS.get(code, f"code {code}")
        raise Unreadable(f"samples are compressed ({name}): convert it to PCM")
    if not RATES[0] <= rate <= RATES[1]:
        raise Unreadable(f"a damaged WAV: a sample rate of {rate:,} Hz")
    known = (8, 16, 24, 32) if code == _PCM else (32, 64)
    if bits not in known or not channels or block != channels * bits // 8:
        raise Unreadable(f"a damaged WAV: {channels} channels of {bits} bits in {block} bytes")
    if data is None:
        raise Unreadable("a damaged WAV: no samples")
    whole = data[: len(data) // block * block]
    if not whole:
        raise Unreadable("no samples")
    samples = _numbers(whole, code, bits).reshape(-1, channels)
    if not np.isfinite(samples).all():
        raise Unreadable("samples are NaN or infinite")
    return Sound(samples, rate, f"{bits} bits" if code == _PCM else f"{bits} bits, floats")


def _chunks(content: bytes) -> tuple[bytes | None, bytes | None]:
    """The header's and the samples' bytes. Raises Unreadable: there are fewer than it says."""
    header, at = None, 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        start, left = at + 8, len(content) - at - 8
        if name == b"data":
            if size >= _UNKNOWN_LENGTH and left:
                size = left
            if size > left:
                raise Unreadable(f"cut off: {left:,} of {size:,} bytes of samples are there")
            return header, content[start : start + size]
        if name == b"fmt ":
            header = content[start : start + size]
        at = start + size + size % 2
    return header, None


def _numbers(data: bytes, code: int, bits: int) -> npt.NDArray[np.float32]:
    if code == _FLOAT:
        with np.errstate(over="ignore"):  # what is too large is infinite, which the caller refuses
            return np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if bits == 24:
        low = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(low), 4), np.uint8)
        wide[:, 1:] = low
        values: npt.NDArray[Any] = wide.view("<i4")[:, 0]
        return (values / 2.0**31).astype(np.float32)
    whole = np.frombuffer(data, f"<i{bits // 8}").astype(np.float64)
    return (whole / 2.0 ** (bits - 1)).astype(np.float32)


def _what(content: bytes) -> str:
    """What a file is that is no WAV."""
    if not content:
        return "an empty file"
    for start, what in (
        (b"version https://git-lfs", "a pointer of Git LFS, not the sound itself: git lfs pull"),
        (b"<", "a page of HTML or XML"),
        (b"RIFF", "a damaged WAV"),
        (b"RIFX", "a WAV of another order of bytes (RIFX): convert it"),
        (b"PK\x03\x04", "a zip archive"),
    ):
        if content.startswith(start):
            return what
    if not content[:64].strip(b"\0"):
        return "zeros"
    return f"no WAV (it starts with {content[:12]!r})"
