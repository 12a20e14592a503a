"""AOTInductor packages (.pt2): the float graph, compiled by torch for an NVIDIA GPU or for this CPU."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgekit.errors import ExportError, MissingExtraError
from edgekit.execution import arguments, interpreted
from edgekit.files import atomic_write, disk_full, sha256_of_bytes
from edgekit.formats import embed
from edgekit.formats.options import ExportOptions, Processor
from edgekit.formats.precisions import Precision
from edgekit.graph import ops
from edgekit.graph.capture import export_program
from edgekit.runtimes import native
from edgekit.scratch import scratch
from edgekit.tensors import NamedTensors, Tensors, apply, cat

_PLAIN = ExportOptions()
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Keys of a package's metadata. The runtime reads the first: {"shape": [null, 3, 8, 8], "dtype": "float32"}.
INPUT = "edgekit_input"
COMPILED_FOR = "edgekit_compiled_for"


def write(
    graph: nn.Module,
    example: Tensors,
    path: Path,
    metadata: dict[str, str],
    options: ExportOptions = _PLAIN,
    precision: Precision = "fp16",
) -> None:
    """Write a captured float graph as an AOTInductor package, with a free batch if ``options`` don't fix it.

    Weights and activations have the precision's type; input and output keep theirs (float32 for images), and
    are cast inside. The package holds compiled code, for one kind of processor: ``options.compiled_for()``.

    Args:
        graph: what ``int8.capture`` gave; it is not changed.
        example: one input, (1, ...).
        path: the file to write.
        metadata: kept in the package's metadata, beside ``edgekit_input`` (shape, null where it is free, and
            type) and ``edgekit_compiled_for`` (device, architecture, version of torch).
        options: batch, embedded preprocessing, processor.
        precision: "fp32", "fp16" or "bf16".

    Raises:
        MissingExtraError: a GPU is asked for, and its compiler (triton) isn't installed.
        ExportError: no such device; a weight is too large for float16; torch can't compile the graph.
        DiskFullError: no space left.
    """
    assert isinstance(graph, fx.GraphModule)
    processor = options.compiled_for()
    _check_device(processor, path.name)
    try:
        spelled = _cast(graph, example, _DTYPES[precision], path.name)
        if options.preprocessing is not None:
            spelled, example = embed.embed(spelled, example, options)
        rows = apply(_plain, cat([example[:1]] * (options.batch or 2)))
        program = export_program(spelled, rows, free_batch=options.batch is None)
        told = {
            **metadata,
            INPUT: json.dumps(_ends(spelled, example, options.batch)),
            COMPILED_FOR: json.dumps(_about(processor)),
        }
        content = _compile(program, processor, told)
    except ExportError:
        raise
    except Exception as error:
        if (full := disk_full(error, path)) is not None:
            raise full from error
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            "AOTInductor can't compile the model",
            where=path.name,
            got=": ".join([type(error).__name__, *said[:1]]),
            next="leave aotinductor out of exports.formats to get the other files",
        ) from error
    atomic_write(path, content)
    native.remember(sha256_of_bytes(content))


def _plain(example: Tensor) -> Tensor:
    """With the strides of its shape: the code is compiled for those of the example, and checks none."""
    return torch.empty(example.shape, dtype=example.dtype).copy_(example)


def _ends(graph: fx.GraphModule, example: Tensors, batch: int | None) -> dict[str, Any]:
    """What the runtime is told of a package's input; of several, with their names and the outputs'."""
    inputs = [
        {"shape": [batch, *one.shape[1:]], "dtype": str(one.dtype).removeprefix("torch.")}
        for one in arguments(graph, example)
    ]
    names, outputs = ops.input_names(graph, example), list(ops.results(graph))
    if not isinstance(example, NamedTensors) and len(outputs) == 1:
        return inputs[0]
    return {
        "inputs": [{"name": name, **one} for name, one in zip(names, inputs, strict=True)],
        "outputs": outputs,
    }


def _check_device(processor: Processor, where: str) -> None:
    if processor == "cpu":
        return
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else ", and was built without CUDA"
        raise ExportError(
            "no such device: a package for a GPU is compiled on such a GPU",
            where=where,
            got=f"torch {torch.__version__} finds no CUDA device{built}",
            expected="an NVIDIA GPU, its driver, and a torch with CUDA",
            next="export on the machine that has the GPU, or export onnx, which TensorRT reads anywhere",
        )
    if importlib.util.find_spec("triton") is None:
        raise MissingExtraError(
            "compiling for a GPU needs triton", where=where, got="not installed", next="pip install triton"
        )


def _about(processor: Processor) -> dict[str, str]:
    """What the code is compiled for; it runs on nothing else."""
    if processor == "cpu":
        machine = {"architecture": platform.machine(), "isa": torch.backends.cpu.get_cpu_capability()}
    else:
        major, minor = torch.cuda.get_device_capability()
        machine = {"architecture": f"sm_{major}{minor}", "name": torch.cuda.get_device_name()}
    return {"device": processor, **machine, "torch": torch.__version__}


# --- the type --------------------------------------------------------------------------------------------


class _Types(fx.Interpreter):
    """Which nodes give float32, found by running the graph once."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.wide: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if any(
            isinstance(leaf, Tensor) and leaf.dtype is torch.float32 for leaf in pytree.tree_leaves(result)
        ):
            self.wide.add(n)
        return result


