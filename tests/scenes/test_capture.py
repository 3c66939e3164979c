import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diorama.errors import UserError
from diorama.pictures import to_pil
from diorama.scenes.cameras import orbit, project, transforms
from diorama.scenes.capture import Capture, first_points, read_capture, spacing
from diorama.types import Noise
from diorama.worlds.scene import Rules, scene
from diorama.worlds.views import shoot

BALLS = Rules(shapes=("circle",), grounds=("clear",), textures=("plain",), most=1, subjects=0.0)
CAMERA = orbit(9, 25.0, size=32)


@pytest.fixture(scope="module")
def capture():
    return Capture(shoot([scene(1, 0, BALLS)], CAMERA).image[0], CAMERA)


def save(folder, capture):
    names = [f"{i}.png" for i in range(len(capture))]
    folder.mkdir(exist_ok=True)
    for name, picture in zip(names, to_pil(capture.images, transparent=True), strict=True):
        picture.save(folder / name)
    return names


def same(a, b, pixels):
    torch.testing.assert_close(a.camera.K, b.camera.K)
    torch.testing.assert_close(a.camera.world_to_camera, b.camera.world_to_camera, atol=1e-5, rtol=0)
    assert float((a.images - b.images).abs().max()) < pixels


def test_transforms_come_back_as_they_were_told(tmp_path, capture):
    (tmp_path / "transforms.json").write_text(json.dumps(transforms(CAMERA, save(tmp_path, capture))))
    same(read_capture(tmp_path), capture, 0.02)


def test_a_reduced_capture_sees_the_same_places(tmp_path, capture):
    (tmp_path / "transforms.json").write_text(json.dumps(transforms(CAMERA, save(tmp_path, capture))))
    small = read_capture(tmp_path, longest=16)
    assert small.images.shape[-2:] == (16, 16)
    points = torch.randn(4, 3) * 0.2
    torch.testing.assert_close(project(small.camera, points)[0], project(CAMERA, points)[0] / 2, atol=1e-4, rtol=1e-4)


def test_colmap_comes_back_as_it_was_told(tmp_path, capture):
    """Its quaternions are of the turn from the world to the camera."""
    names = save(tmp_path / "images", capture)
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    K = CAMERA.K[0]
    lens = f"1 PINHOLE 32 32 {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}"
    rows = []
    for i, (name, pose) in enumerate(zip(names, CAMERA.world_to_camera.double(), strict=True)):
        turn = pose[:3, :3]
        values, vectors = torch.linalg.eigh(quaternion_form(turn))
        w, x, y, z = vectors[:, values.argmax()].tolist()
        rows += [" ".join(map(str, [i + 1, w, x, y, z, *pose[:3, 3].tolist(), 1, name])), ""]
    for file, lines in {"cameras": [lens], "images": rows, "points3D": ["1 0.1 0.2 0.3 255 0 51 0.5 1 2"]}.items():
        (tmp_path / "sparse" / "0" / f"{file}.txt").write_text("\n".join(["# a comment", *lines]) + "\n")
    found = read_capture(tmp_path)
    same(found, capture, 0.02)
    torch.testing.assert_close(found.points, torch.tensor([[0.1, 0.2, 0.3]]))
    torch.testing.assert_close(found.paint, torch.tensor([[1.0, 0.0, 0.2]]))


def quaternion_form(turn):
    """The symmetric form that a rotation's quaternion (w, x, y, z) maximises (Horn 1987)."""
    (a, b, c), (d, e, f), (g, h, i) = turn.tolist()
    return torch.tensor(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k1": 0.1}, "bent lens"),
        ({"frames": []}, "no frames"),
        ({"frames": [{"file_path": "other.png", "transform_matrix": torch.eye(4).tolist()}]}, "is not there"),
    ],
)
def test_a_capture_that_cannot_be_is_one_line(tmp_path, capture, change, words):
    said = transforms(CAMERA, save(tmp_path, capture))
    (tmp_path / "transforms.json").write_text(json.dumps({**said, **change}))
    with pytest.raises(UserError, match=words):
        read_capture(tmp_path)
    with pytest.raises(UserError, match="nowhere from where"):
        read_capture(tmp_path / "none")


def test_pictures_of_two_sizes_are_refused(tmp_path, capture):
    (tmp_path / "transforms.json").write_text(json.dumps(transforms(CAMERA, save(tmp_path, capture))))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "3.png")
    with pytest.raises(UserError, match="another size"):
        read_capture(tmp_path)


def test_first_points_lie_on_what_is_seen(capture):
    """On a ball alone before nothing: nearly all within a few of its pixels' widths of the solid."""
    ball = scene(1, 0, BALLS).things[0]
    points, paint = first_points(capture, 60, Noise([0]))
    middle = torch.tensor([ball.x - 0.5, 0.5 - ball.y, ball.radius])
    assert points.shape == paint.shape == (60, 3)
    assert float(((points - middle).norm(dim=1) < 1.6 * ball.radius).float().mean()) > 0.9
    again, _ = first_points(capture, 60, Noise([0]))
    assert torch.equal(points, again)


def test_known_points_come_first(capture):
    known = replace(capture, points=torch.randn(50, 3), paint=torch.rand(50, 3))
    points, _ = first_points(known, 20, Noise([0]))
    assert len(points) == 20
    assert all(bool((known.points == point).all(1).any()) for point in points)


def test_the_focus_is_what_all_look_at(capture):
    torch.testing.assert_close(capture.focus, torch.tensor([0.0, 0.0, 0.15]), atol=1e-4, rtol=0)


def test_spacing_on_a_line():
    torch.testing.assert_close(spacing(torch.arange(5.0)[:, None].expand(5, 3) / 3**0.5)[2], torch.tensor(2.0**0.5))
