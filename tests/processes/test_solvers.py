import itertools
import math

import pytest
import torch
from gaussian import MEAN, STD, Gaussian, Mixture

from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import flow, karras
from diorama.processes.scalings import EDM, INFINITY, X0, NetworkDenoiser, RectifiedFlow
from diorama.processes.solvers import SOLVERS, ancestral, dpmpp_2m, euler, heun, invert
from diorama.types import Condition, Noise

NOTHING = Condition()
START = torch.linspace(-12, 12, 25, dtype=torch.float64).reshape(-1, 1)


def geometric(n, high=8.0, low=0.05):
    return torch.logspace(math.log10(high), math.log10(low), n + 1, dtype=torch.float64)


def solve(solver, levels, x=START, denoiser=None):
    return solver(denoiser or Mixture(), x, NOTHING, levels, Noise([0]))


@pytest.fixture(scope="module")
def truth():
    return solve(heun, geometric(2048))


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence(truth, solver, order):
    errors = [(solve(solver, geometric(n)) - truth).abs().mean().item() for n in (64, 128, 256)]
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(abs(slope - order) < 0.2 for slope in slopes), slopes


def test_eulers_step_is_ddims():
    """Song et al. 2021, eq. 12 with sigma_t = 0, in variance-preserving variables."""
    levels = geometric(12)
    x = START
    for sigma, following in itertools.pairwise(levels):
        abar, next_abar = 1 / (1 + sigma**2), 1 / (1 + following**2)
        scaled = x * abar.sqrt()
        x0 = Mixture()(x, sigma.expand(len(x)), NOTHING)
        epsilon = (scaled - abar.sqrt() * x0) / (1 - abar).sqrt()
        x = (next_abar.sqrt() * x0 + (1 - next_abar).sqrt() * epsilon) / next_abar.sqrt()
        assert torch.allclose(solve(euler, levels[: int((levels >= following).sum())]), x)


def test_eulers_step_is_eulers_step_in_a_flows_time():
    levels = geometric(12)
    z = START / (1 + levels[0])
    for i, (sigma, following) in enumerate(itertools.pairwise(levels)):
        x0 = Mixture()(z * (1 + sigma), sigma.expand(len(z)), NOTHING)
        velocity = (z * (1 + sigma) - x0) / sigma - x0  # noise - x0
        z = z + (following / (1 + following) - sigma / (1 + sigma)) * velocity
        assert torch.allclose(solve(euler, levels[: i + 2]), z * (1 + following))


@pytest.mark.parametrize("solver", SOLVERS.values())
@pytest.mark.parametrize("levels", [karras(80), flow(80), flow(80, shift=3.0)], ids=["karras", "flow", "shifted"])
def test_noise_becomes_the_gaussian(solver, levels):
    process = Diffusion(solver=solver, scaling=X0(), sigma_max=levels[0].item())
    start = process.prior((1, 100, 100), Noise([0]))
    x = process.sample(Gaussian(), start, NOTHING, levels=levels, noise=Noise([0]))
    assert abs(x.mean() - MEAN) < 0.02
    assert abs(x.std() - STD) < 0.03


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_a_start_half_way_down_is_an_edit(solver):
    """Noised data at sigma = 1 is walked down from there."""
    levels = flow(40, start=0.5)
    assert levels[0] == 1
    x0 = MEAN + STD * Noise([1]).normal(1, 100, 100)
    start = x0 + levels[0] * Noise([2]).normal(1, 100, 100)
    x = solver(Gaussian(), start, NOTHING, levels, Noise([0]))
    assert abs(x.mean() - MEAN) < 0.02
    assert abs(x.std() - STD) < 0.02
    assert torch.corrcoef(torch.stack([x.flatten(), x0.flatten()]))[0, 1] > 0.4  # and it stays near what it was


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_a_certain_denoiser_is_believed(solver):
    certain = Gaussian()
    certain.__class__ = type("Certain", (Gaussian,), {"__call__": lambda self, x, sigma, condition: torch.full_like(x, 0.7)})
    assert torch.allclose(solver(certain, torch.randn(2, 3), NOTHING, flow(5), Noise([0, 1])), torch.tensor(0.7))


def test_a_flow_starts_from_exactly_a_standard_normal():
    seen = []

    def network(x, c_noise, condition):
        seen.append((x, c_noise))
        return torch.zeros_like(x)

    process = Diffusion()
    start = process.prior((2, 8, 8), Noise([3, 4]))
    process.sample(NetworkDenoiser(network, RectifiedFlow()), start, NOTHING, levels=flow(2), noise=Noise([3, 4]))
    x, c_noise = seen[0]
    assert torch.allclose(x, Noise([3, 4]).normal(2, 8, 8), rtol=3e-7, atol=0)  # one rounding
    assert c_noise.tolist() == [1.0, 1.0]


