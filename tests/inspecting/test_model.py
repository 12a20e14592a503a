"""What is predicted of a model, against what the model, its files and its pruning really are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit import Workload, macs
from edgekit.formats import FORMATS
from edgekit.inspecting import inspect
from edgekit.inspecting.channels import find_channels
from edgekit.inspecting.model import inspect_model
from edgekit.int8 import rules
from edgekit.int8.rules import PREDICTED
from edgekit.pruning.coupling.groups import OUTPUTS
from tests.networks import Concatenated, Mobile, Residual, images, seeded
from tests.pruning.networks import Attention

Build = Callable[..., Workload]


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in found["layers"]}


def lacking(found: dict[str, Any], runtime: str) -> dict[str, dict[str, Any]]:
    return {row["op"]: row for row in found["runtimes"][runtime]["lacks"]}


def test_layers_and_totals(residual: Workload) -> None:
    found = inspect_model(residual)
    json.dumps(found)
    layers = by_name(found)
    assert list(layers) == ["first", "second", "head"]
    assert layers["first"]["macs"] == 8 * 3 * 9 * 64
    assert layers["first"]["parameters"] == 8 * 3 * 9 + 8  # the bias holds the batch norm
    assert layers["second"]["input"] == layers["second"]["output"] == [1, 8, 8, 8]
    assert layers["second"]["weight"] == [8, 8, 3, 3]
    assert (layers["first"]["kind"], layers["head"]["kind"]) == ("convolution", "linear")
    counted = macs.count(residual.model, residual.example(1))
    assert found["totals"]["macs"] == counted.macs == sum(row["macs"] for row in found["layers"])
    assert found["totals"]["parameters"] == counted.parameters
    assert found["input"] == {"shape": [1, 3, 8, 8], "dtype": "float32"}
    assert found["output"]["shape"] == [1, 5]


def test_what_prunes(residual: Workload) -> None:
    found = inspect_model(residual)
    layers = by_name(found)
    assert layers["first"]["prunable"] == {"cut": True, "channels": 8, "with": ["second"], "reason": ""}
    assert layers["head"]["prunable"]["reason"] == OUTPUTS
    assert [group["layers"] for group in found["pruning"]["groups"]] == [["first", "second"]]


def test_what_stays_whole_says_why(workload: Build) -> None:
    found = inspect_model(workload(seeded(Attention)))
    kept = {row["name"]: row["reason"] for row in found["pruning"]["kept_whole"]}
    whole = by_name(found)["qkv"]["prunable"]
    assert not whole["cut"]
    assert whole["reason"] == kept["qkv"] != OUTPUTS


def test_how_far_pruning_goes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 5)).eval()
    found = find_channels(model, images(2))
    assert found["groups"] == [{"name": "0", "channels": 32, "least": 8, "layers": ["0"]}]
    assert found["furthest"] == {"speedup": pytest.approx(4, 0.01), "shrink": pytest.approx(4, 0.01)}


def test_a_model_that_cannot_be_traced_is_still_told_about(workload: Build) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(192, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x.flatten(1)).detach()

    found = inspect_model(workload(Detached()))
    assert found["pruning"]["furthest"] is None or not found["pruning"]["groups"]
    assert by_name(found)["body"]["macs"] == 192 * 5
    assert not by_name(found)["body"]["prunable"]["cut"]


@pytest.mark.parametrize("build", [Residual, Mobile, Concatenated])
def test_everything_of_a_plain_network_is_predicted_integer(workload: Build, build: type[nn.Module]) -> None:
    found = inspect_model(workload(seeded(build)))
    for runtime in PREDICTED:
        assert found["runtimes"][runtime] | {"lacks": []} == {
            "exports": True,
            "coverage": 1.0,
            "integer_macs": found["totals"]["macs"],
            "lacks": [],
        }


def test_predicted_coverage_is_what_the_files_have(residual: Workload, files: dict[str, Path]) -> None:
    found = inspect_model(residual)
    for runtime, file, format in (("onnxruntime", "onnx", "onnx"), ("litert", "tflite", "litert")):
        measured = FORMATS[format].coverage(files[file])
        assert found["runtimes"][runtime]["coverage"] == pytest.approx(measured.share, abs=0.01)
        assert found["totals"]["macs"] == measured.total_macs


def test_the_predicted_arena_is_that_of_the_file(residual: Workload, files: dict[str, Path]) -> None:
    predicted = inspect_model(residual)["arena"]["int8"]["bytes"]
    assert inspect(files["tflite"])["arena"]["bytes"] == pytest.approx(predicted, rel=0.05)


def test_the_size_of_an_int8_file(residual: Workload, files: dict[str, Path]) -> None:
    """Constants are known to the byte; structure and names of so small a network are most of its file."""
    totals = inspect_model(residual)["totals"]
    weights, channels = 8 * 3 * 9 + 8 * 8 * 9 + 8 * 5, 8 + 8 + 5
    assert totals["int8_bytes"] == weights + 4 * channels + 4 * channels  # and biases, and scales
    assert totals["fp32_bytes"] == 4 * (weights + channels)
    for name in ("onnx", "tflite"):
        content = inspect(files[name])["constant_dtypes"]
        assert weights <= content["int8"]["bytes"] <= weights + channels  # some have zero points
        assert content["int32"]["bytes"] >= 4 * channels


class Islands(nn.Module):
    """A layer norm, a recurrent layer, a weight that is computed, and a softplus, between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.bare = nn.Parameter(torch.randn(8, 8))
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.first(x)))
        x, _ = self.lstm(x)
        x = F.softplus(F.linear(x, self.bare * x.mean()))
        return self.last(x[:, -1])


