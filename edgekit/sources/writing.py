"""A workload file that does what a name and a folder do, to be edited."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.sources.kinds import KINDS
from edgekit.sources.making import Made, look_up, named
from edgekit.sources.request import is_model_file, is_python

if TYPE_CHECKING:
    from torch import nn

__all__ = ["written"]

_HERE = "Path(__file__).parent"


def written(made: Made, model: nn.Module, out: Path) -> str:
    """The text of a workload file that will be at ``out``."""
    source, kind = made.source, KINDS[made.kind]
    row, _ = look_up(source.model)
    said = kind.lines(model, made.files, made.transform)
    data = [_path(source.data, out)]
    if not made.is_split:
        data += [f"validation={source.validation}", f"seed={source.seed}"]
    if source.skip_damaged:
        data.append("skip_damaged=True")
    if made.classes is not None:
        data.append(f"classes=load_classes({_model(source.model, out)})")
    arguments = [_model(source.model, out)]
    if not row.fixed_classes:
        arguments.append("num_classes=len(data.classes)")
    if source.weights is not None:
        arguments.append(f"weights={_path(source.weights, out)}")
    if source.pretrained:
        arguments.append("pretrained=True")
    random = source.weights is None and not source.pretrained and not row.brings_weights
    transform = [_with_paths(line, out) for line in said.transform]
    uses_path = any(_HERE in one for one in (*data, *arguments, *transform))
    body = [
        f"data = {kind.owner.__name__}({', '.join(data)})  # {said.count}",
        *transform,
        f"train, validation = data.read(transform)  # {said.read}",
        *(
            ['# Random weights: weights="net.safetensors", or pretrained=True, has trained ones.']
            if random
            else []
        ),
        f"model = load_model({', '.join(arguments)})",
        "return Workload(",
        f"    name={_quoted(named(source))},",
        "    model=model,",
        f"    {said.task},",
        "    train=train,",
        "    validation=validation,",
        *(f"    {one}," for one in said.more),
        "    classes=data.classes,",
        *([f"    outputs=[{', '.join(map(_quoted, row.outputs))}],"] if row.outputs else []),
        ")",
    ]
    names = sorted([*said.names, "Workload"]) + (["load_classes"] if made.classes is not None else [])
    head = [
        f'"""{_plain(source.model)} on {_plain(str(source.data))}.',
        "",
        f"    edgekit compress {out.name} --recipe quick",
        '"""',
        "",
        *(["from pathlib import Path", ""] if uses_path else []),
        f"from edgekit import {', '.join([*names, 'load_model'])}",
        "",
        "",
        "def workload():",
    ]
    return "\n".join([*head, *(f"    {line}" for line in body)]) + "\n"


def _with_paths(line: str, out: Path) -> str:
    """``{path:…}`` as an expression."""
    before, mark, rest = line.partition("{path:")
    path, end, after = rest.partition("}")
    return f"{before}{_path(path, out)}{after}" if mark and end else line


def _path(path: Any, out: Path) -> str:
    """An expression: absolute ones as they are, others from where the file is."""
    if Path(path).is_absolute():
        return _quoted(str(path))
    return f"{_HERE} / {_quoted(os.path.relpath(path, out.absolute().parent))}"


def _model(model: str, out: Path) -> str:
    prefix, _, name = model.partition(":")
    if is_python(model) or is_model_file(model):
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
