"""What the READMEs of all targets say in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.bundle.contents import Contents, Input
from edgekit.bundle.names import comment
from edgekit.bundle.sounds import golden_sounds
from edgekit.units import human_bytes, human_ns

__all__ = [
    "latency_words",
    "memory_words",
    "preprocessing_words",
    "raw_words",
    "sound_values",
    "sound_words",
    "state_words",
    "to_compute_words",
]


def raw_words(one: Input) -> str:
    """What a raw sample is."""
    raw = one.raw
    shape = " x ".join(map(str, raw.shape)) or "one number"
    if raw.layout == "any":
        return f"{raw.dtype}, {shape}"
    if one.preprocessing.get("sound") is not None:
        return f"{raw.dtype}, {shape} (1, frames, bands): a sound's features"
    order = "height, width, channels" if raw.layout == "NHWC" else "channels, height, width"
    white = "" if raw.white == 255 else f", white is {raw.white:g}"
    return f"{raw.dtype}, {shape} ({order}){white}"


def preprocessing_words(one: Input) -> str:
    """What happens to it before the file gets it."""
    if one.embedded:
        return "none: it is inside the file, which takes raw bytes"
    settings = one.preprocessing
    if settings["dtype"] == "int64":
        return "none: token ids are passed on"
    mean, std = (", ".join(f"{value:.9g}" for value in settings[key]) for key in ("mean", "std"))
    several = len(settings["mean"]) > 1 or len(settings["std"]) > 1
    brackets = ("[{}]", "[{}]") if several else ("{}", "{}")
    formula = (
        f"(raw * {settings['scale']:.9g} - {brackets[0].format(mean)}) / {brackets[1].format(std)} in float32"
    )
    if settings["size"] is not None:
        height, width = settings["size"]
        formula += f", then resized to {height} x {width} (bilinear, half-pixel centres, no antialiasing)"
    if one.end.scale is not None:
        formula += f", then quantised to {one.end.dtype}"
    return formula


def sound_words(contents: Contents) -> str:
    """How raw samples are computed of a sound; "" where they aren't."""
    return "" if contents.sound is None else _computed(contents.sound)


def sound_values(contents: Contents) -> dict[str, Any]:
    """What templates say of a sound's features; ``sound_lengths``: of the golden sounds, in samples."""
    how = contents.sound
    return {
        "sound": how,
        "sound_words": sound_words(contents),
        "sound_lengths": [] if how is None else [len(one) for one in golden_sounds(how)],
        "to_compute": to_compute_words(contents),
    }


def to_compute_words(contents: Contents) -> str:
    """What the caller computes of sounds for a model of several inputs or outputs; "" where nothing is."""
    if not contents.several:
        return ""
    sounds = [(one.end.name, one.preprocessing.get("sound")) for one in contents.inputs if not one.embedded]
    return " ".join(
        f"Your code computes a raw sample of {comment(name)} of a sound: {_computed(how)}."
        for name, how in sounds
        if how is not None
    )


def _computed(how: Mapping[str, Any]) -> str:
    """``SoundTransform.computed`` in words."""
    told = f"{how['length']:,} samples at {how['rate']:,} Hz, one channel of -1 to 1"
    told += ", in the middle of silence if there are fewer, the part with most energy if there are more"
    if how["normalize"]:
        told += "; mean 0 and spread 1"
    if not how["bands"]:
        return told
    return (
        f"{told}; logarithms of 1e-6 plus the energies in {how['bands']} mel bands of {how['lowest']:g} to "
        f"{how['highest']:g} Hz, of Hann windows of {how['window']} samples every {how['hop']}, in "
        f"{how['fft']} points"
    )


def memory_words(contents: Contents) -> str:
    """What the tensors need while it runs."""
    if contents.activation_bytes is None:
        return "not known for this format; peak RSS is measured by `edgekit bench`"
    return f"{human_bytes(contents.activation_bytes)} at least, beside the weights and the runtime itself"


def state_words(contents: Contents) -> str:
    """Of a model that streams, what is given back to it; "" of any other."""
    pairs = [
        f"{comment(output)} is {comment(name)} of the next step" for output, name in contents.states.items()
    ]
    if not pairs:
        return ""
    told = ", ".join(pairs) + ("; it is zero at first." if len(pairs) == 1 else "; they are zero at first.")
    return told if len(pairs) > 1 else f"Output {told}"


def latency_words(contents: Contents) -> list[tuple[str, str]]:
    """Where it was measured, and the median."""
    return [
        (f"{comment(device)}, {threads} thread{'' if threads == 1 else 's'}, p50", human_ns(p50))
        for (device, threads), p50 in sorted(contents.latency.items())
    ]
