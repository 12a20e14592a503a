"""``edgekit prune``: plans made and replayed, sensitivity; nothing is trained."""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from edgekit import macs
from edgekit.cli import app as cli
from edgekit.opening import load_workload
from edgekit.pruning.plans.plan import Plan
from edgekit.training import evaluate
from tests.pipeline import tiny

FILE = str(Path(tiny.__file__))

OTHER = """
import torch
from torch import nn
from edgekit import Classification, Workload


def workload():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 5)).eval()
    data = (torch.randn(6, 3, 8, 8), torch.arange(6) % 5)
    return Workload("other", model, Classification(num_classes=5), train=data, validation=data)
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["prune", *arguments], prog_name="edgekit")


def result(*arguments: str) -> dict[str, Any]:
    """Of a call that must succeed."""
    answer = call(*arguments, "--json")
    assert answer.exit_code == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def test_a_plan_is_made_and_its_weights_are_what_it_leaves(tmp_path: Path) -> None:
    options = ("--multiple", "4", "--no-reconstruct", "-o", str(tmp_path))
    found = result(FILE, "--speedup", "1.6", *options)
    work = tiny.workload()
    plan = Plan.from_json(Path(found["plan"]).read_text())
    plan.apply(work.model)
    kept = load_file(found["weights"])
    assert all(torch.equal(kept[name], value) for name, value in work.model.state_dict().items())
    assert found["macs"]["after"] == macs.count(work.model, work.example(2)).macs
    assert found["speedup"] >= 1.6
    accuracy = found["accuracy"]
    assert accuracy["after"] == evaluate(work.model, work).score
    assert accuracy["before"] == evaluate(tiny.workload().model, work).score
    assert (accuracy["split"], accuracy["samples"]) == ("validation", 64)
    assert accuracy["note"] == "after the cut alone, without fine-tuning"
    assert plan.settings["importance"] == "magnitude"


def test_a_plan_replays_to_the_same_model(tmp_path: Path) -> None:
    made = result(FILE, "--multiple", "4", "--importance", "taylor", "-o", str(tmp_path / "made"))
    again = result(FILE, "--plan", made["plan"], "-o", str(tmp_path / "again"))
    assert again["replayed"] == made["plan"]
    for key in ("macs", "parameters", "cut", "accuracy", "speedup"):
        assert again[key] == made[key]
    assert Path(again["weights"]).read_bytes() == Path(made["weights"]).read_bytes()


def test_what_a_person_sees(tmp_path: Path) -> None:
    answer = call(FILE, "--multiple", "4", "-o", str(tmp_path), "--samples", "10")
    assert answer.exit_code == 0, answer.stderr
    assert "after the cut, refitted without labels" in " ".join(answer.stdout.split())
    assert "the cut alone" in answer.stdout
    assert "first" in answer.stdout
    assert "channels" in answer.stdout


def test_refitting_brings_the_answers_back(tmp_path: Path) -> None:
    options = (FILE, "--multiple", "4", "--speedup", "2.5")
    plain = result(*options, "--no-reconstruct", "-o", str(tmp_path / "plain"))
    found = result(*options, "-o", str(tmp_path / "refitted"))
    assert found["cut"] == plain["cut"]
    assert found["accuracy"]["cut_alone"] == plain["accuracy"]["after"]
    assert found["accuracy"]["after"] > plain["accuracy"]["after"]
    assert Path(found["plan"]).read_bytes() == Path(plain["plan"]).read_bytes()


@pytest.mark.wide
def test_a_file_size_can_be_aimed_at(tmp_path: Path) -> None:
    options = ("--multiple", "4", "--runtime", "onnxruntime", "-o", str(tmp_path / "out"))
    whole = result(FILE, *options, "--size-kb", "1000")["size_kb"]["before"]
    answer = call(FILE, *options, "--size-kb", f"{0.7 * whole:g}")
    assert answer.exit_code == 0, answer.stderr
    told = " ".join(answer.stdout.split())
    assert f"{whole:g} → " in told
    assert "fp32 in onnxruntime" in told
    assert f"at most {0.7 * whole:g} kB" in " ".join(answer.stderr.split())


def test_limits_reach_the_plan(tmp_path: Path) -> None:
    found = result(FILE, "--speedup", "1.2", "--multiple", "4", "--limit", "first=0", "-o", str(tmp_path))
    assert [row["layer"] for row in found["cut"]] == ["second"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--importance", "taylr"), "did you mean 'taylor'?"),
        (("--importance", "auto"), "importance auto trains"),
        (("--scope", "all"), "unknown scope 'all'"),
        (("--blocks", "may-leave"), "did you mean 'may_leave'?"),
        (("--scope", "auto"), "scope auto trains"),
        (("--speedup", "2", "--size-kb", "9"), "speedup and size_kb are all given"),
        (("--speedup", "0.5"), "greater than 1"),
        (("--runtime", "tensorrt"), "--runtime"),
        (("--multiple", "few"), "--multiple"),
        (("--latency-ms", "1", "--device", "nowhere"), "nowhere"),
        (("--limit", "first"), "PATTERN=R"),
        (("--limit", "first=1.5"), "PATTERN=R"),
        (("--plan", "p.json", "--sensitivity"), "exclude each other"),
        (("--plan", "absent.json"), "the pruning plan can't be read"),
    ],
)
def test_faults_of_the_command_line_stop_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    answer = call(FILE, *options, "-o", str(tmp_path / "out"))
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert answer.stdout == ""
    assert not (tmp_path / "out").exists()


def test_bad_plans_and_other_models_are_told_apart(tmp_path: Path) -> None:
    made = result(FILE, "--multiple", "4", "-o", str(tmp_path / "made"))
    (tmp_path / "other.py").write_text(OTHER)
    (tmp_path / "junk.json").write_text('{"format": "something"}')
    other = call(str(tmp_path / "other.py"), "--plan", made["plan"], "-o", str(tmp_path / "out"))
    assert other.exit_code == 2
    assert "the pruning plan doesn't fit the model" in other.stderr
    assert "no layer 'first'" in other.stderr
    junk = call(FILE, "--plan", str(tmp_path / "junk.json"), "-o", str(tmp_path / "out"))
    assert junk.exit_code == 2
    assert "not a pruning plan" in junk.stderr
    assert not (tmp_path / "out").exists()


def test_out_of_reach_and_unknown_layers_fail_as_in_a_run(tmp_path: Path) -> None:
    far = call(FILE, "--speedup", "60", "-o", str(tmp_path / "out"))
    assert far.exit_code == 1
    assert "at most" in far.stderr
    unknown = call(FILE, "--limit", "frist=0.5", "-o", str(tmp_path / "out"))
    assert unknown.exit_code == 1
    assert "did you mean 'first'?" in unknown.stderr
    assert not (tmp_path / "out").exists()


# --- sensitivity -----------------------------------------------------------------------------------------


def test_sensitivity_is_data_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = result(FILE, "--sensitivity", "--samples", "40", "-o", str(tmp_path))
    assert [Path(path).name for path in found["files"]] == ["sensitivity.json", "sensitivity.svg"]
    kept = json.loads((tmp_path / "sensitivity.json").read_text())
    assert {key: found[key] for key in kept} == kept
    assert (kept["split"], kept["samples"]) == ("train", 40)
    assert {group["layer"] for group in kept["groups"]} == {"first", "second"}
    drops = [group["mean_drop"] for group in kept["groups"]]
    assert drops == sorted(drops, reverse=True)
    plot = (tmp_path / "sensitivity.svg").read_text()
    assert "first" in plot
    assert "second" in plot
    result(FILE, "--sensitivity", "--samples", "40", "-o", str(tmp_path / "again"))
    assert (tmp_path / "again" / "sensitivity.svg").read_text() == plot


def test_scores_of_a_curve_are_those_of_models_cut_so(tmp_path: Path) -> None:
    found = result(FILE, "--sensitivity", "-o", str(tmp_path))
    first = next(group for group in found["groups"] if group["layer"] == "first")
    point = first["points"][3]
    assert point == {"ratio": 0.5, "channels": 8.0, "score": point["score"]}
    work = load_workload(tiny.workload())
    weights = [work.model.get_parameter(f"{name}.weight") for name in ("first", "norm")]
    worth = sum(w.flatten(1).square().sum(1) if w.dim() > 1 else w.square() for w in weights)
    worth = worth + work.model.get_parameter("second.weight").transpose(0, 1).flatten(1).square().sum(1)
    with torch.no_grad():  # silencing is cutting
        work.model.get_parameter("second.weight")[:, worth.argsort()[:8]] = 0
    assert point["score"] == evaluate(work.model, work, split="train").score


def test_without_matplotlib_the_data_is_there_and_the_way_to_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    answer = call(FILE, "--sensitivity", "--samples", "16", "-o", str(tmp_path))
    assert answer.exit_code == 0, answer.stderr
    assert "pip install 'edgekit-toolkit[report]'" in " ".join(answer.stdout.split())
    assert [path.name for path in tmp_path.iterdir()] == ["sensitivity.json"]
