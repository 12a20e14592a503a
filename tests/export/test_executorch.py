"""ExecuTorch programs in their runtime: same answers, XNNPACK's integer kernels, self-contained."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgekit.errors import ExportError
from edgekit.formats.coverage import Coverage
from edgekit.formats.executorch.coverage import count
from edgekit.formats.executorch.passes import own_dequantizers, spell_for_xnnpack
from edgekit.formats.executorch.writing import write
from edgekit.formats.options import ExportOptions
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.runtimes.device.runtime_executorch import ExecuTorchModel
from edgekit.workload.preprocessing import Preprocessing
from tests.networks import IMAGE_NETWORKS, Mobile, Residual, ZeroPaddedShortcut, images, quantized, snr_db

pytest.importorskip("executorch", reason="needs the extra: pip install 'edgekit-toolkit[executorch]'")
pytestmark = pytest.mark.filterwarnings(r"ignore:::executorch(\..*)?$")  # its Python API is experimental
METADATA = {"classes": '["a\\"b", "ü"]', "recipe": "test"}


def run(path: Path, x: Tensor) -> Tensor:
    ExecuTorchModel.prepare()
    model = ExecuTorchModel(str(path), threads=1)
    rows = []
    for part in x.split(model.batch):
        model.bind(model.arrange(part.numpy()))
        model.invoke()
        rows.append(torch.from_numpy(model.output()))
    return torch.cat(rows)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[type[nn.Module], Path]:
    """The int8 program of every network."""
    folder, made = tmp_path_factory.mktemp("programs"), {}
    for build in IMAGE_NETWORKS:
        made[build] = folder / f"{build.__name__}.pte"
        write(quantized(build)[1], images(1), made[build], METADATA)
    return made


def portable(path: Path) -> list[str]:
    """The kernels that run outside of XNNPACK."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    plans = deserialize_pte_binary(path.read_bytes()).program.execution_plan
    return [operator.name for plan in plans if plan.name == "forward" for operator in plan.operators]


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_int8_agrees_with_the_int8_graph(files: dict[type[nn.Module], Path], build: type[nn.Module]) -> None:
    x = images(64, seed=5)
    assert snr_db(quantized(build)[1](x), run(files[build], x)) > 40


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_xnnpack_runs_every_layer_on_integers(
    files: dict[type[nn.Module], Path], build: type[nn.Module]
) -> None:
    counted = count(files[build])
    assert counted.floats() == []
    assert counted.share == 1.0
    assert portable(files[build]) == []


def test_coverage_counts_macs_as_by_hand(files: dict[type[nn.Module], Path]) -> None:
    assert count(files[Residual]).total_macs == 8 * 8 * 8 * 3 * 9 + 8 * 8 * 8 * 8 * 9 + 8 * 5
    assert count(files[Mobile]).total_macs == 64 * 3 * 16 + 16 * 16 * 9 + 16 * 16 * 8 + 8 * 5


def test_metadata_is_kept_inside_the_file(files: dict[type[nn.Module], Path]) -> None:
    from executorch.runtime import Runtime

    (value,) = Runtime.get().load_program(files[Residual]).load_method("edgekit").execute([])
    assert json.loads(value) == METADATA


def test_float_gives_the_models_answers(tmp_path: Path) -> None:
    model, path, x = quantized(Mobile)[0], tmp_path / "x.pte", images(5, seed=5)
    write(capture(model, images(1)), images(1), path, {}, precision="fp32")
    torch.testing.assert_close(run(path, x), model(x).detach(), rtol=1e-4, atol=1e-5)
    assert count(path).share == 0.0
    assert count(path).total_macs == 64 * 3 * 16 + 16 * 16 * 9 + 16 * 16 * 8 + 8 * 5


def test_batch_and_embedded_preprocessing(tmp_path: Path) -> None:
    graph, path = quantized(Residual)[1], tmp_path / "x.pte"
    preprocessing = Preprocessing(layout="NHWC", scale=1 / 42, mean=(2.9, 3.0, 3.2), std=(1.0, 0.9, 1.1))
    write(graph, images(1), path, {}, ExportOptions(batch=4, preprocessing=preprocessing))
    raw = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    assert snr_db(graph(preprocessing(raw)), run(path, raw)) > 40


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_the_spelling_for_xnnpack_changes_no_bit(build: type[nn.Module]) -> None:
    graph, x = quantized(build)[1], images(16, seed=5)
    assert torch.equal(spell_for_xnnpack(graph)(x), graph(x))


