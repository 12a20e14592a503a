"""Spoken digits with a CRNN: two convolutions, an LSTM or a GRU over time, a linear layer.

Data and features are those of ``spoken_digits.py``: (N, 1, 49, 10), one second of speech.

    EDGEKIT_DATA=… python benchmarks/workloads/spoken_crnn.py     trains the network, a few minutes
    edgekit compress benchmarks/workloads/spoken_crnn.py --recipe quick
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import own_weights  # beside this file
import spoken_digits
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.config.settings import DistillationConfig, TrainingConfig
from edgekit.workload import Workload

TRAINING = TrainingConfig(
    epochs=12,
    batch_size=128,
    lr=0.05,
    weight_decay=1e-4,
    warmup_epochs=1.0,
    label_smoothing=0.05,
    distillation=DistillationConfig(loss="none"),
)
CHANNELS, HIDDEN = 32, 128


class Crnn(nn.Module):
    """(N, 1, 49, 10) to (N, 10): convolutions halve time and coefficients, ``kind`` goes over 25 steps."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU] = nn.LSTM, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, CHANNELS, (9, 3), stride=2, padding=(4, 1), bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(CHANNELS)
        self.dropout = nn.Dropout(0.2)
        self.memory = kind(CHANNELS * 5, HIDDEN, batch_first=True)
        self.linear = nn.Linear(HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.dropout(F.relu(self.bn2(self.conv2(x))))
        steps, _ = self.memory(x.permute(0, 2, 1, 3).flatten(2))
        logits: Tensor = self.linear(steps[:, -1])
        return logits


def workload() -> Workload:
    """The trained network. Raises WorkloadError if data or weights aren't there."""
    return own_weights.load(untrained(), TRAINING, "spoken_crnn.py")


def untrained(kind: type[nn.LSTM | nn.GRU] = nn.LSTM) -> Workload:
    """The same with random weights, always the same ones; ``kind``: of the recurrent layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(own_weights.SEED)
        model = Crnn(kind).eval()
    return replace(spoken_digits.untrained(), name=f"spoken-digits-crnn-{kind.__name__.lower()}", model=model)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from work import Teller

    from edgekit.training import evaluate

    ready = own_weights.trained(untrained(), TRAINING, Teller("crnn"))
    print(f"{evaluate(ready.model, ready).score:.2%} of {len(ready.validation):,} test clips")
