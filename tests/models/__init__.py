"""The model matrix: small versions of the architectures that int8 graphs and exporters must serve.

Each is true to its paper in kinds of blocks and ops, but narrow, shallow and for small inputs. `trained`
gives one after a brief real training, `inputs` samples of the task that it was trained on. Those whose
blocks repeat stand there twice: with a block or two of each kind, and as ``…_deep`` with all stages, which
is for the slow tier.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models import branches, mobile, others, resnets, transformers
from tests.models.tasks import Classes, PixelClasses, Reconstruction, Target
from tests.once import once

TEN = Classes(10)


@dataclass(frozen=True)
class Case:
    """One model of the matrix, what goes into it and how it is briefly trained."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # one sample without batch
    kind: Literal["cnn", "transformer", "extra"]
    dtype: torch.dtype = torch.float32  # int64: token ids from range(vocabulary), 0 is padding
    vocabulary: int = 0
    target: Target = TEN
    steps: int = 40
    rate: float = 0.01
    deep: bool = False  # for the slow tier: a shallow version has the same kinds of blocks


IMAGE, LARGE, TOKENS = (3, 32, 32), (3, 64, 64), (16,)
TOPICS = Classes(4)
CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("resnet8", resnets.Resnet8, IMAGE, "cnn", rate=0.005),
        Case("resnet18", partial(resnets.Resnet, resnets.Basic, base=16, stages=2), LARGE, "cnn"),
        Case("resnet18_deep", partial(resnets.Resnet, resnets.Basic, base=16), LARGE, "cnn", deep=True),
        Case("resnet50", partial(resnets.Resnet, resnets.Bottleneck, base=8), LARGE, "cnn"),
        Case("vgg_bn", resnets.VggBn, IMAGE, "cnn", rate=0.005),
        Case("mobilenet_v1", mobile.MobilenetV1, LARGE, "cnn", steps=50, rate=0.02),
        Case("mobilenet_v2", partial(mobile.MobilenetV2, mobile.MobilenetV2.SHORT), LARGE, "cnn"),
        Case("mobilenet_v2_deep", mobile.MobilenetV2, LARGE, "cnn", deep=True),
        Case(
            "mobilenet_v3_small",
            partial(mobile.MobilenetV3Small, mobile.MobilenetV3Small.SHORT),
            LARGE,
            "cnn",
        ),
        Case("mobilenet_v3_small_deep", mobile.MobilenetV3Small, LARGE, "cnn", deep=True),
        Case("efficientnet_lite0", partial(mobile.Efficientnet, True), LARGE, "cnn"),
        Case("efficientnet_b0", partial(mobile.Efficientnet, False, mobile.Efficientnet.SHORT), LARGE, "cnn"),
        Case("efficientnet_b0_deep", partial(mobile.Efficientnet, False), LARGE, "cnn", deep=True),
        Case("regnet", partial(resnets.Regnet, ((24, 2), (24, 1), (48, 2))), (3, 24, 24), "cnn"),
        Case("regnet_deep", resnets.Regnet, (3, 48, 48), "cnn", deep=True),
        Case("densenet", partial(branches.Densenet, (3, 2)), LARGE, "cnn"),
        Case("densenet_deep", branches.Densenet, LARGE, "cnn", deep=True),
        Case("squeezenet", branches.Squeezenet, LARGE, "cnn", steps=80, rate=0.003),
        Case("shufflenet_v2", partial(mobile.ShufflenetV2, ((32, 2), (64, 2))), LARGE, "cnn"),
        Case("shufflenet_v2_deep", mobile.ShufflenetV2, LARGE, "cnn", deep=True),
        Case("inception", branches.Inception, LARGE, "cnn"),
        Case("repvgg", resnets.Repvgg, LARGE, "cnn"),
        Case("mobileone", mobile.Mobileone, LARGE, "cnn", steps=50),
        Case(
            "convnext_atto",
            partial(transformers.ConvnextAtto, ((16, 1), (32, 2))),
            LARGE,
            "cnn",
            rate=0.005,
        ),
        Case("convnext_atto_deep", transformers.ConvnextAtto, LARGE, "cnn", rate=0.005, deep=True),
        Case("unet", branches.Unet, IMAGE, "cnn", target=PixelClasses(3)),
        Case("ds_cnn", mobile.DsCnn, (1, 49, 10), "cnn", target=Classes(12), steps=60, rate=0.02),
        Case(
            "autoencoder", others.Autoencoder, (640,), "cnn", target=Reconstruction(), steps=100, rate=0.005
        ),
        Case("audio_1d", others.Audio1d, (1, 2000), "cnn", target=Classes(8)),
        Case("vit_tiny", partial(transformers.VitTiny, 2), IMAGE, "transformer", rate=0.002),
        Case("vit_tiny_deep", transformers.VitTiny, IMAGE, "transformer", rate=0.002, deep=True),
        Case(
            "text_encoder",
            transformers.TextEncoder,
            TOKENS,
            "transformer",
            torch.int64,
            64,
            TOPICS,
            steps=80,
            rate=0.005,
        ),
        Case("upsample", others.Upsample, IMAGE, "extra", steps=60),
        Case("lstm", others.Lstm, (12, 8), "extra", target=Classes(5), rate=0.02),
        Case("reused_module", others.ReusedModule, IMAGE, "extra", steps=60, rate=0.02),
        Case("padding", others.Padding, IMAGE, "extra", steps=60),
        Case("activations", others.Activations, (3, 16, 16), "extra", rate=0.005),
        Case(
            "attention_mask",
            transformers.AttentionMask,
            TOKENS,
            "extra",
            torch.int64,
            64,
            TOPICS,
            steps=80,
            rate=0.005,
        ),
        Case("gru", others.Gru, (6, 8), "extra", target=Classes(5), rate=0.02),
    )
}


