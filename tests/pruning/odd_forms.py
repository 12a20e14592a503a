"""Networks in forms that dependency graphs stumble over, in small."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Split = Callable[[Tensor, int], Sequence[Tensor]]
SPLITS: dict[str, Split] = {
    "sizes": lambda t, c: t.split((c, c), 1),
    "size": lambda t, c: t.split(c, 1),
    "chunk": lambda t, c: t.chunk(2, 1),
    "slices": lambda t, c: (t[:, :c], t[:, c:]),
}


class JoinedTokens(nn.Module):
    """Maps of two scales flattened to tokens, with a learned one in front, joined along the places."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 16, 3, 2, 1)
        self.three = nn.Conv2d(16, 16, 3, 2, 1)
        self.token = nn.Parameter(torch.zeros(1, 1, 16)) if learned else None
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.two(F.relu(self.one(x))))
        tokens = [y.flatten(2).transpose(1, 2), F.relu(self.three(y)).flatten(2).transpose(1, 2)]
        if self.token is not None:
            tokens.insert(0, self.token.expand(len(x), -1, -1))
        joined = torch.cat(tokens, 1)
        return self.head(joined.amax(1) if self.token is None else joined.mean(1))


class Named(nn.Module):
    """A layer that is called as an attribute of torch.fx's graphs is, and a length that is asked for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.first = name, nn.Conv2d(3, 12, 3, 2, 1)
        setattr(self, name, nn.Conv2d(12, 16, 3, 2, 1))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(getattr(self, self.name)(F.relu(self.first(x)))).mean((2, 3))
        return self.head(y.reshape(len(x), -1))


class GatedPairs(nn.Module):
    """SwiGLU: each value leaves with the gate that it is multiplied with."""

    def __init__(self, convolutions: bool) -> None:
        super().__init__()
        layer: Callable[[int, int], nn.Module] = nn.Linear
        if convolutions:
            layer = lambda i, o: nn.Conv2d(i, o, 1)  # noqa: E731
        self.axis = 1 if convolutions else -1
        self.start, self.both, self.back = layer(8, 32), layer(32, 128), layer(64, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        a, b = self.both(x).chunk(2, self.axis)
        x = x + self.back(F.silu(a) * b)
        return self.head(x if self.axis < 0 else x.mean((2, 3)))


class SplitInTwo(nn.Module):
    """YOLO's C2f: both parts of a layer's channels go into a concatenation, one through a bottleneck too."""

    def __init__(self, split: Split) -> None:
        super().__init__()
        self.split, self.c = split, 12
        self.stem, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 1)
        self.inner, self.join = nn.Conv2d(12, 12, 3, padding=1), nn.Conv2d(36, 16, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.split(self.wide(F.relu(self.stem(x))), self.c)
        x = torch.cat([a, b, b + self.inner(b)], 1)
        return self.head(F.relu(self.join(x)).mean((2, 3)))


class Gram(nn.Module):
    """Bilinear pooling: every channel times every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem, self.features = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, channels, 3, 2, 1)
        self.head = nn.Linear(channels**2, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(F.relu(self.stem(x)))).flatten(2)
        return self.head((x @ x.transpose(1, 2)).flatten(1))


class NoGradients(nn.Module):
    """A feature extractor that its authors kept from learning, and a detached branch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.three, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = F.relu(self.two(F.relu(self.one(x))))
        return self.head((F.relu(self.three(x)) + x.detach()).mean((2, 3)))


class SecondOutput(nn.Module):
    """A second head that answers only while training."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.beside, self.head = nn.Linear(8, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = F.relu(self.one(x))
        z: Tensor = self.head(F.relu(self.two(y)).mean((2, 3)))
        return (z, self.beside(y.mean((2, 3)))) if self.training else z


class OtherAtSize(nn.Module):
    """Couples other channels on large pictures than on small ones: no sane network, but one that must not
    fool the search.
    """

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(x))
        z = F.relu(self.two(y))
        if x.shape[-1] > 100:
            y = y.flip(1)
        return self.head((F.avg_pool2d(y, 2) + z).mean((2, 3)))


class Attentive(nn.Module):
    """Two fifths of the MACs are products of activations, which no layer has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.heads = nn.Conv2d(3, 32, 4, 4), 16
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, 2)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-1, -2) / 3).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.head((x + self.out(mixed)).mean(1))
