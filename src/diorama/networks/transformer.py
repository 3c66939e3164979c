"""The transformer stack of the house: BERT's normalisation or GPT's, looking both ways or only back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from diorama.networks.attention import Attention


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and the two choices that tell the published stacks apart: where the norms are, and whether tokens see ahead."""

    width: int
    depth: int
    heads: int
    hidden: int | None = None  # of the two-layer network; None is 4 * width
    pre_norm: bool = True  # ViT, GPT, CLIP, DiT; False is BERT and Vaswani et al. 2017
    causal: bool = False
    eps: float = 1e-5
    context: int | None = None  # width of what may stand beside the tokens, a sentence for example
    head_width: int | None = None  # None is width / heads


class TransformerBlock(nn.Module):
    """Attention, then a two-layer GELU network, each on a residual branch (Vaswani et al. 2017, sec. 3.1)."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width, hidden = config.width, config.hidden or 4 * config.width
        self.pre_norm, self.causal = config.pre_norm, config.causal
        self.norm1 = nn.LayerNorm(width, eps=config.eps)
        self.attention = Attention(width, config.heads, config.context, head_width=config.head_width)
        self.norm2 = nn.LayerNorm(width, eps=config.eps)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        if self.pre_norm:
            x = x + self.attention(self.norm1(x), context, mask, self.causal)
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x, context, mask, self.causal))
        return self.norm2(x + self.mlp(x))


class Transformer(nn.Module):
    """`depth` blocks; with `pre_norm` a last norm, because there the residual stream itself is never normalised."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.eps) if config.pre_norm else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """x (b, n, d), context (b, m, config.context) -> (b, n, d).

        mask, bool, true where attention may look: (b, m) over the context where there is one, else (b, n), at least one in each row.
        """
        for block in self.blocks:
            x = block(x, mask, context)
        return self.norm(x)
