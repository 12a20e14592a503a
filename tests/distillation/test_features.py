"""Feature losses, what the layers give, and which layers are compared."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.config.settings import FeaturesConfig
from edgekit.errors import StageError
from edgekit.graph.capture import capture
from edgekit.training.distillation.features import FeatureDistillation, as_rows, attention_loss, hint_loss
from edgekit.training.distillation.pairing import pairs
from edgekit.training.distillation.taps import Taps, layers


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Stages(nn.Module):
    """(N, 3, 8, 8): a stage of ``width`` channels at 8x8, one of twice as many at 4x4, mean, head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.act = nn.ReLU()
        self.fine = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.act(self.coarse(self.fine(x)))
        return self.head(self.pool(x).flatten(1))


class Tokens(nn.Module):
    """Ids (N, T) to class scores (N, T, 5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.block = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(width, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.block(self.embedding(ids)))


class Sound(nn.Module):
    """(N, 2, 16) to (N, 5): convolutions over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(2, width, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv1d(width, width, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).mean(2))


class Segmenter(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x)))


IMAGES = torch.zeros(2, 3, 8, 8)


class TestLosses:
    @given(seed=st.integers(0, 1000), power=st.floats(-2, 2))
    def test_attention_equals_the_reference(self, seed: int, power: float) -> None:
        student, teacher = features(seed, 4, 6, 3) * 10**power, features(seed + 1, 4, 6, 5)
        total = 0.0
        for s, t in zip(student.double().numpy(), teacher.double().numpy(), strict=True):
            maps = [np.sum(np.abs(side) ** 2, axis=1) for side in (s, t)]
            q, r = (side / np.linalg.norm(side) for side in maps)
            total += 0.5 * float(np.linalg.norm(q - r)) ** 2
        assert float(attention_loss(student, teacher)) == pytest.approx(total / 4, rel=1e-3, abs=1e-6)

    @given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
    def test_attention_sees_places_and_not_sizes(self, seed: int, scale: float) -> None:
        maps = features(seed, 4, 6, 3)
        assert float(attention_loss(scale * maps, maps)) == pytest.approx(0, abs=1e-5)
        assert float(attention_loss(maps.flip(1), maps)) > 1e-3

    @given(seed=st.integers(0, 1000))
    def test_hint_equals_the_reference(self, seed: int) -> None:
        student, teacher = features(seed, 4, 6, 3), features(seed + 1, 4, 6, 3)
        s, t = student.double().numpy(), teacher.double().numpy()
        expected = 0.5 * np.mean((t - s) ** 2) / np.mean(t**2)
        assert float(hint_loss(student, teacher)) == pytest.approx(float(expected), rel=1e-4)

    def test_equal_features_have_no_loss_and_finite_gradients(self) -> None:
        for teacher in (features(0, 2, 4, 3), torch.zeros(2, 4, 3)):
            for loss in (attention_loss, hint_loss):
                student = teacher.clone().requires_grad_()
                value = loss(student, teacher)
                assert value.item() == pytest.approx(0, abs=1e-6)
                value.backward()
                assert student.grad is not None
                assert bool(torch.isfinite(student.grad).all())

    @pytest.mark.parametrize(
        ("shape", "axis", "rows"),
        [
            ((2, 3, 4, 5), 1, (2, 20, 3)),
            ((2, 4, 5, 3), 3, (2, 20, 3)),
            ((2, 7, 3), 2, (2, 7, 3)),
            ((2, 3), 1, (2, 1, 3)),
        ],
    )
    def test_rows(self, shape: tuple[int, ...], axis: int, rows: tuple[int, ...]) -> None:
        values = features(0, *shape)
        found = as_rows(values.bfloat16(), axis)
        assert found.shape == rows
        assert found.dtype == torch.float32
        assert torch.equal(as_rows(values, axis)[0, 0], values.movedim(axis, -1)[0].reshape(-1, rows[2])[0])


