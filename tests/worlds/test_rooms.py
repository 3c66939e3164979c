import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from diorama.errors import UserError
from diorama.worlds.rooms import BODY, Obstacle, around, distance, draw_rooms, octile, path, pitch, room, sees, shortest, walkable

ROOMS = [room(2, i, blocked=i % 2 == 0) for i in range(12)]


def test_a_room_is_a_function_of_seed_and_index():
    assert room(2, 3) == room(2, 3)
    assert room(2, 3) != room(2, 4)


def test_every_room_has_a_free_way():
    for made in ROOMS:
        way = path(made)
        assert float(distance(made, way).min()) > BODY
        steps = (way[1:] - way[:-1]).norm(dim=-1) / pitch(made)
        assert bool(((steps - 1).abs() < 1e-4).logical_or((steps - math.sqrt(2)).abs() < 1e-4).all())
        assert math.dist(way[0].tolist(), made.start) < pitch(made) and math.dist(way[-1].tolist(), made.goal) < pitch(made)
        between = torch.cat([torch.lerp(way[:-1], way[1:], t) for t in (0.25, 0.5, 0.75)])
        assert float(distance(made, between).min()) > 0.8 * BODY  # never through an obstacle between two cells either


def test_obstacles_stand_within_the_walls():
    for made in (room(8, i, clutter=8) for i in range(20)):
        for thing in made.solid:
            assert thing.wide <= thing.x <= made.wide - thing.wide
            assert (thing.high or thing.wide) <= thing.y <= made.high - (thing.high or thing.wide)


def test_blocked_rooms_hide_the_goal():
    assert not any(sees(made, made.start, made.goal) for made in ROOMS[::2])
    assert any(sees(made, made.start, made.goal) for made in ROOMS[1::2])


def test_the_way_through_an_empty_room_is_as_long_as_the_grid_says():
    free = torch.ones(20, 30, dtype=torch.bool)
    for start, goal in (((0, 0), (19, 29)), ((3, 4), (3, 25)), ((18, 2), (1, 9)), ((5, 5), (5, 5))):
        way = shortest(free, start, goal)
        low, high = sorted((abs(start[0] - goal[0]), abs(start[1] - goal[1])))
        assert length(way) == pytest.approx(math.sqrt(2) * low + (high - low)) == octile(start, goal)


def length(way):
    return sum(math.dist(a, b) for a, b in pairwise(way))


def test_ways_are_as_short_as_those_of_a_slow_twin():
    """Every cell asks its neighbours until nothing changes."""
    rng = random.Random(5)
    found = 0
    for _ in range(20):
        free = torch.tensor([[rng.random() > 0.3 for _ in range(9)] for _ in range(8)])
        free[0, 0] = free[7, 8] = True
        cost = torch.full((10, 11), math.inf, dtype=torch.float64)
        cost[1, 1] = 0
        padded = torch.zeros(10, 11, dtype=torch.bool)
        padded[1:-1, 1:-1] = free
        steps = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
        clear = {
            (r, c): padded & torch.roll(padded, r, 0) & torch.roll(padded, c, 1) & torch.roll(padded, (r, c), (0, 1))
            for r, c in steps
        }
        before = None
        while before is None or not torch.equal(before, cost):
            before = cost
            for r, c in steps:
                cost = torch.where(clear[r, c], torch.minimum(cost, torch.roll(cost, (r, c), (0, 1)) + math.hypot(r, c)), cost)
        way = shortest(free, (0, 0), (7, 8))
        assert bool(way) == math.isfinite(cost[8, 9])
        if way:
            found += 1
            assert length(way) == pytest.approx(float(cost[8, 9]))
            assert all(bool(free[cell]) for cell in way)
    assert 3 < found < 20


def test_distances_have_slope_one_where_one_thing_is_nearest():
    for made in ROOMS[:4]:
        points = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([made.wide, made.high])
        points = points.double().requires_grad_()
        (slope,) = torch.autograd.grad(distance(made, points).sum(), points)
        assert float((slope.norm(dim=-1) - 1).abs().max()) < 1e-6


