"""Colours against what harmonics are, and the projection against gsplat's own slow twin of its kernels."""

import math

import pytest
import torch

from diorama.scenes.cameras import orbit, project
from diorama.scenes.cloud import Cloud, CloudConfig
from diorama.scenes.gaussians import (
    Gaussians,
    axes,
    colours,
    harmonics,
    rotations,
    splats,
)
from diorama.types import Noise


def some(n: int, degree: int = 3, seed: int = 0, dtype=torch.float64) -> Gaussians:
    """Gaussians around the origin, of all shapes and opacities."""
    draw = Noise(range(seed, seed + n)).normal(11 + 3 * (degree + 1) ** 2).to(dtype)
    means, scales, turns, opacities, sh = draw.split([3, 3, 4, 1, draw.shape[1] - 11], 1)
    return Gaussians(0.3 * means, 0.5 * scales - 3, turns, 2 * opacities[:, 0], 0.3 * sh.unflatten(1, (-1, 3)))


CAMERA = orbit(1, 20.0, size=48).resized(40, 56).rows(0)


def test_harmonics_are_orthonormal_on_the_sphere():
    """By Gauss-Legendre over heights and even angles, which is exact for products of degree 3."""
    height, weight = (torch.tensor([-0.9324695142, -0.6612093865, -0.2386191861, 0.2386191861, 0.6612093865, 0.9324695142]),
                      torch.tensor([0.1713244924, 0.3607615730, 0.4679139346, 0.4679139346, 0.3607615730, 0.1713244924]))  # fmt: skip
    angle = torch.arange(12) * (2 * math.pi / 12)
    z = height.double()[:, None].expand(6, 12)
    ring = (1 - z * z).sqrt()
    basis = harmonics(torch.stack([ring * angle.cos(), ring * angle.sin(), z], -1).flatten(0, 1), 3)
    products = torch.einsum("p,pi,pj->ij", weight.double().repeat_interleave(12) * (2 * math.pi / 12), basis, basis)
    torch.testing.assert_close(products, torch.eye(16, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_first_degrees_in_closed_form():
    """The signs of splat files: of degree 1, -y, z, -x."""
    x, y, z = direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64), dim=0)
    one, two = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    wanted = [math.sqrt(1 / (4 * math.pi)), -one * y, one * z, -one * x]
    wanted += [
        two * x * y,
        -two * y * z,
        math.sqrt(5 / (16 * math.pi)) * (3 * z * z - 1),
        -two * x * z,
        two / 2 * (x * x - y * y),
    ]
    torch.testing.assert_close(harmonics(direction[None], 2)[0], torch.stack([torch.as_tensor(value) for value in wanted]))


def test_a_grey_gaussian_is_grey_from_everywhere_and_none_is_darker_than_black():
    grey = some(1)._replace(harmonics=torch.zeros(1, 16, 3, dtype=torch.float64))
    torch.testing.assert_close(colours(grey, torch.tensor([1.0, 2.0, 3.0])), torch.full((1, 3), 0.5, dtype=torch.float64))
    assert float(colours(some(50)._replace(harmonics=some(50).harmonics - 9), torch.zeros(3)).min()) == 0


def test_a_quaternion_turns_as_it_says():
    turn = rotations(torch.tensor([[math.cos(math.pi / 4), 0.0, 0.0, math.sin(math.pi / 4)]]) * 3)[0]  # 90 degrees around z
    torch.testing.assert_close(turn @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


def test_a_ball_in_front_of_the_camera():
    """A ball of 0.1 m at 2 m: its spread is focal / 2 * 0.1 pixels, and the blur is added."""
    ball = Gaussians(*(part.double() for part in (torch.tensor([[0.0, 0.0, 0.15]]), torch.full((1, 3), math.log(0.1)),
                     torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1), torch.zeros(1, 1, 3))))  # fmt: skip
    camera = orbit(1, 0.0, 2.0, size=64).rows(0)
    seen = splats(ball, camera)
    spread = (float(camera.K[0, 0]) / 2 * 0.1) ** 2 + 0.3
    torch.testing.assert_close(seen.places, project(camera, ball.means.float())[0].double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        seen.conics[0], torch.tensor([1 / spread, 0, 1 / spread], dtype=torch.float64), atol=1e-6, rtol=1e-4
    )
    torch.testing.assert_close(seen.features[0], torch.tensor([0.5, 0.5, 0.5, 2.0], dtype=torch.float64), atol=1e-6, rtol=0)


def test_what_is_behind_the_camera_has_no_opacity_and_a_finite_gradient():
    gaussians = Gaussians(*(part.requires_grad_() for part in some(20)._replace(means=some(20).means * 20)))
    seen = splats(gaussians, CAMERA)
    behind = project(CAMERA, gaussians.means.float())[1] < 0
    assert behind.any() and not behind.all()
    assert float(seen.opacities[behind].detach().abs().max()) == 0
    sum(part.sum() for part in seen).backward()
    assert all(part.grad.isfinite().all() for part in gaussians)


def test_projection_and_colours_are_gsplats():
    theirs = pytest.importorskip("gsplat.cuda._torch_impl")
    gaussians = some(200)
    half = axes(gaussians)
    covariances, _ = theirs._quat_scale_to_covar_preci(gaussians.turns, gaussians.scales.exp(), compute_preci=False)
    torch.testing.assert_close(half @ half.mT, covariances)
    pose, K = CAMERA.world_to_camera.double(), CAMERA.K.double()
    _, places, depths, conics, _ = theirs._fully_fused_projection(gaussians.means, covariances, pose[None], K[None], 56, 40)
    seen = splats(gaussians, CAMERA)
    torch.testing.assert_close(seen.places, places[0])
    torch.testing.assert_close(seen.conics, conics[0])
    torch.testing.assert_close(seen.features[:, 3], depths[0])
    directions = gaussians.means - CAMERA.centre.double()
    for degree in range(4):
        paint = (theirs._spherical_harmonics(degree, directions, gaussians.harmonics) + 0.5).clamp_min(0)
        torch.testing.assert_close(colours(gaussians, CAMERA.centre.double(), degree), paint, atol=1e-6, rtol=1e-5)


def test_a_cloud_gives_back_what_it_became(tmp_path):
    cloud, wanted = Cloud(CloudConfig(places=9, degree=1)), some(5, 1, dtype=torch.float32)
    cloud.become(wanted)
    cloud.save_pretrained(tmp_path / "cloud")
    for kept in (cloud, Cloud.from_pretrained(tmp_path / "cloud")):
        assert len(kept) == 5
        for part, expected in zip(kept.gaussians(), wanted, strict=True):
            assert torch.equal(part, expected)
