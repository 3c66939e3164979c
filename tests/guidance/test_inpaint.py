"""Known pixels, and a Gaussian whose two numbers go together: what the hole must hold is known."""

import pytest
import torch

from diorama.guidance.inpaint import replaced
from diorama.processes.levels import karras
from diorama.processes.solvers import SOLVERS
from diorama.types import Condition, Noise, Prediction

RHO = 0.9
COVARIANCE = torch.tensor([[1.0, RHO], [RHO, 1.0]])
MASK = torch.tensor([[1.0, 0.0]])  # the first is to be generated


class Pair:
    """E[x0 | x] for x0 ~ N(0, COVARIANCE)."""

    sigmas = None

    def __call__(self, x, sigma, condition):
        noisy = COVARIANCE.to(x) + sigma[:, None, None] ** 2 * torch.eye(2, dtype=x.dtype)
        return (COVARIANCE.to(x) @ torch.linalg.solve(noisy, x[..., None]))[..., 0]

    def predict(self, x, sigma, condition):
        return Prediction(self(x, sigma, condition))


def filled(known, solver="heun", n=40):
    noise = Noise(range(len(known)))
    start = 80.0 * noise.normal(2).double()
    return SOLVERS[solver](replaced(Pair(), known, MASK), start, Condition(), karras(n).double(), noise)


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_known_comes_out_as_it_was(solver):
    known = torch.tensor([[5.0, 1.5], [5.0, -0.3]], dtype=torch.float64)
    assert torch.allclose(filled(known, solver, 5)[:, 1], known[:, 1])


def test_on_the_way_the_known_carries_its_own_noise():
    """At every level it is the truth and the start's noise, to that level."""
    known, seen = torch.tensor([[0.0, 2.0]]), []

    class Watching(Pair):
        def __call__(self, x, sigma, condition):
            seen.append(((x[0, 1] - 2.0) / sigma[0]).item())
            return super().__call__(x, sigma, condition)

    SOLVERS["euler"](
        replaced(Watching(), known, MASK), torch.tensor([[80.0, 2.0 + 80.0 * 0.7]]), Condition(), karras(6), Noise([0])
    )
    assert seen == pytest.approx([0.7] * 6, rel=1e-3)


def test_the_hole_leans_to_what_is_around_it_but_not_far_enough():
    """Each level sees the known only through that level's noise, so less of it than there is: why an inpainter is trained."""
    known = torch.tensor([[0.0, 1.5]], dtype=torch.float64).repeat(400, 1)
    mean = filled(known)[:, 0].mean().item()
    assert 0.3 * RHO * 1.5 < mean < 0.7 * RHO * 1.5


def test_an_all_open_mask_is_the_denoiser_itself():
    x, sigma = torch.randn(3, 2), torch.tensor([0.1, 1.0, 5.0])
    open_ = replaced(Pair(), torch.full((3, 2), 9.0), torch.ones(3, 2))
    assert torch.equal(open_(x, sigma, Condition()), Pair()(x, sigma, Condition()))
