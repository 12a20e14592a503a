from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from edgekit import Classification, Workload
from edgekit.config.settings import FeaturesConfig
from edgekit.errors import StageError, WeightsError
from edgekit.int8.calibration import calibration_batches
from edgekit.int8.unify import grid_of, per_tensor
from edgekit.progress import Event
from edgekit.stages.base import DistillationConfig, StageContext, TrainingConfig
from edgekit.stages.qat import QatConfig, load, qat
from edgekit.workload.preprocessing import Preprocessing
from tests.networks import Residual, images, seeded


def workload() -> Workload:
    model = seeded(Residual)
    x = images(192)
    with torch.no_grad():
        y = model(x).argmax(1)
    return Workload(
        name="tiny",
        model=model,
        task=Classification(5),
        train=(x[:128], y[:128]),
        validation=(x[128:], y[128:]),
    )


CONFIG = QatConfig(
    calibration_samples=64, calibration_batch=16, training=TrainingConfig(epochs=2, lr=1e-4, batch_size=32)
)


def context(made: Workload, folder: Path, progress: object = lambda event: None) -> StageContext:
    folder.mkdir(exist_ok=True)
    return StageContext(made, made.model, folder, seed=3, progress=progress)  # type: ignore[arg-type]


def test_result_is_loaded_again_bit_for_bit(tmp_path: Path) -> None:
    made = workload()
    result = qat(made.model, CONFIG, context(made, tmp_path))
    again = load(made.model, CONFIG, context(made, tmp_path))
    x = images(8, seed=9)
    assert torch.equal(result.model(x), again.model(x))
    assert (again.note, again.details) == (result.note, result.details)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"int8_graph.pt2", "summary.json"} <= names
    assert not {"calibrated.pt2", "checkpoint.pt"} & names  # what only a training that goes on needs


def test_training_moves_weights_and_leaves_the_float_model_alone(tmp_path: Path) -> None:
    made = workload()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    moving = CONFIG.model_copy(update={"training": CONFIG.training.model_copy(update={"floor": False})})
    trained = qat(made.model, moving, context(made, tmp_path / "trained"))
    config = CONFIG.model_copy(update={"training": TrainingConfig(epochs=0)})
    calibrated = qat(made.model, config, context(made, tmp_path / "calibrated"))
    assert "not trained" in calibrated.note
    after, start = dict(trained.model.named_parameters()), dict(calibrated.model.named_parameters())
    assert all(not torch.equal(after[name], start[name]) for name in start)
    assert all(torch.equal(before[name], value) for name, value in made.model.state_dict().items())


LEARNING = CONFIG.model_copy(update={"learn_scales": True, "ranges": "mse", "bias_correction": True})


