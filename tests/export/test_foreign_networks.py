"""Networks that other people built, at their own size: captured, and as fp32 files of both formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.foreign import told_about

NETWORKS = [
    "timm:levit_128s",
    "timm:edgenext_xx_small",
    "timm:ghostnet_100",
    "timm:mixnet_s",
    "timm:convnextv2_atto",
    "timm:mobilevit_xxs",
    "timm:resnest14d",
    "timm:efficientformer_l1",
    "timm:vit_tiny_patch16_224",
    "torchvision:lraspp_mobilenet_v3_large",
    "transformers:bert",
    "transformers:wav2vec2",
]
SCRIPT = """
import sys
sys.path[:0] = [sys.argv[3], sys.argv[3] + "/benchmarks"]
from pathlib import Path
import torch
import foreign
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from tests.export.runtimes import nhwc, run_litert, run_onnx
from tests.networks import snr_db

foreign.declare_operators()
network = foreign.make(sys.argv[1])
x = network.inputs(2, 7)
with torch.no_grad():
    wanted = network.model(x)
    graph = capture(network.model, x)
    print("graph", float(snr_db(wanted, graph(x))))
images = nhwc(x) if x.dim() == 4 else x
for format, run, rows in (("onnx", run_onnx, x), ("litert", run_litert, images)):
    path = Path(sys.argv[2], "file." + format)
    export(graph, x[:1], path, format=format, precision="fp32", metadata={})
    print(format, float(snr_db(wanted, run(path, rows))))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_fp32_files_of_foreign_networks(name: str, tmp_path: Path) -> None:
    lines = told_about(name, SCRIPT, tmp_path, seconds=900)
    figures = {line.split()[0]: float(line.split()[1]) for line in lines if " " in line}
    assert figures["graph"] > 80
    assert figures["onnx"] > 80
    assert figures["litert"] > 80
