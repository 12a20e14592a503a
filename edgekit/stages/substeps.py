"""A stage's work in pieces: each has a folder below the stage's, is begun, finished, and at last dropped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.files import read_json

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Part", "drop_parts"]

_SETTINGS, _DONE, _WEIGHTS = "settings.json", "done.json", "weights.safetensors"
_PREFIX = "part-"


class Part:
    """One piece: its folder is ready, and holds nothing that was begun with other settings (JSON values).

    Files are whole or absent; what says that the piece is finished is written last.
    """

    def __init__(self, stage: Path, name: str, settings: dict[str, Any]) -> None:
        from edgekit.files import write_json

        self.folder = stage / f"{_PREFIX}{name}"
        if _read(self.folder / _SETTINGS) != settings:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            write_json(self.folder / _SETTINGS, settings)

    @property
    def checkpoint(self) -> Path:
        """For a training within this piece."""
        return self.folder / "checkpoint.pt"

    def done(self, model: nn.Module | None = None) -> dict[str, Any] | None:
        """What ``finish`` was given; None if that didn't happen. ``model`` takes the weights kept there."""
        from edgekit.errors import WeightsError
        from edgekit.weights import load_weights

        found = _read(self.folder / _DONE)
        if not isinstance(found, dict):
            return None
        try:
            if model is not None:
                load_weights(model, self.folder / _WEIGHTS)
        except WeightsError:
            return None
        return found

    def finish(self, content: dict[str, Any], model: nn.Module | None = None) -> None:
        """Keep JSON values, and the weights of ``model``. Raises DiskFullError."""
        from edgekit.files import write_json
        from edgekit.weights import save_weights

        if model is not None:
            save_weights(model, self.folder / _WEIGHTS)
        write_json(self.folder / _DONE, content)
        self.checkpoint.unlink(missing_ok=True)


def drop_parts(stage: Path) -> None:
    """Remove all pieces of a stage that is finished."""
    for folder in stage.glob(f"{_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
