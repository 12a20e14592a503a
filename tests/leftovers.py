"""What runs leave, to compare one that was killed with one that wasn't."""

from __future__ import annotations

from pathlib import Path

from edgekit.files import sha256


def results(run: Path) -> dict[str, str]:
    """sha256 of every exported file, and of what the stages left, but for notes of times."""
    files = [*run.glob("artifacts/*"), *run.glob("stages/*/*")]
    kept = (".onnx", ".tflite", ".safetensors", ".pt2", "plan.json")
    return {
        path.relative_to(run).as_posix(): sha256(path)
        for path in sorted(files)
        if path.name.endswith(kept) and "trial" not in path.name
    }
