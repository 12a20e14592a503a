"""Detectors that other people built, with random weights, and what their heads say as data.

A file of workloads: its own process is given benchmarks/ and the project on its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import foreign
import torch
from torch import Tensor, nn

from edgekit import AnchorFree, Detection, Preprocessing, Priors, Ragged, Workload

COCO = tuple(f"class {at}" for at in range(1, 91))


class Outputs(nn.Module):
    """A detector of torchvision up to what its last layers give."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


def ssdlite() -> Workload:
    """torchvision's ssdlite320_mobilenet_v3_large, all of its 91 classes (the first is background)."""
    foreign.declare_operators()
    import torchvision

    torch.manual_seed(0)
    made = torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    size, maps = (320, 320), [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    shares = made.anchor_generator._wh_pairs
    sizes = [[(min(w, 1) * size[1], min(h, 1) * size[0]) for w, h in level.tolist()] for level in shares]
    head = Priors(size, maps, sizes, ["bbox_regression"], ["cls_logits"], variances=(0.1, 0.2))  # type: ignore[arg-type]
    return _workload("ssdlite", Outputs(made), Detection(COCO, head, fit="stretch"))


def yolo() -> Workload:
    """A network in the manner of ultralytics' YOLOv8, narrow, its head described."""
    torch.manual_seed(0)
    net, size = Yolo(8, ("cat", "dog", "cow")), (160, 160)
    net.model[-1] = Raw(net.model[-1])
    boxes, scores = ([f"{kind}_{at}" for at in range(3)] for kind in ("boxes", "scores"))
    head = AnchorFree(size, strides=(8, 16, 32), reg_max=16, boxes=boxes, scores=scores)  # type: ignore[arg-type]
    return _workload("yolo", net, Detection(net.names, head))


class Raw(nn.Module):
    """In the place of the head: what its convolutions say (docs/detection.md)."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.cv2, self.cv3 = head.cv2, head.cv3
        self.f, self.i = head.f, head.i

    def forward(self, found: Sequence[Tensor]) -> dict[str, Tensor]:
        told = {f"boxes_{at}": layer(found[at]) for at, layer in enumerate(self.cv2)}
        return told | {f"scores_{at}": layer(found[at]) for at, layer in enumerate(self.cv3)}


# --- in the manner of YOLOv8 -------------------------------------------------------------------------------


class Unit(nn.Module):
    """A convolution, batch norm, SiLU."""

    def __init__(self, ins: int, outs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outs)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.act(self.bn(self.conv(x)))
        return made


class Pair(nn.Module):
    """Two convolutions, and what they were given beside them."""

    def __init__(self, width: int, *, add: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Unit(width, width, 3), Unit(width, width, 3), add

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.cv2(self.cv1(x))
        return x + made if self.add else made


class C2f(nn.Module):
    """Split in two, and all that its pairs make, joined."""

    def __init__(self, ins: int, outs: int, *, add: bool = False) -> None:
        super().__init__()
        self.cv1, self.cv2 = Unit(ins, outs), Unit(3 * outs // 2, outs)
        self.m = nn.ModuleList([Pair(outs // 2, add=add)])

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.extend(layer(parts[-1]) for layer in self.m)
        made: Tensor = self.cv2(torch.cat(parts, 1))
        return made


class SPPF(nn.Module):
    """Poolings one after the other, joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Unit(width, width // 2), Unit(2 * width, width)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        parts.extend(self.m(parts[-1]) for _ in range(3))
        made: Tensor = self.cv2(torch.cat(parts, 1))
        return made


class Join(nn.Module):
    """Channels of several layers, one after the other."""

    def forward(self, given: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(given), 1)


class Detect(nn.Module):
    """``cv2`` and ``cv3``, for each stride a branch for distances and one for classes."""

    def __init__(self, classes: int, widths: Sequence[int], reg_max: int = 16) -> None:
        super().__init__()
        wide, high = max(16, widths[0] // 4, reg_max * 4), max(widths[0], classes)
        self.cv2 = nn.ModuleList(
            nn.Sequential(Unit(w, wide, 3), Unit(wide, wide, 3), nn.Conv2d(wide, 4 * reg_max, 1))
            for w in widths
        )
        self.cv3 = nn.ModuleList(
            nn.Sequential(Unit(w, high, 3), Unit(high, high, 3), nn.Conv2d(high, classes, 1)) for w in widths
        )


class Yolo(nn.Module):
    """Layers in a row; ``f`` of each says from which ones it is fed, ``i`` which one it is."""

    def __init__(self, a: int, names: tuple[str, ...]) -> None:
        super().__init__()
        b, c, d, e = 2 * a, 4 * a, 8 * a, 16 * a
        up = lambda: nn.Upsample(scale_factor=2)  # noqa: E731
        rows: list[tuple[Any, nn.Module]] = [
            (-1, Unit(3, a, 3, 2)),
            (-1, Unit(a, b, 3, 2)),
            (-1, C2f(b, b, add=True)),
            (-1, Unit(b, c, 3, 2)),
            (-1, C2f(c, c, add=True)),  # 4: stride 8
            (-1, Unit(c, d, 3, 2)),
            (-1, C2f(d, d, add=True)),  # 6: stride 16
            (-1, Unit(d, e, 3, 2)),
            (-1, C2f(e, e, add=True)),
            (-1, SPPF(e)),  # 9: stride 32
            (-1, up()),
            ([-1, 6], Join()),
            (-1, C2f(e + d, d)),
            (-1, up()),
            ([-1, 4], Join()),
            (-1, C2f(d + c, c)),  # 15
            (-1, Unit(c, c, 3, 2)),
            ([-1, 12], Join()),
            (-1, C2f(c + d, d)),  # 18
            (-1, Unit(d, d, 3, 2)),
            ([-1, 9], Join()),
            (-1, C2f(d + e, e)),  # 21
            ([15, 18, 21], Detect(len(names), (c, d, e))),
        ]
        self.names, self.model = names, nn.ModuleList(layer for _, layer in rows)
        for at, (fed, layer) in enumerate(rows):
            layer.f, layer.i = fed, at  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        told: list[Any] = []
        for layer in self.model:
            fed: Any = layer.f
            given = [x if at == -1 else told[at] for at in (fed if isinstance(fed, list) else [fed])]
            x = layer(given if isinstance(fed, list) else given[0])
            told.append(x)
        return x


# --- what both are given -----------------------------------------------------------------------------------


@torch.no_grad()
def _workload(name: str, model: nn.Module, task: Detection) -> Workload:
    size = task.head.size
    foreign._give_weight(model)
    foreign._feed(
        model, lambda count, seed: foreign.images(count, size[0], torch.Generator().manual_seed(seed))
    )
    return Workload(
        name,
        model.eval(),
        task,
        (_pictures(32, size, 1), None),
        (_pictures(12, size, 2), _objects(12, size, len(task.names))),
        preprocessing=Preprocessing(layout="NCHW", scale=1 / 255, mean=(0.5,), std=(0.2,)),
    )


def _pictures(count: int, size: tuple[int, int], seed: int) -> Tensor:
    part = foreign.images(count, size[0], torch.Generator().manual_seed(seed))
    return (255 * (0.2 * part + 0.5)).clamp(0, 255).byte()


def _objects(count: int, size: tuple[int, int], classes: int) -> Ragged:
    generator = torch.Generator().manual_seed(3)
    corners = [torch.rand(2, 2, 2, generator=generator).sort(1).values * size[0] for _ in range(count)]
    return Ragged.of(
        {
            "boxes": torch.cat([one[:, 0], one[:, 1] + 2], 1).clamp(0, size[0]),
            "labels": torch.randint(classes, (2,), generator=generator),
        }
        for one in corners
    )
