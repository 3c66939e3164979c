import math

import pytest
import torch

from diorama.errors import UserError
from diorama.scenes.cameras import look_at, orbit, project, rays, transforms, unproject, view_words
from diorama.types import Noise

FRONT = look_at(torch.tensor([0.0, -2.0, 0.0]), torch.zeros(3), size=64, field=90.0)


def test_where_known_points_lie_in_the_picture():
    """Field 90 degrees at 2 m: the picture is 4 m wide, 16 pixels a metre; x to the right, z upwards, so v falls with it."""
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, -4.0, 0.0]])
    places, depth = project(FRONT, points)
    torch.testing.assert_close(places[:4], torch.tensor([[32.0, 32.0], [48.0, 32.0], [32.0, 16.0], [32.0, 24.0]]))
    torch.testing.assert_close(depth, torch.tensor([2.0, 2.0, 2.0, 4.0, -2.0]))


def test_azimuth_grows_from_the_front_towards_plus_x():
    eyes = orbit(4, 0.0, 2.0, target=(0, 0, 0)).centre
    wanted = torch.tensor([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-2.0, 0.0, 0.0]])
    torch.testing.assert_close(eyes, wanted, atol=1e-5, rtol=0)


def test_rays_go_through_what_projects_to_their_pixels():
    camera = orbit(5, 30.0, 1.7, size=8)
    origin, direction = rays(camera)
    depth = Noise(range(5)).uniform(64) * 3 + 0.1
    places, back = project(camera, origin[:, None] + depth[..., None] * direction)
    torch.testing.assert_close(back, depth, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(places[2, 8 * 3 + 5], torch.tensor([5.5, 3.5]), atol=1e-4, rtol=0)


def test_unprojecting_undoes_projecting():
    camera = orbit(3, 10.0, size=16).resized(16, 24)
    depth = Noise(range(3)).uniform(16, 24) + 0.5
    places, back = project(camera, unproject(camera, depth).flatten(1, 2))
    torch.testing.assert_close(back, depth.flatten(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(places[0, 25], torch.tensor([1.5, 1.5]), atol=1e-4, rtol=0)


def test_k_scales_with_the_size():
    places, _ = project(FRONT, torch.tensor([[0.3, 0.5, -0.2]]))
    scaled, _ = project(FRONT.resized(32, 128), torch.tensor([[0.3, 0.5, -0.2]]))
    torch.testing.assert_close(scaled, places * torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(
        look_at(torch.tensor([0.0, -2.0, 0.0]), torch.zeros(3), size=128, field=90.0).K, FRONT.resized(128, 128).K
    )


def test_cameras_are_rotations_that_keep_the_target_in_the_middle_and_the_horizon_level():
    camera = orbit(7, 35.0, 2.0, target=(0.1, 0.2, 0.3))
    turn = camera.world_to_camera[:, :3, :3]
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand(7, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(7))
    assert float(turn[:, 0, 2].abs().max()) < 1e-6
    places, depth = project(camera, torch.tensor([[0.1, 0.2, 0.3]]))
    torch.testing.assert_close(places, torch.full((7, 1, 2), 32.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(depth, torch.full((7, 1), 2.0))


def test_straight_down_is_the_floor_plan():
    places, _ = project(orbit(1, 90.0, 2.0, target=(0, 0, 0)), torch.tensor([[0.2, 0.0, 0.0], [0.0, 0.2, 0.0]]))
    assert places[0, 0, 0] > 33 and abs(places[0, 0, 1] - 32) < 1e-3
    assert places[0, 1, 1] < 31 and abs(places[0, 1, 0] - 32) < 1e-3


@pytest.mark.parametrize(
    ("word", "places"),
    [("front", [(0,), (-45,), (350,)]), ("side", [(90,), (-100,)]), ("back", [(180,), (500,)]), ("overhead", [(180, 70)])],
)
def test_view_words(word, places):
    assert {view_words(*place) for place in places} == {f"{word} view"}


def test_transforms_look_along_minus_z_with_y_up():
    said = transforms(FRONT.rows(None), ["a.png"])
    (frame,) = said["frames"]
    wanted = [[1, 0, 0, 0], [0, 0, -1, -2], [0, 1, 0, 0], [0, 0, 0, 1]]  # right x, up z, backwards -y
    torch.testing.assert_close(torch.tensor(frame["transform_matrix"]), torch.tensor(wanted).float(), atol=1e-6, rtol=0)
    assert frame["fl_x"] == pytest.approx(32 / math.tan(math.pi / 4))
    assert (frame["file_path"], frame["cx"], said["w"]) == ("a.png", 32, 64)


@pytest.mark.parametrize(
    ("impossible", "words"),
    [
        (lambda: orbit(0), "0 views"),
        (lambda: orbit(2, elevation=91), "91 degrees"),
        (lambda: orbit(2, distance=0), "distance of 0"),
        (lambda: orbit(2, field=180), "field of view"),
        (lambda: look_at(torch.ones(3), torch.ones(3)), "stands on"),
    ],
)
def test_impossible_cameras_are_told(impossible, words):
    with pytest.raises(UserError, match=words):
        impossible()
