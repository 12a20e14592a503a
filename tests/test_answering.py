"""Models that answer otherwise than everything later relies on are found before any work, by layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit import Classification, Preprocessing, Workload
from edgekit.errors import DataError, WorkloadError
from edgekit.tensors import NamedTensors
from edgekit.workload.samples import Samples


class Net(nn.Module):
    """(N, 3, 8, 8) to (N, 4); ``change`` is called between its two layers, ``end`` behind them."""

    def __init__(self, change: Any = None, end: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.change, self.end = nn.Conv2d(3, 8, 3), change, end
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x).relu().mean((2, 3))
        x = self.last(x if self.change is None else self.change(x))
        return x if self.end is None else self.end(self, x)


def workload(model: nn.Module, **more: Any) -> Workload:
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    data = (x, torch.arange(8) % 4)
    plain: dict[str, Any] = {"task": Classification(4), "train": data, "validation": data}
    plain["preprocessing"] = Preprocessing(layout="NCHW")
    return Workload(name="odd", model=model, **{**plain, **more})


def refusal(model: nn.Module) -> WorkloadError:
    with pytest.raises(WorkloadError) as caught:
        workload(model).check()
    return caught.value


class TestSteady:
    def test_an_honest_network_passes(self) -> None:
        workload(Net()).check()

    def test_dropout_that_is_always_on(self) -> None:
        error = refusal(Net(lambda x: F.dropout(x, 0.5)))
        assert "differently each time it is asked" in error.what
        assert "between layer 'first' and layer 'last'" in error.got

    def test_a_module_that_is_noisy_is_named(self) -> None:
        class Noise(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x + 0.01 * torch.randn_like(x)

        error = refusal(Net(Noise()))
        assert "in layer 'change'" in error.got

    def test_batch_norm_with_the_statistics_of_its_batch(self) -> None:
        plain = nn.Sequential(
            nn.Unflatten(1, (2, 4)), nn.BatchNorm1d(2, track_running_stats=False), nn.Flatten()
        )
        error = refusal(Net(plain))
        assert "differently alone than in a batch" in error.what
        assert "in layer 'change.1'" in error.got

    def test_a_model_that_fails_on_one_sample(self) -> None:
        error = refusal(Net(nn.BatchNorm1d(8, track_running_stats=False)))
        assert "more than 1 value per channel" in error.what
        assert "one sample alone" in error.what
        assert "running statistics" in error.next

    def test_softmax_over_the_batch(self) -> None:
        error = refusal(Net(end=lambda _, x: x.softmax(0)))
        assert "differently alone than in a batch" in error.what
        assert "after layer 'last'" in error.got

    def test_a_batch_dimension_that_is_squeezed_away(self) -> None:
        error = refusal(Net(end=lambda _, x: x.squeeze()))
        assert "differently alone" in error.what
        assert "shape (1, 4) and (4,)" in error.got

    def test_one_sample_has_nothing_to_be_compared_with(self) -> None:
        one = (torch.rand(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))
        workload(Net(end=lambda _, x: x.softmax(0)), validation=one).check()

    def test_rounding_of_kernels_is_no_difference(self) -> None:
        deep = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU()) for _ in range(60)])
        workload(Net(deep)).check()


class TestForms:
    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
    def test_halves_are_named(self, kind: torch.dtype) -> None:
        error = refusal(Net().to(kind))
        assert str(kind).removeprefix("torch.") in error.what
        assert error.next == "model.float()"

    def test_doubles_are_named(self) -> None:
        error = refusal(Net().double())
        assert "float64" in error.got
        assert error.next == "model.float()"

    def test_token_ids_that_became_floats_are_told_with_the_setting(self) -> None:
        ids = torch.arange(40).reshape(8, 5) % 7
        model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 4))
        data = {"train": (ids, torch.arange(8) % 4), "validation": (ids, torch.arange(8) % 4)}
        with pytest.raises(WorkloadError, match="fails on its own data") as caught:
            workload(model, **data, preprocessing=Preprocessing()).check()
        assert "Preprocessing(dtype='int64')" in caught.value.next
        workload(model, **data, preprocessing=Preprocessing(dtype="int64")).check()

    def test_several_outputs_are_told_with_both_ways_out(self) -> None:
        @dataclasses.dataclass
        class Output:
            logits: Tensor
            hidden: Tensor

        error = refusal(Net(end=lambda _, x: Output(x, x[:, :2])))
        assert error.got == "logits (4, 4), hidden (4, 2)"
        assert "Workload(outputs=['logits'], …)" in error.next
        assert "task=Outputs({'logits': Classification(…), …})" in error.next

    def test_one_score_for_two_classes_has_a_way_out_that_is_right(self) -> None:
        model = Net(end=lambda _, x: x[:, :1])
        labels = torch.arange(8) % 2
        x = torch.rand(8, 3, 8, 8)
        two = {"task": Classification(2), "train": (x, labels), "validation": (x, labels)}
        with pytest.raises(DataError, match="sigmoid") as caught:
            workload(model, **two).check()
        assert "s = self.model(x); return torch.cat([-s / 2, s / 2], 1)" in caught.value.next
        s = model(x)
        pair = torch.cat([-s / 2, s / 2], 1)
        torch.testing.assert_close(pair.softmax(1)[:, 1:], s.sigmoid())
        workload(Net(end=lambda _, x: torch.cat([-x[:, :1] / 2, x[:, :1] / 2], 1)), **two).check()


class TestTrainMode:
    def test_an_honest_network_has_no_note_and_is_left_as_it_was(self) -> None:
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 4)
        )
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.get_rng_state()
        assert workload(model).check_training(model) == ""
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(state, torch.get_rng_state())

    def test_further_outputs_behind_the_first_are_told(self) -> None:
        model = Net(end=lambda self, x: (x, x[:, :2]) if self.training else x)
        note = workload(model).check_training(model)
        assert "tuple with output_0 (4, 4), output_1 (4, 2)" in note

    @pytest.mark.parametrize(
        "end",
        [
            lambda self, x: (x[:, :2], x) if self.training else x,
            lambda self, x: x[:, :2] if self.training else x,
            lambda self, x: {"loss": 1.0} if self.training else x,
        ],
    )
    def test_something_else_is_refused(self, end: Any) -> None:
        model = Net(end=end)
        with pytest.raises(WorkloadError, match="something else in train mode"):
            workload(model).check_training(model)

    def test_failing_is_refused(self) -> None:
        def end(self: nn.Module, x: Tensor) -> Tensor:
            if self.training:
                raise ValueError("targets are needed")
            return x

        model = Net(end=end)
        with pytest.raises(WorkloadError, match="fails in train mode: ValueError: targets are needed"):
            workload(model).check_training(model)


class TestSeveralInputs:
    ids, mask = torch.zeros(6, 5, dtype=torch.long), torch.ones(6, 5, dtype=torch.long)

    @pytest.mark.parametrize("form", [dict, tuple, list])
    def test_items_of_a_dataset(self, form: type) -> None:
        pair = {"ids": self.ids[0], "mask": self.mask[0]}
        items = [(pair if form is dict else form(pair.values()), 0)] * 6
        inputs = Samples.of(items, names=("ids", "mask")).inputs
        assert isinstance(inputs, NamedTensors)
        assert torch.equal(inputs["ids"], self.ids)
        assert torch.equal(inputs["mask"], self.mask)

    def test_items_that_differ_are_told(self) -> None:
        items = [({"ids": self.ids[0], "mask": self.mask[0]}, 0), ({"ids": self.ids[0]}, 0)]
        with pytest.raises(DataError, match="differ in what they hold") as caught:
            Samples.of(items, "train")
        assert "item 1" in caught.value.where

    def test_whole_arrays(self) -> None:
        for both in ((self.ids, self.mask), {"ids": self.ids, "mask": self.mask}):
            for targets in (torch.zeros(6, dtype=torch.long), None):
                inputs = Samples.of((both, targets), names=("ids", "mask")).inputs
                assert isinstance(inputs, NamedTensors)
                assert inputs.names == ("ids", "mask")

    def test_lists_of_samples_and_of_numbers_are_one_input(self) -> None:
        assert Samples.of((list(self.ids), [0] * 6)).inputs.shape == (6, 5)
        assert Samples.of((tuple(self.ids), [0] * 6)).inputs.shape == (6, 5)
        assert Samples.of([([[1, 2], [3, 4]], 0)] * 3).inputs.shape == (3, 2, 2)
        assert Samples.of([((1.0, 2.0), 0)] * 3).inputs.shape == (3, 2)
