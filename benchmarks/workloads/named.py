"""Networks with several tensors in or out, as people bring them.

bert, distilbert  transformers' classifiers, from a configuration: token ids and a mask in, their dataclass
                  out; trained on banking77 (77 intents)
rnet, onet        MTCNN's (Zhang et al. 2016), with the weights that facenet-pytorch ships: 2 and 3 outputs
ssdlite           torchvision's ssdlite320_mobilenet_v3_large without its decoding: boxes and scores
deeplabv3         torchvision's deeplabv3_mobilenet_v3_large, which returns a dict
two_branch        a garment's picture, and numbers beside it
siamese           the same tower for two garments: are they of one kind?
spotter           streams: a spoken digit's frames one by one through two layers, a GRU cell whose state is
                  input and output, and two layers more

EDGEKIT_DATA names the folder with text/banking77_train.csv, text/banking77_test.csv, fsdd_train.npz and
fsdd_test.npz; Fashion-MNIST is looked for where Debian's package dataset-fashion-mnist puts it, or in
EDGEKIT_FASHION_MNIST. Those that are trained here are trained once, by the first line:

    EDGEKIT_DATA=… python benchmarks/workloads/named.py [NAME …]
    EDGEKIT_DATA=… edgekit compress benchmarks/workloads/named.py:bert --recipe quick

torchvision and facenet-pytorch are installed as `make reach` does it.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import own_weights  # beside this file
import spoken_digits
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit import (
    Classification,
    Outputs,
    Preprocessing,
    Regression,
    Segmentation,
    TokenClassification,
    Workload,
)
from edgekit.config.settings import DistillationConfig, TrainingConfig
from edgekit.errors import WorkloadError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import foreign

TOKENS, WORDS = 32, 2500
PAD, UNKNOWN, START = 0, 1, 2
PLAIN = DistillationConfig(loss="none")
TEXT = TrainingConfig(
    epochs=20,
    batch_size=64,
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.01,
    label_smoothing=0.1,
    distillation=PLAIN,
)
SOUND = TrainingConfig(
    epochs=30, batch_size=128, optimizer="adamw", lr=3e-3, weight_decay=0.01, distillation=PLAIN
)
PICTURES = TrainingConfig(epochs=4, batch_size=128, lr=0.05, weight_decay=5e-4, distillation=PLAIN)


# --- text ------------------------------------------------------------------------------------------------


def bert() -> Workload:
    """See the module."""
    return own_weights.load(untrained("bert"), TEXT, "named.py bert")


def distilbert() -> Workload:
    """See the module."""
    return own_weights.load(untrained("distilbert"), TEXT, "named.py distilbert")


def _text(name: str) -> Workload:
    if importlib.util.find_spec("torchvision"):
        foreign.declare_operators()  # transformers imports it where it is installed
    import transformers as tf

    (train, labels), (test, answers) = _queries()
    words = Counter(word for text in train for word in _words(text))
    known = {word: index for index, (word, _) in enumerate(words.most_common(WORDS - 3), 3)}
    size: dict[str, Any] = {"vocab_size": WORDS, "num_labels": 77, "max_position_embeddings": TOKENS}
    if name == "bert":
        wide = {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
        }
        model: nn.Module = tf.BertForSequenceClassification(tf.BertConfig(**size, **wide))
    else:
        wide = {"dim": 128, "n_layers": 2, "n_heads": 4, "hidden_dim": 256}
        model = tf.DistilBertForSequenceClassification(tf.DistilBertConfig(**size, **wide))
    return Workload(
        f"banking77-{name}",
        model.eval(),
        Classification(77),
        (_tokens(train, known), torch.tensor(labels)),
        (_tokens(test, known), torch.tensor(answers)),
    )


def _queries() -> list[tuple[list[str], list[int]]]:
    folder = Path(os.environ.get("EDGEKIT_DATA", ""), "text")
    if not (folder / "banking77_train.csv").is_file():
        raise WorkloadError(
            "the queries are not there",
            where="environment variable EDGEKIT_DATA",
            got=os.environ.get("EDGEKIT_DATA", "not set"),
            expected="a folder with text/banking77_train.csv",
        )
    found, names = [], {}
    for split in ("train", "test"):
        with (folder / f"banking77_{split}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = names or {name: index for index, name in enumerate(sorted({row["category"] for row in rows}))}
        found.append(([row["text"] for row in rows], [names[row["category"]] for row in rows]))
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|[0-9]|[^a-z0-9\s]", text.lower())


def _tokens(texts: list[str], known: dict[str, int]) -> dict[str, Tensor]:
    """Whole words, as a small vocabulary has them, behind a token that the classifier reads."""
    ids = torch.full((len(texts), TOKENS), PAD)
    for row, text in enumerate(texts):
        tokens = [START, *(known.get(word, UNKNOWN) for word in _words(text))][:TOKENS]
        ids[row, : len(tokens)] = torch.tensor(tokens)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


# --- faces -----------------------------------------------------------------------------------------------


class Cascade(nn.Module):
    """MTCNN's R-Net (24 pixels) and O-Net (48): boxes (N, 4), landmarks (N, 10) of the latter, probabilities
    (N, 2).
    """

    def __init__(self, widths: tuple[int, ...], features: int, hidden: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        before, self.depth, self.landmarks = 3, len(widths), len(widths) == 4
        for index, (width, kernel) in enumerate(zip(widths, kernels, strict=True), 1):
            setattr(self, f"conv{index}", nn.Conv2d(before, width, kernel))
            setattr(self, f"prelu{index}", nn.PReLU(width))
            before = width
        at = self.depth + 1
        self.dense, self.prelu = f"dense{at}", f"prelu{at}"
        setattr(self, self.dense, nn.Linear(features, hidden))
        setattr(self, self.prelu, nn.PReLU(hidden))
        self.ends = [f"dense{at + 1}_{number}" for number in range(1, 4 if self.landmarks else 3)]
        for end, width in zip(self.ends, (2, 4, 10), strict=False):
            setattr(self, end, nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        for index in range(1, self.depth + 1):
            x = getattr(self, f"prelu{index}")(getattr(self, f"conv{index}")(x))
            if index < (4 if self.landmarks else 3):
                x = F.max_pool2d(x, 2 if index == 3 else 3, 2, ceil_mode=True)
        x = x.permute(0, 3, 2, 1).flatten(1)
        x = getattr(self, self.prelu)(getattr(self, self.dense)(x))
        scores, *numbers = (getattr(self, end)(x) for end in self.ends)
        return (*numbers, F.softmax(scores, 1))


def rnet() -> Workload:
    """See the module."""
    model = foreign._loaded(Cascade((28, 48, 64), 576, 128, (3, 3, 2)), "facenet_pytorch/data/rnet.pt")
    return _faces("mtcnn-rnet", model, 24, {"boxes": Regression(), "probabilities": Regression()})


def onet() -> Workload:
    """See the module."""
    model = foreign._loaded(
        Cascade((32, 64, 64, 128), 1152, 256, (3, 3, 3, 2)), "facenet_pytorch/data/onet.pt"
    )
    tasks = {"boxes": Regression(), "landmarks": Regression(), "probabilities": Regression()}
    return _faces("mtcnn-onet", model, 48, tasks)


def _faces(name: str, model: nn.Module, size: int, tasks: dict[str, Any]) -> Workload:
    def pictures(count: int, seed: int) -> Tensor:
        part = foreign.images(count, size, torch.Generator().manual_seed(seed))
        return (255 * (0.2 * part + 0.5)).clamp(0, 255).byte()

    return Workload(
        name,
        model.eval(),
        Outputs(tasks),
        (pictures(512, 1), None),
        (pictures(128, 2), None),
        preprocessing=Preprocessing(layout="NCHW", scale=1.0, mean=(127.5,), std=(128.0,)),
    )


# --- torchvision -----------------------------------------------------------------------------------------


class Heads(nn.Module):
    """A detector of torchvision up to what its last layers give."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


