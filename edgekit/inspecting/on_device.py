"""What a device's profile says about a model or a file; this machine is also looked at."""

from __future__ import annotations

from typing import Any

from edgekit.devices import Device, probe
from edgekit.int8.rules import PREDICTED
from edgekit.runtimes import RUNTIMES

__all__ = ["describe"]

# Instructions that multiply four int8 pairs and add them to an int32: names as in /proc/cpuinfo.
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp", "svei8mm", "sve2")


def describe(device: Device, arena_bytes: int | None, stored_bytes: int = 0) -> dict[str, Any]:
    """As JSON: which runtimes apply, whether memory suffices, whether the CPU has int8 dot products.

    Args:
        device: a device of transport "local" is asked; of any other only the profile is read.
        arena_bytes: what activations take; None if it isn't known.
        stored_bytes: what weights take, or the file. In flash where there is some, else in memory.

    Raises:
        MeasurementError: this machine's Python can't answer.
    """
    facts = probe(device) if device.here else None
    return {
        "name": device.name,
        "description": device.description,
        "cpu": facts["cpu"] if facts else None,
        "probed": facts is not None,
        "runtimes": {runtime: _runtime(device, runtime, facts) for runtime in PREDICTED},
        "memory": _memory(device, facts, arena_bytes, stored_bytes),
        "flash": _flash(device, stored_bytes),
        "int8_dot_product": _dot_product(device, facts),
    }


def _runtime(device: Device, runtime: str, facts: dict[str, Any] | None) -> dict[str, Any]:
    """``applies``: measured there by `edgekit compress`. ``version`` is None where nothing was found."""
    listed = runtime in device.runtimes
    installed = facts["runtimes"] if facts else {}
    known = RUNTIMES[runtime]
    version = next((f"{p} {installed[p]}" for p in known.packages if p in installed), None)
    reason = "" if listed else f"the profile lists only {', '.join(device.runtimes)}"
    if listed and facts and version is None:
        reason = f"not installed there: pip install {known.package}"
    return {"applies": not reason, "version": version, "reason": reason}


def _memory(device: Device, facts: dict[str, Any] | None, arena: int | None, stored: int) -> dict[str, Any]:
    stated = device.memory_bytes  # a profile may know what can't be asked
    needed = arena if arena is None or device.flash_bytes else arena + stored
    size = stated or (facts["memory_bytes"] if facts else None)
    return {
        "bytes": size,
        "stated_by": "profile" if stated else "device" if size else None,
        "needed_bytes": needed,
        "suffices": None if size is None or needed is None else needed <= size,
    }


def _flash(device: Device, stored: int) -> dict[str, Any] | None:
    if device.flash_bytes is None:
        return None
    return {
        "bytes": device.flash_bytes,
        "needed_bytes": stored,
        "suffices": stored <= device.flash_bytes,
    }


def _dot_product(device: Device, facts: dict[str, Any] | None) -> dict[str, Any]:
    """``has`` is None where the device wasn't asked, or says nothing of its instructions."""
    flags = set(facts["isa"] if facts else device.isa)
    if not flags:
        return {"has": None, "by": [], "note": "unknown: the device wasn't asked" if not facts else "unknown"}
    by = [flag for flag in _DOT_PRODUCTS if flag in flags]
    note = ""
    if not by:
        note = "int8 gains less here"
        if any(flag.startswith("avx") for flag in flags):
            note += ", and uint8 × int8 sums may saturate in 16 bits in ONNX Runtime: compare accuracy"
    return {"has": bool(by), "by": by, "note": note}
