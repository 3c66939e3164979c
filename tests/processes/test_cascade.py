import torch

from diorama.processes.cascade import Stage, cascade, follow, resized
from diorama.processes.diffusion import Diffusion
from diorama.processes.levels import karras
from diorama.processes.scalings import EDM
from diorama.types import Condition, Noise

PROCESS = Diffusion(scaling=EDM(), sigma_max=80.0)


class Follower:
    """Knows one answer: what it was shown, and a little brighter; the first of a cascade was shown nothing."""

    sigmas = None

    def __init__(self):
        self.shown = []

    def __call__(self, x, sigma, condition):
        self.shown.append(condition)
        return torch.zeros_like(x) if condition.image is None else condition.image + 0.1


def test_each_stage_follows_the_picture_of_the_one_before():
    networks = [Follower() for _ in range(3)]
    stages = [
        Stage(network, PROCESS, (2, side, side), karras(2), 0.0) for network, side in zip(networks, (4, 8, 16), strict=True)
    ]
    x = cascade(stages, Condition(label=torch.tensor([3, 4])), Noise([0, 1]))
    assert torch.allclose(x, torch.full((2, 2, 16, 16), 0.2), atol=1e-6)
    assert networks[0].shown[0].image is None
    assert all(network.shown[0].label.tolist() == [3, 4] for network in networks)


def test_a_stage_is_told_how_much_noise_it_is_shown():
    stages = [
        Stage(Follower(), PROCESS, (1, 64, 64), karras(1)),
        Stage(network := Follower(), PROCESS, (1, 64, 64), karras(1), 0.25),
    ]
    cascade(stages, Condition(), Noise([0, 1]))
    (shown,) = network.shown
    assert shown.extra["augmentation"].tolist() == [0.25, 0.25]
    assert abs(shown.image.std() - 0.25) < 0.01  # the picture before it is nought


def test_noise_keeps_to_its_time_and_leaves_the_rest_of_the_condition():
    small, level = torch.ones(3, 2, 32, 32), torch.tensor([0.0, 0.5, 1.0])
    condition = follow(Condition(extra={"other": level}), small, (32, 32), level, Noise(range(3)))
    assert torch.allclose(condition.image[0], small[0], atol=1e-6)
    assert torch.allclose(condition.image.mean((1, 2, 3)), 1 - level, atol=0.05)
    assert torch.allclose(condition.image.std((1, 2, 3)), level, atol=0.05)
    assert set(condition.extra) == {"other", "augmentation"}


def test_resizing_keeps_what_is_even_and_a_picture_s_mean():
    x = Noise([0]).normal(1, 16, 16)
    assert torch.allclose(resized(torch.full((1, 1, 4, 4), 0.3), (8, 8)), torch.tensor(0.3))
    assert resized(x, (8, 8)).std() < x.std() / 1.5  # it averages, and does not pick
