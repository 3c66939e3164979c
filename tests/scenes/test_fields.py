import math

import torch

from diorama.scenes.cameras import orbit
from diorama.scenes.fields import VoxelConfig, VoxelField, composite


def test_fog_swallows_light_as_beer_and_lambert_say():
    """However finely the ray is cut."""
    for n in (1, 7, 50):
        colour, left = composite(torch.full((n,), 2.0), torch.full((n, 3), 0.4), torch.full((n,), 0.6 / n))
        torch.testing.assert_close(left, torch.tensor(math.exp(-1.2)))
        torch.testing.assert_close(colour, torch.full((3,), 0.4 * (1 - math.exp(-1.2))))


def test_what_is_in_front_hides_what_is_behind():
    colour, left = composite(torch.tensor([1e3, 1e3]), torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.ones(2))
    torch.testing.assert_close(colour, torch.tensor([1.0, 0.0, 0.0]))
    assert left == 0


def test_a_field_is_linear_between_its_corners_and_nothing_outside():
    field = VoxelField(VoxelConfig(side=2, middle=(0.0, 0.0, 0.0), half=1.0))
    with torch.no_grad():
        field.grid[0, 1, :, :, 1] = 4.0  # red where x is 1
    density, colours = field(torch.tensor([[1.0, 0, 0], [0, 0.5, -0.5], [1.1, 0, 0]]))
    torch.testing.assert_close(colours[:2, 0].detach(), torch.tensor([4.0, 2.0]).sigmoid())
    assert density[0] > 0 and density[2] == 0
    assert field.render(orbit(1, size=4).rows(0)).shape == (16, 4)
