from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench.gate import GateCheck, GateReport, Limits, check_gate, parse_share
from edgekit.bench.junit import clean, junit, save_junit
from edgekit.bench.record import Accuracy, FailedResult, Record, Result
from edgekit.errors import ComparisonError, InputError


def result(
    artifact: str = "net.onnx", p50: float = 100_000, *, scatter: float = 0.005, **values: Any
) -> Result:
    rng = np.random.default_rng(round(p50))
    runs = p50 * rng.lognormal(0, scatter, 20)[:, None] * rng.lognormal(0, 0.01, (20, 30))
    base: dict[str, Any] = {
        "artifact": artifact,
        "sha256": "0" * 64,
        "size_bytes": 1000,
        "runtime": "onnxruntime",
        "threads": 1,
        "load": 1,
        "first": 1,
        "rounds": runs.astype(int).tolist(),
    }
    return Result(**{**base, **values})


def record(*results: Result, **values: Any) -> Record:
    base: dict[str, Any] = {
        "edgekit": "1",
        "created": "2026-01-02T03:04:05+00:00",
        "device": "pi",
        "transport": "ssh",
        "profile": {},
        "about": {"cpu": "Cortex-A76", "machine": "aarch64"},
        "settings": {},
        "results": results,
    }
    return Record(**{**base, **values})


def failed(artifact: str, error: str = "it crashed") -> FailedResult:
    return FailedResult(artifact=artifact, runtime="onnxruntime", threads=1, error=error)


def accurate(accuracy: float | None, samples: int = 100) -> Result:
    return result(accuracy=Accuracy(samples=samples, accuracy=accuracy))


def outcomes(report: GateReport) -> list[tuple[str, str]]:
    return [(one.kind, one.outcome) for one in report.checks]


@pytest.mark.parametrize(
    ("factor", "scatter", "outcome"),
    [
        (1.0, 0.005, "passed"),
        (0.5, 0.005, "passed"),
        (1.03, 0.005, "passed"),
        (1.08, 0.05, "warning"),
        (1.06, 0.005, "warning"),
        (1.2, 0.005, "failed"),
    ],
)
def test_only_a_proven_slow_down_fails(factor: float, scatter: float, outcome: str) -> None:
    old, new = record(result()), record(result(p50=100_000 * factor, scatter=scatter))
    report = check_gate(new, old)
    assert outcomes(report) == [("latency", outcome)]
    assert report.exit_code == (outcome == "failed")
    assert ("not certain" in report.checks[0].message) == (outcome == "warning")
    assert check_gate(new, old, strict=True).passed == (outcome == "passed")
    assert check_gate(new, old, max_slowdown=1.0).passed


@given(st.floats(0.5, 2), st.floats(0, 0.5))
def test_what_fails_a_limit_fails_every_lower_one(factor: float, limit: float) -> None:
    old, new = record(result()), record(result(p50=100_000 * factor))
    ranks = {"passed": 0, "warning": 1, "failed": 2}
    found = [ranks[check_gate(new, old, max_slowdown=one).checks[0].outcome] for one in (limit, limit / 2, 0)]
    assert found == sorted(found)


def test_instructions_are_gated_to_the_count() -> None:
    def counted(count: int) -> Record:
        return record(result(unit="instructions", rounds=((count,) * 3,) * 3), emulated=True)

    assert outcomes(check_gate(counted(1049), counted(1000))) == [("instructions", "passed")]
    report = check_gate(counted(1051), counted(1000))
    assert outcomes(report) == [("instructions", "failed")]
    assert report.checks[0].message == "executes 5.1 % more instructions; allowed +5.0 %"


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (0.90, 0.91, "passed"),
        (0.90, 0.895, "passed"),
        (0.90, 0.894, "failed"),
        (0.90, None, "warning"),
        (None, 0.5, None),
    ],
)
def test_accuracy_on_the_device(before: float | None, after: float | None, outcome: str | None) -> None:
    report = check_gate(record(accurate(after)), record(accurate(before)))
    found = [one for one in report.checks if one.kind == "accuracy"]
    assert [one.outcome for one in found] == ([outcome] if outcome else [])
    assert report.passed == (outcome != "failed")


def test_other_samples_can_prove_no_drop() -> None:
    report = check_gate(record(accurate(0.8, samples=200)), record(accurate(0.9, samples=100)))
    found = report.checks[1]
    assert found.outcome == "warning"
    assert "90.00 % → 80.00 % on the device" in found.message
    assert "of 100 samples before, of 200 now" in found.message


def test_size_is_checked_when_it_is_limited() -> None:
    old, new = record(result()), record(result(size_bytes=1101))
    assert check_gate(new, old).passed
    report = check_gate(new, old, max_growth=0.1)
    assert outcomes(report) == [("latency", "passed"), ("size", "failed")]
    assert "1.00 KB → 1.10 KB; +10.0 % is allowed" in report.checks[1].message
    assert check_gate(new, old, max_growth=0.101).passed


def test_what_was_measured_and_is_missing_or_fails_is_a_regression() -> None:
    old = record(result("a.onnx"), result("b.onnx"), result("c.onnx"), failures=(failed("d.onnx"),))
    new = record(
        result("a.onnx"),
        result("new.onnx", threads=3),
        failures=(failed("b.onnx", "out of\nmemory"), failed("d.onnx"), failed("e.onnx")),
    )
    report = check_gate(new, old)
    told = {one.subject.split(" ")[0]: (one.outcome, one.message) for one in report.checks}
    assert told["a.onnx"][0] == "passed"
    assert told["b.onnx"] == ("failed", "was measured before, and fails now: out of memory")
    assert told["c.onnx"] == ("failed", "was measured before, and is missing now")
    assert told["d.onnx"] == ("skipped", "fails as before: it crashed")
    assert told["e.onnx"] == ("warning", "fails, and has no baseline: it crashed")
    assert told["new.onnx"][0] == "skipped"
    assert [one.outcome for one in report.regressions] == ["failed", "failed"]


