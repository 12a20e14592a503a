"""A workload so small that the whole pipeline takes seconds; also used as a workload file."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit import Classification, Preprocessing, Workload

RECIPE = """
name: tiny
stages:
  - {kind: distill}
  - {kind: prune, speedup: 1.3, channel_multiple: 4, training: {epochs: 3, batch_size: 32, lr: 0.02}}
  - {kind: qat, calibration_samples: 64, training: {epochs: 2, batch_size: 32, lr: 1.0e-4}}
exports: {formats: [onnx], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.02, min_runs: 5}
recommend: {max_accuracy_drop: 100}
diagnose: {samples: 16}
"""


class TinyNet(nn.Module):
    """(N, 1, 8, 8) to 4 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        return self.head(F.relu(self.second(x)).mean((2, 3)))


def workload() -> Workload:
    """Raw bytes, labelled by the network itself."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyNet().eval()
    preprocessing = Preprocessing(layout="NHWC", scale=1 / 128, mean=1.0)  # type: ignore[arg-type]
    raw = torch.randint(0, 256, (192, 8, 8, 1), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        outputs = model(preprocessing(raw))
    labels = (outputs - outputs.mean(0)).argmax(1)
    model.head.bias.data -= outputs.mean(0)
    return Workload(
        name="tiny",
        model=model,
        task=Classification(4),
        train=(raw[:128], labels[:128]),
        validation=(raw[128:], labels[128:]),
        preprocessing=preprocessing,
        classes=["north", "east", "south", "west"],
    )
