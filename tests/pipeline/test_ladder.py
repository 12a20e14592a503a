"""Files against what they were made from: as a whole, by channel and sample, and layer by layer."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnxruntime import InferenceSession
from torch import Tensor, fx, nn

from edgekit.errors import ExportError
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions, Target
from edgekit.formats.parity import divergence
from edgekit.formats.parity.divergence import EXACT_DB
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.pipeline import ladder
from edgekit.pipeline.artifacts import Planned
from edgekit.pipeline.chain import Rung
from edgekit.pipeline.ladder import check_gate, compared, telling_samples
from edgekit.report import Figures
from edgekit.stages.base import Form
from tests.networks import Mobile, images, quantized
from tests.spelling import spelled


def plainly(reference: Tensor, value: Tensor) -> float:
    """Slow, and one formula."""
    a, b = (np.asarray(one, dtype=np.float64) for one in (reference, value))
    noise = float(((a - b) ** 2).sum())
    return 10 * math.log10(float((a**2).sum()) / noise) if noise else EXACT_DB


@given(st.integers(0, 10_000), st.sampled_from([(5, 3), (4, 6, 2), (3, 2, 4, 5)]))
def test_ratios_by_channel_and_sample_as_by_hand(seed: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(shape, generator=generator)
    answers = source + 0.1 * torch.rand(shape[1], generator=generator).reshape(-1, *[1] * (len(shape) - 2))
    found = compared(source, answers)
    assert found["snr_db"] == pytest.approx(plainly(source, answers), abs=1e-6)
    channels = [plainly(source[:, c], answers[:, c]) for c in range(shape[1])]
    samples = [plainly(source[n], answers[n]) for n in range(shape[0])]
    assert found["worst_channel_db"] == pytest.approx(min(channels), abs=1e-6)
    assert found["worst_sample_db"] == pytest.approx(min(samples), abs=1e-6)


def test_no_average_hides_a_channel() -> None:
    """Boxes and scores in one tensor: every score is lost, and over all values nobody sees it."""
    source = torch.cat([640 * torch.rand(50, 4), torch.rand(50, 1)], 1)
    answers = source.clone()
    answers[:, 4] = 0.0
    found = compared(source, answers)
    assert found["snr_db"] > 45
    assert found["worst_channel_db"] == pytest.approx(0.0)


def test_nothing_compared_and_equal_numbers() -> None:
    assert compared(torch.zeros(0, 3), torch.zeros(0, 3))["snr_db"] == EXACT_DB
    assert compared(torch.ones(2, 3), torch.ones(2, 3))["worst_channel_db"] == EXACT_DB


class Amplifier(nn.Module):
    """Each layer takes the difference of nearly equal halves and makes it large again: noise grows."""

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3 if not i else 8, 8, 3, padding=1) for i in range(depth))
        self.head = nn.Linear(8 * 64, 5)
        values = images(8, 3)
        with torch.no_grad():
            for layer in self.layers:
                shape = layer.weight[:4].shape
                layer.weight[4:] = layer.weight[:4] + 0.03 * layer.weight.std() * torch.randn(shape)
                if layer.in_channels == 8:
                    layer.weight[:, 4:] = -layer.weight[:, :4]
                layer.weight.div_(layer(values).std())
                values = layer(values)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.flatten(1))


def planned(graph: fx.GraphModule, bits: Literal[7, 8] = 8) -> Planned:
    rung = Rung("qat", graph, "", Figures(accuracy=1, parameters=1, macs=1), "", Form.INT8)
    options = ExportOptions(target=Target(weight_bits=bits))
    return Planned("artifacts/n_int8.onnx", "onnx", "int8", rung, options)


def job(told: list[str]) -> Any:
    workload = SimpleNamespace(
        validation=images(8, 3),
        example=lambda n: images(8, 3)[:n],
        whole=lambda n: images(8, 3)[:n],
        samples=lambda indices: images(8, 3)[list(indices)],
    )
    return SimpleNamespace(workload=workload, tell=lambda kind, part, message="", **_: told.append(message))


def judge(graph: fx.GraphModule, file_db: float, told: list[str], path: Path | None = None) -> dict[str, Any]:
    found = {"snr_db": file_db}
    check_gate(job(told), planned(graph), found, "n_int8.onnx", fused=not spelled(), path=path)
    return found


def test_a_right_file_of_a_network_that_amplifies_roundings_passes_and_says_so() -> None:
    graph = calibrate(capture(Amplifier(), images(1)), [images(16, seed) for seed in range(4)])
    rung = planned(graph).rung
    steady = ladder._steadiness(job([]), rung)
    assert steady < 20  # else this network isn't what the test is about
    found = judge(graph, min(steady, 15.0), [])
    assert found["amplified"] is True
    assert found["steady_db"] == pytest.approx(steady)


def test_what_weights_of_seven_bits_cost_where_it_is_amplified_is_no_wrong_file(
    tmp_path: Path,
) -> None:
    """As x86 without VNNI gets it. What coarser weights cost isn't a kernel's fault."""
    graph = calibrate(capture(Amplifier(), images(1)), [images(16, seed) for seed in range(4)])
    one, path = planned(graph, 7), tmp_path / "n_int8.onnx"
    export(graph, images(1), path, format="onnx", precision="int8", metadata={}, options=one.options)
    answers = torch.from_numpy(InferenceSession(path).run(None, {"input": images(8, 3).numpy()})[0])
    with torch.no_grad():
        found: dict[str, Any] = {**compared(graph(images(8, 3)), answers)}
    assert found["snr_db"] < ladder._steadiness(job([]), one.rung) - ladder._UNEXPLAINED_DB
    with pytest.raises(ExportError, match="no layer alone is wrong"):  # roundings alone don't explain it
        check_gate(job([]), planned(graph, 8), dict(found), path.name, fused=not spelled())
    check_gate(job([]), one, found, path.name, path=path)
    assert found["amplified"] is True


def test_a_file_far_from_what_its_roundings_explain_is_refused_though_layers_are_right() -> None:
    with pytest.raises(ExportError, match="no layer alone is wrong"):
        judge(quantized(Mobile)[1], 8.0, [])


def test_a_wrong_layer_cant_hide_above_the_gate_of_a_steady_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: fx.GraphModule, *arguments: Any, **options: Any) -> None:
        other = copy.deepcopy(graph)
        with torch.no_grad():
            other.get_parameter("head.weight").neg_()
        export(other, *arguments, **options)

    monkeypatch.setattr(divergence, "export", broken)
    monkeypatch.setattr(ladder, "_steadiness", lambda job, rung: 60.0)
    with pytest.raises(ExportError, match="'head' is wrong by itself"):
        judge(quantized(Mobile)[1], 22.0, [])


def test_a_near_file_costs_no_second_look() -> None:
    told: list[str] = []
    assert "steady_db" not in judge(quantized(Mobile)[1], 60.0, told)
    assert told == []


def test_a_near_file_that_is_another_network_s_is_refused(tmp_path: Path) -> None:
    """Whatever the distance as a whole: the file itself is looked into."""
    graph = quantized(Mobile)[1]
    other = copy.deepcopy(graph)
    with torch.no_grad():
        other.get_parameter("body.3.weight").mul_(1.5)
    path = tmp_path / "n_int8.onnx"
    export(other, images(1), path, format="onnx", precision="int8", metadata={})
    with pytest.raises(ExportError, match="layer 'body.3' is wrong by itself"):
        judge(graph, 60.0, [], path)
    export(graph, images(1), path, format="onnx", precision="int8", metadata={})
    assert "steady_db" not in judge(graph, 60.0, [], path)


def test_a_file_that_can_t_be_looked_into_is_judged_as_a_whole_and_told(tmp_path: Path) -> None:
    path, told = tmp_path / "n_int8.onnx", []  # type: Path, list[str]
    path.write_bytes(b"nothing")
    judge(quantized(Mobile)[1], 60.0, told, path)
    assert any("can't be looked at" in message for message in told)
    with pytest.raises(ExportError, match="no layer alone is wrong"):
        judge(quantized(Mobile)[1], 8.0, told, path)


def test_the_furthest_and_the_loudest_samples_are_telling() -> None:
    source = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    answers, inputs = source + 1e-3, torch.ones(20, 2, 2)
    answers[7] += 1.0
    answers[11] -= 1.0
    answers[7] += 1.0
    inputs[3], inputs[15] = 5.0, 4.0
    found = telling_samples(source, answers, inputs)
    assert set(found) == {3, 7, 11, 15}
    assert found[1] == 3
    assert telling_samples(source[:1], answers[:1], inputs[:1].numpy()) == [0]
