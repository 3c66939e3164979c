import torch
from torch import nn

from diorama.training.ema import Ema


def test_it_is_the_weighted_sum_of_what_was():
    module = nn.Linear(1, 1, bias=False)
    ema, expected = Ema(module, 0.5), module.weight.item()
    for n, value in enumerate([1.0, 5.0, -2.0, 7.0, 3.0, 8.0, 4.0, 1.0, 9.0, 2.0], 1):
        nn.init.constant_(module.weight, value)
        ema.update()
        decay = min(0.5, (1 + n) / (10 + n))  # a short memory at first
        expected = decay * expected + (1 - decay) * value
    assert torch.isclose(ema.shadow["weight"], torch.tensor(expected))


def test_it_is_applied_for_a_while_and_taken_back_exactly():
    module = nn.Linear(3, 3)
    ema, before = Ema(module, 0.9), module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1 / 3)
    live = module.weight.detach().clone()
    with ema.applied():
        assert torch.equal(module.weight, before)
    assert torch.equal(module.weight, live)
    assert torch.equal(ema.shadow["weight"], before)


def test_what_is_frozen_is_not_averaged():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    assert set(Ema(module, 0.9).shadow) == {"0.weight", "0.bias"}
