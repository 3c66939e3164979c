import math
from statistics import NormalDist

import pytest
import torch

from diorama.errors import UserError
from diorama.processes.masked import MaskedParallel, cosine, cosine_inverse, normal
from diorama.types import MASK, Condition, Noise

NOTHING = Condition()


class Pair:
    """Two tokens that are always equal: where one is known so is the other, else all four codes are as likely."""

    def __call__(self, tokens, condition):
        other = tokens.flip(1)
        logits = torch.zeros(*tokens.shape, 4)
        known = other != MASK
        logits[known] = 50 * torch.nn.functional.one_hot(other[known], 4).float()
        return logits


def constant(logits):
    """Says the same everywhere, whatever it sees."""
    return lambda tokens, condition: logits.expand(*tokens.shape, len(logits))


def test_the_schedule_goes_from_all_to_none():
    levels = MaskedParallel().levels(8)
    assert levels[0] == 1
    assert levels[-1] < 1e-6
    assert (levels.diff() < 0).all()
    assert torch.allclose(levels[4], torch.tensor(math.cos(math.pi / 4)))


def test_how_much_of_the_way_is_gone_is_read_from_the_share():
    way = torch.linspace(0, 1, 9)
    assert torch.allclose(cosine_inverse(cosine(way)), way, atol=1e-4)