# One of each kind: residual, depthwise, gated, joined, of features, of tokens.
FIRST = frozenset(
    {
        "resnet8",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "vit_tiny",
        "densenet",
        "unet",
        "text_encoder",
        "audio_1d",
    }
)


def each(slow: Container[str] = ()) -> list[Any]:
    """All names, to parametrize a test; the deep ones and those in ``slow`` are in the slow tier, those that
    aren't ``FIRST`` in the wide one.
    """

    def marks(name: str) -> list[pytest.MarkDecorator]:
        if CASES[name].deep or name in slow:
            return [pytest.mark.slow]
        return [] if name in FIRST else [pytest.mark.wide]

    return [pytest.param(name, marks=marks(name), id=name) for name in CASES]


def samples(case: Case, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the case's task; another seed gives other samples of the same task."""
    return case.target.draw(case.shape, case.vocabulary, count, torch.Generator().manual_seed(seed))


def inputs(case: Case, count: int, seed: int = 0) -> Tensor:
    """(count, *case.shape) from the distribution that the model is trained on."""
    return samples(case, count, seed)[0]


def loss(case: Case, output: Tensor, target: Tensor) -> Tensor:
    """The task's training loss."""
    if isinstance(case.target, Reconstruction):
        return F.mse_loss(output, target)
    return F.cross_entropy(output, target)


def score(case: Case, output: Tensor, target: Tensor) -> float:
    """Accuracy, over samples or pixels; of a reconstruction the share of variance explained."""
    if isinstance(case.target, Reconstruction):
        return float(1 - (output - target).square().mean() / target.var())
    return float((output.argmax(1) == target).float().mean())


@functools.cache
def training(name: str) -> tuple[nn.Module, list[float]]:
    """A model after a brief training and the loss of each step; test processes share what one trained."""

    def make(folder: Path) -> None:
        model, losses = train(name)
        torch.save((model.state_dict(), losses), folder / "trained.pt")

    weights, losses = torch.load(once(f"model-{name}", make) / "trained.pt")
    with torch.random.fork_rng(devices=[]):
        model = built(CASES[name]).eval()
    model.load_state_dict(weights)
    return model, losses


def train(name: str) -> tuple[nn.Module, list[float]]:
    """A model after a brief training, and the loss of each step. Leaves torch's random state alone."""
    case = CASES[name]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        model = built(case).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=case.rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, case.rate, total_steps=case.steps + 1)
        losses: list[float] = []
        for step in range(case.steps):
            x, target = samples(case, 16, seed=1_000_000 + step)
            value = loss(case, model(x), target)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(value.detach()))
    return model.eval(), losses


def built(case: Case) -> nn.Module:
    """With random weights, and batch-norm statistics that arrive after few steps."""
    model = case.build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.3
    return model


def trained(name: str) -> nn.Module:
    """The model in eval mode after a brief, seeded training; made once, so copy it before changing it."""
    return training(name)[0]
