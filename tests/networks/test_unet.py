from dataclasses import replace

import pytest
import tiny
import torch

from diorama.errors import UserError
from diorama.networks.attention import Attention
from diorama.networks.layers import ResidualBlock
from diorama.networks.unet import AttentionBlock, UNet, widened
from diorama.types import NO_LABEL, Condition, Noise, TextEmbedding

C_NOISE = torch.tensor([0.2, 0.9])


def asked(b=2, n=3):
    noise = Noise(range(b))
    text = TextEmbedding(noise.normal(n, 16), torch.ones(b, n, dtype=torch.bool), noise.normal(16) / 4)
    return Condition(text=text, label=torch.arange(b) % 2)


def picture(*spatial):
    return Noise([5, 6]).normal(4, *(spatial or (4, 4)))


@pytest.fixture(scope="module")
def network():
    return tiny.unet()


@pytest.mark.parametrize("spatial", [(8,), (4, 6), (2, 4, 4)], ids=["sound", "picture", "clip"])
def test_the_output_is_like_the_input(spatial):
    network = tiny.unet(axes=len(spatial))
    assert network(picture(*spatial), C_NOISE, asked()).shape == (2, 4, *spatial)


@pytest.mark.parametrize("widths", [(16,), (16, 16, 24)])
def test_any_number_of_levels(widths):
    network = tiny.unet(widths=widths, attention=(True,) * len(widths))
    assert network(picture(8, 8), C_NOISE, asked()).shape == (2, 4, 8, 8)


def test_a_new_network_says_nothing():
    assert not UNet(tiny.UNET)(picture(), C_NOISE, asked()).any()


def test_gradients_reach_every_parameter():
    """What starts at zero hides what is behind it for a step or two, and no longer."""
    torch.manual_seed(0)
    network = UNet(tiny.UNET)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        (network(picture(), C_NOISE, asked()) - picture().flip(0)).square().mean().backward()
        optimizer.step()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_everything_asked_matters(network):
    base = network(picture(), C_NOISE, asked())
    other = asked().text._replace(tokens=asked().text.tokens + 1)
    for changed in (replace(asked(), text=other), replace(asked(), label=torch.tensor([1, 0])), asked().null("text")):
        assert not torch.allclose(network(picture(), C_NOISE, changed), base, atol=1e-3)
    assert not torch.allclose(network(picture(), C_NOISE.flip(0), asked()), base, atol=1e-3)


@torch.no_grad()
def test_the_order_of_the_words_is_the_encoders_business(network):
    text = asked().text
    turned = TextEmbedding(text.tokens.flip(1), text.mask.flip(1), text.pooled)
    assert torch.allclose(
        network(picture(), C_NOISE, replace(asked(), text=turned)), network(picture(), C_NOISE, asked()), atol=1e-5
    )


@torch.no_grad()
def test_padding_does_not_matter(network):
    padded = Condition.cat([asked(), asked(1, 7)]).rows([0, 1])
    loud = padded.text._replace(tokens=padded.text.tokens + 100 * ~padded.text.mask[..., None])
    expected = network(picture(), C_NOISE, asked())
    assert torch.allclose(network(picture(), C_NOISE, replace(padded, text=loud)), expected, atol=1e-5)


@torch.no_grad()
def test_a_dropped_text_is_no_text(network):
    dropped = asked().drop({"text": 1.0, "label": 1.0}, Noise([0, 1]))
    empty = TextEmbedding(torch.zeros(2, 1, 16), torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, 16))
    nothing = Condition(text=empty, label=torch.tensor([NO_LABEL, NO_LABEL]))
    result = network(picture(), C_NOISE, dropped)
    assert result.isfinite().all()
    assert torch.allclose(result, network(picture(), C_NOISE, nothing), atol=1e-5)


@torch.no_grad()
def test_what_is_absent_is_not_read(network):
    assert network(picture(), C_NOISE, Condition()).isfinite().all()
    plain = tiny.unet(text_width=0, labels=0)
    assert torch.equal(plain(picture(), C_NOISE, asked()), plain(picture(), C_NOISE, Condition()))


