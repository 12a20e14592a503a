"""Which of several inputs are corrupted: what a camera or a typist gives, and nothing beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit import Classification, Preprocessing
from edgekit.diagnosis.adversarial import fgsm_signs
from edgekit.diagnosis.corruptions import corrupt
from edgekit.diagnosis.spoiling import Spoilable, mask_of, unmasked
from edgekit.tensors import NamedTensors
from edgekit.workload.preprocessing import NamedPreprocessing

RANDOM = torch.Generator().manual_seed(0)
LENGTHS = torch.tensor([3, 8, 5, 6])
MASK = (torch.arange(8) < LENGTHS[:, None]).long()
IDS = torch.randint(5, 50, (4, 8), generator=RANDOM) * MASK
INPUTS = NamedTensors(
    {
        "input_ids": IDS,
        "attention_mask": MASK,
        "token_type_ids": torch.zeros(4, 8, dtype=torch.int64),
        "position_ids": torch.arange(8).expand(4, 8).contiguous(),
        "picture": torch.randint(0, 256, (4, 6, 6, 3), generator=RANDOM, dtype=torch.uint8),
        "features": torch.randn(4, 20, 5, generator=RANDOM),
        "numbers": torch.randn(4, 3, generator=RANDOM),
        "visible": torch.ones(4, 20, 1),
        "drawing": torch.randint(0, 2, (4, 6, 6, 1), generator=RANDOM, dtype=torch.uint8),
        "h_in": torch.zeros(4, 7),
    }
)
PICTURES = {name: Preprocessing(layout="NHWC") for name in ("picture", "drawing")}
PREPROCESSING = NamedPreprocessing.of(PICTURES, INPUTS)


def spoilable(parts: list[NamedTensors], states: dict[str, str] | None = None) -> Spoilable:
    return Spoilable.of(parts, NamedPreprocessing.of(PICTURES, parts[0], states))


class TestWhich:
    @pytest.mark.parametrize("size", [4, 1])
    def test_each_gets_what_fits_its_kind(self, size: int) -> None:
        found = spoilable(list(INPUTS.split(size)), {"h_out": "h_in"})
        assert found.corrupted.keys() == {"input_ids", "picture", "features", "drawing"}
        assert found.corrupted["input_ids"] == ("typos",)
        assert "blur" in found.corrupted["picture"]
        assert "clipping" in found.corrupted["features"]
        assert found.left == {
            "attention_mask": "0 and 1 alone, a mask",
            "token_type_ids": "0 and 1 alone, a mask",
            "position_ids": "positions",
            "visible": "0 and 1 alone, a mask",
            "h_in": "a state",
        }
        assert found.unknown == ("numbers",)
        assert found.moved == ("picture", "features", "numbers", "drawing")

    def test_a_mask_is_one_in_all_parts(self) -> None:
        later = INPUTS.replaced("attention_mask", MASK * 7)
        assert "attention_mask" in spoilable([INPUTS, later]).corrupted

    def test_an_only_input_is_never_left(self) -> None:
        found = Spoilable.of([MASK], Preprocessing(dtype="int64"))
        assert found.corrupted == {"": ("typos",)}
        assert found.left == {}


class TestBehindTheMask:
    def test_the_mask_is_that_of_the_same_shape(self) -> None:
        left = spoilable([INPUTS]).left
        found = mask_of(INPUTS, "input_ids", left)
        assert found is not None
        assert torch.equal(found, MASK.bool())
        assert mask_of(INPUTS, "features", left) is None

    def test_what_is_behind_it_stays_and_nothing_moves_there(self) -> None:
        changes = 0
        for seed in range(200):
            corrupted = torch.from_numpy(corrupt(IDS.numpy(), "any", "typos", 5, seed=seed))
            found = unmasked(IDS, corrupted, MASK.bool())
            assert torch.equal(found * (1 - MASK), IDS * (1 - MASK))
            assert bool((found[MASK.bool()] > 0).all())  # 0 is the padding
            changes += int((found != IDS).sum())
        assert changes > 100


class Sum(nn.Module):
    """A class by the sum of two inputs."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        total = first.sum(1) - 2 * second.sum(1)
        return torch.stack([total, -total], 1)


def test_the_gradient_is_that_of_one_input() -> None:
    inputs = NamedTensors({"first": torch.randn(6, 3), "second": torch.randn(6, 2)})
    labels = torch.zeros(6, dtype=torch.int64)
    task = Classification(2)
    assert torch.equal(fgsm_signs(Sum(), task, inputs, labels, "first"), -torch.ones(6, 3))
    assert torch.equal(fgsm_signs(Sum(), task, inputs, labels, "second"), torch.ones(6, 2))
    assert not inputs["first"].requires_grad
    assert np.isfinite(inputs["second"].numpy()).all()
