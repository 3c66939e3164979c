import math

import pytest
import torch

from diorama import cards
from diorama.errors import UserError
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.bound import Bound
from diorama.processes.levels import linear_abar, respaced
from diorama.processes.scalings import Epsilon
from diorama.processes.solvers import ancestral, euler
from diorama.systems.base import load_system
from diorama.systems.images.ddpm import DDPM, PRESETS
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition, Noise

CONFIG = UNetConfig(channels=3, patch=2, widths=(16,), depth=1, attention=(True,), heads=2, embedding=32, levels=1.0)


def untrained():
    torch.manual_seed(0)
    return DDPM(UNet(CONFIG), 8)


@pytest.fixture
def system():
    found = untrained()
    for weight in found.network.parameters():  # it begins silent
        torch.nn.init.normal_(weight, std=0.2)
    return found.eval()


def batch(n=4):
    return Batch(0.5 * Noise(range(100, 100 + n)).normal(4, 1, 1).expand(-1, -1, 8, 8).contiguous())


# --- training -------------------------------------------------------------------------------------


def test_an_untrained_network_is_wrong_by_the_noise_itself():
    """It says 0, so that the loss is the square of what was drawn: every level weighs the same."""
    loss, noise = untrained().loss(batch(), Noise(range(4))), Noise(range(4))
    noise.integers(1000)  # the level
    assert torch.allclose(loss, noise.normal(3, 8, 8).square().mean((1, 2, 3)), rtol=1e-4)


def test_a_loss_of_one_sample_does_not_know_its_batch(system):
    together = system.loss(batch(), Noise(range(4)))
    alone = [system.loss(Batch(batch().image[i : i + 1]), Noise([i])) for i in range(4)]
    assert together.shape == (4,)
    assert torch.allclose(together, torch.cat(alone), rtol=1e-4)


def test_gradients_reach_every_parameter(system):
    system.loss(batch(), Noise(range(4))).mean().backward()
    assert [name for name, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_one_step_teaches_it_something(system):
    with torch.no_grad():
        before = system.loss(batch(), Noise(range(4))).mean()
    system.loss(batch(), Noise(range(4))).mean().backward()
    with torch.no_grad():
        for p in system.parameters():
            p -= 1e-4 * p.grad
        assert system.loss(batch(), Noise(range(4))).mean() < before


def test_the_loop_trains_it():
    system, noise = untrained(), range(50, 54)
    with torch.no_grad():
        before = system.loss(batch(), Noise(noise)).mean()
    fit(system, lambda step, rank, world: batch(), Plan(steps=15, lr=1e-2, warmup=2, ema=0.5, device="cpu", dtype="float32"))
    with torch.no_grad():
        assert system.loss(batch(), Noise(noise)).mean() < before


# --- sampling -------------------------------------------------------------------------------------


def test_a_picture_is_the_same_alone_and_in_a_batch(system):
    together = system.sample(steps=4, noise=Noise([5, 6, 7]))
    assert together.shape == (3, 3, 8, 8)
    assert together.abs().max() <= 1  # the last step ends at the network's own picture, which is clipped
    for i in range(3):
        assert torch.allclose(system.sample(steps=4, noise=Noise([5 + i]))[0], together[i], atol=1e-5)


def test_a_step_draws_the_posterior_of_the_paper():
    """x' ~ N(the mean of eq. 7, the variance of eq. 7) in the paper's own, variance-preserving, coordinates."""
    abar = torch.tensor(linear_abar(), dtype=torch.float64)
    t, x0 = 600, torch.full((1, 1), 0.3, dtype=torch.float64)
    before, now = abar[t - 1], abar[t]
    beta, x_t = 1 - now / before, torch.full((1, 1), -0.7, dtype=torch.float64)
    mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - now)
    variance = (1 - before) / (1 - now) * beta

    levels = ((1 - abar) / abar).sqrt()[[t, t - 1]]
    n = 4000
    drawn = ancestral(
        lambda x, sigma, condition: x0.expand_as(x), (x_t / now.sqrt()).expand(n, 1), Condition(), levels, Noise(range(n))
    )
    drawn = drawn * before.sqrt()
    error = (variance / n).sqrt()
    assert abs(drawn.mean() - mean) < 4 * error
    assert drawn.var() == pytest.approx(variance.item(), rel=0.1)


def test_steps_are_levels_of_the_table(system):
    seen = []
    system.sample(steps=5, noise=Noise([0]), on_step=seen.append)
    table = Epsilon(linear_abar()).sigmas
    assert [step.sigma for step in seen] == pytest.approx(respaced(table, 5)[:-1].tolist())
    assert all(step.sigma in table.tolist() for step in seen)
    with pytest.raises(UserError, match="1001 steps do not fit a table of 1000 levels"):
        system.sample(steps=1001, noise=Noise([0]))


def test_another_solver_needs_no_fresh_noise(system):
    noise = Noise([3])
    system.sample(steps=4, solver=euler, noise=noise)
    left = noise.normal(2)
    again = Noise([3])
    again.normal(3, 8, 8)  # the start
    assert torch.equal(left, again.normal(2))


# --- the bound ------------------------------------------------------------------------------------


def test_pictures_that_are_known_cost_the_sum_of_the_chain():
    """Where the denoiser knows the picture, all that is left is the KL of the two variances: no network can do better."""
    bound, x = Bound(linear_abar(40, 1e-3, 0.3)), batch().image[:, :3].clamp(-1, 1)
    x = ((x + 1) * 127.5).round() / 127.5 - 1
    found = bound.bits(lambda noisy, sigma, condition: x, x, Condition(), Noise(range(4)), draws=39)
    assert found.shape == (4,)
    wrong = bound.bits(lambda noisy, sigma, condition: x + 0.1, x, Condition(), Noise(range(4)), draws=39)
    assert (wrong > found + 0.1).all()
    beta = torch.linspace(1e-3, 0.3, 40, dtype=torch.float64)
    abar = (1 - beta).cumprod(0)
    ratio = (1 - abar[:-1]) / (1 - abar[1:])
    chain = ((ratio - 1 - ratio.log()) / 2).sum()
    prior = (abar[-1] * x.double().square().mean((1, 2, 3)) - abar[-1] - torch.log1p(-abar[-1])) / 2
    width = torch.distributions.Normal(0.0, beta[0].sqrt())
    last = -torch.log(width.cdf(torch.tensor(1 / 255)) - width.cdf(torch.tensor(-1 / 255)))  # no number at either end
    inside = (x.abs() < 1).flatten(1).all(1)
    assert inside.any()
    assert torch.allclose(found[inside].double(), (chain + prior[inside] + last) / math.log(2), rtol=1e-3)


# --- as a whole -----------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(system, tmp_path):
    system.save_pretrained(tmp_path / "model")
    again = load_system(tmp_path / "model")
    assert isinstance(again, DDPM) and again.size == 8
    assert torch.equal(*(s.sample(steps=3, noise=Noise([0, 1])) for s in (system, again)))


def test_the_published_size():
    """35.7 M (Ho et al. 2020, app. B)."""
    with torch.device("meta"):
        network = UNet(PRESETS["paper"])
    count = sum(p.numel() for p in network.parameters())
    assert count == pytest.approx(cards.DDPM.published["parameters"], rel=0.03)


def test_sizes_that_do_not_fit_are_told():
    with pytest.raises(UserError, match="size 30 is not a multiple of 4: use 28"):
        DDPM.new(preset="nano", size=30, labels=[], part=None)
    with pytest.raises(UserError, match="preset 'huge'"):
        DDPM.new(preset="huge", size=32, labels=[], part=None)
