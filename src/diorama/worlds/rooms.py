"""Simple rooms seen from above: walls, obstacles and a seat, how far everything is, where one can stand, and the shortest way through.

Metres, from the room's lower left corner: x to the right and y upwards as one sees it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.render import LARGEST, SMALLEST

Place = tuple[float, float]

BODY = 0.25  # metres from the middle of a figure to where it touches
SEAT = 0.24  # half of a seat's side
CELLS = 32  # of the grid of a room, along its longer side
TRIES = 60


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """A box, or a round thing where it has no height."""

    x: float  # of its middle
    y: float
    wide: float  # half of a box's side, or the radius
    high: float = 0.0

    @property
    def round(self) -> bool:
        return self.high == 0

    def distance(self, points: Tensor) -> Tensor:
        """Metres from points (..., 2) to the obstacle (...), below 0 inside."""
        away = points - torch.tensor([self.x, self.y])
        if self.round:
            return away.norm(dim=-1) - self.wide
        beyond = away.abs() - torch.tensor([self.wide, self.high])
        return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)


@dataclass(frozen=True, kw_only=True)
class Room:
    """One room. Who sits on the seat looks along `facing`, in degrees: 0 along x, 90 along y."""

    seed: int
    index: int
    wide: float
    high: float
    obstacles: tuple[Obstacle, ...]
    seat: Obstacle | None
    facing: float
    start: Place
    goal: Place

    @property
    def solid(self) -> tuple[Obstacle, ...]:
        """All that one cannot walk through."""
        return (*self.obstacles, *([self.seat] if self.seat else []))


def room(seed: int, index: int, clutter: int = 4, blocked: bool = False) -> Room:
    """Room `index` of the world `seed` with up to `clutter` obstacles and a way from start to goal; straight ahead it is not,
    where it is to be `blocked`.

    Raises UserError for an index below 0, a clutter outside of 0 .. 8, or an empty room that is to be blocked.
    """
    if index < 0:
        raise UserError(f"room {index} does not exist: count from 0")
    if not 0 <= clutter <= 8:
        raise UserError(f"{clutter} obstacles do not fit a room: use 0 to 8")
    if blocked and not clutter:
        raise UserError("an empty room blocks no way: use a clutter of 1 or more")
    rng = random.Random(mix(seed, index, clutter, 0xF100))
    while True:  # a new room now and then: most have a way
        made = _furnished(seed, index, clutter, rng)
        for _ in range(TRIES):
            start, goal = (_somewhere(made, rng) for _ in "ab")
            found = Room(**{**vars(made), "start": start, "goal": goal})
            far = math.dist(start, goal) > 0.5 * min(made.wide, made.high)
            if far and not (blocked and sees(found, start, goal)) and _free(found, start) and _free(found, goal) and _way(found):
                return found


def _furnished(seed: int, index: int, clutter: int, rng: random.Random) -> Room:
    wide, high = _between(3.5, 6, rng), _between(3.5, 6, rng)
    things: list[Obstacle] = []
    facing = 90.0 * int(4 * rng.random())
    seat = Obstacle(x=_between(0.6, wide - 0.6, rng), y=_between(0.6, high - 0.6, rng), wide=SEAT, high=SEAT)
    for _ in range(TRIES):
        if len(things) == clutter:
            break
        half, other = _between(0.2, 0.6, rng), _between(0.2, 0.6, rng) if rng.random() < 0.6 else 0.0
        thing = Obstacle(
            x=_between(half, wide - half, rng), y=_between(other or half, high - (other or half), rng), wide=half, high=other
        )
        reach = math.hypot(half, other)
        if all(math.dist((thing.x, thing.y), (o.x, o.y)) > reach + math.hypot(o.wide, o.high) for o in (*things, seat)):
            things.append(thing)
    return Room(
        seed=seed, index=index, wide=wide, high=high, obstacles=tuple(things), seat=seat, facing=facing, start=(0, 0), goal=(0, 0)
    )


def _between(low: float, high: float, rng: random.Random) -> float:
    return low + (high - low) * rng.random()


def _somewhere(room: Room, rng: random.Random) -> Place:
    return _between(BODY, room.wide - BODY, rng), _between(BODY, room.high - BODY, rng)


def _free(room: Room, place: Place) -> bool:
    return float(distance(room, torch.tensor(place))) > BODY


def _way(room: Room) -> bool:
    free = walkable(room)
    cells = (_cell(room, room.start), _cell(room, room.goal))
    return all(free[cell] for cell in cells) and bool(shortest(free, *cells))


# --- how far --------------------------------------------------------------------------------------


def distance(room: Room, points: Tensor) -> Tensor:
    """Metres (...) from points (..., 2) to the nearest wall or obstacle; below 0 inside one, and outside of the room."""
    walls = torch.cat([points, torch.tensor([room.wide, room.high]) - points], -1).amin(-1)
    return torch.stack([walls, *(thing.distance(points) for thing in room.solid)]).amin(0)


def sees(room: Room, a: Place, b: Place) -> bool:
    """Whether a figure can walk straight from a to b."""
    steps = torch.linspace(0, 1, 2 + int(math.dist(a, b) / 0.05))[:, None]
    return bool((distance(room, torch.lerp(torch.tensor(a), torch.tensor(b), steps)) > BODY).all())


def around(room: Room, place: Place, heading: float, side: float = 1.6, cells: int = 16) -> Tensor:
    """(cells, cells) bool: where one could stand in a square around a place, turned with the walker: row 0 is farthest ahead,
    column 0 farthest to its left. heading in degrees, as `Room.facing`."""
    line = (torch.arange(cells) + 0.5) / cells * side - side / 2
    ahead, right = -line[:, None], line[None]
    cos, sin = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    x, y = ahead * cos + right * sin, ahead * sin - right * cos
    return distance(room, torch.stack([x, y], -1) + torch.tensor(place)) > BODY


# --- where to walk --------------------------------------------------------------------------------

Cell = tuple[int, int]  # row, along y, and column, along x


def pitch(room: Room, cells: int = CELLS) -> float:
    """Metres along a cell of the room's grid."""
    return max(room.wide, room.high) / cells


