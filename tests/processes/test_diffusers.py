"""Our levels and solvers against diffusers' own: the same network, the same noise, the same levels.

diffusers is no dependency, not even of development: install it beside (`pip install diffusers`) to run these.
"""

import pytest
import torch
from gaussian import Mixture, column

from diorama.processes.levels import cosine, flow, linear_abar, scaled_linear
from diorama.processes.scalings import Epsilon, NetworkDenoiser, RectifiedFlow, V
from diorama.processes.solvers import ancestral, dpmpp_2m, euler, heun
from diorama.types import Condition, Noise

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: the solvers are held to it where it is")

NOTHING = Condition()
LINEAR = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SCALED = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
TABLES = {"linear": (LINEAR, linear_abar()), "scaled": (SCALED, scaled_linear())}
SEEDS = (3, 4, 5)


def network(x, t, condition=None):
    """A small one with random weights beside a skip, which keeps what is sampled near 1: (b, 4), (b,) -> (b, 4)."""
    first, second, bend = Noise([0]).normal(3, 4, 4)[0] / 2
    return x + torch.tanh(x @ first + column(t, x) / 1000 * bend[0]) @ second / 4


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]


def start(sigma):
    """Pure noise at this level."""
    return (1 + sigma**2) ** 0.5 * Noise(SEEDS).normal(4)


def theirs(scheduler, x, predict, **more):
    """Their loop; x and what it returns are as the scheduler scales them. `predict` sees (x, t, number of the call)."""
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(predict(scheduler.scale_model_input(x, t), t, i), t, x, **more).prev_sample
    return x


def told(x, t, i):
    return network(x, t.float().expand(len(x)))


def close(ours, reference, tolerance=1e-4):
    assert reference.abs().max() > 0.1
    difference = (ours - reference).abs().max().item()
    assert difference < tolerance, difference


def ours(solver, levels, denoiser, x=None):
    return solver(denoiser, start(levels[0].item()) if x is None else x, NOTHING, levels, Noise(SEEDS))


def levels_at(abar, timesteps):
    return torch.cat([Epsilon(abar).sigmas[timesteps.long()], torch.zeros(1)])


# --- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abar", "settings"),
    [
        (linear_abar(), LINEAR),
        (scaled_linear(), SCALED),
        (scaled_linear(low=0.00085, high=0.012), {**SCALED, "beta_start": 0.00085, "beta_end": 0.012}),
        (cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
    ],
    ids=["linear", "scaled", "stable", "cosine"],
)
def test_tables(abar, settings):
    reference = diffusers.DDPMScheduler(1000, **settings).alphas_cumprod
    assert torch.allclose(torch.tensor(abar), reference, atol=1e-6, rtol=0)


# --- first order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("kind", [Epsilon, V])
def test_euler_is_ddim(table, spacing, kind):
    """Not with their "linspace": DDIMScheduler steps to t - 1000 // n there, which is not the next of its own times."""
    settings, abar = table
    prediction = {"prediction_type": "epsilon" if kind is Epsilon else "v_prediction"}
    scheduler = diffusers.DDIMScheduler(1000, **settings, **prediction, clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(50)
    levels = levels_at(abar, scheduler.timesteps)
    found = ours(euler, levels, NetworkDenoiser(network, kind(abar)))
    close(found, theirs(scheduler, start(levels[0].item()) / (1 + levels[0] ** 2).sqrt(), told))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_is_a_flows_euler(shift):
    """Their times are passed in: left to itself, the scheduler takes its ends from times that are shifted already, and shifts again."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 21)[:-1].tolist())
    levels = flow(20, shift=shift)
    found = ours(euler, levels, NetworkDenoiser(network, RectifiedFlow()), (1 + levels[0]) * Noise(SEEDS).normal(4))
    close(found, flows(scheduler))


def flows(scheduler):
    """A flow's network is told its time, between 0 and 1."""
    x = Noise(SEEDS).normal(4)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(len(x)) / 1000), t, x).prev_sample
    return x