def test_float_islands_are_named_with_a_way_out(workload: Build) -> None:
    torch.manual_seed(0)
    found = inspect_model(workload(Islands(), torch.randn(6, 4, 8)))
    roles = {row["op"]: row["role"] for row in found["operators"]}
    assert (roles["relu"], roles["layer_norm"], roles["softplus"]) == ("clamp", "float", "float")
    for runtime in PREDICTED:
        lacks = lacking(found, runtime)
        assert {"layer_norm", "softplus"} <= lacks.keys()
        assert "lstm" not in lacks
        assert all(row["reason"] and row["way_out"] for row in lacks.values())
    lstm = next(row for row in found["layers"] if row["kind"] == "recurrent")
    assert lstm["name"] == "lstm"
    assert lstm["macs"] == 4 * (4 * 8) * (8 + 8)  # steps, gates, inputs and state
    assert lstm["litert"]["integer"]
    assert lstm["onnxruntime"]["integer"]
    assert found["runtimes"]["onnxruntime"]["coverage"] == 1  # islands multiply nothing


class Steps(nn.Module):
    """A recurrent layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.rnn = nn.GRU(8, 8, batch_first=True), nn.RNN(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.rnn(self.gru(x)[0])[0]
        return result[:, -1]


def test_recurrent_layers_are_integer_where_the_runtime_has_a_kernel(workload: Build) -> None:
    found = inspect_model(workload(Steps(), torch.randn(6, 4, 8)))
    gru, rnn = (row for row in found["layers"] if row["kind"] == "recurrent")
    assert gru["litert"]["integer"]
    assert "widened" in gru["onnxruntime"]["reason"]
    assert "unrolls" in rnn["litert"]["reason"]
    assert not rnn["onnxruntime"]["integer"]
    # The GRU's weights are in one byte each whatever the kernel, with a scale for each row; the RNN's aren't.
    totals, gates = found["totals"], 3 * 8
    assert totals["fp32_bytes"] - totals["int8_bytes"] == 3 * (gates * 16) - 2 * 4 * gates


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(192, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1)).topk(5).values


def test_an_op_that_a_runtime_refuses_means_no_file(workload: Build) -> None:
    found = inspect_model(workload(Sorted()))
    assert not found["runtimes"]["litert"]["exports"]
    assert found["runtimes"]["litert"]["coverage"] is None
    assert lacking(found, "litert")["topk"]["refused"]
    assert found["runtimes"]["onnxruntime"]["exports"]
    assert found["runtimes"]["onnxruntime"]["coverage"] == 1.0


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.shared = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(F.relu(self.shared(self.stem(x)))).mean((2, 3)))


def test_a_shared_weight_counts_once_and_multiplies_twice(workload: Build) -> None:
    found = inspect_model(workload(Reused()))
    shared = [row for row in found["layers"] if row["name"] == "shared"]
    assert [row["macs"] for row in shared] == [64 * 64, 64 * 64]
    assert [row["parameters"] for row in shared] == [72, 0]
    assert sum(row["parameters"] for row in found["layers"]) == found["totals"]["parameters"]


class Depth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 1)
        self.deep = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.grouped(self.deep(self.wide(x)))).mean((2, 3)))


def test_kinds_of_convolutions(workload: Build) -> None:
    kinds = {row["name"]: row["kind"] for row in inspect_model(workload(Depth()))["layers"]}
    assert kinds == {
        "wide": "convolution",
        "deep": "depthwise convolution",
        "grouped": "grouped convolution",
        "up": "transposed convolution",
        "head": "linear",
    }


def test_int8_activations_need_a_quarter(workload: Build) -> None:
    arena = inspect_model(workload(seeded(Mobile)))["arena"]
    assert arena["int8"]["bytes"] * 4 == arena["fp32"]["bytes"]
    assert arena["fp32"]["bytes"] >= 4 * (16 * 64 + 16 * 16)
    largest = [row["name"] for row in arena["fp32"]["largest"]]
    assert largest[:2] == ["body.3 (conv2d), padded input", "body.0 (conv2d)"]


def test_the_table_of_rules_names_ops_that_exist() -> None:
    unknown = [name for name in rules.KNOWN if not hasattr(torch.ops.aten, name)]
    assert not unknown
    for name in rules.KNOWN:
        rule = rules.rule_of(name)
        assert rule is not None
        assert rule.way_out
        assert any(rule.reason(runtime) for runtime in PREDICTED)