class Gates(nn.Module):
    """Activations that torch takes apart, among them two that read their input more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.gates = nn.ModuleList([nn.Mish(), nn.Hardsigmoid(), nn.Softplus(), nn.PixelShuffle(1)])

    def forward(self, x: Tensor) -> Tensor:
        for layer, gate in zip(self.layers, self.gates, strict=True):
            x = gate(layer(x))
        return x


class Shared(nn.Module):
    """One layer twice, on inputs of different scale; a clamp and a shuffle of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.up = nn.Conv2d(3, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(3 * self.layer(x).clamp(-1, 1))
        return nn.functional.pixel_shuffle(self.up(x), 2)


@pytest.mark.parametrize("build", [Gates, Shared])
def test_what_is_taken_apart_gives_the_same_answers(tmp_path: Path, build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    graph = calibrate(capture(build().eval(), images(1)), [images(16, seed) for seed in range(2)])
    path, x = tmp_path / "x.pte", images(8, seed=5)
    write(graph, images(1), path, {})
    assert snr_db(graph(x), run(path, x)) > 40


def test_every_consumer_gets_its_own_dequantiser() -> None:
    graph = copy.deepcopy(quantized(ZeroPaddedShortcut)[1])
    x, before = images(4), quantized(ZeroPaddedShortcut)[1](images(4))
    share_dequantizers(graph)
    assert max(map(len, users(graph))) > 1
    assert own_dequantizers(graph).modified
    assert max(map(len, users(graph))) == 1
    assert torch.equal(graph(x), before)
    assert not own_dequantizers(graph).modified


def users(graph: fx.GraphModule) -> list[list[fx.Node]]:
    return [list(n.users) for n in graph.graph.nodes if n.target is ops.qd.dequantize_per_tensor.default]


def share_dequantizers(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.target is ops.qd.quantize_per_tensor.default:
            first, *others = node.users
            node.append(first)
            for other in others:
                other.replace_all_uses_with(first)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def test_a_weight_with_a_zero_point_is_refused(tmp_path: Path) -> None:
    graph: Any = copy.deepcopy(quantized(Residual)[1])
    graph.head.weight_zero_point.fill_(3)
    with pytest.raises(ExportError, match=r"(?s)ExecuTorch export failed.*weight_zero_point.*symmetric"):
        write(graph, images(1), tmp_path / "x.pte", {})
    assert list(tmp_path.iterdir()) == []


def test_the_runtime_takes_memory_that_it_may_not_write(
    files: dict[type[nn.Module], Path], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", images(1).numpy())
    ExecuTorchModel.prepare()
    model = ExecuTorchModel(str(files[Residual]), threads=1)
    model.bind(model.arrange(np.load(tmp_path / "x.npy", mmap_mode="r")))
    model.invoke()
    assert torch.equal(torch.from_numpy(model.output()), run(files[Residual], images(1)))


def test_the_runtime_refuses_other_shapes_and_counts_threads(files: dict[type[nn.Module], Path]) -> None:
    ExecuTorchModel.prepare()
    model = ExecuTorchModel(str(files[Residual]), threads=2)
    assert ExecuTorchModel.bindings._threadpool_get_thread_count() == 2
    assert (model.batch, model.shape, str(model.dtype)) == (1, (3, 8, 8), "float32")
    assert model.version
    with pytest.raises(ValueError, match="takes samples of shape"):
        model.arrange(images(1)[:, :, :4].numpy())


def test_coverage_of_garbage_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.pte").write_bytes(b"garbage")
    with pytest.raises(Exception, match=r".+"):  # ExecuTorch's own; coverage.of_file explains it
        count(tmp_path / "x.pte")


def test_a_program_without_products_has_no_coverage(tmp_path: Path) -> None:
    write(capture(nn.ReLU(), images(1)), images(1), tmp_path / "x.pte", {}, precision="fp32")
    assert count(tmp_path / "x.pte") == Coverage(())


def test_one_channel_that_came_channels_last(tmp_path: Path) -> None:
    """Such an example says that it is contiguous, with the strides of the other order."""
    example = torch.randn(1, 8, 8, 1).permute(0, 3, 1, 2).contiguous()
    model = nn.Conv2d(1, 4, 3, stride=2, padding=1).eval()
    write(capture(model, example), example, tmp_path / "x.pte", {}, precision="fp32")
    torch.testing.assert_close(run(tmp_path / "x.pte", example), model(example), rtol=1e-4, atol=1e-5)
