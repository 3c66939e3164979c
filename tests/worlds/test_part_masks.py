from dataclasses import replace

import pytest
import torch

from diorama.scenes.cameras import orbit
from diorama.worlds.parts import Masked, edges, labels, nested, parts
from diorama.worlds.render import render
from diorama.worlds.scene import STYLES, Rules, scene
from diorama.worlds.source import World
from diorama.worlds.views import shoot

MANY = [scene(5, i) for i in range(60)]


def within(inner, outer):
    return bool((inner <= outer + 1e-6).all())


def test_parts_are_within_wholes_within_groups():
    views = render(MANY, 48)
    found = parts(MANY, views)
    assert within(found.part, found.whole) and within(found.whole, found.group)
    assert torch.equal(found.whole, views.masks)
    shots = shoot(MANY[:3], orbit(2, size=32))
    marked = nested(shots.masks, shots.marks)
    assert within(marked.part, marked.whole) and within(marked.whole, marked.group)
    assert marked.group.shape == shots.masks.shape


def test_only_a_texture_is_a_part():
    found = parts(MANY, render(MANY, 48))
    for made, part, whole in zip(MANY, found.part, found.whole, strict=True):
        for thing, shown, all_of_it in zip(made.things, part, whole, strict=False):
            share = float(shown.sum() / all_of_it.sum())
            thin = made.style in ("outlined", "sketch")  # their rims may leave no room for a texture
            assert share == 0 if thing.texture == "plain" else (0 if thin else 0.15) <= share < 0.9


@pytest.mark.parametrize("style", STYLES)
def test_a_square_shows_its_three_stripes(style):
    """Their period is 0.8 radii, a lighter stripe in the middle: a whole one there, and half of one at each end of 1.52 radii.

    The rim of some styles is 0.17 radii wide and hides those.
    """
    made = scene(1, 0, Rules(shapes=("square",), textures=("striped",), styles=(style,), sizes=("large",), most=1, subjects=0))
    upright = replace(made, things=(replace(made.things[0], angle=0.0),))
    found = parts([upright], render([upright], 128))
    column = (found.part[0, 0, :, int(128 * upright.things[0].x)] > 0).int()
    assert int((column.diff() == 1).sum()) == (1 if style in ("outlined", "sketch") else 3)
    radius = 128 * upright.things[0].radius
    assert int(column[int(128 * upright.things[0].y - 0.35 * radius) :][: int(0.7 * radius)].sum()) == pytest.approx(
        0.4 * radius, abs=2
    )


def test_only_things_that_touch_are_a_group():
    views = render(MANY, 64)
    found = parts(MANY, views)
    for b, made in enumerate(MANY):
        partner = {i: {i} for i in range(len(made.things))}
        for i, j in made.behind:
            partner[i], partner[j] = {i, j}, {i, j}
        for k, own in partner.items():
            torch.testing.assert_close(found.group[b, k], views.masks[b, sorted(own)].sum(0))
    assert any(made.behind for made in MANY)


def test_touching_passes_on():
    masks = torch.zeros(4, 8, 8)
    for k, (left, right) in enumerate([(0, 2), (2, 4), (4, 6), (7, 8)]):
        masks[k, :4, left:right] = 1
    group = nested(masks, masks * 0).group
    torch.testing.assert_close(group[0], masks[:3].sum(0))
    torch.testing.assert_close(group[3], masks[3])


def test_labels_and_edges_of_a_square():
    masks = torch.zeros(2, 6, 6)
    masks[1, 2:4, 2:5] = 1
    label = labels(masks)
    assert torch.equal(label, masks[1].long() * 2)
    wanted = ["......", "..###.", ".#..#.", ".####.", "......", "......"]
    assert ["".join("#" if e else "." for e in row) for row in edges(masks).tolist()] == wanted


def test_edges_against_a_slow_twin():
    views = render(MANY[:5], 32)
    label = labels(views.masks).tolist()
    for picture, found in zip(label, edges(views.masks).tolist(), strict=True):
        for y in range(32):
            for x in range(32):
                near = [picture[y][x + 1]] if x < 31 else []
                near += [picture[y + 1][x]] if y < 31 else []
                assert found[y][x] == any(other != picture[y][x] for other in near)


def test_what_may_be_meant_is_said_once():
    """As many things as the masks say: no two rows are the same, and every whole is there."""
    made = World(3, 8, 48)
    batch = Masked(made).batch(0, 8)
    views = render([made.scene(i) for i in range(8)], 48)
    assert torch.equal(batch.image, made.batch(0, 8).image)
    assert torch.equal(batch.masks[:, : views.masks.shape[1]], views.masks)
    solid = (batch.masks >= 0.5).flatten(2)
    for masks in solid:
        found = masks[masks.any(1)]
        assert len(found.unique(dim=0)) == len(found)