def test_distance_is_that_to_the_nearest_point():
    """The slow twin: the nearest of many points of the outline."""
    box, ball = Obstacle(x=1, y=2, wide=0.5, high=0.25), Obstacle(x=-1, y=0, wide=0.7)
    line = torch.linspace(-1, 1, 2001)
    edge = torch.ones_like(line)
    square = torch.cat([torch.stack(p, -1) for p in ((line, edge), (line, -edge), (edge, line), (-edge, line))])
    around_ball = torch.stack([torch.cos(math.pi * line), torch.sin(math.pi * line)], -1)
    outlines = (
        (box, square * torch.tensor([0.5, 0.25]) + torch.tensor([1.0, 2.0])),
        (ball, around_ball * 0.7 - torch.tensor([1.0, 0.0])),
    )
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 4 - 1.5
    for thing, outline in outlines:
        torch.testing.assert_close(thing.distance(points).abs(), torch.cdist(points, outline).amin(1), atol=1e-3, rtol=0)
    assert float(box.distance(torch.tensor([1.0, 2.0]))) == -0.25 and float(
        ball.distance(torch.tensor([-1.0, 0]))
    ) == pytest.approx(-0.7)


def test_cells_are_free_where_a_figure_fits():
    made = replace(ROOMS[1], obstacles=(), seat=None, wide=4.0, high=2.0)
    free = walkable(made, cells=16)
    assert free.shape == (8, 16)
    assert torch.equal(free, torch.nn.functional.pad(torch.ones(6, 14, dtype=torch.bool), (1, 1, 1, 1)))


def test_the_walker_sees_what_is_ahead_at_the_top_of_its_map():
    made = replace(ROOMS[1], obstacles=(), seat=None, wide=4.0, high=4.0)
    ahead = around(made, (3.4, 2.0), 0)  # looks at the right wall
    assert not bool(ahead[:3].any()) and bool(ahead[8:].all())
    aside = around(made, (3.4, 2.0), 90)  # has it at its right hand
    assert not bool(aside[:, -3:].any()) and bool(aside[:, :8].all())


def test_a_picture_shows_walls_floor_and_obstacles():
    made = replace(
        ROOMS[1],
        obstacles=(Obstacle(x=1, y=1, wide=0.5, high=0.5),),
        seat=None,
        wide=4.0,
        high=4.0,
        start=(3.5, 3.5),
        goal=(3.5, 0.5),
    )
    image = draw_rooms([made], 92)[0, :3] / 2 + 0.5  # 20 px a metre, and 6 of wall
    torch.testing.assert_close(image[:, 92 - 6 - 20, 6 + 20], torch.tensor([0.55, 0.38, 0.24]))
    torch.testing.assert_close(image[:, 6 + 40, 6 + 20], torch.tensor([0.94, 0.90, 0.82]))
    torch.testing.assert_close(image[:, 4, 40], torch.tensor([0.25, 0.25, 0.28]))
    torch.testing.assert_close(draw_rooms(ROOMS[:3], 64)[1:2], draw_rooms(ROOMS[1:2], 64))


def test_impossible_requests_are_told():
    walled = replace(
        ROOMS[1], obstacles=(Obstacle(x=2, y=2, wide=0.2, high=2),), seat=None, wide=4.0, high=4.0, start=(0.5, 2), goal=(3.5, 2)
    )
    with pytest.raises(UserError, match=r"no free way leads from \(0.50, 2.00\) to \(3.50, 2.00\)"):
        path(walled)
    with pytest.raises(UserError, match="count from 0"):
        room(0, -1)
    with pytest.raises(UserError, match="0 to 8"):
        room(0, 0, clutter=9)
    with pytest.raises(UserError, match="blocks no way"):
        room(0, 0, clutter=0, blocked=True)
    with pytest.raises(UserError, match="32 to 128"):
        draw_rooms(ROOMS, 8)
    with pytest.raises(UserError, match="no room"):
        draw_rooms([], 64)
