import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from diorama.errors import UserError
from diorama.worlds.clip_source import ClipWorld
from diorama.worlds.clips import CAMERAS, DEFECTS, LAWS, Camera, ClipRules, Motion, Shot, clip, disc
from diorama.worlds.film import animation, film, look, middles
from diorama.worlds.physics import Law, State, course
from diorama.worlds.render import render
from diorama.worlds.scene import Rules

PLAIN = Rules(most=3, subjects=0, styles=("flat",), textures=("plain",))
MANY = [clip(1, i) for i in range(120)]


# --- physics --------------------------------------------------------------------------------------


def crowd(gravity, keep=1.0):
    starts = [State(0, 0.25, 0.25, 0.5, 0.1), State(0, 0.75, 0.3, -0.6, 0.3), State(0, 0.3, 0.75, 0.2, -0.7), State(0, 0.7, 0.7)]
    radii = [0.16, 0.12, 0.10, 0.14]
    return course(starts, radii, Law(gravity, keep), 6.0), radii


def energy(found, radii, time):
    states = [found.at(k, time) for k in range(len(radii))]
    return sum(r * r * ((s.vx**2 + s.vy**2) / 2 + found.law.gravity * (1 - s.y)) for r, s in zip(radii, states, strict=True))


@pytest.mark.parametrize("gravity", [0.0, 1.6])
def test_contacts_without_damping_keep_energy(gravity):
    found, radii = crowd(gravity)
    assert {len(c.discs) for c in found.contacts} == {1, 2} and len(found.contacts) > 20
    for time in (0.5, 2.0, 6.0):
        assert energy(found, radii, time) == pytest.approx(energy(found, radii, 0), rel=1e-12)


def test_damped_bounces_lose_energy_and_never_pile_up():
    found, radii = crowd(1.6, keep=0.6)
    energies = [energy(found, radii, t / 4) for t in range(25)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(energies))
    assert energies[-1] < 0.8 * energies[0] and len(found.contacts) < 1000


def test_collisions_keep_momentum_and_turn_the_closing_speed_round():
    found, radii = crowd(0.0)
    for contact in (c for c in found.contacts if len(c.discs) == 2):
        before, after = ([found.at(k, contact.time + e) for k in contact.discs] for e in (-1e-9, 1e-9))
        weights = [radii[k] ** 2 for k in contact.discs]
        for axis in ("vx", "vy"):
            momenta = [sum(w * getattr(s, axis) for w, s in zip(weights, states, strict=True)) for states in (before, after)]
            assert momenta[0] == pytest.approx(momenta[1], abs=1e-12)
        a, b = after
        apart = math.hypot(a.x - b.x, a.y - b.y)
        assert ((a.vx - b.vx) * (a.x - b.x) + (a.vy - b.vy) * (a.y - b.y)) / apart == pytest.approx(contact.speed, abs=1e-6)


def test_solid_discs_stay_inside_and_apart():
    found, radii = crowd(1.6)
    for time in np.linspace(0, 6, 241):
        states = [found.at(k, float(time)) for k in range(4)]
        for k, s in enumerate(states):
            assert radii[k] - 1e-9 <= min(s.x, s.y) and max(s.x, s.y) <= 1 - radii[k] + 1e-9
            for j in range(k):
                assert math.hypot(s.x - states[j].x, s.y - states[j].y) >= radii[k] + radii[j] - 1e-9


def test_a_free_fall_follows_the_parabola_and_lands_when_it_should():
    found = course([State(0, 0.5, 0.2, 0.1)], [0.1], Law(gravity=1.6), 1.0)
    assert found.contacts[0].time == pytest.approx(math.sqrt(2 * 0.7 / 1.6))
    assert found.contacts[0].speed == pytest.approx(math.sqrt(2 * 1.6 * 0.7))
    for time in (0.0, 0.3, 0.7):
        state = found.at(0, time)
        assert (state.x, state.y) == pytest.approx((0.5 + 0.1 * time, 0.2 + 0.8 * time * time))


# --- which clips come -----------------------------------------------------------------------------


def test_a_clip_is_a_function_of_seed_and_index():
    assert clip(3, 7) == clip(3, 7) == ClipWorld(3, 900).clip(7)
    assert clip(3, 7) != clip(3, 8) and clip(3, 7) != clip(4, 7)
    again = ClipWorld(3, 9).read(7)
    assert torch.equal(again.frames, ClipWorld(3, 900).batch(5, 3).image[2])
    assert ClipWorld(3, 9).record(7) == {"key": again.key, "text": again.text, "label": again.label}


