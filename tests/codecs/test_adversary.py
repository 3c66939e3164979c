import pytest
import torch

from diorama.codecs.adversary import PatchCritic, hinge, matching
from diorama.types import Noise


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_patch_has_a_judgement_of_its_own(axes):
    torch.manual_seed(0)
    critic, x = PatchCritic(axes, 2, (8, 16)), Noise([1, 2]).normal(2, *[16] * axes)
    assert critic(x).shape == (2, 1, *[4] * axes)
    assert [f.shape[1] for f in critic.features(x)] == [8, 16, 1]


def test_the_hinge_costs_nothing_where_the_critic_is_sure():
    sure, torn = torch.full((3, 1, 2), 1.5), torch.zeros(3, 1, 2)
    assert hinge(sure, -sure).tolist() == [0.0] * 3
    assert hinge(torn, torn).tolist() == [1.0] * 3
    assert hinge(-sure, sure).tolist() == [2.5] * 3


def test_what_is_matched_are_the_layers_and_not_the_judgement():
    target = [torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 1)]
    seen = [torch.ones(2, 4), torch.full((2, 4), 3.0), torch.full((2, 1), 100.0)]
    assert matching(seen, target).tolist() == [2.0, 2.0]
    assert matching(target, target).tolist() == [0.0, 0.0]
