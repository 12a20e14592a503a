"""Attention whose heads can leave: nn.MultiheadAttention written with ordinary linear layers.

torch's own module takes the number of heads times their width for the width of the stream, so no head can
leave it. This one computes the same (Vaswani et al. 2017, §3.2.2) with layers that pruning can cut.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SplitAttention", "split", "unsupported"]


class SplitAttention(nn.Module):
    """Takes the place of an nn.MultiheadAttention; (L, N, E) or with ``batch_first`` (N, L, E), batched.

    ``head_dim`` stays when heads leave; ``query``, ``key``, ``value`` give num_heads * head_dim features.
    Attention weights are not returned (None), as with ``need_weights=False``.
    """

    # what nn.TransformerEncoderLayer looks at before it takes its own fast path, which is not for this one
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = whole.num_heads, whole.head_dim
        self.batch_first, self.dropout = whole.batch_first, whole.dropout
        size, bias = whole.embed_dim, whole.in_proj_bias is not None
        like = whole.out_proj.weight
        options: Any = {"device": like.device, "dtype": like.dtype}
        self.query = nn.Linear(size, size, bias, **options)
        self.key = nn.Linear(size, size, bias, **options)
        self.value = nn.Linear(size, size, bias, **options)
        self.project = nn.Linear(size, size, whole.out_proj.bias is not None, **options)
        _copy(self.project, like, whole.out_proj.bias)
        weights = whole.in_proj_weight.chunk(3)
        biases = whole.in_proj_bias.chunk(3) if bias else (None, None, None)
        for layer, weight, each in zip((self.query, self.key, self.value), weights, biases, strict=True):
            _copy(layer, weight, each)
        self.train(whole.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """As nn.MultiheadAttention for batched inputs and float or boolean masks (True: not looked at)."""
        if not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = (
            layer(each).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for layer, each in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = _mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.project(mixed.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None


def unsupported(layer: nn.MultiheadAttention) -> str:
    """Why this attention can't be split; "" if it can."""
    if layer.in_proj_weight is None:
        return "attention with keys or values of another width"
    if layer.bias_k is not None or layer.add_zero_attn:
        return "attention with added keys or values"
    return ""


def split(layer: nn.Module) -> SplitAttention:
    """The same attention, with its weights. Raises TypeError for what isn't an nn.MultiheadAttention."""
    if not isinstance(layer, nn.MultiheadAttention):
        raise TypeError(f"nn.MultiheadAttention expected, not {type(layer).__name__}")
    if reason := unsupported(layer):
        raise TypeError(reason)
    return SplitAttention(layer)


def _copy(layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)


def _mask(given: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """One float mask to be added to the scores (broadcast to (N, heads, L, S)), or None."""
    total = None
    for mask, padded in ((given, False), (padding, True)):
        if mask is None:
            continue
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(mask, -torch.inf)
        if padded:
            mask = mask[:, None, None, :]
        elif mask.dim() == 3:  # (N * heads, L, S)
            mask = mask.unflatten(0, (q.shape[0], -1))
        total = mask if total is None else total + mask
    return total
