"""Names and numbers of inputs and outputs that can't work: one message, before any work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from edgekit import Classification, Outputs, Workload
from edgekit.errors import ExportError, WorkloadError
from edgekit.formats.litert import tflite_edit

NUMBERS = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two inputs, a class."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.first(a) + self.second(b)


class ByPlace(Two):
    def forward(self, a: Tensor, b: Tensor, /) -> Any:
        return super().forward(a, b)


class AnyNumber(Two):
    def forward(self, *inputs: Tensor) -> Any:
        return super().forward(*inputs)


class AnyNames(Two):
    def forward(self, **inputs: Tensor) -> Any:
        return super().forward(**inputs)


class SomeNames(Two):
    def forward(self, a: Tensor, b: Tensor, **more: Any) -> Any:
        return super().forward(a, b)


class WithLoss(Two):
    def forward(self, a: Tensor, b: Tensor) -> Any:
        scores = super().forward(a, b)
        return {"scores": scores, "loss": scores.mean()}


class Twice(Two):
    def forward(self, a: Tensor, b: Tensor) -> Any:
        scores = super().forward(a, b)
        return {"scores": scores, "again": scores}


class AsCalled(Two):
    def forward(self, a: Tensor, b: Tensor) -> Any:
        return {"a": self.first(a), "c": self.second(b)}


class Now(Two):
    """One output more every other time."""

    calls = 0

    def forward(self, a: Tensor, b: Tensor) -> Any:
        self.calls += 1
        scores = super().forward(a, b)
        return {"scores": scores, "c": self.first(a)} if self.calls % 2 == 0 else {"scores": scores}


def workload(model: nn.Module, task: Any = None, **more: Any) -> Workload:
    torch.manual_seed(0)
    inputs = {"a": NUMBERS, "b": NUMBERS + 1}
    splits: dict[str, Any] = {"train": (inputs, None), "validation": (inputs, None), **more}
    return Workload("two", model.eval(), task or Classification(3), **splits)


def classes(*names: str) -> Outputs:
    return Outputs({name: Classification(3) for name in names})


@pytest.mark.parametrize(
    ("model", "task", "told"),
    [
        (ByPlace, None, ["no names of their own", "forward(self, a, b)"]),
        (AnyNumber, None, ["no names of their own", "forward(self, a, b)"]),
        (AnyNames, None, ["no names of their own", "forward(self, a, b)"]),
        (WithLoss, None, ["doesn't answer sample by sample", "loss ()", "Workload(outputs=…)"]),
        (Twice, classes("scores", "again"), ["one and the same tensor", "scores and again"]),
        (AsCalled, classes("a", "c"), ["called as an input is", "'a' on both sides", "a_out"]),
        (Now, None, ["answers differently each time"]),
    ],
)
def test_a_model_that_does_not_fit(model: type[nn.Module], task: Any, told: list[str]) -> None:
    with pytest.raises(WorkloadError) as error:
        workload(model(), task).check()
    assert [one for one in told if one not in str(error.value)] == []


def test_what_is_left_out_does_no_harm() -> None:
    workload(WithLoss(), outputs=["scores"]).check()
    workload(Twice(), outputs=["again"]).check()
    workload(AsCalled(), outputs=["c"]).check()
    workload(SomeNames()).check()


def test_missing_inputs_are_told_with_all_names() -> None:
    with pytest.raises(WorkloadError, match="no input b") as error:
        workload(Two(), train=({"a": NUMBERS}, None), validation=({"a": NUMBERS}, None)).check()
    assert "{'a': …, 'b': …}" in str(error.value)


@pytest.mark.parametrize("labels", [None, torch.arange(8) % 3])
def test_the_order_of_a_dict_says_nothing(labels: Any) -> None:
    turned = {"b": NUMBERS + 1, "a": NUMBERS}
    one = workload(Two(), train=({"a": NUMBERS, "b": NUMBERS + 1}, labels), validation=(turned, labels))
    one.check()
    other = workload(one.model, train=(dict(reversed(turned.items())), labels), validation=one.validation)
    assert one.fingerprint() == other.fingerprint()


def test_a_converter_that_makes_one_tensor_of_two_outputs() -> None:
    """As two that are computed alike become in LiteRT files."""
    model, graph, signature = schema.ModelT(), schema.SubGraphT(), schema.SignatureDefT()
    graph.tensors, signature.inputs, signature.outputs = [schema.TensorT()], [], []
    for place in range(2):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = f"output_{place}".encode(), 0
        signature.outputs.append(entry)
    model.subgraphs, model.signatureDefs = [graph], [signature]
    with pytest.raises(ExportError, match="one tensor of two outputs") as error:
        tflite_edit.name_ends(model, [], ["scores", "again"])
    assert "scores and again" in str(error.value)
