import math

import pytest
import torch

from diorama.processes.between import slerp

A, B = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])


def test_it_walks_the_circle_evenly():
    for share in (0.0, 0.25, 0.5, 1.0):
        angle = share * math.pi / 2
        assert torch.allclose(slerp(A, B, share)[0], torch.tensor([math.cos(angle), math.sin(angle)]), atol=1e-6)
    assert torch.allclose(slerp(A, B, torch.tensor([0.0, 1.0])), torch.stack([A[0], B[1]]), atol=1e-6)


@pytest.mark.parametrize("shape", [(64,), (3, 4, 4)])
def test_what_lies_between_noise_is_as_long_as_noise(shape):
    a, b = (torch.randn(8, *shape, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    lengths = slerp(a, b, 0.5).flatten(1).norm(dim=1)
    low, high = (f(a.flatten(1).norm(dim=1), b.flatten(1).norm(dim=1)) for f in (torch.minimum, torch.maximum))
    assert ((lengths > 0.9 * low) & (lengths < 1.1 * high)).all()
    assert (((a + b) / 2).flatten(1).norm(dim=1) < 0.85 * lengths).all()  # the straight line cuts inside


def test_where_there_is_no_angle_it_is_the_line():
    x = slerp(A, 3 * A, 0.5)
    assert torch.allclose(x, 2 * A)
