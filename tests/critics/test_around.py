import pytest
import torch

from diorama.critics.around import arcs, consistency


def views(*fronts, n=16):
    """Where a thing with faces at these azimuths shows one."""
    at = torch.arange(n) * (360 / n)
    return torch.stack([((at - front + 180) % 360 - 180).abs() < 65 for front in fronts]).any(0)[None]


@pytest.mark.parametrize("front", [0.0, 90.0, 247.5])
def test_one_face_is_right_wherever_it_is(front):
    assert consistency(views(front)) == 1 and arcs(views(front)) == 1


@pytest.mark.parametrize(("fronts", "value", "seen"), [((0, 180), 0.7727, 2), ((0, 90, 180), 0.6364, 1)])
def test_more_faces_are_less_right(fronts, value, seen):
    assert abs(float(consistency(views(*fronts))) - value) < 1e-3
    assert arcs(views(*fronts)) == seen  # faces at right angles run into each other


@pytest.mark.parametrize("all_or_none", [True, False])
def test_a_face_everywhere_or_nowhere_says_nothing(all_or_none):
    faces = torch.full((1, 16), all_or_none)
    assert consistency(faces) == 0.5 and arcs(faces) == 0


def test_chance_is_seven_tenths():
    """The best turn flatters: what is read as 0.7 may be nothing."""
    faces = torch.rand(4000, 16, generator=torch.Generator().manual_seed(0)) < 5 / 16
    assert 0.68 < float(consistency(faces).mean()) < 0.72
