import torch

from diorama.guidance.threshold import clipped, dynamic
from diorama.types import Condition, Noise

SIGMA, NOTHING = torch.ones(3), Condition()


class Says:
    """Whatever the noise, the clean sample is x."""

    sigmas = None

    def __call__(self, x, sigma, condition):
        return x


def test_clipping_cuts_and_leaves_the_rest():
    x = torch.tensor([[-3.0, -0.5, 2.0]]).expand(3, 3)
    assert torch.equal(clipped(Says())(x, SIGMA, NOTHING)[0], torch.tensor([-1.0, -0.5, 1.0]))
    assert torch.equal(clipped(Says(), 2.5).predict(x, SIGMA, NOTHING).x0[0], torch.tensor([-2.5, -0.5, 2.0]))


def test_a_dynamic_threshold_is_the_quantile_of_each_picture_alone():
    values = torch.arange(1.0, 102.0) / 50.5  # 0.02 to 2: the share 0.95 of them lies within 96 / 50.5
    x = torch.stack([values, -values, values / 4]).reshape(3, 1, 1, 101)
    kept = dynamic(Says(), 0.95)(x, SIGMA, NOTHING)
    assert torch.allclose(kept[0].flatten(), (values * 50.5 / 96).clamp_max(1))
    assert torch.allclose(kept[1], -kept[0])
    assert torch.equal(kept[2], x[2])  # within the range of pictures already: nothing is done, least of all brightened


def test_for_latents_the_range_is_as_wide_as_they_go():
    x = 4 * Noise(range(3)).normal(4, 8, 8)
    assert torch.allclose(dynamic(Says(), 0.9, 3.0)(3 * x, SIGMA, NOTHING), 3 * dynamic(Says(), 0.9)(x, SIGMA, NOTHING))


def test_a_dynamic_threshold_keeps_the_order_that_clipping_flattens():
    x = 4 * Noise(range(3)).uniform(4, 8, 8)
    shares = [(k(Says())(x, SIGMA, NOTHING) == 1).float().mean() for k in (clipped, dynamic)]
    assert shares[0] > 0.7
    assert shares[1] < 0.02
