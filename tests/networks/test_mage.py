from dataclasses import replace

import pytest
import tiny
import torch

from diorama.conditions.picture import word
from diorama.networks.mage import Mage, MageConfig
from diorama.types import MASK, Condition, Noise

SHAPE = MageConfig(codes=6, places=(3, 4), told=5, width=16, depth=2, decoder_depth=1, heads=2)


@pytest.fixture(scope="module")
def network():
    return tiny.randomised(Mage(SHAPE)).eval()


def asked(n: int = 2) -> Condition:
    return Condition(text=word(Noise(range(n)).normal(5)))


def tokens(masked: int = 8) -> torch.Tensor:
    """The last `masked` of twelve are still to come."""
    found = Noise([0, 1]).integers(6, 12)
    found[:, 12 - masked :] = MASK
    return found.reshape(2, 3, 4)


@pytest.mark.parametrize("places", [(5,), (3, 4), (2, 3, 2)])
def test_every_place_has_its_logits(places):
    model = tiny.randomised(Mage(replace(SHAPE, places=places)))
    assert model(torch.full((2, *places), MASK), asked()).shape == (2, *places, 6)


@torch.no_grad()
def test_everything_matters(network):
    base, condition = network(tokens(), asked()), asked()
    other = tokens()
    other[:, 0, 0] = (other[:, 0, 0] + 1) % 6
    changed = [network(other, condition), network(tokens(9), condition), network(tokens(), condition.null())]
    changed.append(network(tokens(), Condition(text=word(condition.text.pooled + 1))))
    for x in changed:
        assert not torch.isclose(x, base, atol=1e-4).all(-1).any()  # at no place the same
    assert len(network(torch.full((1, 3, 4), MASK), asked(1)).flatten(0, 2).unique(dim=0)) == 12  # masked ones know their places


@torch.no_grad()
def test_a_sample_does_not_see_its_neighbours(network):
    turned = network(tokens().flip(0), asked().rows([1, 0]))
    assert torch.allclose(turned.flip(0), network(tokens(), asked()), atol=1e-5)
    mixed = Condition.cat([asked(1), asked(1).null()])
    both = network(tokens()[:1].expand(2, -1, -1), mixed)
    assert torch.allclose(both[1], network(tokens()[:1], asked(1).null())[0], atol=1e-5)


def reads(model: Mage, masked: torch.Tensor) -> torch.Tensor:
    return model._read(masked)[..., 0]


def test_while_training_the_encoder_reads_all_there_is_and_few_that_are_masked(network):
    """Half of the twelve are dropped, all of them masked ones, each as often as any other."""
    masked = torch.nn.functional.pad((tokens() == MASK).flatten(1)[:1].expand(4000, -1), (1, 0))
    network.train()
    torch.manual_seed(0)
    read = reads(network, masked)
    network.eval()
    assert read.shape == (4000, 7)
    assert (read[:, :5] == torch.arange(5)).all()  # the vector and the four that are there
    counts = read[:, 5:].flatten().bincount(minlength=13)[5:]
    assert abs(counts - 1000).max() < 4 * (4000 * 0.25 * 0.75) ** 0.5
    assert (read.sort(1).values.diff(dim=1) > 0).all()  # none twice
    assert torch.equal(reads(network, masked[:2]), torch.arange(13).expand(2, -1))


def test_no_more_is_dropped_than_is_masked_everywhere(network):
    masked = torch.zeros(2, 13, dtype=torch.bool)
    masked[0, 3], masked[1, 4:9] = True, True
    network.train()
    assert reads(network, masked).shape == (2, 12)
    network.eval()


def test_what_the_encoder_does_not_read_changes_nothing_but_the_rest_of_it():
    """An encoder that looks at nothing but the token itself: dropping masked ones then leaves the logits as they are."""
    model = tiny.randomised(Mage(SHAPE))
    for block in model.encoder.blocks:
        torch.nn.init.zeros_(block.attention.out.weight)
    torch.manual_seed(0)
    assert torch.allclose(model.train()(tokens(), asked()), model.eval()(tokens(), asked()), atol=1e-5)


def test_gradients_reach_every_parameter():
    model = tiny.randomised(Mage(SHAPE))
    model(tokens(), Condition.cat([asked(1), asked(1).null()])).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
