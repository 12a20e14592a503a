"""What a user writes for a model with several inputs or outputs, and what is said of mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit import Classification, Outputs, Preprocessing, Regression, Workload
from edgekit.errors import DataError, WorkloadError
from edgekit.execution import call
from edgekit.tensors import NamedTensors
from edgekit.workload.preprocessing import NamedPreprocessing
from tests.named import nets


def of(inputs: Any, targets: Any = None, model: nn.Module | None = None, **more: Any) -> Workload:
    data = (inputs, targets)
    settings: dict[str, Any] = {"preprocessing": {"image": nets.PICTURES}, **more}
    return Workload(
        "garden", model or nets.garden(), settings.pop("task", nets.tasks()), data, data, **settings
    )


class TestInputs:
    def test_a_dict_of_arrays(self) -> None:
        raw = nets.inputs(8, 0)
        made = of({name: one.numpy() for name, one in raw.items()})
        made.check()
        example = made.example(2)
        assert isinstance(example, NamedTensors)
        assert example["image"].shape == (2, 3, 16, 16)  # pictures come channels first
        assert torch.equal(example["numbers"], raw["numbers"][:2])

    def test_a_tuple_takes_the_names_of_the_parameters_of_forward(self) -> None:
        made = of(tuple(nets.inputs(8, 0).values()))
        made.check()
        assert made.train.inputs.names == ("image", "numbers")

    @pytest.mark.parametrize("form", ["dict", "tuple"])
    def test_a_dataset_of_such_items(self, form: str) -> None:
        raw = nets.inputs(5, 0)
        items = []
        for row in range(5):
            one = {name: values[row].numpy() for name, values in raw.items()}
            target = {"scores": row % 3, "boxes": torch.zeros(4), "map": torch.zeros(5, 8, 8)}
            items.append((one if form == "dict" else tuple(one.values()), target))
        made = Workload(
            "garden", nets.garden(), nets.tasks(), items, items, preprocessing={"image": nets.PICTURES}
        )
        made.check()
        assert torch.equal(made.train.inputs["image"], raw["image"])
        assert made.train.targets["scores"].tolist() == [0, 1, 2, 0, 1]

    def test_integers_stay_integers_and_bytes_become_numbers_where_nobody_says(self) -> None:
        class Embedded(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.words, self.out = nn.Embedding(50, 8), nn.Linear(8, 3)

            def forward(self, input_ids: Tensor, attention_mask: Tensor, weight: Tensor) -> Tensor:
                mask = attention_mask[..., None].float()
                return self.out((self.words(input_ids) * mask).sum(1) * weight)

        ids = torch.randint(0, 50, (8, 6), dtype=torch.int32)
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "weight": torch.rand(8, 1).double(),
        }
        made = Workload("text", Embedded().eval(), Classification(3), *2 * [(inputs, torch.arange(8) % 3)])
        made.check()
        types = {name: one.dtype for name, one in made.example(1).items()}
        assert types == {"input_ids": torch.int64, "attention_mask": torch.int64, "weight": torch.float32}

    def test_the_fingerprint_knows_every_array(self) -> None:
        raw = nets.inputs(8, 0)
        changed = {**raw, "numbers": raw["numbers"] + 1}
        assert of(raw).fingerprint() != of(changed).fingerprint()
        assert of(raw).fingerprint() == of(raw).fingerprint()

    def test_preprocessing_is_kept_as_plain_data(self) -> None:
        kept = of(nets.inputs(8, 0)).preprocessing
        assert Preprocessing.from_dict(kept.to_dict()) == kept
        assert isinstance(kept, NamedPreprocessing)


class TestOutputs:
    @pytest.mark.parametrize("form", ["dict", "tuple", "dataclass"])
    def test_whatever_they_come_in_they_have_their_names(self, form: str) -> None:
        made = nets.workload(form, count=8)
        made.check()
        found = call(made.model, made.example(2))
        assert isinstance(found, NamedTensors)
        assert found.names == ("scores", "boxes", "map")
        whole = nets.garden()(**made.example(2).as_dict())
        assert all(torch.equal(found[name], whole[name]) for name in found.names)

    def test_nested_once_names_are_joined(self) -> None:
        own = {"near_scores": Classification(3), "near_boxes": Regression()}
        made = of(nets.inputs(8, 0), model=nets.garden("nested"), task=Outputs(own))
        made.check()
        assert made.validation.targets.names == ("near_scores", "near_boxes")

    def test_one_that_is_named_is_as_if_it_were_the_only_one(self) -> None:
        made = of(nets.inputs(8, 0), task=Classification(3), outputs=["scores"])
        made.check()
        assert call(made.model, made.example(2)).shape == (2, 3)

    def test_a_dict_of_one_needs_no_name(self) -> None:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Linear(4, 3)

            def forward(self, x: Tensor) -> dict[str, Tensor]:
                return {"logits": self.body(x)}

        made = Workload(
            "one", Wrapped().eval(), Classification(3), *2 * [(torch.randn(8, 4), torch.arange(8) % 3)]
        )
        made.check()


class TestMistakes:
    """One message, before any work."""

    @pytest.mark.parametrize(
        ("change", "error", "text"),
        [
            ({"numbers": None}, WorkloadError, "no input numbers"),
            ({"more": torch.zeros(8, 1)}, WorkloadError, "inputs more, which it doesn't take"),
            ({"numbers": torch.zeros(7, 8)}, DataError, "8 image, 7 numbers"),
            ({"for": torch.zeros(8, 1), "a b": torch.zeros(8, 1)}, DataError, "'a b'"),
            ({"numbers": torch.full((8, 8), float("nan"))}, DataError, "NaN"),
        ],
    )
    def test_of_inputs(self, change: dict[str, Any], error: type[Exception], text: str) -> None:
        inputs: dict[str, Any] = {**nets.inputs(8, 0), **change}
        with pytest.raises(error, match=text):
            of({name: one for name, one in inputs.items() if one is not None}).check()

    @pytest.mark.parametrize(
        ("more", "text"),
        [
            ({"task": Classification(3)}, "returns several tensors, and the task is about one"),
            (
                {"task": Classification(3), "outputs": ["socres"]},
                "its outputs are called scores, boxes, map, seen",
            ),
            ({"task": Outputs({"scores": Classification(3), "mask": Regression()})}, "an output 'mask'"),
            ({"outputs": ["scores"]}, "those of the task, scores, boxes, map"),
            ({"outputs": "scores"}, "a list of names"),
            ({"preprocessing": Preprocessing()}, "a dict of them for image, numbers"),
            ({"preprocessing": {"picture": nets.PICTURES}}, "one for picture"),
        ],
    )
    def test_of_names(self, more: dict[str, Any], text: str) -> None:
        with pytest.raises(WorkloadError, match=text):
            of(nets.inputs(8, 0), **more).check()

    def test_targets_for_some_outputs_alone(self) -> None:
        with pytest.raises(DataError, match="a dict of targets for scores, boxes, map"):
            of(nets.inputs(8, 0), {"scores": torch.zeros(8).long()}).check()

    def test_an_output_that_is_no_answer_for_each_sample(self) -> None:
        class Anchored(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Linear(4, 3)

            def forward(self, x: Tensor) -> dict[str, Tensor]:
                return {"scores": self.body(x), "anchors": torch.zeros(7, 2)}

        task = Outputs({"scores": Classification(3), "anchors": Regression()})
        data = (torch.randn(8, 4), None)
        with pytest.raises(
            WorkloadError, match=r"doesn't answer sample by sample.*\n.*4 samples in, .*anchors \(7, 2\)"
        ):
            Workload("anchored", Anchored().eval(), task, data, data).check()

    def test_outputs_that_depend_on_the_batch_name_the_output(self) -> None:
        class Batched(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Linear(4, 3)

            def forward(self, x: Tensor) -> dict[str, Tensor]:
                found = self.body(x)
                return {"scores": found, "centred": found - found.mean(0)}

        task = Outputs({"scores": Classification(3), "centred": Regression()})
        data = (torch.randn(8, 4), None)
        with pytest.raises(WorkloadError, match="alone than in a batch"):
            Workload("batched", Batched().eval(), task, data, data).check()

    def test_weights_and_tasks_that_make_no_sense(self) -> None:
        with pytest.raises(WorkloadError, match="one of scores"):
            Outputs({"scores": Classification(3)}, weights={"boxes": 1.0})
        with pytest.raises(WorkloadError, match="the task of one output"):
            Outputs({"scores": Outputs({"a": Regression()})})


class TestScores:
    def test_no_average_hides_an_output(self) -> None:
        task = nets.tasks()
        made = nets.workload(count=8)
        right = call(made.model, made.example(32)).detach()
        targets = task.answers(right)
        assert task.score(right, targets) == 1
        wrong = NamedTensors({**right.as_dict(), "boxes": right["boxes"].roll(1, 0)})
        found = task.scores(wrong, targets)
        assert found["scores"] == found["map"] == 1
        assert task.score(wrong, targets) == found["boxes"] < 0.9
        assert task.agreement(wrong, right) < 0.5

    def test_the_loss_is_the_weighted_sum(self) -> None:
        made = nets.workload(count=8)
        outputs, targets = call(made.model, made.whole(8)).detach(), made.validation.targets[:8]
        targets = targets.map(lambda one: one + 1 if one.is_floating_point() else one)
        own = {part.name: part.task.loss(part.of(outputs), part.of(targets)) for part in made.task.parts()}
        expected = own["scores"] + 1e-4 * own["boxes"] + own["map"]
        assert float(made.task.loss(outputs, targets)) == pytest.approx(float(expected))