def walkable(room: Room, cells: int = CELLS) -> Tensor:
    """(rows, columns) bool: the cells in whose middle a figure can stand; `cells` of them along the longer side."""
    step = pitch(room, cells)
    y, x = (step * (torch.arange(math.ceil(side / step - 1e-6)) + 0.5) for side in (room.high, room.wide))
    return distance(room, torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)) > BODY


def _cell(room: Room, place: Place, cells: int = CELLS) -> Cell:
    step = pitch(room, cells)
    return int(place[1] / step), int(place[0] / step)


def shortest(free: Tensor, start: Cell, goal: Cell) -> list[Cell]:
    """The cells of a shortest way between two free cells, or none where there is no way: A* (Hart et al. 1968) on eight neighbours,
    a step costs its length, and no step cuts the corner of a cell that is not free."""
    open_ = {(r, c) for r, c in free.nonzero().tolist()}
    steps = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c]
    queue, cost, came = [(octile(start, goal), start)], {start: 0.0}, {start: start}
    done: set[Cell] = set()
    while queue:
        _, here = heapq.heappop(queue)
        if here == goal:
            way = [here]
            while way[-1] != start:
                way.append(came[way[-1]])
            return way[::-1]
        if here in done or here not in open_:
            continue
        done.add(here)
        for r, c in steps:
            there = here[0] + r, here[1] + c
            if {there, (here[0] + r, here[1]), (here[0], here[1] + c)} <= open_:
                new = cost[here] + math.hypot(r, c)
                if new < cost.get(there, math.inf) - 1e-9:
                    cost[there], came[there] = new, here
                    heapq.heappush(queue, (new + octile(there, goal), there))
    return []


def octile(a: Cell, b: Cell) -> float:
    """The length, in cells, of the shortest way on eight neighbours where nothing is in between."""
    low, high = sorted((abs(a[0] - b[0]), abs(a[1] - b[1])))
    return high + (math.sqrt(2) - 1) * low


def path(room: Room, cells: int = CELLS) -> Tensor:
    """(n, 2) metres: the middles of the cells of a shortest way from start to goal. Raises UserError where there is none."""
    way = shortest(walkable(room, cells), _cell(room, room.start, cells), _cell(room, room.goal, cells))
    if not way:
        a, b = ("({:.2f}, {:.2f})".format(*place) for place in (room.start, room.goal))
        raise UserError(f"no free way leads from {a} to {b} in this room: move them, or take an obstacle out")
    return pitch(room, cells) * (torch.tensor(way).flip(-1) + 0.5)


# --- seen from above ------------------------------------------------------------------------------

PAINT = {"wall": (0.25, 0.25, 0.28), "floor": (0.94, 0.90, 0.82), "box": (0.55, 0.38, 0.24), "round": (0.25, 0.52, 0.42)}
PAINT |= {
    "seat": (0.20, 0.40, 0.78),
    "back": (0.12, 0.24, 0.50),
    "way": (0.90, 0.30, 0.20),
    "start": (0.15, 0.65, 0.25),
    "goal": (0.85, 0.12, 0.12),
}
MARGIN = 0.3  # metres of wall around


def draw_rooms(rooms: Sequence[Room], size: int, ways: bool = True) -> Tensor:
    """Top views (b, 4, size, size) in [-1, 1], y upwards, with start, goal and a shortest way between them if asked.

    Raises UserError for an impossible size, or where a way is asked for and there is none.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
    if not rooms:
        raise UserError("there is no room to draw: give one or more")
    return torch.stack([_drawn(made, size, ways) for made in rooms])


def _drawn(room: Room, size: int, ways: bool) -> Tensor:
    scale = size / (max(room.wide, room.high) + 2 * MARGIN)
    line = (torch.arange(size) + 0.5 - size / 2) / scale
    x, y = torch.meshgrid(line + room.wide / 2, room.high / 2 - line, indexing="xy")
    points = torch.stack([x, y], -1)
    walls = Obstacle(x=room.wide / 2, y=room.high / 2, wide=room.wide / 2, high=room.high / 2).distance(points)
    image = torch.zeros(4, size, size)
    image[:3] = 1

    def lay(paint: str, distance: Tensor) -> None:
        cover = (0.5 - scale * distance).clamp(0, 1)
        image.lerp_(torch.tensor([*PAINT[paint], 1.0])[:, None, None], cover)

    lay("wall", walls - MARGIN / 2)
    lay("floor", walls)
    for thing in room.obstacles:
        lay("round" if thing.round else "box", thing.distance(points))
    if room.seat:
        lay("seat", room.seat.distance(points))
        cos, sin = math.cos(math.radians(room.facing)), math.sin(math.radians(room.facing))
        behind = (points - torch.tensor([room.seat.x, room.seat.y])) @ torch.tensor([cos, sin]) + 0.6 * SEAT
        lay("back", torch.maximum(room.seat.distance(points), behind))
    for a, b in pairwise(path(room).unbind()) if ways else ():
        t = (((points - a) @ (b - a)) / (b - a).square().sum()).clamp(0, 1)
        lay("way", (points - a - t[..., None] * (b - a)).norm(dim=-1) - 0.04)
    for name, (at_x, at_y) in (("start", room.start), ("goal", room.goal)):
        lay(name, Obstacle(x=at_x, y=at_y, wide=0.14).distance(points))
    return image * 2 - 1
