"""Data with a known denoiser: one Gaussian, and a mixture of two."""

import torch

from diorama.types import Prediction

MEAN, STD = 0.3, 0.5


def column(sigma, x):
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


class Gaussian:
    """E[x0 | x] for x0 ~ N(0.3, 0.5^2)."""

    sigmas = None

    def __call__(self, x, sigma, condition):
        sigma = column(sigma, x)
        return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)

    def predict(self, x, sigma, condition):
        return Prediction(self(x, sigma, condition))


class Mixture(Gaussian):
    """E[x0 | x] for x0 ~ N(+-1, 0.3^2) with weights 0.3 and 0.7: curved where the two meet."""

    def __call__(self, x, sigma, condition):
        total = 0.3**2 + column(sigma, x) ** 2
        logits = torch.stack([torch.log(torch.tensor(w)) - (x - m) ** 2 / (2 * total) for w, m in ((0.3, 1.0), (0.7, -1.0))])
        mean = torch.einsum("k...,k->...", logits.softmax(0), torch.tensor([1.0, -1.0], dtype=x.dtype))
        return (0.3**2 * x + column(sigma, x) ** 2 * mean) / total