def ssdlite() -> Workload:
    """See the module."""
    model = _torchvision("ssdlite320_mobilenet_v3_large", heads=True)
    tasks = {"bbox_regression": Regression(), "cls_logits": TokenClassification(91)}
    return _random("ssdlite320", model, 320, Outputs(tasks))


def deeplabv3() -> Workload:
    """See the module."""
    model = _torchvision("deeplabv3_mobilenet_v3_large", heads=False)
    return _random("deeplabv3", model, 224, Segmentation(21))


def _torchvision(name: str, *, heads: bool) -> nn.Module:
    foreign.declare_operators()
    import torchvision

    torch.manual_seed(0)
    if heads:
        model = Heads(torchvision.models.get_model(name, weights=None, weights_backbone=None))
    else:
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=21)
    foreign._give_weight(model)
    size = 320 if heads else 224
    foreign._feed(model, lambda count, seed: foreign.images(count, size, torch.Generator().manual_seed(seed)))
    return model.eval()


def _random(name: str, model: nn.Module, size: int, task: Any) -> Workload:
    def pictures(count: int, seed: int) -> Tensor:
        part = foreign.images(count, size, torch.Generator().manual_seed(seed))
        return (255 * (0.2 * part + 0.5)).clamp(0, 255).byte()

    return Workload(
        name,
        model,
        task,
        (pictures(64, 1), None),
        (pictures(16, 2), None),
        preprocessing=Preprocessing(layout="NCHW", scale=1 / 255, mean=(0.5,), std=(0.2,)),
    )


# --- garments --------------------------------------------------------------------------------------------