@pytest.mark.parametrize("config", [CONFIG, LEARNING])
def test_a_killed_training_ends_where_an_undisturbed_one_does(tmp_path: Path, config: QatConfig) -> None:
    made = workload()
    whole = qat(made.model, config, context(made, tmp_path / "whole"))

    class Killed(Exception):
        pass

    def kill(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        qat(made.model, config, context(made, tmp_path / "killed", kill))
    continued = qat(made.model, config, context(made, tmp_path / "killed"))
    x = images(8, seed=9)
    assert torch.equal(whole.model(x), continued.model(x))
    one, other = whole.model.state_dict(), continued.model.state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [grid_of(node) for node in per_tensor(whole.model)] == [  # type: ignore[arg-type]
        grid_of(node)
        for node in per_tensor(continued.model)  # type: ignore[arg-type]
    ]


def test_scales_learn_when_asked_and_the_report_says_so(tmp_path: Path) -> None:
    made = workload()
    fixed = qat(made.model, CONFIG, context(made, tmp_path / "fixed"))
    config = CONFIG.model_copy(update={"learn_scales": True})
    learned = qat(made.model, config, context(made, tmp_path / "learned"))
    assert "learned scales" in learned.note
    assert "learned scales" not in fixed.note
    assert learned.details["learned_scales"]["count"] > 5
    assert 0 < learned.details["learned_scales"]["largest_change_log2"] < 1
    before, after = ({grid_of(node) for node in per_tensor(r.model)} for r in (fixed, learned))  # type: ignore[arg-type]
    assert before != after


def test_ranges_are_chosen_by_the_recipe(tmp_path: Path) -> None:
    made = workload()
    config = CONFIG.model_copy(
        update={"ranges": "percentile", "percentile": 95.0, "training": TrainingConfig(epochs=0)}
    )
    cut = qat(made.model, config, context(made, tmp_path / "cut"))
    whole = qat(made.model, config.model_copy(update={"ranges": "minmax"}), context(made, tmp_path / "whole"))
    assert cut.note == "calibrated (percentile 95) on 64 training samples, not trained"
    assert whole.note == "calibrated (minmax) on 64 training samples, not trained"
    widths = [max(grid_of(node)[0] for node in per_tensor(r.model)) for r in (cut, whole)]  # type: ignore[arg-type]
    assert widths[0] < 0.8 * widths[1]


def test_calibration_preprocesses_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many samples calibrate: of the batches that were made, only the last ones live."""
    made = workload()
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    seen: list[tuple[int, int]] = []
    original = Preprocessing.__call__

    def watched(self: Preprocessing, raw: torch.Tensor) -> torch.Tensor:
        batch = original(self, raw).clone()
        alive.add(batch)
        seen.append((len(batch), len(alive)))
        return batch

    monkeypatch.setattr(Preprocessing, "__call__", watched)
    config = CONFIG.model_copy(
        update={"calibration_samples": 128, "calibration_batch": 8, "training": TrainingConfig(epochs=0)}
    )
    qat(made.model, config, context(made, tmp_path))
    calibrating = [living for size, living in seen if size == 8]
    assert len(calibrating) >= 16
    assert max(calibrating) <= 3


def test_a_damaged_graph_is_noticed(tmp_path: Path) -> None:
    made = workload()
    qat(made.model, CONFIG, context(made, tmp_path))
    (tmp_path / "int8_graph.pt2").write_bytes(b"garbage")
    with pytest.raises(WeightsError):
        load(made.model, CONFIG, context(made, tmp_path))


def test_the_fake_quantised_graph_learns_from_feature_maps(tmp_path: Path) -> None:
    made = workload()
    told = DistillationConfig(features=FeaturesConfig(kind="hint"))
    training = CONFIG.training.model_copy(update={"distillation": told})
    result = qat(
        made.model, CONFIG.model_copy(update={"training": training}), context(made, tmp_path / "hints")
    )
    (pair,) = result.details["training"]["features"]["pairs"]
    assert (pair["teacher"], pair["resolution"], pair["channels"]) == ("norm2", "8x8", [8, 8])
    plain = qat(made.model, CONFIG, context(made, tmp_path / "plain"))
    x = images(8, seed=9)
    assert not torch.equal(result.model(x), plain.model(x))
    assert set(result.model.state_dict()) == set(plain.model.state_dict())


@pytest.mark.parametrize("learn_scales", [False, True])
def test_frozen_layers_stay_on_their_grid(tmp_path: Path, learn_scales: bool) -> None:
    """Also a batch norm that is folded into them; a model that is frozen as a whole is trained."""
    made = workload()
    training = CONFIG.training.model_copy(update={"floor": False, "lr": 1e-2})
    config = CONFIG.model_copy(update={"training": training, "learn_scales": learn_scales})
    calibrated = qat(
        made.model,
        CONFIG.model_copy(update={"training": TrainingConfig(epochs=0)}),
        context(made, tmp_path / "calibrated"),
    )
    start = dict(calibrated.model.named_parameters())
    for frozen in (["first", "norm1"], ["first", "norm1", "second", "norm2", "head"]):
        for name in frozen:
            made.model.get_submodule(name).requires_grad_(False)
        result = qat(made.model, config, context(made, tmp_path / str(len(frozen))))
        after = dict(result.model.named_parameters())
        stays = {name for name in start if torch.equal(start[name], after[name])}
        expected = {"first.weight", "first.bias"} if len(frozen) == 2 else set()
        if learn_scales and expected:  # the grid of the bias learns with the input's scale
            assert torch.allclose(start["first.bias"], after["first.bias"], atol=1e-3)
            expected.remove("first.bias")
        assert stays == expected
        assert ("2 frozen parameters left as they are" in result.note) == (len(frozen) == 2)
        assert ("frozen as a whole: all of it was trained" in result.note) == (len(frozen) == 5)


def test_a_harmful_training_ends_as_it_was_calibrated(tmp_path: Path) -> None:
    made = workload()
    training = CONFIG.training.model_copy(update={"lr": 3.0, "warmup_epochs": 0, "gradient_clip": None})
    result = qat(made.model, CONFIG.model_copy(update={"training": training}), context(made, tmp_path / "a"))
    calibrated = qat(
        made.model,
        CONFIG.model_copy(update={"training": TrainingConfig(epochs=0)}),
        context(made, tmp_path / "calibrated"),
    )
    x = images(16, seed=9)
    assert torch.equal(result.model(x), calibrated.model(x))
    assert "left as it was calibrated" in result.note


class ByHand(torch.nn.Module):
    """A norm over the sample without any epsilon: of a silent sample 0 / 0."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Conv1d(1, 8, 5, 2, 2, bias=False)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        y = y / torch.sqrt((y**2).mean((1, 2), keepdim=True))
        return self.head(torch.relu(y).mean(2))


def test_losses_that_are_no_numbers_are_rolled_back_and_told(tmp_path: Path) -> None:
    model, x = seeded(ByHand), torch.randn(128, 1, 32, generator=torch.Generator().manual_seed(0))
    made = Workload(
        "quiet", model, Classification(3), (x, torch.arange(128) % 3), (x[:32], torch.arange(32) % 3)
    )
    rows = calibration_batches(torch.arange(128), 64, batch_size=16, seed=3)
    silent = next(row for row in range(128) if row not in torch.cat(list(rows)).tolist())
    made.train.inputs[silent] = 0
    events: list[Event] = []
    training = CONFIG.training.model_copy(update={"floor": False})  # every sample is trained on
    with pytest.raises(StageError, match="no numbers|diverged twice"):
        qat(model, CONFIG.model_copy(update={"training": training}), context(made, tmp_path, events.append))
    assert [e.message for e in events if e.kind == "warning"] == [
        "diverged in epoch 1 (the loss is nan): back to the beginning with half the learning rate"
    ]


def test_doubts_about_calibration_data_are_said_and_outlive_a_kill(tmp_path: Path) -> None:
    made = workload()
    few = CONFIG.model_copy(update={"calibration_samples": 8})
    told: list[str] = []

    class Killed(Exception):
        pass

    def kill(event: Event) -> None:
        if event.kind == "note":
            told.append(event.message)
        if event.kind == "epoch":
            raise Killed

    with pytest.raises(Killed):
        qat(made.model, few, context(made, tmp_path / "few", kill))
    (doubt,) = [one for one in told if one.startswith("calibration data")]
    assert "8 samples are few" in doubt
    assert qat(made.model, few, context(made, tmp_path / "few")).details["doubts"] == [doubt]
    assert not (tmp_path / "few" / "doubts.json").exists()
    assert "doubts" not in qat(made.model, CONFIG, context(made, tmp_path / "enough")).details
