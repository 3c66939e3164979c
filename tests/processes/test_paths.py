import pytest
import torch
from gaussian import STD, Gaussian

from diorama.guidance.classifier_free import classifier_free
from diorama.processes.levels import flow, respaced
from diorama.processes.paths import follow, places, walk
from diorama.processes.solvers import SOLVERS, euler, heun
from diorama.types import Condition, Noise

LEVELS = flow(4, shift=1.5)
ASKED = Condition(label=torch.zeros(6, dtype=torch.int64))
MEANS, GUIDANCE = torch.tensor([0.3, 1.0]), 5.0  # of what is asked for nothing, and of what is asked for label 0
GUIDED = 0.3 + GUIDANCE * (1.0 - 0.3)
START = LEVELS[0] * torch.linspace(-2, 2, 6).reshape(6, 1)


class Labelled(Gaussian):
    """E[x0 | x] for x0 ~ N(mean of the label, 0.5^2)."""

    def __call__(self, x, sigma, condition):
        mean = MEANS[condition.label + 1][:, None]
        return (STD**2 * x + sigma[:, None] ** 2 * mean) / (STD**2 + sigma[:, None] ** 2)


def exact(x, sigma, following):
    """Where the probability flow of N(GUIDED, STD^2) leads: guidance between Gaussians of one spread is one of another mean."""
    return GUIDED + (x - GUIDED) * ((STD**2 + following**2) / (STD**2 + sigma**2)) ** 0.5


class Jumps(Gaussian):
    """The denoiser whose Euler steps along LEVELS are the exact ones; each level's answer is moved by its own offset."""

    def __init__(self):
        self.offsets, self.shown = torch.zeros(4, requires_grad=True), []

    def __call__(self, x, sigma, condition):
        self.shown.append(x)
        i = int((LEVELS - sigma[0]).abs().argmin())
        ahead, share = exact(x, LEVELS[i], LEVELS[i + 1]), LEVELS[i + 1] / LEVELS[i]
        return (ahead - share * x) / (1 - share) + self.offsets[i]


def guided_path():
    fine = flow(400, shift=1.5)
    path = walk(heun, classifier_free(Labelled(), GUIDANCE), START, ASKED, fine, Noise(range(6)))
    return path[:, places(fine, LEVELS)]


def test_a_guided_gaussians_path_is_the_exact_one():
    path, x = guided_path(), START
    for i, following in enumerate(LEVELS[1:]):
        x = exact(x, LEVELS[i], following)
        assert torch.allclose((1 + following) * path[:, i + 1], x, atol=2e-3)


def test_the_exact_steps_miss_it_by_nothing_and_lead_to_its_end_without_guidance():
    path = guided_path()
    assert follow(Jumps(), path, ASKED, LEVELS).max() < 1e-5
    assert torch.allclose(euler(Jumps(), START, ASKED, LEVELS, Noise(range(6))), path[:, -1], atol=2e-3)
    assert follow(Labelled(), path, ASKED, LEVELS).min() > 0.1  # the teacher in four steps, unguided


@pytest.mark.parametrize("name", SOLVERS)
def test_a_path_is_where_each_shorter_walk_ends(name):
    path = walk(SOLVERS[name], Labelled(), START, ASKED, LEVELS, Noise(range(6)))
    assert torch.equal(path[:, 0], START / (1 + LEVELS[0]))
    for k in range(1, 5):
        x = SOLVERS[name](Labelled(), START, ASKED, LEVELS[: k + 1], Noise(range(6)))
        assert torch.allclose(path[:, k], x / (1 + LEVELS[k]), atol=1e-5)


def test_each_step_starts_where_the_last_one_led_and_answers_for_itself():
    model, path = Jumps(), guided_path()
    with torch.no_grad():
        model.offsets[0] = 0.2
    loss = follow(model, path, ASKED, LEVELS)
    second = (1 + LEVELS[1]) * path[:, 1] + 0.2 * (1 - LEVELS[1] / LEVELS[0])
    assert torch.allclose(model.shown[1], second, atol=2e-3)
    loss.mean().backward()
    alone = Jumps()
    with torch.no_grad():
        alone.offsets[0] = 0.2
    (follow(alone, path[:, :2], ASKED, LEVELS[:2]).mean() / 4).backward()
    assert model.offsets.grad[0] > 0.09
    assert torch.allclose(model.offsets.grad[0], alone.offsets.grad[0])


def test_where_few_levels_stand_among_many():
    assert places(flow(12, 1.5), LEVELS) == [0, 3, 6, 9, 12]
    assert places(flow(10, 1.5), LEVELS) is None
    table = torch.linspace(0.1, 20.0, 100)
    assert places(respaced(table, 10), respaced(table, 4)) == [0, 3, 6, 9, 10]
