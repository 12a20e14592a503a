"""The model matrix: every architecture as an int8 file in both runtimes, whole in integer kernels, and right.

Each network is trained for a moment, calibrated on its training distribution and judged on other samples.
Those whose ops all occur in others are left to the slow tier, so are the deep ones, and the second format.
One network of each kind is in the default tier, the others are in the wide one.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from numpy.typing import NDArray
from torch import fx

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.parity.divergence import snr_db
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.runtimes.device import runtimes
from tests.models import CASES, each, inputs, trained
from tests.spelling import backend_for

LARGE = {"convnext_atto", "convnext_atto_deep"}
CNN_DB, OTHER_DB = 30.0, 25.0
LIKE_OTHERS = {"resnet50", "vgg_bn", "mobilenet_v1", "efficientnet_lite0", "squeezenet", "mobileone"}
LIKE_OTHERS |= {name for name, case in CASES.items() if case.deep}
NETWORKS = each(slow=LIKE_OTHERS)


@functools.cache
def int8_graph(name: str) -> fx.GraphModule:
    case = CASES[name]
    return calibrate(
        capture(trained(name), inputs(case, 1)), [inputs(case, 32, seed) for seed in range(1, 5)]
    )


def ops_of(name: str) -> set[object]:
    """What the int8 graph calls."""
    return {node.target for node in int8_graph(name).graph.nodes if node.op == "call_function"}


def answers_of(path: Path, format: str, samples: torch.Tensor) -> NDArray[np.float32]:
    kind = runtimes.find({"onnx": "onnxruntime", "litert": "litert"}[format])
    kind.prepare()
    model = kind(str(path), 1, backend_for(path)) if format == "onnx" else kind(str(path), 1)
    rows = []
    for row in samples.split(1):
        model.bind(model.arrange(row.numpy(), "NHWC" if format == "litert" else "NCHW"))
        model.invoke()
        rows.append(np.array(model.output()))
    return np.concatenate(rows)


def _cells() -> list[ParameterSet]:
    """Each network in both formats: in the default tier in turns, one network here and the next one there."""
    return [
        pytest.param(
            one.values[0],
            format,
            marks=[*one.marks, *([pytest.mark.slow] if (index + other) % 2 else [])],
            id=f"{one.values[0]}-{format}",
        )
        for index, one in enumerate(NETWORKS)
        for other, format in enumerate(("onnx", "litert"))
    ]


@pytest.mark.parametrize(("name", "format"), _cells())
def test_runs_in_integer_kernels_and_agrees(name: str, format: str, tmp_path: Path) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch", reason="needs the extra litert")
    case, graph = CASES[name], int8_graph(name)
    path = tmp_path / f"{name}.{format}"
    export(graph, inputs(case, 1), path, format=format, precision="int8", metadata={})
    counted = FORMATS[format].coverage(path)
    assert counted.total_macs > 0
    # Large depthwise kernels stay in float, in parts (tests/export/test_depthwise.py), in LiteRT products of
    # two computed matrices (tests/export/test_taken.py), in ONNX Runtime GRUs (test_recurrent.py there).
    floats = {layer.kernel for layer in counted.floats() if "two computed matrices" not in layer.reason}
    assert floats <= ({"DEPTHWISE_CONV_2D"} if name in LARGE else {"GRU"} if name == "gru" else set())
    samples = inputs(case, 16, seed=99)
    with torch.no_grad():
        wanted = graph(samples).numpy()
    got = answers_of(path, format, samples)
    if got.shape != wanted.shape:
        got = np.moveaxis(got, -1, 1) if got.ndim == 4 else got.reshape(wanted.shape)
    assert snr_db(wanted, got) >= (CNN_DB if case.kind == "cnn" else OTHER_DB)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LIKE_OTHERS))
def test_what_is_left_to_the_slow_tier_has_no_op_of_its_own(name: str) -> None:
    assert ops_of(name) <= set().union(*map(ops_of, CASES.keys() - LIKE_OTHERS))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_quantised_once_and_pairs_agree(name: str) -> None:
    graph = int8_graph(name)
    for node in graph.graph.nodes:
        grids = {user.args[1:] for user in node.users if user.target is ops.qd.quantize_per_tensor.default}
        assert len(grids) <= 1, f"{node} is quantised in {len(grids)} ways"
        if node.target in ops.DEQUANTIZE:
            assert node.args[1:] == node.args[0].args[1:], node
        if node.target is ops.qd.quantize_per_channel.default:
            assert bool((ops.attribute(graph, node.args[2].target) == 0).all())


@pytest.mark.parametrize("name", [one for one in NETWORKS if CASES[one.values[0]].kind != "extra"])
def test_calibration_alone_keeps_the_answers(name: str) -> None:
    """No training after quantising: 8 bits a number leave at least 18 dB in every one of these networks."""
    case = CASES[name]
    samples = inputs(case, 64, seed=99)
    with torch.no_grad():
        assert snr_db(trained(name)(samples), int8_graph(name)(samples)) >= 18
