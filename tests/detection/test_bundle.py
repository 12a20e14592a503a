"""The code that a bundle takes along decodes as the task does."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import Detection, OwnHead
from edgekit.bundle import detecting
from edgekit.bundle.contents import Tensor
from edgekit.bundle.targets.python.package.detecting import Detector, decoded, fitted, golden_faults
from edgekit.errors import InputError
from edgekit.tensors import each
from tests.detection import made
from tests.detection.test_detection import CLASSES, layouts


def file_of(task: Detection, outputs: Any, *, last: bool) -> tuple[Any, dict[str, Any]]:
    """A file of a bundle, and its answers; ``last``: with the channels of maps last."""
    answers, ends = {}, {}
    for name, one in each(outputs):
        turned = last and one.dim() == 4
        answers[name] = (one.movedim(1, -1) if turned else one).numpy()
        ends[name] = {"output": {"scale": None, "layout": "NHWC" if turned else "any"}}
    spec = {"detection": json.loads(json.dumps(task.decoding))}
    return SimpleNamespace(spec=spec, outputs=ends), answers


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("layout", layouts())
def test_it_says_what_the_task_says(layout: str, last: bool) -> None:
    head, give = layouts()[layout]
    task = Detection(CLASSES, head, confidence=0.05)
    flat = made.perfect(made.head(), made.objects(4, 3, 2), 3)
    flat = 0.2 * flat + torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    outputs = give(flat)
    file, answers = file_of(task, outputs, last=last)
    told = list(task.detections(outputs))
    assert sum(len(one["labels"]) for one in told) > 100
    golden = []
    for rows, one in zip(decoded(answers, file), told, strict=True):
        assert rows[:, 4].tolist() == one["labels"].tolist()
        assert np.allclose(rows[:, :4], one["boxes"], atol=1e-3)
        assert np.allclose(rows[:, 5], one["scores"], atol=1e-5)
        golden.append(rows.tolist())
    file.spec["detection"]["golden"] = golden
    assert golden_faults(answers, file) == []
    golden[1][0][0] += 3
    golden[2].pop()
    assert golden_faults(answers, file) == [
        "other boxes in sample 1",
        f"{len(golden[2]) + 1} boxes in sample 2, expected {len(golden[2])}",
    ]


def test_a_function_of_the_users_own_is_in_no_bundle() -> None:
    own = OwnHead(made.SIZE, (), lambda given, classes: (given, given))  # type: ignore[arg-type,return-value]
    ends = [SimpleNamespace(end=Tensor("y", (1, 7, 4), "float32"), answers=np.zeros((2, 7, 4), np.float32))]
    with pytest.raises(InputError, match="function of your own"):
        detecting.decoding(Detection(CLASSES, own), ends, {"output": "y"})  # type: ignore[arg-type]


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_boxes_of_a_picture_of_any_size_are_in_its_pixels(fit: str) -> None:
    """A detector that answers where the brightest rectangle is, seen in a larger picture."""
    task = Detection(CLASSES, made.head(), fit=fit)  # type: ignore[arg-type]
    height, width = made.SIZE
    raw = {"shape": [height, width, 3], "layout": "NHWC", "dtype": "uint8", "white": 255}
    spec = {"detection": {**task.decoding, "confidence": 0.5}}
    picture = np.zeros((200, 150, 3), np.uint8)
    picture[40:120, 30:90] = 255
    seen = []

    def run(inputs: Any) -> Any:
        seen.append(inputs["x"])
        rows, columns = (inputs["x"][0, :, :, 0] > 127).nonzero()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        one = {"boxes": torch.tensor([box]).float(), "labels": torch.tensor([1])}
        return {"y": made.perfect(made.head(), [one], 3).numpy()}  # type: ignore[arg-type]

    file = SimpleNamespace(
        spec=spec,
        inputs={"x": {"raw": raw}},
        outputs={"y": {"output": {"scale": None, "layout": "any"}}},
        prepared=lambda samples: samples,
        run=run,
    )
    (box,) = Detector(file).detect(picture)  # type: ignore[arg-type]
    assert (box.label, round(box.score, 3)) == ("dog", 1.0)
    assert box[:4] == pytest.approx((30, 40, 90, 120), abs=2.5)
    assert seen[0].shape == (1, height, width, 3)
    assert (seen[0][0, 0, 0, 0] == 114) == (fit == "letterbox")
    whole, scale, offset = fitted(np.zeros((height, width, 3), np.uint8), raw, spec["detection"])
    assert whole.shape == (height, width, 3)
    assert (scale.tolist(), offset.tolist()) == ([1, 1], [0, 0])
