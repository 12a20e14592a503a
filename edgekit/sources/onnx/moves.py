"""Ops that move numbers, choose among them, or put in others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.sources.onnx.nodes import Node, Refused, is_host, number, numbers, op, tensor
from edgekit.sources.onnx.shapes import sliced

__all__: list[str] = []


@op("Identity")
def _identity(node: Node, x: Tensor) -> Tensor:
    return x


@op("Reshape", host=(1,))
def _reshape(node: Node, x: Tensor, shape: Any) -> Tensor:
    wanted = numbers(shape)
    if not node.get("allowzero", 0):
        wanted = [x.shape[place] if _is(one, 0) else one for place, one in enumerate(wanted)]
    return torch.reshape(x, _for_any_batch(node, x, wanted))


def _is(one: Any, value: int) -> bool:
    return isinstance(one, int) and one == value


def _for_any_batch(node: Node, x: Tensor, wanted: list[Any]) -> list[Any]:
    """Of a file that was written for so many samples: the same shape of any number of them.

    A guess about which of its numbers is theirs. Whether it was right is seen where answers are compared:
    with the file's, and of samples alone with those in a batch.
    """
    if node.batch is None or not wanted or not isinstance(wanted[0], int):
        return wanted
    if -1 in wanted[1:] and node.rows:
        return [x.shape[0] * wanted[0] // node.rows, *wanted[1:]]
    if -1 in wanted:
        return wanted
    return [-1, *wanted[1:]] if wanted[0] % node.batch == 0 and wanted[0] else wanted


@op("Flatten")
def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis += x.dim() if axis < 0 else 0
    if axis == 0:
        return x.reshape(1, -1)
    return x.flatten(1) if axis == 1 else x.flatten(axis).flatten(0, axis - 1)


@op("Squeeze", host=(1,))
def _squeeze(node: Node, x: Tensor, axes: Any = None) -> Tensor:
    listed = node.listed("axes", axes)
    return x.squeeze() if listed is None else x.squeeze(listed)


@op("Unsqueeze", host=(1,))
def _unsqueeze(node: Node, x: Tensor, axes: Any = None) -> Tensor:
    listed = node.listed("axes", axes) or []
    for axis in sorted(one % (x.dim() + len(listed)) for one in listed):
        x = x.unsqueeze(axis)
    return x


@op("Transpose")
def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm") or list(reversed(range(x.dim()))))


@op("Concat")
def _concat(node: Node, *given: Any) -> Tensor:
    parts, axis = [tensor(one) for one in given], node.get("axis", 0)
    axis %= parts[0].dim()
    if node.batch is not None and axis and len({str(one.shape[0]) for one in parts}) > 1:
        # What the file has once for each of its samples, for as many as there are.
        count = next(one.shape[0] for one in parts if not _is(one.shape[0], node.batch))
        parts = [one.expand(count, *one.shape[1:]) if _is(one.shape[0], 1) else one for one in parts]
    return torch.cat(parts, axis)


@op("Split", host=(1,))
def _split(node: Node, x: Tensor, sizes: Any = None) -> Any:
    axis, listed = node.get("axis", 0), node.listed("split", sizes)
    if listed is None:
        width = -(-x.shape[axis] // len(node.outputs))
        return x.split(width, axis)
    return x.split(listed, axis)


@op("Slice", host=(1, 2, 3, 4))
def _slice(node: Node, x: Tensor, *given: Any) -> Tensor:
    for start, end, axis, step in zip(*sliced(node, x.dim(), given), strict=True):
        if step < 0:
            if step != -1 or end is not None or not (_is(start, -1) or _is(start, 2**31 - 1)):
                size = x.shape[axis]
                if not isinstance(size, int) or not isinstance(start, int):
                    raise Refused("a slice that runs backwards over samples")
                places = list(range(size))[start if end is None else slice(start, end, step)]
                if end is None:
                    places = list(range(size))[start::step]
                x = torch.index_select(x, axis, torch.tensor(places))
                continue
            x = x.flip(axis)
            continue
        if not (_is(start, 0) and end is None and step == 1):
            places = [slice(None)] * axis + [slice(start, end, step)]
            x = x[tuple(places)]
    return x


@op("Gather", host=(1,))
def _gather(node: Node, data: Any, places: Any) -> Any:
    source, axis = tensor(data), node.get("axis", 0)
    axis %= source.dim()
    if is_host(places) and places.ndim == 0:
        return source.select(axis, numbers(places)[0])
    if axis == 0 and source.dim() == 2 and not is_host(places):
        return F.embedding(tensor(places).long(), source)
    where = _from_the_front(places, source.shape[axis])
    if where.dim() == 1:
        return torch.index_select(source, axis, where)
    picked = torch.index_select(source, axis, where.reshape(-1))
    return picked.unflatten(axis, list(where.shape))


def _from_the_front(places: Any, size: Any) -> Tensor:
    """Places of an axis of this size; negative ones of the file count from its end."""
    where: Tensor = tensor(places).long()
    negative = is_host(places) and bool((np.asarray(places) < 0).any())
    return torch.where(where < 0, where + size, where) if negative else where


@op("GatherElements", host=(1,))
def _gather_elements(node: Node, data: Tensor, places: Any) -> Tensor:
    axis = node.get("axis", 0)
    return torch.gather(data, axis, _from_the_front(places, data.shape[axis]))


@op("Expand", host=(1,))
def _expand(node: Node, x: Any, shape: Any) -> Any:
    wanted, source = numbers(shape), tensor(x)
    sizes = [1] * (len(wanted) - source.dim()) + list(source.shape)
    wanted = [1] * (len(sizes) - len(wanted)) + wanted
    return source.expand([have if _is(want, 1) else want for have, want in zip(sizes, wanted, strict=True)])


@op("Tile", host=(1,))
def _tile(node: Node, x: Any, times: Any) -> Any:
    return tensor(x).repeat(numbers(times))


@op("Pad", host=(1, 2, 3))
def _pad(node: Node, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    listed = node.listed("pads", pads) or []
    places = [one % x.dim() for one in numbers(axes)] if axes is not None else list(range(x.dim()))
    begins, ends = [0] * x.dim(), [0] * x.dim()
    for place, axis in enumerate(places):
        begins[axis], ends[axis] = listed[place], listed[place + len(places)]
    flat = [one for pair in zip(reversed(begins), reversed(ends), strict=True) for one in pair]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    mode = node.get("mode", "constant")
    if mode == "constant":
        filling = node.get("value", 0.0) if value is None else number(value)
        return F.pad(x, flat, value=filling)
    known = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in known:
        raise Refused(f"padding by {mode}")
    return F.pad(x, flat, mode=known[mode])


@op("DepthToSpace")
def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    _, channels, height, width = x.shape
    apart = x.reshape(-1, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return apart.reshape(-1, channels // size**2, height * size, width * size)


@op("SpaceToDepth")
def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize")
    _, channels, height, width = x.shape
    apart = x.reshape(-1, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return apart.reshape(-1, channels * size**2, height // size, width // size)


@op("Trilu", host=(1,))
def _trilu(node: Node, x: Tensor, place: Any = None) -> Tensor:
    diagonal = 0 if place is None else number(place)
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


@op("Range")
def _range(node: Node, start: Any, limit: Any, step: Any) -> Tensor:
    return torch.arange(number(start), number(limit), number(step))


@op("ConstantOfShape", host=(0,))
def _filled(node: Node, shape: Any) -> Tensor:
    value = torch.from_numpy(np.asarray(node.get("value", np.zeros(1, np.float32))).reshape(-1).copy())
    return torch.full(numbers(shape), value[0].item(), dtype=value.dtype)


@op("Resize", "Upsample", host=(1, 2, 3))
def _resize(node: Node, x: Tensor, *given: Any) -> Tensor:
    """Nearest and linear, with the rules that torch has too; others are refused."""
    if node.op == "Upsample" or node.opset < 11:
        scales, sizes = (given[0] if given else None), None
        rule, rounding = "asymmetric", "floor"
    else:
        _, scales, sizes = [*given, None, None, None][:3]
        rule = node.get("coordinate_transformation_mode", "half_pixel")
        rounding = node.get("nearest_mode", "round_prefer_floor")
    if node.get("axes") is not None or node.get("antialias", 0):
        raise Refused("a resize with antialiasing, or of axes that are named")
    factors = node.listed("scales", None) if scales is None or not scales.size else scales.tolist()
    if sizes is not None and sizes.size:
        wanted: list[Any] = numbers(sizes)[2:]
    elif factors:
        wanted = [_sized(size, factor, rule) for size, factor in zip(x.shape[2:], factors[2:], strict=True)]
    else:
        raise Refused("a resize without a size")
    mode = node.get("mode", "nearest")
    if mode == "nearest":
        times = [want / size for want, size in zip(wanted, x.shape[2:], strict=True)]
        whole = all(one >= 1 and one == int(one) for one in times)
        rounded = whole and rounding.startswith("round_prefer")
        halves = rounding == "round_prefer_floor" and whole and max(times) <= 2
        plain = rule == "asymmetric" and (rounding == "floor" or halves)
        if plain or (rounded and rule in ("half_pixel", "pytorch_half_pixel")):
            return F.interpolate(x, wanted, mode="nearest")
        raise Refused(f"a resize to the nearest by {rule}, {rounding}")
    if (
        mode != "linear"
        or x.dim() not in (3, 4)
        or rule not in ("half_pixel", "pytorch_half_pixel", "align_corners")
    ):
        raise Refused(f"a {mode} resize by {rule}")
    if rule == "pytorch_half_pixel" and any(_is(want, 1) for want in wanted):
        raise Refused(f"a linear resize to a size of 1 by {rule}")
    kind = "linear" if x.dim() == 3 else "bilinear"
    return F.interpolate(x, wanted, mode=kind, align_corners=rule == "align_corners")


def _sized(size: int, factor: float, rule: str) -> int:
    """A size times a factor, as ONNX cuts it off. Raises Refused: the factor would become another by that.

    Places are computed with the factor there, and with the sizes alone here.
    """
    exact = size * float(factor)
    wanted = int(np.float32(size) * np.float32(factor))
    if rule != "align_corners" and abs(exact - wanted) > 1e-4 * max(1, wanted):
        raise Refused(f"a resize of {size} by {factor:.6g}, which is no whole number")
    return wanted
