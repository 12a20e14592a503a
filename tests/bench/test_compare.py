from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench.compare import compare, compare_pair, compare_records, compare_results
from edgekit.bench.matching import load_records, match
from edgekit.bench.record import Accuracy, FailedResult, Record, Result
from edgekit.errors import ComparisonError

ABOUT = {"cpu": "Cortex-A76", "machine": "aarch64"}


def rounds(p50: float, seed: int, count: int = 20, runs: int = 30) -> tuple[tuple[int, ...], ...]:
    """Runs whose rounds are up to some per cent slow, alike for equal seeds: as if taken in turns."""
    level = np.random.default_rng(seed).lognormal(0, 0.03, count)
    noise = np.random.default_rng(round(p50) + seed).lognormal(0, 0.01, (count, runs))
    return tuple(tuple(int(value) for value in row) for row in p50 * level[:, None] * noise)


def result(artifact: str = "net-int8.onnx", p50: float = 100_000, seed: int = 0, **values: Any) -> Result:
    runtime = {"onnx": "onnxruntime", "tflite": "litert"}[artifact.rsplit(".")[-1]]
    base: dict[str, Any] = {
        "artifact": artifact,
        "sha256": "0" * 64,
        "size_bytes": 1000,
        "runtime": runtime,
        "threads": 1,
        "load": 1,
        "first": 1,
        "rounds": rounds(p50, seed),
        "peak_rss_bytes": 5_000_000,
    }
    return Result(**{**base, **values})


def counted(artifact: str, *counts: int, **values: Any) -> Result:
    return result(artifact, unit="instructions", rounds=(counts,) * 3, **values)


def record(*results: Result, **values: Any) -> Record:
    base: dict[str, Any] = {
        "edgekit": "1",
        "created": "2026-01-02T03:04:05+00:00",
        "device": "pi",
        "transport": "ssh",
        "profile": {},
        "about": ABOUT,
        "settings": {"input": "random"},
        "results": results,
    }
    return Record(**{**base, **values})


def failed(artifact: str, error: str = "it crashed") -> FailedResult:
    return FailedResult(artifact=artifact, runtime="onnxruntime", threads=1, error=error)


# --- the verdict -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "verdict", "says"),
    [
        (1.0, "not distinguishable", "not distinguishable (−"),
        (1.2, "slower", "% more time (+"),
        (0.8, "faster", " % less time (−"),
        (2.5, "slower", "times as long"),
        (0.25, "faster", "times as fast (−7"),
    ],
)
@pytest.mark.parametrize("in_turns", [True, False])
def test_the_second_is_judged_against_the_first(
    factor: float, verdict: str, says: str, in_turns: bool
) -> None:
    one, other = result("a.onnx"), result("b.onnx", 100_000 * factor)
    if in_turns:
        found = compare_results(record(one, other), 0, 1)
    else:
        found = compare_pair(record(one), 0, record(other), 0)
    assert found.verdict == verdict
    assert says in found.text
    assert found.in_turns is in_turns
    assert found.ratio.low < factor < found.ratio.high
    assert found.ratio.value == pytest.approx(factor, rel=0.02)
    assert found.second.p50 / found.first.p50 == pytest.approx(factor, rel=0.03)
    assert "instructions" not in found.text


def test_taking_turns_finds_what_measuring_apart_cannot() -> None:
    one, other = result("a.onnx", seed=4), result("b.onnx", 104_000, seed=4)
    assert compare_results(record(one, other), 0, 1).verdict == "slower"
    assert compare_pair(record(one), 0, record(other), 0).verdict == "not distinguishable"


@given(st.floats(0.3, 3), st.booleans())
def test_swapping_the_sides_turns_the_verdict_around(factor: float, in_turns: bool) -> None:
    both = record(result("a.onnx"), result("b.onnx", 100_000 * factor))
    ways = [compare_results(both, 0, 1), compare_results(both, 1, 0)]
    if not in_turns:
        ways = [compare_pair(both, 0, both, 1), compare_pair(both, 1, both, 0)]
    opposite = {"faster": "slower", "slower": "faster"}
    assert ways[0].verdict == opposite.get(ways[1].verdict, ways[1].verdict)
    assert ways[0].ratio.low == pytest.approx(1 / ways[1].ratio.high)


def test_instructions_are_exact_and_never_called_time() -> None:
    """Three in a thousand: no timing could tell that."""
    both = record(
        counted("a.onnx", 1000, 1001, 1002),
        counted("b.onnx", 969, 970, 970),
        counted("c.onnx", 1001, 1002, 1003),
        counted("d.onnx", 1003, 1004, 1004),
        emulated=True,
    )
    found = [compare_results(both, 0, j) for j in (1, 2, 3)]
    assert [one.verdict for one in found] == ["fewer", "not distinguishable", "more"]
    assert found[0].text == "executes 3.1 % fewer instructions"
    assert found[2].text == "executes 0.3 % more instructions"
    same = record(counted("a.onnx", 7, 7), counted("b.onnx", 7, 7))
    assert compare_results(same, 0, 1).text == "executes exactly as many instructions"
    for one in found:
        assert not any(word in one.text for word in ("time", "faster", "slower", "µs", "ms"))


