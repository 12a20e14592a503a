"""Channels of the answers that int8 lost: found where no average shows them."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.pipeline.channels import lost_channels


def answers(seed: int = 0) -> Tensor:
    return torch.randn(64, 8, generator=torch.Generator().manual_seed(seed))


def noisy(source: Tensor, amount: float, channel: int | None = None, seed: int = 1) -> Tensor:
    noise = amount * torch.randn(source.shape, generator=torch.Generator().manual_seed(seed))
    if channel is not None:
        noise = torch.where((torch.arange(source.shape[1]) == channel).reshape(1, -1), noise, 0)
    return source + noise


def test_nothing_is_lost_where_all_channels_are_about_as_good() -> None:
    plain = answers()
    graph = noisy(plain, 0.03)
    assert lost_channels(plain, graph, noisy(graph, 0.01, seed=2)) == {}
    bad = noisy(plain, 0.8)  # as a whole: nothing that an average hides
    assert lost_channels(plain, bad, bad) == {}


def test_a_channel_that_the_graph_lost_is_named() -> None:
    plain = answers()
    graph = noisy(noisy(plain, 0.02), 0.7, channel=5, seed=3)
    found = lost_channels(plain, graph, graph)
    assert (found["count"], found["channels"]) == (1, 8)
    (worst,) = found["worst"]
    assert worst["channel"] == 5
    assert worst["snr_db"] == worst["graph_snr_db"] < 10 < found["snr_db"]


def test_a_channel_that_the_file_lost_is_named() -> None:
    plain = answers()
    graph = noisy(plain, 0.05)
    file = noisy(graph, 0.15, channel=2, seed=3)
    (worst,) = lost_channels(plain, graph, file)["worst"]
    assert worst["channel"] == 2
    assert worst["graph_snr_db"] - worst["snr_db"] > 6


def test_pictures_have_their_channels_second_and_silent_ones_are_passed_over() -> None:
    plain = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    plain[:, 1] = 0
    graph = plain.clone()
    graph[:, 1] += 0.01
    graph[:, 2] += 0.8
    found = lost_channels(plain, graph, graph)
    assert [one["channel"] for one in found["worst"]] == [2]


def test_answers_without_channels_have_none_to_lose() -> None:
    assert lost_channels(torch.ones(4), torch.zeros(4), torch.zeros(4)) == {}
