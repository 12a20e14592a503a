from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.drawing import shuffled


@given(count=st.integers(0, 50), seed=st.integers(0, 2**63 - 1))
def test_all_positions_in_an_order_of_the_seed_alone(count: int, seed: int) -> None:
    before = torch.get_rng_state()
    order = shuffled(count, seed)
    torch.rand(3)  # whatever else is drawn
    assert torch.equal(shuffled(count, seed), order)
    assert order.sort().values.tolist() == list(range(count))
    torch.set_rng_state(before)


def test_seeds_that_runs_rest_on_give_what_they_gave() -> None:
    assert shuffled(8, 0).tolist() == [4, 0, 7, 3, 2, 5, 1, 6]
