"""The solids that a scene's things become in the 3D mode, and what rays meet of them.

The flat picture is the floor plan, one metre along a side: its right is +x, its top is +y, and a thing's angle turns it about its
upright axis, its front towards -y at angle 0. Each solid is its flat shape stood up and swept, with one mark on its front.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.worlds.render import Poses, as_poses
from diorama.worlds.scene import MATERIALS, Scene, Thing
from diorama.worlds.shapes import DISTANCES, KINDS, REACH, SUBJECT, subject

# --- one solid ------------------------------------------------------------------------------------

Flat = Callable[[Tensor, Tensor], Tensor]
Sweep = Callable[[Flat, Tensor, Tensor, Tensor, float], Tensor]  # (flat, x, y, z, width), z upwards, in radii -> signed distances


def cut(flat: Flat, x: Tensor, y: Tensor, z: Tensor, width: float) -> Tensor:
    """Sawn out of a board twice `width` thick: a cube of a square."""
    return torch.maximum(flat(x, -z), y.abs() - width)


def rounded(flat: Flat, x: Tensor, y: Tensor, z: Tensor, width: float) -> Tensor:
    """All that is within `width` of the shape's middle line: a ball of a circle, a torus of a ring."""
    return torch.hypot(flat(x, -z) + width, y) - width


def turned(flat: Flat, x: Tensor, y: Tensor, z: Tensor, width: float) -> Tensor:
    """Turned on a lathe: a cone of a triangle."""
    return flat(torch.hypot(x, y), -z)


class Build(NamedTuple):
    """How a flat shape becomes a solid; lengths in radii."""

    sweep: Sweep
    width: float  # from the middle to the front
    foot: float  # from the middle down to the lowest point
    mark: tuple[float, float, float]  # of the front: right of the middle, below it, radius


BUILDS = {
    "circle": Build(rounded, 0.92, 0.92, (0.0, 0.0, 0.42)),
    "square": Build(cut, 0.76, 0.76, (0.0, 0.0, 0.42)),
    "triangle": Build(turned, 0.9526, 0.55, (0.0, 0.15, 0.32)),
    "star": Build(cut, 0.32, 1.1 * math.cos(math.pi / 5), (0.0, 0.0, 0.36)),
    "heart": Build(cut, 0.32, 0.95, (0.0, -0.15, 0.4)),
    "cross": Build(cut, 0.34, 1.0, (0.0, 0.0, 0.33)),
    "ring": Build(rounded, 0.22, 0.98, (0.0, -0.76, 0.2)),
    "crescent": Build(cut, 0.3, 1.0, (-0.6, 0.0, 0.3)),
    SUBJECT: Build(cut, 0.35, math.nan, (0.0, 0.0, 0.34)),  # its foot depends on its waves
}
STEEP = 3.0  # a subject's outline changes at most so much faster than the distance to it


Surface = Callable[[Tensor, Tensor, Tensor], Tensor]  # places right of, behind and above a solid's middle -> signed distances


def surface(thing: Thing, waves: Tensor) -> Surface:
    """Bounds from below of the distances to the solid of a thing, in radii; 0 on it, negative inside."""
    build, flat = BUILDS[thing.shape], DISTANCES.get(thing.shape)
    outline = flat or (lambda u, v: subject(u[None], v[None], waves[None])[0] / STEEP)
    return lambda x, y, z: build.sweep(outline, x, y, z, build.width)


def _foot(thing: Thing, waves: Tensor) -> float:
    if thing.shape != SUBJECT:
        return BUILDS[thing.shape].foot
    turn = torch.linspace(-math.pi, math.pi, 361)[None]
    outline = 1 - subject(turn.sin(), turn.cos(), waves[None])  # its radius, since the unit circle is this far outside
    return float((outline * turn.cos()).max())


# --- the solids of scenes -------------------------------------------------------------------------


