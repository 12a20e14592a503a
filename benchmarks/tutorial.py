"""The peers' training, as tutorials write it: float32, contiguous images, a DataLoader, one image at a time.

Nothing here is made slow on purpose, and nothing is made fast that a tutorial doesn't make fast:

- the data: a Dataset whose ``__getitem__`` pads, crops, flips, converts and normalises one image, as
  torchvision's transforms do, behind a DataLoader with two workers (PyTorch, "Training a classifier");
- distillation: the teacher answers every batch under ``no_grad``; Hinton's loss with T = 4 and 0.9 of it
  (PyTorch, "Knowledge distillation tutorial"; Hinton, Vinyals and Dean 2015, §2);
- pruning: torch-pruning's README: a pruner over the dependency graph, GroupNorm importance, one step;
- quantisation: NNCF's "Quantization-aware training with PyTorch": ``nncf.quantize``, Adam, ``nncf.strip``.

What a tutorial doesn't have is that the loop goes on after a kill: ``Loop`` keeps checkpoints, and counts
only the seconds of what was kept.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from edgekit.files import atomic_write
from edgekit.macs import count
from edgekit.progress import Event
from edgekit.workload import Workload

WORKERS = 2
TEMPERATURE, TEACHER_SHARE = 4.0, 0.9
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of inputs, outputs and labels


class Images(Dataset[tuple[Tensor, int]]):
    """(3, H, W) float32 and the label: one augmented image of a workload with NHWC bytes."""

    def __init__(self, workload: Workload) -> None:
        inputs, targets = workload.train.inputs, workload.train.targets
        if inputs.dim() != 4 or inputs.dtype != torch.uint8 or workload.preprocessing.layout != "NHWC":
            raise ValueError(f"expected bytes (N, H, W, C), got {inputs.dtype} {tuple(inputs.shape)}")
        self.images, self.labels = inputs.numpy(), targets.numpy()
        self.mean = torch.tensor(workload.preprocessing.mean).view(-1, 1, 1)
        self.std = torch.tensor(workload.preprocessing.std).view(-1, 1, 1)
        augmentation = workload.augmentation
        self.shift = augmentation.shift if augmentation else 0
        self.flip = bool(augmentation and augmentation.horizontal_flip)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        height, width = image.shape[:2]
        if self.shift:
            padded = np.pad(image, ((self.shift, self.shift), (self.shift, self.shift), (0, 0)))
            top, left = torch.randint(0, 2 * self.shift + 1, (2,)).tolist()
            image = padded[top : top + height, left : left + width]
        if self.flip and float(torch.rand(1)) < 0.5:
            image = image[:, ::-1]
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div(255)
        return (tensor - self.mean) / self.std, int(self.labels[index])


def kd_loss(teacher: nn.Module) -> Loss:
    """0.9 of the softened divergence to the teacher's answer, times T², and 0.1 of cross-entropy."""

    def loss(inputs: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            answers = teacher(inputs)
        soft = F.kl_div(
            F.log_softmax(outputs / TEMPERATURE, dim=1),
            F.softmax(answers / TEMPERATURE, dim=1),
            reduction="batchmean",
        )
        hard = F.cross_entropy(outputs, labels)
        return TEACHER_SHARE * TEMPERATURE**2 * soft + (1 - TEACHER_SHARE) * hard

    return loss


def plain_loss(inputs: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(outputs, labels)


@dataclass
class State:
    """Where a loop stands. ``seconds``: of the steps that are kept. ``curve``: an entry per checkpoint."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Loop:
    """``steps`` batches of training, with a cosine from ``lr`` to 0; Adam, or SGD with momentum 0.9."""

    model: nn.Module
    workload: Workload
    loss: Loss
    steps: int
    lr: float
    checkpoint: Path
    label: str
    progress: Callable[[Event], None]
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    batch_size: int = 128
    workers: int = WORKERS
    seed: int = 0
    every: int = 100  # steps between two checkpoints

    def run(self) -> State:
        """Train from the last checkpoint to the end; the model is left in eval mode."""
        optimizer = self.make_optimizer()
        state = self._resume(optimizer)
        began, loss_sum, right, seen = time.monotonic(), 0.0, 0, 0
        self.model.train()
        for inputs, labels in self.batches(state.step) if state.step < self.steps else ():
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * state.step / self.steps)) / 2
            optimizer.zero_grad()
            outputs = self.model(inputs)
            loss = self.loss(inputs, outputs, labels)
            loss.backward()
            optimizer.step()
            state.step += 1
            loss_sum += float(loss.detach()) * len(labels)
            right += int((outputs.argmax(1) == labels).sum())
            seen += len(labels)
            self._tell(state, time.monotonic() - began, seen, loss_sum / seen, right / seen)
            if state.step % self.every == 0 or state.step == self.steps:
                state.seconds += time.monotonic() - began
                state.curve.append(
                    {
                        "step": state.step,
                        "loss": loss_sum / seen,
                        "accuracy": right / seen,
                        "lr": self._lr(optimizer),
                    }
                )
                self._save(state, optimizer)
                began, loss_sum, right, seen = time.monotonic(), 0.0, 0, 0
            if state.step == self.steps:
                break
        self.model.eval()
        return state

    def make_optimizer(self) -> torch.optim.Optimizer:
        parameters = self.model.parameters()
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.lr)
        return torch.optim.SGD(parameters, self.lr, momentum=0.9, weight_decay=self.weight_decay)

    def batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """From step ``first`` on, epoch after epoch; each epoch in an order of its own."""
        dataset = Images(self.workload)
        per_epoch = len(dataset) // self.batch_size
        if not per_epoch:
            raise ValueError(f"{len(dataset)} images don't fill a batch of {self.batch_size}")
        epoch, skip = divmod(first, per_epoch)
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(dataset), generator=generator)[: per_epoch * self.batch_size]
            batches = order.view(per_epoch, self.batch_size)[skip:].tolist()
            yield from DataLoader(
                dataset, batch_sampler=batches, num_workers=self.workers, generator=generator
            )
            epoch, skip = epoch + 1, 0

    @staticmethod
    def _lr(optimizer: torch.optim.Optimizer) -> float:
        return float(optimizer.param_groups[0]["lr"])

    def _tell(self, state: State, seconds: float, seen: int, loss: float, accuracy: float) -> None:
        speed = seen / max(seconds, 1e-9)
        left = (self.steps - state.step) * self.batch_size / speed
        done, total = state.step * self.batch_size, self.steps * self.batch_size
        self.progress(Event("step", self.label, "", 1, 1, done, total, loss, accuracy, speed, left))

    def _resume(self, optimizer: torch.optim.Optimizer) -> State:
        if not self.checkpoint.exists():
            return State()
        kept = torch.load(self.checkpoint, weights_only=True)
        if kept["steps"] != self.steps:
            raise ValueError(f"{self.checkpoint} belongs to a training of {kept['steps']} steps")
        self.model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        return State(kept["step"], kept["seconds"], list(kept["curve"]))

    def _save(self, state: State, optimizer: torch.optim.Optimizer) -> None:
        content = {
            "steps": self.steps,
            "model": self.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            **vars(state),
        }
        atomic_write(self.checkpoint, lambda path: torch.save(content, path))


def images_per_second(loop: Loop, *, warm_up: int = 2, steps: int = 6) -> float:
    """Of a loop that isn't started yet, whole steps with their data. Its model is changed."""
    probe = Loop(**{**vars(loop), "steps": warm_up + steps})
    optimizer = probe.make_optimizer()
    probe.model.train()
    began = 0.0
    for step, (inputs, labels) in enumerate(probe.batches(0)):
        if step == warm_up:
            began = time.monotonic()
        if step == warm_up + steps:
            break
        optimizer.zero_grad()
        probe.loss(inputs, probe.model(inputs), labels).backward()
        optimizer.step()
    return steps * probe.batch_size / (time.monotonic() - began)


# --- pruning, as torch-pruning's README does it


def prune_to(
    build: Callable[[], nn.Module],
    example: Tensor,
    speedup: float,
    *,
    ignored: Callable[[nn.Module], Sequence[nn.Module]],
    scope: str = "local",
) -> tuple[nn.Module, float]:
    """A pruned model with at least ``speedup`` times fewer MACs, and the pruning ratio that gives it.

    One step of torch-pruning's GroupNormPruner with GroupNorm importance (Fang et al. 2023, "DepGraph",
    §3.3). It is asked for a share of channels, not of MACs: the smallest share that suffices is found by
    bisection, each try on a fresh model of ``build``. ``scope`` "global" ranks channels across layers, as
    their CIFAR benchmark does.

    Raises:
        ValueError: no share up to 95 % suffices, or the pruned model answers NaN or in another shape.
    """
    original = build()
    before = count(original, example).macs
    expected = _answer(original, example).shape

    def tried(ratio: float) -> tuple[nn.Module, float]:
        model = _pruned(build(), example, ratio, ignored, scope)
        return model, before / count(model, example).macs

    low, high = 0.0, 0.95
    best, reached = tried(high)
    if reached < speedup:
        raise ValueError(f"torch-pruning reaches {reached:.2f}x fewer MACs at most, not {speedup:g}x")
    for _ in range(10):
        middle = (low + high) / 2
        model, reached = tried(middle)
        if reached >= speedup:
            best, high = model, middle
        else:
            low = middle
    found = _answer(best, example)
    if found.shape != expected or not bool(torch.isfinite(found).all()):
        raise ValueError(
            f"the pruned model answers {tuple(found.shape)}, not {tuple(expected)} finite numbers"
        )
    return best, high


def _pruned(
    model: nn.Module,
    example: Tensor,
    ratio: float,
    ignored: Callable[[nn.Module], Sequence[nn.Module]],
    scope: str,
) -> nn.Module:
    import torch_pruning as tp

    pruner = tp.pruner.GroupNormPruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        iterative_steps=1,
        pruning_ratio=ratio,
        global_pruning=scope == "global",
        max_pruning_ratio=0.9 if scope == "global" else 1.0,  # else whole layers vanish
        ignored_layers=list(ignored(model)),
    )
    pruner.step()
    return model


def _answer(model: nn.Module, example: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model.eval()(example)
    return answer


def residual_stream(model: nn.Module) -> list[nn.Module]:
    """What torch-pruning must leave alone in a ResNet with option-A shortcuts (workloads/cifar10.py).

    It follows neither the slice nor the zero padding of such a shortcut: with the classifier alone ignored,
    as its README has it, the pruned network fails on its own shapes. So only the inner channels of the blocks
    are cut (conv1 of each; as Li et al. 2017, "Pruning filters for efficient ConvNets", §4.2).
    """
    named = dict(model.named_modules())
    return [
        module for name, module in named.items() if name in ("conv1", "linear") or name.endswith(".conv2")
    ]


# --- quantisation, as NNCF's documentation does it


def nncf_quantized(model: nn.Module, workload: Workload, *, samples: int = 300, **settings: Any) -> Any:
    """``nncf.quantize`` on the module with its defaults: 300 samples of training data calibrate."""
    import nncf

    rows = torch.randperm(len(workload.train), generator=torch.Generator().manual_seed(0))[:samples]
    inputs = workload.preprocessing(workload.train.inputs[rows]).contiguous()
    batches = list(inputs.split(min(50, len(inputs))))
    with quiet():
        return nncf.quantize(model.eval(), nncf.Dataset(batches), subset_size=len(batches), **settings)


def nncf_onnx(quantized: Any, example: Tensor, path: Path) -> Path:
    """Stripped and exported by the TorchScript exporter, the one that takes NNCF's hooked modules."""
    import nncf

    with quiet():
        stripped = nncf.strip(quantized, example_input=example)
        torch.onnx.export(
            stripped,
            (example,),
            path,
            dynamo=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )
    return path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The libraries without their notices and progress bars."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
