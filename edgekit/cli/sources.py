"""Options for a model by its name and data by their folder, instead of a workload file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.sources.request import Source

__all__ = [
    "Data",
    "Mean",
    "Pretrained",
    "Size",
    "SkipDamaged",
    "Std",
    "Weights",
    "begin",
    "given",
    "numbers",
]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE",
        help="For a model by name: a folder for each class, or a CSV or JSONL of paths or texts and labels; "
        "pictures, sounds, texts; COCO, YOLO or VOC for boxes.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", help="Its trained weights: .safetensors, .pth.", show_default=False
    ),
]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Fetch them from its hub; nothing is fetched without this.")
]
SkipDamaged = Annotated[bool, typer.Option("--skip-damaged", help="Leave out what can't be read.")]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        metavar="N",
        min=8,
        help="Of pictures in pixels, of texts in tokens, of sounds in ms; else by the model and the data.",
        show_default=False,
    ),
]


Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="NUMBERS",
        help="Of pictures / 255: one number, or 0.485,0.456,0.406; else the model's own.",
        show_default=False,
    ),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="NUMBERS", help="Their spread, likewise.", show_default=False),
]


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers between commas. Raises InputError."""
    if text is None:
        return None
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise InputError(
            "these are no numbers", where=option, got=repr(text), expected="0.5, or 0.485,0.456,0.406"
        ) from None


def given(
    workload: str | None,
    data: Path | None,
    weights: Path | None = None,
    pretrained: bool = False,
    skip_damaged: bool = False,
    size: int | None = None,
    mean: str | None = None,
    std: str | None = None,
) -> str | Source | None:
    """What ``load_workload`` takes. Raises InputError: options that go with a name, without one."""
    from edgekit.sources.request import Source, is_python, is_source

    options = {
        "--data": data is not None,
        "--weights": weights is not None,
        "--pretrained": pretrained,
        "--skip-damaged": skip_damaged,
        "--size": size is not None,
        "--mean": mean is not None,
        "--std": std is not None,
    }
    used = [name for name, one in options.items() if one]
    if workload is None:
        if used:
            raise InputError(
                f"{used[0]} goes with a model",
                next="timm:NAME, torchvision:NAME, hf:FOLDER, net.py:function or FILE.onnx",
            )
        return None
    if is_python(workload) and data is None:
        if used:
            raise InputError(
                f"{used[0]} goes with a model by name and --data; a workload file brings its own",
                where=workload,
                next="a function that returns a model alone: net.py:function --data DIR",
            )
        return workload
    if not used and not is_source(workload):
        return workload
    middle, spread = numbers("--mean", mean), numbers("--std", std)
    return Source(workload, data, weights, pretrained, skip_damaged, size, mean=middle, std=spread)


def begin(what: str | Source | None) -> None:
    """A first line, and a look whether there are any data, before anything heavy is imported.

    Raises DataError; WorkloadError: options that go with another kind of data.
    """
    from edgekit.progress import Event, reading
    from edgekit.sources.request import Source

    if isinstance(what, Source):
        reading(Event("note", "start", str(what)))
        if what.data is not None:
            from edgekit.sources.kinds import KINDS
            from edgekit.sources.kinds.sniffing import kind_of_data

            kind = KINDS[kind_of_data(what.data)]
            kind.check(what)
            kind.glance(what)
