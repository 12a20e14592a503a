"""The int8 graph as a file: a ``torch.export`` archive, read back without running code from it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import fx

from edgekit.errors import WeightsError
from edgekit.files import atomic_write, require_file
from edgekit.graph.capture import export_program, name_ends
from edgekit.graph.normalize import normalize
from edgekit.runtimes import native
from edgekit.runtimes.device import program_file
from edgekit.tensors import Tensors, cat


def save(graph: fx.GraphModule, example: Tensors, path: Path) -> None:
    """Write the graph as an ``ExportedProgram`` (``.pt2``), atomically.

    Args:
        graph: the int8 graph.
        example: one input, (N, ...); its shape behind N becomes the program's.
    """
    program = export_program(graph, cat([example[:1], example[:1]]))
    for node in program.graph.nodes:
        node.meta.pop("from_node", None)  # addresses in this process: the same graph gives the same bytes
    # By way of memory: on a full disk torch's own writer ends the process.
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    atomic_write(path, buffer.getvalue())


def load(path: Path) -> fx.GraphModule:
    """The graph that ``save`` wrote.

    Raises:
        WeightsError: the file is missing or damaged, holds something that would be executed, or is the other
            kind of ``.pt2``: compiled code.
    """
    if native.is_native(path):
        raise WeightsError(
            "this file is compiled code, and holds no graph",
            where=str(path),
            got="an AOTInductor package",
            expected="an int8_graph.pt2, as the qat stage writes it",
            next=f"edgekit bench {path} measures it; the graph that it was made of lies in its run folder",
        )
    try:
        require_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = program_file.load(torch, str(path))
    except program_file.Refused as error:
        raise WeightsError(
            "this file isn't a graph alone, and nothing of it was executed",
            where=str(path),
            got=str(error),
            expected="an int8_graph.pt2, as the qat stage writes it",
            next="if it lies in a run folder, somebody changed it there: run edgekit compress in a new one",
        ) from None
    except Exception as error:
        raise WeightsError(
            "can't read the int8 graph",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            expected="a file that the qat stage wrote",
            next="delete the stage's folder and run the same command again",
        ) from error
    graph = program.module()
    assert isinstance(graph, fx.GraphModule)
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and str(node.target).startswith("_guards"):
            graph.graph.erase_node(node)
    name_ends(graph)
    normalize(graph)
    return graph
