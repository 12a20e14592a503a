from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from edgekit.bench.compare import compare_records, compare_results
from edgekit.bench.comparison import CompareReport
from edgekit.bench.gate import check_gate
from edgekit.bench.record import Accuracy, FailedResult, OpTime, Record, Result
from edgekit.cli.views.bench import bench_view, compare_view, gate_view
from edgekit.cli.views.console import console_on
from edgekit.cli.views.device import devices_view

NAME = "exports/mobilenetv2-int8.onnx"


def result(artifact: str = NAME, p50: float = 200_000, **values: Any) -> Result:
    runs = p50 * np.random.default_rng(0).lognormal(0, 0.01, (20, 60))
    base: dict[str, Any] = {
        "artifact": artifact,
        "sha256": "0" * 64,
        "size_bytes": 1_230_000,
        "runtime": "onnxruntime",
        "threads": 1,
        "load": 12_000_000,
        "first": 400_000,
        "rounds": runs.astype(int).tolist(),
        "peak_rss_bytes": 45_600_000,
    }
    return Result(**{**base, **values})


def counted(artifact: str, count: int) -> Result:
    return result(artifact, unit="instructions", rounds=((count,) * 3,) * 3, load=5_000_000, first=2_300_000)


def record(*results: Result, **values: Any) -> Record:
    base: dict[str, Any] = {
        "edgekit": "1",
        "created": "2026-01-02T03:04:05+00:00",
        "device": "pi",
        "transport": "ssh",
        "profile": {},
        "about": {"cpu": "Cortex-A76"},
        "settings": {},
        "results": results,
    }
    return Record(**{**base, **values})


def shown(view: RenderableType, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(view)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return "\n".join(line.rstrip() for line in lines)


def compared(old: Record, new: Record) -> CompareReport:
    return CompareReport(first="old", second="new", comparisons=tuple(compare_records(old, new)))


def test_bench_shows_figures_that_fit_into_80_columns() -> None:
    accuracy = Accuracy(samples=256, accuracy=0.9123)
    text = shown(
        bench_view(record(result("exports/mobilenetv2-fp32.onnx"), result(p50=104_000, accuracy=accuracy)))
    )
    assert "pi  Cortex-A76  2026-01-02" in text
    assert " 2  exports/mobilenetv2-int8.onnx in onnxruntime, 1 thread" in text
    for piece in ("200 µs ±0.", "104 µs ±0.", "p99", "400 µs", "12.0 ms", "1.23 MB", "45.6 MB", "91.23 %"):
        assert piece in text
    assert "1: −48.0 % time" in text
    assert "energy" not in text
    p99 = f"{np.percentile(result().samples, 99) / 1000:.0f} µs"
    assert p99 in text.split("against")[0].splitlines()[-4]
    assert "energy" in shown(bench_view(record(result(energy_uj=12.0))))


def test_p99_is_left_out_where_it_is_not_supported() -> None:
    few = result(rounds=[row[:20] for row in result().rounds])
    line = next(line for line in shown(bench_view(record(few))).splitlines() if "±" in line)
    assert line.split()[-5] == "–"


def test_failures_and_doubts_stand_before_all_figures() -> None:
    failed = FailedResult(
        artifact="x.onnx", runtime="onnxruntime", threads=2, error="crashed\n  got: [SIGILL]"
    )
    text = shown(bench_view(record(result(unstable="it drifts; let it cool"), failures=(failed,))))
    figures = text.index("p50")
    for piece in ("✗ x.onnx in onnxruntime, 2 threads", "[SIGILL]", "it drifts; let it cool"):
        assert text.index(piece) < figures
    assert "crashed" in shown(bench_view(record(failures=(failed,))))


@pytest.mark.parametrize("view", ["bench", "compare", "gate"])
def test_what_was_counted_is_never_shown_as_a_time(view: str) -> None:
    old = record(counted("a.onnx", 2_160_000), counted("b.onnx", 1_160_000), emulated=True)
    new = record(counted("a.onnx", 2_500_000), counted("b.onnx", 1_100_000), emulated=True)
    report = {
        "bench": lambda: bench_view(old),
        "compare": lambda: compare_view(compared(old, new)),
        "gate": lambda: gate_view(check_gate(new, old)),
    }[view]()
    text = shown(report)
    assert "they say nothing of time" in " ".join(text.split())
    rest = text.replace("nothing of time", "").replace("onnxruntime", "")
    for word in (" ns", "µs", " ms", "p50", "p99", "faster", "slower", "time"):
        assert word not in rest
    assert "instructions" in rest
    if view != "gate":
        assert "2.16 M" in text


def test_ops_are_listed_by_their_share() -> None:
    ops = [OpTime(name=f"op{k}", kind="Conv", calls=k, share=k / 105, integer=k > 3) for k in range(1, 15)]
    text = shown(bench_view(record(result(ops=tuple(ops)))))
    assert "op (12 of 14)" in text
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("op") and "(" not in line]
    assert rows == [f"op{k}" for k in range(14, 2, -1)]
    assert "13.3 %  integer" in text
    assert "2.9 %  float" in text


