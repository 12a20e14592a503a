from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit import Classification, Workload
from edgekit.errors import WeightsError
from edgekit.progress import Event
from edgekit.stages.base import StageContext, TrainingConfig
from edgekit.stages.qat import QatConfig, load, qat
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8_graph.pt2", "summary.json"]


def test_training_moves_weights_and_leaves_the_float_model_alone(tmp_path: Path) -> None:
    made = workload()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    trained = qat(made.model, CONFIG, context(made, tmp_path / "trained"))
    config = CONFIG.model_copy(update={"training": TrainingConfig(epochs=0)})
    calibrated = qat(made.model, config, context(made, tmp_path / "calibrated"))
    assert "not trained" in calibrated.note
    x = images(8, seed=9)
    assert not torch.equal(trained.model(x), calibrated.model(x))
    assert all(torch.equal(before[name], value) for name, value in made.model.state_dict().items())


def test_a_killed_training_ends_where_an_undisturbed_one_does(tmp_path: Path) -> None:
    made = workload()
    whole = qat(made.model, CONFIG, context(made, tmp_path / "whole"))

    class Killed(Exception):
        pass

    def kill(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        qat(made.model, CONFIG, context(made, tmp_path / "killed", kill))
    continued = qat(made.model, CONFIG, context(made, tmp_path / "killed"))
    x = images(8, seed=9)
    assert torch.equal(whole.model(x), continued.model(x))


def test_a_damaged_graph_is_noticed(tmp_path: Path) -> None:
    made = workload()
    qat(made.model, CONFIG, context(made, tmp_path))
    (tmp_path / "int8_graph.pt2").write_bytes(b"garbage")
    with pytest.raises(WeightsError):
        load(made.model, CONFIG, context(made, tmp_path))
