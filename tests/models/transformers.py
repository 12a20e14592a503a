"""Layer norm and attention: ConvNeXt, ViT, text encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelsFirstNorm(nn.Module):
    """Layer norm over dimension 1 of (N, C, H, W), spelt out in arithmetic."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        x = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvnextBlock(nn.Module):
    """Depthwise 7x7, then linear layers over the last dimension of a permuted map, layer scale, sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.project = nn.Linear(4 * channels, channels)
        # The paper starts at 1e-6; a brief training would leave the blocks without effect there.
        self.gamma = nn.Parameter(torch.full((channels,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.project(self.act(self.expand(self.norm(y))))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class ConvnextAtto(nn.Module):
    """Both spellings of layer norm on maps, and a patch stem. ``stages``: channels and blocks."""

    def __init__(
        self, stages: Sequence[tuple[int, int]] = ((16, 1), (32, 1), (64, 2), (96, 1)), classes: int = 10
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 4, 4), ChannelsFirstNorm(16)]
        channels = 16
        for width, depth in stages:
            if width != channels:
                layers += [ChannelsFirstNorm(channels), nn.Conv2d(channels, width, 2, 2)]
                channels = width
            layers += [ConvnextBlock(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.features(x).mean([-2, -1])))


class Attention(nn.Module):
    """One fused linear layer for queries, keys and values; scaled_dot_product_attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.project(x.transpose(1, 2).reshape(batch, tokens, dim))


class VitBlock(nn.Module):
    """Pre-norm: the residual stream itself is never normalised."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VitTiny(nn.Module):
    """Patch embedding, a class token expanded over the batch, learned positions, three heads."""

    def __init__(
        self, depth: int = 3, size: int = 32, patch: int = 8, dim: int = 96, classes: int = 10
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, dim))
        self.drop = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(VitBlock(dim, heads=3) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.blocks(self.drop(x + self.positions))
        return self.head(self.norm(x)[:, 0])


class TextEncoder(nn.Module):
    """Integer input; positions from a buffer; torch's own encoder layer, post-norm, with its fast path."""

    positions: Tensor

    def __init__(self, vocabulary: int = 64, length: int = 16, dim: int = 32, classes: int = 4) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, dim)
        self.position = nn.Embedding(length, dim)
        self.register_buffer("positions", torch.arange(length)[None], persistent=False)
        layer = nn.TransformerEncoderLayer(
            dim, nhead=4, dim_feedforward=4 * dim, dropout=0.1, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(dim, classes)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.position(self.positions[:, : ids.shape[1]])
        return self.head(self.encoder(x).mean(1))


class MaskedBlock(nn.Module):
    """Attention in single steps: scores of minus infinity where a key is padding."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))

    def split(self, x: Tensor) -> Tensor:
        """(N, T, dim) to (N, heads, T, dim / heads)."""
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(padding[:, None, None, :], float("-inf"))
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.project(y))
        return self.norm2(x + self.mlp(x))


class AttentionMask(nn.Module):
    """A mask computed from the input (id 0 is padding) and a mean over the tokens that count."""

    positions: Tensor

    def __init__(self, vocabulary: int = 64, length: int = 16, dim: int = 32, classes: int = 4) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.position = nn.Embedding(length, dim)
        self.register_buffer("positions", torch.arange(length))
        self.blocks = nn.ModuleList(MaskedBlock(dim, heads=4) for _ in range(2))
        self.head = nn.Linear(dim, classes)

    def forward(self, ids: Tensor) -> Tensor:
        padding = ids == 0
        x = self.token(ids) + self.position(self.positions)
        for block in self.blocks:
            x = block(x, padding)
        keep = (~padding).unsqueeze(-1).to(x.dtype)
        return self.head((x * keep).sum(1) / keep.sum(1))
