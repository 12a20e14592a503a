"""What people's models hold beside plain layers, captured: the function stays, or the refusal says why."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from edgekit.errors import CaptureError
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.graph.compounds import COMPOUNDS
from edgekit.graph.fold import fold_affine, fold_batch_norm
from edgekit.graph.fuse import fuse_branches
from edgekit.graph.normalize import normalize
from edgekit.int8.lower import lower
from edgekit.int8.placement import quantized_outputs

aten = ops.aten


def targets(graph: fx.GraphModule) -> list[Any]:
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def assert_captured(model: nn.Module, x: Tensor) -> fx.GraphModule:
    """Captured, the model computes what it computed, for any number of samples, and is left as it was."""
    model.eval()
    with torch.no_grad():
        wanted = {rows: model(x[:rows]).detach() for rows in (1, len(x))}
        graph = capture(model, x)
        for rows, answer in wanted.items():
            torch.testing.assert_close(graph(x[:rows]), answer, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model(x[:rows]), answer)
    return graph


# --- parametrisations --------------------------------------------------------------------------------------

WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "weight_norm, old": weight_norm,
    "spectral_norm, old": spectral_norm,
    "pruning mask": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3),
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 7, 7)),
    "linear": (lambda: nn.Linear(9, 5), (4, 9)),
    "transposed 1-D": (lambda: nn.ConvTranspose1d(4, 6, 4, 2), (4, 9)),
    "transposed 2-D": (lambda: nn.ConvTranspose2d(4, 6, 4, 2), (4, 5, 5)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_parametrisations_are_folded_into_one_weight(wrapper: str, layer: str) -> None:
    torch.manual_seed(0)
    build, shape = LAYERS[layer]
    model = nn.Sequential(WRAPPERS[wrapper](build()))
    x = torch.randn(3, *shape)
    model.train()(x)  # spectral norm iterates; the older hooks leave what they computed behind
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = assert_captured(model, x)
    assert len(targets(graph)) == 1
    assert {name for name, _ in graph.named_parameters()} == {"0.weight", "0.bias"}
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


# --- constant expressions ----------------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    """Weight standardisation (Qiao et al. 2019, arXiv 1903.10520): the weight is computed."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        deviation = weight.std((1, 2, 3), keepdim=True) + 1e-5
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / deviation
        return F.conv2d(x, weight, self.bias)


class Projections(nn.Module):
    """Queries that are not the keys: slices of one weight. And products with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.query = nn.Parameter(torch.randn(1, 3, 8))
        self.matrix, self.heads = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(2, 4, 8))
        self.offset = nn.Parameter(torch.randn(7))
        self.last = nn.Parameter(torch.randn(8, 7))

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(self.query.expand(len(x), -1, -1), x, x, need_weights=False)[0]
        y = torch.einsum("blhd,hde->ble", y.reshape(len(x), 3, 2, 4), self.heads)
        y = torch.cat([y @ self.matrix.T, y[:, :, :3]], 2)
        return torch.addmm(self.offset, y.flatten(0, 1), self.last)


def test_a_weight_that_is_computed_of_parameters_is_computed_once_and_learns() -> None:
    torch.manual_seed(0)
    graph = assert_captured(nn.Sequential(Standardised(3, 4, 3)), torch.randn(3, 3, 6, 6))
    assert targets(graph) == [aten.conv2d.default]
    assert isinstance(graph.get_parameter("0.weight"), nn.Parameter)


def test_products_with_parameters_are_linear_layers() -> None:
    torch.manual_seed(0)
    graph = assert_captured(Projections(), torch.randn(3, 5, 8))
    products = [node for node in graph.graph.nodes if node.target in ops.LINEAR]
    assert len(products) == 6  # queries, keys with values, out, einsum, matrix, addmm
    assert all(node.args[1].op == "get_attr" for node in products)
    assert not {aten.einsum.default, aten.addmm.default} & set(targets(graph))
    assert all(isinstance(value, nn.Parameter) for value in graph.parameters())


@pytest.mark.parametrize(
    "equation",
    [
        "bhld,bhmd->bhlm",
        "blhd,bmhd->bhlm",
        "bhlm,bmhd->blhd",
        "bij,bkj->bik",
        "bij,bjk",
        "...ij,...jk->...ik",
    ],
)
def test_einsum_of_two_activations_is_one_product_of_matrices(equation: str) -> None:
    left, right = equation.partition("->")[0].split(",")
    sizes = {"b": 3, "h": 2, "l": 5, "m": 5, "d": 4, "i": 4, "j": 4, "k": 4, ".": 1}

    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shapes = [
                [sizes[label] for label in part.replace("...", "bh") if label != "b"]
                for part in (left, right)
            ]
            parts = [x[:, : torch.Size(shape).numel()].reshape(-1, *shape) for shape in shapes]
            return torch.einsum(equation, parts[0], parts[1].sin())

    graph = assert_captured(Product(), torch.randn(3, 64))
    assert targets(graph).count(aten.matmul.default) == 1
    assert aten.einsum.default not in targets(graph)


# --- in-place ops, wrapped sub-graphs, names ---------------------------------------------------------------


class Step(nn.Module):
    """A convolution, something in the middle, a convolution."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.inner, self.first(x)))


