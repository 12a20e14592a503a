"""Networks that other people built, at their own size: captured, and as fp32 files of both formats."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
ROOT = Path(__file__).resolve().parents[2]
# In a process of its own each: memory is given back, and what a network's package changes stays there.
SCRIPT = """
import sys
sys.path[:0] = [sys.argv[3], sys.argv[3] + "/benchmarks"]
from pathlib import Path
import torch
import foreign
from edgekit.export import export
from edgekit.int8.capture import capture
from tests.export.runtimes import nhwc, run_litert, run_onnx
from tests.networks import snr_db

foreign._declare_operators()
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
    source = name.partition(":")[0]
    # Not imported here: torchvision's wheels need their operators declared first, see foreign.py.
    if importlib.util.find_spec(source) is None:
        pytest.skip(f"{source} isn't installed")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines() if " " in line}
    assert figures["graph"] > 80
    assert figures["onnx"] > 80
    assert figures["litert"] > 80
