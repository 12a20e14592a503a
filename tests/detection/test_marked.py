"""Pictures of the report: marks keep their colours, whatever the picture's are."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from edgekit import Detection, Preprocessing, Workload
from edgekit.diagnosis.marked import marked_of
from tests.detection import made


def test_what_was_missed_is_red_and_what_was_found_green() -> None:
    wanted = made.objects(2, 3, 3, most=3)
    right = made.perfect(made.head(), wanted, 3)
    generator = np.random.default_rng(0)
    pictures = generator.integers(100, 256, (2, *made.SIZE, 3), np.uint8)
    task, net = Detection(3, made.head(), overlap=0.95), torch.nn.Conv2d(3, 35, 1)
    data = (pictures, wanted)
    workload = Workload("x", net, task, data, data, Preprocessing(layout="NHWC"))
    (one,) = marked_of(workload, [1], right, torch.full_like(right, -12.0))
    count = len(wanted[1]["labels"])
    assert (one.missed, one.wrong) == ((0, count), (0, 0))
    colours = []
    for told in (one.before, one.after):
        image = Image.open(io.BytesIO(base64.b64decode(told.split(",")[1]))).convert("RGB")
        assert image.size == (192, 128)
        colours.append({colour for _, colour in image.getcolors(1 << 16) or []})
    assert (40, 170, 60) in colours[0] - colours[1]
    assert (220, 30, 30) in colours[1] - colours[0]
