from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Load = Callable[[str], Any]


def make(script: Load, where: dict[str, Any], **changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "edgekit": 2.0,
        "peer": 1.0,
        "peer_name": "a peer",
        "ratio": 2.0,
        "samples": 3,
        "about": where,
    }
    made: dict[str, Any] = script("rows").row("a name", "a metric", "s", **{**values, **changed})
    return made


def test_a_row_has_every_field_of_the_schema(script: Load, about: dict[str, Any]) -> None:
    made = make(script, about, settings={"lr": 0.1})
    assert list(made)[: len(script("rows").FIELDS)] == [
        "name", "metric", "unit", "edgekit", "peer", "peer_name", "ratio", "samples",
        "machine", "versions", "commit",
    ]  # fmt: skip
    assert made["settings"] == {"lr": 0.1}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"samples": 2.5}, "samples is 2.5"),
        ({"edgekit": True}, "edgekit is True"),
        ({"peer": "fast"}, "peer is 'fast'"),
        ({"ratio": math.nan}, "ratio is nan"),
        ({"details": {"curve": [1.0, math.inf]}}, r"details.curve\[1\] is inf"),
        ({"ratio": None}, "no `error` says why"),
        ({"about": {"machine": {}, "versions": {}}}, "commit is missing"),
    ],
)
def test_what_is_no_row_is_refused(
    changed: dict[str, Any], said: str, script: Load, about: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=said):
        make(script, about, **changed)


def test_a_missing_figure_needs_a_reason(script: Load, about: dict[str, Any]) -> None:
    made = make(script, about, ratio=None, error="the peer failed")
    assert made["ratio"] is None
    assert "the peer failed" in script("rows").table([made])


def test_nothing_is_written_if_one_row_is_none(script: Load, about: dict[str, Any], tmp_path: Path) -> None:
    good = make(script, about)
    path = tmp_path / "results" / "x.json"
    with pytest.raises(ValueError, match="unit is missing"):
        script("rows").write(path, [good, {key: value for key, value in good.items() if key != "unit"}])
    assert not path.exists()
    script("rows").write(path, [good])
    assert json.loads(path.read_text()) == [good]


def test_the_command_leaves_folders_out(script: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["/a/b/x.py", "--data", "/secret", "--epochs", "3", "--work=/w", "--out", "/o", "--smoke"]
    monkeypatch.setattr("sys.argv", given)
    assert script("rows").command() == "python benchmarks/x.py --epochs 3 --smoke"
