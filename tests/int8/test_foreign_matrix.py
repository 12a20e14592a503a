"""The model matrix at full depth: one network of each family that other people built, at its own size.

Their weights are random, so that most of them amplify roundings: the files are judged layer by layer, each
on the inputs that the file itself gave it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.formats.parity.divergence import WRONG_STEPS
from tests.foreign import told_about

# The share of multiplications in integer kernels, at least: attention over many places stays float.
NETWORKS = {
    "timm:resnet26d": 1.0,
    "timm:res2net50_14w_8s": 1.0,
    "timm:dla34": 1.0,
    "timm:densenet121": 1.0,
    "timm:inception_v3": 1.0,
    "timm:repvgg_a0": 1.0,
    "timm:ghostnet_100": 1.0,
    "timm:mobilenetv2_100": 1.0,
    "timm:mobilenetv3_small_100": 1.0,
    "timm:efficientnet_b0": 1.0,
    "timm:mixnet_s": 1.0,
    "timm:regnety_002": 1.0,
    "timm:convnext_atto": 1.0,
    "timm:levit_128s": 0.8,
    "timm:vit_tiny_patch16_224": 0.8,
    "timm:poolformer_s12": 1.0,
    "torchvision:shufflenet_v2_x0_5": 1.0,
    "transformers:bert": 0.8,
}
SCRIPT = """
import sys
sys.path[:0] = [sys.argv[3], sys.argv[3] + "/benchmarks"]
from pathlib import Path
import foreign
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.parity.divergence import layer_parity
from edgekit.int8.calibration import calibrate
from edgekit.graph.capture import capture

network = foreign.make(sys.argv[1])
x = network.inputs(8, 7)
graph = calibrate(capture(network.model, x[:2]), list(x.split(4)))
for format in ("onnx", "litert"):
    path = Path(sys.argv[2], "file." + format)
    export(graph, x[:1], path, format=format, precision="int8", metadata={})
    counted = FORMATS[format].coverage(path)
    layers = layer_parity(graph, format, x[:2])
    worst = max(layers, key=lambda layer: layer.steps)
    print("ROW", format, counted.integer_macs / counted.total_macs, worst.steps, worst.layer)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_deep_network_computes_what_the_graph_does(name: str, tmp_path: Path) -> None:
    lines = told_about(name, SCRIPT, tmp_path, seconds=1800)
    rows = [line.split(maxsplit=4)[1:] for line in lines if line.startswith("ROW")]
    assert [row[0] for row in rows] == ["onnx", "litert"]
    for format, share, steps, layer in rows:
        assert float(share) >= NETWORKS[name] - 1e-9, format
        assert float(steps) <= WRONG_STEPS, (format, layer)
