"""Levels of bottlenecks, and words that the network reads itself: Kandinsky 3's U-Net."""

from dataclasses import replace

import pytest
import tiny
import torch

from diorama.networks.attention import Attention
from diorama.networks.layers import BottleneckBlock
from diorama.networks.unet import UNet, UNetConfig, WordPool
from diorama.systems.images.kandinsky3 import PRESETS
from diorama.types import Condition, Noise, TextEmbedding

C_NOISE = torch.tensor([3.0, 700.0])
SMALL = replace(tiny.UNET, bottleneck=True, reads=24, labels=0, levels=1.0)


def asked(b=2, n=3, width=16):
    noise = Noise(range(b))
    return Condition(text=TextEmbedding(noise.normal(n, width), torch.ones(b, n, dtype=torch.bool), noise.normal(width)))


def picture(*spatial):
    return Noise([5, 6]).normal(4, *(spatial or (4, 4)))


def network(**changes):
    return tiny.randomised(UNet(replace(SMALL, **changes)))


@pytest.mark.parametrize("spatial", [(8,), (4, 6), (2, 4, 4)], ids=["sound", "picture", "clip"])
def test_the_output_is_like_the_input(spatial):
    assert network(axes=len(spatial))(picture(*spatial), C_NOISE, asked()).shape == (2, 4, *spatial)


@pytest.mark.parametrize("depth", [1, 2, (1, 3)])
def test_levels_have_their_own_depth_and_one_long_skip_each(depth):
    made = network(depth=depth, widths=(8, 16), attention=(False, True))
    assert made(picture(8, 8), C_NOISE, asked()).shape == (2, 4, 8, 8)
    assert len(made.down) == len(made.up) == 1  # the coarsest level is the bottom
    assert made.up[0][0].before.norms[0].modulation.out_features == 2 * (8 + 8)  # what comes up, and the skip


def test_a_new_network_says_nothing():
    assert not UNet(SMALL)(picture(), C_NOISE, asked()).any()


def test_a_new_block_is_its_skip():
    x, embedding = picture(), torch.randn(2, 5)
    assert torch.equal(BottleneckBlock(2, 4, 4, 5)(x, embedding), x)


