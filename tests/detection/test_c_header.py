"""Decoding and suppression in C99: the same boxes as the task's, in every layout, from real numbers and from
bytes.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgekit import Detection
from edgekit.bundle import c_detection
from edgekit.bundle.contents import Tensor
from edgekit.tensors import NamedTensors, each
from tests.detection import made, test_more_heads, test_priors
from tests.detection.test_detection import CLASSES, layouts

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

MAIN = """
#include <stdio.h>
#include "own_detection.h"
{arrays}
static own_work work;
static own_box boxes[own_MOST_];
int main(void) {{
  own_detection_outputs outputs;
  FILE *file = fopen("values.bin", "rb");
  int count, at;
{reads}
  fclose(file);
  count = own_detect(&outputs, {confidence}f, &work, boxes);
  for (at = 0; at < count; ++at)
    printf("%.9g %.9g %.9g %.9g %d %.9g\\n", boxes[at].left, boxes[at].top, boxes[at].right, boxes[at].bottom,
           (int)boxes[at].label, boxes[at].score);
  return own_class_name(0)[0] == 'c' ? 0 : 1;
}}
"""


def heads() -> dict[str, tuple[Any, Any]]:
    """By name a head, and outputs of one picture."""
    generator = torch.Generator().manual_seed(0)
    flat = 0.3 * made.perfect(made.head(), made.objects(2, 3, 2)[1:], 3)
    flat = flat + torch.randn(flat.shape, generator=generator)
    found = {name: (head, give(flat)) for name, (head, give) in layouts().items()}
    found["distances"] = (made.head(reg_max=0), 2 + torch.randn(1, 7, 120, generator=generator))
    priors = test_priors.noise(4, count=1)
    found["priors"] = (test_priors.head(), priors)
    found["priors, clipped"] = (test_priors.head(clip=True), priors)
    found["priors, maps"] = (test_priors.head(**test_priors.APART), test_priors.maps_of(priors))
    scores = test_priors.noise(3, count=1)
    found["priors, sigmoids"] = (test_priors.head(background=False), scores)
    found |= {name: (head, outputs[1:2]) for name, (head, outputs) in test_more_heads.heads().items()}
    for kind in ("decoded", "nms"):  # of a file that does it by itself
        ending = Detection(CLASSES, priors_head := test_priors.head(), overlap=0.5, most=60).ending(kind)
        assert ending is not None
        found[f"priors, {kind}"] = (priors_head, ending.of(priors))
    return found


def answered(folder: Path, task: Detection, outputs: Any, *, last: bool, steps: bool) -> tuple[Any, Any]:
    """Rows (n, 6) from the header, and what the task says of the same outputs."""
    ends, arrays, read = [], [], []
    values, real = bytearray(), {}
    for name, one in each(outputs, "output"):
        turned = last and one.dim() == 4
        stored = (one.movedim(1, -1) if turned else one).contiguous().numpy()
        grid: tuple[float | None, int | None] = (None, None)
        if steps:
            grid = (float(np.abs(stored).max()) / 127, 3)
            stored = np.clip(np.rint(stored / grid[0]) + 3, -128, 127).astype(np.int8)
            back = torch.from_numpy((stored.astype(np.float32) - 3) * np.float32(grid[0]))
            real[name] = back.movedim(-1, 1) if turned else back
        else:
            real[name] = one
        layout = "NHWC" if turned else "NCHW" if one.dim() == 4 else "any"
        ends.append(SimpleNamespace(end=Tensor(name, stored.shape, stored.dtype.name, *grid, layout)))  # type: ignore[arg-type]
        kind = "int8_t" if steps else "float"
        arrays.append(f"static {kind} array_{name}[{stored.size}];")
        read.append(f"  if (fread(array_{name}, sizeof(array_{name}), 1, file) != 1) return 2;")
        read.append(f"  outputs.{name} = array_{name};")
        values += stored.tobytes()
    spec = task.decoding_of(outputs)
    contents: Any = SimpleNamespace(detection=spec, outputs=ends, output_ids=[one.end.name for one in ends])
    (folder / "own_detection.h").write_bytes(c_detection.header(contents, "own", real=not steps))
    code = MAIN.format(arrays="\n".join(arrays), reads="\n".join(read), confidence=task.confidence)
    (folder / "main.c").write_text(code.replace("own_MOST_", "OWN_MOST"))
    (folder / "values.bin").write_bytes(values)
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-Wno-unused-parameter"]
    for compiler in (["cc", "-std=c99", "-Wconversion"], ["g++", "-std=c++17", "-x", "c++"]):
        if shutil.which(compiler[0]):
            command = [*compiler, *strict, "main.c", "-lm", "-o", "own"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    done = subprocess.run(["./own"], cwd=folder, check=True, capture_output=True, text=True)
    rows = [[float(value) for value in line.split()] for line in done.stdout.splitlines()]
    given = NamedTensors(real) if isinstance(outputs, NamedTensors) else real["output"]
    return np.array(rows).reshape(-1, 6), task.detections(given)[0]


QUICK = {("apart", True), ("priors, maps", False), ("anchors", True)}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        pytest.param(name, steps, marks=() if (name, steps) in QUICK else pytest.mark.wide)
        for name in heads()
        for steps in (False, True)
    ],
)
def test_it_says_what_the_task_says(name: str, steps: bool, tmp_path: Path) -> None:
    head, outputs = heads()[name]
    task = Detection(CLASSES, head, confidence=0.04, overlap=0.5, candidates=150)
    rows, told = answered(tmp_path, task, outputs, last=steps, steps=steps)
    assert len(told["labels"]) > (5 if name.startswith(("sets", "centres")) else 15)
    assert rows[:, 4].astype(int).tolist() == told["labels"].tolist()
    assert np.allclose(rows[:, :4], told["boxes"], atol=2e-3)
    assert np.allclose(rows[:, 5], told["scores"], atol=1e-5)
