"""The prune stage's other ways to a plan: by a trial, in steps, after sparse learning, or a given one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgekit import macs
from edgekit.errors import PruneError, RecipeError, StageError
from edgekit.progress import Event
from edgekit.recipe import load_recipe
from edgekit.stages.base import StageContext, TrainingConfig
from edgekit.stages.candidates import parted
from edgekit.stages.cutting import Cutting
from edgekit.stages.prune import load, prune
from edgekit.stages.prune_config import PruneConfig, SparseConfig, TrialConfig
from edgekit.stages.substeps import Part
from edgekit.tasks import Classification
from edgekit.training import evaluate
from edgekit.workload import Samples, Workload
from tests.networks import seeded
from tests.pruning.networks import ZeroPadded
from tests.stages.workloads import LABELS_ONLY, context, quarters, workload

pytestmark = pytest.mark.wide

SLOW = pytest.mark.slow
QUICK = TrainingConfig(epochs=2, batch_size=16, lr=0.02, precision="float32", compile="never")
WAYS = {
    "auto": PruneConfig(
        speedup=1.8,
        importance="auto",
        trial=TrialConfig(candidates=("magnitude", "taylor", "random"), samples=48, held_out=20, epochs=2),
        training=QUICK,
    ),
    "steps": PruneConfig(speedup=2.2, channel_multiple=4, steps=3, recovery=QUICK, training=QUICK),
    "sparse": PruneConfig(speedup=1.8, sparse=SparseConfig(strength=0.01, training=QUICK), training=QUICK),
    "refitted": PruneConfig(speedup=1.8, steps=2, reconstruct=True, recovery=QUICK, training=QUICK),
    "all": PruneConfig(
        speedup=1.8,
        channel_multiple=4,
        importance="auto",
        trial=TrialConfig(candidates=("fpgm", "hessian"), scopes=("isomorphic", "global"), samples=32),
        scope="auto",
        steps=2,
        recovery=QUICK,
        sparse=SparseConfig(training=QUICK),
        training=QUICK,
    ),
}


class Plain(nn.Sequential):
    """Without batch norm."""

    def __init__(self) -> None:
        convolutions = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()
        super().__init__(*convolutions, nn.Flatten(), nn.Linear(16 * 16, 5))


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("plan.json", "weights.safetensors")}


def without_seconds(value: object) -> object:
    if isinstance(value, dict):
        timed = ("seconds", "images_per_second")
        return {key: without_seconds(each) for key, each in value.items() if key not in timed}
    return [without_seconds(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, int, object]]:
    """By way: the folder of a finished stage, how many events it told, its details."""
    done: dict[str, tuple[Path, int, object]] = {}

    def run(way: str) -> tuple[Path, int, object]:
        if way not in done:
            folder = tmp_path_factory.mktemp(way)
            setting, events = context(workload(seeded(ZeroPadded)), folder)
            result = prune(setting.workload.model, WAYS[way], setting)
            done[way] = folder, len(events), without_seconds(result.details)
        return done[way]

    return run


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_made_by_any_way_replays_on_a_fresh_model(
    way: str, undisturbed: Callable[[str], tuple[Path, int, object]]
) -> None:
    folder, _, details = undisturbed(way)
    assert sorted(path.name for path in folder.iterdir()) == [
        "plan.json",
        "summary.json",
        "training.csv",
        "weights.safetensors",
    ]
    work = workload(seeded(ZeroPadded))
    before = macs.count(work.model, work.example(1)).macs
    result = load(work.model, WAYS[way], context(work, folder)[0])
    assert before >= WAYS[way].speedup * macs.count(result.model, work.example(1)).macs
    assert without_seconds(result.details) == details


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [0.6, *(pytest.param(n / 21, marks=SLOW) for n in range(1, 21))])
def test_killed_at_any_event_it_goes_on_to_the_same_files(
    way: str, share: float, undisturbed: Callable[[str], tuple[Path, int, object]], tmp_path: Path
) -> None:
    folder, count, details = undisturbed(way)
    work, seen = workload(seeded(ZeroPadded)), 0

    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen >= share * count:
            raise Killed

    with pytest.raises(Killed):
        prune(work.model, WAYS[way], StageContext(work, work.model, tmp_path, 0, kill))
    setting, events = context(work, tmp_path)
    result = prune(work.model, WAYS[way], setting)
    assert len(events) <= count + 1  # nothing that was finished is done again, and that it goes on is told
    assert files(tmp_path) == files(folder)
    assert without_seconds(result.details) == details
    assert not list(tmp_path.glob("part-*"))


def test_a_trial_tells_what_every_candidate_was_worth(
    undisturbed: Callable[[str], tuple[Path, int, object]],
) -> None:
    folder, _, _ = undisturbed("auto")
    details = json.loads((folder / "summary.json").read_text())["details"]
    trial = details["trial"]
    assert list(trial["candidates"]) == ["magnitude", "taylor", "random"]
    assert all({"score", "seconds", "speedup"} <= set(found) for found in trial["candidates"].values())
    best = max(found["score"] for found in trial["candidates"].values())
    assert trial["candidates"][trial["winner"]]["score"] == best
    assert details["importance"] == trial["winner"]
    assert (trial["trained_on"], trial["held_out"]) == (48, 20)
    assert json.loads((folder / "summary.json").read_text())["note"].endswith(trial["note"])


def test_scopes_are_tried_too(undisturbed: Callable[[str], tuple[Path, int, object]]) -> None:
    folder, _, _ = undisturbed("all")
    details = json.loads((folder / "summary.json").read_text())["details"]
    names = ["fpgm-isomorphic", "hessian-isomorphic", "fpgm-global", "hessian-global"]
    assert list(details["trial"]["candidates"]) == names
    assert details["trial"]["winner"] == f"{details['importance']}-{details['scope']}"


def test_a_trial_judges_by_training_data_that_it_did_not_train_on(tmp_path: Path) -> None:
    """With other validation data everything comes out the same."""
    work = workload(seeded(ZeroPadded))
    other = workload(seeded(ZeroPadded))
    object.__setattr__(other, "validation", Samples.of(quarters(64, 77), "validation"))
    for each, folder in ((work, "one"), (other, "other")):
        prune(each.model, WAYS["auto"], context(each, tmp_path / folder)[0])
    assert files(tmp_path / "one")["weights.safetensors"] == files(tmp_path / "other")["weights.safetensors"]
    learned, judged = parted(work, 48, 20, 0)
    assert not set(learned.tolist()) & set(judged.tolist())
    assert (len(learned), len(judged)) == (48, 20)
    assert len(parted(work, 2048, 1024, 0)[1]) == 24  # a quarter of 96 at most


def test_a_trial_works_without_labels(tmp_path: Path) -> None:
    model = seeded(ZeroPadded).eval()
    inputs, _ = quarters(96, 0)
    work = Workload(
        "unlabelled", model, Classification(num_classes=5), (inputs, None), (quarters(32, 1)[0], None)
    )
    trial = prune(model, WAYS["auto"], context(work, tmp_path)[0]).details["trial"]
    assert all(0 <= found["score"] <= 1 for found in trial["candidates"].values())


def test_the_same_cut_is_not_tried_twice(tmp_path: Path) -> None:
    """Without batch norm, its scale says nothing, and magnitude stands in."""
    work = workload(seeded(Plain))
    config = PruneConfig(
        speedup=1.5,
        channel_multiple=4,
        importance="auto",
        trial=TrialConfig(candidates=("magnitude", "bn_scale"), samples=32, held_out=16),
        training=TrainingConfig(epochs=0),
    )
    trial = prune(work.model, config, context(work, tmp_path)[0]).details["trial"]
    assert trial["candidates"]["bn_scale"]["same_as"] == "magnitude"
    assert trial["winner"] == "magnitude"


def test_candidates_that_diverge_are_told_and_lose(tmp_path: Path) -> None:
    """All of them: an error that says so. One of them: another wins."""
    work = workload(seeded(ZeroPadded))
    wild = QUICK.model_copy(update={"lr": 1e30, "gradient_clip": None})
    config = WAYS["auto"].model_copy(update={"training": wild})
    with pytest.raises(StageError, match="every candidate diverged"):
        prune(work.model, config, context(work, tmp_path / "all")[0])
    setting, _ = context(work, tmp_path / "one")
    part = Part(setting.folder, "trial-magnitude", Cutting(work.model, WAYS["auto"], setting).part_settings)
    part.finish({"plan": "{}", "speedup": 2.0, "score": None, "error": "a loss of NaN", "seconds": 1.0})
    trial = prune(work.model, WAYS["auto"], setting).details["trial"]
    assert trial["candidates"]["magnitude"]["error"] == "a loss of NaN"
    assert trial["winner"] != "magnitude"


def test_what_stays_is_refitted_where_that_helps(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    inputs = work.preprocessing(work.validation.inputs)
    errors = {}
    for name, wish in {"auto": "auto", "never": False, "trained": "auto"}.items():
        training = QUICK if name == "trained" else TrainingConfig(epochs=0)
        config = PruneConfig(speedup=1.5, channel_multiple=4, reconstruct=wish, training=training)
        result = prune(work.model, config, context(work, tmp_path / name)[0])
        errors[name] = float((result.model(inputs) - work.model(inputs)).detach().square().mean())
        assert ("reconstruction" in result.details) == (wish == "auto")
    assert errors["auto"] < errors["never"]


def test_steps_come_nearer_by_equal_factors(undisturbed: Callable[[str], tuple[Path, int, object]]) -> None:
    folder, _, _ = undisturbed("steps")
    steps = json.loads((folder / "summary.json").read_text())["details"]["steps"]
    assert [len(step.get("history", [])) for step in steps] == [2, 2, 0]
    for number, step in enumerate(steps, 1):
        assert step["speedup"] >= 2.2 ** (number / 3) - 1e-9


def test_limits_hold_over_all_steps(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    config = WAYS["steps"].model_copy(update={"limits": {"conv1": 0.25}, "speedup": 1.6})
    result = prune(work.model, config, context(work, tmp_path)[0])
    left = {row["layer"]: row["channels_after"] for row in result.details["cut"]}
    assert left.get("conv1", 32) >= 24


def test_sparse_learning_makes_the_cut_cheaper(tmp_path: Path) -> None:
    """The same epochs with and without the pull: what leaves then was smaller with it."""
    work = workload(seeded(ZeroPadded))
    longer = LABELS_ONLY.model_copy(update={"epochs": 12})
    sparse = SparseConfig(strength=0.05, training=longer)
    losses = []
    for strength in (1e-6, 0.05):
        config = PruneConfig(
            speedup=2.8,
            sparse=sparse.model_copy(update={"strength": strength}),
            reconstruct=False,
            training=TrainingConfig(epochs=0),
        )
        result = prune(work.model, config, context(work, tmp_path / str(strength))[0])
        assert result.details["sparse"]["strength"] == strength
        assert len(result.details["sparse"]["history"]) == 12
        outputs = evaluate(result.model, work, split="train").outputs
        losses.append(float(work.task.loss(outputs, work.train.targets)))
    assert losses[1] < losses[0]


def test_a_given_plan_is_replayed(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    none = TrainingConfig(epochs=0)
    made = prune(work.model, PruneConfig(speedup=1.5, training=none), context(work, tmp_path / "made")[0])
    plan = tmp_path / "made" / "plan.json"
    config = PruneConfig(plan=str(plan), training=none)
    again = prune(work.model, config, context(work, tmp_path / "again")[0])
    assert again.details["cut"] == made.details["cut"]
    assert again.details["plan"] == str(plan)
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    plan.unlink()  # the stage's folder has its own
    loaded = load(work.model, config, context(work, tmp_path / "again")[0])
    continued = prune(work.model, config, context(work, tmp_path / "again")[0])
    assert repr(loaded.model) == repr(continued.model) == repr(again.model)
    assert continued.details == again.details
    with pytest.raises(PruneError, match="the pruning plan can't be read"):
        prune(work.model, config, context(work, tmp_path / "third")[0])


def test_a_plan_and_a_choice_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="leave out importance, steps"):
        PruneConfig(plan="plan.json", importance="taylor", steps=2)
    config = PruneConfig(plan="plan.json")
    assert PruneConfig.model_validate(config.model_dump()) == config  # every default written out


def test_all_of_it_can_stand_in_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
        stages:
          - kind: prune
            importance: auto
            scope: auto
            trial: {candidates: [lamp, fpgm], scopes: [local], samples: 100}
            limits: {"layer4.*": 0.5}
            ignore: [stem, "head.*"]
            steps: 2
            recovery: {epochs: 1}
            sparse: {strength: 0.01, training: {epochs: 2}}
        exports: {precisions: [fp32]}
        """
    )
    recipe = load_recipe(path)
    (config,) = recipe.stages
    assert isinstance(config, PruneConfig)
    assert config.trial.candidates == ("lamp", "fpgm")
    assert config.patterns == {"layer4.*": 0.5, "stem": 0.0, "head.*": 0.0}
    assert config.sparse is not None
    assert config.sparse.training.epochs == 2
    assert load_recipe(recipe) == recipe
    with pytest.raises(RecipeError, match="did you mean 'candidates'"):
        load_recipe(path, ["stages.prune.trial.candidate=[lamp]"])


def test_an_unknown_layer_in_limits_is_named(tmp_path: Path) -> None:
    work = workload(seeded(ZeroPadded))
    with pytest.raises(PruneError, match="did you mean 'conv1'"):
        prune(work.model, PruneConfig(ignore=("cnov1",)), context(work, tmp_path)[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": {"conv1": 1.0}},
        {"limits": {"conv1": -0.1}},
        {"steps": 0},
        {"trial": {"candidates": ["best"]}},
        {"sparse": {"strength": 0}},
        {"importance": "gut feeling"},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PruneConfig.model_validate(wrong)
