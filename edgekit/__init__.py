"""From a trained PyTorch model to small, fast, measured ONNX and LiteRT files.

    import edgekit
    report = edgekit.compress("my_workload.py", recipe="mobile")

The names below are loaded on first use, so that ``import edgekit`` imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgekit.annotations import BoxFiles, Pictures, read_coco, read_voc, read_yolo
    from edgekit.errors import EdgekitError
    from edgekit.opening import load_workload
    from edgekit.pictures.files import ImageFiles
    from edgekit.pictures.transform import ImageTransform
    from edgekit.pipeline import compress
    from edgekit.ragged import Ragged
    from edgekit.recipe import Recipe, load_recipe
    from edgekit.report import Report
    from edgekit.sounds.files import SoundFiles
    from edgekit.sounds.transform import SoundTransform
    from edgekit.sources.making import load_classes, load_model
    from edgekit.sources.request import Source
    from edgekit.tasks import (
        AnchorFree,
        Anchors,
        Centres,
        Classification,
        Detection,
        Fcos,
        Keypoints,
        Outputs,
        OwnHead,
        Priors,
        Reconstruction,
        Regression,
        Segmentation,
        Sets,
        Task,
        TokenClassification,
    )
    from edgekit.texts.files import TextFiles
    from edgekit.texts.transform import TextTransform
    from edgekit.workload import Augmentation, Preprocessing, Samples, Workload, load_weights

__all__ = [
    "AnchorFree",
    "Anchors",
    "Augmentation",
    "BoxFiles",
    "Centres",
    "Classification",
    "Detection",
    "EdgekitError",
    "Fcos",
    "ImageFiles",
    "ImageTransform",
    "Keypoints",
    "Outputs",
    "OwnHead",
    "Pictures",
    "Preprocessing",
    "Priors",
    "Ragged",
    "Recipe",
    "Reconstruction",
    "Regression",
    "Report",
    "Samples",
    "Segmentation",
    "Sets",
    "SoundFiles",
    "SoundTransform",
    "Source",
    "Task",
    "TextFiles",
    "TextTransform",
    "TokenClassification",
    "Workload",
    "__version__",
    "compress",
    "load_classes",
    "load_model",
    "load_recipe",
    "load_weights",
    "load_workload",
    "read_coco",
    "read_voc",
    "read_yolo",
]

_HOMES = {
    "edgekit.annotations": ("BoxFiles", "Pictures", "read_coco", "read_voc", "read_yolo"),
    "edgekit.errors": ("EdgekitError",),
    "edgekit.pictures.files": ("ImageFiles",),
    "edgekit.pictures.transform": ("ImageTransform",),
    "edgekit.pipeline": ("compress",),
    "edgekit.ragged": ("Ragged",),
    "edgekit.recipe": ("Recipe", "load_recipe"),
    "edgekit.report": ("Report",),
    "edgekit.sounds.files": ("SoundFiles",),
    "edgekit.sounds.transform": ("SoundTransform",),
    "edgekit.sources.making": ("load_classes", "load_model"),
    "edgekit.sources.request": ("Source",),
    "edgekit.tasks": (
        "AnchorFree",
        "Anchors",
        "Centres",
        "Fcos",
        "Keypoints",
        "OwnHead",
        "Sets",
        "Classification",
        "Detection",
        "Outputs",
        "Priors",
        "Reconstruction",
        "Regression",
        "Segmentation",
        "Task",
        "TokenClassification",
    ),
    "edgekit.texts.files": ("TextFiles",),
    "edgekit.texts.transform": ("TextTransform",),
    "edgekit.workload": (
        "Augmentation",
        "Preprocessing",
        "Samples",
        "Workload",
        "load_weights",
    ),
    "edgekit.opening": ("load_workload",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value  # the next look-up finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
