import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.scenes.cameras import look_at, orbit, project, unproject
from diorama.worlds.clips import DEFECTS, Change, Clip, ClipRules, Motion, Shot, clip, disc
from diorama.worlds.clips import Camera as Window
from diorama.worlds.film import look, middles
from diorama.worlds.motions import parse_clip, story
from diorama.worlds.scene import Ground, Rules, Scene, Thing
from diorama.worlds.shapes import SHAPES
from diorama.worlds.space import NOTHING, solids
from diorama.worlds.stage import STAGED, staged, tell
from diorama.worlds.views import shoot

STILL = Motion()
NOISE = Ground(kind="noise", tone="grey", seed=4)


def thing(shape="square", colour="red", x=0.5, y=0.5, **other):
    first = Thing(shape=shape, colour=colour, size="medium", texture="checked", x=x, y=y, radius=0.16, angle=20.0, depth=0.5)
    return replace(first, **other)


def moving(things, motions, frames=4, ground=NOISE, **other):
    """A clip of these things at 8 frames a second, between walls."""
    shot = Shot(
        scene=Scene(seed=0, index=0, things=tuple(things), ground=ground, style="flat"), motions=tuple(motions), law="box"
    )
    return Clip(seed=0, index=0, frames=frames, fps=8.0, shots=(replace(shot, **other),))


PAIR = (thing("square", "red", 0.3, 0.4), thing("circle", "blue", 0.72, 0.6, texture="striped"))


def quarter(t, size=48):
    return orbit(4 * t, size=size).rows(slice(t))


@pytest.fixture(scope="module")
def seen():
    return [(made, staged(made, quarter(16))) for made in (clip(3, i, STAGED) for i in (3, 5, 9))]


# --- flow -----------------------------------------------------------------------------------------


def test_where_nothing_moves_and_the_camera_stands_still_nothing_flows_or_is_hidden():
    flow, occluded = staged(moving(PAIR, (STILL, STILL)), orbit(1, size=48)).flow()
    assert flow.shape == (3, 2, 48, 48)
    assert float(flow.abs().max()) < 1e-3
    assert not bool(occluded.any())


def test_where_nothing_moves_the_flow_is_what_depth_and_two_cameras_say():
    camera = look_at(torch.tensor([[0.2, -1.8, 0.9], [0.5, -1.7, 1.1]]), torch.tensor([[0.0, 0.0, 0.1], [0.1, 0.0, 0.2]]), 48)
    seen = staged(moving(PAIR, (STILL, STILL), frames=2), camera)
    flow, occluded = seen.flow()
    for i, j in ((0, 0), (10, 40), (25, 18), (30, 30), (47, 5)):
        deep = seen.depth[0, i, j]
        K, pose = camera.K[0], camera.world_to_camera[0]
        along = torch.tensor([(j + 0.5 - K[0, 2]) / K[0, 0], (i + 0.5 - K[1, 2]) / K[1, 1], 1.0])
        point = pose[:3, :3].T @ (deep * along - pose[:3, 3])
        at, _ = project(camera.rows(1), point[None])
        torch.testing.assert_close(flow[0, :, i, j], at[0] - torch.tensor([j + 0.5, i + 0.5]), atol=2e-4, rtol=0)
    # What is to be seen there is told by the next picture's depth too, but for pixels on edges, where it lies between surfaces.
    at, deep = project(camera.rows(1), unproject(camera.rows(0), seen.depth[0]).flatten(0, 1))
    inside = ((at >= 0) & (at < 48)).all(-1)
    nearest = look(seen.depth[1:, None], *at.T.reshape(2, 1, 48, 48), "border").flatten()
    twin = ~inside | (nearest < deep - 0.02)
    assert float((twin == occluded.flatten()).float().mean()) > 0.97
    assert 0.02 < float(occluded.float().mean()) < 0.3


def test_a_point_goes_with_its_thing_however_it_slides_turns_and_grows():
    """A cube by its closed form, seen from straight above: its upper side is a square as high as it is wide."""
    camera, shot = look_at(torch.tensor([[0.0, 0.0, 2.0]]), torch.zeros(3), 64), {"law": "drift"}
    made = moving([thing(angle=0.0, texture="plain")], [Motion(vx=0.4, vy=-0.24, spin=120.0, growth=1.5)], **shot)
    seen = staged(made, camera)
    flow, occluded = seen.flow()
    focal, turn, growth = 32 / math.tan(math.radians(20)), math.radians(15), 1.5**0.125
    for x, y in ((0.0, 0.0), (-0.05, 0.03)):  # on the upper side, right and up on the plan
        high = 2 * 0.76 * 0.16
        column, line = (int(32 + s * focal / (2 - high)) for s in (x, -y))
        x, y = ((p + 0.5 - 32) * (2 - high) / focal for p in (column, line))
        cos, sin = math.cos(turn), math.sin(turn)
        to = [growth * (cos * x - sin * y) + 0.05, growth * (sin * x + cos * y) - 0.03]
        expected = [32 + focal * p / (2 - growth * high) for p in to]
        assert flow[0, :, line, column].tolist() == pytest.approx(
            [expected[0] - column - 0.5, expected[1] - line - 0.5], abs=1e-3
        )
        assert not bool(occluded[0, line, column])


