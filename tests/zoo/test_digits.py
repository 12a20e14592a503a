from __future__ import annotations

import torch

from edgekit.training import evaluate
from edgekit.weights import read_weights
from edgekit.zoo import digits


def test_the_shipped_weights_read_the_held_out_digits() -> None:
    demo = digits.workload()
    demo.check()
    assert evaluate(demo.model, demo).score >= 0.98
    assert len(demo.train) == 1201
    assert len(demo.validation) == 596
    assert demo.example().shape == (1, 1, 32, 32)


def test_the_split_is_fixed_stratified_and_disjoint() -> None:
    train, validation = digits.split()
    again, _ = digits.split()
    assert torch.equal(train.inputs, again.inputs)
    for labels, share in ((train.targets, 1201), (validation.targets, 596)):
        counts = torch.bincount(labels, minlength=10)
        assert int(counts.min()) > 0.09 * share
    seen = {image.numpy().tobytes() for image in train.inputs}
    assert not any(image.numpy().tobytes() in seen for image in validation.inputs)


def test_the_file_holds_the_network_and_nothing_else() -> None:
    weights = read_weights(digits.WEIGHTS)
    wanted = digits.DigitsNet().state_dict()
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in wanted.items()}


def test_channels_are_free_and_suit_wide_kernels() -> None:
    assert digits.DigitsNet((8, 16, 24, 40))(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
    assert all(p.shape[0] % 8 == 0 for n, p in digits.DigitsNet().named_parameters() if p.dim() == 4)
