import tiny
import torch

from diorama.networks.mlp import VectorMLP, VectorMLPConfig
from diorama.types import Condition, Noise

SHAPE = VectorMLPConfig(channels=6, width=16, depth=2, embedding=8)
LEVELS = torch.tensor([0.1, 0.8])


def vector() -> torch.Tensor:
    return Noise([0, 1]).normal(6)


@torch.no_grad()
def test_vector_and_level_matter_and_neighbours_do_not():
    network = tiny.randomised(VectorMLP(SHAPE))
    base = network(vector(), LEVELS, Condition())
    assert base.shape == (2, 6)
    assert not torch.isclose(network(vector(), LEVELS + 0.2, Condition()), base).any()
    assert not torch.isclose(network(vector() + 1, LEVELS, Condition()), base).any()
    assert torch.allclose(network(vector()[1:], LEVELS[1:], Condition()), base[1:], atol=1e-5)


def test_it_begins_by_saying_nothing_and_every_block_as_the_identity():
    network = VectorMLP(SHAPE)
    assert not network(vector(), LEVELS, Condition()).any()
    x, embedding = Noise([0, 1]).normal(16), Noise([0, 1]).normal(8)
    assert torch.equal(network.blocks[0](x, embedding), x)


def test_gradients_reach_every_parameter():
    network = tiny.randomised(VectorMLP(SHAPE))
    network(vector(), LEVELS, Condition()).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
