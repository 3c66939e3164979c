from dataclasses import replace

import pytest
import torch

from diorama.errors import UserError
from diorama.worlds.render import ground, pictures, render
from diorama.worlds.scene import COLOURS, SHAPES, Rules, as_plain, scene

MANY = [scene(5, i) for i in range(200)]


def test_a_scene_is_a_function_of_seed_and_index():
    assert scene(3, 7) == scene(3, 7)
    assert as_plain(scene(3, 7)) != as_plain(scene(3, 8))
    assert as_plain(scene(4, 7))["things"] != as_plain(scene(3, 7))["things"]


def test_every_attribute_comes():
    things = [thing for s in MANY for thing in s.named]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {len(s.things) for s in MANY} == {1, 2, 3, 4}
    assert any(s.behind for s in MANY)
    assert any(thing.subject is not None for s in MANY for thing in s.things)


def test_things_are_seen_and_large_enough_at_the_smallest_size():
    views = render(MANY, 32)
    there = views.ids >= 0
    extent = (views.boxes[..., 2:] - views.boxes[..., :2]).amax(-1)
    assert float(views.visible[there].min()) >= 0.6
    assert int(extent[there].min()) >= 6


def test_a_picture_does_not_depend_on_its_batch():
    together, alone = render(MANY[:9], 64), render(MANY[4:5], 64)
    torch.testing.assert_close(together.image[4:5], alone.image, atol=2e-6, rtol=0)


def test_pictures_alone_are_those_that_come_with_their_truth():
    assert torch.equal(pictures(MANY[:40], 48), render(MANY[:40], 48).image)


@pytest.mark.parametrize(("right", "down"), [(-32, 0), (32, 0), (0, -32), (-32, 32)])
def test_a_thing_may_leave_the_picture(right, down):
    """Half outside, what is left of it is what it showed before; quite outside, only the ground is left."""
    made = scene(5, 0, Rules(most=1, grounds=("plain",), styles=("shaded",), subjects=0))
    middle, half, gone = (
        replace(made, things=(replace(made.things[0], x=0.5 + right * by / 64, y=0.5 + down * by / 64),)) for by in (0, 1, 3)
    )
    views = render([middle, half, gone], 64)
    columns, lines = slice(max(0, right), 64 + min(0, right)), slice(max(0, down), 64 + min(0, down))
    moved = views.image[0].roll((down, right), (1, 2))
    torch.testing.assert_close(views.image[1][:, lines, columns], moved[:, lines, columns], atol=1e-5, rtol=0)
    assert 0.2 < float(views.whole[1].sum() / views.whole[0].sum()) < 0.8
    torch.testing.assert_close(views.image[2].permute(1, 2, 0), ground([gone], 64)[0] * 2 - 1)
    assert not views.boxes[2].any()


def test_masks_share_every_pixel_out():
    views = render(MANY[:40], 48)
    assert float(views.masks.sum(1).max()) <= 1 + 1e-5
    assert bool((views.masks <= views.whole + 1e-6).all())
    assert torch.equal(views.masks.sum((2, 3)) > 0, views.ids >= 0)


def test_area_of_a_disc_and_a_square_on_the_pixels():
    for shape, area in (("circle", 3.14159265 * 0.92**2), ("square", 1.52**2)):
        made = scene(1, 0, Rules(shapes=(shape,), styles=("flat",), most=1, subjects=0))
        seen = render([made], 128).whole[0, 0].sum() / 128**2
        assert float(seen) == pytest.approx(area * made.things[0].radius ** 2, rel=0.01)


def test_removing_a_thing_leaves_the_others_and_the_ground():
    made = next(s for s in MANY if s.behind)
    far, near = made.behind[0]
    less = made.without(near)
    assert len(less.things) == len(made.things) - 1
    assert not less.behind
    before, after = render([made], 64), render([less], 64)
    kept = before.whole[0, near] == 0
    torch.testing.assert_close(before.image[0][:, kept], after.image[0][:, kept], atol=1e-6, rtol=0)
    assert float(after.visible[0, far - (far > near)]) == pytest.approx(1, abs=1e-5)


def test_an_empty_scene_is_its_ground():
    made = scene(5, 0, Rules(most=1))
    views = render([made.without(0)], 32)
    torch.testing.assert_close(views.image[0].permute(1, 2, 0), ground([made], 32)[0] * 2 - 1)
    assert views.masks.shape == (1, 0, 32, 32)


def test_a_clear_ground_is_white_without_alpha():
    made = scene(5, 0, Rules(grounds=("clear",), most=1))
    image = render([made], 32).image[0]
    clear = image[3] == -1
    assert bool(clear.any())
    assert bool((image[:3, clear] == 1).all())


def test_held_out_pairs_never_come():
    rules = Rules(colours=("red", "blue"), shapes=("star", "ring"), held_out=(("red", "star"),), subjects=0)
    seen = {(thing.colour, thing.shape) for i in range(60) for thing in scene(1, i, rules).things}
    assert seen == {("red", "ring"), ("blue", "star"), ("blue", "ring")}
    unused = (("red", "star"), ("green", "heart"))  # of which one could not come anyway
    assert Rules(colours=("red",), held_out=unused).pairs == Rules(colours=("red",), held_out=unused[:1]).pairs


@pytest.mark.parametrize(
    "wrong",
    [
        {"shapes": ("blob",)},
        {"colours": ()},
        {"least": 3, "most": 2},
        {"most": 9},
        {"overlap": 2.0},
        {"turn": 400.0},
        {"shapes": ("star",), "colours": ("red",), "held_out": (("red", "star"),)},
        {"held_out": (("star", "red"),)},
        {"held_out": (("red", "star"), ("red", "blob"))},
        {"held_out": ("red", "star")},
        {"held_out": [["red", "star"]]},
    ],
)
def test_impossible_rules_are_told(wrong):
    with pytest.raises(UserError):
        Rules(**wrong)


def test_things_stand_upright_or_lean_as_far_as_the_rules_let_them():
    assert {thing.angle for i in range(20) for thing in scene(5, i, Rules(turn=0.0)).things} == {0.0}
    leaning = [thing.angle for i in range(20) for thing in scene(5, i, Rules(turn=30.0)).things]
    assert 20 < max(leaning) < 30


def test_impossible_requests_are_told():
    with pytest.raises(UserError, match="32 to 128"):
        render(MANY[:1], 16)
    with pytest.raises(UserError, match="no scene"):
        render([], 64)
    with pytest.raises(UserError, match="no thing 4"):
        MANY[0].without(4)
    with pytest.raises(UserError, match="count from 0"):
        scene(0, -1)