def _cast(graph: fx.GraphModule, example: Tensors, dtype: torch.dtype, where: str) -> fx.GraphModule:
    """A copy that computes in ``dtype`` wherever the graph computes in float32.

    Weights and constants are cast, named types replaced, and what becomes a float inside (the input, a range
    of integers that is divided) is cast where it does: one float32 among the operands would widen the result.
    Answers are widened again.
    """
    graph = copy.deepcopy(graph)
    if dtype is torch.float32:
        return graph
    types = _Types(graph)
    with torch.no_grad():
        interpreted(types, cat([example[:1]] * 2))
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            _cast_attribute(graph, str(node.target), dtype, where)
        elif node.op in ("placeholder", "call_function"):
            _cast_node(graph, node, types.wide, dtype)
    for node in set(ops.results(graph).values()) & types.wide:
        with graph.graph.inserting_after(node):
            wide = graph.graph.call_function(ops.aten._to_copy.default, (node,), {"dtype": torch.float32})
        node.replace_all_uses_with(wide, delete_user_cb=lambda user: user.op == "output")
    graph.recompile()
    return graph


def _cast_attribute(graph: fx.GraphModule, name: str, dtype: torch.dtype, where: str) -> None:
    value = ops.attribute(graph, name)
    if value.dtype is not torch.float32:
        return
    narrow = value.detach().to(dtype)
    if not torch.equal(narrow.isfinite(), value.isfinite()):
        raise ExportError(
            f"a weight is too large for {str(dtype).removeprefix('torch.')}",
            where=f"{where}: {name}",
            got=f"{value.abs().max().item():g}",
            expected=f"at most {torch.finfo(dtype).max:g}",
            next="--precision bf16, which has the range of float32",
        )
    *_, leaf = name.split(".")
    owner = graph.get_submodule(name.rpartition(".")[0])
    delattr(owner, leaf)  # however it is registered there
    owner.register_buffer(leaf, narrow)


def _cast_node(graph: fx.GraphModule, node: fx.Node, wide: set[fx.Node], dtype: torch.dtype) -> None:
    def replaced(value: Any) -> Any:
        return dtype if value is torch.float32 else value

    named = any(value is torch.float32 for value in (*node.args, *node.kwargs.values()))
    node.args = tuple(map(replaced, node.args))
    node.kwargs = {name: replaced(value) for name, value in node.kwargs.items()}
    if node in wide and not named and wide.isdisjoint(node.all_input_nodes):
        with graph.graph.inserting_after(node):
            narrow = graph.graph.call_function(ops.aten._to_copy.default, (node,), {"dtype": dtype})
        node.replace_all_uses_with(narrow, delete_user_cb=lambda user: user is not narrow)


# --- the compiler ----------------------------------------------------------------------------------------


def _compile(program: torch.export.ExportedProgram, processor: Processor, metadata: dict[str, str]) -> bytes:
    from torch import _inductor as inductor
    from torch._inductor import config
    from torch.export.passes import move_to_device_pass

    # Tables for debuggers are a megabyte, and name this machine's paths; precompiled headers stay in /tmp.
    unwanted = [
        one for one in ("enable_line_tables", "precompile_headers") if hasattr(config.aot_inductor, one)
    ]
    settings: dict[str, Any] = {f"aot_inductor.{one}": False for one in unwanted}
    settings["aot_inductor.metadata"] = metadata
    with _own_cache() as folder, _quiet():
        if processor == "cuda":
            program = move_to_device_pass(program, "cuda")
        # The folder in the archive is called as the file: always the same, whatever the user's is called.
        package = folder / "model.pt2"
        inductor.aoti_compile_and_package(program, package_path=str(package), inductor_configs=settings)
        return package.read_bytes()


@contextlib.contextmanager
def _own_cache() -> Iterator[Path]:
    """A folder that goes afterwards, for all that the compiler writes; without it, it stays in /tmp."""
    from torch._inductor.utils import clear_caches

    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    with scratch() as folder:
        try:
            for name in names:
                os.environ[name] = str(Path(folder) / name.lower())
            clear_caches()
            yield Path(folder)
        finally:
            clear_caches()  # it remembers paths
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Torch's compiler without its notices."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
