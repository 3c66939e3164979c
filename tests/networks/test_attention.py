import pytest
import torch
from torch import nn

from diorama.networks.attention import Attention


@torch.no_grad()
def twin(bias=True):
    """Ours and torch's own with the same weights."""
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4, bias=bias), nn.MultiheadAttention(16, 4, bias=bias, batch_first=True)
    theirs.in_proj_weight.copy_(ours.qkv.weight)
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    if bias:
        theirs.in_proj_bias.copy_(ours.qkv.bias)
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_it_is_torchs_own(bias):
    ours, theirs = twin(bias)
    x, mask = torch.randn(2, 5, 16), torch.arange(5) < torch.tensor([[5], [3]])
    assert torch.allclose(ours(x), theirs(x, x, x)[0], atol=1e-6)
    assert torch.allclose(ours(x, mask=mask), theirs(x, x, x, key_padding_mask=~mask)[0], atol=1e-6)


@torch.no_grad()
def test_a_masked_context_is_no_context():
    torch.manual_seed(0)
    attention = Attention(16, 4, context_width=8)
    x, context = torch.randn(2, 5, 16), torch.randn(2, 3, 8)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.allclose(attention(x, context, nothing), attention(x), atol=1e-6)
    assert not torch.allclose(attention(x, context), attention(x), atol=1e-3)


@torch.no_grad()
def test_a_context_of_its_own_tokens_changes_nothing():
    """Each key twice: the softmax gives each half."""
    torch.manual_seed(0)
    attention = Attention(16, 4, context_width=16)
    attention.context_kv.weight.copy_(attention.qkv.weight[16:])
    attention.context_kv.bias.copy_(attention.qkv.bias[16:])
    x = torch.randn(2, 5, 16)
    assert torch.allclose(attention(x, x), attention(x), atol=1e-6)


def test_gradients_leave_bf16_where_that_is_slow(monkeypatch):
    """Attention is then computed in float32 and handed on in bf16; without gradients all is as it was."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    torch.manual_seed(0)
    attention, x = Attention(16, 4).bfloat16(), torch.randn(2, 5, 16).bfloat16()
    seen = []
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", lambda q, k, v, attn_mask: seen.append(q.dtype) or v)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(x).dtype == torch.bfloat16
        with torch.no_grad():
            attention(x)
    assert seen == [torch.float32, torch.bfloat16]