class Tower(nn.Module):
    """(N, 1, 28, 28) to (N, 64)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in ((1, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, picture: Tensor) -> Tensor:
        return self.body(picture).mean((2, 3))


class TwoBranch(nn.Module):
    """A picture of which the lower half is missing, and how bright its rows are."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = Tower()
        self.numbers = nn.Sequential(nn.Linear(28, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.mixed = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, picture: Tensor, rows: Tensor) -> Tensor:
        return self.mixed(torch.cat([self.tower(picture), self.numbers(rows)], 1))


class Siamese(nn.Module):
    """The same tower for both pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = Tower()
        self.compared = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        one, other = self.tower(first), self.tower(second)
        return self.compared(torch.cat([(one - other).abs(), one * other], 1))


def two_branch() -> Workload:
    """See the module."""
    return own_weights.load(untrained("two_branch"), PICTURES, "named.py two_branch")


def siamese() -> Workload:
    """See the module."""
    return own_weights.load(untrained("siamese"), PICTURES, "named.py siamese")


GREY = Preprocessing(layout="NCHW", scale=1 / 255, mean=(0.286,), std=(0.353,))


def _two_branch() -> Workload:
    data = []
    for pictures, labels in _garments():
        upper = pictures.clone()
        upper[:, :, 14:] = 0
        data.append(({"picture": upper, "rows": pictures.float().mean(3)[:, 0] / 255}, labels))
    train, validation = data
    return Workload(
        "two-branch",
        TwoBranch().eval(),
        Classification(10),
        train,
        validation,
        preprocessing={"picture": GREY},
    )


def _siamese() -> Workload:
    data = []
    for seed, (pictures, labels) in enumerate(_garments()):
        generator = torch.Generator().manual_seed(seed)
        other = torch.randperm(len(pictures), generator=generator)
        alike = torch.arange(len(pictures)) % 2 == 0  # half of the pairs are of one kind
        order = labels.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        neighbour = order[(place + 1) % len(order)]
        other = torch.where(alike, neighbour, other)
        same = (labels == labels[other]).long()
        data.append(({"first": pictures, "second": pictures[other]}, same))
    train, validation = data
    return Workload(
        "siamese",
        Siamese().eval(),
        Classification(2),
        train,
        validation,
        preprocessing={"first": GREY, "second": GREY},
    )


def _garments() -> list[tuple[Tensor, Tensor]]:
    """Fashion-MNIST (Xiao et al. 2017): 20,000 pictures to train on, and the 10,000 that are for testing."""
    folder = Path(os.environ.get("EDGEKIT_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
    found = []
    for split, count in (("train", 20_000), ("t10k", 10_000)):
        path = folder / f"{split}-images-idx3-ubyte.gz"
        if not path.is_file():
            raise WorkloadError(
                "Fashion-MNIST isn't there", where=str(folder), next="EDGEKIT_FASHION_MNIST=…"
            )
        with gzip.open(path) as file:
            pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
        with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)[:count]
        found.append((torch.from_numpy(pictures.copy()), torch.from_numpy(labels.astype(np.int64))))
    return found


# --- sound -----------------------------------------------------------------------------------------------


class Spotter(nn.Module):
    """A frame (N, 10) and the state (N, 64); the scores after the last frame count."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = nn.Sequential(nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, 96), nn.ReLU())
        self.memory = nn.GRUCell(96, 64)
        self.scores = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, frame: Tensor, h_in: Tensor | None = None) -> dict[str, Tensor]:
        state = self.memory(self.heard(frame), h_in)
        return {"scores": self.scores(state), "h_out": state}


def spotter() -> Workload:
    """See the module."""
    return own_weights.load(untrained("spotter"), SOUND, "named.py spotter")


def _spotter() -> Workload:
    clips = spoken_digits.untrained()
    train, validation = (
        ({"frame": one.inputs[:, 0].clone()}, one.targets) for one in (clips.train, clips.validation)
    )
    return Workload(
        "spotter",
        Spotter().eval(),
        Classification(10),
        train,
        validation,
        states={"h_out": "h_in"},
        classes=clips.classes,
    )


# --- training --------------------------------------------------------------------------------------------

TRAINED = {"bert": TEXT, "distilbert": TEXT, "two_branch": PICTURES, "siamese": PICTURES, "spotter": SOUND}


def untrained(name: str) -> Workload:
    """The workload with random weights, always the same ones."""
    makers = {"two_branch": _two_branch, "siamese": _siamese, "spotter": _spotter}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(own_weights.SEED)
        return makers[name]() if name in makers else _text(name)


def main(names: list[str]) -> None:
    """Train those that aren't yet."""
    from edgekit.training import evaluate

    for name in names or list(TRAINED):
        made = own_weights.trained(
            untrained(name), TRAINED[name], lambda event: print(event.message, flush=True)
        )
        print(f"{name}: {evaluate(made.model, made).score:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
