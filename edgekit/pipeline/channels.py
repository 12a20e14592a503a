"""Channels of the answers that int8 lost, which no average over all of them shows.

A file is compared with the last float model in front of it: what a channel lost is what users get, whoever
lost it. Beside it stands the int8 graph's own loss, which tells whether rounding did it or the file.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from edgekit.noise import Noise

__all__ = ["lost_channels"]

_WEAK_DB = 10.0  # of a channel, where the middle one is as much better
_WORSE_DB = 6.0  # than in the int8 graph: of a thousand channels on few samples some are 3 dB off by chance
_GOOD_DB = 20.0  # above it nobody minds
_TOLD = 5


def lost_channels(plain: Tensor, graph: Tensor, file: Tensor) -> dict[str, Any]:
    """Channels (dimension 1) of a file's answers that are far from the float model, as JSON.

    Args:
        plain: answers (N, C, …) of the float model.
        graph: of the int8 graph that was made from it.
        file: of the file that was made from that.

    Returns:
        {} if there are none, else ``count`` of them, ``channels`` of the answers, ``snr_db`` over all, and of
        the five worst in ``worst``: ``channel``, ``snr_db``, ``graph_snr_db``. A channel is meant that is
        below 10 dB, and 10 dB below the middle one; or that has lost 6 dB more than in the graph, below 20.
        Channels without any signal are passed over.
    """
    if plain.dim() < 2 or not len(plain):
        return {}
    noises = Noise(), Noise()
    for noise, answers in zip(noises, (graph, file), strict=True):
        noise.add(plain, answers)
    assert noises[0].channels is not None
    signal = noises[0].channels[0]
    both = zip(*(one.by_channel() for one in noises), strict=True)
    each = [(channel, *ratios) for channel, ratios in enumerate(both) if signal[channel] > 0]
    middle = sorted(own for _, _, own in each)[len(each) // 2] if each else 0.0
    found = [
        {"channel": channel, "snr_db": own, "graph_snr_db": before}
        for channel, before, own in each
        if own < min(_WEAK_DB, middle - _WEAK_DB) or own < min(_GOOD_DB, before - _WORSE_DB)
    ]
    if not found:
        return {}
    worst = sorted(found, key=lambda one: one["snr_db"])[:_TOLD]
    return {"count": len(found), "channels": plain.shape[1], "snr_db": noises[1].db, "worst": worst}
