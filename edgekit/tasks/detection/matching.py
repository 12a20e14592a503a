"""The cheapest pairs of answers and objects."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["matched"]


def matched(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns (k,) int64 of the pairs whose costs add up to least, each row and column once; k is
    the smaller of both sides.

    The Hungarian method (Kuhn 1955) along shortest paths with prices, column by column: O(columns² rows).

    Args:
        cost: (R, C), finite.
    """
    turned = cost.shape[0] > cost.shape[1]
    table = (cost.T if turned else cost).double().tolist()
    few, many = len(table), len(table[0]) if table else 0
    prices, fees = [0.0] * (few + 1), [0.0] * (many + 1)
    owner, before = [few] * (many + 1), [many] * (many + 1)  # the last place stands for none
    for row in range(few):
        owner[many], at = row, many
        least, seen = [float("inf")] * many, [False] * (many + 1)
        while owner[at] != few:
            seen[at] = True
            here, step, following = owner[at], float("inf"), many
            for column in range(many):
                if seen[column]:
                    continue
                left = table[here][column] - prices[here] - fees[column]
                if left < least[column]:
                    least[column], before[column] = left, at
                if least[column] < step:
                    step, following = least[column], column
            for column in range(many + 1):
                if seen[column]:
                    prices[owner[column]] += step
                    fees[column] -= step
                elif column < many:
                    least[column] -= step
            at = following
        while at != many:
            owner[at] = owner[before[at]]
            at = before[at]
    pairs = sorted((owner[column], column) for column in range(many) if owner[column] < few)
    found = torch.tensor(pairs, dtype=torch.int64, device=cost.device).reshape(-1, 2)
    return (found[:, 1], found[:, 0]) if turned else (found[:, 0], found[:, 1])