def test_a_label_is_the_camera_s_way_the_law_or_both():
    worlds = {label: ClipWorld(3, 20, label=label) for label in ("camera", "law", "motion")}
    assert [len(world.labels) for world in worlds.values()] == [8, 3, 24]
    said = {label: [world.labels[k] for k in world.batch(0, 4).label] for label, world in worlds.items()}
    assert said["motion"] == [f"{law}, {camera}" for law, camera in zip(said["law"], said["camera"], strict=True)]
    shots = [worlds["law"].clip(i).shots[0] for i in range(4)]
    assert said["law"] == [shot.law for shot in shots]


def test_everything_comes_and_no_two_things_share_a_colour():
    shots = [made.shots[0] for made in MANY]
    assert {shot.law for shot in shots} == set(LAWS)
    assert {shot.camera.kind for shot in shots} == set(CAMERAS)
    assert {event.kind for made in MANY for event in made.events()} == {"bounce", "collision", "shape", "colour"}
    for made in MANY:
        for seen in made.scenes():
            assert len({t.colour for t in seen.things}) == len(seen.things)
            assert all(0 <= t.x <= 1 and 0 <= t.y <= 1 for t in seen.things)


def test_a_change_is_seen_from_its_frame_on():
    made, event = next((m, e) for m in MANY for e in m.events() if e.kind == "colour")
    colours = [seen.things[event.things[0]].colour for seen in made.scenes()]
    assert len(set(colours[: event.frame])) == 1 and len(set(colours[event.frame :])) == 1 and colours[0] != colours[-1]
    assert event.frame == round(event.time * made.fps)


def test_defects_are_labelled_and_a_cut_is_where_its_label_says():
    rules = ClipRules(defective=1.0, frames=8)
    made = [clip(6, i, rules) for i in range(40)]
    assert {m.defect for m in made} == set(DEFECTS)
    assert all(bool(m.cuts) == (m.defect == "cut") and bool(m.banner) == (m.defect == "banner") for m in made)
    for one in {m.defect: m for m in made}.values():
        seen = film(one, 32)
        moved = (seen.image[1:, :3] - seen.image[:-1, :3]).abs().mean((1, 2, 3))
        if one.defect == "static":
            assert float(moved.max()) == 0 and float(seen.flow()[0].abs().max()) == 0
        if one.defect == "cut":
            assert int(moved.argmax()) + 1 == one.cuts[0] and bool(seen.flow()[1][one.cuts[0] - 1].all())
        if one.defect == "banner":
            assert float(moved.min()) >= 0 and torch.equal(seen.image[0, :, -6:], seen.image[-1, :, -6:])
            assert float(seen.masks[:, :, -6:].max()) == 0
        if one.defect == "dull":
            assert float(seen.image[:, :3].max() - seen.image[:, :3].min()) <= 0.3 + 1e-6
    assert all(clip(6, i).defect is None for i in range(40))


def test_a_material_is_hidden_where_it_is_asked_to_be():
    hidden = [clip(1, i, ClipRules(hidden=True)).shots[0] for i in range(40)]
    pairs = {(t.texture, m.material) for shot in hidden for t, m in zip(shot.scene.things, shot.motions, strict=True)}
    open_ = {
        (t.texture, m.material) for made in MANY for t, m in zip(made.shots[0].scene.things, made.shots[0].motions, strict=True)
    }
    assert len(pairs) > 12 and len(open_) == 4


# --- what is filmed -------------------------------------------------------------------------------


def test_under_a_still_camera_a_frame_is_the_picture_of_its_scene():
    made = next(m for m in MANY if m.shots[0].camera.kind == "still")
    assert torch.equal(film(made, 32).image, render(made.scenes(), 32).image)


def test_tracks_are_the_middles_of_the_masks_of_round_things():
    rules = ClipRules(world=Rules(shapes=("circle",), most=1, subjects=0, styles=("flat",)), laws=("fall", "box"), moving=0.0)
    for i in range(4):
        seen = film(clip(2, i, rules), 64)
        mask, line = seen.masks[:, 0], middles(64)
        area = mask.sum((1, 2))
        middle = torch.stack([(mask.sum(1) * line).sum(1) / area, (mask.sum(2) * line).sum(1) / area], -1)
        assert float((middle - seen.tracks[:, 0]).abs().max()) < 0.05


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_next_frame_looked_up_along_the_flow_is_this_frame(camera):
    """On all but the rims, where a pixel belongs to two; things there turn, grow, fall, bounce and pass each other."""
    rules = ClipRules(world=PLAIN, cameras=(camera,), moving=1.0, changes=0.0)
    worst, still = 0.0, 0.0
    for i in range(3):
        seen = film(clip(9, i, rules), 64)
        flow, occluded = seen.flow()
        column, line = middles(64).expand(15, 64, 64), middles(64)[:, None].expand(15, 64, 64)
        back = look(torch.cat([seen.image, seen.owners], 1)[1:], column + flow[:, 0], line + flow[:, 1])
        owner = seen.owners[:-1].max(1)
        inside = ~occluded & (owner[0] > 0.999) & (back[:, 4:].gather(1, owner[1][:, None])[:, 0] > 0.999)
        assert float(inside.float().mean()) > 0.7
        off = (back[:, :3] - seen.image[:-1, :3]).abs().amax(1)
        worst = max(worst, float(off[inside].max()))
        still = max(still, float((seen.image[1:, :3] - seen.image[:-1, :3]).abs().max()))
    assert worst < 0.03 and still > 0.5


