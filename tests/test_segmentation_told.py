"""What a report tells of masks: IoU of each class, and pictures with what is wrong in red."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgekit import Preprocessing, Segmentation, Workload
from edgekit.diagnosis.marked import marked_of, most_changed

TASK = Segmentation(3, ignore_label=255)


def answering(labels: Tensor) -> Tensor:
    """Logits (N, 3, H, W) whose best class is that."""
    return torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 1).float()


def masks() -> Tensor:
    """(2, 8, 8): the upper half 0, below 1 and a corner that doesn't count."""
    wanted = torch.zeros(2, 8, 8, dtype=torch.int64)
    wanted[:, 4:] = 1
    wanted[:, 7, 7] = 255
    return wanted


def test_each_class_has_its_iou() -> None:
    wanted = masks()
    told = wanted.clone()
    told[told == 255] = 0
    told[0, 4] = 2  # eight of 62 pixels of class 1
    scores = TASK.scores(answering(told), wanted)
    assert scores == {"class 0 (IoU)": 1.0, "class 1 (IoU)": 54 / 62, "class 2 (IoU)": 0.0}
    assert TASK.score(answering(told), wanted) == np.mean(list(scores.values()))
    assert Segmentation(1000).scores(torch.zeros(1, 1000, 2, 2), torch.zeros(1, 2, 2).long()) == {}


def test_wrong_pixels_are_red_before_and_after() -> None:
    wanted = masks()
    right, wrong = wanted.clamp(max=2), wanted.clamp(max=2)
    wrong[1, :2] = 2
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    data = (pictures, wanted)
    workload = Workload("x", torch.nn.Conv2d(3, 3, 1), TASK, data, data, Preprocessing(layout="NHWC"))
    before, after = answering(right), answering(wrong)
    assert most_changed(TASK, before, after) == [1, 0]
    (one,) = marked_of(workload, [1], before, after)
    assert one.shares == (0, 16 / 63)
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(told.split(",")[1]))).convert("RGB")).astype(int)
        for told in (one.before, one.after)
    ]
    red = [(np.abs(image - (220, 30, 30)).sum(2) < 30) for image in images]
    assert not red[0].any()
    assert red[1][:4].all()  # twice as large
    assert not red[1][4:].any()
    assert images[0][2, 2, 2] > images[0][2, 2, 0]  # class 0 is blue
