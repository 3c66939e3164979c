import pytest
import torch

from diorama.critics.precision import density_coverage, diversity, precision_recall
from diorama.errors import UserError


def normal(n: int, seed: int, d: int = 4) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_set_covers_itself():
    x = normal(200, 0)
    assert [s.value for s in precision_recall(x, x)] == [1, 1]
    assert density_coverage(x, x)[1].value == 1


def test_a_dropped_mode_halves_recall_and_coverage_and_costs_no_precision():
    modes = torch.cat([normal(100, 0), normal(100, 1) + 100])
    precision, recall = precision_recall(modes[:100], modes)
    assert (precision.value, recall.value) == (1, 0.5)
    assert density_coverage(modes[:100], modes)[1].value == 0.5
    assert [s.value for s in precision_recall(modes, modes[:100])] == [0.5, 1]


def test_an_invented_mode_halves_precision_and_density_and_costs_no_recall():
    x, y = torch.cat([normal(200, 0), normal(200, 2) + 100]), normal(200, 1)
    alone, both = density_coverage(x[:200], y), density_coverage(x, y)
    assert both[0].value == pytest.approx(alone[0].value / 2)
    assert both[1].value == alone[1].value
    assert precision_recall(x, y)[0].value == pytest.approx(precision_recall(x[:200], y)[0].value / 2)


def test_on_a_line_of_whole_numbers_everything_can_be_counted():
    y = torch.arange(40.0)[:, None]
    x = y[10:30] + 0.25  # within 1 of two whole numbers each; of 2 neighbours the farther is 1 away, at the ends 2
    density, coverage = density_coverage(x, y, k=2)
    assert density.value == pytest.approx(2 / 2)
    assert coverage.value == 21 / 40  # 10 to 30
    precision, recall = precision_recall(x[::2], y, k=1)  # 10.25, 12.25 ... 28.25: neighbours 2 apart
    assert precision.value == 1
    assert recall.value == 22 / 40  # 9 to 30


def test_one_outlier_inflates_recall_and_not_coverage():
    """Naeem et al. 2020: the far sample's neighbourhood swallows the mode that was dropped."""
    kept, dropped = normal(100, 0), normal(100, 1) + 20
    samples = torch.cat([normal(99, 2), torch.full((1, 4), 12.0)])
    reference = torch.cat([kept, dropped])
    assert precision_recall(samples, reference)[1].value > 0.9
    assert density_coverage(samples, reference)[1].value < 0.52


def test_the_errors_are_those_of_many_repetitions_within_a_factor_of_two():
    found = [
        (*precision_recall(x, y), *density_coverage(x, y))
        for x, y in ((normal(120, 2 * i), 1.3 * normal(120, 2 * i + 1)) for i in range(24))
    ]
    for scores in zip(*found, strict=True):
        spread = torch.tensor([s.value for s in scores]).std()
        assert 0.5 < sum(s.stderr for s in scores) / 24 / spread < 2


def test_the_diversity_of_two_points_is_their_distance_times_the_share_of_unlike_pairs():
    x = torch.cat([torch.zeros(30, 2), torch.tensor([3.0, 4.0]).expand(10, 2)])
    assert diversity(x).value == pytest.approx(5 * (2 * 30 * 10) / (40 * 39))
    assert diversity(torch.ones(5, 3)).value == 0


def test_the_error_of_diversity_is_that_of_many_repetitions():
    scores = [diversity(normal(60, i)) for i in range(60)]
    spread = torch.tensor([s.value for s in scores]).std()
    assert 0.8 < sum(s.stderr for s in scores) / 60 / spread < 1.3


@pytest.mark.parametrize("measure", [precision_recall, density_coverage])
def test_what_cannot_be_compared_is_refused(measure):
    with pytest.raises(UserError, match="too few"):
        measure(normal(5, 0), normal(50, 1))
    with pytest.raises(UserError, match="features of 4 and 6 cannot be compared"):
        measure(normal(50, 0), normal(50, 1, 6))
    broken = normal(50, 0)
    broken[3, 1] = torch.nan
    with pytest.raises(UserError, match="1 of 50 pictures are NaN or infinite"):
        measure(broken, normal(50, 1))
