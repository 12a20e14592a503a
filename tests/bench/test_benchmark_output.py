"""What benchmark_model prints, in the format of its documentation: the figures in golden/ are made up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench.benchmark_output import Runs, parse

GOLDEN = Path(__file__).parent / "golden"
MIB = 1 << 20


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "init_us", "warmup", "runs"),
    [
        ("oldest", 3250, Runs(41, 18250, 12300.5), Runs(80, 12031, 12150.2)),
        ("plain", 18777, Runs(1, 64791, 64791), Runs(3, 1058154, 1057500)),
        ("percentiles", 855, Runs(490, 2104, 510.25), Runs(100, 501, 501)),
        ("profiled", 2000, Runs(1, 900, 900), Runs(20, 410, 402.5)),
        ("litert", 41500, Runs(12, 25000, 20600.5), Runs(3, 20050, 20070)),
    ],
)
def test_every_version_tells_its_times(name: str, init_us: float, warmup: Runs, runs: Runs) -> None:
    said = parse(golden(name))
    assert said.init_us == pytest.approx(init_us)
    assert (said.warmup, said.runs) == (warmup, runs)


@pytest.mark.parametrize(
    ("name", "peak", "growth"),
    [
        ("oldest", None, None),
        ("plain", 30.75 * MIB, 18.5 * MIB),
        ("percentiles", None, 12.5 * MIB),
        ("litert", 40.25 * MIB, 14.25 * MIB),
    ],
)
def test_memory_is_told_or_unknown(name: str, peak: float | None, growth: float | None) -> None:
    said = parse(golden(name))
    assert (said.peak_bytes, said.growth_bytes) == (peak, growth)


def test_what_a_build_ignored_and_what_it_applied() -> None:
    assert parse(golden("percentiles")).unknown_flags == (
        "--use_gpu=true",
        "--report_peak_memory_footprint=true",
    )
    assert parse(golden("plain")).unknown_flags == ()
    assert [parse(golden(name)).delegate for name in ("plain", "profiled", "percentiles")] == [
        True,
        True,
        False,
    ]


def test_ops_of_the_runs_without_those_of_initialization_and_none_twice() -> None:
    ops = parse(golden("profiled")).ops
    assert [(one.name, one.kind, one.calls) for one in ops] == [
        ("Delegate/Convolution (NHWC, QS8) IGEMM:0", "Convolution (NHWC, QS8) IGEMM", 20),
        ("Delegate/Fully Connected (NC, QS8) GEMM:1", "Fully Connected (NC, QS8) GEMM", 20),
        ("[net/softmax]:3", "SOFTMAX", 20),
    ]
    assert [one.share for one in ops] == pytest.approx([0.75, 0.15, 0.1])


def test_ops_of_the_oldest_which_count_no_calls() -> None:
    ops = parse(golden("oldest")).ops
    assert [(one.name, one.kind, one.calls, one.share) for one in ops] == [
        ("[net/conv/Relu]", "CONV_2D", 80, 0.75),
        ("[net/logits]", "FULLY_CONNECTED", 80, 0.25),
    ]


def test_kinds_of_ops_where_the_layers_are_not_listed() -> None:
    text = golden("oldest")
    without = text[: text.index("=" * 30 + " Run Order")] + text[text.index("Number of nodes") :]
    assert [(one.name, one.kind, one.calls) for one in parse(without).ops] == [
        ("CONV_2D", "CONV_2D", 80),
        ("FULLY_CONNECTED", "FULLY_CONNECTED", 80),
    ]


def test_a_table_of_another_version_is_no_profile_rather_than_a_wrong_one() -> None:
    assert parse(golden("profiled").replace("[avg ms]", "[mean µs]")).ops == ()
    started = golden("profiled").partition("INFO: Operator-wise")[0]
    assert parse(started).ops == ()  # only initialization was profiled


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("count=", "runs="), "0 lines of statistics"),
        (("count=3 first", "runs=3 first"), "1 lines of statistics"),
        (("avg=1.0575e+06", "avg=nan"), "can't be"),
        (("avg=1.0575e+06", "avg=-1"), "can't be"),
        (("count=1 curr=64791", "count=0"), "no runs"),
        (("nit", "xxx"), "initialization"),
    ],
)
def test_what_is_missing_is_named(change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(golden("plain").replace(*change))


RUNS = st.lists(st.integers(0, 10**9), min_size=1, max_size=30)


def printed(runs: list[int], *, percentiles: bool) -> str:
    """As the program's statistics print themselves: integers, and a mean with six significant digits."""
    line = f"count={len(runs)}"
    if len(set(runs)) == 1:
        line += f" curr={runs[-1]}" + ("(all same)" if len(runs) > 1 else "")
    else:
        mean = sum(runs) / len(runs)
        std = int(max(0.0, sum(one * one for one in runs) / len(runs) - mean * mean) ** 0.5)
        line += f" first={runs[0]} curr={runs[-1]} min={min(runs)} max={max(runs)} avg={mean:g} std={std}"
    if percentiles:
        ordered = sorted(runs)
        line += "".join(
            f" {name}={ordered[len(runs) * q // 100]}" for name, q in (("p5", 5), ("median", 50), ("p95", 95))
        )
    return line


@given(RUNS, RUNS, st.integers(0, 10**8), st.booleans(), st.booleans(), st.booleans())
def test_whatever_it_prints_is_read(
    warmup: list[int], runs: list[int], init: int, percentiles: bool, prefix: bool, summary: bool
) -> None:
    lines = [
        "STARTING!",
        f"Initialized session in {init / 1000:g}ms.",
        printed(warmup, percentiles=percentiles),
        "",
        printed(runs, percentiles=percentiles),
        "",
    ]
    if summary:
        lines.append(f"Inference timings in us: Init: {init}, First inference: {warmup[0]}, Warmup (avg): 1")
    said = parse("\n".join(f"INFO: {line}" if prefix and line else line for line in lines))
    assert (said.warmup.count, said.runs.count) == (len(warmup), len(runs))
    assert (said.warmup.first_us, said.runs.first_us) == (warmup[0], runs[0])
    assert said.runs.mean_us == pytest.approx(sum(runs) / len(runs), rel=1e-5)
    assert said.init_us == (init if summary else pytest.approx(init, rel=1e-5))


@given(st.text(max_size=200), st.integers(0, 12))
def test_garbage_within_is_read_or_refused_and_nothing_else(noise: str, at: int) -> None:
    lines = golden("percentiles").split("\n")
    lines.insert(at, re.sub(r"[\r\n]", " ", noise))
    try:
        said = parse("\n".join(lines))
    except ValueError:
        return
    assert said.runs.count >= 1