@pytest.mark.parametrize("motions", [(STILL, STILL), (Motion(vx=0.3, vy=0.2), Motion(vx=-0.2, vy=0.3))])
def test_the_next_picture_along_the_flow_is_the_picture(motions):
    """Of matte things that do not turn, so that their light stays; where they move, the ground is left out, over which shadows go."""
    film = staged(moving(PAIR, motions, frames=3), orbit(64, 40.0, size=128).rows(slice(3)))
    flow, occluded = film.flow()

    def off(aside: float, sure: Tensor) -> float:
        back = look(film.image[1:], middles(128) + flow[:, 0] + aside, middles(128)[:, None] + flow[:, 1], "border")
        return float((back - film.image[:-1]).abs().mean(1)[sure & ~occluded].mean())

    for sure in [film.masks[:-1].sum(1) > 0.99, film.masks[:-1].sum(1) == 0][: 1 if motions[0].vx else 2]:
        still = (film.image[1:] - film.image[:-1]).abs().mean(1)[sure & ~occluded].mean()
        assert off(0.0, sure) < 0.2 * float(still)
        assert off(0.0, sure) < 0.7 * min(off(0.5, sure), off(-0.5, sure))


def test_where_a_point_goes_there_is_its_thing(seen):
    for _, film in seen:
        flow, occluded = film.flow()
        at = torch.stack([middles(48) + flow[:, 0], middles(48)[:, None] + flow[:, 1]]).floor().long()
        for i in range(15):
            sure = ~occluded[i] & (film.masks[i] > 0.99).any(0)
            there = film.thing[i + 1][at[1, i][sure], at[0, i][sure]]
            assert float((there == film.thing[i][sure]).float().mean()) > 0.9


def test_what_is_covered_turned_away_or_out_of_the_picture_is_occluded():
    near, far = thing("circle", "red", 0.2, 0.7, radius=0.1), thing("square", "blue", 0.5, 0.3, angle=0.0)
    front = look_at(torch.tensor([[0.0, -2.0, 0.3]]), torch.tensor([0.0, 0.0, 0.2]), 64)
    made = moving([near, far], [Motion(vx=0.3 * 8), STILL], frames=2)  # in one frame the ball comes before the cube
    film = staged(made, front)
    flow, occluded = film.flow()
    cube = film.thing[0] == 1
    assert torch.equal(occluded[0][cube], film.thing[1][cube] == 0)  # the flow of the cube is zero: pixel by pixel
    assert 0.3 < float(occluded[0][cube].float().mean()) < 1
    turned = staged(moving([far], [Motion(spin=90.0 * 8)], frames=2), front).flow()[1][0]
    seen = staged(moving([far], [STILL], frames=1), front).thing[0] == 0
    assert float(turned[seen].float().mean()) > 0.95  # the front of the cube looks aside
    away = look_at(torch.tensor([[0.0, -2.0, 0.3]]), torch.tensor([[0.0, 0.0, 0.2], [2.0, 0.0, 0.2]]), 64)
    flow, occluded = staged(moving([far], [STILL], frames=2), away).flow()
    at = middles(64) + flow[0, 0]
    assert bool(occluded[0][(at < 0) | (at >= 64)].all()) and bool((at < 0).any())


def test_nothing_has_no_flow_and_a_shape_that_changes_is_gone():
    clear = Ground(kind="clear", tone="white")
    change = Change(frame=2, thing=0, field="shape", word="star")
    film = staged(moving(PAIR, (STILL, STILL), ground=clear, changes=(change,)), quarter(4))
    flow, occluded = film.flow()
    nothing = film.thing[:-1] == NOTHING
    assert bool(occluded[nothing].all()) and not bool(flow.mT[nothing[:, None].expand_as(flow).mT].any())
    on = film.thing[:-1] == 0
    assert bool(occluded[1][on[1]].all()) and float(occluded[0][on[0]].float().mean()) < 0.3
    painted = staged(moving(PAIR, (STILL, STILL), changes=(Change(frame=2, thing=0, field="colour", word="pink"),)), quarter(4))
    plain = staged(moving(PAIR, (STILL, STILL)), quarter(4))
    assert torch.equal(painted.flow()[0], plain.flow()[0]) and torch.equal(painted.flow()[1], plain.flow()[1])
    assert not torch.equal(painted.image[2], plain.image[2]) and torch.equal(painted.image[1], plain.image[1])