def read_again(layer: nn.Module, x: Tensor) -> Tensor:
    y = layer(x)
    return F.relu_(y) + y


def written_through_a_view(layer: nn.Module, x: Tensor) -> Tensor:
    y = layer(x).clone()
    y[:, :, 0] = 0
    y[:, [5, 6]] = y[:, [6, 5]]
    return y


def without_gradients(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = layer(x).relu()
        with torch.enable_grad():
            return y + layer(y)


def in_inference_mode(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return layer(x).relu()


def without_autocast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return layer(x.float()).relu()


def checkpointed(layer: nn.Module, x: Tensor) -> Tensor:
    return checkpoint(lambda t: layer(t).relu(), x, use_reentrant=False)


def asked_for_its_length(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x).reshape(len(x), -1).reshape(int(x.shape[0]), 8, 4, 4)


@pytest.mark.parametrize(
    "middle",
    [
        read_again,
        written_through_a_view,
        without_gradients,
        in_inference_mode,
        without_autocast,
        checkpointed,
        asked_for_its_length,
    ],
)
def test_what_stands_around_layers_changes_no_answer(middle: Callable[[nn.Module, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    graph = assert_captured(Step(middle), torch.randn(3, 3, 6, 6))
    assert not [node for node in graph.graph.nodes if node.op == "call_module"]
    assert not [t for t in targets(graph) if isinstance(t, torch._ops.HigherOrderOperator)]
    assert not [t for t in targets(graph) if isinstance(t, torch._ops.OpOverload) and t._schema.is_mutable]


class Named(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.first = nn.Conv2d(3, 4, 3)
        setattr(self, name, nn.Conv2d(4, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(self.first(x).relu())


@pytest.mark.parametrize("name", ["code", "graph", "meta"])
def test_a_layer_may_have_any_name(name: str) -> None:
    graph = assert_captured(Named(name), torch.randn(3, 3, 8, 8))
    last = [node for node in graph.graph.nodes if node.target is aten.conv2d.default][-1]
    assert ops.layer_of(last) == name
    assert {ops.user_name(n) for n, _ in graph.named_parameters()} == {
        n for n, _ in Named(name).named_parameters()
    }
    again = capture(copy.deepcopy(graph), torch.randn(1, 3, 8, 8))
    assert len(list(again.parameters())) == 4


def test_what_was_captured_is_not_captured_again() -> None:
    graph = capture(Named("inner"), torch.randn(1, 3, 8, 8))
    assert capture(graph, torch.randn(1, 3, 8, 8)) is graph


# --- refusals ----------------------------------------------------------------------------------------------


def with_a_fixed_batch(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.reshape(2, 8, 4, 4))


def test_a_fixed_batch_is_refused_with_its_line() -> None:
    with pytest.raises(
        CaptureError, match=r"batch size is fixed.*test_capture\.py:\d+: .*reshape\(2, 8, 4, 4\)"
    ):
        capture(Step(with_a_fixed_batch), torch.randn(2, 3, 6, 6))


def test_a_batch_norm_without_statistics_is_refused_by_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(CaptureError, match=r"^1: a batch norm without running statistics"):
        capture(model, torch.randn(2, 3, 6, 6))


class StandardisedByNorm(nn.Conv2d):
    """As NFNets and BiT have it: the weight goes through a batch norm of its own, in training and after."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        rows = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, rows.reshape_as(self.weight), self.bias)


def test_a_batch_norm_of_weights_is_no_norm_of_the_batch() -> None:
    graph = assert_captured(nn.Sequential(StandardisedByNorm(3, 4, 3), nn.ReLU()), torch.randn(3, 3, 6, 6))
    assert set(targets(graph)) == {aten.conv2d.default, aten.relu.default}


def a_weight_for_each_sample(layer: nn.Module, x: Tensor) -> Tensor:
    weight = layer(x).mean((2, 3)).reshape(-1, 1, 1, 1)
    y = F.conv2d(x.reshape(1, -1, 4, 4), weight, groups=x.shape[0] * 8)
    return y.reshape(-1, 8, 4, 4)


def test_a_convolution_with_a_weight_for_each_sample_is_refused() -> None:
    with pytest.raises(CaptureError, match="another weight for each sample"):
        capture(Step(a_weight_for_each_sample), torch.randn(2, 3, 6, 6))


# --- depth -------------------------------------------------------------------------------------------------


def test_a_graph_of_five_thousand_nodes_takes_seconds() -> None:
    """Every pass over the graph, on a chain deeper than Python's recursion limit."""
    graph = fx.Graph()
    x = last = graph.placeholder("x")
    factor = graph.get_attr("factor")
    constant = factor
    for _ in range(1700):
        constant = graph.call_function(aten.add.Tensor, (constant, factor))
        last = graph.call_function(
            aten.relu.default, (graph.call_function(aten.mul.Tensor, (last, constant)),)
        )
    graph.output((last,))
    mode = torch._subclasses.FakeTensorMode()
    module = fx.GraphModule(nn.ParameterDict({"factor": nn.Parameter(torch.zeros(1))}), graph)
    x.meta["val"] = mode.from_tensor(torch.zeros(2, 3))
    started = time.monotonic()
    ops.refresh(module)
    assert ops.is_constant(constant)
    assert not ops.is_constant(last)
    for step in (normalize, fold_batch_norm, fuse_branches, fold_affine, lower, quantized_outputs):
        step(module)
    assert len(module.graph.nodes) > 5000
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("reduce", [torch.mean, torch.sum])
def test_answers_of_several_heads_are_summed_without_a_stack(
    reduce: Callable[..., Tensor], keep: bool, axis: int
) -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Linear(6, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return reduce(torch.stack([head(x) for head in self.heads], axis), axis, keepdim=keep)

    graph = assert_captured(Heads(), torch.randn(5, 6))
    assert aten.stack.default not in targets(graph)
    assert targets(graph).count(aten.add.Tensor) == 2


class Compounds(nn.Module):
    """Ops that are a sum and a product in one, between layers, with parameters and with activations."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.scale = nn.Parameter(torch.randn(8)), nn.Parameter(torch.rand(8) + 0.5)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.addcmul(self.offset, self.scale, x)
        x = torch.addcdiv(x, x, self.scale, value=0.5)
        x = torch.lerp(x, x * x, 0.25)
        x = torch.sub(torch.add(x, x.square(), alpha=2), x, alpha=0.5)
        return self.second(torch.rsub(x, 1.0, alpha=2))


def test_compounds_are_sums_and_products() -> None:
    torch.manual_seed(0)
    model, x = Compounds().eval(), torch.randn(5, 6)
    graph = capture(model, x[:1])
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x))
    one = {*COMPOUNDS} - ops.MEANS
    assert not [node for node in graph.graph.nodes if node.target in one or "alpha" in node.kwargs]
