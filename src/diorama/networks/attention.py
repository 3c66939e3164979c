"""Attention, the only one of the house: over tokens themselves, and over a context beside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diorama.networks.precision import exactly, slow_backward


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, sec. 3.2) of tokens over themselves and, where given, a context.

    The context's keys and values are put beside the tokens' own (as GLIDE does), so a context of which
    nothing is left, a dropped sentence, needs no special case. Tokens that do not look at each other (`own` false:
    cross-attention) have a zero beside it instead, unless `sink` is false too: then there must be a context.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        context_width: int | None = None,
        bias: bool = True,
        *,
        head_width: int | None = None,  # None is width / heads
        own: bool = True,
        sink: bool = True,
        out_width: int | None = None,  # of what comes out; None is width
    ):
        super().__init__()
        if head_width is None and width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads, self.own, self.sink, inner = heads, own, sink, heads * (head_width or width // heads)
        self.qkv = nn.Linear(width, 3 * inner if own else inner, bias=bias)
        self.context_kv = nn.Linear(context_width, 2 * inner, bias=bias) if context_width else None
        self.out = nn.Linear(inner, out_width or width, bias=bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        *,
        at: Tensor | None = None,
        context_at: Tensor | None = None,
    ) -> Tensor:
        """x (b, n, d), context (b, m, context_width) -> (b, n, d).

        mask, bool, true where attention may look: (b, m) over the context where there is one, else (b, n).
        causal: a token sees itself, the tokens before it and the whole context.
        at, context_at: where tokens and context stand, added to what queries and keys are made of and not to the values.
        """
        parts = 3 if self.own else 1
        q, *kv = rearrange(_placed(self.qkv, x, at, parts), "b n (parts h d) -> parts b h n d", parts=parts, h=self.heads)
        k, v = kv or [torch.zeros_like(q[:, :, : int(self.sink)])] * 2
        if context is not None and self.context_kv is not None:
            made = _placed(self.context_kv, context, context_at, 2)
            ck, cv = rearrange(made, "b m (two h d) -> two b h m d", two=2, h=self.heads)
            k, v = torch.cat([k, ck], 2), torch.cat([v, cv], 2)
            if mask is not None:
                mask = F.pad(mask, (k.shape[2] - mask.shape[1], 0), value=True)
        mask = None if mask is None else mask[:, None, None, :]
        if causal:
            past = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            past = F.pad(past, (0, k.shape[2] - x.shape[1]), value=True)
            mask = past if mask is None else mask & past
        return self.out(rearrange(_attended(q, k, v, mask), "b h n d -> b n (h d)"))


def _attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if slow_backward(q):
        with exactly(q):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask).to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _placed(layer: nn.Linear, x: Tensor, at: Tensor | None, parts: int) -> Tensor:
    """layer(x + at), but for the last of several parts, the values, which is made of x alone."""
    if at is None:
        return layer(x)
    values = layer.out_features // parts if parts > 1 else 0
    return layer(x) + F.pad(F.linear(at, layer.weight[: layer.out_features - values]), (0, values))