class TestPairing:
    def test_the_last_layers_of_each_resolution_are_paired(self) -> None:
        found = pairs(Stages(4), Stages(6), IMAGES)
        # "act" is called twice, "pool" has a single position, "head" is the answer.
        assert [(p.student.name, p.teacher.name) for p in found] == [("fine", "fine"), ("coarse", "coarse")]
        assert found[1].describe() == {
            "student": "coarse", "teacher": "coarse", "resolution": "4x4", "channels": [8, 12],
        }  # fmt: skip

    def test_sequences_and_sounds(self) -> None:
        ids = torch.zeros(2, 7, dtype=torch.long)
        (tokens,) = pairs(Tokens(4), Tokens(6), ids)
        assert (tokens.student.name, tokens.student.axis, tokens.student.channels) == ("block", 2, 4)
        sounds = pairs(Sound(4), Sound(6), torch.zeros(2, 2, 16))
        assert [(p.student.name, p.student.axis, p.student.channels) for p in sounds] == [
            ("first", 1, 4),
            ("second", 1, 4),
        ]

    def test_the_answer_itself_is_no_layer_to_compare(self) -> None:
        (pair,) = pairs(Segmenter(4), Segmenter(6), IMAGES)
        assert pair.student.name == "body"

    def test_without_a_common_resolution_there_are_no_pairs(self) -> None:
        class Coarse(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.head = nn.Conv2d(3, 4, 3, stride=3), nn.Linear(4, 5)

            def forward(self, x: Tensor) -> Tensor:
                return self.head(self.conv(x).mean((2, 3)))

        assert pairs(Coarse(), Stages(4), IMAGES) == []

    def test_layers_by_name(self) -> None:
        (pair,) = pairs(Stages(4), Stages(6), IMAGES, [("stem", "fine.0")])
        assert (pair.student.name, pair.teacher.name) == ("stem", "fine.0")

    @pytest.mark.parametrize(
        ("named", "least", "message"),
        [
            (("fin", "fine"), 1, "the student has no such layer.*did you mean 'fine'"),
            (("fine", "act"), 1, "the teacher has no such layer"),
            (("fine", "coarse"), 1, "differ in resolution"),
            (("pool", "pool"), 2, "single position"),
        ],
    )
    def test_layers_that_do_not_fit(self, named: tuple[str, str], least: int, message: str) -> None:
        with pytest.raises(StageError) as caught:
            pairs(Stages(4), Stages(6), IMAGES, [named], least_positions=least)
        assert re.search(message, str(caught.value).replace("\n", " "))

    def test_an_exported_graph_is_paired_with_a_module(self) -> None:
        student = capture(Stages(4).eval(), IMAGES)
        found = pairs(student, Stages(6), IMAGES)
        assert [p.teacher.name for p in found] == ["fine", "coarse"]
        assert [p.student.resolution for p in found] == [(8, 8), (4, 4)]


class TestTaps:
    @pytest.mark.parametrize("exported", [False, True])
    def test_only_what_is_recorded_is_kept_and_the_model_is_left_as_it_was(self, exported: bool) -> None:
        module = Stages(4).eval()
        model: nn.Module = capture(module, IMAGES) if exported else module
        x = features(1, 2, 3, 8, 8)
        expected, state = model(x), set(model.state_dict())
        names = [pair.student.name for pair in pairs(model, module, IMAGES)]
        taps = Taps(model, names)
        with taps.recording():
            assert torch.equal(model(x), expected)
        model(torch.zeros_like(x))
        fine, coarse = taps.take()
        assert torch.allclose(fine, module.fine(module.act(module.stem(x))), atol=1e-5)
        assert torch.allclose(coarse, module.coarse(fine), atol=1e-5)
        assert taps.values == {}
        taps.close()
        with taps.recording():
            assert torch.equal(model(x), expected)
        assert taps.values == {}
        assert set(model.state_dict()) == state
        assert {layer.name for layer in layers(model, IMAGES)} >= set(names)


def distilling(kind: Any, student: nn.Module, teacher: nn.Module, **settings: Any) -> FeatureDistillation:
    return FeatureDistillation(student, teacher, IMAGES, FeaturesConfig(kind=kind, **settings), seed=3)


class TestFeatureDistillation:
    def test_the_loss_is_the_mean_over_the_pairs_times_the_weight(self) -> None:
        student, teacher, x = Stages(4).eval(), Stages(6).eval(), features(0, 2, 3, 8, 8)
        work = distilling("attention", student, teacher, weight=4.0)
        work.watch(student)
        with work.recording():
            student(x)
        with torch.no_grad():
            fine = teacher.fine(teacher.act(teacher.stem(x)))
            found_there = {"fine": fine, "coarse": teacher.coarse(fine)}
        found = work.loss([found_there[name] for name in work.of_teacher])
        found.backward()
        assert student.stem.weight.grad is not None
        work.close()
        with torch.no_grad():
            maps = [[m.fine(m.act(m.stem(x)))] for m in (student, teacher)]
            for m, side in zip((student, teacher), maps, strict=True):
                side.append(m.coarse(side[0]))
            losses = [attention_loss(as_rows(a, 1), as_rows(b, 1)) for a, b in zip(*maps, strict=True)]
        assert found.item() == pytest.approx(4 * float(sum(losses)) / 2, rel=1e-4)

    def test_projections_lead_from_the_students_channels_to_the_teachers(self) -> None:
        work = distilling("hint", Stages(4), Stages(6))
        assert [tuple(p.shape) for p in work.parameters()] == [(6, 4), (6,), (12, 8), (12,)]
        again = distilling("hint", Stages(4), Stages(6))
        assert all(torch.equal(a, b) for a, b in zip(work.parameters(), again.parameters(), strict=True))
        assert not distilling("attention", Stages(4), Stages(6)).parameters()

    def test_equal_channels_begin_as_the_identity(self) -> None:
        model = Stages(4).eval()
        work = distilling("hint", model, model)
        work.watch(model)
        with work.recording(), torch.no_grad():
            fine = model.act(model.stem(features(0, 2, 3, 8, 8)))
            model(features(0, 2, 3, 8, 8))
            fine = model.fine(fine)
            found_there = {"fine": fine, "coarse": model.coarse(fine)}
        assert work.loss([found_there[name] for name in work.of_teacher]).item() == pytest.approx(0, abs=1e-6)

    def test_a_hint_may_be_a_vector_and_an_attention_may_not(self) -> None:
        layer = (("pool", "pool"),)
        assert len(distilling("hint", Stages(4), Stages(6), layers=layer).pairs) == 1
        with pytest.raises(StageError, match="single position"):
            distilling("attention", Stages(4), Stages(6), layers=layer)