def test_shares_to_learn_from_may_have_a_law_of_their_own():
    """A normal law cut to 0.5 .. 1, its mean mu + std (pdf(a) - pdf(b)) / (cdf(b) - cdf(a)); the schedule that samples stays."""
    unit, a, b = NormalDist(), (0.5 - 0.55) / 0.25, (1 - 0.55) / 0.25
    mean = 0.55 + 0.25 * (unit.pdf(a) - unit.pdf(b)) / (unit.cdf(b) - unit.cdf(a))
    assert abs(normal(0.55, 0.25)((torch.arange(2000) + 0.5) / 2000).mean() - mean) < 1e-3
    law = normal(0.75, 0.25)
    assert torch.allclose(law(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.5, 0.75, 1.0]), atol=1e-4)
    counts, process = [], MaskedParallel(law=law)

    def model(tokens, condition):
        counts.append((tokens == MASK).sum(1))
        return torch.zeros(*tokens.shape, 2)

    process.loss(model, torch.zeros(500, 40, dtype=torch.int64), NOTHING, Noise(range(500)))
    assert counts[0].min() >= 20
    assert counts[0].float().std() > 4
    assert torch.equal(process.levels(5), MaskedParallel().levels(5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_who_knows_nothing_loses_the_logarithm_of_the_codes(smoothing):
    x = Noise(range(3)).integers(8, 4, 4)
    loss = MaskedParallel(smoothing=smoothing).loss(constant(torch.zeros(8)), x, NOTHING, Noise(range(3)))
    assert torch.allclose(loss, torch.full((3,), math.log(8)))


def test_the_loss_is_the_mean_over_the_masked_tokens_and_no_others():
    """A model with a loss of its own for each place, written out from what it was shown."""
    x, seen, logits = Noise(range(5)).integers(6, 3, 4), [], Noise(range(5)).normal(3, 4, 6)

    def model(tokens, condition):
        seen.append(tokens)
        return logits

    loss = MaskedParallel(smoothing=0.0).loss(model, x, NOTHING, Noise(range(5)))
    masked = seen[0] == MASK
    assert torch.equal(seen[0][~masked], x[~masked])
    error = -logits.log_softmax(-1).gather(-1, x[..., None])[..., 0]
    for b in range(5):
        assert masked[b].any()
        assert torch.allclose(loss[b], error[b][masked[b]].mean())


def test_the_share_that_is_masked_follows_the_schedule():
    """E cos(pi r / 2) = 2 / pi for r uniform on [0, 1]; and every place is masked as often as any other."""
    counts = []
    MaskedParallel().loss(
        lambda tokens, condition: counts.append(tokens == MASK) or torch.zeros(*tokens.shape, 2),
        torch.zeros(2000, 50, dtype=torch.int64),
        NOTHING,
        Noise(range(2000)),
    )
    share = counts[0].float()
    assert abs(share.mean() - 2 / math.pi) < 0.5 / 50 + 3 * 0.308 / 2000**0.5  # rounded up, and three standard errors
    assert share.mean(0).std() < 2 * (0.25 / 2000) ** 0.5


@pytest.mark.parametrize("n", [1, 3, 8, 40])
def test_all_tokens_are_told(n):
    process = MaskedParallel()
    start = process.prior((4, 4), Noise(range(3)))
    assert (start == MASK).all()
    shown = []
    drawn = process.sample(
        constant(torch.zeros(5)), start, NOTHING, levels=process.levels(n), noise=Noise(range(3)), on_step=shown.append
    )
    assert drawn.shape == (3, 4, 4)
    assert drawn.min() >= 0
    assert drawn.max() < 5
    assert [(step.index, step.n) for step in shown] == [(i, n) for i in range(n)]
    assert torch.equal(shown[-1].x0, drawn)


def test_the_share_still_masked_falls_as_the_levels_say():
    process, shares = MaskedParallel(), []

    def model(tokens, condition):
        shares.append((tokens == MASK).sum(1))
        return torch.zeros(*tokens.shape, 5)

    levels = process.levels(6)
    process.sample(model, process.prior((64,), Noise([0, 1])), NOTHING, levels=levels, noise=Noise([0, 1]))
    assert torch.equal(torch.stack(shares), (levels[:-1, None] * 64).floor().expand(-1, 2))


def test_one_step_draws_every_token_from_its_own_distribution():
    """Chi squared with 3 degrees of freedom: above 16.3 one time in a thousand."""
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    process, noise = MaskedParallel(), Noise(range(50))
    drawn = process.sample(constant(p.log()), process.prior((100,), noise), NOTHING, levels=process.levels(1), noise=noise)
    counts = torch.bincount(drawn.flatten(), minlength=4)
    assert ((counts - 5000 * p).square() / (5000 * p)).sum() < 16.3


def test_what_is_told_first_decides_what_follows():
    process, equal = MaskedParallel(), {}
    for n in (1, 2):
        noise = Noise(range(200))
        drawn = process.sample(Pair(), process.prior((2,), noise), NOTHING, levels=torch.linspace(1, 0, n + 1), noise=noise)
        equal[n] = (drawn[:, 0] == drawn[:, 1]).float().mean().item()
    assert equal[2] == 1
    assert abs(equal[1] - 0.25) < 3 * (0.25 * 0.75 / 200) ** 0.5


def test_the_surest_token_is_told_first():
    """Without temperature: place 2 is certain, the others are not."""
    logits, seen = torch.zeros(4, 3), []
    logits[2, 1] = 20.0

    def model(tokens, condition):
        seen.append(tokens.clone())
        return logits.expand(*tokens.shape, 3)

    noise = Noise(range(8))
    process = MaskedParallel(temperature=0.0)
    process.sample(model, process.prior((4,), noise), NOTHING, levels=torch.linspace(1, 0, 5), noise=noise)
    assert (seen[1] == torch.tensor([MASK, MASK, 1, MASK])).all()


def test_known_tokens_stay_and_only_the_others_are_told():
    process, noise = MaskedParallel(), Noise(range(3))
    start = torch.tensor([[7, MASK, MASK, 6], [MASK] * 4, [5, 5, 5, 5]])
    model = constant(torch.tensor([0.0] * 4 + [-50.0] * 4))
    drawn = process.sample(model, start, NOTHING, levels=process.levels(5), noise=noise)
    known = start != MASK
    assert torch.equal(drawn[known], start[known])
    assert (drawn[~known] < 4).all()
    assert (drawn >= 0).all()


def test_a_sample_is_the_same_alone_and_in_a_batch():
    process, start = MaskedParallel(), torch.tensor([[MASK] * 9, [1] + [MASK] * 8, [MASK] * 9])
    model = constant(torch.tensor([0.3, -1.0, 0.5, 2.0]))
    together = process.sample(model, start, NOTHING, levels=process.levels(4), noise=Noise([5, 6, 7]))
    for i in range(3):
        alone = process.sample(model, start[i : i + 1], NOTHING, levels=process.levels(4), noise=Noise([5 + i]))
        assert torch.equal(alone[0], together[i])
    x = together
    loss = process.loss(model, x, NOTHING, Noise([1, 2, 3]))
    assert torch.allclose(process.loss(model, x[1:2], NOTHING, Noise([2])), loss[1:2])


def test_no_steps_are_refused():
    with pytest.raises(UserError, match="0 steps tell no token: use 1 or more"):
        MaskedParallel().levels(0)


def test_cosine_is_never_below_nothing():
    assert cosine(torch.linspace(0, 1, 1001)).min() >= 0
