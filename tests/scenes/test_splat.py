"""The kernels against their slow twin: every Gaussian in every pixel, in float64."""

import pytest
import torch
from test_gaussians import CAMERA, some

from diorama.scenes.gaussians import Gaussians, Splats, dense, splats

pytest.importorskip("numba")

from diorama.scenes.splat import rasterise, render

WEIGHTS = torch.randn(40, 56, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def drawn(gaussians, function):
    """A picture, and the gradient of a weighted sum of it."""
    leaves = Gaussians(*(part.clone().requires_grad_() for part in gaussians))
    picture = function(splats(leaves, CAMERA), 40, 56)
    (picture * WEIGHTS.to(picture)).sum().backward()
    return picture.detach().double(), [part.grad.double() for part in leaves]


@pytest.mark.parametrize(("n", "size"), [(300, 0.0), (120, 1.5)], ids=["small and many", "large, past the edges, and opaque"])
def test_pictures_and_gradients_are_the_twins(n, size):
    gaussians = some(n)._replace(scales=some(n).scales + size, opacities=some(n).opacities + size)
    wanted, slopes = drawn(gaussians, dense)
    found, ours = drawn(Gaussians(*(part.float() for part in gaussians)), rasterise)
    assert float((found - wanted).abs().max()) < 1e-5
    for slope, own in zip(slopes, ours, strict=True):
        assert float((own - slope).norm() / slope.norm()) < 1e-4


def test_the_twin_has_the_gradient_of_its_differences():
    """So does what is held to it."""
    gaussians = some(6)
    seen = [part.requires_grad_() for part in splats(gaussians, CAMERA.resized(5, 6))]
    assert torch.autograd.gradcheck(lambda *parts: dense(Splats(*parts), 5, 6), seen, atol=1e-5, rtol=1e-3)


def test_one_splat_by_hand():
    """Half opaque at its middle, in a corner pixel: half of its colour and of its depth, half of the light left."""
    splat = Splats(
        torch.tensor([[0.5, 0.5]]), torch.tensor([[2.0, 0.0, 2.0]]), torch.tensor([0.5]), torch.tensor([[1.0, 0.4, 0.2, 3.0]])
    )
    picture = rasterise(splat, 20, 20)
    torch.testing.assert_close(picture[0, 0], torch.tensor([0.5, 0.2, 0.1, 1.5, 0.5]))
    torch.testing.assert_close(picture[0, 1, 4], 1 - 0.5 * torch.tensor(-1.0).exp())
    torch.testing.assert_close(picture[19, 19], torch.tensor([0.0, 0, 0, 0, 1]))


def test_the_nearer_covers_the_farther_whatever_the_order():
    near, far = [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 2.0]
    places, conics = torch.full((2, 2), 4.5), torch.tensor([[0.5, 0.0, 0.5]]).expand(2, 3)
    found = [
        rasterise(Splats(places, conics, torch.full((2,), 0.9), torch.tensor(features)), 9, 9)
        for features in ([near, far], [far, near])
    ]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0][4, 4, :2], torch.tensor([0.9, 0.09]))


def test_nothing_to_see_is_white_and_has_no_gradient():
    gaussians = some(3)
    none = Gaussians(*(part[:0].float() for part in gaussians))
    assert float(render(none, CAMERA).image[:3].min()) == 1
    away = Gaussians(*(part.float().requires_grad_() for part in gaussians._replace(means=gaussians.means + 50)))
    rasterise(splats(away, CAMERA), 40, 56).sum().backward()
    assert all(float(part.grad.abs().max()) == 0 for part in away)


def test_the_same_bits_on_any_number_of_threads():
    import numba

    gaussians = Gaussians(*(part.float() for part in some(300)))
    pictures = []
    try:
        for threads in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(threads)
            pictures += [drawn(gaussians, rasterise)]
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    first, last = pictures[0], pictures[-1]
    assert torch.equal(first[0], last[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], last[1], strict=True))
