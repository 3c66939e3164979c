import pytest
import torch

from diorama.critics.nearest import closeness, copied, nearest
from diorama.errors import UserError


def normal(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def test_planted_copies_are_found_where_they_were_taken_from():
    train = normal(500, 0)
    found = nearest(train[[17, 250, 499]], train.split(100))
    assert found.index.tolist() == [17, 250, 499]
    assert found.distance.tolist() == [0, 0, 0]


def test_a_half_copied_set_is_half_copied():
    train, unseen = normal(500, 0), nearest(normal(400, 1), [normal(500, 0)])
    mixed = nearest(torch.cat([train[:200], normal(200, 2)]), [train])
    score = copied(mixed.distance, unseen.distance)
    assert score.value == pytest.approx(0.5 + 0.5 * 0.05, abs=0.02)
    assert not score.higher_is_better
    assert closeness(mixed.distance, unseen.distance).value == pytest.approx(0.5, abs=0.05)


def test_new_pictures_are_as_far_as_unseen_ones():
    train = normal(500, 0)
    new, unseen = nearest(normal(400, 1), [train]), nearest(normal(400, 2), [train])
    ratio = closeness(new.distance, unseen.distance)
    assert abs(ratio.value - 1) < 3 * ratio.stderr
    share = copied(new.distance, unseen.distance)
    assert abs(share.value - 0.05) < 4 * share.stderr


def test_few_pictures_are_refused():
    with pytest.raises(UserError, match="too few"):
        copied(torch.ones(19), torch.ones(100))
