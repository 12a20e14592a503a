"""The peers' training: right, and resumable, as far as a tutorial's loop can be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.macs import count
from edgekit.progress import Event, silent
from edgekit.tasks import Classification
from edgekit.workload import Augmentation, Preprocessing, Samples, Workload

Load = Callable[[str], Any]
PREPROCESSING = Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


class Net(nn.Module):
    """(N, 3, 8, 8) to (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(self.relu(self.bn(self.conv(x)))).flatten(1))
        return logits


def workload(augmentation: Augmentation | None = None, count: int = 70) -> Workload:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 8, 8, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 4, (count,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Net().eval()
    data = Samples(images, labels)
    return Workload("tiny", model, Classification(4), data, data, PREPROCESSING, augmentation)


def loop(script: Load, made: Workload, path: Path, **changed: Any) -> Any:
    tutorial = script("tutorial")
    values: dict[str, Any] = {
        "model": copy.deepcopy(made.model),
        "workload": made,
        "loss": tutorial.plain_loss,
        "steps": 8,
        "lr": 0.1,
        "checkpoint": path / "loop.pt",
        "label": "x",
        "progress": silent,
        "batch_size": 20,
        "workers": 0,
        "every": 2,
    }
    return tutorial.Loop(**{**values, **changed})


def test_an_image_is_what_preprocessing_gives(script: Load) -> None:
    made = workload()
    dataset = script("tutorial").Images(made)
    expected = made.preprocessing(made.train.inputs)
    assert len(dataset) == 70
    for index in (0, 33, 69):
        image, label = dataset[index]
        torch.testing.assert_close(image, expected[index], rtol=1e-5, atol=1e-5)
        assert label == int(made.train.targets[index])


def test_an_augmented_image_is_one_of_the_possible_ones(script: Load) -> None:
    made = workload(Augmentation(horizontal_flip=True, shift=1))
    dataset = script("tutorial").Images(made)
    padded = np.pad(made.train.inputs[5].numpy(), ((1, 1), (1, 1), (0, 0)))
    crops = [padded[y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    possible = torch.from_numpy(np.stack([*crops, *(crop[:, ::-1] for crop in crops)]))
    prepared = made.preprocessing(possible)
    drawn = set()
    for _ in range(60):
        distances = (prepared - dataset[5][0]).abs().amax((1, 2, 3))
        assert float(distances.min()) < 1e-5
        drawn.add(int(distances.argmin()))
    assert len(drawn) > 9  # shifted and flipped ones


def test_other_data_than_images_are_refused(script: Load) -> None:
    vectors = Samples(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
    made = Workload("v", nn.Linear(3, 2), Classification(2), vectors, vectors)
    with pytest.raises(ValueError, match="expected bytes"):
        script("tutorial").Images(made)


def test_the_distillation_loss_is_hintons(script: Load) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 4)) * 3
    labels = rng.integers(0, 4, 5)

    def log_softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shifted: np.ndarray[Any, Any] = x - x.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    told, said = log_softmax(teacher / 4), log_softmax(student / 4)
    soft = (np.exp(told) * (told - said)).sum(1).mean()
    hard = -log_softmax(student)[np.arange(5), labels].mean()
    loss = script("tutorial").kd_loss(lambda inputs: torch.from_numpy(teacher))
    found = loss(torch.zeros(5, 1), torch.from_numpy(student), torch.from_numpy(labels))
    assert float(found) == pytest.approx(0.9 * 16 * soft + 0.1 * hard)


def test_a_loop_learns_and_its_rate_is_a_cosine(script: Load, tmp_path: Path) -> None:
    one = loop(script, workload(), tmp_path, steps=40, every=10)
    state = one.run()
    assert state.step == 40
    assert state.seconds > 0
    assert state.curve[-1]["loss"] < state.curve[0]["loss"]
    rates = [entry["lr"] for entry in state.curve]
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 40)) for step in (9, 19, 29, 39)])
    assert not one.model.training


