"""Small networks whose channels are coupled in ways that pruning has to get right, or leave alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models.resnets import Resnet8Block


class ZeroPadded(nn.Module):
    """A CIFAR ResNet in small: shortcuts halve the picture and pad the channels with zeros on both sides.

    ``fixed``: the padding is a number, as He et al.'s option A is usually written; otherwise it is made up
    when it runs, so that a wrong cut raises nothing and just answers wrongly.
    """

    def __init__(self, fixed: bool = True) -> None:
        super().__init__()
        self.fixed = fixed
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.conv1 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        missing = 16 if self.fixed else out.shape[1] - x.shape[1]
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing // 2, missing - missing // 2))
        return self.head(F.relu(out + short).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Inverted residual with a gate, and a residual sum around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.expand = nn.Conv2d(16, 32, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.squeeze = nn.Conv2d(32, 16, 1)
        self.excite = nn.Conv2d(16, 32, 1)
        self.project = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.hardswish(self.depthwise(F.relu6(self.norm(self.expand(x)))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head((x + self.project(y * gate)).mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads the concatenation of all before it; a slope for each channel; then flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.act = nn.PReLU(16)
        self.three = nn.Conv2d(32, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(48)
        self.head = nn.Linear(48 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.one(x))
        two = torch.cat([one, self.act(self.two(one))], 1)
        three = torch.cat([two, F.relu(self.three(two))], 1)
        return self.head(F.max_pool2d(self.norm(three), 2).flatten(1))


class UpDown(nn.Module):
    """A U-Net in small: strided down, transposed up, concatenated; per-pixel outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge = nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        enter = F.relu(self.enter(x))
        up = F.relu(self.up(F.relu(self.down(enter))))
        return self.head(F.relu(self.merge(torch.cat([up, enter], 1))))


class Attention(nn.Module):
    """A transformer block in small: layer norm over the stream, a mean over patches; heads by reshaping, with
    numbers that stand in the code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 2, stride=2)
        self.norm1 = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.project = nn.Linear(16, 16)
        self.norm2 = nn.LayerNorm(16)
        self.wide = nn.Linear(16, 64)
        self.narrow = nn.Linear(64, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, 16)
        x = x + self.project(mixed)
        x = x + self.narrow(F.gelu(self.wide(self.norm2(x))))
        return self.head(x.mean(1))


class Grouped(nn.Module):
    """A grouped convolution, channels shuffled after it, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.stem(x))))
        x = x.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
        x = F.relu(self.twice(F.relu(self.twice(x))))
        return self.head(F.relu(self.wide(x)).mean((2, 3)))


class Normalized(nn.Module):
    """Group norm that is no layer mixes channels; instance norm doesn't; two layers share weights."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Conv2d(3, 16, 3, padding=1)
        self.apart = nn.Conv2d(16, 16, 3, padding=1)
        self.instance = nn.InstanceNorm2d(16, affine=True)
        self.tied1 = nn.Conv2d(16, 16, 1)
        self.tied2 = nn.Conv2d(16, 16, 1)
        self.tied2.weight = self.tied1.weight
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.group_norm(self.mixed(x), 4))
        x = F.relu(self.instance(self.apart(x)))
        x = F.relu(self.tied2(F.relu(self.tied1(x))))
        return self.head(x.mean((2, 3)))


class Words(nn.Module):
    """A text CNN: (N, T) token ids, embedding, 1-D convolutions, maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.conv1 = nn.Conv1d(16, 32, 3, padding=1)
        self.conv2 = nn.Conv1d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x).transpose(1, 2)
        return self.head(F.relu(self.conv2(F.relu(self.conv1(x)))).amax(2))


# First layers of the groups that may be cut, and of those that must stay whole (beside the outputs).
COUPLINGS: dict[type[nn.Module], tuple[set[str], set[str]]] = {
    ZeroPadded: ({"stem", "conv1"}, set()),
    SqueezeExcite: ({"stem", "expand", "squeeze"}, set()),
    Dense: ({"one", "two", "three"}, set()),
    UpDown: ({"enter", "down", "up", "merge"}, set()),
    Attention: ({"wide", "patches", "project", "narrow"}, {"qkv"}),
    Grouped: ({"stem", "wide"}, {"grouped", "twice"}),
    Normalized: (set(), {"mixed", "apart", "tied1", "tied2"}),
    Words: ({"embedding", "conv1", "conv2"}, set()),
}
CUTTABLE = [build for build, (cut, _) in COUPLINGS.items() if cut]


def inputs(build: type[nn.Module], count: int = 4) -> Tensor:
    """What a network takes: token ids for ``Words``, else pictures of 8x8."""
    generator = torch.Generator().manual_seed(1)
    if build is Words:
        return torch.randint(0, 50, (count, 12), generator=generator)
    return torch.randn(count, 3, 8, 8, generator=generator)


class Stack(nn.Module):
    """(N, 3, 8, 8) to (N, 5): a stem, residual blocks in two stages, the second behind a wider block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stages = nn.Sequential(
            nn.Sequential(*[Resnet8Block(8, 8, 1) for _ in range(3)]),
            nn.Sequential(Resnet8Block(8, 16, 2), Resnet8Block(16, 16, 1)),
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x).relu()).mean((2, 3)))


CAN_LEAVE = ["stages.0.0", "stages.0.1", "stages.0.2", "stages.1.1"]


def stack() -> Stack:
    torch.manual_seed(0)
    return Stack().eval()


def pictures(count: int = 16, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def asleep(*names: str) -> Stack:
    """A stack whose blocks of these names do next to nothing."""
    model = stack()
    for name in names:
        norm = model.get_submodule(f"{name}.norm2")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.weight.data.fill_(1e-3)
    return model