def test_one_frame_has_no_flow():
    flow, occluded = staged(moving(PAIR, (STILL, STILL), frames=1), orbit(1, size=32)).flow()
    assert (flow.shape, occluded.shape) == ((0, 2, 32, 32), (0, 32, 32))


# --- places ---------------------------------------------------------------------------------------


def test_things_are_where_the_plan_has_them_and_seen_there(seen):
    for made, film in seen:
        for i, flat in enumerate(made.scenes()):  # its window stands still
            for k, t in enumerate(flat.things):
                assert film.places[i, k, :2].tolist() == pytest.approx([t.x - 0.5, 0.5 - t.y], abs=1e-6)
        column, line = (middles(48).expand(48, 48), middles(48)[:, None].expand(48, 48))
        whole = shoot([s for s in made.scenes()], film.camera.rows((slice(None), None)), apart=False).whole[:, 0]
        size = whole.sum((2, 3))
        middle = torch.stack([(whole * p).sum((2, 3)) / size for p in (column, line)], -1)
        inside = ((film.tracks > 5) & (film.tracks < 43)).all(-1)
        assert float((middle - film.tracks)[inside].norm(dim=-1).max()) < 3
        assert torch.equal(film.masks <= whole, torch.ones_like(whole, dtype=torch.bool))


def test_energy_on_the_floor_is_that_of_the_flat_clip(seen):
    for made, film in seen:
        shot = made.shots[0]
        weights = torch.tensor([disc(t) ** 2 for t in shot.scene.things])
        energy = sum(w * (m.vx**2 + m.vy**2) for w, m in zip(weights.tolist(), shot.motions, strict=True))
        speeds = (film.places[1:] - film.places[:-1]).norm(dim=-1) * made.fps
        met = {int(contact.time * made.fps) for contact in shot.course(made.seconds).contacts}
        free = [i for i in range(made.frames - 1) if i not in met]
        assert free
        for i in free:
            assert float((weights * speeds[i] ** 2).sum()) == pytest.approx(energy, rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_disc_holds_its_solid_seen_from_above(shape):
    """So that what does not touch on the plan does not touch in space."""
    made = Scene(seed=0, index=0, things=(thing(shape),), ground=NOISE, style="flat")
    solid, line = solids([made]), torch.linspace(-0.2, 0.2, 41)
    places = torch.stack([p.flatten() for p in torch.meshgrid(line, line, torch.linspace(0, 0.4, 41), indexing="ij")])
    inside = (
        solid.distance(
            torch.zeros(places.shape[1], dtype=torch.int64), solid.places(torch.zeros(places.shape[1], dtype=torch.int64), places)
        )
        <= 0
    )
    assert float(places[:2].norm(dim=0)[inside].max()) <= disc(made.things[0])


def test_what_touches_stays_where_it_is():
    """Two balls at their collision: `stand` would move them apart."""
    made = moving([thing("circle", "red", 0.3), thing("circle", "blue", 0.3 + 2 * 0.92 * 0.16 + 1e-4)], (STILL, STILL), frames=1)
    film = staged(made, orbit(1, size=32))
    assert float(film.places[0, 1, 0] - film.places[0, 0, 0]) == pytest.approx(2 * 0.92 * 0.16 + 1e-4, abs=1e-6)


# --- words and borders ----------------------------------------------------------------------------


def test_sentences_in_space_are_true_and_say_no_way_on_the_plan():
    rules = ClipRules(world=Rules(most=1, subjects=0.0), laws=("drift", "box"), moving=1.0)
    said = 0
    for made in [clip(4, i, r) for r in (STAGED, rules) for i in range(60)]:
        words = tell(made, form="long")
        assert parse_clip(words).true_of(story(made))
        assert not any(word in words for word in ("moves", " left", " right", " up", " down", "camera", "  ", "and and", " and,"))
        assert not words.endswith("and")
        said += any(verb in words for verb in ("bounces", "spins", "turns", "grows", "shrinks", "does not move"))
    assert said > 60
    turning = moving([thing()], [Motion(vx=0.5, vy=0.0, spin=90.0, growth=0.9)], law="drift", camera=Window(kind="left", vx=-0.1))
    assert tell(turning, form="long").endswith("square spins clockwise and shrinks")


def test_what_cannot_be_staged_is_refused():
    two = (STILL, STILL)
    with pytest.raises(UserError, match="fall along the floor"):
        staged(moving(PAIR, two, law="fall"), quarter(4))
    with pytest.raises(UserError, match="drift through each other"):
        staged(moving(PAIR, two, law="drift"), quarter(4))
    with pytest.raises(UserError, match=r"cameras of shape \(3,\) .* use \(4,\), one a frame, or \(1,\)"):
        staged(moving(PAIR, two), quarter(3))
    for defect in DEFECTS:
        with pytest.raises(UserError, match=f"a defect .{defect}."):
            staged(clip(1, 0, replace(STAGED, defects=(defect,), defective=1.0)), quarter(16))