def test_a_killed_loop_ends_as_one_left_alone(script: Load, tmp_path: Path) -> None:
    made = workload()
    (tmp_path / "a").mkdir()
    alone = loop(script, made, tmp_path / "a")
    alone.run()

    def kill(event: Event) -> None:
        if event.done == 100:  # in the fifth step, after the checkpoint of the fourth
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(script, made, tmp_path, progress=kill).run()
    again = loop(script, made, tmp_path)
    state = again.run()
    assert [entry["step"] for entry in state.curve] == [2, 4, 6, 8]
    for mine, its in zip(again.model.state_dict().values(), alone.model.state_dict().values(), strict=True):
        assert mine.equal(its)
    before = copy.deepcopy(again.model.state_dict())
    finished = loop(script, made, tmp_path)
    assert finished.run().step == 8  # nothing is left to do
    assert all(finished.model.state_dict()[key].equal(value) for key, value in before.items())
    with pytest.raises(ValueError, match="a training of 8 steps"):
        loop(script, made, tmp_path, steps=9).run()


def test_fewer_images_than_a_batch_are_refused(script: Load, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="don't fill a batch"):
        loop(script, workload(), tmp_path, batch_size=128).run()


def test_adam_is_taken_when_asked_for(script: Load, tmp_path: Path) -> None:
    made = loop(script, workload(), tmp_path, optimizer="adam").make_optimizer()
    assert isinstance(made, torch.optim.Adam)


def test_speed_is_measured_without_a_checkpoint(script: Load, tmp_path: Path) -> None:
    tutorial = script("tutorial")
    speed = tutorial.images_per_second(loop(script, workload(), tmp_path), warm_up=1, steps=2)
    assert speed > 0
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def resnet(script: Load) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = script("cifar10").ResNet(1).eval()
    return model


EXAMPLE = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_pruning_reaches_its_speedup_with_the_smallest_share(
    scope: str, script: Load, resnet: nn.Module
) -> None:
    tutorial = script("tutorial")
    small, share = tutorial.prune_to(
        lambda: copy.deepcopy(resnet), EXAMPLE, 1.5, ignored=tutorial.residual_stream, scope=scope
    )
    reached = count(resnet, EXAMPLE).macs / count(small, EXAMPLE).macs
    assert 1.5 <= reached < 1.7
    assert 0 < share < 0.95
    assert small(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert {m.out_channels for n, m in small.named_modules() if n.endswith(".conv2")} == {16, 32, 64}


def test_pruning_says_how_far_it_gets(script: Load, resnet: nn.Module) -> None:
    tutorial = script("tutorial")
    with pytest.raises(ValueError, match="fewer MACs at most, not 50x"):
        tutorial.prune_to(lambda: copy.deepcopy(resnet), EXAMPLE, 50.0, ignored=tutorial.residual_stream)


def test_the_readmes_way_breaks_on_zero_padded_shortcuts(script: Load, resnet: nn.Module) -> None:
    """Why the residual stream must be ignored: the reason that is given for it is checked."""
    tutorial = script("tutorial")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied|must match"):
        tutorial.prune_to(lambda: copy.deepcopy(resnet), EXAMPLE, 1.5, ignored=lambda model: [model.linear])


@pytest.mark.slow
def test_nncf_quantises_and_exports(script: Load, tmp_path: Path) -> None:
    import onnxruntime

    tutorial, made = script("tutorial"), workload()
    quantized = tutorial.nncf_quantized(copy.deepcopy(made.model), made, samples=40)
    inputs = made.preprocessing(made.validation.inputs[:6]).contiguous()
    with torch.no_grad():
        simulated, exact = quantized(inputs), made.model(inputs)
    assert not torch.equal(simulated, exact)
    torch.testing.assert_close(simulated, exact, rtol=0, atol=0.2)
    path = tutorial.nncf_onnx(quantized, made.example(1), tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = session.run(None, {"input": inputs.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(answers), simulated, rtol=0, atol=0.1)


@pytest.mark.slow
def test_a_killed_training_of_a_quantised_model_goes_on(script: Load, tmp_path: Path) -> None:
    tutorial, made = script("tutorial"), workload()

    def fresh() -> Any:
        return tutorial.nncf_quantized(copy.deepcopy(made.model), made, samples=40)

    (tmp_path / "a").mkdir()
    alone = loop(script, made, tmp_path / "a", model=fresh(), optimizer="adam", lr=1e-3)
    alone.run()

    def kill(event: Event) -> None:
        if event.done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(script, made, tmp_path, model=fresh(), optimizer="adam", lr=1e-3, progress=kill).run()
    again = loop(script, made, tmp_path, model=fresh(), optimizer="adam", lr=1e-3)
    assert again.run().step == 8
    inputs = made.preprocessing(made.validation.inputs[:6])
    with torch.no_grad():
        assert again.model(inputs).equal(alone.model(inputs))
