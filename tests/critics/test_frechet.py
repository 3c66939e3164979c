import pytest
import torch

from diorama.critics.frechet import Moments, frechet, gaussian_distance, kernel_distance
from diorama.errors import UserError


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(d: int, seed: int) -> torch.Tensor:
    a = normal(d, d, seed)
    return a @ a.T / d


def test_axis_aligned_gaussians_have_the_closed_form():
    mean1, mean2 = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([0.0, 2.0, 3.0]).double()
    var1, var2 = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 1.0]).double()
    distance = gaussian_distance(mean1, var1.diag(), mean2, var2.diag())
    assert distance == pytest.approx(10 + 1 + 0 + 4)  # |m1 - m2|^2 and the squared differences of the standard deviations


def test_any_gaussians_agree_with_the_eigenvalues_of_the_product():
    c1, c2, zero = covariance(7, 0), covariance(7, 1), torch.zeros(7).double()
    cross = torch.linalg.eigvals(c1 @ c2).real.sqrt().sum()
    assert gaussian_distance(zero, c1, zero, c2) == pytest.approx(float(c1.trace() + c2.trace() - 2 * cross))


def test_a_singular_covariance_is_no_trouble():
    c1, zero = torch.ones(3, 3).double(), torch.zeros(3).double()
    assert gaussian_distance(zero, c1, zero, c1) == pytest.approx(0, abs=1e-6)


def test_moments_in_pieces_are_the_moments_of_the_whole():
    x = normal(100, 5, 0) + 1000
    pieces = Moments.empty(5).observe(x[:3]).observe(x[3:80]).observe(x[80:80]).observe(x[80:])
    assert torch.allclose(pieces.mean, x.mean(0))
    assert torch.allclose(pieces.covariance, torch.cov(x.T), atol=1e-9)


def test_the_shrunk_covariance_is_nearer_to_the_truth_than_the_raw_one():
    moments = Moments.empty(40).observe(normal(60, 40, 0))
    truth = torch.eye(40).double()
    assert (moments.shrunk - truth).norm() < 0.3 * (moments.covariance - truth).norm()


def test_samples_of_shifted_gaussians_are_as_far_apart_as_the_gaussians():
    x, y = normal(4000, 4, 0), 2 * normal(4000, 4, 1) + 1
    score = frechet(x, y)
    assert score.value == pytest.approx(4 + 4, abs=4 * score.stderr)
    assert 0 < score.stderr < 0.5
    assert not score.higher_is_better


def test_the_kernel_distance_of_equal_distributions_is_zero_on_average_and_its_error_is_honest():
    scores = [kernel_distance(normal(100, 8, 2 * i), normal(120, 8, 2 * i + 1)) for i in range(60)]
    values = torch.tensor([s.value for s in scores])
    assert abs(values.mean()) < 3 * values.std() / 60**0.5
    assert (values < 0).any()
    assert 0.8 < sum(s.stderr for s in scores) / 60 / values.std() < 2  # the jackknife errs on the safe side


def test_the_kernel_distance_of_two_points_has_its_known_value():
    x, y = torch.zeros(40, 2), torch.ones(40, 2)  # k(x, x) = 1, k(y, y) = 8, k(x, y) = 1
    assert kernel_distance(x, y).value == pytest.approx(1 + 8 - 2)


@pytest.mark.parametrize(("measure", "n"), [(frechet, 31), (kernel_distance, 31)])
def test_too_few_pictures_are_refused(measure, n):
    with pytest.raises(UserError, match="31 .* too few .* use 32 or more"):
        measure(normal(n, 4, 0), normal(n, 4, 1))


def test_more_features_ask_for_more_pictures():
    with pytest.raises(UserError, match="use 50 or more"):
        frechet(normal(40, 100, 0), normal(40, 100, 1))


class Same(torch.nn.Module):
    """Pictures that are features already; torchmetrics wants a network, and looks at its `num_features`."""

    num_features = 12

    def forward(self, x):
        return x.flatten(1)


def side_by_side() -> tuple[torch.Tensor, torch.Tensor]:
    return normal(80, 12, 0), normal(80, 12, 1) * torch.linspace(0.5, 2, 12).double() + 0.3


def test_distances_agree_with_torchmetrics():
    reference = pytest.importorskip("torchmetrics.image.fid")
    x, y = side_by_side()
    theirs = reference.FrechetInceptionDistance(feature=Same(), normalize=True, input_img_size=(3, 2, 2)).double()
    theirs.update(x.reshape(80, 3, 2, 2), real=False)
    theirs.update(y.reshape(80, 3, 2, 2), real=True)
    a, b = (Moments.empty(12).observe(part) for part in (x, y))
    assert gaussian_distance(a.mean, a.covariance, b.mean, b.covariance) == pytest.approx(theirs.compute().item(), rel=1e-4)


def test_kernel_distances_agree_with_torchmetrics():
    """Theirs counts the pairs of row i with row i between the sets, which ours may not: they may share a prompt."""
    reference = pytest.importorskip("torchmetrics.image.kid")
    x, y = side_by_side()
    theirs = reference.poly_mmd(x, y, degree=3, gamma=None, coef=1.0).item()
    kernel = (x @ y.T / 12 + 1) ** 3
    apart = kernel[~torch.eye(80, dtype=torch.bool)].mean()
    assert kernel_distance(x, y).value == pytest.approx(theirs + 2 * float(kernel.mean() - apart))


@pytest.mark.parametrize("measure", [frechet, kernel_distance])
def test_what_cannot_be_compared_is_refused(measure):
    with pytest.raises(UserError, match="features of 4 and 5 cannot be compared"):
        measure(normal(40, 4, 0), normal(40, 5, 1))
    with pytest.raises(UserError, match="1 of 40 .*are NaN or infinite"):
        measure(torch.cat([normal(39, 4, 0), torch.full((1, 4), torch.nan)]), normal(40, 4, 1))
