import pytest
import torch

from diorama.critics.fid import fid
from diorama.critics.frechet import Moments, gaussian_distance
from diorama.errors import UserError


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_distance_of_the_plain_gaussians():
    x, y = normal(40, 7, 0), normal(50, 7, 1) @ normal(7, 7, 2) + 0.3
    a, b = (Moments.empty(7).observe(part) for part in (x, y))
    assert fid(x, y).value == pytest.approx(gaussian_distance(a.mean, a.covariance, b.mean, b.covariance))
    assert fid(y, x).value == pytest.approx(fid(x, y).value)


def test_a_set_beside_itself_and_beside_itself_moved():
    x = normal(40, 7, 0)
    assert fid(x, x).value == pytest.approx(0, abs=1e-10)
    assert fid(x, x + 2).value == pytest.approx(4 * 7)


def test_a_feature_that_never_moves_is_no_trouble():
    x, y = normal(40, 7, 0), normal(40, 7, 1)
    still = torch.zeros(40, 1).double()
    plain, more = fid(x, y), fid(torch.cat([x, still], 1), torch.cat([y, still], 1))
    assert (more.value, more.stderr) == pytest.approx((plain.value, plain.stderr))


def test_its_error_is_the_spread_of_repetitions():
    widths = torch.linspace(0.5, 2, 8).double()
    scores = [fid(normal(200, 8, 2 * i) * widths, normal(200, 8, 2 * i + 1) * widths.flip(0) + 0.3) for i in range(100)]
    spread = torch.tensor([s.value for s in scores]).std()
    assert 0.8 < sum(s.stderr for s in scores) / 100 / spread < 1.25


def test_no_more_pictures_than_features_are_refused():
    with pytest.raises(UserError, match="8 pictures are too few .* use 9 or more"):
        fid(normal(8, 8, 0), normal(20, 8, 1))
    with pytest.raises(UserError, match="8 reference pictures are too few"):
        fid(normal(20, 8, 0), normal(8, 8, 1))