class Solids(NamedTuple):
    """m solids of b scenes."""

    poses: Poses  # the things' own numbers, lengths in metres; x and y are those of the floor plan
    scene: Tensor  # (m,) int64
    thing: Tensor  # (m,) int64: place in its scene
    centre: Tensor  # (m, 3) metres
    material: Tensor  # (m,) int64
    group: Tensor  # (m,) int64: the place of a solid's surface in `surfaces`
    surfaces: Sequence[Surface]

    def turn(self, rows: Tensor, vectors: Tensor, back: bool = False) -> Tensor:
        """Vectors (3, n) of the world along the axes of the solids in these rows (n,), or `back`."""
        cos, sin = self.poses.angle.cos()[rows], self.poses.angle.sin()[rows] * (-1 if back else 1)
        x, y, z = vectors
        return torch.stack([cos * x - sin * y, sin * x + cos * y, z])

    def places(self, rows: Tensor, points: Tensor) -> Tensor:
        """Points (3, n) of the world as the solids in these rows (n,) see them: from their middles, in radii."""
        return self.turn(rows, points - self.centre[rows].T) / self.poses.radius[rows]

    def alike(self, rows: Tensor) -> Iterator[tuple[Surface, Tensor]]:
        """Each surface and the places in rows (n,) of the solids that have it."""
        groups = self.group[rows]
        for group, surface in enumerate(self.surfaces):
            if len(k := (groups == group).nonzero()[:, 0]):
                yield surface, k

    def distance(self, rows: Tensor, places: Tensor) -> Tensor:
        """Distances (n,) in radii, as `surface` has them, of local places (3, n)."""
        out = torch.empty(len(rows))
        for surface, k in self.alike(rows):
            out[k] = surface(*places[:, k])
        return out

    def normals(self, rows: Tensor, places: Tensor) -> Tensor:
        """Unit vectors (3, n), in local axes too, that point out of the solids: central differences of the distance."""
        steps = 2e-3 * torch.cat([torch.eye(3), -torch.eye(3)]).T  # (3, 6)
        around = self.distance(rows.repeat(6), (places[:, None] + steps[:, :, None]).flatten(1))
        up, down = around.reshape(2, 3, -1)
        return torch.nn.functional.normalize(up - down, dim=0)


def solids(scenes: Sequence[Scene], apart: bool = True) -> Solids:
    """The solids of all things of these scenes, in order, each standing on the ground z = 0: apart as `stand` moves them, or else
    exactly where the plan has them.
    """
    stood = [stand(scene) if apart else scene.things for scene in scenes]
    owned = [(b, k, thing, scene.style) for b, scene in enumerate(scenes) for k, thing in enumerate(stood[b])]
    things = [thing for _, _, thing, _ in owned]
    poses = as_poses([(thing, style) for _, _, thing, style in owned], 1)
    foot = torch.tensor([_foot(thing, waves) for thing, waves in zip(things, poses.waves, strict=True)])
    numbers = [(b, k, MATERIALS.index(thing.material)) for b, k, thing, _ in owned]
    scene, thing, material = torch.tensor(numbers, dtype=torch.int64).reshape(-1, 3).T
    first = {(thing.shape, thing.subject): row for row, thing in reversed(list(enumerate(things)))}
    group = [list(first).index((thing.shape, thing.subject)) for thing in things]
    return Solids(
        poses=poses,
        scene=scene,
        thing=thing,
        centre=torch.stack([poses.x - 0.5, 0.5 - poses.y, poses.radius * foot], 1),
        material=material,
        group=torch.tensor(group, dtype=torch.int64),
        surfaces=[surface(things[row], poses.waves[row]) for row in first.values()],
    )


def is_bare(scenes: Sequence[Scene]) -> Tensor:
    """(b,) bool: which scenes have no ground to stand on."""
    return torch.tensor([scene.ground.kind == "clear" for scene in scenes])


