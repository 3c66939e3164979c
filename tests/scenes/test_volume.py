import math

import pytest
import torch

from diorama.scenes.volume import composite, crossing, sampled


@pytest.mark.parametrize("n", [1, 7, 50])
def test_fog_swallows_light_as_beer_and_lambert_say(n):
    """However finely the ray is cut."""
    light = composite(torch.full((n,), 2.0), torch.full((n, 3), 0.4), torch.full((n,), 0.6 / n))
    torch.testing.assert_close(light.left, torch.tensor(math.exp(-1.2)))
    torch.testing.assert_close(light.features, torch.full((3,), 0.4 * (1 - math.exp(-1.2))))


def test_what_is_in_front_hides_what_is_behind():
    light = composite(torch.tensor([1e3, 1e3]), torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.ones(2))
    torch.testing.assert_close(light.features, torch.tensor([1.0, 0.0, 0.0]))
    assert light.left == 0


def test_weights_and_what_is_left_make_one():
    light = composite(torch.rand(5, 9) * 4, torch.rand(5, 9, 2), torch.rand(5, 9))
    torch.testing.assert_close(light.weights.sum(1) + light.left, torch.ones(5))


def test_the_depth_of_a_wall_is_where_it_stands():
    """Depths are summed as colours are."""
    near, far = torch.zeros(1), torch.full((1,), 2.0)
    depths, steps = sampled(near, far, 2000)
    light = composite(torch.where(depths > 0.7, 1e4, 0.0), depths[..., None], steps)
    assert abs(float(light.features) - 0.7) < 2e-3


def test_rays_enter_and_leave_a_cube_at_its_faces():
    origin = torch.tensor([[-5.0, 0.2, 0.0], [0.5, 0.0, 1.0], [-5.0, 9.0, 0.0], [0.0, 0.0, 1.0]])
    direction = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [1.0, 0, 0], [0.6, 0.8, 0]])
    near, far = crossing(origin, direction, (0.0, 0.0, 1.0), 1.0)
    torch.testing.assert_close(near, torch.tensor([4.0, 0.0, 4.0, 0.0]))  # the second and the last begin inside
    torch.testing.assert_close(far[[0, 1, 3]], torch.tensor([6.0, 1.0, 1.25]))
    assert far[2] == near[2]  # the third misses it


def test_samples_are_middles_or_anywhere_in_their_own_piece():
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])
    depths, steps = sampled(near, far, 4)
    torch.testing.assert_close(depths[0], torch.tensor([1.25, 1.75, 2.25, 2.75]))
    torch.testing.assert_close(steps, torch.tensor([[0.5] * 4, [0.0] * 4]))
    jittered, _ = sampled(near, far, 4, torch.rand(2, 4))
    assert bool(((jittered[0] - depths[0]).abs() <= 0.25).all())