def test_compare_shows_what_got_slower_first() -> None:
    def answers(accuracy: float) -> Accuracy:
        return Accuracy(samples=10, accuracy=accuracy)

    old = record(result("a.onnx"), result("b.onnx"), result("c.onnx", accuracy=answers(0.9)))
    new = record(
        result("a.onnx", 100_000),
        result("b.onnx", size_bytes=615_000),
        result("c.onnx", 260_000, accuracy=answers(0.88)),
    )
    more = {"unmatched": ("d.onnx: only in old",), "notes": ("apart",)}
    report = compared(old, new).model_copy(update=more)
    text = shown(compare_view(report))
    places = [text.index(piece) for piece in ("slower: takes 30.0 % more", "not distinguishable", "faster: ")]
    assert places == sorted(places)
    for piece in ("200 µs → 260 µs", "90.00 % → 88.00 % (−2.00 points)", "1.23 MB → 615 KB (−50.0 %)"):
        assert piece in text
    assert "! not compared: d.onnx: only in old" in text
    assert "apart" in text
    (within,) = [compare_results(old, 0, 1)]
    told = shown(compare_view(CompareReport(first="r", second="r", comparisons=(within,))))
    assert "against   a.onnx" in told
    assert "from" not in told


def test_gate_shows_regressions_first() -> None:
    old = record(result("a.onnx"), result("b.onnx"), result("gone.onnx"))
    new = record(result("a.onnx"), result("b.onnx", 260_000), result("new.onnx", threads=2))
    text = shown(gate_view(check_gate(new, old)))
    assert text.startswith("2 regressions")
    marks = [line.split()[0] for line in text.splitlines() if " on pi" in line]
    assert marks == ["failed", "failed", "skipped", "ok"]
    assert "missing now" in text
    assert shown(gate_view(check_gate(old, old))).startswith("no regression")


def test_names_are_shown_and_not_obeyed() -> None:
    """Of files, ops and devices: neither what terminals obey nor rich's markup."""
    op = OpTime(name="[/x]\x1b[2J", kind="\x9b", calls=1, share=1.0, integer=True)
    evil = result("[red]a[/y]\x1b]0;x\x07.onnx", ops=(op,))
    compared = tuple(compare_records(record(evil), record(evil)))
    stream = io.StringIO()
    for view in (
        bench_view(record(evil, device="\x1bpi")),
        compare_view(CompareReport(first="\x1b", second="", comparisons=compared)),
        devices_view([{"name": "[/x]", "transport": "ssh", "address": "[/a]\x1b", "description": "[/d]"}]),
    ):
        console_on(stream).print(view)
    shown = stream.getvalue()
    assert all(one.isprintable() or one == "\n" for one in shown)
    for text in ("[red]a[/y]\\x1b]0;x", "[/x]\\x1b[2J", "\\x1bpi", "[/a]", "[/d]"):
        assert text in shown
