import torch

from diorama.scenes.cameras import orbit
from diorama.scenes.fields import VoxelConfig, VoxelField

UNIT = VoxelConfig(side=9, middle=(0.0, 0.0, 0.0), half=1.0, samples=32)


def ball(config=UNIT, radius=0.5, sharp=60.0):
    """A solid ball of grey."""
    field = VoxelField(config)
    field.blob(sharp * radius, radius)
    return field


def test_a_field_is_linear_between_its_corners_and_nothing_outside():
    field = VoxelField(VoxelConfig(side=2, middle=(0.0, 0.0, 0.0), half=1.0))
    with torch.no_grad():
        field.grid[0, 1, :, :, 1] = 4.0  # red where x is 1
    density, colours = field(torch.tensor([[1.0, 0, 0], [0, 0.5, -0.5], [1.1, 0, 0]]))
    torch.testing.assert_close(colours[:2, 0].detach(), torch.tensor([4.0, 2.0]).sigmoid())
    assert density[0] > 0 and density[2] == 0
    assert field.render(orbit(1, size=4).rows(0)).shape == (16, 4)


def test_normals_of_a_slope_are_its_own_and_of_a_ball_its_radii():
    field, points = VoxelField(UNIT), torch.rand(50, 3) * 1.6 - 0.8
    way = torch.tensor([2.0, -1.0, 0.5])
    line = torch.linspace(-1, 1, 9)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    with torch.no_grad():
        field.grid[0, 0] = 2 * x - y + 0.5 * z
    torch.testing.assert_close(field.surfaces(points)[2].detach(), (-way / way.norm()).expand(50, 3))
    around = torch.nn.functional.normalize(torch.randn(50, 3), dim=1)
    normals = ball(VoxelConfig(side=33, middle=(0.0, 0.0, 0.0), half=1.0)).surfaces(0.5 * around)[2]
    assert bool(((normals * around).sum(1) > 0.99).all())


@torch.no_grad()
def test_a_look_is_the_render_where_the_light_is_white():
    field, camera = ball(), orbit(1, target=(0.0, 0.0, 0.0), distance=3.0, size=8).rows(0)
    seen = field.look(camera, lambda colours, normals: colours)
    torch.testing.assert_close(torch.cat([seen.colour, seen.left[:, None]], 1), field.render(camera))


@torch.no_grad()
def test_of_a_ball_only_what_faces_the_camera_is_lit_from_there_and_nothing_looks_away():
    field = ball(VoxelConfig(side=33, middle=(0.0, 0.0, 0.0), half=1.0, samples=64), sharp=2000.0)
    camera = orbit(1, elevation=0.0, target=(0.0, 0.0, 0.0), distance=3.0, size=16).rows(0)
    towards = torch.tensor([0.0, -1.0, 0.0])
    lit, behind = (
        field.look(camera, lambda c, n, s=s: (n @ (s * towards)).clamp_min(0)[..., None].expand_as(c)) for s in (1, -1)
    )
    assert float(lit.colour[7 * 16 + 7, 0]) > 0.95
    assert float(behind.colour.max()) < 0.05
    assert float(lit.turned.max()) < 0.05


def test_roughness_is_the_mean_square_of_differences():
    field = VoxelField(VoxelConfig(side=3))
    with torch.no_grad():
        field.grid += torch.arange(3.0)  # one step along x, none along the others
    assert abs(float(field.roughness().detach()) - 1.0) < 1e-6


def test_the_mesh_of_a_ball_lies_where_half_of_the_light_is_swallowed():
    field = ball(VoxelConfig(side=33, middle=(0.0, 0.2, 0.0), half=0.5))
    with torch.no_grad():
        field.grid[0, 1] = 9.0  # red
    mesh, colours = field.mesh()
    density, _ = field(mesh.vertices)
    swallowed = 1 - torch.exp(-density.detach() / 32)  # by one voxel, the 32nd of a metre
    assert float((swallowed - 0.5).abs().mean()) < 0.05
    assert abs(float((mesh.vertices - torch.tensor([0.0, 0.2, 0.0])).norm(dim=1).std())) < 0.01
    assert bool((colours[:, 0] > 0.99).all() and (colours[:, 1:] == 0.5).all())