def test_what_else_changed_is_told() -> None:
    def answers(accuracy: float | None) -> Accuracy:
        return Accuracy(samples=10, accuracy=accuracy)

    old = record(result(accuracy=answers(0.91), runtime_version="1.20", unstable="drifts"))
    new = record(
        result(size_bytes=700, peak_rss_bytes=6_000_000, accuracy=answers(0.9), runtime_version="1.21"),
        profile={"affinity": [2]},
        edgekit="2",
        settings={"input": "data"},
    )
    found = compare_pair(old, 0, new, 0)
    assert (found.size_bytes, found.peak_rss_bytes) == (-300, 1_000_000)
    assert found.accuracy_points == pytest.approx(-1.0)
    told = "\n".join(found.notes)
    for piece in (
        "drifts",
        "onnxruntime was 1.20, and is 1.21",
        "affinity",
        "edgekit 1 and 2",
        "random input",
    ):
        assert piece in told
    unknown = compare_pair(old, 0, record(result(accuracy=answers(None))), 0)
    assert unknown.accuracy_points is None


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"device": "phone"}, ("different devices", "phone", "pi", "takes turns")),
        (
            {"about": {**ABOUT, "cpu": "Cortex-A53"}},
            ("another machine now (cpu)", "Cortex-A53", "Cortex-A76"),
        ),
        ({"about": {**ABOUT, "machine": "armv7l"}}, ("(machine)", "armv7l", "aarch64")),
        ({"emulated": True}, ("emulated device can't be compared", "counts instructions", "measures time")),
    ],
)
def test_other_devices_are_refused(changed: dict[str, Any], says: tuple[str, ...]) -> None:
    for call in (lambda a, b: compare_pair(a, 0, b, 0), compare_records):
        with pytest.raises(ComparisonError) as caught:
            call(record(result()), record(result(), **changed))
        assert all(piece in str(caught.value) for piece in says)
        assert caught.value.next


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"threads": 4}, "threads"), ({"batch": 8}, "batch"), ({"unit": "instructions"}, "unit")],
)
def test_other_work_is_refused(changed: dict[str, Any], name: str) -> None:
    both = record(result("a.onnx"), result("b.onnx", **changed))
    with pytest.raises(ComparisonError, match=f"differ in {name}") as caught:
        compare_results(both, 0, 1)
    assert f"{name} {changed[name]}" in caught.value.got


def test_too_few_rounds_are_refused() -> None:
    few = [result(name, rounds=rounds(100, 0, count=7)) for name in ("a.onnx", "b.onnx")]
    with pytest.raises(ComparisonError, match=r"7 rounds can't support[\s\S]*8 rounds or more"):
        compare_results(record(*few), 0, 1)
    nothing = result("b.onnx", rounds=((0, 0),) * 20)
    with pytest.raises(ComparisonError, match="not positive"):
        compare_pair(record(result("a.onnx")), 0, record(nothing), 0)


# --- which are compared ----------------------------------------------------------------------------------


def test_two_records_are_matched_by_name_then_by_format_and_precision() -> None:
    old = record(
        result("exports/net-int8.onnx"),
        result("exports/net-fp32.onnx"),
        result("exports/net-int8.tflite"),
        result("exports/net-int8.onnx", threads=4),
        result("exports/gone-fp16.onnx"),
    )
    new = record(
        result("exports/net-int8.tflite"),
        result("small-int8.onnx", 50_000),
        result("exports/net-fp32.onnx"),
        result("small-int8.onnx", threads=2),
    )
    found = compare_records(old, new)
    assert [(one.first.artifact, one.second.artifact, one.verdict) for one in found] == [
        ("exports/net-int8.onnx", "small-int8.onnx", "faster"),
        ("exports/net-fp32.onnx", "exports/net-fp32.onnx", "not distinguishable"),
        ("exports/net-int8.tflite", "exports/net-int8.tflite", "not distinguishable"),
    ]


def test_what_could_match_twice_is_not_matched() -> None:
    one, two = [result("a-int8.onnx"), result("b-int8.onnx")], [result("c-int8.onnx")]
    assert match(one, two).pairs == ()
    assert match(one, two).only_first == (0, 1)
    assert match(two, one).only_second == (0, 1)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["int8", "fp32"]), st.integers(1, 2)), max_size=6
    ),
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["int8", "fp32"]), st.integers(1, 2)), max_size=6
    ),
)
def test_each_result_is_matched_once_or_told(one: list[Any], other: list[Any]) -> None:
    sides = [
        [failed(f"{name}-{kind}.onnx").model_copy(update={"threads": n}) for name, kind, n in side]
        for side in (one, other)
    ]
    found = match(*sides)
    assert sorted([i for i, _ in found.pairs] + list(found.only_first)) == list(range(len(one)))
    assert sorted([j for _, j in found.pairs] + list(found.only_second)) == list(range(len(other)))
    for i, j in found.pairs:
        assert (len(one), len(other)) == (1, 1) or one[i][1:] == other[j][1:]


