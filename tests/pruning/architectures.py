"""Kinds of architecture in small, each with couplings that a graph of operations doesn't tell."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PadModule(nn.Module):
    """He et al.'s option A as a module that holds the width of its padding, in two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.short1, self.short2 = Padding(4), Padding(4)
        self.one = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.two = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.one(x) + self.short1(x))
        x = F.relu(self.two(x) + self.short2(x))
        return self.head(x.mean((2, 3)))


class Padding(nn.Module):
    """Every second pixel, ``pad`` zero channels on each side."""

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class GroupedBottleneck(nn.Module):
    """A ResNeXt block: a grouped convolution between two 1x1 ones, group norm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.narrow = nn.Conv2d(16, 32, 1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(4, 32)
        self.wide = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.norm(self.grouped(F.relu(self.narrow(x)))))
        return self.head(F.relu(x + self.wide(y)).mean((2, 3)))


class ShuffledGroups(nn.Module):
    """ShuffleNet V1: grouped 1x1 convolutions with a channel shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 2
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.squeeze = nn.Conv2d(16, 16, 1, groups=2)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.expand = nn.Conv2d(16, 16, 1, groups=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = shuffle(F.relu(self.norm(self.squeeze(x))), self.groups)
        return self.head(F.relu(x + self.expand(self.depthwise(y))).mean((2, 3)))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channels of the groups by turns."""
    return x.unflatten(1, (groups, x.shape[1] // groups)).transpose(1, 2).flatten(1, 2)


class SplitUnit(nn.Module):
    """ShuffleNet V2: one half of the channels passes, the other is worked on, both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.one = nn.Conv2d(half, half, 1)
        self.depthwise = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.two = nn.Conv2d(half, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = x.chunk(2, 1)
        return shuffle(torch.cat([passed, F.relu(self.two(self.depthwise(F.relu(self.one(worked)))))], 1), 2)


class SplitStream(nn.Module):
    """Two units of ShuffleNet V2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.units = nn.Sequential(SplitUnit(16), SplitUnit(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.units(F.relu(self.stem(x))).mean((2, 3)))


class Heads(nn.Module):
    """Attention as vision transformers write it: one projection for queries, keys, values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.inner_dim = heads, dim // heads, dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        joint = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dim)
        q, k, v = joint.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.head_dim**-0.5) @ k.transpose(-2, -1)).softmax(-1)
        return self.project((weights @ v).transpose(1, 2).reshape(batch, length, self.inner_dim))


class TorchHeads(nn.Module):
    """The same by torch's own module."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return mixed


class Block(nn.Module):
    """Attention and MLP, each with layer norm before and a factor for each channel after."""

    def __init__(self, dim: int, heads: int, attention: type[nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = attention(dim, heads)
        self.gamma = nn.Parameter(torch.full((dim,), 0.5))
        self.wide, self.narrow = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.gamma * self.attention(self.norm1(x))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class VisionTransformer(nn.Module):
    """With a class token, learned positions, and a head on the class token alone."""

    def __init__(self, attention: type[nn.Module] = Heads) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 17, 16) * 0.1)
        self.blocks = nn.Sequential(Block(16, 4, attention), Block(16, 4, attention))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class TorchVisionTransformer(VisionTransformer):
    """The same with torch's own attention."""

    def __init__(self) -> None:
        super().__init__(TorchHeads)


class Windows(nn.Module):
    """Attention in windows with a table of relative positions for each head, then patches merged (Swin)."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.stem = nn.Conv2d(3, 16, 2, stride=2)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(64)
        self.qkv, self.project = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(9, 4))
        row, column = torch.arange(4) // 2, torch.arange(4) % 2
        apart = (row[:, None] - row + 1) * 3 + column[:, None] - column + 1
        self.register_buffer("apart", apart)
        self.merge, self.head = nn.Linear(64, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        y = self.norm1(x).view(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
        q, k, v = self.qkv(y).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.table[self.apart].permute(2, 0, 1)
        y = F.scaled_dot_product_attention(q, k, v, bias[None].expand(len(q), -1, -1, -1))
        y = self.project(y.transpose(1, 2).flatten(2))
        x = x + y.view(n, h // 2, w // 2, 2, 2, c).transpose(2, 3).reshape(n, h, w, c)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.merge(self.norm2(x)).mean((1, 2)))


class TextEncoder(nn.Module):
    """Torch's own encoder on token ids; positions are a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.register_buffer("positions", torch.randn(12, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(x) + self.positions).mean(1))


