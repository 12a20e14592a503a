"""A workload file that does what a name and a folder do, to be edited."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgekit.pictures.files import ImageFiles
from edgekit.pictures.transform import ImageTransform
from edgekit.sources.making import augmentation, look_up, named
from edgekit.sources.request import Source, is_python

__all__ = ["written"]

_HERE = "Path(__file__).parent"


def written(source: Source, files: ImageFiles, transform: ImageTransform, out: Path) -> str:
    """The text of a workload file that will be at ``out``."""
    row, _ = look_up(source.model)
    data = [_path(source.data, out)]
    if not files.listing.is_split:
        data += [f"validation={source.validation}", f"seed={source.seed}"]
    if source.skip_damaged:
        data.append("skip_damaged=True")
    arguments = [_model(source.model, out), "num_classes=len(data.classes)"]
    if source.weights is not None:
        arguments.append(f"weights={_path(source.weights, out)}")
    if source.pretrained:
        arguments.append("pretrained=True")
    random = source.weights is None and not source.pretrained and not row.brings_weights
    uses_path = any(_HERE in one for one in (*data, *arguments))
    changed = augmentation(transform)
    counts = f"{len(files.listing):,} pictures, {len(files.classes)} classes"
    body = [
        f"data = ImageFiles({', '.join(data)})  # {counts}",
        "transform = ImageTransform(",
        *(f"    {line}," for line in _settings(transform)),
        ")",
        "train, validation = data.read(transform)  # decoded once, into edgekit's cache",
        *(
            ['# Random weights: weights="net.safetensors", or pretrained=True, has trained ones.']
            if random
            else []
        ),
        f"model = load_model({', '.join(arguments)})",
        "return Workload(",
        f"    name={_quoted(named(source))},",
        "    model=model,",
        "    task=Classification(num_classes=len(data.classes)),",
        "    train=train,",
        "    validation=validation,",
        "    preprocessing=transform.preprocessing,",
        f"    augmentation=Augmentation(horizontal_flip={changed.horizontal_flip}, shift={changed.shift}),",
        "    classes=data.classes,",
        *([f"    outputs=[{', '.join(map(_quoted, row.outputs))}],"] if row.outputs else []),
        ")",
    ]
    names = "Augmentation, Classification, ImageFiles, ImageTransform, Workload, load_model"
    head = [
        f'"""{_plain(source.model)} on {_plain(str(source.data))}.',
        "",
        f"    edgekit compress {out.name} --recipe quick",
        '"""',
        "",
        *(["from pathlib import Path", ""] if uses_path else []),
        f"from edgekit import {names}",
        "",
        "",
        "def workload():",
    ]
    return "\n".join([*head, *(f"    {line}" for line in body)]) + "\n"


def _settings(transform: ImageTransform) -> list[str]:
    lines = [f"size={transform.size}"]
    if transform.whole != transform.size:
        square = transform.whole[0] == transform.whole[1]
        lines.append(f"resize={transform.whole[0] if square else transform.whole}")
    if transform.fit != "cover":
        lines.append(f'fit="{transform.fit}"')
    lines.append(f'interpolation="{transform.interpolation}"')
    if transform.mode != "RGB":
        lines.append(f'mode="{transform.mode}"')
    lines += [f"mean={transform.mean}", f"std={transform.std}"]
    if transform.scale != 1 / 255:
        lines.append(f"scale={transform.scale!r}")
    return lines


def _path(path: Any, out: Path) -> str:
    """An expression: absolute ones as they are, others from where the file is."""
    if Path(path).is_absolute():
        return _quoted(str(path))
    return f"{_HERE} / {_quoted(os.path.relpath(path, out.absolute().parent))}"


def _model(model: str, out: Path) -> str:
    prefix, _, name = model.partition(":")
    if is_python(model):
        if Path(model).is_absolute():
            return _quoted(model)
        file = os.path.relpath(model, out.absolute().parent)
        return f'f"{{{_HERE}}}/{file}"'
    if prefix == "hf" and Path(name).is_dir() and not Path(name).is_absolute():
        return f'f"hf:{{{_HERE}}}/{os.path.relpath(name, out.absolute().parent)}"'
    return _quoted(model)


def _quoted(text: str) -> str:
    """A literal of Python in double quotes; JSON's are such, but for halves of surrogates that meet."""
    is_text = text.encode("utf-8", "ignore").decode() == text
    return json.dumps(text, ensure_ascii=not is_text)


def _plain(text: str) -> str:
    """For a docstring."""
    return ascii(text)[1:-1].replace('"', "'")
