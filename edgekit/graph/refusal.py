"""Why ``torch.export`` can't capture a model: found by trying, told with the line of the model's own code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence

from torch import fx

from edgekit.errors import CaptureError
from edgekit.graph import ops

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)[^\n]*(?:\n {2,}([^\n]+))?')
_INSIDE_TORCH = re.compile(r"[/\\]torch[/\\](_|fx|export|nn|utils|ao|functional|library|overrides)")
_BATCH = "the batch size is fixed, or samples are mixed: with the example's own batch it is captured"


def refusal(name: str, errors: Sequence[Exception], works_with_fixed_batch: bool) -> CaptureError:
    """What to raise.

    Args:
        name: of the model's class.
        errors: what torch raised, in the ways that were tried.
        works_with_fixed_batch: whether it was tried with the example's own batch, and succeeded.
    """
    line = next((found for error in reversed(errors) if (found := _line(error))), "")
    if works_with_fixed_batch:
        reason = _BATCH
        expected = "a forward() that takes any number of samples, and treats each by itself"
        advice = "use x.shape[0] or -1 for the number of samples in reshape, view and expand"
    else:
        reason = f"{type(errors[0]).__name__}: {_sentence(errors[0])}"
        expected = "a forward() of tensor operations without data-dependent Python control flow"
        advice = "run torch.export.export(model.eval(), (example,)) by itself to see the whole report"
    return CaptureError(
        "torch.export can't capture the model",
        where=name,
        got=f"{reason}, at {line}" if line else reason,
        expected=expected,
        next=advice,
    )


def _line(error: BaseException) -> str:
    """``file:line: code`` of the innermost frame outside of torch that the error, or its traceback, names."""
    said = [found for link in _chain(error) for found in _FRAME.findall(str(link))]
    frames = [(file, line, code) for file, line, _, code in said if not _INSIDE_TORCH.search(file)]
    if not frames:
        frames = _traced(error)
    if not frames:
        return ""
    file, line, code = frames[-1]
    return f"{file}:{line}: {code.strip()}" if code else f"{file}:{line}"


def _traced(error: BaseException) -> list[tuple[str, str, str]]:
    frames = traceback.extract_tb(error.__traceback__)
    place = next((i for i, f in enumerate(frames) if "forward" in f.name and f.filename != __file__), None)
    if place is None:
        return []
    return [
        (frame.filename, str(frame.lineno), frame.line or "")
        for frame in frames[place:]
        if not _INSIDE_TORCH.search(frame.filename) and "edgekit" not in frame.filename
    ]


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__
    return found


def _sentence(error: BaseException) -> str:
    """The first line that says something; the name of an error without words says what can be said."""
    for link in _chain(error):
        for line in str(link).splitlines():
            if line.strip():
                return line.strip()
    return "no message from torch"


def check_layers(graph: fx.GraphModule) -> None:
    """Refuse what was captured but can't be right for every batch, by layer.

    Raises:
        CaptureError: a batch norm without running statistics; a convolution with as many groups as samples.
    """
    for node in graph.graph.nodes:
        norm = node.target is ops.aten.batch_norm.default and node.args[5]
        # Of weights it is how they are standardised (NFNets, BiT), the same with every batch.
        if norm and not ops.is_constant(node.args[0]):
            raise CaptureError(
                "a batch norm without running statistics answers differently with every batch",
                where=ops.layer_of(node) or "batch norm",
                got="track_running_stats=False, or running_mean and running_var are None",
                expected="statistics that training found and that stay as they are",
                next="build it with track_running_stats=True and feed it training data in train mode, "
                "or use nn.GroupNorm or nn.InstanceNorm2d, which look at each sample by itself",
            )
        if node.target in ops.CONVOLUTIONS and any(isinstance(part, fx.Node) for part in node.args[6:]):
            raise CaptureError(
                "a convolution has another weight for each sample: its groups are the samples of the batch",
                where=ops.layer_of(node) or node.name,
                got="groups that depend on the batch size, and a weight that is computed from the input",
                expected="a number of groups that is known before the model runs",
                next="mix the outputs of fixed convolutions instead of their weights: "
                "sum(a[:, k] * conv_k(x) for k ...) computes the same for a = softmax(...)",
            )
