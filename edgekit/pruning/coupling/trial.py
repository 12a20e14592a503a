"""Trying a pruning plan out: is removing channels the same as ignoring them, and can the rest be trained?"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from edgekit.errors import PruneError
from edgekit.execution import call
from edgekit.pruning.plans.copies import shared_copy
from edgekit.pruning.plans.plan import Plan
from edgekit.pruning.plans.rewrites import Replaced, Replacement
from edgekit.tensors import Joined, NamedTensors, Tensors, apply

__all__ = ["NO_EFFECT", "OUTPUTS", "Trial", "exports", "short"]

Item = TypeVar("Item")

OUTPUTS = "its channels are the model's outputs"
NO_EFFECT = "the output doesn't depend on its channels, so a removal can't be checked"
_MOVED = (
    "removing channels is not the same as ignoring them: on the way they are padded, reordered, or mixed "
    "with others"
)
_EXACT, _ROUNDED = 1e-8, 1e-4  # relative to the output's size, in double and in single precision
_LEAST_EXACT, _LEAST_ROUNDED = 1e-10, 1e-3  # effects of a removal that can be told from rounding


def short(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def exports(model: nn.Module, example: Tensors) -> str:
    """Why torch.export can't capture ``model``; "" if it can. Takes about a second for 50 layers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copied = copy.deepcopy(model).eval()
            if isinstance(example, NamedTensors):
                torch.export.export(copied, (), example.as_dict())
            else:
                torch.export.export(copied, (example,))
    except Exception as error:
        return short(error)
    return ""


class Trial:
    """Tries groups out on a copy whose weights are perturbed, so that no zero hides a difference."""

    def __init__(self, model: nn.Module, example: Tensors, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.model, self.joined = self._perturbed(model), Joined()
        self.example: Tensors
        try:
            self.model.double()
            double = apply(lambda one: one.double() if one.is_floating_point() else one, example)
            self.whole = self._answer(self.model, double)
            self.example, self.tolerance, self.least = double, _EXACT, _LEAST_EXACT
        except Exception:  # a model with constants in single precision
            self.model, self.joined = self._perturbed(model), Joined()
            self.whole = self._answer(self.model, example)
            self.example, self.tolerance, self.least = example, _ROUNDED, _LEAST_ROUNDED

    def reason_against(self, plan: Plan, effect: float | None = None) -> str:
        """Why this plan is wrong; "" if the cut model answers as the one that ignores those channels.

        ``effect``: of the part of the plan that changes the answer least, which a fault must not hide behind;
        by default that of the plan.
        """
        small, silent = shared_copy(self.model), shared_copy(self.model, plan.touched)
        try:
            plan.apply(small)
            plan.silence(silent)
            expected = self._answer(silent, self.example)
        except PruneError as error:
            return f"its layers can't be cut ({error.got})"
        except Exception as error:
            return f"its layers can't be cut ({short(error)})"
        try:
            got = self._answer(small, self.example)
        except Exception as error:
            return f"the model fails without some of its channels ({short(error)})"
        if got.shape != expected.shape:
            return OUTPUTS
        effect = self._distance(self.whole, expected) if effect is None else effect
        # "not <=": NaN is a failure as well
        if not self._distance(got, expected) <= max(min(self.tolerance, effect / 100), self.tolerance / 1e4):
            return _MOVED
        return "" if effect > self.least else NO_EFFECT

    def effects(
        self,
        items: Sequence[Item],
        totals: Callable[[nn.Module, Item], Iterator[Tensor]],
        replacements: tuple[Replacement, ...] = (),
    ) -> list[float]:
        """To first order, how much the answers change without each item's weights, relative to their size.

        ``totals``: gives, of the model that it is given (after ``replacements``), in parts, the gradients
        that belong to an item; here they are the sizes of weight times gradient.
        """
        model = copy.deepcopy(self.model)
        Replaced(model, replacements).install()
        signs = torch.randint(0, 2, self.whole.shape, generator=self.generator) * 2 - 1
        with torch.enable_grad():
            model.requires_grad_(True)
            answers = self.joined(call(model, self.example))
            if not answers.requires_grad:
                return [0.0 for _ in items]
            (answers * signs.to(answers.dtype)).sum().backward()
        scale = float(self.whole.abs().sum().clamp_min(1e-30))
        with torch.no_grad():
            for parameter in model.parameters():  # in place: a layer may be most of the model
                if parameter.grad is not None:
                    parameter.grad.mul_(parameter).abs_()
            changes = [sum(float(part.sum()) for part in totals(model, item)) for item in items]
        return [change / scale for change in changes]

    def untrainable(self, plan: Plan, example: Tensors | None = None) -> str:
        """Why the cut model can't be trained; "" if its gradients are finite, and reach what they did before.

        The comparison is with the whole model that ignores those channels. ``example``: other inputs than
        those of the trial.
        """
        example = self.example if example is None else example
        try:  # one after the other: a model in double precision with its gradients is four times its file
            expected = self._gradients(plan.silence, example)
            got = self._gradients(plan.apply, example)
        except Exception as error:
            return f"no gradients can be computed without some of its channels ({short(error)})"
        if lost := [
            name for name, finite in expected.items() if finite is not None and got.get(name) is None
        ]:
            return f"without some of its channels no gradient reaches {lost[0]}"
        infinite = [name for name, finite in got.items() if finite is False]
        return f"without some of its channels the gradient of {infinite[0]} is not finite" if infinite else ""

    def _gradients(self, change: Callable[[nn.Module], None], example: Tensors) -> dict[str, bool | None]:
        """By parameter, whether its gradient is finite; None where none arrives."""
        model = copy.deepcopy(self.model)
        change(model)
        with torch.enable_grad():
            model.requires_grad_(True)
            outputs = self.joined(call(model, example))
            if outputs.requires_grad:
                outputs.square().sum().backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters()}
        return {name: None if grad is None else bool(grad.isfinite().all()) for name, grad in grads.items()}

    def _perturbed(self, model: nn.Module) -> nn.Module:
        """A copy in which no weight is zero, frozen."""
        copied = copy.deepcopy(model).eval().requires_grad_(False)
        for parameter in copied.parameters():
            if parameter.is_floating_point():
                spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
                noise = torch.randn(parameter.shape, generator=self.generator, dtype=torch.float32)
                parameter.add_((0.1 * spread + 0.02) * noise.to(parameter.dtype))
        return copied

    def _answer(self, model: nn.Module, inputs: Tensors) -> Tensor:
        with torch.no_grad():
            return self.joined(call(model, inputs))

    def _distance(self, a: Tensor, b: Tensor) -> float:
        """Largest difference, relative to the size of the whole model's answer."""
        return float((a - b).abs().max() / self.whole.abs().max().clamp_min(1e-30))