def stand(scene: Scene) -> tuple[Thing, ...]:
    """The things where they stand on the floor plan, moved apart where their solids would meet.

    What is partly behind another thing in the picture stands behind it on the floor, seen from the front.
    """
    places = [(thing.x, thing.y) for thing in scene.things]
    for far, near in scene.behind:
        (x, y), need = places[near], _room(scene.things[far], scene.things[near])
        across = places[far][0] - x
        places[far] = (x + across, y - math.sqrt(max(need**2 - across**2, 0)))
    for _ in range(100):
        moved = False
        for i, j in itertools.combinations(range(len(places)), 2):
            (a, b), (c, d) = places[i], places[j]
            apart, need = math.hypot(c - a, d - b), _room(scene.things[i], scene.things[j])
            if apart < need - 1e-6:
                by, turn = (need - apart) / 2, math.atan2(d - b, c - a)
                across, down = by * math.cos(turn), by * math.sin(turn)
                places[i], places[j], moved = (a - across, b - down), (c + across, d + down), True
        if not moved:
            break
    return tuple(replace(thing, x=x, y=y) for thing, (x, y) in zip(scene.things, places, strict=True))


SIDE = math.hypot(REACH, 0.35)  # the farthest any solid reaches on the floor, in radii
LEAVE = 0.005  # metres between two solids


def _room(a: Thing, b: Thing) -> float:
    """How far apart the middles of two things must stand."""
    return SIDE * (a.radius + b.radius) + LEAVE


# --- what rays meet -------------------------------------------------------------------------------


GROUND, NOTHING = -1, -2  # in the place of a solid's row or a thing's number
FAR = 20.0  # metres: the ground ends there


class Meetings(NamedTuple):
    """n meetings of a ray with a solid: each where it first enters it."""

    row: Tensor  # (n,) int64, of the solid
    ray: Tensor  # (n,) int64, of all rays of all scenes, scene by scene
    distance: Tensor  # (n,) metres along the ray

    def first(self, rays: int) -> Meetings:
        """Of each of so many rays only the nearest."""
        nearest = torch.full((rays,), torch.inf).scatter_reduce(0, self.ray, self.distance, "amin")
        keep = (self.distance == nearest[self.ray]).nonzero()[:, 0]
        return Meetings(self.row[keep], self.ray[keep], self.distance[keep])


def meet(solids: Solids, origin: Tensor, direction: Tensor) -> Meetings:
    """Every solid that rays from origin (b, r, 3) along unit directions (b, r, 3) meet in their own scene b."""
    row, ray, near, far = _candidates(solids, origin, direction)
    radius, found = solids.poses.radius[row], torch.full((len(row),), torch.inf)
    start, along = solids.places(row, origin.flatten(0, 1)[ray].T), solids.turn(row, direction.flatten(0, 1)[ray].T)
    state = torch.cat([start, along, torch.stack([near, far]) / radius])  # the way is counted in radii
    for surface, k in solids.alike(row):
        found[k] = _trace(surface, state[:, k])
    k = found.isfinite().nonzero()[:, 0]
    return Meetings(row[k], ray[k], found[k] * radius[k])


def _candidates(solids: Solids, origin: Tensor, direction: Tensor) -> tuple[Tensor, ...]:
    """Rows (n,) and rays (n,) where a ray passes through the ball around a solid, from and to which distance."""
    centres, bounds, found = solids.centre, (solids.poses.radius * BOUNDS[solids.poses.kind]).square(), []
    ones = torch.ones(3)
    for b, (start, way) in enumerate(zip(origin, direction, strict=True)):  # one scene's rays stay in the cache
        row = (solids.scene == b).nonzero()[:, 0]
        centre, bound = centres[row], bounds[row, None]
        along = _products(centre, way) - (start * way) @ ones  # (k, r)
        away = start.square() @ ones - 2 * _products(centre, start) + centre.square() @ ones[:, None]
        room = bound - away  # above 0 where a ray starts inside
        ray, thing = (room + along.clamp(min=0).square() > 0).T.nonzero().T
        middle = along[thing, ray]
        half = (room[thing, ray] + middle.square()).sqrt()
        found.append((row[thing], b * len(way) + ray, (middle - half).clamp(min=0), middle + half))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _products(places: Tensor, rays: Tensor) -> Tensor:
    """(k, r) of (k, 3) and (r, 3): what a matrix product is, but rounded alike however many things a scene has."""
    (a, b, c), (x, y, z) = places.T[..., None], rays.T
    return a * x + b * y + c * z


