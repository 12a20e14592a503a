"""A workload that streams: frames of sound and the state of a recurrent cell in, scores and the state out."""

from __future__ import annotations

from edgekit import TokenClassification, Workload
from tests.named import nets

STATES = {"h_out": "h_in"}
WORDS = ("yes", "no", "stop", "go")


def workload() -> Workload:
    """Without labels: the model's own answers to each step are the truth."""
    train, validation = (({"frame": nets.frames(40, seed)}, None) for seed in (1, 2))
    model = nets.spotter()
    return Workload("spotter", model, TokenClassification(4), train, validation, classes=WORDS, states=STATES)
