"""Against a chain whose every next token has a known chance."""

import math

import pytest
import torch

from diorama.networks.tokens import TokenTransformer, TokenTransformerConfig
from diorama.processes.autoregressive import Autoregressive
from diorama.types import MASK, Condition, Noise

END = 2
FIRST = torch.tensor([0.7, 0.2, 0.1])
NEXT = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.4, 0.3, 0.3]])  # row: the token before
NOTHING = Condition()


def chain(tokens, condition):
    """The predictor that knows."""
    chances = NEXT[tokens[:, :-1].clamp_min(0)]
    return torch.cat([FIRST.expand(len(tokens), 1, -1), chances], 1).log()


def test_the_loss_is_the_mean_surprise_of_what_is_asked():
    x = torch.tensor([[0, 1, END], [1, END, MASK]])
    expected = [-(math.log(0.7) + math.log(0.6) + math.log(0.25)) / 3, -(math.log(0.2) + math.log(0.25)) / 2]
    assert Autoregressive().loss(chain, x, NOTHING, Noise([0, 1])).tolist() == pytest.approx(expected)


def test_drawn_tokens_come_as_often_as_they_should():
    n = 4000
    process = Autoregressive()
    drawn = process.sample(chain, process.prior((2,), Noise(range(n))), NOTHING, noise=Noise(range(n)))
    counts = torch.zeros(3, 3).index_put_(tuple(drawn.T), torch.ones(n), accumulate=True) / n
    expected = FIRST[:, None] * NEXT
    assert ((counts - expected).abs() < 4 * (expected * (1 - expected) / n).sqrt()).all()


def test_without_a_temperature_the_likeliest_comes_and_beyond_the_end_nothing():
    def start(*row):
        return torch.tensor([row])

    likeliest = Autoregressive(END, 0.0)
    told = likeliest.sample(chain, start(MASK, MASK, MASK), NOTHING, noise=Noise([0]))
    assert told.tolist() == [[0, 1, 0]]
    ended = likeliest.sample(chain, start(MASK, END, MASK, MASK), NOTHING, noise=Noise([0]))
    assert ended.tolist() == [[0, END, END, END]]
    kept = likeliest.sample(chain, start(1, MASK, 1, MASK), NOTHING, noise=Noise([0]))
    assert kept.tolist() == [[1, 0, 1, 0]]


def test_a_row_is_the_same_alone_and_beside_one_that_ends_early():
    torch.manual_seed(0)
    model = TokenTransformer(TokenTransformerConfig(codes=3, places=(9,), width=16, depth=1, heads=2, causal=True))
    process = Autoregressive(END)
    with torch.no_grad():
        together = process.sample(model, process.prior((9,), Noise(range(6))), NOTHING, noise=Noise(range(6)))
        alone = [process.sample(model, process.prior((9,), Noise([i])), NOTHING, noise=Noise([i])) for i in range(6)]
    assert len({row.index(END) if END in row else 9 for row in together.tolist()}) > 1
    assert torch.equal(together, torch.cat(alone))
