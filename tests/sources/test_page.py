"""The commands and functions of docs/sources.md run as they are printed, on small data."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import onnx
import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from edgekit import load_model
from edgekit.cli.app import app
from tests.detection.test_layouts import HELD_OUT, TRAIN, coco, pictures
from tests.pictures.made import folder as photos
from tests.sounds.made import folder as sounds
from tests.sources.fake import install
from tests.sources.test_onnx_source import network
from tests.texts.made import table
from tests.texts.test_tokens import model as bert

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
# Blocks of commands, but for those that a comment says aren't run here.
BLOCKS = re.findall(r"(?:^|\n)(?!<!-- not run here)[^\n]*\n```\n(edgekit .*?)```", PAGE, re.DOTALL)
QUICK = [
    "--set",
    "exports.formats=[onnx]",
    "--set",
    "benchmark.min_seconds=0.01",
    "--set",
    "diagnose.samples=0",
]


def functions() -> dict[str, str]:
    """Files of the page, by the name of their function."""
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return {name: code for code in codes for name in ("spotter", "detector") if f"def {name}(" in code}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, code in functions().items():
        Path(f"{name}.py").write_text(code)
        made = load_model(f"{name}.py:{name}", 2).state_dict()
        save_file({key: value.contiguous() for key, value in made.items()}, f"{name}.safetensors")
    return tmp_path


def told(command: str, *more: str) -> str:
    words = shlex.split(command, comments=True)
    assert words[0] == "edgekit"
    result = CliRunner().invoke(app, [*words[1:], *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return result.stdout


def commands(of: str) -> list[str]:
    (found,) = [block for block in BLOCKS if of in block]
    return [line for line in found.splitlines() if line.startswith("edgekit ")]


def run(of: str) -> dict[str, object]:
    """All of a block; the report of the last one."""
    *first, last = commands(of)
    for command in first:
        told(command)
    report: dict[str, object] = json.loads(told(last, "--json", "--quiet", *QUICK))
    return report


def test_every_block_of_commands_is_known() -> None:
    assert len(BLOCKS) == 5
    assert sorted(functions()) == ["detector", "spotter"]


def test_init_of_pictures(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place / "packages", monkeypatch)
    photos(place / "photos")
    (command,) = commands("timm:")
    told(command.replace("mobilenetv3_small_100", "tinynet_a"))
    assert "def workload" in Path("my_workload.py").read_text()


@pytest.mark.wide
def test_texts(place: Path) -> None:
    pytest.importorskip("transformers")
    table(place / "queries.csv")
    bert(place / "bert")
    report = run("hf:bert")
    assert any("int8" in one["file"] for one in report["artifacts"])  # type: ignore[attr-defined]


@pytest.mark.wide
def test_sounds(place: Path) -> None:
    sounds(place / "sounds")
    report = run("spotter.py")
    assert any("int8" in one["file"] for one in report["artifacts"])  # type: ignore[attr-defined]


@pytest.mark.wide
def test_boxes(place: Path) -> None:
    pictures(place / "cells" / "images", range(9))
    coco(place / "cells" / "train.json", TRAIN, "images/")
    coco(place / "cells" / "val.json", HELD_OUT, "images/")
    report = run("detector.py")
    assert report["task"]["kind"] == "detection"  # type: ignore[index]
    assert any("int8" in one["file"] for one in report["artifacts"])  # type: ignore[attr-defined]


@pytest.mark.wide
def test_an_onnx_file(place: Path) -> None:
    photos(place / "photos")
    onnx.save(network(), place / "model.onnx")
    report = run("model.onnx")
    assert "load_model(f" in Path("my_workload.py").read_text()
    assert any("int8" in one["file"] for one in report["artifacts"])  # type: ignore[attr-defined]


def test_first_lines_of_the_readme_are_lines_of_the_page() -> None:
    """Those run above."""
    rows = [
        row
        for row in (Path(__file__).parents[2] / "README.md").read_text().splitlines()
        if "| `edgekit" in row
    ]
    lines = [line for row in rows for line in re.findall(r"`(edgekit [^`]*)`", row)]
    assert len(rows) == 5
    known = {line.split("#")[0].strip() for line in PAGE.splitlines() if line.startswith("edgekit ")}
    assert len(lines) == 5
    assert set(lines) <= known
