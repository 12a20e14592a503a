"""``FILE.pt2``: a program that ``torch.export`` wrote, read without executing anything that stands in it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import WorkloadError
from edgekit.files import require_file
from edgekit.sources.model_file import ModelFile, Port

if TYPE_CHECKING:
    from torch import fx, nn

__all__ = ["ExportedProgram"]


class ExportedProgram(ModelFile):
    """It enters as a graph, where other models are captured."""

    def build(self, name: str, num_classes: int | None, *, pretrained: bool) -> nn.Module:
        import torch
        from torch import fx

        from edgekit.graph import ops
        from edgekit.graph.inline import flatten
        from edgekit.runtimes import native
        from edgekit.runtimes.device import program_file

        path = Path(name)
        if native.is_native(path):
            raise _refused(
                name,
                "an AOTInductor package: compiled code, without a graph",
                f"edgekit bench {name} measures it",
            )
        try:
            require_file(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole = program_file.load(torch, str(path)).module()
        except OSError as error:
            raise _refused(name, error.strerror or str(error)) from None
        except program_file.Refused as error:
            raise _refused(name, f"{error}; nothing of it was executed") from None
        except Exception as error:  # whatever torch runs into
            text = " ".join(str(error).split())[:300]
            raise _refused(name, f"damaged: {type(error).__name__}: {text}") from error
        flatten(whole)
        graph = fx.GraphModule(whole, whole.graph)  # one that doesn't refuse eval()
        if any(node.target in ops.DEQUANTIZE for node in graph.graph.nodes):
            raise _refused(
                name, "an int8 graph, which is quantised already", f"edgekit export {name} writes files of it"
            )
        setattr(graph, "ports", _ports(graph, name))  # noqa: B010  # modules hold more than torch types say
        return graph


def _ports(graph: fx.GraphModule, where: str) -> tuple[Port, ...]:
    """The inputs. Raises WorkloadError: the number of samples is fixed, as nothing else was said to torch."""
    found = []
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            value = node.meta["val"]
            sizes = tuple(one if isinstance(one, int) else None for one in value.shape)
            found.append(Port(str(node.target), sizes, not value.is_floating_point()))
    if any(not one.sizes or one.sizes[0] is not None for one in found):
        raise _refused(
            where,
            "; ".join(f"{one.name} {list(one.sizes)}" for one in found) + ": the number of samples is fixed",
            "export it with dynamic_shapes=({0: torch.export.Dim('batch')},)",
        )
    return tuple(found)


def _refused(where: str, got: str, advice: str = "") -> WorkloadError:
    return WorkloadError(
        "this file can't be read as a model",
        where=where,
        got=got,
        expected="a float program for any number of samples, as torch.export.save writes it",
        next=advice,
    )
