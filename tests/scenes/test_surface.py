import math

import pytest
import torch

from diorama.scenes.surface import edges, marching

LINE = torch.linspace(-1, 1, 40)
Z, Y, X = torch.meshgrid(LINE, LINE, LINE, indexing="ij")
VOXEL = float(LINE[1] - LINE[0])
BALL = 0.7 - (X**2 + Y**2 + Z**2).sqrt()
TORUS = 0.25 - ((X**2 + Y**2).sqrt() - 0.6).square().add(Z**2).sqrt()


def euler(mesh):
    return len(mesh.vertices) - len(edges(mesh)) + len(mesh.faces)


@pytest.mark.parametrize(("volume", "holes", "area"), [(BALL, 2, 4 * math.pi * 0.49), (TORUS, 0, 4 * math.pi**2 * 0.6 * 0.25)])
def test_a_ball_and_a_torus_have_their_area_and_their_holes(volume, holes, area):
    mesh = marching(volume, 0.0)
    assert abs(float(mesh.area) * VOXEL**2 / area - 1) < 0.01
    assert euler(mesh) == holes
    assert bool((edges(mesh) == 2).all())


def test_it_looks_outwards_and_lies_where_the_level_is():
    mesh = marching(BALL, 0.1)
    places = mesh.vertices * VOXEL - 1
    assert float((places.norm(dim=1) - 0.6).abs().max()) < 0.002
    assert float((mesh.normals * places / 0.6).sum(1).min()) > 0.97


def test_what_reaches_the_edge_is_closed_there():
    """A solid box."""
    mesh = marching(torch.ones(3, 4, 5), 0.5)
    assert euler(mesh) == 2 and bool((edges(mesh) == 2).all())
    assert mesh.vertices.amin(0).tolist() == [-0.5] * 3 and mesh.vertices.amax(0).tolist() == [4.5, 3.5, 2.5]  # x, y, z


def test_noise_has_no_cracks():
    mesh = marching(torch.rand(7, 6, 5, generator=torch.Generator().manual_seed(0)), 0.6)
    assert bool((edges(mesh) % 2 == 0).all())
