"""The recommendation, the warnings, and report.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report import (
    Artifact,
    Failed,
    Figures,
    FloatLayer,
    InRuntime,
    LostChannel,
    LostChannels,
    Measured,
    Report,
    StageRow,
    Warned,
    recommend,
    verdicts,
)
from edgekit.units import score_name

ORIGINAL = "artifacts/original_fp32.onnx"
INT8_ONNX, INT8_LITERT = "artifacts/net_int8.onnx", "artifacts/net_int8.tflite"


def artifact(file: str, accuracy: float = 0.915, size_bytes: int = 1000, **values: Any) -> Artifact:
    return Artifact(
        file=file,
        format="litert" if file.endswith("tflite") else "onnx",
        precision="int8" if "int8" in file else "fp32",
        sha256="0" * 64,
        size_bytes=size_bytes,
        accuracy=accuracy,
        **{
            "agreement": 1.0,
            "parity": 1.0,
            "int8_coverage": 1.0 if "int8" in file else 0.0,
            "parameters": 100,
            "macs": 1000,
            "parent": "" if file == ORIGINAL else "qat",
            **values,
        },
    )


def measured(file: str, p50_us: float, threads: int = 1, device: str = "local", **values: Any) -> Measured:
    return Measured(
        artifact=file,
        device=device,
        threads=threads,
        p50_ns=round(1000 * p50_us),
        p90_ns=round(1100 * p50_us),
        samples=50,
        **{"runtime": "litert" if file.endswith("tflite") else "onnxruntime", **values},
    )


FILES = [artifact(ORIGINAL, 0.92, 4000), artifact(INT8_ONNX, 0.915), artifact(INT8_LITERT, 0.913, 1100)]
TIMES = [measured(ORIGINAL, 800), measured(INT8_ONNX, 400), measured(INT8_LITERT, 200)]


def told(files: list[Artifact] = FILES, times: list[Measured] = TIMES, **values: Any) -> Any:
    return recommend(files, times, **{"accuracy": 0.92, "reference": ORIGINAL, **values})


# --- which file is recommended ---------------------------------------------------------------------------


def test_the_fastest_file_within_the_limit_with_its_figures() -> None:
    chosen = told()
    assert (chosen.artifact, chosen.runtime, chosen.threads) == (INT8_LITERT, "litert", 1)
    for figure in (
        "91.30 %",
        "−0.70 points",
        "200 µs",
        "4.00×",
        "800 µs",
        "1.10 KB",
        "3.64× smaller",
        "1 thread",
    ):
        assert figure in chosen.reason
    assert chosen.reason.endswith(".")


class TestAnotherRuntime:
    """A file is recommended with the runtime in which it is fastest, if it keeps the accuracy there too."""

    quick = measured(INT8_ONNX, 150, runtime="openvino")

    def files(self, accuracy: float) -> list[Artifact]:
        there = {"openvino": InRuntime(accuracy=accuracy, agreement=0.99, snr_db=30.0)}
        return [artifact(ORIGINAL, 0.92, 4000), artifact(INT8_ONNX, 0.915, runtimes=there), FILES[2]]

    def test_the_fastest_pair_with_its_own_accuracy(self) -> None:
        chosen = told(self.files(0.916), [*TIMES, self.quick])
        assert (chosen.artifact, chosen.runtime) == (INT8_ONNX, "openvino")
        assert "accuracy 91.60 % (−0.40 points)" in chosen.reason
        assert "5.33× as fast as the original's 800 µs" in chosen.reason

    def test_one_that_loses_too_much_there_is_passed_over(self) -> None:
        chosen = told(self.files(0.5), [*TIMES, self.quick])
        assert (chosen.artifact, chosen.runtime) == (INT8_LITERT, "litert")

    def test_what_was_not_judged_there_is_not_recommended_for_it(self) -> None:
        chosen = told(FILES, [*TIMES, self.quick])
        assert (chosen.artifact, chosen.runtime) == (INT8_LITERT, "litert")

    def test_files_are_compared_in_the_runtime_that_they_are_judged_by(self) -> None:
        slow = measured(INT8_ONNX, 9000, runtime="openvino")
        assert warned(self.files(0.916), [*TIMES, slow]) == warned(self.files(0.916), TIMES)


def test_a_file_over_the_limit_is_passed_over() -> None:
    assert told(max_accuracy_drop=0.6).artifact == INT8_ONNX


def test_a_drop_equal_to_the_limit_is_within_it() -> None:
    assert told(max_accuracy_drop=0.7).artifact == INT8_LITERT


def test_the_original_stays_where_nothing_is_faster() -> None:
    chosen = told(times=[measured(ORIGINAL, 100), *TIMES[1:]])
    assert chosen.artifact == ORIGINAL
    assert "none of the 2 compressed files" in chosen.reason
    assert chosen.within_limit


def test_if_no_compressed_file_keeps_the_accuracy_it_says_so() -> None:
    chosen = told(max_accuracy_drop=0.1)
    assert chosen.artifact == ORIGINAL
    assert "no compressed file keeps within 0.1 points" in chosen.reason
    assert f"({INT8_ONNX}) loses 0.50" in chosen.reason
    assert not chosen.within_limit


def test_if_not_even_the_original_file_keeps_it_the_most_accurate_is_taken() -> None:
    files = [artifact(ORIGINAL, 0.5), artifact(INT8_ONNX, 0.7), artifact(INT8_LITERT, 0.6)]
    chosen = told(files=files)
    assert chosen.artifact == INT8_ONNX
    assert "most accurate" in chosen.reason
    assert not chosen.within_limit


def test_the_smallest_file_if_size_is_wanted() -> None:
    assert told(objective="size").artifact == INT8_ONNX


def test_without_any_latency_the_smallest_file() -> None:
    chosen = told(times=[])
    assert chosen.artifact == INT8_ONNX
    assert "no latency was measured" in chosen.reason


def test_a_file_that_failed_to_be_measured_is_not_taken_for_fast() -> None:
    assert told(times=TIMES[:2]).artifact == INT8_ONNX


def test_one_thread_on_the_first_device_decides() -> None:
    more = [measured(INT8_ONNX, 1, threads=4), measured(INT8_ONNX, 1, device="board")]
    assert told(times=[*more[:1], *TIMES, *more[1:]]).artifact == INT8_LITERT


@given(
    accuracies=st.lists(st.floats(0, 1), min_size=2, max_size=2),
    times=st.lists(st.floats(1, 1e6), min_size=3, max_size=3),
    limit=st.floats(0, 100),
)
def test_what_is_recommended_keeps_the_limit_and_nothing_that_does_is_faster(
    accuracies: list[float], times: list[float], limit: float
) -> None:
    names = [ORIGINAL, INT8_ONNX, INT8_LITERT]
    files = [artifact(name, value) for name, value in zip(names, [0.9, *accuracies], strict=True)]
    speeds = [measured(name, value) for name, value in zip(names, times, strict=True)]
    chosen = told(files, speeds, accuracy=0.9, max_accuracy_drop=limit)
    p50 = {one.artifact: one.p50_ns for one in speeds}
    kept = {one.file for one in files if 100 * (0.9 - one.accuracy) <= limit + 1e-9}
    assert chosen.artifact in kept
    if chosen.within_limit:
        assert p50[chosen.artifact] == min(p50[name] for name in kept)


# --- what a reader is warned of --------------------------------------------------------------------------


def warned(files: list[Artifact] = FILES, times: list[Measured] = TIMES, **values: Any) -> list[Warned]:
    figures = {"accuracy": 0.92, "parameters": 100, "macs": 1000}
    stages = [
        StageRow(kind="prune", **{**figures, "accuracy": 0.918}, seconds=1),
        StageRow(kind="qat", **{**figures, "accuracy": 0.914}, seconds=1),
    ]
    defaults = {"failures": [], "reference": ORIGINAL, "max_accuracy_drop": 1.0}
    values = {**defaults, **values}
    failures = values.pop("failures")
    return verdicts(Figures(**figures), stages, files, times, failures, **values)


def test_a_good_run_warns_of_nothing() -> None:
    assert warned() == []


def test_int8_slower_than_the_original_names_what_runs_in_float() -> None:
    layers = (FloatLayer(name="conv3", kernel="Conv", macs=9, reason="ONNX Runtime executes Conv on float"),)
    files = [FILES[0], artifact(INT8_ONNX, int8_coverage=0.25, float_layers=layers)]
    (coverage, slower) = warned(files, [TIMES[0], measured(INT8_ONNX, 900)])
    assert coverage.kind == "coverage"
    assert "75.00 % of the MACs run in float: conv3 (ONNX Runtime executes Conv on float)" in coverage.message
    assert slower.kind == "slower"
    assert "slower than the original model" in slower.message
    assert "1 thread: 900 µs against 800 µs" in slower.message
    assert "75 % of its MACs run in float: conv3" in slower.message


def test_int8_slower_than_the_original_names_the_ops_that_split_it() -> None:
    split = artifact(INT8_LITERT, partitions=3, outside={"GELU": 2, "ADD": 1})
    (slower,) = warned([FILES[0], split], [TIMES[0], measured(INT8_LITERT, 900)])
    assert "executes 2 GELU, 1 ADD in its plain kernels, between 3 partitions of fast ones" in slower.message


def test_int8_is_compared_with_fp32_in_its_own_format_too() -> None:
    fp32 = "artifacts/net_fp32.tflite"
    (warning,) = warned([*FILES, artifact(fp32, macs=500)], [*TIMES, measured(fp32, 150)], dot_products=False)
    assert f"slower than {fp32}" in warning.message
    assert "no int8 dot products" in warning.message


def test_fewer_macs_that_bring_no_time() -> None:
    fp32 = "artifacts/net_fp32.onnx"
    (warning,) = warned([*FILES, artifact(fp32, macs=500)], [*TIMES, measured(fp32, 900)])
    assert "2.00× fewer MACs" in warning.message


def test_lost_accuracy_says_where_it_went() -> None:
    lost_in_qat, lost_in_file = artifact(INT8_ONNX, 0.905), artifact(INT8_LITERT, 0.5, parity=0.5)
    warnings = warned([FILES[0], lost_in_qat, lost_in_file])
    assert [one.kind for one in warnings] == ["accuracy", "accuracy", "agreement"]
    assert "1.50 points" in warnings[0].message
    assert "0.90 of them in the exported file itself" in warnings[0].message
    assert "41.40 of them in the exported file itself" in warnings[1].message
    assert "50.00 %" in warnings[2].message
    assert (
        "of them in the qat stage" in warned([artifact(INT8_ONNX, 0.914)], max_accuracy_drop=0.5)[0].message
    )


def lost(channel: int, snr_db: float, graph_snr_db: float) -> LostChannels:
    worst = LostChannel(channel=channel, snr_db=snr_db, graph_snr_db=graph_snr_db)
    return LostChannels(count=2, channels=10, snr_db=21.0, worst=(worst,))


def test_a_channel_that_int8_lost_is_named_once_for_all_files_that_lost_it() -> None:
    files = [FILES[0], *(artifact(one, lost_channels=lost(7, 4.2, 4.5)) for one in (INT8_ONNX, INT8_LITERT))]
    (warning,) = warned(files)
    assert warning.kind == "agreement"
    assert f"{INT8_ONNX} and 1 more: channel 7 of the 10 answers is 4.2 dB from the float" in warning.message
    assert "all together 21.0 dB; 2 channels are like that; int8 itself loses it" in warning.message


def test_a_channel_that_a_file_lost_is_told_from_one_that_its_graph_lost() -> None:
    (warning,) = warned([FILES[0], artifact(INT8_LITERT, lost_channels=lost(7, 4.2, 18.0))])
    assert "in its int8 graph it is 18.0 dB: the file itself loses it" in warning.message


def test_where_numbers_are_used_as_they_are_a_file_without_a_channel_is_not_recommended() -> None:
    files = [*FILES[:2], artifact(INT8_LITERT, 0.913, lost_channels=lost(7, 4.2, 4.5))]
    assert told(files).artifact == INT8_LITERT
    found = told(files, every_channel=True)
    assert found.artifact == INT8_ONNX
    assert "that keep within 1 point (and lose no channel) of the trained model" in found.reason


def test_a_right_file_far_from_its_graph_says_what_it_is_that_grows() -> None:
    amplified = {"amplified": True, "snr_db": 3.2, "steady_db": 12.4}
    (plain,) = warned([artifact(ORIGINAL), artifact(INT8_ONNX, **amplified)], times=[])
    assert "3.2 dB from its int8 graph" in plain.message
    assert "7 bits" not in plain.message
    (coarse,) = warned([artifact(ORIGINAL), artifact("artifacts/net_int8_7bit.onnx", **amplified)], times=[])
    assert "its weights have 7 bits, as x86 without VNNI needs them, and the network" in coarse.message


def test_doubts_about_calibration_data_are_said() -> None:
    stage = StageRow(
        kind="qat", accuracy=0.92, parameters=100, macs=1000, seconds=1, doubts=("8 samples are few",)
    )
    figures = Figures(accuracy=0.92, parameters=100, macs=1000)
    found = verdicts(figures, [stage], FILES, TIMES, [], reference=ORIGINAL, max_accuracy_drop=1)
    assert [(one.kind, one.message) for one in found] == [("calibration", "qat: 8 samples are few")]


def test_the_score_bears_its_own_name() -> None:
    assert score_name({"metric": "top-1"}) == score_name({}) == "accuracy"
    assert score_name({"metric": "R²"}) == "R²"
    (warning,) = warned([FILES[0], artifact(INT8_ONNX, 0.9)], score="mean IoU")
    assert "points of mean IoU" in warning.message
    assert "mean IoU 91.30 %" in told(score="mean IoU").reason


def test_larger_uncounted_unstable_and_failed() -> None:
    files = [artifact(ORIGINAL, 0.92, 1000), artifact(INT8_ONNX, 0.92, 2000, int8_coverage=None)]
    times = [TIMES[0], measured(INT8_ONNX, 400, unstable="p90 is 3.0 × p50")]
    failed = Failed(artifact=INT8_LITERT, device="local", runtime="litert", threads=1, error="it died")
    kinds = {one.kind: one.message for one in warned(files, times, failures=[failed])}
    assert list(kinds) == ["failed", "coverage", "larger", "unstable"]
    assert "it died" in kinds["failed"]
    assert "2.00 KB against 1.00 KB" in kinds["larger"]


def test_unstable_timings_are_one_warning_a_device() -> None:
    times = [measured(file.file, 400, unstable="p90 is 3.0 × p50") for file in FILES]
    unstable = [one for one in warned(FILES, times) if one.kind == "unstable"]
    assert len(unstable) == 1
    assert f"{len(FILES)} of {len(FILES)} timings" in unstable[0].message


# --- report.json -----------------------------------------------------------------------------------------


def report() -> Report:
    figures = {"accuracy": 0.92, "parameters": 100, "macs": 1000}
    return Report(
        workload="net",
        recipe="mobile",
        baseline=Figures(**figures),
        stages=(StageRow(kind="qat", **figures, seconds=1.5),),
        artifacts=tuple(FILES),
        measurements=tuple(TIMES),
        recommended=told(),
        warnings=tuple(warned()),
        reference=ORIGINAL,
    )


def test_report_json_has_the_keys_that_others_rely_on() -> None:
    values = json.loads(json.dumps(report().to_json()))
    assert {"schema", "workload", "recipe", "baseline", "stages", "artifacts"} <= set(values)
    assert (values["schema"], values["workload"], values["recipe"]) == (1, "net", "mobile")
    assert set(values["baseline"]) == {"accuracy", "parameters", "macs"}
    assert {"kind", "accuracy", "parameters", "macs", "seconds"} <= set(values["stages"][0])
    assert {
        *("file", "format", "precision", "sha256", "size_bytes", "accuracy", "agreement", "int8_coverage")
    } <= set(values["artifacts"][0])
    assert {"artifact", "device", "runtime", "threads", "p50_ns", "p90_ns", "samples"} <= set(
        values["measurements"][0]
    )
    assert {"artifact", "runtime", "reason"} <= set(values["recommended"])


def test_a_report_is_read_back_as_its_equal(tmp_path: Path) -> None:
    made = report()
    assert Report.from_json(made.to_json()) == made
    (tmp_path / "report.json").write_text(json.dumps(made.to_json()))
    assert Report.load(tmp_path) == made


def test_a_report_of_a_later_version_stays_readable() -> None:
    values = report().to_json()
    values["something_new"] = values["baseline"]["something_new"] = 1
    assert Report.from_json(values) == report()


def test_a_report_without_a_key_is_refused() -> None:
    values = report().to_json()
    del values["artifacts"]
    with pytest.raises(ValueError, match=re.escape("artifacts")):
        Report.from_json(values)
