"""One step against the gradient: in batches that fit into memory, and within the values that occur."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgekit import batching
from edgekit.diagnosis.adversarial import Channels, NoGradient, fgsm_signs, moved
from edgekit.tasks import Classification
from edgekit.workload.preprocessing import Preprocessing
from tests.networks import Residual, images, seeded


def test_signs_are_the_same_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = seeded(Residual), images(40), torch.arange(40) % 5
    largest: list[int] = []

    def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        largest[-1] = max(largest[-1], len(given[0]))

    model.register_forward_pre_hook(see)
    found = []
    for budget in (1 << 30, 200_000):
        monkeypatch.setattr(batching, "BUDGET", budget)
        largest.append(0)
        found.append(fgsm_signs(model, Classification(5), x, y))
    assert largest[0] == 40
    assert largest[1] < 20
    # A gradient of nearly nothing may have another sign.
    assert float((found[0] != found[1]).double().mean()) < 1e-3


def test_parts_are_kept_within_what_occurs_in_all_of_them() -> None:
    inputs, plain = images(12), Preprocessing(layout="NCHW", scale=1 / 255, mean=(0.5,) * 3, std=(0.2,) * 3)
    signs = torch.ones_like(inputs)
    whole = moved(inputs, signs, 0.1, 255, plain)
    occurring = Channels.of(inputs.split(5), "NCHW")
    parts = [moved(part, torch.ones_like(part), 0.1, 255, plain, occurring) for part in inputs.split(5)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert float((moved(inputs[:2], signs[:2], 0.1, 255, plain) - whole[:2]).abs().max()) > 0


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x - x.mean((2, 3), keepdim=True)


def in_inference_mode(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x * 2


def in_whole_steps(x: Tensor) -> Tensor:
    return torch.frexp(x).exponent.float()  # integers have no gradient


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (without_gradients, "no_grad"),
        (Tensor.detach, "detach"),
        (in_whole_steps, "detach"),
        (in_inference_mode, "[Ii]nference"),
    ],
)
def test_a_model_whose_loss_tells_nothing_about_its_inputs(
    start: Callable[[Tensor], Tensor], why: str
) -> None:
    class Deaf(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(start(x))

    with pytest.raises(NoGradient, match=why):
        fgsm_signs(seeded(Deaf), Classification(5), images(8), torch.arange(8) % 5)
