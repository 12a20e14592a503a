"""What benchmarks/torture.py makes of trials and mutations, and what the README says of it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest


@pytest.fixture(scope="module")
def script(root: Path) -> dict[str, Any]:
    return runpy.run_path(str(root / "benchmarks" / "torture.py"))


def trial(kind: str, **more: Any) -> dict[str, Any]:
    plain = {"kind": kind, "command": "bench", "seed": "x", "hits": 2, "deaths": 0, "told": [], "faults": []}
    return {**plain, **more}


def test_a_fault_is_no_equal_end(script: dict[str, Any]) -> None:
    (kills, memory) = script["summed"](
        [
            trial("SIGKILL", told=["a", "b"]),
            trial("SIGKILL", command="export", faults=["other files: x"], told=["a"]),
            trial("little memory", deaths=1),
        ]
    )
    assert (kills["trials"], kills["hits"], kills["equal"]) == (2, 4, 1)
    assert kills["commands"] == {"bench": 1, "export": 1}
    assert kills["told"] == {"a": 2, "b": 1}
    assert memory["deaths"] == 1


def test_no_path_of_a_machine_is_published(script: dict[str, Any]) -> None:
    told = "error: /home/me/x-1/run/report.html: can't write"
    (row,) = script["summed"]([trial("a full disk", told=[told], faults=[f"exit code 1: {told}"])])
    assert row["told"] == {"error: …/report.html: can't write": 1}
    assert row["faults"] == ["exit code 1: error: …/report.html: can't write"]


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ('<properties><property name="mutations" value="20"/></properties>', (20, "")),
        (
            '<failure message="AssertionError: Traceback"/><properties><property name="mutations" value="7"/>'
            "</properties>",
            (7, "AssertionError: Traceback"),
        ),
        ('<error message="no such file"/>', (0, "no such file")),
    ],
)
def test_a_kind_says_how_far_it_got(script: dict[str, Any], inner: str, expected: tuple[int, str]) -> None:
    case = ElementTree.fromstring(f'<testcase name="test_plans" time="3.4">{inner}</testcase>')
    row = script["row_of"](case)
    assert (row["tried"], row["fault"]) == expected
    assert (row["kind"], row["seconds"]) == ("plans", 3)


def test_faults_are_said_in_bold(root: Path, script: dict[str, Any]) -> None:
    summary = runpy.run_path(str(root / "scripts" / "torture_summary.py"))["summary"]
    kinds = ("SIGKILL", "SIGTERM", "a killed child", "a full disk", "little memory")
    mutated = [{"kind": "plans", "tried": 20_000, "fault": ""}, {"kind": "models", "tried": 50, "fault": ""}]
    sound = {"trials": script["summed"]([trial(kind) for kind in kinds]), "mutations": mutated}
    text = summary(sound)
    assert "**" not in text
    for part in (
        "all of 3 trials",
        "all of 2 trials",
        "20,050 damaged files of 2 kinds",
        "20,000 of each: none",
    ):
        assert part in text
    bad = {**sound, "mutations": [{**mutated[0], "fault": "x"}, mutated[1]]}
    assert "**1** that didn't end" in summary(bad)
    worse = script["summed"]([*(trial(kind) for kind in kinds), trial("SIGKILL", faults=["x"])])
    assert "**3 of 4** trials" in summary({**sound, "trials": worse})
    died = script["summed"]([*(trial(kind) for kind in kinds), trial("little memory", deaths=1)])
    assert "but for 1 that memory ended" in summary({**sound, "trials": died})
