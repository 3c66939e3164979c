import pytest
import torch

from diorama.guidance.classifier import classifier
from diorama.processes.levels import karras
from diorama.processes.solvers import heun
from diorama.types import Condition, Noise, Prediction

MEANS = torch.tensor([[-1.0, 0.5], [2.0, -1.0], [0.0, 1.5]])  # three classes, each a Gaussian of variance 1
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) * 2
SIGMA = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0])
LABEL = torch.tensor([0, 1, 2, 0, 1])
NOTHING = Condition()


def of_class(x, sigma, label):
    """E[x0 | x, class]."""
    variance = sigma[:, None] ** 2
    return (x + variance * MEANS[label]) / (1 + variance)


def log_prob(x, sigma, label):
    """The true log p(class | x), classes alike in number."""
    square = (x[:, None] - MEANS).square().sum(-1) / (1 + sigma[:, None] ** 2)
    return (-square / 2).log_softmax(-1).gather(1, label[:, None])[:, 0]


class Mixture:
    """E[x0 | x] of the three classes together."""

    sigmas = None

    def __call__(self, x, sigma, condition):
        classes = torch.arange(3).expand(len(x), 3)
        weights = torch.stack([log_prob(x, sigma, classes[:, k]) for k in range(3)], 1).exp()
        means = torch.stack([of_class(x, sigma, classes[:, k]) for k in range(3)], 1)
        return (weights[..., None] * means).sum(1)

    def predict(self, x, sigma, condition):
        return Prediction(self(x, sigma, condition))


def test_with_the_true_classifier_it_is_the_denoiser_of_the_class():
    guided = classifier(Mixture(), log_prob, LABEL, 1.0)(X, SIGMA, NOTHING)
    assert torch.allclose(guided, of_class(X, SIGMA, LABEL), atol=1e-3)


def test_scale_nought_is_the_denoiser_itself():
    mixture = Mixture()
    assert classifier(mixture, log_prob, LABEL, 0) is mixture


def test_it_works_where_no_gradient_is_kept():
    with torch.no_grad():
        guided = classifier(Mixture(), log_prob, LABEL, 1.0)(X, SIGMA, NOTHING)
    assert not guided.requires_grad
    assert torch.allclose(guided, of_class(X, SIGMA, LABEL), atol=1e-3)


@pytest.mark.parametrize(("scale", "towards"), [(1.0, True), (-1.0, False)], ids=["asked", "sign flipped"])
def test_samples_go_to_the_class_that_was_asked_for(scale, towards):
    noise, label = Noise(range(64)), torch.full((64,), 1)
    start = 80.0 * noise.normal(2)
    samples = heun(classifier(Mixture(), log_prob, label, scale), start, NOTHING, karras(20), noise)
    near = (samples - MEANS[1]).norm(dim=1).mean()
    assert (near.item() < 1.6) == towards


def test_each_sample_may_have_its_own_scale():
    scales = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    together = classifier(Mixture(), log_prob, LABEL, scales)(X, SIGMA, NOTHING)
    for i in range(5):
        alone = classifier(Mixture(), log_prob, LABEL[i : i + 1], scales[i].item())(X[i : i + 1], SIGMA[i : i + 1], NOTHING)
        assert torch.allclose(alone[0], together[i], atol=1e-5)
