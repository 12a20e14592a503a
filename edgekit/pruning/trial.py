"""Trying a pruning plan out: is removing channels the same as ignoring them?"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgekit.pruning.plan import Plan

__all__ = ["NO_EFFECT", "OUTPUTS", "Trial", "short"]

OUTPUTS = "its channels are the model's outputs"
NO_EFFECT = "the output doesn't depend on its channels, so a removal can't be checked"
_MOVED = (
    "removing channels is not the same as ignoring them: on the way they are padded, reordered, or mixed "
    "with others"
)
_EXACT, _ROUNDED = 1e-8, 1e-4  # relative to the output's size, in double and in single precision


def short(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


class Trial:
    """Tries groups out on a copy whose weights are perturbed, so that no zero hides a difference."""

    def __init__(self, model: nn.Module, example: Tensor, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        for name, parameter in self.model.named_parameters():
            if parameter.is_floating_point():
                self._perturb(name, parameter)
        self.example, self.tolerance = example, _ROUNDED
        try:
            exact = copy.deepcopy(self.model).double()
            double = example.double() if example.is_floating_point() else example
            self.whole = self._answer(exact, double)
            self.model, self.example, self.tolerance = exact, double, _EXACT
        except Exception:  # a model with constants in single precision
            self.whole = self._answer(self.model, example)

    def reason_against(self, plan: Plan) -> str:
        """Why this plan is wrong; "" if the cut model answers as the one that ignores those channels."""
        small, silent = copy.deepcopy(self.model), copy.deepcopy(self.model)
        try:
            plan.apply(small)
            plan.silence(silent)
            expected = self._answer(silent, self.example)
        except Exception as error:
            return f"its layers can't be cut ({short(error)})"
        try:
            got = self._answer(small, self.example)
        except Exception as error:
            return f"the model fails without some of its channels ({short(error)})"
        if got.shape != expected.shape:
            return OUTPUTS
        effect = self._distance(self.whole, expected)
        # "not <=": NaN is a failure as well
        if not self._distance(got, expected) <= max(min(self.tolerance, effect / 100), self.tolerance / 1e4):
            return _MOVED
        return "" if effect > 10 * self.tolerance else NO_EFFECT

    def _perturb(self, name: str, parameter: Tensor) -> None:
        spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
        noise = torch.randn(parameter.shape, generator=self.generator, dtype=torch.float32)
        parameter.add_((0.1 * spread + 0.02) * noise.to(parameter.dtype))

    @staticmethod
    def _answer(model: nn.Module, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = model(inputs)
        return outputs

    def _distance(self, a: Tensor, b: Tensor) -> float:
        """Largest difference, relative to the size of the whole model's answer."""
        return float((a - b).abs().max() / self.whole.abs().max().clamp_min(1e-30))
