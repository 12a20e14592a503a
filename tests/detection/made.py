"""Boxes, pictures and answers to test with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit import AnchorFree, Ragged

SIZE = (64, 96)  # height, width
STRIDES = (8, 16)


def head(**changes: Any) -> AnchorFree:
    return AnchorFree(**{"size": SIZE, "strides": STRIDES, "reg_max": 8, **changes})


def boxes(count: int, generator: np.random.Generator, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(n, 4), at least 4 pixels wide and high."""
    height, width = size
    first = generator.uniform(0, [width - 5, height - 5], (count, 2))
    second = first + 4 + generator.uniform(0, 1, (count, 2)) * ([width - 4, height - 4] - first)
    return np.concatenate([first, second], 1).astype(np.float32)


def objects(pictures: int, classes: int, seed: int = 0, most: int = 5) -> Ragged:
    """Boxes and labels, none in the first picture."""
    generator = np.random.default_rng(seed)
    counts = [0, *generator.integers(1, most + 1, pictures - 1)]
    return Ragged.of(
        {"boxes": boxes(count, generator), "labels": generator.integers(0, classes, count)}
        for count in counts
    )


def answered(wanted: Ragged, seed: int = 1, classes: int = 3, noise: float = 4.0) -> list[dict[str, Any]]:
    """Answers near what is wanted, some of them twice, some wrong, with many equal scores."""
    generator = np.random.default_rng(seed)
    found = []
    for one in wanted:
        assert isinstance(one, dict)
        near = np.repeat(one["boxes"].numpy(), 2, 0)
        near = near + generator.normal(0, noise, near.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        labels = np.repeat(one["labels"].numpy(), 2)
        labels = np.where(
            generator.random(len(labels)) < 0.8, labels, generator.integers(0, classes, len(labels))
        )
        wrong = generator.integers(0, 4)
        every = np.concatenate([near, boxes(wrong, generator)]).astype(np.float32)
        kinds = np.concatenate([labels, generator.integers(0, classes, wrong)])
        scores = generator.integers(1, 20, len(every)) / 20
        order = np.argsort(-scores, kind="stable")
        found.append(
            {"boxes": every[order], "labels": kinds[order], "scores": scores[order].astype(np.float32)}
        )
    return found


def perfect(one: AnchorFree, wanted: Ragged, classes: int) -> Tensor:
    """Outputs (N, 4 * reg_max + C, A) that say exactly what is wanted, each object at the place nearest to
    its middle; for heads that give one tensor.
    """
    from edgekit.tasks.detection.layouts import places

    points, steps = places(one.size, one.strides)
    outputs = torch.zeros(len(wanted), len(points), one.box_channels + classes)
    outputs[..., one.box_channels :] = -12
    for row, entry in enumerate(wanted):
        assert isinstance(entry, dict)
        for box, label in zip(entry["boxes"], entry["labels"], strict=True):
            away = ((box[:2] + box[2:]) / 2 - points).square().sum(1)
            away[outputs[row, :, one.box_channels :].amax(1) > 0] = float("inf")
            place = int(away.argmin())
            distances = torch.cat([points[place] - box[:2], box[2:] - points[place]]) / steps[place]
            if one.reg_max:
                lower = distances.clamp(0, one.reg_max - 1.001).floor().long()
                shares = torch.full((4, one.reg_max), 1e-9)
                shares[range(4), lower] = (lower + 1 - distances).clamp(1e-9)
                shares[range(4), lower + 1] = (distances - lower).clamp(1e-9)
                outputs[row, place, : one.box_channels] = shares.log().flatten()
            else:
                outputs[row, place, :4] = distances
            outputs[row, place, one.box_channels + label] = 12
    return outputs.transpose(1, 2).contiguous()
