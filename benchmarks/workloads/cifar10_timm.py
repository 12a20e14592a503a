"""CIFAR-10 at 64 pixels with networks of timm, trained here: what int8 is hard for.

MobileNetV3-small (Howard et al. 2019, arXiv 1905.02244) and EfficientNet-B0 (Tan and Le 2019, arXiv
1905.11946) have depthwise convolutions, squeeze-excite gates and swishes; the vision transformer (Dosovitskiy
et al. 2021, arXiv 2010.11929) has 64 tokens, patches of 8 x 8. Trained from random weights for a few epochs,
so far from what these networks can: it is the loss by int8 that is looked at.

Data: EDGEKIT_DATA, as in cifar10.py. Needs timm. No trained weights are at hand, so they are made, once:

    EDGEKIT_DATA=… python benchmarks/workloads/cifar10_timm.py [NAME …]

They are kept in the user's cache folder; a killed training goes on after its last epoch. Then:

    edgekit compress benchmarks/workloads/cifar10_timm.py:mobilenetv3 --recipe quick --max-drop 0.5
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import cifar10  # beside this file, as is own_weights
import own_weights
import torch
from torch import nn

from edgekit.config.settings import DistillationConfig, TrainingConfig
from edgekit.errors import MissingExtraError
from edgekit.tasks import Classification
from edgekit.workload import Augmentation, Preprocessing, Workload

PIXELS = 64
_PLAIN = DistillationConfig(loss="none")
_CONVOLUTIONS = TrainingConfig(
    epochs=8, batch_size=128, lr=0.1, weight_decay=2e-4, schedule="one_cycle", distillation=_PLAIN
)
_TOKENS = TrainingConfig(
    epochs=4,
    batch_size=128,
    optimizer="adamw",
    lr=2e-3,
    weight_decay=0.05,
    schedule="one_cycle",
    distillation=_PLAIN,
)


def _timm(name: str, **settings: object) -> nn.Module:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    try:
        from foreign import declare_operators  # torchvision's, which timm imports

        declare_operators()
        import timm
    except ImportError as error:
        raise MissingExtraError("timm is needed for this network", next="pip install timm") from error
    made: nn.Module = timm.create_model(name, num_classes=10, **settings)
    return made


def _tokens() -> nn.Module:
    sizes = {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}
    return _timm("vit_tiny_patch16_224", img_size=PIXELS, **sizes)


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], TrainingConfig]] = {
    "mobilenetv3": (lambda: _timm("mobilenetv3_small_100"), _CONVOLUTIONS),
    "efficientnet": (
        lambda: _timm("efficientnet_b0"),
        _CONVOLUTIONS.model_copy(update={"epochs": 3}),
    ),
    "vit": (_tokens, _TOKENS),
}


def mobilenetv3() -> Workload:
    """MobileNetV3-small, 1.5 M parameters."""
    return load("mobilenetv3")


def efficientnet() -> Workload:
    """EfficientNet-B0, 4 M parameters."""
    return load("efficientnet")


def vit() -> Workload:
    """A vision transformer with four layers of 96 numbers, 0.5 M parameters."""
    return load("vit")


def load(name: str) -> Workload:
    """A trained network of ``NETWORKS``. Raises WorkloadError if data or weights aren't there."""
    return own_weights.load(untrained(name), NETWORKS[name][1], "cifar10_timm.py")


def untrained(name: str) -> Workload:
    """The same with random weights, always the same ones."""
    folder = cifar10.data_folder()
    train, classes = cifar10.samples(folder / "cifar10_train.npz")
    validation, _ = cifar10.samples(folder / "cifar10_test.npz")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(own_weights.SEED)
        model = NETWORKS[name][0]().eval()
    return Workload(
        name=f"cifar10-{name}",
        model=model,
        task=Classification(num_classes=10),
        train=train,
        validation=validation,
        preprocessing=Preprocessing(
            layout="NHWC",
            size=(PIXELS, PIXELS),
            scale=1 / 255,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        augmentation=Augmentation(horizontal_flip=True, shift=4),
        classes=classes,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from work import Teller

    from edgekit.training import evaluate

    for one in sys.argv[1:] or NETWORKS:
        ready = own_weights.trained(untrained(one), NETWORKS[one][1], Teller(one))
        print(f"{one}: {evaluate(ready.model, ready).score:.2%} of {len(ready.validation):,} test images")
