"""Files that decode and suppress say what the task says of the raw outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit import Classification, Detection
from edgekit.bench.evaluating import evaluate
from edgekit.devices.device import Device
from edgekit.errors import ExportError, InputError, RecipeError, WorkloadError
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.pipeline.export_request import export_request
from edgekit.recipe import load_recipe
from edgekit.tensors import NamedTensors, Tensors, cat, each, from_numpy
from tests.detection import made, test_more_heads, test_priors
from tests.detection.test_detection import CLASSES, layouts

LOCAL = Device(name="local", transport="local", runtimes=("onnxruntime", "litert"))


class Said(nn.Module):
    """A model whose answers are its inputs (N, D), cut into its outputs."""

    def __init__(self, outputs: Tensors) -> None:
        super().__init__()
        self.forms = [(name, tuple(one.shape[1:])) for name, one in each(outputs)]
        self.plain = isinstance(outputs, Tensor)

    def forward(self, x: Tensor) -> Any:
        sizes = [int(np.prod(shape)) for _, shape in self.forms]
        parts = [(2 * part).reshape(-1, *shape) for part, (_, shape) in zip(x.split(sizes, 1), self.forms)]  # noqa: B905
        if self.plain:
            return parts[0]
        return {name: part for (name, _), part in zip(self.forms, parts)}  # noqa: B905


def heads() -> dict[str, tuple[Any, Tensors]]:
    """By name a head, and outputs of three pictures, with many equal scores."""
    generator = torch.Generator().manual_seed(0)
    flat = 0.3 * made.perfect(made.head(), made.objects(4, 3, 2)[1:], 3)
    flat = flat + torch.randn(flat.shape, generator=generator)
    flat[:, 32:] = (flat[:, 32:] * 4).round() / 4
    found = {name: (head, give(flat)) for name, (head, give) in layouts().items()}
    distances = 2 + torch.randn(3, 7, 120, generator=generator)
    distances[:, :4] = distances[:, :4].abs()  # a box whose right side is left of its left one has no area
    distances[:, 4:] = (distances[:, 4:] * 4).round() / 4 - 2
    found["distances"] = (made.head(reg_max=0), distances)
    found["priors"] = (test_priors.head(), test_priors.noise(4))
    found["priors, maps"] = (test_priors.head(**test_priors.APART), test_priors.maps_of(test_priors.noise(4)))
    found["priors, sigmoids"] = (test_priors.head(background=False, clip=True), test_priors.noise(3))
    return found | test_more_heads.heads()


def written(folder: Path, task: Detection, outputs: Tensors, kind: str, format: str) -> Tensors:
    """What the file answers."""
    inputs = torch.cat([one.flatten(1) / 2 for _, one in each(outputs)], 1)
    np.save(folder / "inputs.npy", inputs.numpy())
    path = folder / f"model{FORMATS[format].suffix}"
    options = ExportOptions(ending=task.ending(kind))
    export(Said(outputs), inputs[:1], path, format=format, precision="fp32", metadata={}, options=options)
    runtime = FORMATS[format].runtime
    told = evaluate(path, runtime, LOCAL, folder / "inputs.npy", batch=2)
    return from_numpy(np.ascontiguousarray(told)).float()


CASES = [(name, format, "nms") for name in heads() for format in ("onnx", "litert")]
CASES += [("distances", "onnx", "decoded"), ("one", "litert", "decoded")]
QUICK = {("apart", "onnx", "nms"), ("priors", "litert", "nms")}


@pytest.mark.parametrize(
    ("name", "format", "kind"),
    [
        pytest.param(name, format, kind, marks=() if (name, format, kind) in QUICK else pytest.mark.wide)
        for name, format, kind in CASES
    ],
)
def test_the_file_says_what_the_task_says(name: str, format: str, kind: str, tmp_path: Path) -> None:
    head, outputs = heads()[name]
    task = Detection(CLASSES, head, confidence=0.2, overlap=0.45, candidates=150, most=100)
    told = written(tmp_path, task, outputs, kind, format)
    task.check_outputs(told, None)
    own, theirs = task.detections(outputs), task.detections(told)
    assert len(own["labels"].values) > 20
    for one, other in zip(own, theirs, strict=True):
        assert one["scores"].tolist() == pytest.approx(other["scores"].tolist(), abs=1e-5)
        rows = [torch.cat([1000 * x["labels"][:, None], x["boxes"]], 1) for x in (one, other)]
        apart = (rows[0][:, None] - rows[1][None]).abs().amax(2)  # rows of equal scores have no order
        assert float(apart.min(0).values.max()) < 2e-3
        assert float(apart.min(1).values.max()) < 2e-3
    wanted = made.objects(3, 3, 2)
    assert task.score(told, wanted) == pytest.approx(task.score(outputs, wanted), abs=1e-3)
    assert task.agreement(told, outputs) == pytest.approx(task.agreement(outputs, outputs))


def test_rows_without_an_answer_are_zeros() -> None:
    task = Detection(CLASSES, made.head(), confidence=0.5, most=20)
    outputs = made.perfect(made.head(), made.objects(3, 3, 2), 3)
    ending = task.ending("nms")
    assert ending is not None
    told = ending.of(outputs)
    assert isinstance(told, NamedTensors)
    count = (told["scores"] > 0.5).sum(1)
    assert count.tolist() == [len(one["labels"]) for one in task.detections(outputs)]
    assert float(told["boxes"][told["scores"] == 0].abs().sum()) == 0
    assert [len(one["labels"]) for one in task.detections(told)] == count.tolist()


def test_outputs_of_a_file_have_names_that_the_model_has_not() -> None:
    head = made.head(boxes=("boxes",), scores=("scores",), reg_max=0)
    task = Detection(CLASSES, head)
    ending = task.ending("decoded")
    assert ending is not None
    assert ending.outputs == ("found_boxes", "found_scores")
    raw = NamedTensors({"boxes": torch.ones(1, 4, 120), "scores": torch.zeros(1, 3, 120)})
    assert task.head_of(raw) is head
    assert task.head_of(ending.of(raw)).kind == "decoded"
    with pytest.raises(WorkloadError, match="nothing is learnt"):
        task.head_of(ending.of(raw)).loss(raw, made.objects(1, 3), 3)


def test_what_has_no_such_head_is_refused() -> None:
    with pytest.raises(InputError, match="own outputs"):
        Classification(3).ending("decoded")
    with pytest.raises(InputError, match="executorch"):
        export_request(["executorch", "onnx"], head="nms")
    with pytest.raises(InputError, match="decoded"):
        export_request(head="decode")
    with pytest.raises(RecipeError, match="executorch"):
        load_recipe("quick", ["exports.head=nms", "exports.formats=[executorch, onnx]"])
    ending = Detection(3, made.head()).ending("nms")
    with pytest.raises(ExportError, match="one picture"):
        FORMATS["litert"].check(ExportOptions(ending=ending, batch=4), "fp32", "x")
    with pytest.raises(ExportError, match="temperature"):
        ExportOptions(ending=ending, temperature=2.0).check("x")


def test_several_pictures_are_suppressed_apart(tmp_path: Path) -> None:
    """The same picture beside others has the same boxes."""
    head, outputs = heads()["one"]
    task = Detection(CLASSES, head, confidence=0.2)
    three = written(tmp_path, task, cat([outputs, outputs]), "nms", "onnx")
    for name, one in each(three):
        assert torch.equal(one[:3], one[3:]), name
