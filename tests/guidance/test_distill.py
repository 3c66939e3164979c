import pytest
import torch

from diorama.guidance.distill import denoising, distill, preserving
from diorama.types import Condition, Noise

MEAN, STD, LEVELS = 0.3, 0.5, (0.1, 1.0, 8.0)


def gaussian(x, sigma, condition):
    """E[x0 | x] for x0 ~ N(0.3, 0.5^2)."""
    sigma = sigma.reshape(-1, 1, 1, 1)
    return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)


def gradient(loss, sigma, n=1, **more):
    x = torch.full((n, 2, 3, 3), 1.7, dtype=torch.float64, requires_grad=True)
    loss(gaussian, x, Condition(), torch.full((n,), sigma, dtype=torch.float64), Noise(range(n)), **more).sum().backward()
    return x.grad


def residual(sigma, n):
    """eps_hat - eps by hand: (x - D) / sigma with the Gaussian's own denoiser."""
    eps = Noise(range(n)).normal(2, 3, 3).double()
    denoised = (STD**2 * (1.7 + sigma * eps) + sigma**2 * MEAN) / (STD**2 + sigma**2)
    return (1.7 - denoised) / sigma


@pytest.mark.parametrize("sigma", LEVELS)
def test_the_gradient_is_the_noise_that_is_seen_less_the_noise_that_is_there(sigma):
    torch.testing.assert_close(gradient(distill, sigma, 2), sigma**2 / (1 + sigma**2) * residual(sigma, 2))
    torch.testing.assert_close(gradient(distill, sigma, 2, weight=torch.ones_like), residual(sigma, 2))  # Score Jacobian Chaining


@pytest.mark.parametrize("sigma", LEVELS)
def test_its_mean_is_the_slope_of_the_smoothed_density(sigma):
    """E[(x - D) / sigma] = sigma (x - m) / (s^2 + sigma^2) = -sigma d/dx log N(x; m, s^2 + sigma^2)."""
    found = gradient(distill, sigma, 4000, weight=torch.ones_like).mean(0)
    spread = STD**2 / (STD**2 + sigma**2)  # of each draw
    expected = sigma * (1.7 - MEAN) / (STD**2 + sigma**2)
    assert float((found - expected).abs().max()) < 5 * spread / 4000**0.5


@pytest.mark.parametrize("sigma", LEVELS)
def test_the_full_gradient_has_the_slope_of_the_denoiser_too(sigma):
    """d/dx of w |(x - D) / sigma|^2 / 2 is the same times (1 - dD/dx), which for a Gaussian is sigma^2 / (s^2 + sigma^2)."""
    slope = sigma**2 / (STD**2 + sigma**2) / sigma
    torch.testing.assert_close(gradient(denoising, sigma, 2), slope * gradient(distill, sigma, 2))


def test_a_picture_that_follows_it_ends_at_the_mode():
    x, noise = torch.full((1, 1, 4, 4), 5.0, requires_grad=True), Noise([0])
    optimizer = torch.optim.SGD([x], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        distill(gaussian, x, Condition(), torch.tensor([1.0]), noise).sum().backward()
        optimizer.step()
    assert float((x.detach() - MEAN).abs().max()) < 0.15


def test_nothing_is_asked_of_the_denoisers_weights():
    weight = torch.nn.Parameter(torch.ones(()))
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    distill(lambda x, sigma, condition: weight * x, x, Condition(), torch.ones(1), Noise([0])).sum().backward()
    assert weight.grad is None and x.grad is not None


def test_the_weight_is_the_share_of_noise():
    torch.testing.assert_close(preserving(torch.tensor([0.0, 1.0, 1e4])), torch.tensor([0.0, 0.5, 1.0]))