def test_the_prior_is_scaled_for_its_network():
    process = Diffusion(scaling=EDM(), sigma_max=80.0)
    prior = process.prior((3, 5), Noise([1]))
    assert torch.allclose(prior / (0.25 + 80.0**2) ** 0.5, Noise([1]).normal(3, 5))


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_every_step_is_told(solver):
    steps = []
    levels = karras(4)
    x = 80 * Noise([0]).normal(1, 2)
    solver(Gaussian(), x, NOTHING, levels, Noise([0]), steps.append)
    assert [(s.index, s.n) for s in steps] == [(i, 4) for i in range(4)]
    assert [s.sigma for s in steps] == levels[:-1].double().tolist()
    assert torch.equal(steps[0].x0, Gaussian()(x, levels[:1], NOTHING))


@pytest.mark.parametrize(("solver", "calls"), [(euler, 10), (heun, 19), (dpmpp_2m, 10), (ancestral, 10)])
def test_calls_of_the_network(solver, calls):
    counted = []

    def network(x, c_noise, condition):
        counted.append(1)
        return x

    solver(NetworkDenoiser(network, RectifiedFlow()), torch.ones(1, 2), NOTHING, flow(10), Noise([0]))
    assert len(counted) == calls


# --- the one that draws ---------------------------------------------------------------------------


def test_ancestral_sampling_keeps_the_marginals_of_a_point_exactly():
    """Where the data is one point, N(point, sigma^2) is kept at every level, whatever the steps."""

    class Point(Gaussian):
        def __call__(self, x, sigma, condition):
            return torch.full_like(x, 0.7)

    seeds = range(4000)
    for levels in (torch.tensor([8.0, 3.0]), torch.tensor([8.0, 6.0, 2.0, 1.5])):
        x = ancestral(Point(), 0.7 + 8 * Noise(seeds).normal(4), NOTHING, levels, Noise(range(5000, 9000)))
        assert abs(x.mean() - 0.7) < 4 * levels[-1] / 16000**0.5
        assert abs(x.std() / levels[-1] - 1) < 4 / 32000**0.5


def test_ancestral_variance_on_a_gaussian_is_the_recursions():
    """D is linear in x there, so each step multiplies the deviation by k and adds sigma'^2 (1 - sigma'^2 / sigma^2)."""
    levels, own = karras(6), STD**2
    variance = own + 80.0**2
    for sigma, following in itertools.pairwise(levels.double().tolist()):
        k = (own + following**2) / (own + sigma**2)
        variance = k**2 * variance + following**2 * (1 - following**2 / sigma**2)
    start = MEAN + (own + 80.0**2) ** 0.5 * Noise(range(4000)).normal(4)
    x = ancestral(Gaussian(), start, NOTHING, levels, Noise(range(5000, 9000)))
    assert abs(x.std() / variance**0.5 - 1) < 4 / 32000**0.5
    assert variance**0.5 < 0.95 * STD  # too little with so few steps, which Euler's walk does not know


def test_ancestral_noise_is_each_samples_own():
    x, levels = 80 * Noise(range(3)).normal(2), karras(4)
    together = ancestral(Gaussian(), x, NOTHING, levels, Noise(range(3)))
    assert torch.allclose(ancestral(Gaussian(), x[1:2], NOTHING, levels, Noise([1])), together[1:2])


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [karras(7), flow(7), flow(7, shift=3.0), flow(7, start=0.4)])
def test_levels_fall_to_zero(levels):
    assert levels.shape == (8,)
    assert (levels.diff() < 0).all()
    assert levels[-1] == 0


def test_karras_levels_are_the_papers():
    assert torch.allclose(karras(18)[[0, 17]], torch.tensor([80.0, 0.002]))
    ramp = karras(18)[:18] ** (1 / 7)
    assert torch.allclose(ramp.diff(), ramp.diff()[0].expand(17), atol=1e-5)  # eq. 5: even in sigma^(1 / 7)


def test_flow_levels_are_even_in_time_and_begin_at_infinity():
    levels = flow(4)
    assert levels[0] == INFINITY
    assert torch.allclose(levels[1:] / (1 + levels[1:]), torch.tensor([0.75, 0.5, 0.25, 0.0]))


def test_a_shift_multiplies_the_level():
    """t -> s t / (1 + (s - 1) t) is sigma -> s sigma (Esser et al. 2024, eq. 23)."""
    assert torch.allclose(flow(6, shift=3.0)[1:], 3 * flow(6)[1:])


def test_inverted_it_leads_back():
    """Twice the steps, half the error: the slope of each step back is taken at its other end."""
    x = torch.linspace(-1.5, 1.5, 13, dtype=torch.float64).reshape(-1, 1)

    def error(n):
        levels = torch.cat([geometric(n, low=1e-3), torch.zeros(1).double()])
        start = invert(Gaussian(), x, NOTHING, levels, Noise([0]))
        assert (start - x).abs().max() > 1  # it goes somewhere
        return (solve(euler, levels, start, Gaussian()) - x).abs().mean().item()

    errors = [error(n) for n in (100, 200, 400)]
    assert all(1.8 < coarse / fine < 2.2 for coarse, fine in itertools.pairwise(errors)), errors