class Recurrent(nn.Module):
    """A convolution, a recurrent layer over its columns, the last state."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, layers: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.recurrent = kind(16, 12, layers, batch_first=True)  # type: ignore[arg-type]  # each kind is its own mode
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(F.relu(self.conv(x)).mean(2).transpose(1, 2))
        return self.head(states[:, -1])


class GatedRecurrent(Recurrent):
    """With a GRU."""

    def __init__(self) -> None:
        super().__init__(nn.GRU)


class DeepRecurrent(Recurrent):
    """Two layers in one module, whose hidden size stays."""

    def __init__(self) -> None:
        super().__init__(nn.LSTM, 2)


class Stepping(nn.Module):
    """A cell that is called for each column; a layer gives its first state."""

    def __init__(self, kind: type[nn.RNNCellBase] = nn.GRUCell) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.start = nn.Linear(16, 12) if kind is nn.GRUCell else None
        self.cell = kind(16, 12)  # type: ignore[call-arg]  # each kind has its own further arguments
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.relu(self.conv(x)).mean(2)
        state = None if self.start is None else self.start(columns[..., 0])
        for column in columns.unbind(2):
            state = self.cell(column, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class SteppingMemory(Stepping):
    """With an LSTM's cell, whose state is two tensors; None at first."""

    def __init__(self) -> None:
        super().__init__(nn.LSTMCell)


class Multiplied(nn.Module):
    """A depthwise convolution with two outputs for each input, and a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.point = nn.Conv2d(32, 16, 1)
        self.up = nn.PixelShuffle(2)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(F.relu(self.point(F.relu(self.depthwise(F.relu(self.stem(x))))))))


class Reshaped(nn.Module):
    """Shapes that modules hold: an unflatten layer, and the number of features of a view."""

    def __init__(self) -> None:
        super().__init__()
        self.features = 8 * 64
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.rows = nn.Unflatten(1, (4, 4))
        self.mix = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(self.features, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rows(F.relu(self.conv(x))).transpose(1, 2).flatten(1, 2)
        return self.head(F.relu(self.mix(x)).view(-1, self.features))


# What can be cut: by the name of the group, how many units of how many channels each.
EXPECTED: dict[type[nn.Module], dict[str, tuple[int, int]]] = {
    PadModule: {"stem": (8, 1), "one": (4, 2), "two": (4, 2)},
    GroupedBottleneck: {"narrow": (8, 4), "grouped": (8, 4), "wide": (16, 1)},
    ShuffledGroups: {"stem": (8, 2), "squeeze": (4, 4)},
    SplitStream: {"stem": (4, 4), "units.0.depthwise": (8, 1), "units.1.depthwise": (8, 1)},
    VisionTransformer: {
        "patches": (16, 1),
        "blocks.0.attention.qkv": (4, 12),
        "blocks.0.wide": (32, 1),
        "blocks.1.attention.qkv": (4, 12),
        "blocks.1.wide": (32, 1),
    },
    TorchVisionTransformer: {
        "patches": (16, 1),
        "blocks.0.attention.inner.query": (4, 4),
        "blocks.0.wide": (32, 1),
        "blocks.1.attention.inner.query": (4, 4),
        "blocks.1.wide": (32, 1),
    },
    Windows: {"stem": (16, 1), "qkv": (4, 12), "merge": (32, 1)},
    TextEncoder: {
        "embedding": (16, 1),
        "layers.layers.0.self_attn.query": (4, 4),
        "layers.layers.0.linear1": (32, 1),
    },
    Recurrent: {"conv": (16, 1), "recurrent": (12, 1)},
    GatedRecurrent: {"conv": (16, 1), "recurrent": (12, 1)},
    DeepRecurrent: {"conv": (16, 1)},
    Stepping: {"conv": (16, 1), "start": (12, 1)},
    SteppingMemory: {"conv": (16, 1), "cell": (12, 1)},
    Multiplied: {"stem": (16, 1), "point": (4, 4)},
    Reshaped: {"conv": (4, 4), "mix": (8, 1)},
}
# What stays whole beside the outputs, and a part of the reason.
WHOLE: dict[type[nn.Module], dict[str, str]] = {
    DeepRecurrent: {"recurrent": "the hidden size of 2 recurrent layers in one can't change"},
}


def inputs(build: type[nn.Module], count: int = 4) -> Tensor:
    """Token ids for ``TextEncoder``, else pictures of 8x8."""
    generator = torch.Generator().manual_seed(1)
    if build is TextEncoder:
        return torch.randint(0, 50, (count, 12), generator=generator)
    return torch.randn(count, 3, 8, 8, generator=generator)
