import math
from dataclasses import replace

import pytest
import torch

from diorama.errors import UserError
from diorama.scenes.cameras import look_at, orbit, pixel_centres, project, rays, unproject
from diorama.worlds.scene import Ground, Rules, Scene, Thing, scene
from diorama.worlds.shapes import KINDS, SUBJECT
from diorama.worlds.space import GROUND, NOTHING, SIDE, solids, stand
from diorama.worlds.views import shoot

MANY = [scene(3, i) for i in range(41, 47)]


def alone(shape, light=(0.0, 50.0), ground="plain", **other):
    """A scene of one thing in its middle, facing the front."""
    subject = 5 if shape == SUBJECT else None
    thing = Thing(
        shape=shape, colour="red", size="large", texture="plain", x=0.5, y=0.5, radius=0.2, angle=0.0, depth=0.5, subject=subject
    )
    return Scene(
        seed=0, index=0, things=(replace(thing, **other),), ground=Ground(kind=ground, tone="white"), style="flat", light=light
    )


def outside(made, points):
    """Signed distances (n,) in metres, or bounds of them, from points (n, 3) to the nearest solid of a scene."""
    things = solids([made])
    rows = torch.arange(len(made.things))
    d = [things.distance(row.expand(len(points)), things.places(row.expand(len(points)), points.T)) for row in rows]
    return (torch.stack(d) * things.poses.radius[:, None]).amin(0)


@pytest.fixture(scope="module")
def shots():
    return shoot(MANY, orbit(3, size=48))


def test_a_ball_against_its_closed_form():
    camera = orbit(2, 30.0, 1.0, target=(0.0, 0.0, 0.184), size=64)
    seen = shoot([alone("circle")], camera)
    radius, middle = 0.92 * 0.2, torch.tensor([0.0, 0.0, 0.184])
    origin, direction = rays(camera)
    for v in range(2):
        d = torch.nn.functional.normalize(direction[v], dim=1)
        along = (d * (middle - origin[v])).sum(1)
        inside = radius**2 - (middle - origin[v]).square().sum() + along**2
        hit = (seen.thing[0, v] == 0).flatten()
        assert bool((hit == (inside > 0))[inside.abs() > 1e-3].all())
        t = along - inside.clamp(min=0).sqrt()
        clear = hit & (inside > 3e-3)  # a ray that only just touches ends anywhere within the last step
        depth = (t / direction[v].norm(dim=1))[clear]
        torch.testing.assert_close(seen.depth[0, v].flatten()[clear], depth, atol=2e-4, rtol=0)
        normal = (origin[v] + t[:, None] * d - middle) / radius @ camera.world_to_camera[v, :3, :3].T
        torch.testing.assert_close(seen.normals[0, v].flatten(1).T[clear], normal[clear], atol=2e-3, rtol=0)
    assert int(clear.sum()) > 400


def test_the_ground_against_its_closed_form():
    camera = orbit(1, 40.0, 1.5)
    seen = shoot([MANY[0]], camera)
    ground = seen.thing[0, 0] == GROUND
    origin, direction = rays(camera)
    depth = (-origin[0, 2] / direction[0, :, 2]).reshape(64, 64)
    torch.testing.assert_close(seen.depth[0, 0][ground], depth[ground])
    up = camera.world_to_camera[0, :3, 2]
    torch.testing.assert_close(seen.normals[0, 0].permute(1, 2, 0)[ground], up.expand(int(ground.sum()), 3), atol=1e-6, rtol=0)


def test_what_two_views_see_of_a_surface_is_at_one_depth():
    camera = orbit(2, 35.0, start=20, size=64)
    near = replace(camera, world_to_camera=torch.stack([camera.world_to_camera[0], orbit(36, 35.0, start=20).world_to_camera[1]]))
    seen = shoot(MANY, near)
    for b in range(len(MANY)):
        points = unproject(near, seen.depth[b])[0][seen.thing[b, 0] >= 0]
        places, depth = project(near.rows(1), points)
        column, row = places.floor().long().clamp(0, 63).T
        there = unproject(near, seen.depth[b])[1][row, column]
        same = (there - points).norm(dim=1) < 0.05  # else hidden from there, or past an edge
        assert float(same.float().mean()) > 0.8
        flat = (seen.normals[b, 1, 2, row, column] < -0.5) & same
        assert float((seen.depth[b, 1, row, column] - depth)[flat].abs().median()) < 0.02


def test_what_is_seen_lies_on_the_solids(shots):
    camera = orbit(3, size=48)
    for b, made in enumerate(MANY):
        on = shots.thing[b] >= 0
        assert float(outside(made, unproject(camera, shots.depth[b])[on]).abs().max()) < 1e-3


def test_normals_are_units_that_face_the_camera(shots):
    deep = torch.nn.functional.pad((pixel_centres(48, 48) - 24) / orbit(1, size=48).K[0, 0, 0], (0, 1), value=1.0)
    normals = shots.normals.permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(normals.norm(dim=-1), (shots.thing != NOTHING).float(), atol=1e-5, rtol=0)
    assert float((normals * deep.unflatten(0, (48, 48))).sum(-1).max()) < 1e-4


def test_masks_depth_and_things_agree(shots):
    assert torch.equal(shots.depth.isfinite(), shots.thing != NOTHING)
    assert float(shots.masks.sum(2).max()) <= 1 + 1e-6
    assert bool((shots.masks <= shots.whole + 1e-6).all())
    assert bool((shots.marks <= shots.masks + 1e-6).all())
    for k in range(shots.masks.shape[2]):
        seen = shots.masks[:, :, k]
        assert bool((seen[shots.thing == k] >= 0.5).all() and (seen[shots.thing != k] <= 0.5).all())


