"""A plain loop that trains a detector from nothing by its task's own loss, with four pictures in one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit import Ragged, Task
from edgekit.files import atomic_write
from edgekit.tensors import NamedTensors

GREY = 114
LEAST_SHARE, LEAST_SIDE = 0.25, 3.0  # of a box that a crop leaves; pixels


@dataclass(frozen=True)
class Plan:
    """How it is trained. ``plain``: the last epochs, in which pictures stand alone."""

    epochs: int = 70
    batch_size: int = 16
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 3
    plain: int = 12
    mosaic: float = 0.7
    ema: float = 0.998
    every: int = 10  # epochs between two that are kept, to choose among
    seed: int = 0


def train(
    model: nn.Module,
    task: Task,
    pictures: Tensor,
    targets: Ragged,
    plan: Plan,
    checkpoint: Path,
    kept: Callable[[int, Mapping[str, Tensor]], None],
) -> None:
    """Train ``model``; a killed training goes on from ``checkpoint``.

    Args:
        pictures: (N, H, W, 3) bytes.
        kept: is given the epoch and averaged weights, every so many epochs.
    """
    model.to(memory_format=torch.channels_last).train()
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    steps = len(pictures) // plan.batch_size
    decayed = [one for one in model.parameters() if one.dim() > 1]
    others = [one for one in model.parameters() if one.dim() <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, plan.lr, weight_decay=plan.weight_decay)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["epoch"]
    for epoch in range(first, plan.epochs):
        began, total = time.monotonic(), 0.0
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + epoch)
        mosaic = plan.mosaic if epoch < plan.epochs - plan.plain else 0.0
        order = torch.randperm(len(pictures), generator=generator)[: steps * plan.batch_size]
        for step, rows in enumerate(order.split(plan.batch_size)):
            made = epoch * steps + step
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * _factor(made, steps, plan)
            inputs, wanted = _batch(pictures, targets, rows, mosaic, generator)
            with torch.autocast("cpu", torch.bfloat16):
                outputs = model(inputs)
            loss = task.loss(NamedTensors(outputs), wanted)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            total += float(loss.detach())
            decay = min(plan.ema, (made + 1) / (made + 10))
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value.detach(), 1 - decay)
                else:
                    average[name].copy_(value)
        print(f"epoch {epoch + 1}: loss {total / steps:.3f}, {time.monotonic() - began:.1f} s", flush=True)
        if (epoch + 1) % plan.every == 0:
            kept(epoch + 1, average)
            _save(checkpoint, model, optimizer, average, epoch + 1)


def _save(path: Path, model: nn.Module, optimizer: Any, average: Any, epoch: int) -> None:
    import io

    stream = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "epoch": epoch,
    }
    torch.save(state, stream)
    atomic_write(path, stream.getvalue())


def _factor(step: int, steps: int, plan: Plan) -> float:
    """Of the learning rate: up in a few epochs, then down along half a cosine to a fiftieth."""
    epoch = step / steps
    if epoch < plan.warmup:
        return max(0.01, epoch / plan.warmup)
    done = (epoch - plan.warmup) / (plan.epochs - plan.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _batch(
    pictures: Tensor, targets: Ragged, rows: Tensor, mosaic: float, generator: torch.Generator
) -> tuple[Tensor, Ragged]:
    made = [_sample(pictures, targets, int(row), mosaic, generator) for row in rows]
    inputs = torch.stack([picture for picture, _ in made])
    return inputs.to(memory_format=torch.channels_last), Ragged.of([target for _, target in made])


def _sample(
    pictures: Tensor, targets: Ragged, row: int, mosaic: float, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """One picture (3, H, W), 0…1, and what is in it."""
    height, width = pictures.shape[1:3]

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    if draw(0, 1) < mosaic:
        others = torch.randint(len(pictures), (3,), generator=generator).tolist()
        parts = [_turned(pictures, targets, one, generator) for one in (row, *others)]
        rows = [torch.cat([parts[at][0], parts[at + 1][0]], 2) for at in (0, 2)]
        canvas = torch.cat(rows, 1)
        moved = [(0, 0), (width, 0), (0, height), (width, height)]
        boxes = torch.cat([part[1] + torch.tensor([*at, *at]) for part, at in zip(parts, moved, strict=True)])
        labels = torch.cat([part[2] for part in parts])
        scale = math.exp(draw(math.log(0.8), math.log(1.8)))
    else:
        canvas, boxes, labels = _turned(pictures, targets, row, generator)
        scale = math.exp(draw(math.log(0.75), math.log(1.25)))
    stretch = math.exp(draw(-0.15, 0.15))
    high, wide = height * scale * stretch, width * scale / stretch
    top = _start(canvas.shape[1], high, draw)
    left = _start(canvas.shape[2], wide, draw)
    picture = _window(canvas, top, left, round(high), round(wide), (height, width))
    factor = torch.tensor([width / round(wide), height / round(high)]).repeat(2)
    whole = (boxes - torch.tensor([left, top, left, top])) * factor
    inside = torch.stack([whole[:, 0::2].clamp(0, width), whole[:, 1::2].clamp(0, height)], 2).flatten(1)
    sides, full = inside[:, 2:] - inside[:, :2], whole[:, 2:] - whole[:, :2]
    kept = (sides.prod(1) > LEAST_SHARE * full.prod(1)) & (sides.min(1).values >= LEAST_SIDE)
    return _coloured(picture / 255, draw, generator), {"boxes": inside[kept], "labels": labels[kept]}


def _start(size: int, window: float, draw: Callable[[float, float], float]) -> int:
    """Where a window begins: inside of the canvas, or around it where it is larger."""
    return round(draw(min(0.0, size - window), max(0.0, size - window)))


def _window(canvas: Tensor, top: int, left: int, high: int, wide: int, size: tuple[int, int]) -> Tensor:
    """(3, *size) of a canvas (3, H, W), grey where the window goes beyond it."""
    cut = torch.full((3, high, wide), float(GREY))
    y, x = max(0, top), max(0, left)
    inside = canvas[:, y : top + high, x : left + wide]
    cut[:, y - top : y - top + inside.shape[1], x - left : x - left + inside.shape[2]] = inside
    return F.interpolate(cut[None], size, mode="bilinear", antialias=True)[0]


def _turned(
    pictures: Tensor, targets: Ragged, row: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(3, H, W) and its boxes and labels, mirrored at random in both directions."""
    picture, target = pictures[row].permute(2, 0, 1).float(), targets[row]
    assert isinstance(target, dict)
    boxes, height, width = target["boxes"].clone(), *pictures.shape[1:3]
    if torch.rand((), generator=generator) < 0.5:
        picture, boxes[:, 0::2] = picture.flip(2), width - boxes[:, [2, 0]]
    if torch.rand((), generator=generator) < 0.5:
        picture, boxes[:, 1::2] = picture.flip(1), height - boxes[:, [3, 1]]
    return picture, boxes, target["labels"]


def _coloured(picture: Tensor, draw: Callable[[float, float], float], generator: torch.Generator) -> Tensor:
    """Other light, other colours."""
    gains = 1 + 0.12 * (2 * torch.rand(3, 1, 1, generator=generator) - 1)
    grey = picture.mean(0, keepdim=True)
    picture = grey + (picture - grey) * draw(0.6, 1.4)
    middle = picture.mean()
    picture = middle + (picture - middle) * draw(0.75, 1.25)
    return (picture * gains * draw(0.8, 1.2)).clamp(0, 1)