BOUNDS = torch.tensor([math.hypot(REACH, BUILDS[kind].width) for kind in KINDS])  # of balls around solids, in radii
STEPS, NEAR, GRAZED = 64, 1e-4, 3e-3  # steps at most; distances in radii at which a ray has arrived, at once and at the end


@torch.inference_mode()  # most of its many steps are of few rays: what a step costs beside them matters
def _trace(surface: Surface, state: Tensor) -> Tensor:
    """Where rays enter a surface, in radii; inf where they miss it (sphere tracing: Hart 1996).

    state (8, n): where each starts, its direction, and from and to which way it can meet the surface.
    """
    found, live = torch.full_like(state[0], torch.inf), torch.arange(state.shape[1])
    start, along, (way, far) = state.split([3, 3, 2])
    for step in range(STEPS):
        d = surface(*torch.addcmul(start, along, way))
        if step % 4 == 3:
            arrived = d < (NEAR if step < STEPS - 1 else GRAZED)
            found[live[arrived]] = way[arrived]
            on = (~arrived & (way < far)).nonzero()[:, 0]
            if not len(on):
                break
            live, state, d = live[on], state[:, on], d[on]
            start, along, (way, far) = state.split([3, 3, 2])
        way += d
    return found


class Sight(NamedTuple):
    """What each of n rays meets first."""

    distance: Tensor  # (n,) metres along the ray; inf where it meets nothing
    row: Tensor  # (n,) int64, of the solid; GROUND or NOTHING
    point: Tensor  # (n, 3); above everything where it meets nothing
    normal: Tensor  # (n, 3) unit vectors, towards where the ray came from; 0 where it meets nothing


def first(solids: Solids, met: Meetings, origin: Tensor, direction: Tensor, bare: Tensor) -> Sight:
    """The first of the meetings of rays (b, r, 3), or the ground, which scenes `bare` (b,) do not have; n = b * r."""
    rays = origin.shape[:2].numel()
    met = met.first(rays)
    distance = -origin[..., 2] / direction[..., 2]
    distance = torch.where((distance > 0) & (distance < FAR) & ~bare[:, None], distance, torch.inf).flatten()
    origin, direction = origin.flatten(0, 1), direction.flatten(0, 1)
    row = torch.where(distance.isfinite(), GROUND, NOTHING)
    normal = torch.zeros(rays, 3)
    normal[:, 2] = row == GROUND
    distance[met.ray], row[met.ray] = met.distance, met.row  # nothing stands below the ground
    point = torch.where(row[:, None] == NOTHING, 100.0, origin + distance[:, None] * direction)
    outwards = solids.turn(met.row, solids.normals(met.row, solids.places(met.row, point[met.ray].T)), back=True).T
    towards = direction[met.ray]
    away = (outwards * towards).sum(1, keepdim=True).clamp(min=0)  # on an edge the difference may look past it
    normal[met.ray] = torch.nn.functional.normalize(outwards - away * towards, dim=1)
    return Sight(distance, row, point, normal)


def check_outside(scenes: Sequence[Scene], solids: Solids, eyes: Tensor) -> None:
    """Raises UserError where one of eyes (b, v, 3) is inside a solid of its scene, or below the ground of one that has it."""
    if bool((eyes[~is_bare(scenes)][..., 2] <= 0).any()):
        raise UserError("a camera stands below the ground: raise it, or use a scene with a clear ground")
    rows = torch.arange(len(solids.scene)).repeat_interleave(eyes.shape[1])
    inside = solids.distance(rows, solids.places(rows, eyes[solids.scene].flatten(0, 1).T)) <= 0
    for row in rows[inside].tolist()[:1]:
        scene = scenes[int(solids.scene[row])]
        raise UserError(f"a camera stands inside thing {int(solids.thing[row])} of scene {scene.index}: move it away")
