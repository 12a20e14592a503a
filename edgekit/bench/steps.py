"""A file that streams: called step by step, some of its outputs being inputs of the next step.

Runs on the device beside ``worker.py``: standard library and NumPy, Python 3.8 or later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from edgekit.runtimes.device.runtimes import packed
else:
    from runtimes import packed

Answer = Callable[[Any, int], Any]  # samples of a step, batch size → outputs


class Steps:
    """``states``: by output, the input that it is in the next step; ``stacked``: whether all steps count."""

    def __init__(self, states: dict[str, str], stacked: bool) -> None:
        self.states, self.stacked = states, stacked

    def of(self, answer: Answer) -> Answer:
        """From what answers a step to what answers whole sequences: a structured array (N,)."""
        return lambda samples, size: self._run(answer, samples, size)

    def _run(self, answer: Answer, samples: Any, size: int) -> Any:
        fed = set(self.states.values())
        names = samples.dtype.names or ()
        streams = [name for name in names if name not in fed]
        if not streams or not fed <= set(names):
            have = ", ".join(names) or "no names"
            raise ValueError(f"the samples have {have}; expected streams and {', '.join(sorted(fed))}")
        states = {name: samples[name] for name in fed}
        told: list[Any] = []
        for step in range(samples[streams[0]].shape[1]):
            given = [(name, states[name] if name in fed else samples[name][:, step]) for name in names]
            rows = answer(packed(given), size)
            missing = sorted(set(self.states) - set(rows.dtype.names or ()))
            if missing:
                raise ValueError(f"the file has no output {', '.join(missing)}")
            states = {name: rows[output] for output, name in self.states.items()}
            if not self.stacked:
                told.clear()  # the last step's alone count
            told.append(rows)
        return self._joined(told)

    def _joined(self, told: Sequence[Any]) -> Any:
        """Without the states; one output alone is a plain array."""
        names = [name for name in told[0].dtype.names if name not in self.states]
        each = [
            (name, np.stack([rows[name] for rows in told], 1) if self.stacked else told[0][name])
            for name in names
        ]
        return np.ascontiguousarray(each[0][1]) if len(each) == 1 else packed(each)