def test_a_file_that_fails_now_is_not_mistaken_for_another_that_is_new() -> None:
    """One result on either side would be a pair, whatever their names; here the old one crashed."""
    report = check_gate(record(result("b.onnx"), failures=(failed("a.onnx"),)), record(result("a.onnx")))
    assert [(one.subject.split(" ")[0], one.outcome) for one in report.checks] == [
        ("a.onnx", "failed"),
        ("b.onnx", "skipped"),
    ]


def test_what_cannot_be_compared_fails() -> None:
    report = check_gate(record(result(batch=8)), record(result()))
    assert outcomes(report) == [("measured", "failed")]
    assert "differ in batch; got batch 8, expected batch 1" in report.checks[0].message


def test_devices_that_are_missing_new_or_others(tmp_path: Path) -> None:
    old = [record(result()), record(result("a.onnx"), result("b.onnx"), device="phone")]
    new = [record(result()), record(result(), device="laptop")]
    report = check_gate(new, old)
    assert [(one.device, one.outcome) for one in report.checks] == [
        ("pi", "passed"),
        ("phone", "failed"),
        ("phone", "failed"),
        ("laptop", "skipped"),
    ]
    with pytest.raises(ComparisonError, match="different devices"):
        check_gate(new[1], old[0])
    with pytest.raises(ComparisonError, match="another machine"):
        check_gate(record(result(), about={"cpu": "x", "machine": "aarch64"}), old[0])
    with pytest.raises(ComparisonError, match="two records of one device"):
        check_gate([new[0], new[0]], old)
    with pytest.raises(ComparisonError, match="no records"):
        check_gate([], old)
    for name, records in (("old", old), ("new", new)):
        (tmp_path / name / "measurements").mkdir(parents=True)
        for one in records:
            one.save(tmp_path / name / "measurements" / f"{one.device}.json")
    from_folders = check_gate(tmp_path / "new", tmp_path / "old")
    assert set(from_folders.checks) == set(report.checks)
    assert json.loads(json.dumps(from_folders.to_json()))["passed"] is False


@pytest.mark.parametrize("limits", [{"max_slowdown": -0.1}, {"max_drop": float("nan")}, {"max_growth": -1}])
def test_limits_out_of_range_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(limits))):
        check_gate(record(result()), record(result()), **limits)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("5%", 0.05),
        (" 5 % ", 0.05),
        ("0.05", 0.05),
        ("150%", 1.5),
        ("0", 0.0),
        ("5", None),
        ("x", None),
        ("-1%", None),
    ],
)
def test_shares_are_read_and_ambiguous_ones_refused(text: str, share: float | None) -> None:
    if share is None:
        with pytest.raises(InputError, match="such as 5% or 0.05"):
            parse_share(text)
    else:
        assert parse_share(text) == pytest.approx(share)


# --- JUnit -----------------------------------------------------------------------------------------------


def test_junit_counts_what_it_holds(tmp_path: Path) -> None:
    old = [record(result("a.onnx"), result("b.onnx")), record(result(), device="phone")]
    new = [
        record(result("a.onnx", 106_000), failures=(failed("b.onnx", "<bad> & \x1b[31mred\x00"),)),
        record(result(), result("new.onnx", threads=2), device="phone"),
    ]
    report = check_gate(new, old)
    save_junit(report, tmp_path / "report.xml")
    root = xml.parse(tmp_path / "report.xml").getroot()
    assert (root.tag, [suite.tag for suite in root]) == ("testsuites", ["testsuite"] * 2)
    assert [suite.get("name") for suite in root] == ["pi", "phone"]
    for suite in root:
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
    assert [root.get(name) for name in ("tests", "failures", "skipped", "errors")] == ["4", "1", "1", "0"]
    (failure,) = root.iter("failure")
    assert failure.get("message", "").endswith("<bad> & \ufffd[31mred\ufffd")
    told = [one.text or "" for one in root.iter("system-out")]
    assert told[0].startswith("warning: not certain: ")
    assert told[1:] == [report.checks[-1].message]
    names = [(one.get("classname"), one.get("name")) for one in root.iter("testcase")]
    assert len(set(names)) == len(names)
    strict = xml.fromstring(junit(check_gate(new, old, strict=True)))
    assert (strict.get("failures"), len(list(strict.iter("failure")))) == ("2", 2)


@given(st.text(alphabet=st.characters()), st.text(alphabet=st.characters()))
def test_junit_is_well_formed_whatever_a_device_says(subject: str, message: str) -> None:
    """Hypothesis draws control characters and lone surrogates, too."""
    check = GateCheck.model_construct(
        device=subject, subject=subject, kind="measured", outcome="failed", message=message
    )
    report = GateReport.model_construct(
        new="", old="", limits=Limits(), checks=(check,), created={subject: message}, notes=()
    )
    (failure,) = xml.fromstring(junit(report)).iter("failure")
    assert failure.get("message") == clean(message)
    assert clean(clean(message)) == clean(message)
    assert len(clean(message)) == len(message)
