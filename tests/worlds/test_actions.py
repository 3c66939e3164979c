import math

import pytest
import torch

from diorama.errors import UserError
from diorama.worlds.actions import ACTIONS, GRAVITY, act, spline
from diorama.worlds.dressing import solids
from diorama.worlds.figures import NUMBER, PARENTS, figure, offsets
from diorama.worlds.introductions import VERBS

WHO = figure(1, 2)
ANKLES = [NUMBER["right ankle"], NUMBER["left ankle"]]


@pytest.mark.parametrize("action", ACTIONS)
def test_bones_keep_their_length(action):
    for i in range(4):
        one = figure(9, i)
        joints = act(one, action, 60, seed=i).posed.joints
        length = (joints[:, 1:] - joints[:, PARENTS[1:]]).norm(dim=-1)
        torch.testing.assert_close(length, offsets([one])[:, 1:].norm(dim=-1).expand_as(length), atol=1e-5, rtol=0)


@pytest.mark.parametrize("action", ACTIONS)
def test_feet_stay_on_or_above_the_ground_and_one_touches_it(action):
    for i in range(4):
        one = figure(9, i)
        motion = act(one, action, 60, seed=i)
        feet = motion.posed.joints[:, ANKLES, 2] - 0.05 * one.height
        assert float(feet.min()) > -1e-4
        flying = feet.amin(-1) > 0.02
        assert bool(flying.any()) == (action == "jump")


@pytest.mark.parametrize("action", ACTIONS)
def test_motion_is_smooth(action):
    """Frames twice as close are half as far apart: nothing leaps."""
    far = []
    for rate in (100, 200):
        joints = act(WHO, action, 4 * rate, rate=rate).posed.joints
        far.append(float((joints[1:] - joints[:-1]).norm(dim=-1).max()))
    assert far[0] == pytest.approx(2 * far[1], rel=0.1)


@pytest.mark.parametrize("action", ["walk", "wave", "jump", "turn"])
def test_an_action_repeats_after_its_period(action):
    period = act(WHO, action, 1).period
    angles, root = (getattr(act(WHO, action, 61, rate=20 / period), name) for name in ("angles", "root"))
    turned = angles[:, NUMBER["pelvis"], 2]
    torch.testing.assert_close(angles[20:, 1:], angles[:-20, 1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(turned[20:].cos(), turned[:-20].cos(), atol=1e-4, rtol=0)
    moved = root[20:] - root[:-20]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-4, rtol=0)
    assert (float(moved[0, 1]) < -0.5) == (action == "walk")


def test_a_standing_foot_does_not_slide():
    for i in range(4):
        joints = act(figure(3, i), "walk", 200, rate=60).posed.joints[:, ANKLES]
        stands = joints[..., 2] < joints[..., 2].min() + 1e-5
        both = stands[1:] & stands[:-1]
        slid = (joints[1:] - joints[:-1]).norm(dim=-1)[both]
        assert float(slid.max()) < 1e-4
        assert 0.45 < float(stands.float().mean()) < 0.6  # half of the cycle each


def test_the_flight_of_a_jump_is_a_parabola():
    motion = act(WHO, "jump", 400, rate=200)
    height = motion.root[:, 2].double()
    flying = motion.posed.joints[:, ANKLES, 2].amin(-1) > 0.05 * WHO.height + 1e-3
    inside = flying[2:] & flying[1:-1] & flying[:-2]
    pull = (height[2:] - 2 * height[1:-1] + height[:-2])[inside] * 200**2
    assert int(inside.sum()) > 50
    assert float(pull.mean()) == pytest.approx(-GRAVITY, rel=1e-3)
    when = torch.arange(len(height), dtype=torch.float64)[flying][: int(inside.sum())] / 200
    basis = torch.stack([torch.ones_like(when), when, when**2], -1)
    fit = torch.linalg.lstsq(basis, height[flying][: len(when), None]).solution
    torch.testing.assert_close((basis @ fit)[:, 0], height[flying][: len(when)], atol=1e-5, rtol=0)


def test_half_a_turn_swaps_left_and_right():
    period = act(WHO, "turn", 1).period
    joints = act(WHO, "turn", 2, rate=2 / period).posed.joints[:, :, :2]
    upper = [NUMBER[name] for name in ("left shoulder", "right shoulder", "left hip", "right hip")]
    torch.testing.assert_close(joints[1, upper], -joints[0, upper], atol=1e-5, rtol=0)


def test_who_sits_is_at_seat_height_and_keeps_its_feet():
    motion = act(WHO, "sit", 60, rate=20)
    assert float(motion.root[-1, 2]) < 0.62 * float(motion.root[0, 2])
    assert torch.equal(motion.root[40], motion.root[-1])
    feet = motion.posed.joints[:, ANKLES]
    torch.testing.assert_close(feet, feet[:1].expand_as(feet), atol=1e-5, rtol=0)
    knees = motion.angles[-1, [NUMBER["right knee"], NUMBER["left knee"]], 0]
    assert bool(((knees - math.pi / 2).abs() < 0.35).all())


def test_seeds_vary_a_motion_and_nothing_else():
    first, same, other = (act(WHO, "walk", 20, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.angles, same.angles)
    assert not torch.allclose(first.angles, other.angles)
    assert torch.equal(act(WHO, "walk", 5).angles, first.angles[:5])


def test_a_spline_meets_its_knots_and_is_the_parabola_through_them():
    times = torch.linspace(0, 2, 21, dtype=torch.float64)
    torch.testing.assert_close(spline(times, [(0, 1, 4), (2, 1, -4)]), 1 + 4 * times - 2 * times**2)
    curve = spline(torch.tensor([-1.0, 0, 1, 3, 9]).double(), [(0, 5, 0), (1, 2, 1), (3, -1, 0)])
    assert curve.tolist() == [5, 5, 2, -1, -1]


def test_feet_are_level():
    solid = solids([WHO] * 30, act(WHO, "walk", 30).posed)
    feet = solid.own.unflatten(0, (30, -1))[:, [9, 15]][..., 2]  # which way they point
    assert float(feet[..., 2].abs().max()) < 1e-5


def test_every_action_has_its_words():
    assert tuple(VERBS) == tuple(ACTIONS)


def test_impossible_requests_are_told():
    with pytest.raises(UserError, match="'fly' is not known: use walk, wave, jump, sit, turn"):
        act(WHO, "fly", 8)
    with pytest.raises(UserError, match="0 frames"):
        act(WHO, "walk", 0)
    with pytest.raises(UserError, match="at 0 a second"):
        act(WHO, "walk", 8, rate=0)
