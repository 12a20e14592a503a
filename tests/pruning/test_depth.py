"""Residual blocks that leave as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import PruneError
from edgekit.pruning.depth import blocks, shallower
from edgekit.pruning.plans.plan import Plan
from edgekit.tasks import Classification, Regression
from tests.models.mobile import MobilenetV3Small
from tests.models.resnets import Resnet8, Resnet8Block, VggBn
from tests.models.transformers import ConvnextAtto, VitTiny
from tests.pruning.networks import CAN_LEAVE, Stack, pictures, stack


class TestBlocks:
    def test_those_with_a_shortcut_and_equal_shapes(self) -> None:
        assert blocks(stack(), pictures()) == CAN_LEAVE

    @pytest.mark.parametrize(
        ("build", "size", "expected"),
        [
            (Resnet8, 32, ["stages.0"]),
            (VggBn, 32, []),
            (VitTiny, 32, ["blocks.0", "blocks.1", "blocks.2"]),
            # Squeeze-excite keeps the shape and halves its input at most: a gate is no shortcut.
            (MobilenetV3Small, 32, ["features.3", "features.5", "features.8"]),
            (ConvnextAtto, 32, ["features.2", "features.5", "features.8", "features.9", "features.12"]),
        ],
    )
    def test_architectures(self, build: type[nn.Module], size: int, expected: list[str]) -> None:
        torch.manual_seed(0)
        assert blocks(build().eval(), pictures(2, size)) == expected

    def test_a_norm_behind_the_sum_is_no_hindrance_and_a_stack_without_a_sum_has_no_blocks(self) -> None:
        class PostNorm(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)

            def forward(self, x: Tensor) -> Tensor:
                return self.norm(x + self.linear(x))

        plain = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        model = nn.Sequential(PostNorm(), plain, nn.Linear(16, 5))
        assert blocks(model, torch.randn(4, 16)) == ["0"]

    def test_a_block_that_is_used_twice_stays(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.block, self.other = Resnet8Block(3, 3, 1), Resnet8Block(3, 3, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.other(self.block(self.block(x)))

        assert blocks(Twice().eval(), pictures()) == ["other"]

    def test_the_model_is_left_as_it_was(self) -> None:
        model = stack().train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        blocks(model, pictures())
        assert model.training
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert not any(module._forward_hooks for module in model.modules())


class TestShallower:
    def test_what_changes_nothing_leaves_first(self) -> None:
        model = stack()
        idle = model.get_submodule("stages.0.1.norm2")
        assert isinstance(idle, nn.BatchNorm2d)
        nn.init.zeros_(idle.weight)
        found = shallower(model, pictures(), 0.75, Classification(5))
        assert found.changes[0][0] == "stages.0.1"
        assert found.changes[0][1] == pytest.approx(0, abs=1e-6)
        assert found.kept == ("stages.0.0", "stages.0.2", "stages.1.1")

    @pytest.mark.parametrize("task", [Classification(5), Regression()])
    def test_the_change_is_that_of_the_answers(self, task: Classification | Regression) -> None:
        model, x = stack(), pictures()
        found = shallower(model, x, 0.75, task)
        (name, change), trials = found.changes[0], {}
        for block in CAN_LEAVE:
            small = stack()
            parent, _, child = block.rpartition(".")
            setattr(small.get_submodule(parent), child, nn.Identity())
            with torch.no_grad():
                one, other = small(x).double(), model(x).double()
            if isinstance(task, Regression):
                trials[block] = float((one - other).square().mean())
            else:
                p, q = other.softmax(1), one.softmax(1)
                trials[block] = float((p * (p / q).log()).sum(1).mean())
        assert name == min(trials, key=trials.__getitem__)
        assert change == pytest.approx(trials[name], rel=1e-3)

    @pytest.mark.parametrize(("depth", "left"), [(0.9, 3), (0.5, 2), (0.0, 0)])
    def test_the_plan_replays_on_a_fresh_model(self, depth: float, left: int) -> None:
        found = shallower(stack(), pictures(), depth, Classification(5))
        assert len(found.kept) == left
        plan, small = Plan.from_json(found.plan.to_json()), stack()
        plan.apply(small)
        gone = {name for name, _ in found.changes}
        assert gone | set(found.kept) == set(CAN_LEAVE)
        for name in CAN_LEAVE:
            assert isinstance(small.get_submodule(name), nn.Identity) == (name in gone)
        assert small(pictures()).shape == (16, 5)
        assert sum(p.numel() for p in small.parameters()) == found.after.parameters
        assert found.speedup > 1
        assert found.describe()["kept_blocks"] == list(found.kept)

    def test_a_plan_for_another_model_is_refused(self) -> None:
        plan = shallower(stack(), pictures(), 0.5, Classification(5)).plan
        with pytest.raises(PruneError, match="doesn't fit"):
            plan.apply(nn.Sequential(nn.Linear(3, 3)))

    def test_a_model_without_shortcuts(self) -> None:
        with pytest.raises(PruneError, match="no block can be left out"):
            shallower(VggBn().eval(), pictures(2, 32), 0.5, Classification(10))

    def test_a_block_that_the_model_asks_for_more_stays(self) -> None:
        class Asking(Stack):
            def forward(self, x: Tensor) -> Tensor:
                first = self.stages[0][0]  # type: ignore[index]
                return super().forward(x * first.conv1.stride[0])

        torch.manual_seed(0)
        found = shallower(Asking().eval(), pictures(), 0.0, Classification(5))
        assert {name for name, _ in found.changes} == set(CAN_LEAVE[1:])
