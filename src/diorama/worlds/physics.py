"""Discs that fly, bounce and collide. Between two contacts every path is a parabola, so nothing is stepped and nothing drifts.

Lengths are shares of the picture's side, y downwards; times are seconds; a disc weighs its radius squared.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LEAST = 0.06  # a damped bounce never leaves slower than this: a hop too low to see instead of infinitely many


class State(NamedTuple):
    """Where a disc is at a time, and how fast."""

    time: float
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0


class Law(NamedTuple):
    """What moves the discs: gravity in sides per second squared, the share of speed a wall gives back, and whether anything is solid."""

    gravity: float = 0.0
    keep: float = 1.0
    solid: bool = True


@dataclass(frozen=True)
class Contact:
    """Two discs, or one and a wall, meet. `speed` is how fast they close in."""

    time: float
    discs: tuple[int, ...]
    speed: float


@dataclass(frozen=True)
class Course:
    """What all discs do: their states after each contact of their own, and the contacts in order."""

    arcs: tuple[tuple[State, ...], ...]
    contacts: tuple[Contact, ...]
    law: Law

    def at(self, k: int, time: float) -> State:
        """Disc k at a time >= 0."""
        arcs = self.arcs[k]
        return fly(arcs[max(0, bisect_right(arcs, time, key=lambda state: state.time) - 1)], time, self.law.gravity)


def fly(state: State, time: float, gravity: float) -> State:
    """The disc later, if it meets nothing."""
    t = time - state.time
    y = state.y + state.vy * t + gravity * t * t / 2
    return State(time, state.x + state.vx * t, y, state.vx, state.vy + gravity * t)


def course(starts: Sequence[State], radii: Sequence[float], law: Law, until: float) -> Course:
    """From the starts at time 0 to `until`, between walls at 0 and 1; discs that are not solid pass through each other and the walls."""
    arcs, contacts, now = [[start] for start in starts], [], 0.0
    while law.solid:
        states = [fly(arc[-1], now, law.gravity) for arc in arcs]
        wait, discs, wall = min(_meetings(states, radii, law.gravity), default=(math.inf, (), ""))
        now += wait
        if now > until:
            break
        states = [fly(state, now, law.gravity) for state in states]
        speed, after = _rebound(states[discs[0]], wall, law) if wall else _collide(states, radii, discs)
        contacts.append(Contact(now, discs, speed))
        for k, state in zip(discs, after, strict=True):
            arcs[k].append(state)
    return Course(tuple(tuple(arc) for arc in arcs), tuple(contacts), law)


def _meetings(states: Sequence[State], radii: Sequence[float], gravity: float) -> Iterator[tuple[float, tuple[int, ...], str]]:
    """How long until each disc meets each wall ("x" at a side, "y" above or below) or each other disc, where it will."""
    for i, (a, r) in enumerate(zip(states, radii, strict=True)):
        if a.vx:
            yield max(0.0, (1 - r - a.x if a.vx > 0 else a.x - r) / abs(a.vx)), (i,), "x"
        yield from ((t, (i,), "y") for t in _vertical(a.y, a.vy, r, gravity))
        for j in range(i):
            b = states[j]
            x, y, vx, vy = a.x - b.x, a.y - b.y, a.vx - b.vx, a.vy - b.vy  # both fall alike: seen from b, a flies straight
            towards, speed2 = x * vx + y * vy, vx * vx + vy * vy
            gap = max(0.0, x * x + y * y - (r + radii[j]) ** 2)
            if towards < 0 and (root := towards * towards - speed2 * gap) >= 0:
                yield gap / (math.sqrt(root) - towards), (i, j), ""


def _vertical(y: float, vy: float, r: float, gravity: float) -> Iterator[float]:
    """Times until the floor and the ceiling. Each is the root at which the disc moves outwards, so that no contact is met twice."""
    floor, ceiling = max(0.0, 1 - r - y), max(0.0, y - r)
    if gravity:
        yield (math.sqrt(vy * vy + 2 * gravity * floor) - vy) / gravity
        if vy < 0 and (root := vy * vy - 2 * gravity * ceiling) >= 0:
            yield 2 * ceiling / (math.sqrt(root) - vy)
    elif vy:
        yield (floor if vy > 0 else ceiling) / abs(vy)


def _rebound(state: State, wall: str, law: Law) -> tuple[float, list[State]]:
    v = state.vx if wall == "x" else state.vy
    back = -math.copysign(max(law.keep * abs(v), min(abs(v), LEAST)), v)
    return abs(v), [state._replace(vx=back) if wall == "x" else state._replace(vy=back)]


def _collide(states: Sequence[State], radii: Sequence[float], discs: tuple[int, ...]) -> tuple[float, list[State]]:
    """An elastic collision: along the line of the centres, momentum is exchanged and the closing speed turns round."""
    a, b = (states[k] for k in discs)
    weight, other = (radii[k] ** 2 for k in discs)
    apart = math.hypot(a.x - b.x, a.y - b.y)
    x, y = (a.x - b.x) / apart, (a.y - b.y) / apart
    speed = -((a.vx - b.vx) * x + (a.vy - b.vy) * y)
    push = 2 * speed * weight * other / (weight + other)
    return speed, [
        a._replace(vx=a.vx + push * x / weight, vy=a.vy + push * y / weight),
        b._replace(vx=b.vx - push * x / other, vy=b.vy - push * y / other),
    ]
