"""Points of one object: where heat maps say that they are, how they are judged, learnt, moved and bundled."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit import Augmentation, Keypoints, Preprocessing, Workload
from edgekit.bundle import c_keypoints
from edgekit.bundle import contents as parts
from edgekit.bundle.checking import check
from edgekit.bundle.targets.python.package.pointing import Finder, golden_faults, points_of
from edgekit.bundle.writing import bundle
from edgekit.errors import DataError, WorkloadError
from edgekit.pipeline import compress
from edgekit.report import Report
from edgekit.tasks.moves import Moves

NAMES, SIZE = ("nose", "left", "right"), (64, 96)
TASK = Keypoints(NAMES, SIZE, mirrored=[("left", "right")], sigmas=(0.03, 0.1, 0.1))  # type: ignore[arg-type]
NUMBERS = Keypoints(NAMES, SIZE, form="coordinates")


def targets(count: int = 5, seed: int = 0) -> Tensor:
    """The last point of the first sample isn't there."""
    random = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 3, 2, generator=random) * torch.tensor([90.0, 58.0]) + 3
    found = torch.cat([places, torch.ones(count, 3, 1)], 2)
    found[0, 2] = 0
    return found


def maps(wanted: Tensor, stride: int = 4, noise: float = 0.02) -> Tensor:
    """Gaussians around the points, on a grid of cells."""
    y, x = torch.meshgrid(
        (torch.arange(SIZE[0] // stride) + 0.5) * stride,
        (torch.arange(SIZE[1] // stride) + 0.5) * stride,
        indexing="ij",
    )
    apart = (x - wanted[..., 0, None, None]) ** 2 + (y - wanted[..., 1, None, None]) ** 2
    made = torch.exp(-apart / (2 * (2 * stride) ** 2))
    return made + noise * torch.rand(made.shape, generator=torch.Generator().manual_seed(1))


def test_a_heat_map_is_highest_where_its_point_is() -> None:
    wanted = targets()
    told = TASK.points(maps(wanted, noise=0.0))
    there = wanted[..., 2] > 0
    assert float((told.places - wanted[..., :2]).abs()[there].max()) <= 1.5  # of cells 4 wide
    one = torch.zeros(1, 3, 4, 6)
    one[0, 0, 1, 2], one[0, 0, 1, 3] = 1.0, 0.5  # the higher neighbour is to the right, none above or below
    one[0, 1, 0, 5] = 2.0  # in a corner
    found = TASK.points(one)
    assert found.places[0, 0].tolist() == [2.75 * 16, 1.5 * 16]
    assert found.places[0, 1].tolist() == [5.5 * 16, 0.5 * 16]
    assert found.scores[0].tolist() == [1.0, 2.0, 0.0]


def test_scores_as_by_hand() -> None:
    """One sample, 60 wide: a point counts as found to 6 pixels."""
    wanted = torch.tensor([[[10.0, 10, 1], [70, 40, 2], [30, 20, 0]]])
    told = (wanted[..., :2] + torch.tensor([[[5.0, 0], [0, 7], [50, 50]]])) / torch.tensor([96.0, 64.0])
    assert NUMBERS.score(told, wanted) == 0.5
    assert NUMBERS.score(told.flatten(1), wanted) == 0.5
    assert NUMBERS.scores(told, wanted) == {"nose (PCK)": 1.0, "left (PCK)": 0.0}
    similar = Keypoints(NAMES, SIZE, form="coordinates", sigmas=(0.03, 0.1, 0.2)).scores(told, wanted)["OKS"]
    area = 60 * 30
    by_hand = [math.exp(-(d**2) / (2 * area * (2 * s) ** 2)) for d, s in ((5, 0.03), (7, 0.1))]
    assert similar == pytest.approx(sum(by_hand) / 2)
    assert NUMBERS.agreement(told, told) == 1.0
    kinds = [(mark.kind, mark.text) for mark in NUMBERS.marks(told, wanted)[0]]
    assert kinds == [("found", "nose"), ("wrong", "left"), ("missed", "left")]


@pytest.mark.parametrize("turned", [False, True])
def test_points_in_a_line_are_of_an_object_with_an_area(turned: bool) -> None:
    """150 long and as wide as the quarter of it, each point a pixel off."""
    task = Keypoints(("top", "foot"), (200, 200), form="coordinates", sigmas=(0.026, 0.1))
    wanted = torch.tensor([[[50.0, 20, 1], [50, 170, 1]]])
    told = (wanted[..., :2] + 1) / 200
    if turned:
        wanted, told = wanted[..., [1, 0, 2]], told.flip(2)
    by_hand = [math.exp(-2 / (2 * 150 * 37.5 * (2 * sigma) ** 2)) for sigma in (0.026, 0.1)]
    assert task.scores(told, wanted)["OKS"] == pytest.approx(sum(by_hand) / 2)
    assert sum(by_hand) / 2 > 0.95


def test_a_mirrored_picture_has_left_where_right_was() -> None:
    wanted = targets()
    moves = Moves(torch.tensor([[-1.0, 1.0]]).repeat(5, 1), torch.tensor([[1.0, 0.25]]).repeat(5, 1))
    moved = TASK.moved(wanted, moves)
    assert moved[1, 1, 0] == pytest.approx(96 - float(wanted[1, 2, 0]))
    assert moved[1, 0, 1] == pytest.approx(float(wanted[1, 0, 1]) + 16)
    assert torch.equal(moved[..., 2] > 0, (wanted[:, [0, 2, 1], 2] > 0) & (moved[..., 1] < 64))


def test_the_loss_is_least_where_the_points_are() -> None:
    wanted = targets()
    y, x = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    right = torch.zeros(5, 3, 16, 24)
    for n in range(5):
        for k in range(3):
            dx, dy = x + 0.5 - wanted[n, k, 0] / 4, y + 0.5 - wanted[n, k, 1] / 4
            right[n, k] = torch.exp(-(dx**2 + dy**2) / 8)
    right[0, 2] = 7.0  # what isn't there costs nothing
    assert float(TASK.loss(right, wanted)) == pytest.approx(0, abs=1e-10)
    off = right.clone()
    off[1, 0] += 0.5
    assert float(TASK.loss(off, wanted)) == pytest.approx(0.25 / 14)
    places = wanted[..., :2] / torch.tensor([96.0, 64.0])
    assert float(NUMBERS.loss(places, wanted)) == 0
    assert float(NUMBERS.loss(places + 0.1, wanted)) == pytest.approx(2 * (0.1 - 0.025))


def test_what_does_not_fit_is_refused_by_name() -> None:
    for changes, told in (
        ({"names": ("a", "a")}, "each once"),
        ({"form": "heatmap"}, "heat"),
        ({"sigmas": (1.0,)}, "each of 3 points"),
        ({"mirrored": [("left", "rihgt")]}, "rihgt"),
        ({"tolerance": 0}, "tolerance"),
    ):
        with pytest.raises(WorkloadError, match=told):
            Keypoints(**{"names": NAMES, "size": SIZE, **changes})
    with pytest.raises(DataError, match=r"\(N, 3, 3\)"):
        TASK.check_targets(torch.zeros(2, 3, 2))
    with pytest.raises(DataError, match="no points that count"):
        TASK.check_targets(torch.zeros(2, 3, 3))
    with pytest.raises(DataError, match="NaN"):
        TASK.check_targets(torch.full((2, 3, 3), torch.nan))
    with pytest.raises(DataError, match="rows, columns"):
        TASK.check_outputs(torch.zeros(2, 4, 8, 8), None)
    with pytest.raises(DataError, match=r"\(N, 6\)"):
        NUMBERS.check_outputs(torch.zeros(2, 4), None)


def file_of(task: Keypoints, outputs: Tensor, *, last: bool) -> tuple[Any, dict[str, Any]]:
    """A file of a bundle, and its answers; ``last``: with the channels of maps last."""
    turned = outputs.movedim(1, -1) if last else outputs
    end = {"scale": None, "layout": "NHWC" if last else "any"}
    spec = {"keypoints": json.loads(json.dumps(task.pointing))}
    return SimpleNamespace(spec=spec, outputs={"y": {"output": end}}), {"y": turned.numpy()}


@pytest.mark.parametrize(("task", "last"), [(TASK, False), (TASK, True), (NUMBERS, False)])
def test_python_bundles_find_the_same_points(task: Keypoints, last: bool) -> None:
    outputs = maps(targets()) if task is TASK else torch.rand(5, 6)
    file, answers = file_of(task, outputs, last=last)
    wanted = task.points(outputs)
    found = points_of(answers, file)
    assert np.allclose(found[..., :2], wanted.places)
    assert np.allclose(found[..., 2], wanted.scores)
    file.spec["keypoints"]["golden"] = found.tolist()
    assert golden_faults(answers, file) == []
    file.spec["keypoints"]["golden"][3][1][0] += 2
    assert golden_faults(answers, file) == ["other points in sample 3"]


def test_points_of_a_picture_of_any_size_are_in_its_pixels() -> None:
    raw = {"shape": [*SIZE, 3], "layout": "NHWC", "dtype": "uint8", "white": 255}
    task = Keypoints(("spot",), SIZE, fit="letterbox")

    def run(inputs: Any) -> Any:
        return {"y": inputs["x"][:, ::4, ::4, :1].astype(np.float32).transpose(0, 3, 1, 2)}

    file = SimpleNamespace(
        spec={"keypoints": task.pointing},
        inputs={"x": {"raw": raw}},
        outputs={"y": {"output": {"scale": None, "layout": "any"}}},
        prepared=lambda samples: samples,
        run=run,
    )
    picture = np.zeros((200, 150, 3), np.uint8)
    picture[100:120, 40:60] = 255
    (point,) = Finder(file).find(picture)  # type: ignore[arg-type]
    assert point.name == "spot"
    assert (point.x, point.y) == pytest.approx((50, 110), abs=10)


MAIN = """
#include <stdio.h>
#include "net_keypoints.h"
int main(void) {
  static VALUE values[5 * SIZE];
  net_point points[NET_POINTS];
  FILE *file = fopen("values.bin", "rb");
  if (fread(values, sizeof(VALUE), 5 * SIZE, file) != 5 * SIZE) return 2;
  for (int i = 0; i < 5; ++i) {
    net_find_points(values + i * SIZE, points);
    for (int k = 0; k < NET_POINTS; ++k)
      printf("%.9g %.9g %.9g %s\\n", points[k].x, points[k].y, points[k].score, net_point_name(k));
  }
  return 0;
}
"""


@pytest.mark.parametrize("form", ["heat", "heat, channels last, int8", "coordinates"])
def test_the_c99_header_finds_the_same_points(form: str, tmp_path: Path) -> None:
    task = NUMBERS if form == "coordinates" else TASK
    outputs = maps(targets()) if task is TASK else torch.rand(5, 3, 2)
    grid: dict[str, Any] = {}
    kind, values = "float", outputs.numpy()
    if "int8" in form:
        values = np.clip(np.rint(values / 0.01) - 100, -128, 127).astype(np.int8)
        outputs = (torch.from_numpy(values).float() + 100) * 0.01
        values, kind = np.ascontiguousarray(np.moveaxis(values, 1, -1)), "int8_t"
        grid = {"scale": 0.01, "zero_point": -100, "layout": "NHWC"}
    end = parts.Tensor("y", (1, *values.shape[1:]), values.dtype.name, **grid)
    made: Any = SimpleNamespace(name="net */", keypoints=task.pointing, outputs=[SimpleNamespace(end=end)])
    (tmp_path / "net_keypoints.h").write_bytes(c_keypoints.header(made, "net", real=kind == "float"))
    main = MAIN.replace("VALUE", kind).replace("SIZE", str(values[0].size))
    (tmp_path / "main.c").write_text(main)
    (tmp_path / "values.bin").write_bytes(values.tobytes())
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"]
    subprocess.run(["cc", "-std=c99", *warnings, "main.c", "-o", "run"], cwd=tmp_path, check=True)
    lines = subprocess.run(["./run"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
    found = np.array(lines).reshape(5, 3, 4)
    wanted = task.points(outputs)
    assert found[0, :, 3].tolist() == list(NAMES)
    assert np.allclose(found[..., :2].astype(float), wanted.places, atol=1e-3)
    assert np.allclose(found[..., 2].astype(float), wanted.scores, atol=1e-5)


# --- the whole way -----------------------------------------------------------------------------------------

SIDE = 32
SPOTS = Keypoints(("bright", "dark"), (SIDE, SIDE), tolerance=0.15)
RECIPE = """
name: points
stages:
  - kind: prune
    speedup: 1.3
    training: {epochs: 1, batch_size: 32, lr: 1.0e-3}
  - kind: qat
    calibration_samples: 32
    training: {epochs: 1, batch_size: 32, lr: 1.0e-4}
exports: {formats: [onnx, litert], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.01, min_runs: 3}
recommend: {max_accuracy_drop: 100, objective: size}
diagnose: {samples: 8}
"""


class Spots(nn.Module):
    """(N, 1, 32, 32) to a map of 16 x 16 for each of two points."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in ((1, 16, 2), (16, 32, 1), (32, 32, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(32, 2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return found


def spots(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Grey pictures with a bright and a dark spot."""
    random = np.random.default_rng(seed)
    pictures = random.uniform(0.4, 0.6, (count, 1, SIDE, SIDE)).astype(np.float32)
    places = random.integers(3, SIDE - 3, (count, 2, 2))
    for picture, (bright, dark) in zip(pictures, places, strict=True):
        picture[0, dark[1] - 1 : dark[1] + 2, dark[0] - 1 : dark[0] + 2] = 0
        picture[0, bright[1] - 1 : bright[1] + 2, bright[0] - 1 : bright[0] + 2] = 1
    wanted = np.concatenate([places + 0.5, np.ones((count, 2, 1))], 2).astype(np.float32)
    return torch.from_numpy(pictures), torch.from_numpy(wanted)


def workload() -> Workload:
    torch.manual_seed(0)
    model, (inputs, wanted) = Spots(), spots(256, 1)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(150):
        rows = torch.randint(0, len(inputs), (32,))
        loss = SPOTS.loss(model(inputs[rows]), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moves = Augmentation(horizontal_flip=True, shift=2)
    data = {"train": (inputs, wanted), "validation": spots(64, 2)}
    return Workload(
        "spots", model.eval(), SPOTS, **data, preprocessing=Preprocessing("NCHW"), augmentation=moves
    )


@pytest.mark.wide
def test_points_go_the_whole_way(tmp_path: Path, root: Path) -> None:
    code = f"import sys\nsys.path.insert(0, {str(root)!r})\nfrom tests.test_keypoints import workload\n"
    (tmp_path / "points.py").write_text(code)
    (tmp_path / "own.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.pipeline.preflight.rehearse", lambda job: None)
        compress(tmp_path / "points.py", tmp_path / "own.yaml", out=tmp_path / "run")
    report = Report.load(tmp_path / "run")
    assert report.baseline.accuracy > 0.8
    int8 = [one for one in report.artifacts if one.precision == "int8"]
    assert len(int8) == 2
    for one in int8:
        assert one.accuracy > 0.7
        assert set(one.scores) == {"bright (PCK)", "dark (PCK)"}
        assert one.int8_coverage == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('alt="sample') == 12
    for target in ("python", "cpp"):
        out, file = tmp_path / target, "spots_int8.tflite"
        made = bundle(tmp_path / "run", target, tmp_path / "points.py", out=out, artifact=file)
        assert check(made).tried.passed is True