@pytest.mark.parametrize(("change", "factor"), [({"doubles": True}, 2), ({"halves": True}, 0.5)], ids=["doubles", "halves"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_block_changes_the_size_along_every_axis(axes, change, factor):
    x = torch.randn(2, 8, *[4] * axes)
    assert BottleneckBlock(axes, 8, 12, 5, **change)(x, torch.randn(2, 5)).shape == (2, 12, *[int(4 * factor)] * axes)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    made = UNet(SMALL)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        (made(picture(), C_NOISE, asked()) - picture().flip(0)).square().mean().backward()
        optimizer.step()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_everything_asked_matters_but_what_the_tower_pooled():
    made = network()
    base, text = made(picture(), C_NOISE, asked()), asked().text
    for other in (replace(asked(), text=text._replace(tokens=text.tokens.flip(0))), asked().null("text"), Condition()):
        assert not torch.allclose(made(picture(), C_NOISE, other), base, atol=1e-3)
    assert not torch.allclose(made(picture(), C_NOISE.flip(0), asked()), base, atol=1e-3)
    assert torch.equal(made(picture(), C_NOISE, replace(asked(), text=text._replace(pooled=text.pooled + 1))), base)


@torch.no_grad()
@pytest.mark.parametrize("bottleneck", [True, False])
def test_padding_does_not_matter(bottleneck):
    """Neither for what attention sees nor for what is pooled."""
    made, padded = network(bottleneck=bottleneck), Condition.cat([asked(), asked(1, 7)]).rows([0, 1])
    loud = padded.text._replace(tokens=padded.text.tokens + 100 * ~padded.text.mask[..., None])
    expected = made(picture(), C_NOISE, asked())
    assert torch.allclose(made(picture(), C_NOISE, replace(padded, text=loud)), expected, atol=1e-4)


@torch.no_grad()
def test_where_there_is_no_word_nothing_is_pooled():
    pool, words = tiny.randomised(WordPool(8, 12, 2)), torch.randn(2, 3, 8)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    found = pool(words, mask)
    assert found.shape == (2, 12)
    assert found[0].any() and not found[1].any()
    assert torch.allclose(found[0], pool(words[:1, :2], mask[:1, :2])[0], atol=1e-6)


# --- the published one ----------------------------------------------------------------------------

FLAN = {"channels": 4, "text_width": 4096}


def meta(config):
    with torch.device("meta"):
        return UNet(config)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_published_size():
    """3.0 B (Arkhipkin et al. 2023, sec. 2)."""
    assert count(meta(replace(PRESETS["paper"], **FLAN))) == pytest.approx(3.0e9, rel=0.03)


def test_it_has_the_parameters_of_diffusers_own():
    theirs = kandinsky3()
    with torch.device("meta"):
        theirs = theirs()
    ours = meta(replace(PRESETS["paper"], **FLAN))
    fewer = 1536 * (192 - 128)  # features of the time, of which theirs has as many as the inlet has channels
    assert count(ours) + fewer == count(theirs)
    assert [count(part) for part in (*ours.down, ours.middle)] == [count(part) for part in theirs.down_blocks]
    assert [count(part) for part in (ours.closing, *ours.up)] == [count(part) for part in theirs.up_blocks]


def kandinsky3():
    return pytest.importorskip(
        "diffusers", reason="diffusers is not installed: the network is held to it where it is"
    ).Kandinsky3UNet


@torch.no_grad()
def test_it_is_diffusers_own():
    """With the same weights and the same embedding of time, on whole sentences: ours leaves padding out of the mean word."""
    theirs = kandinsky3()(
        time_embedding_dim=8,
        groups=1,
        attention_head_dim=2,
        layers_per_block=2,
        block_out_channels=(4, 4, 4, 4),
        cross_attention_dim=8,
        encoder_hid_dim=8,
    )
    tiny.randomised(theirs)
    shape = UNetConfig(channels=4, widths=(4, 4, 4, 4), attention=(False, True, True, True), head_width=2, text_width=8)
    ours = tiny.randomised(UNet(replace(shape, embedding=8, levels=1.0, bottleneck=True, reads=8)), seed=1)
    take(ours, theirs)
    for module in ours.modules():
        if isinstance(module, Attention):
            module.sink = False  # a place to look at where nothing is asked, which theirs does not have
    x, condition = Noise([5, 6]).normal(4, 16, 16), asked(width=8)
    theirs.time_embedding.forward = lambda features: ours.condition.level(C_NOISE)
    expected = theirs(x, C_NOISE, condition.text.tokens, condition.text.mask.long()).sample
    assert expected.std() > 0.1
    assert torch.allclose(ours(x, C_NOISE, condition), expected, atol=1e-4, rtol=1e-4)


def take(ours, theirs):
    """Every weight, but for the embedding of time."""
    copy(ours.inlet, theirs.conv_in)
    copy(ours.outlet[0], theirs.conv_norm_out)
    copy(ours.outlet[2], theirs.conv_out)
    copy(ours.words[0], theirs.encoder_hid_proj.projection_linear)
    copy(ours.words[1], theirs.encoder_hid_proj.projection_norm)
    take_attention(ours.condition.pool.attention, theirs.add_time_condition.attention)
    levels = (*ours.down, ours.middle, ours.closing, *ours.up)
    for level, block in zip(levels, (*theirs.down_blocks, *theirs.up_blocks), strict=True):
        own, *others = block.attentions
        mine = [layer for layer in level if hasattr(layer, "norm1")]
        if mine:
            take_modulated(mine[0], own)
        pairs = [layer for layer in level if hasattr(layer, "before")]
        for pair, before, attention, after in zip(pairs, block.resnets_in, others, block.resnets_out, strict=True):
            take_block(pair.before, before)
            take_block(pair.after, after)
            if pair.attention is not None:
                take_modulated(pair.attention, attention)


def take_block(ours, theirs):
    for norm, conv, block in zip(ours.norms, ours.convs, theirs.resnet_blocks, strict=True):
        copy(norm.modulation, block.group_norm.context_mlp[1])
        layers = [layer for layer in (block.up_sample, block.projection, block.down_sample) if count(layer)]
        for mine, layer in zip(conv if len(layers) > 1 else [conv], layers, strict=True):
            copy(mine, layer)
    along = (theirs.shortcut_up_sample, theirs.shortcut_projection, theirs.shortcut_down_sample)
    for mine, layer in zip(ours.skip, [layer for layer in along if count(layer)], strict=True):
        copy(mine, layer)


def take_modulated(ours, theirs):
    copy(ours.norm1.modulation, theirs.in_norm.context_mlp[1])
    copy(ours.norm2.modulation, theirs.out_norm.context_mlp[1])
    take_attention(ours.attention, theirs.attention)
    copy(ours.mlp[0], theirs.feed_forward[0])
    copy(ours.mlp[2], theirs.feed_forward[2])


def take_attention(ours, theirs):
    q, k, v = theirs.to_q.weight, theirs.to_k.weight, theirs.to_v.weight
    ours.qkv.weight.copy_(torch.cat([q, k, v]) if ours.own else q)
    if not ours.own:
        ours.context_kv.weight.copy_(torch.cat([k, v]))
    copy(ours.out, theirs.to_out[0])


def copy(ours, theirs):
    for mine, value in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.copy_(value.reshape(mine.shape))