def test_flow_of_a_turning_thing_is_a_rotation_and_what_it_covers_is_occluded():
    made = clip(2, 0, ClipRules(world=PLAIN, frames=2, laws=("drift",), moving=0.0))
    thing = made.shots[0].scene.things[0]
    shot = Shot(scene=made.shots[0].scene, motions=(Motion(spin=80.0), *[Motion()] * (len(made.shots[0].scene.things) - 1)))
    flow, _ = film(_with(made, shot), 64).flow()
    mask = film(_with(made, shot), 64).masks[0, 0] > 0.999
    v, u = mask.nonzero().T + 0.5
    x, y, turn = thing.x * 64, thing.y * 64, math.radians(10)
    want = torch.stack(
        [(u - x) * (math.cos(turn) - 1) - (v - y) * math.sin(turn), (u - x) * math.sin(turn) + (v - y) * (math.cos(turn) - 1)]
    )
    torch.testing.assert_close(flow[0][:, mask], want, atol=1e-4, rtol=0)
    moves = Shot(scene=shot.scene, motions=(Motion(vx=0.5, vy=0.0), *shot.motions[1:]))
    hidden = film(_with(made, moves), 64)
    covers = (hidden.owners[0, -2] > 0.999) & (hidden.masks[1, 0] > 0.999)
    assert bool(covers.any()) and bool(hidden.flow()[1][0][covers].all())


def _with(made, shot):
    return replace(made, shots=(shot,))


def test_a_camera_that_pans_moves_the_ground_the_other_way():
    made = clip(2, 0, ClipRules(world=PLAIN, frames=3, laws=("drift",), moving=0.0))
    still = tuple(Motion() for _ in made.shots[0].scene.things)
    flow, _ = film(_with(made, Shot(scene=made.shots[0].scene, motions=still, camera=Camera(vx=0.25))), 32).flow()
    torch.testing.assert_close(flow[:, 0], torch.full((2, 32, 32), -0.25 / 8 * 32), atol=1e-4, rtol=0)
    zoomed, _ = film(_with(made, Shot(scene=made.shots[0].scene, motions=still, camera=Camera(zoom=2.0))), 32).flow()
    line = middles(32) - 16
    torch.testing.assert_close(zoomed[0, 0], ((2 ** (1 / 8) - 1) * line).expand(32, 32), atol=1e-4, rtol=0)


def test_an_animation_is_one_picture_a_frame(tmp_path):
    pictures = animation(clip(1, 0, ClipRules(frames=5)), 32)
    assert len(pictures) == 5 and pictures[0].size == (32, 32)
    pictures[0].save(tmp_path / "clip.webp", save_all=True, append_images=pictures[1:], duration=125)


def test_a_disc_holds_its_shape():
    for made in MANY[:8]:
        for thing, mask in zip(made.shots[0].scene.things, film(made, 64).masks[0], strict=False):
            v, u = (mask > 0.9).nonzero().T + 0.5
            assert float(torch.hypot(u / 64 - thing.x, v / 64 - thing.y).max()) <= disc(thing) + 1 / 64


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"frames": 0}, "a clip of 0 frames"),
        ({"frames": 1000}, "1 to 256"),
        ({"fps": 0}, "0 frames a second"),
        ({"fps": float("nan")}, "frames a second"),
        ({"laws": ("magic",)}, "magic"),
        ({"cameras": ()}, "cameras"),
        ({"cameras": ("left",), "world": Rules(grounds=("plain",))}, "allow the ground 'noise' or the camera 'still'"),
        ({"defects": ("rust",)}, "rust"),
        ({"moving": 2.0}, "moving 2.0"),
        ({"world": Rules(colours=("red",))}, "told apart"),
    ],
)
def test_impossible_rules_are_told_in_one_line(wrong, words):
    with pytest.raises(UserError, match=words) as told:
        ClipRules(**wrong)
    assert "\n" not in str(told.value)


def test_impossible_requests_are_told():
    with pytest.raises(UserError, match="32 to 128"):
        film(MANY[0], 8)
    with pytest.raises(UserError, match="count from 0"):
        clip(0, -1)
    for wrong in ({"n": 0}, {"size": 16}, {"form": "haiku"}, {"label": "mood"}):
        with pytest.raises(UserError):
            ClipWorld(**{"seed": 0, "n": 4, **wrong})
    with pytest.raises(IndexError):
        ClipWorld(0, 4).read(4)
