"""Layers that stay in float by name: in the int8 graph, and in both files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from edgekit.errors import StageError
from edgekit.formats import FORMATS
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, calibrate
from edgekit.int8.lower import lower
from edgekit.int8.precision import kept_float, nodes_of
from tests.export.runtimes import files_of
from tests.networks import images, seeded, snr_db


class Block(nn.Module):
    """A convolution, a batch norm that is folded, hard-swish, a depthwise convolution, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.act = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.depthwise(self.act(self.norm(self.conv(x))))


class Attention(nn.Module):
    """Over the 16 places of a 4 x 4 map."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        return x + self.attn(normed, normed, normed, need_weights=False)[0]


class Net(nn.Module):
    """A stem, two blocks, attention and a head: (N, 3, 8, 8) to (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()
        self.blocks = nn.Sequential(Block(), Block())
        self.mixer, self.head = Attention(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.stem(x)))
        return self.head(self.mixer(x.flatten(2).transpose(1, 2)).mean(1))


@pytest.fixture(scope="module")
def captured() -> fx.GraphModule:
    return capture(seeded(Net), images(2))


def quantised(captured: fx.GraphModule, *patterns: str) -> fx.GraphModule:
    return calibrate(captured, list(images(32).split(16)), CalibrationOptions(float_layers=patterns))


def float_weights(graph: fx.GraphModule) -> set[str]:
    weighted = [node for node in graph.graph.nodes if node.target in ops.WEIGHTED]
    return {str(node.args[1].target) for node in weighted if node.args[1].op == "get_attr"}


def quantisers(graph: fx.GraphModule) -> int:
    return sum(node.target is ops.qd.quantize_per_tensor.default for node in graph.graph.nodes)


STEM_AND_BLOCK = {"stem.weight", "blocks.0.conv.weight", "blocks.0.depthwise.weight"}
DEPTHWISE = {"blocks.0.depthwise.weight", "blocks.1.depthwise.weight", "head.weight"}


@pytest.mark.wide
@pytest.mark.parametrize(
    ("patterns", "weights"), [(("stem", "blocks.0"), STEM_AND_BLOCK), (("*.depthwise", "head"), DEPTHWISE)]
)
def test_the_files_have_these_weights_in_float_and_agree_with_the_graph(
    captured: fx.GraphModule, patterns: tuple[str, ...], weights: set[str], tmp_path: Path
) -> None:
    made, x = quantised(captured, *patterns), images(4, seed=7)
    assert float_weights(made) == weights
    with torch.no_grad():
        wanted = made(x)
    for format, got in files_of(made, x, tmp_path).items():
        assert snr_db(wanted, got) > 30, format
        floats = FORMATS[format].coverage(tmp_path / f"graph.{format}").floats()
        # Those of LiteRT's products of computed matrices are always there (formats/litert/in_float.py).
        layers = [one for one in floats if "two computed matrices" not in one.reason]
        assert len(layers) == len(weights), format


def test_what_is_made_and_read_inside_of_a_block_meets_no_grid(captured: fx.GraphModule) -> None:
    plain, block = quantised(captured), quantised(captured, "blocks.0")
    alone = quantised(captured, "blocks.0.conv", "blocks.0.depthwise")
    assert quantisers(block) < quantisers(alone) <= quantisers(plain)


@pytest.mark.wide
def test_attention_is_kept_as_a_whole(captured: fx.GraphModule, tmp_path: Path) -> None:
    made, x = quantised(captured, "mixer"), images(4, seed=7)
    assert all(name.startswith("mixer.attn") for name in float_weights(made))
    assert len(float_weights(made)) >= 2
    products = [node for node in made.graph.nodes if node.target in ops.MATMULS]
    assert products
    assert not any(source.target in ops.DEQUANTIZE for node in products for source in node.all_input_nodes)
    with torch.no_grad():
        wanted = made(x)
    assert all(snr_db(wanted, got) > 30 for got in files_of(made, x, tmp_path).values())


def test_a_name_that_isn_t_there_is_told_with_those_that_come_nearest(captured: fx.GraphModule) -> None:
    graph = lower(capture(captured, images(2)))
    with pytest.raises(StageError) as caught:
        kept_float(graph, ["head.*", "block.0", "blocks.1", "q"])
    told = str(caught.value)
    assert "'head.*', nearest: head" in told
    assert "'block.0', nearest: blocks" in told
    assert "'q', outermost names: stem" in told
    assert "'blocks.1'" not in told


def test_modules_are_those_that_compute() -> None:
    names = nodes_of(lower(capture(seeded(Net), images(2))))
    assert {"stem", "blocks", "blocks.0", "blocks.0.conv", "mixer.attn", "head"} <= names.keys()
    assert "mixer.norm" not in names  # is float anyway