@torch.no_grad()
def test_a_sample_does_not_see_its_neighbours(network):
    turned = network(picture().flip(0), C_NOISE.flip(0), asked().rows([1, 0]))
    assert torch.allclose(turned.flip(0), network(picture(), C_NOISE, asked()), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2])
def test_widened_it_says_the_same_until_it_is_trained(patch):
    network = tiny.unet(patch=patch)
    wide, x = widened(network, 3), picture(8, 8)
    seen = replace(asked(), image=Noise([0, 1]).normal(3, 8, 8))
    assert torch.equal(wide(x, C_NOISE, seen), network(x, C_NOISE, asked()))
    wide.inlet.weight[:, 4 * patch**2 :] = 0.1
    assert not torch.allclose(wide(x, C_NOISE, seen), network(x, C_NOISE, asked()), atol=1e-3)


@torch.no_grad()
def test_the_picture_it_follows_and_how_noisy_that_is_matter():
    network, x, low = tiny.unet(given=3, augmented=True), picture(8, 8), Noise([0, 1]).normal(3, 8, 8)

    def said(image, level):
        return network(x, C_NOISE, replace(asked(), image=image, extra={"augmentation": torch.tensor(level)}))

    found = said(low, [0.1, 0.1])
    assert not torch.allclose(said(2 * low, [0.1, 0.1]), found, atol=1e-3)
    louder = said(low, [0.1, 0.4])
    assert torch.allclose(louder[0], found[0], atol=1e-5)
    assert not torch.allclose(louder[1], found[1], atol=1e-3)


def test_each_level_may_have_its_own_depth():
    shallow, deep, own = (tiny.unet(depth=depth) for depth in (1, 3, (1, 3)))
    assert own.config.depths == (1, 3)
    assert len(shallow.down) + 2 == len(own.down) == len(deep.down) - 2
    assert own(picture(8, 8), C_NOISE, asked()).shape == (2, 4, 8, 8)


def test_without_attention_at_the_bottom_there_may_be_none():
    network = tiny.unet(attention=(False, False), bottom=False)
    assert not any(isinstance(module, Attention) for module in network.modules())
    assert any(isinstance(module, Attention) for module in tiny.unet(attention=(False, False)).modules())


def test_grouped_levels_have_one_skip_and_attend_once():
    """Saharia et al. 2022, fig. A.28 and A.29, with a level of 2 blocks and one of 3; the coarsest needs no skip."""
    network = tiny.unet(widths=(16, 24), depth=(2, 3), grouped=True)
    shapes = [block.conv1.weight.shape[:2] for block in network.modules() if isinstance(block, ResidualBlock)]
    assert sorted(shapes) == [(16, 16)] * 3 + [(16, 32)] + [(24, 24)] * 6
    inside = [block.attention.out.in_features for block in network.modules() if isinstance(block, AttentionBlock)]
    assert inside == [48, 48]  # as wide again as the level


def test_grouped_levels_halve_the_finest_too():
    network, seen = tiny.unet(grouped=True), []
    network.middle[-1].register_forward_hook(lambda layer, x, y: seen.append(y.shape[2:]))
    assert network(picture(8, 4), C_NOISE, asked()).shape == (2, 4, 8, 4)
    assert seen == [(2, 1)]
    with pytest.raises(UserError, match="size 10 is not a multiple of 4: use 8"):
        network.check_size(10)


@torch.no_grad()
def test_looking_only_at_the_words_no_place_sees_another():
    block = tiny.randomised(AttentionBlock(16, 2, 16, own=False))
    text, x = asked().text, picture(2, 3).repeat(1, 4, 1, 1)
    said = block.attention(x.flatten(2).mT, text.tokens, text.mask)
    x[..., 0, 0] += 1
    moved = block.attention(x.flatten(2).mT, text.tokens, text.mask)
    assert torch.allclose(moved[:, 1:], said[:, 1:], atol=1e-6)
    assert not torch.allclose(moved[:, 0], said[:, 0], atol=1e-3)
