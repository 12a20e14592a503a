"""Blood cells: a small detector in the manner of YOLOs (cell_net.py) on BCCD, trained here from nothing.

Data: the Blood Cell Count and Detection dataset (MIT licence), 364 pictures of 640 x 480 pixels with
platelets, red and white cells. EDGEKIT_DATA names a folder with bccd/{train,val,test}.json (COCO's format)
and bccd/images. Pictures are stretched to 320 x 320. Among the weights that a training keeps those count that
are best on val; test enters nothing but published figures.

    EDGEKIT_DATA=… python benchmarks/workloads/bccd.py          trains the network, about an hour on one core
    EDGEKIT_DATA=… edgekit compress benchmarks/workloads/bccd.py --recipe quick
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import cell_training  # beside this file
import torch
from cell_net import STRIDES, CellNet
from safetensors.torch import load, save
from torch import Tensor

from edgekit import (
    AnchorFree,
    Augmentation,
    Detection,
    Pictures,
    Preprocessing,
    Workload,
    load_weights,
    read_coco,
)
from edgekit.errors import WorkloadError
from edgekit.files import atomic_write
from edgekit.tensors import NamedTensors, cat

CLASSES = ("Platelets", "RBC", "WBC")
SIZE, REG_MAX = (320, 320), 8
HEAD = AnchorFree(
    SIZE,
    STRIDES,
    REG_MAX,
    boxes=tuple(f"boxes_{stride}" for stride in STRIDES),
    scores=tuple(f"scores_{stride}" for stride in STRIDES),
)
TASK = Detection(CLASSES, HEAD, fit="stretch")
PLAN = cell_training.Plan()


def workload() -> Workload:
    """The trained network, judged by test. Raises WorkloadError if data or weights aren't there."""
    path = weights_path()
    if not path.exists():
        raise WorkloadError(
            "the network isn't trained yet",
            where=str(path),
            got="no such file",
            next="EDGEKIT_DATA=… python benchmarks/workloads/bccd.py",
        )
    made = untrained()
    load_weights(made.model, path)
    return made


def untrained() -> Workload:
    """The same with random weights, always the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(PLAN.seed)
        model = CellNet(len(CLASSES), REG_MAX).eval()
    return Workload(
        "bccd",
        model,
        TASK,
        train=pictures("train"),
        validation=pictures("test"),
        preprocessing=Preprocessing(layout="NHWC", scale=1 / 255),
        augmentation=Augmentation(horizontal_flip=True, shift=16, zoom=0.3),
    )


def pictures(split: str) -> Pictures:
    """Of train, val or test. Raises WorkloadError if they aren't there."""
    value = os.environ.get("EDGEKIT_DATA", "")
    path = Path(value).expanduser() / "bccd" / f"{split}.json"
    if not value or not path.is_file():
        raise WorkloadError(
            "the blood cells are not there",
            where="environment variable EDGEKIT_DATA",
            got=value or "not set",
            expected="a folder that holds bccd/train.json, val.json, test.json and images",
        )
    return read_coco(path, SIZE, classes=CLASSES, fit="stretch")


def weights_path() -> Path:
    """Below $XDG_CACHE_HOME or ~/.cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "edgekit" / "benchmarks" / "bccd.safetensors"


def answers(model: CellNet, inputs: Tensor) -> NamedTensors:
    """Of pictures (N, H, W, 3) in bytes."""
    told = []
    with torch.inference_mode():
        for part in inputs.split(16):
            told.append(NamedTensors(model(part.permute(0, 3, 1, 2).float() / 255)))
    return cat(told)


def main() -> None:
    """Train, and keep what is best on val."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    made, path = untrained(), weights_path()
    assert isinstance(made.model, CellNet)
    path.parent.mkdir(parents=True, exist_ok=True)
    shown, wanted = pictures("val").arrays()
    judging = CellNet(len(CLASSES), REG_MAX).eval()
    best = path.with_suffix(".best")

    def kept(epoch: int, weights: Mapping[str, Tensor]) -> None:
        judging.load_state_dict(dict(weights))
        score = TASK.score(answers(judging, torch.from_numpy(shown)), wanted)
        before = float(best.read_text()) if best.exists() else 0.0
        print(f"epoch {epoch}: {TASK.metric} on val {score:.4f}", flush=True)
        if score > before:
            atomic_write(path, save({name: value.contiguous() for name, value in weights.items()}))
            atomic_write(best, str(score).encode())

    samples = made.train
    assert isinstance(samples.inputs, Tensor)
    checkpoint = path.with_suffix(".checkpoint.pt")
    cell_training.train(made.model, TASK, samples.inputs, samples.targets, PLAN, checkpoint, kept)
    judging.load_state_dict(load(path.read_bytes()))
    told = answers(judging, made.validation.inputs)
    print(f"test: {TASK.metric} {TASK.score(told, made.validation.targets):.4f}")
    print({name: round(score, 4) for name, score in TASK.scores(told, made.validation.targets).items()})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
