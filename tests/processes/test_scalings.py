import math

import pytest
import torch
from gaussian import MEAN, STD, Gaussian, column

from diorama.processes.diffusion import Diffusion, as_velocity
from diorama.processes.levels import LogNormal, OfTable, linear_abar
from diorama.processes.scalings import EDM, INFINITY, X0, CleanFlow, Epsilon, NetworkDenoiser, RectifiedFlow, V
from diorama.types import Condition, Noise

TABLE = linear_abar()
NOTHING = Condition()


def posterior(x, sigma):
    """E[x0 | x] and E[noise | x] of the Gaussian."""
    return Gaussian()(x, sigma, NOTHING), column(sigma, x) * (x - MEAN) / (STD**2 + column(sigma, x) ** 2)


def flow_target(x0, noise, sigma):
    return noise - x0


def v_target(x0, noise, sigma):
    alpha = 1 / (1 + sigma**2).sqrt()
    return alpha * noise - sigma * alpha * x0


def edm_target(x0, noise, sigma):
    """Karras et al. 2022, eq. 8."""
    total = 0.25 + sigma**2
    return (x0 - 0.25 / total * (x0 + sigma * noise)) * total.sqrt() / (0.5 * sigma)


TARGETS = {
    "flow": (RectifiedFlow(), flow_target),
    "clean flow": (CleanFlow(), lambda x0, noise, sigma: x0),
    "edm": (EDM(0.5), edm_target),
    "x0": (X0(), lambda x0, noise, sigma: x0),
    "epsilon": (Epsilon(TABLE), lambda x0, noise, sigma: noise),
    "v": (V(TABLE), v_target),
}


@pytest.fixture(params=TARGETS)
def case(request):
    return TARGETS[request.param]


def test_its_own_ideal_network_is_the_exact_denoiser(case):
    scaling, target = case
    sigma = torch.tensor([0.02, 0.3, 1.0, 7.0, 80.0])
    x = MEAN + (STD**2 + column(sigma, torch.empty(5, 1, 3)) ** 2).sqrt() * Noise(range(5)).normal(1, 3)

    def ideal(scaled, c_noise, condition):
        x = scaled / column(scaling(sigma).c_in, scaled)
        return target(*posterior(x, sigma), column(sigma, x))

    expected = Gaussian()(x, sigma, NOTHING)
    assert torch.allclose(NetworkDenoiser(ideal, scaling)(x, sigma, NOTHING), expected, atol=2e-4)


def test_the_loss_is_the_error_of_the_networks_own_target(case):
    scaling, target = case
    process = Diffusion(scaling=scaling, law=LogNormal(-0.5, 1.0))
    x = MEAN + STD * Noise([10, 11, 12]).normal(2, 4, 4)

    def network(scaled, c_noise, condition):
        return torch.tanh(scaled) * 0.7

    loss = process.loss(NetworkDenoiser(network, scaling), x, NOTHING, Noise([0, 1, 2]))
    noise = Noise([0, 1, 2])
    sigma = (-0.5 + noise.normal()).exp()
    e = noise.normal(2, 4, 4)
    noisy = x + column(sigma, x) * e
    error = network(column(scaling(sigma).c_in, x) * noisy, None, None) - target(x, e, column(sigma, x))
    assert torch.allclose(loss, error.square().mean((1, 2, 3)), rtol=1e-3)


def test_the_input_of_the_network_keeps_its_size(case):
    """Unit variance where the data has it (a flow's time: between 1 / 2 and 1)."""
    scaling, _ = case
    data = 0.5 if isinstance(scaling, EDM) else 1.0
    sigma = torch.tensor([0.01, 0.5, 1.0, 3.0, 100.0])
    variance = scaling(sigma).c_in ** 2 * (data**2 + sigma**2)
    low = 0.49 if isinstance(scaling, RectifiedFlow) else 0.999
    assert ((variance > low) & (variance < 1.001)).all()


def test_a_flow_begins_at_infinity_with_time_one():
    c_noise = RectifiedFlow()(torch.tensor([INFINITY, 1.0, 0.0])).c_noise
    assert c_noise.tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("kind", [Epsilon, V])
def test_a_table_is_read_by_its_index(kind):
    scaling = kind(TABLE)
    assert scaling.sigmas.shape == (1000,)
    assert (scaling.sigmas.diff() > 0).all()
    assert torch.allclose(scaling(scaling.sigmas).c_noise, torch.arange(1000.0), atol=1e-2)
    between = (scaling.sigmas[10] * scaling.sigmas[11]).sqrt()[None]
    assert math.isclose(scaling(between).c_noise.item(), 10.5, abs_tol=1e-2)
    assert scaling(torch.tensor([1e-6, 1e6])).c_noise.tolist() == [0.0, 999.0]


def test_ddpms_own_numbers():
    """Linear linear_abar 1e-4 .. 0.02 over 1000 steps: abar_0 = 0.9999, abar_999 = 4.04e-5 (Ho et al. 2020)."""
    assert math.isclose(TABLE[0], 0.9999)
    assert math.isclose(TABLE[-1], 4.036e-5, rel_tol=1e-3)


def test_a_law_of_a_table_draws_only_from_it():
    drawn = OfTable((1.0, 2.0, 5.0))(Noise(range(300)))
    assert drawn.unique().tolist() == [1.0, 2.0, 5.0]


def test_the_log_normal_law():
    logs = LogNormal(-1.2, 1.2)(Noise(range(4000))).log()
    assert abs(logs.mean() + 1.2) < 0.08
    assert abs(logs.std() - 1.2) < 0.06


def test_levels_may_differ_within_a_sample():
    """A frame or a token may have a level of its own."""
    sigma = torch.tensor([[[0.5, 2.0]]])
    denoiser = NetworkDenoiser(lambda x, c_noise, condition: torch.zeros_like(x), RectifiedFlow())
    assert torch.allclose(denoiser(torch.ones(1, 1, 2), sigma, NOTHING), 1 / (1 + sigma))


def test_clean_samples_weighed_as_velocity_lose_what_the_flow_loses():
    """Where the weight is not capped: t = sigma / (1 + sigma) above 1 / sqrt(10)."""
    sigma = torch.linspace(0.5, 50.0, 20)
    x, noise = Noise(range(20)).normal(3), Noise(range(20, 40)).normal(3)
    noisy = x + sigma[:, None] * noise
    guess = 0.3 * noisy  # of the clean sample; the velocity that goes with it is (noisy - guess) / sigma
    velocity = (noisy - guess) / sigma[:, None] - guess
    wanted = (velocity - (noise - x)).square().sum(1)
    torch.testing.assert_close(as_velocity(sigma) * (guess - x).square().sum(1), wanted, rtol=1e-4, atol=1e-5)
    assert as_velocity(torch.tensor([1e-3])).item() == 10.0
