"""Places of the points of one object in each picture: of a face, a hand, a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import DataError, WorkloadError, did_you_mean
from edgekit.tasks.base import Task, kind_of, share_of
from edgekit.tasks.marks import Mark
from edgekit.tasks.moves import Moves

__all__ = ["Keypoints", "Points"]

_FORMS = ("heat", "coordinates")
_FITS = ("letterbox", "stretch")
_NARROWEST = 0.25  # an object's shorter side, as a share of the longer one: a standing person's, about
_MARK = 0.012  # half a side of a drawn point, as a share of the picture


class Points(NamedTuple):
    """places: (N, K, 2), x and y in pixels of the model's input. scores: (N, K), a heat map's value there; 1
    where numbers are told alone.
    """

    places: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Keypoints(Task):
    """K points of one object. Targets (N, K, 3): x and y in pixels of the model's input, and whether the
    point counts: 0 for one that nobody labelled or that isn't in the picture.

    ``form`` "heat": outputs (N, K, rows, columns), a map for each point. Where it is highest the point is, a
    quarter of a cell nearer to its higher neighbour in each direction (Newell et al. 2016, arXiv 1603.06937,
    section 3.3). They learn by squared error to a Gaussian of ``spread`` cells. ``form`` "coordinates":
    outputs (N, K, 2) or (N, 2 * K), x and y as shares of the picture; smooth L1.

    Score: PCK, the share of points that count that are at most ``tolerance`` of the object's longer side away
    (of the box around its points that count; of the picture's where there is but one). With ``sigmas`` the
    mean similarity of COCO (OKS) is told, too, of the same box's area, in which the shorter side counts as at
    least a quarter of the longer one: points in a line have no area. Agreement: the share of points as near
    to the reference's.

    Args:
        names: of the points, in the order of outputs and targets.
        size: (height, width) of the model's input.
        form: what the outputs are.
        tolerance: as a share of the object's longer side.
        sigmas: COCO's falloff of each point, 0.026 for the nose to 0.107 for hips; none: no OKS.
        mirrored: pairs of names that change places in a mirrored picture.
        spread: of the Gaussians that heat maps learn, in cells.
        fit: how bundles fit pictures of other sizes.
        border: of letterboxes, a byte.

    Raises WorkloadError: numbers or names that make no sense.
    """

    names: tuple[str, ...]
    size: tuple[int, int]
    form: Literal["heat", "coordinates"] = "heat"
    tolerance: float = 0.1
    sigmas: tuple[float, ...] = ()
    mirrored: tuple[tuple[str, str], ...] = ()
    spread: float = 2.0
    fit: Literal["letterbox", "stretch"] = "stretch"
    border: int = 114

    kind: ClassVar[str] = "keypoints"
    metric: ClassVar[str] = "PCK"
    unit: ClassVar[str] = "points"
    spatial_targets: ClassVar[bool] = True
    moves_targets: ClassVar[bool] = True
    marks_answers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("names", "size", "sigmas"):
            if isinstance(value := getattr(self, name), str):
                raise _wrong(name, repr(value), "several, in a tuple or a list")
            object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "mirrored", tuple(tuple(pair) for pair in self.mirrored))
        if not self.names or len(set(self.names)) != len(self.names):
            raise _wrong("names", str(self.names), "at least one name, each once")
        if len(self.size) != 2 or min(self.size) < 1:
            raise _wrong("size", str(self.size), "(height, width), both at least 1")
        if self.form not in _FORMS:
            raise _wrong("form", repr(self.form), did_you_mean(str(self.form), _FORMS))
        if self.fit not in _FITS:
            raise _wrong("fit", repr(self.fit), did_you_mean(str(self.fit), _FITS))
        if not 0 < self.tolerance <= 1 or not self.spread > 0 or not 0 <= self.border <= 255:
            got = f"tolerance={self.tolerance}, spread={self.spread}, border={self.border}"
            raise _wrong("tolerance, spread, border", got, "0 to 1, above 0, and a byte")
        if self.sigmas and (len(self.sigmas) != len(self.names) or min(self.sigmas) <= 0):
            raise _wrong("sigmas", str(self.sigmas), f"a number above 0 for each of {len(self.names)} points")
        for pair in self.mirrored:
            if len(pair) != 2 or (unknown := [name for name in pair if name not in self.names]):
                got = str(pair) if len(pair) != 2 else ", ".join(unknown)
                raise _wrong("mirrored", got, f"pairs of {', '.join(self.names)}")

    # --- what fits -----------------------------------------------------------------------------------------

    def check_targets(self, targets: Any, *, where: str = "targets") -> None:
        """Raise DataError unless targets are (N, K, 3) finite numbers, some of which count."""
        wanted = (len(self.names), 3)
        tensor = isinstance(targets, Tensor) and targets.is_floating_point()
        if not tensor or targets.dim() != 3 or tuple(targets.shape[1:]) != wanted:
            got = (
                f"{kind_of(targets)} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else "?"
            )
            raise DataError(
                "targets don't fit the task",
                where=where,
                got=got,
                expected=f"floating point numbers (N, {wanted[0]}, 3): x, y, and 0 for what isn't there",
            )
        if not bool(torch.isfinite(targets).all()):
            raise DataError(
                "targets hold NaN or infinity",
                where=where,
                expected="finite numbers; 0 in the third place says that a point isn't there",
            )
        if not bool((targets[..., 2] > 0).any()):
            raise DataError("no points that count", where=where, expected="at least one in each split")

    def check_outputs(self, outputs: Any, targets: Any) -> None:
        """Raise DataError unless outputs have the form that was said."""
        count = len(self.names)
        fits = isinstance(outputs, Tensor) and (
            (outputs.dim() == 4 and outputs.shape[1] == count)
            if self.form == "heat"
            else tuple(outputs.shape[1:]) in ((count, 2), (2 * count,))
        )
        if not fits:
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else "several tensors"
            maps, pairs = f"(N, {count}, rows, columns)", f"(N, {count}, 2) or (N, {2 * count})"
            raise DataError(
                "the model's outputs don't fit the task",
                where=f"Keypoints(form={self.form!r})",
                got=str(shape),
                expected=maps if self.form == "heat" else pairs,
                next="the number of names, or form=, says otherwise",
            )

    def counted(self, targets: Tensor) -> Tensor:
        """All three numbers of points that are there."""
        return (targets[..., 2:] > 0).expand_as(targets)

    def counts(self, targets: Tensor) -> bool:
        """Whether any point is there."""
        return bool((targets[..., 2] > 0).any())

    def chance_loss(self, targets: Any) -> None:
        """A model has to be asked."""
        return

    def moved(self, targets: Tensor, moves: Moves) -> Tensor:
        """Where their pictures were moved; what left them no longer counts, and pairs change places."""
        sides = torch.tensor([self.size[1], self.size[0]], dtype=targets.dtype)
        places = targets[..., :2] * moves.scale[:, None] + (moves.offset * sides)[:, None]
        inside = ((places >= 0) & (places < sides)).all(2, keepdim=True)
        found = torch.cat([places, targets[..., 2:] * inside], 2)
        order = list(range(len(self.names)))
        for one, other in self.mirrored:
            at, to = self.names.index(one), self.names.index(other)
            order[at], order[to] = to, at
        turned = (moves.scale[:, 0] < 0)[:, None, None]
        return torch.where(turned, found[:, order], found)

    # --- learning ------------------------------------------------------------------------------------------

    def loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
    ) -> Tensor:
        """See the class; of points that count, the mean."""
        there = targets[..., 2] > 0
        count = there.sum().clamp(min=1)
        if self.form == "heat":
            rows, columns = outputs.shape[2:]
            x, y = (targets[..., at] * n / self.size[1 - at] - 0.5 for at, n in ((0, columns), (1, rows)))
            apart = (torch.arange(columns, device=outputs.device) - x[..., None]).square()[:, :, None]
            apart = apart + (torch.arange(rows, device=outputs.device) - y[..., None]).square()[..., None]
            wanted = torch.exp(-apart / (2 * self.spread**2))
            error = (outputs.float() - wanted).square().mean((2, 3))
        else:
            sides = torch.tensor([self.size[1], self.size[0]], device=outputs.device)
            told = outputs.float().reshape(len(outputs), -1, 2)
            error = F.smooth_l1_loss(told, targets[..., :2] / sides, reduction="none", beta=0.05).sum(2)
        return (error * there).sum() / count

    # --- what outputs say ----------------------------------------------------------------------------------

    def points(self, outputs: Tensor) -> Points:
        """Where the outputs say that the points are."""
        if self.form == "coordinates":
            sides = torch.tensor([self.size[1], self.size[0]], device=outputs.device)
            places = outputs.float().reshape(len(outputs), -1, 2) * sides
            return Points(places, torch.ones(places.shape[:2], device=outputs.device))
        rows, columns = outputs.shape[2:]
        maps = outputs.float()
        scores, best = maps.flatten(2).max(2)
        row, column = best // columns, best % columns
        across = _towards(maps.gather(2, row[..., None, None].expand(-1, -1, 1, columns))[:, :, 0], column)
        down = _towards(maps.gather(3, column[..., None, None].expand(-1, -1, rows, 1))[..., 0], row)
        x = (column + 0.5 + 0.25 * across) * self.size[1] / columns
        y = (row + 0.5 + 0.25 * down) * self.size[0] / rows
        return Points(torch.stack([x, y], 2), scores)

    def answers(self, outputs: Tensor) -> Tensor:
        """(N, K, 3): all of them are told."""
        places = self.points(outputs).places
        return torch.cat([places, torch.ones_like(places[..., :1])], 2)

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """PCK, see the class."""
        near = self._near(self.points(outputs).places, targets)
        return share_of(near[targets[..., 2] > 0])

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """PCK of each point that there is anywhere, and OKS."""
        places, there = self.points(outputs).places, targets[..., 2] > 0
        near = self._near(places, targets)
        told = {
            f"{name} (PCK)": share_of(near[:, at][there[:, at]])
            for at, name in enumerate(self.names)
            if bool(there[:, at].any())
        }
        if self.sigmas:
            wide = (2 * torch.tensor(self.sigmas, device=places.device)).square()
            sides = self._sides(targets)
            area = sides.maximum(_NARROWEST * sides.amax(1, keepdim=True)).prod(1)
            apart = (places - targets[..., :2]).square().sum(2)
            alike = torch.exp(-apart / (2 * area[:, None] * wide))
            rows = there.any(1)
            told["OKS"] = float(((alike * there).sum(1)[rows] / there.sum(1)[rows]).double().mean())
        return told

    def agreement(self, outputs: Tensor, reference: Tensor) -> float:
        """See the class."""
        return share_of(self._near(self.points(outputs).places, self.answers(reference)))

    def _near(self, places: Tensor, targets: Tensor) -> Tensor:
        """(N, K)."""
        longest = self._sides(targets).amax(1)
        return (places - targets[..., :2]).square().sum(2).sqrt() <= self.tolerance * longest[:, None]

    def _sides(self, targets: Tensor) -> Tensor:
        """(N, 2): of the box around the points that count; of the picture where they are in one place."""
        there = targets[..., 2:] > 0
        low = targets[..., :2].masked_fill(~there, float("inf")).amin(1)
        high = targets[..., :2].masked_fill(~there, float("-inf")).amax(1)
        sides = (high - low).clamp(min=0)
        whole = torch.tensor([self.size[1], self.size[0]], dtype=sides.dtype, device=sides.device)
        return torch.where(sides.amax(1, keepdim=True) > 0, sides, whole)

    def marks(self, outputs: Tensor, targets: Tensor) -> list[list[Mark]]:
        """Of each picture points that were found, those that are elsewhere, and where these should be."""
        places, near = self.points(outputs).places, self._near(self.points(outputs).places, targets)
        found = []
        for told, wanted, right in zip(places.tolist(), targets.tolist(), near.tolist(), strict=True):
            marks = []
            for name, at, (x, y, there), hit in zip(self.names, told, wanted, right, strict=True):
                if there > 0:
                    marks.append(self._mark(at, "found" if hit else "wrong", name))
                    marks += [] if hit else [self._mark((x, y), "missed", name)]
            found.append(marks)
        return found

    def _mark(self, at: Sequence[float], kind: Literal["found", "missed", "wrong"], name: str) -> Mark:
        x, y = at[0] / self.size[1], at[1] / self.size[0]
        return Mark((x - _MARK, y - _MARK, x + _MARK, y + _MARK), kind, name)

    @property
    def pointing(self) -> dict[str, Any]:
        """How a program without torch finds the points, in JSON."""
        return {name: getattr(self, name) for name in ("names", "size", "form", "fit", "border")}


def _towards(values: Tensor, at: Tensor) -> Tensor:
    """(N, K, n) and a place in each row: 1 or -1, where the higher neighbour is; 0 at the ends."""
    last = values.shape[2] - 1
    before = values.gather(2, (at - 1).clamp(min=0)[..., None])[..., 0]
    behind = values.gather(2, (at + 1).clamp(max=last)[..., None])[..., 0]
    return torch.sign(behind - before) * ((at > 0) & (at < last))


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError(
        "a keypoint task that makes no sense", where=f"Keypoints({field}=…)", got=got, expected=expected
    )
