"""Models that stream: outputs that are inputs of the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from edgekit.errors import DataError, WorkloadError
from edgekit.execution import answered, called, mode
from edgekit.tensors import NamedTensors, Tensors
from edgekit.workload.answering import parameters_of
from edgekit.workload.samples import Samples, Unlabelled

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check", "checked", "with_states"]


def checked(states: Any) -> dict[str, str]:
    """``states`` of a workload as a dict. Raises WorkloadError if it isn't one of names, each once."""
    if states is None:
        return {}
    names = isinstance(states, Mapping) and all(
        isinstance(one, str) for pair in states.items() for one in pair
    )
    if not names or len(set(states.values())) != len(states):
        raise WorkloadError(
            "wrong kind of argument",
            where="Workload(states=…)",
            got=repr(states),
            expected='which output is which input of the next step: {"h_out": "h_in"}',
        )
    return dict(states)


def with_states(
    data: Mapping[str, Samples], model: nn.Module, states: Mapping[str, str]
) -> dict[str, Samples]:
    """The data with zeros for states that it doesn't hold.

    Raises DataError: the data has no names, or no stream; WorkloadError: nobody says what shape a state has.
    """
    found: dict[str, Samples] = {}
    for split, samples in data.items():
        inputs = samples.inputs
        if not isinstance(inputs, NamedTensors):
            first = next(iter(parameters_of(model)), "input")
            raise DataError(
                "a model with states needs its inputs by name",
                where=f"{split} inputs",
                got="one tensor",
                expected="a dict: {" + repr(first) + ": sequences (N, T, …)}",
            )
        streams = [name for name in inputs.names if name not in states.values()]
        if not streams or any(inputs[name].dim() < 2 for name in streams):
            raise DataError(
                "a model that streams needs sequences",
                where=f"{split} inputs",
                got=", ".join(f"{name} {tuple(one.shape)}" for name, one in inputs.items()),
                expected="(N, T, …) for each input that isn't a state",
            )
        missing = {output: name for output, name in states.items() if name not in inputs.names}
        if missing:
            inputs = NamedTensors({**inputs.as_dict(), **_zeros(inputs, model, states, missing)})
        if isinstance(samples, Unlabelled):
            found[split] = Unlabelled(inputs)
        else:
            found[split] = Samples(inputs, samples.targets)
    return found


def _zeros(
    inputs: NamedTensors, model: nn.Module, states: Mapping[str, str], missing: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Of the shape that the model gives these states when it is called without them."""
    first = {
        name: one[:2, 0].float() if one.is_floating_point() or one.dtype == torch.uint8 else one[:2, 0].long()
        for name, one in inputs.items()
        if name not in states.values()
    }
    given = {name: inputs[name][:2] for name in states.values() if name in inputs.names}
    try:
        with mode(model, training=False), torch.no_grad():
            answers = answered(called(model, NamedTensors({**first, **given})), tuple(missing))
    except Exception as error:  # whatever a model says to a state that isn't there
        raise WorkloadError(
            "nobody says what shape a state has",
            where="Workload(states=…)",
            got=f"{type(error).__name__}: {error}",
            expected="a model that can be called without its states, or their first values in the data",
            next="add zeros to the data: {"
            + ", ".join(f"{name!r}: zeros (N, …)" for name in missing.values())
            + "}",
        ) from error
    by_name = answers if isinstance(answers, NamedTensors) else NamedTensors({next(iter(missing)): answers})
    count = len(inputs)
    return {name: torch.zeros(count, *by_name[output].shape[1:]) for output, name in missing.items()}


def check(inputs: Tensors, outputs: Tensors, states: Mapping[str, str], where: str) -> None:
    """Raise WorkloadError unless each state comes out of a step as it went in."""
    assert isinstance(inputs, NamedTensors)
    for output, name in states.items():
        there = outputs.as_dict() if isinstance(outputs, NamedTensors) else {}
        if output not in there or there[output].shape != inputs[name].shape:
            got = (
                f"{output} {tuple(there[output].shape)}" if output in there else f"outputs {', '.join(there)}"
            )
            raise WorkloadError(
                "a state doesn't come out as it went in",
                where=where,
                got=got,
                expected=f"an output {output!r} of shape {tuple(inputs[name].shape)}, as the input {name!r}",
            )
    if isinstance(outputs, NamedTensors) and not set(outputs.names) - set(states):
        raise WorkloadError(
            "the model gives nothing but its states",
            where=where,
            got=", ".join(outputs.names),
            expected="an output that the task is about",
        )
