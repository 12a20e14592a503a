"""MODEL_CARD.md, and the same in the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekit.diagnosis.record import Attacked, Corrupted, Diagnosis
from edgekit.errors import WorkloadError
from edgekit.files import sha256
from edgekit.pipeline import compress
from edgekit.report import Report
from edgekit.report.card import markdown, weaknesses
from edgekit.units import human_share
from edgekit.workload import Workload
from tests.pipeline import tiny


def manifest(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return values


def saying(about: Any) -> Workload:
    """The tiny workload, with something to say."""
    plain = tiny.workload()
    splits = [(one.inputs, one.targets) for one in (plain.train, plain.validation)]
    return Workload(plain.name, plain.model, plain.task, *splits, plain.preprocessing, about=about)


def test_the_card_says_what_was_measured(whole: Path) -> None:
    text, report = (whole / "MODEL_CARD.md").read_text(encoding="utf-8"), Report.load(whole)
    for one in report.artifacts:
        assert one.file in text
        assert sha256(whole / one.file) in text
        assert human_share(one.accuracy) in text
    for stage in report.stages:
        assert f"Stage {stage.kind}" in text
    assert "north, east, south, west" in text
    assert f"onnxruntime {report.versions['onnxruntime']}" in text
    assert "128 train, 64 validation" in text
    assert '"layout": "NHWC"' in text
    assert "Licence: not stated" in text  # the workload says nothing of it
    assert "## Known weaknesses" in text
    assert "Weakest class: " in text
    assert "expected calibration error" in text


def test_the_manifest_holds_the_same(whole: Path) -> None:
    card = manifest(whole)["card"]
    assert markdown(card) == (whole / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card["recommended"] == Report.load(whole).recommended.artifact
    assert [one["file"] for one in card["files"]] == [one["file"] for one in manifest(whole)["artifacts"]]
    assert card["model"]["input"] == {"shape": [1, 8, 8], "dtype": "float32"}


def test_what_the_workload_says_of_itself_stands_in_it(tmp_path: Path) -> None:
    about = {
        "license": "Apache-2.0",
        "data_license": "CC BY 4.0 | see <here>",
        "intended_use": "telling\nquarters apart",
        "contact": "somebody",
    }
    workload = saying(about)
    recipe = tmp_path / "plain.yaml"
    recipe.write_text(
        "stages: []\nexports: {formats: [onnx], precisions: [fp32]}\ndiagnose: {samples: 0}\n"
        "benchmark: {threads: [1], min_seconds: 0.01, min_runs: 2}\n"
    )
    compress(workload, recipe, out=tmp_path / "run")
    text = (tmp_path / "run" / "MODEL_CARD.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "Apache-2.0",
        "model_name": "tiny",
        "tags": ["edgekit", "onnx"],
    }
    assert "- Intended use: telling quarters apart\n" in body
    assert "- Licence of the data: CC BY 4.0 | see &lt;here>\n" in body
    assert "- contact: somebody\n" in body
    assert "- Data: not stated\n" in body
    # Words change no number: the run goes on as the same one.
    again = saying({"license": "MIT"})
    compress(again, recipe, out=tmp_path / "run")
    assert manifest(tmp_path / "run")["card"]["about"]["license"] == "MIT"


@pytest.mark.parametrize("about", ["Apache-2.0", {"license": 2}, {7: "x"}])
def test_about_is_words(about: Any) -> None:
    with pytest.raises(WorkloadError, match=r"Workload\(about"):
        saying(about)


def test_weaknesses_name_the_hardest_and_the_most_harmed() -> None:
    found = Diagnosis(
        reference="original",
        files={},
        probed="net",
        clean_before=0.95,
        clean_after=0.94,
        corrupted=(Corrupted("noise", 5, 0.5, 0.45), Corrupted("blur", 3, 0.9, 0.7)),
        attacked=(Attacked(1 / 255, 0.5, 0.6), Attacked(8 / 255, 0.05, 0.1)),
    )
    assert weaknesses(found, "net") == [
        "Scores 45.00 % under noise of severity 5, 94.00 % on clean samples.",
        "Lost most robustness by compression under blur of severity 3: 90.00 % → 70.00 %.",
        "A change of every value by 8/255, made to mislead, leaves 10.00 %.",
    ]
    assert weaknesses(found, "another") == []
