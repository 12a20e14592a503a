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

_TOLD = 6  # nodes that a message names


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
        _refuse_training(graph, name)
        setattr(graph, "ports", _ports(graph, name))  # noqa: B010  # modules hold more than torch types say
        return graph


def _refuse_training(graph: fx.GraphModule, where: str) -> None:
    """Raise WorkloadError if it was written in train mode, which stands in the ops for good."""
    if found := [node.name for node in graph.graph.nodes if _in_training(node)]:
        raise _refused(
            where,
            f"a program in train mode: {', '.join(found[:_TOLD])}{', …' if len(found) > _TOLD else ''}",
            "model.eval() before torch.export.export",
        )


def _in_training(node: fx.Node) -> bool:
    """Whether it drops numbers at random, or takes its statistics from the batch where it has others."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return False
    given = {one.name: one.default_value for one in schema.arguments} | dict(node.kwargs)
    given |= dict(zip((one.name for one in schema.arguments), node.args, strict=False))
    if given.get("dropout_p"):
        return True
    if not (given.get("train") is True or given.get("training") is True):
        return False
    if "dropout" in given:  # of recurrent layers, between them
        return bool(given["dropout"])
    return "running_mean" not in given or given["running_mean"] is not None


def _ports(graph: fx.GraphModule, where: str) -> tuple[Port, ...]:
    """The inputs. Raises WorkloadError: one is no tensor, or the number of samples is fixed, as nothing else
    was said to torch.
    """
    import torch

    found = []
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor):
                kind = "None" if value is None else f"a number ({type(value).__name__})"
                raise _refused(
                    where,
                    f"an input that is no tensor: {node.target} is {kind}",
                    "build it into the module, whose forward takes tensors alone, and export that",
                )
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
