from dataclasses import replace

import pytest
import tiny
import torch

from diorama.networks.prior import PriorConfig, PriorTransformer
from diorama.types import Condition, Noise, TextEmbedding

C_NOISE = torch.tensor([0.2, 0.9])


@pytest.fixture(scope="module")
def network():
    return tiny.randomised(PriorTransformer(PriorConfig(channels=8, text_width=6, words=5, width=16, depth=2, heads=2)))


def asked(n=3):
    noise = Noise([0, 1])
    return Condition(text=TextEmbedding(noise.normal(n, 6), torch.ones(2, n, dtype=torch.bool), noise.normal(8)))


def cut(text):
    return text._replace(tokens=text.tokens[:, :5], mask=text.mask[:, :5])


def vector():
    return Noise([5, 6]).normal(8)


@torch.no_grad()
def test_everything_matters(network):
    base, text = network(vector(), C_NOISE, asked()), asked().text
    assert base.shape == (2, 8)
    changed = [
        network(vector() + 1, C_NOISE, asked()),
        network(vector(), C_NOISE.flip(0), asked()),
        network(vector(), C_NOISE, Condition(text=text._replace(pooled=text.pooled + 1))),
        network(vector(), C_NOISE, Condition(text=text._replace(tokens=text.tokens.flip(1)))),  # places matter here
        network(vector(), C_NOISE, asked().null()),
    ]
    assert not any(torch.allclose(x, base, atol=1e-3) for x in changed)


@torch.no_grad()
def test_padding_does_not_matter_and_what_is_dropped_is_empty(network):
    text = asked().text
    more = torch.full((2, 2, 6), 100.0)
    padded = TextEmbedding(torch.cat([text.tokens, more], 1), torch.cat([text.mask, torch.zeros(2, 2).bool()], 1), text.pooled)
    assert torch.allclose(network(vector(), C_NOISE, Condition(text=padded)), network(vector(), C_NOISE, asked()), atol=1e-5)
    longer = network(vector(), C_NOISE, asked(7))
    assert torch.allclose(longer, network(vector(), C_NOISE, Condition(text=cut(asked(7).text))), atol=1e-5)
    dropped = network(vector(), C_NOISE, asked().drop({"text": 1.0}, Noise([0, 1])))
    assert torch.allclose(dropped, network(vector(), C_NOISE, asked(1).null()), atol=1e-5)
    assert dropped.isfinite().all()


@torch.no_grad()
def test_a_sample_does_not_see_its_neighbours(network):
    turned = network(vector().flip(0), C_NOISE.flip(0), asked().rows([1, 0]))
    assert torch.allclose(turned.flip(0), network(vector(), C_NOISE, asked()), atol=1e-5)


def test_gradients_reach_every_parameter(network):
    network.zero_grad()
    both = Condition.cat([asked().rows([0]), replace(asked().rows([1])).null()])
    network(vector(), C_NOISE, both).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