def test_a_picture_is_the_same_alone_or_in_a_batch(shots):
    single = shoot(MANY[3:4], orbit(3, size=48).rows(slice(1, 2)))
    k = len(MANY[3].things)
    torch.testing.assert_close(shots.image[3, 1], single.image[0, 0], atol=2e-6, rtol=0)
    torch.testing.assert_close(shots.depth[3, 1], single.depth[0, 0], atol=2e-6, rtol=0)
    torch.testing.assert_close(shots.masks[3, 1, :k], single.masks[0, 0], atol=0, rtol=0)


def test_every_scene_may_have_its_own_cameras():
    camera = orbit(4, size=32)
    own = replace(camera, K=camera.K.unflatten(0, (2, 2)), world_to_camera=camera.world_to_camera.unflatten(0, (2, 2)))
    torch.testing.assert_close(shoot(MANY[:2], own).image[1], shoot(MANY[1:2], camera).image[0, 2:], atol=2e-6, rtol=0)


def test_shadows_lie_on_the_side_away_from_the_light():
    for azimuth in (0.0, 90.0, 200.0):
        seen = shoot([alone("square", light=(azimuth, 45.0))], orbit(1, 90.0, 2.0, target=(0, 0, 0)))
        dark = (seen.thing[0, 0] == GROUND) & (seen.image[0, 0, 0] < 0.2)
        points = unproject(orbit(1, 90.0, 2.0, target=(0, 0, 0)), seen.depth[0])[0][dark]
        x, y, _ = points.mean(0).tolist()
        away = math.radians(azimuth + 180)
        assert len(points) > 20
        assert x * math.sin(away) - y * math.cos(away) > 0.9 * math.hypot(x, y) > 0.05


@pytest.mark.parametrize("shape", KINDS)
def test_a_solid_stands_on_the_ground_within_its_bounds(shape):
    """Sampled on a grid around it: nothing below the ground, something on it, nothing beyond the reach that keeps things apart."""
    line = torch.linspace(-0.3, 0.3, 61)
    x, y = (part.flatten() for part in torch.meshgrid(line, line, indexing="ij"))
    made = alone(shape)
    height = {z: outside(made, torch.stack([x, y, torch.full_like(x, z)], 1)) for z in (-0.003, 0.015, 0.1)}
    assert float(height[-0.003].min()) > 0
    assert float(height[0.015].min()) < 0
    assert float(torch.hypot(x, y)[height[0.1] < 0].max()) <= SIDE * 0.2


def test_the_front_mark_is_seen_from_the_front_alone():
    for shape in KINDS:
        seen = shoot([alone(shape, ground="clear")], orbit(4, 10.0, 1.2))
        front, right, back, left = seen.marks[0, :, 0].sum((1, 2)).tolist()
        assert front > 25, shape
        assert back == 0, shape
        assert max(right, left) < 0.4 * front, shape


def test_an_angle_turns_a_thing_as_the_flat_picture_does():
    """Clockwise by 90 degrees, what faced the bottom of the floor plan faces its left: the camera at azimuth 270."""
    seen = shoot([alone("star", angle=90.0)], orbit(4, 10.0, 1.2)).marks[0, :, 0].sum((1, 2))
    assert int(seen.argmax()) == 3


def test_things_stand_where_the_floor_plan_has_them_and_never_in_each_other():
    for i in range(150):
        made = scene(5, i)
        there = stand(made)
        if not made.behind:
            assert there == made.things
        for far, near in made.behind:
            assert there[far].y < there[near].y
        gaps = [math.hypot(a.x - b.x, a.y - b.y) - SIDE * (a.radius + b.radius) for k, a in enumerate(there) for b in there[:k]]
        assert min(gaps, default=1) > 0.004


def test_a_clear_ground_has_neither_depth_nor_alpha():
    seen = shoot([alone("circle", ground="clear")], orbit(2))
    assert torch.equal(seen.thing == NOTHING, seen.depth.isinf())
    assert bool((seen.image[0, :, 3][seen.masks[0].sum(1) == 0] == -1).all())
    assert not bool((seen.thing == GROUND).any())


def test_an_empty_scene_is_its_ground():
    seen = shoot([scene(5, 0, Rules(most=1, grounds=("plain",), tones=("grey",))).without(0)], orbit(1, 60.0))
    assert seen.masks.shape == (1, 1, 0, 64, 64)
    torch.testing.assert_close(seen.image[0, 0, :3], torch.tensor([0.32, 0.32, 0.34])[:, None, None].expand(3, 64, 64))


def test_impossible_requests_are_told():
    with pytest.raises(UserError, match="32 to 128"):
        shoot(MANY[:1], orbit(1, size=16))
    with pytest.raises(UserError, match="no scene"):
        shoot([], orbit(1))
    with pytest.raises(UserError, match="1 or more"):
        shoot(MANY[:1], orbit(2).rows(slice(0, 0)))
    inside = look_at(torch.tensor([[0.0, -0.05, 0.2]]), torch.zeros(1, 3))
    with pytest.raises(UserError, match="inside thing 0 of scene 7"):
        shoot([alone("cross", x=0.9), replace(alone("cross"), index=7)], inside)
    with pytest.raises(UserError, match="below the ground"):
        shoot([alone("cross")], orbit(1, -10.0))