# --- second order ----------------------------------------------------------------------------------


def both_ends(sigmas):
    """The levels of a Heun scheduler, which lists those between the first and the last twice."""
    return torch.cat([sigmas[:1], sigmas[1::2]])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_heun_is_a_flows_heun(shift):
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(20)
    t = both_ends(scheduler.sigmas)
    levels = torch.where(t < 1, t / (1 - t), flow(1)[0])
    found = ours(heun, levels, NetworkDenoiser(network, RectifiedFlow()), (1 + levels[0]) * Noise(SEEDS).normal(4))
    close(found, flows(scheduler))


def test_heun_ends_where_heun_in_sigma_does():
    """HeunDiscreteScheduler steps in sigma, ours in sigma / (1 + sigma): two schemes of second order along one path.

    So a third of the step leaves a ninth of what lies between them.
    """
    differences = []
    for n in (334, 1000):  # so that all their times are whole numbers
        scheduler = diffusers.HeunDiscreteScheduler(1000, **LINEAR)
        scheduler.set_timesteps(n)
        levels = both_ends(scheduler.sigmas)
        found = ours(heun, levels, NetworkDenoiser(network, Epsilon(linear_abar())))
        differences.append((found - theirs(scheduler, start(levels[0].item()), told)).abs().max().item())
    assert differences[1] < 1e-4
    assert 8 < differences[0] / differences[1] < 10


@pytest.mark.parametrize("n", [8, 28])
def test_dpmpp_2m_is_theirs(table, n):
    settings, abar = table
    scheduler = diffusers.DPMSolverMultistepScheduler(1000, **settings, timestep_spacing="linspace")
    scheduler.set_timesteps(n)
    levels = levels_at(abar, scheduler.timesteps)
    found = ours(dpmpp_2m, levels, NetworkDenoiser(network, Epsilon(abar)))
    close(found, theirs(scheduler, start(levels[0].item()) / (1 + levels[0] ** 2).sqrt(), told))


@pytest.mark.parametrize("n", [8, 28])
def test_dpmpp_2m_is_theirs_on_a_karras_grid(table, n):
    """On a denoiser that is told sigma itself: between two levels of the table theirs rounds the time the network is told."""
    settings, _ = table
    scheduler = diffusers.DPMSolverMultistepScheduler(1000, **settings, timestep_spacing="linspace", use_karras_sigmas=True)
    scheduler.set_timesteps(n)
    levels = scheduler.sigmas

    def predict(x, t, i):
        sigma = levels[i]
        x = x * (1 + sigma**2).sqrt()
        return (x - Mixture()(x, sigma.expand(len(x)), NOTHING)) / sigma

    found = ours(dpmpp_2m, levels, Mixture())
    close(found, theirs(scheduler, start(levels[0].item()) / (1 + levels[0] ** 2).sqrt(), predict))


# --- those that draw -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n"), [("linear", 50), ("scaled", 50), ("linear", 1000)])
def test_ancestral_is_ddpm(name, n):
    settings, abar = TABLES[name]
    scheduler = diffusers.DDPMScheduler(1000, **settings, clip_sample=False, variance_type="fixed_small")
    scheduler.set_timesteps(n)
    levels = levels_at(abar, scheduler.timesteps)
    found = ours(ancestral, levels, NetworkDenoiser(network, Epsilon(abar)))
    x = start(levels[0].item()) / (1 + levels[0] ** 2).sqrt()
    close(found, theirs(scheduler, x, told, generator=Noise(SEEDS).generators))


def test_ancestral_is_eulers_ancestral(table):
    settings, abar = table
    scheduler = diffusers.EulerAncestralDiscreteScheduler(1000, **settings)
    scheduler.set_timesteps(28)
    found = ours(ancestral, scheduler.sigmas, NetworkDenoiser(network, Epsilon(abar)))
    close(found, theirs(scheduler, start(scheduler.sigmas[0].item()), told, generator=Noise(SEEDS).generators))
