import pytest
import torch
import torch.nn.functional as F

from diorama.guidance.contrastive import contrastive
from diorama.types import Condition, Prediction

MEANS = torch.tensor([[-1.0, 0.5], [2.0, -1.0], [0.0, 1.5]])  # three sentences, each of a Gaussian of variance 1
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.3, 0.5, 1.0, 3.0, 20.0])
ASKED = torch.tensor([0, 1, 2, 0, 1])


class Prior:
    """E[x0 | x] for x0 ~ N(0, 1)."""

    sigmas = None

    def __call__(self, x, sigma, condition):
        return x / (1 + sigma[:, None] ** 2)

    def predict(self, x, sigma, condition):
        return Prediction(self(x, sigma, condition))


def see(x, sigma):
    """A linear eye: x . text / (1 + sigma^2) is log p(x | N(text, 1)) - log p(x | N(0, 1)), but for a constant."""
    return x / (1 + sigma[:, None] ** 2)


def test_with_a_true_eye_it_is_the_denoiser_of_the_sentence():
    guided = contrastive(Prior(), see, MEANS[ASKED], 1.0)(X, SIGMA, Condition())
    variance = SIGMA[:, None] ** 2
    assert torch.allclose(guided, (X + variance * MEANS[ASKED]) / (1 + variance), atol=1e-5)


def test_scale_nought_is_the_denoiser_itself():
    prior = Prior()
    assert contrastive(prior, see, MEANS[ASKED], 0) is prior


@pytest.mark.parametrize(("scale", "rises"), [(0.1, True), (-0.1, False)])
def test_what_it_expects_pleases_the_eye_more(scale, rises):
    def eye(x, sigma):
        return F.normalize(x, dim=-1)

    text = 10 * F.normalize(MEANS[ASKED], dim=-1)
    sigma = torch.ones(5)
    led = contrastive(Prior(), eye, text, scale)(X, sigma, Condition())
    before, after = ((eye(x, sigma) * text).sum() for x in (Prior()(X, sigma, Condition()), led))
    assert (after > before) == rises
    assert not led.requires_grad