def test_one_result_each_is_a_pair_whatever_the_names() -> None:
    (found,) = compare_records(record(result("a.onnx")), record(result("b.tflite", 50_000)))
    assert found.verdict == "faster"
    with pytest.raises(ComparisonError, match="differ in threads"):
        compare_records(record(result("a.onnx")), record(result("a.onnx", threads=2)))


def test_nothing_in_common_is_an_error_that_lists_both() -> None:
    with pytest.raises(ComparisonError, match="nothing can be compared") as caught:
        compare_records(
            record(result("a.onnx"), result("b.onnx")),
            record(result("a.tflite"), failures=(failed("b.onnx"),)),
        )
    for piece in ("a.onnx in onnxruntime, 1 thread: only in", "a.tflite", "failed in pi: it crashed"):
        assert piece in caught.value.got


# --- files and folders -----------------------------------------------------------------------------------


def test_files_folders_and_run_folders(tmp_path: Path) -> None:
    for name, factor in (("old", 1.0), ("new", 1.5)):
        folder = tmp_path / name / ("measurements" if name == "new" else "")
        folder.mkdir(parents=True)
        record(result(p50=100_000 * factor)).save(folder / "pi.json")
        record(result(p50=300_000 * factor), device=f"only-{name}").save(folder / "x.json")
        (tmp_path / name / "notes.txt").write_text("no results")
    (tmp_path / "new" / "report.json").write_text("{}")  # of a run folder, no record
    report = compare(tmp_path / "old", tmp_path / "new")
    assert [(one.device, one.verdict) for one in report.comparisons] == [("pi", "slower")]
    assert [one.split(":")[0] for one in report.unmatched] == ["only-old", "only-new"]
    assert "taking turns compares best" in report.notes[0]
    assert json.loads(json.dumps(report.to_json()))["comparisons"][0]["ratio"]["level"] == 0.99
    report = compare(tmp_path / "old" / "pi.json", tmp_path / "new" / "measurements" / "pi.json")
    assert report.comparisons[0].verdict == "slower"
    with pytest.raises(ComparisonError, match="different devices"):
        compare(tmp_path / "old" / "pi.json", tmp_path / "old" / "x.json")


def test_one_file_is_compared_with_its_first_of_as_many_threads(tmp_path: Path) -> None:
    record(
        result("a.onnx"),
        result("b.onnx", 80_000),
        result("a.onnx", 60_000, threads=2),
        result("b.onnx", 90_000, threads=2),
        result("b.onnx", 90_000, batch=2),
        failures=(failed("c.onnx", "no such\n  file"),),
    ).save(tmp_path / "r.json")
    report = compare(tmp_path / "r.json")
    assert [(one.first.label, one.verdict) for one in report.comparisons] == [
        ("a.onnx in onnxruntime, 1 thread", "faster"),
        ("a.onnx in onnxruntime, 2 threads", "slower"),
    ]
    assert all(one.in_turns for one in report.comparisons)
    assert report.notes == ()
    assert [line for line in report.unmatched if "batch" in line or "failed: no such file" in line] == list(
        report.unmatched
    )


def test_files_that_hold_nothing_to_compare_are_refused(tmp_path: Path) -> None:
    record(result("a.onnx")).save(tmp_path / "one.json")
    with pytest.raises(ComparisonError, match="nothing to compare within this file") as caught:
        compare(tmp_path / "one.json")
    assert caught.value.got == "results: a.onnx in onnxruntime, 1 thread"
    with pytest.raises(ComparisonError, match="can't be read"):
        compare(tmp_path / "absent.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ComparisonError, match="no results in this folder"):
        load_records(tmp_path / "empty")
    record(result("a.onnx")).save(tmp_path / "two.json")
    with pytest.raises(ComparisonError, match=r"one.json and two.json, both of pi[\s\S]*next"):
        load_records(tmp_path)
    (tmp_path / "empty" / "x.json").write_text("{}")
    with pytest.raises(ComparisonError, match="holds no results"):
        compare(tmp_path / "empty", tmp_path / "one.json")
    (tmp_path / "other").mkdir()
    for k in "ab":
        record(result(), device=k).save(tmp_path / "other" / f"{k}.json")
    with pytest.raises(ComparisonError, match="no device in common"):
        compare(tmp_path / "other", tmp_path / "one.json")
