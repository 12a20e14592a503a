"""The networks and features of the benchmarks' workloads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.errors import WorkloadError
from edgekit.macs import count
from edgekit.opening import load_workload
from edgekit.zoo import digits

Load = Callable[[str], Any]


def test_mobilenetv3_has_what_is_hard_for_int8(script: Load) -> None:
    module = script("cifar10_mobilenet")
    model = module.MobileNetV3().eval()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    kinds = [type(part).__name__ for part in model.modules()]
    assert kinds.count("Block") == 11
    assert kinds.count("SqueezeExcite") == 9  # as in table 2 of the paper
    assert "Hardswish" in kinds
    assert "Hardsigmoid" in kinds
    assert 10e6 < count(model, torch.zeros(1, 3, 32, 32)).macs < 25e6


def test_ds_cnn_has_the_papers_size(script: Load) -> None:
    model = script("spoken_digits").DsCnn().eval()
    assert model(torch.zeros(2, 1, 49, 10)).shape == (2, 10)
    # First layer 25 x 5 x 64 x 40, four times depthwise and pointwise, the classifier.
    expected = 125 * 64 * 40 + 4 * 125 * (64 * 9 + 64 * 64) + 640
    assert count(model, torch.zeros(1, 1, 49, 10)).macs == expected


def slow_features(clip: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The definition, term by term: (49, 10)."""
    mel = [2595 * math.log10(1 + f / 700) for f in (20.0, 4000.0)]
    step = (mel[1] - mel[0]) / 41
    edges = [700 * (10 ** ((mel[0] + i * step) / 2595) - 1) for i in range(42)]
    found = np.zeros((49, 10))
    for frame in range(49):
        part = np.zeros(512)
        for n in range(320):
            part[n] = clip[160 * frame + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / 320))
        n = np.arange(512)
        power = [abs((part * np.exp(-2j * np.pi * k * n / 512)).sum()) ** 2 for k in range(257)]
        bands = []
        for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
            energy = 0.0
            for k in range(257):
                f = k * 8000 / 512
                if low < f <= middle:
                    energy += power[k] * (f - low) / (middle - low)
                elif middle < f < high:
                    energy += power[k] * (high - f) / (high - middle)
            bands.append(math.log(energy + 1e-6))
        for k in range(10):
            scale = math.sqrt((1 if k == 0 else 2) / 40)
            terms = [b * math.cos(math.pi * k * (2 * i + 1) / 80) for i, b in enumerate(bands)]
            found[frame, k] = scale * sum(terms)
    return found


def test_features_are_mel_cepstra(script: Load) -> None:
    rng = np.random.default_rng(0)
    clip = np.sin(np.arange(8000) * 0.3) * np.linspace(0, 1, 8000) + 0.01 * rng.standard_normal(8000)
    found = script("spoken_digits").features(clip[None])
    assert found.shape == (1, 49, 10)
    np.testing.assert_allclose(found[0], slow_features(clip), rtol=1e-6, atol=1e-6)


def test_features_of_many_clips_are_those_of_each(script: Load) -> None:
    module = script("spoken_digits")
    clips = np.random.default_rng(0).standard_normal((600, 8000))
    together = module.features(clips)
    np.testing.assert_allclose(together[[0, 300, 599]], module.features(clips[[0, 300, 599]]))


@pytest.mark.parametrize("length", [10, 7999, 8000, 8001, 20_000])
def test_a_second_holds_the_clip_at_one_loudness(length: int, script: Load) -> None:
    clip = np.random.default_rng(0).standard_normal(length)
    found = script("spoken_digits").second(clip)
    assert found.shape == (8000,)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.1)
    np.testing.assert_allclose(found, script("spoken_digits").second(5 * clip))


def test_of_a_long_clip_the_loudest_second_is_taken(script: Load) -> None:
    clip = np.full(20_000, 1e-3)
    clip[9_000:13_000] = 1.0
    found = script("spoken_digits").second(clip)
    assert (found > found.max() / 2).sum() == 4_000


def test_a_moved_clip_keeps_its_shape(script: Load) -> None:
    module, clip = script("spoken_digits"), np.arange(1.0, 101)
    starts = set()
    for seed in range(30):
        found = module.second(clip, np.random.default_rng(seed))
        start = int(np.flatnonzero(found)[0])
        starts.add(start)
        assert abs(start - 3950) <= 800
        np.testing.assert_allclose(found[start : start + 100] / found[start], clip)
    assert len(starts) > 20


def test_noise_is_as_weak_as_it_says(script: Load) -> None:
    clip = np.sin(np.arange(8000) * 0.1)
    for seed in range(5):
        noise = script("spoken_digits").disturbed(clip, np.random.default_rng(seed)) - clip
        below = 10 * math.log10(np.mean(clip**2) / np.mean(noise**2))
        assert 9 < below < 31


@pytest.mark.parametrize("name", ["spoken_digits", "cifar10_mobilenet"])
def test_without_data_a_workload_says_what_is_missing(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEKIT_DATA", raising=False)
    with pytest.raises(WorkloadError, match="EDGEKIT_DATA"):
        load_workload(f"{root}/benchmarks/workloads/{name}.py")


def test_weights_are_trained_once(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit.config.settings import DistillationConfig, TrainingConfig

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own_weights, work = script("own_weights"), script("work")
    training = TrainingConfig(epochs=1, batch_size=16, distillation=DistillationConfig(loss="none"))

    def made() -> Any:
        torch.manual_seed(0)
        return work.smaller(digits.untrained(), 32, 8)

    with pytest.raises(WorkloadError, match="isn't trained yet"):
        own_weights.load(made(), training, "x.py")
    events: list[Any] = []
    first = own_weights.trained(made(), training, events.append)
    assert any(event.kind == "epoch" for event in events)
    events.clear()
    second = own_weights.trained(made(), training, events.append)
    third = own_weights.load(made(), training, "x.py")
    assert not events
    for name, value in first.model.state_dict().items():
        assert second.model.state_dict()[name].equal(value)
        assert third.model.state_dict()[name].equal(value)
    other = training.model_copy(update={"lr": 0.5})
    assert own_weights.weights_path(made(), other) != own_weights.weights_path(made(), training)


@pytest.mark.data
def test_spoken_digits_are_features_of_all_clips(script: Load, data_folder: Path) -> None:
    made = script("spoken_digits").untrained()
    made.check()
    assert made.train.inputs.shape == (4 * 2700, 1, 49, 10)
    assert made.validation.inputs.shape == (300, 1, 49, 10)
    plain = made.train.inputs[:2700]
    torch.testing.assert_close(plain.mean((0, 1, 2)), torch.zeros(10), rtol=0, atol=1e-4)
    torch.testing.assert_close(plain.std((0, 1, 2)), torch.ones(10), rtol=0, atol=1e-3)
    assert made.fingerprint() == script("spoken_digits").untrained().fingerprint()
