"""Programs and packages that would make a folder if they were loaded the easy way, made of right ones."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typer.testing import CliRunner, Result

from edgekit.cli import app as cli

Parts = dict[str, bytes]


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(one) for one in arguments], prog_name="edgekit")


def refused(result: Result, marker: Path) -> None:
    """One message, exit code 2, and nothing was executed."""
    assert not marker.exists()
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("next:") <= 1
    assert result.stderr.strip()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + torch.ones(3)


def written(parts: Parts, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def edited(parts: Parts, name: str, change: Callable[[Any], object]) -> Parts:
    """With one part, which is JSON, changed."""
    value = json.loads(parts[name])
    change(value)
    return {**parts, name: json.dumps(value).encode()}


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


MODEL = "archive/models/model.json"


WEIGHTS = "archive/data/weights/model_weights_config.json"


CONSTANTS = "archive/data/constants/model_constants_config.json"


SAMPLES = "archive/data/sample_inputs/model.pt"


def sample_inputs(parts: Parts, marker: Path) -> Parts:
    return {**parts, SAMPLES: pickled((((Evil(marker),)), {}))}


def pickled_weight(parts: Parts, marker: Path) -> Parts:
    changed = {**parts, "archive/data/weights/weight_0": pickled(Evil(marker))}
    return edited(changed, WEIGHTS, lambda value: value["config"]["scale"].update(use_pickle=True))


def old_weights(parts: Parts, marker: Path) -> Parts:
    return {**parts, "archive/data/weights/model.pt": pickled({"scale": Evil(marker)})}


def old_constants(parts: Parts, marker: Path) -> Parts:
    return {**parts, "archive/data/constants/model.pt": pickled({"x": Evil(marker)})}


def opaque(parts: Parts, marker: Path) -> Parts:
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    changed = {**parts, "archive/data/constants/opaque_obj_0": pickle.dumps(Evil(marker))}
    return edited(changed, CONSTANTS, lambda value: value["config"].update(x=meta))


def custom_object(parts: Parts, marker: Path) -> Parts:
    meta = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    changed = {**parts, "archive/data/constants/custom_obj_0": b"whatever"}
    return edited(changed, CONSTANTS, lambda value: value["config"].update(x=meta))


def of_2_6(parts: Parts, marker: Path) -> Parts:
    """The older format: no archive of its own, all tensors pickled."""
    return {
        "version": b"8.8",
        "serialized_exported_program.json": parts[MODEL],
        "serialized_state_dict.pt": pickled({"scale": Evil(marker)}),
        "serialized_constants.pt": pickled({}),
        "serialized_example_inputs.pt": pickled(((), {})),
    }


def function(parts: Parts, marker: Path) -> Parts:
    """The graph's last node calls a function of a module that torch has imported."""

    def change(value: Any) -> None:
        argument = {"name": "name", "arg": {"as_string": str(marker)}, "kind": 1}
        value["graph_module"]["graph"]["nodes"][-1].update(target="torch.os.mkdir", inputs=[argument])

    return edited(parts, MODEL, change)


def operator(parts: Parts, marker: Path) -> Parts:
    """An operator that touches files."""

    def change(value: Any) -> None:
        node = value["graph_module"]["graph"]["nodes"][-1]
        arguments = [("filename", {"as_string": str(marker)}), ("shared", {"as_bool": True})]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"] = [{"name": name, "arg": arg, "kind": 1} for name, arg in arguments]

    return edited(parts, MODEL, change)


def size(parts: Parts, marker: Path) -> Parts:
    """A symbolic size, which torch evaluates."""

    def change(value: Any) -> None:
        for one in value["graph_module"]["graph"]["tensor_values"].values():
            for size in one["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = f"__import__('os').mkdir({str(marker)!r})"

    return edited(parts, MODEL, change)


def name(parts: Parts, marker: Path) -> Parts:
    """A value's name, of which torch makes Python."""
    code = f"mul; __import__('os').mkdir({str(marker)!r}); mul"
    return {**parts, MODEL: parts[MODEL].replace(b'"mul"', json.dumps(code).encode())}


def structure(module: str) -> Callable[[Parts, Path], Parts]:
    """Arguments that name a module, which torch imports."""

    def craft(parts: Parts, marker: Path) -> Parts:
        context = json.dumps({"__enum__": True, "fqn": f"{module}:X", "name": "Y"})
        spec = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])

        def change(value: Any) -> None:
            value["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = spec

        (marker.parent / f"{module}.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
        return edited(parts, MODEL, change)

    return craft


def factory(parts: Parts, marker: Path) -> Parts:
    context = {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}
    spec = json.dumps([1, {"type": "collections.defaultdict", "context": context, "children_spec": []}])

    def change(value: Any) -> None:
        value["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    return edited(parts, MODEL, change)


def guards(parts: Parts, marker: Path) -> Parts:
    return edited(
        parts, MODEL, lambda value: value.update(guards_code=[f"__import__('os').mkdir({str(marker)!r})"])
    )


# And whether torch's own loader executes their code. What it doesn't is of kinds that it needn't reach.
CRAFTED: dict[str, tuple[Callable[[Parts, Path], Parts], bool]] = {
    "sample_inputs": (sample_inputs, True),
    "pickled_weight": (pickled_weight, True),
    "old_weights": (old_weights, True),
    "old_constants": (old_constants, True),
    "opaque": (opaque, True),
    "custom_object": (custom_object, False),
    "of_2_6": (of_2_6, True),
    "function": (function, False),
    "operator": (operator, False),
    "size": (size, True),
    "name": (name, False),
    "structure": (structure("edgekit_torture_module"), True),
    "factory": (factory, False),
}
