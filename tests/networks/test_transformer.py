import pytest
import torch
from torch import nn

from diorama.networks.attention import Attention
from diorama.networks.transformer import Transformer, TransformerConfig


def twin(config: TransformerConfig) -> tuple[Transformer, nn.TransformerEncoder]:
    """Ours and torch's own stack with the same weights."""
    torch.manual_seed(0)
    ours = Transformer(config).eval()
    layer = nn.TransformerEncoderLayer(
        config.width, config.heads, config.hidden, 0.0, "gelu", config.eps, batch_first=True, norm_first=config.pre_norm
    )
    theirs = nn.TransformerEncoder(layer, config.depth, ours.norm, enable_nested_tensor=False).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for mine, its in zip(ours.blocks, theirs.layers, strict=True):
            its.self_attn.in_proj_weight.copy_(mine.attention.qkv.weight)
            its.self_attn.in_proj_bias.copy_(mine.attention.qkv.bias)
            parts = [(its.self_attn.out_proj, mine.attention.out), (its.norm1, mine.norm1), (its.norm2, mine.norm2)]
            for to, of in [*parts, (its.linear1, mine.mlp[0]), (its.linear2, mine.mlp[2])]:
                to.load_state_dict(of.state_dict())
    return ours, theirs


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_it_is_torchs_own_transformer(pre_norm, causal):
    ours, theirs = twin(TransformerConfig(width=16, depth=3, heads=4, hidden=24, pre_norm=pre_norm, causal=causal))
    x = torch.randn(2, 7, 16)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    future = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected = theirs(x, mask=future, src_key_padding_mask=~mask)
    assert torch.allclose(ours(x, mask)[mask], expected[mask], atol=1e-5)


@torch.no_grad()
def test_what_is_masked_does_not_matter():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(width=16, depth=2, heads=4))
    x = torch.randn(1, 5, 16)
    padded = torch.cat([x, 100 * torch.randn(1, 3, 16)], 1)
    mask = (torch.arange(8) < 5)[None]
    assert torch.allclose(model(padded, mask)[:, :5], model(x), atol=1e-5)


@torch.no_grad()
def test_a_causal_stack_does_not_see_ahead():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(width=16, depth=2, heads=4, causal=True))
    x = torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4:] = 0
    assert torch.allclose(model(x)[:, :4], model(changed)[:, :4], atol=1e-6)
    assert not torch.allclose(model(x)[:, 4:], model(changed)[:, 4:], atol=1e-3)


@torch.no_grad()
def test_causal_attention_sees_its_past_and_the_whole_context():
    torch.manual_seed(0)
    attention = Attention(16, 4, context_width=8)
    x, context = torch.randn(2, 5, 16), torch.randn(2, 3, 8)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    last = attention(x, context, mask, causal=True)[:, -1]
    assert torch.allclose(last, attention(x, context, mask)[:, -1], atol=1e-6)  # the last token sees everything anyway
    first = attention(x, context, mask, causal=True)[:, :1]
    assert torch.allclose(first, attention(x[:, :1], context, mask), atol=1e-6)  # the first sees itself and the context


@torch.no_grad()
def test_what_stands_beside_is_seen_by_every_token_and_only_where_the_mask_says():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(width=16, depth=2, heads=4, context=8))
    x, context = torch.randn(2, 5, 16), torch.randn(2, 3, 8)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    seen = model(x, mask, context)
    context[0, 2], context[1] = 9.0, 9.0  # where nothing looks
    assert torch.allclose(model(x, mask, context), seen, atol=1e-6)
    assert torch.allclose(seen[1], model(x)[1], atol=1e-6)  # a context of which nothing is left
    context[0, 0] = 9.0
    assert ((model(x, mask, context) - seen)[0].abs().amax(-1) > 1e-4).all()


def test_a_width_that_its_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="not a multiple of 3 heads"):
        Transformer(TransformerConfig(width=16, depth=1, heads=3))


def test_a_published_size():
    """GPT-2's stack without its embeddings: 124,439,808 - 50257 x 768 - 1024 x 768 (Radford et al. 2019)."""
    with torch.device("meta"):
        model = Transformer(TransformerConfig(width=768, depth=12, heads=12, causal=True))
    assert sum(p.numel() for p in model.parameters()) == 124_439_808 - (50257 + 1024) * 768
