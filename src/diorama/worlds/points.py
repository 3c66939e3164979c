"""Points of a scene's solids as a turning laser scanner finds them: one beam for each azimuth and elevation of a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.scenes.cameras import around
from diorama.types import Noise
from diorama.worlds.scene import MATERIALS, Scene
from diorama.worlds.space import NOTHING, check_outside, first, is_bare, meet, solids

RETURNS = {
    "matte": 0.45,
    "glossy": 0.7,
    "metal": 0.95,
}  # the share of a beam that comes back, met head on: its colour is no matter
EARTH = 0.25  # the same of the ground


@dataclass(frozen=True, kw_only=True)
class Beams:
    """A scanner: where it stands and which way its beams go, at azimuth 0 along +y and growing towards +x."""

    place: tuple[float, float, float] = (0.0, -1.3, 0.5)  # metres
    azimuths: tuple[float, float, int] = (-45.0, 45.0, 96)  # degrees from and to, and how many
    elevations: tuple[float, float, int] = (-40.0, 5.0, 32)
    reach: float = 4.0  # metres: farther returns are lost
    error: float = 0.0  # metres: the spread of the measured distance

    def __post_init__(self) -> None:
        if min(self.azimuths[2], self.elevations[2]) < 1:
            raise UserError(f"{self.azimuths[2]} x {self.elevations[2]} beams are not possible: use 1 x 1 or more")
        if self.reach <= 0 or self.error < 0:
            raise UserError(
                f"reach {self.reach} and error {self.error} are not possible: use a reach above 0 and an error of 0 or more"
            )

    @property
    def directions(self) -> Tensor:
        """(n, 3) unit vectors, elevation by elevation."""
        elevation, azimuth = torch.meshgrid(torch.linspace(*self.elevations), torch.linspace(*self.azimuths), indexing="ij")
        return around(180 - azimuth.flatten(), elevation.flatten())


@dataclass(frozen=True)
class Scan:
    """What n beams bring back of b scenes."""

    points: Tensor  # (b, n, 3) metres; the scanner's place where nothing came back
    distance: Tensor  # (b, n) metres as measured; inf where nothing came back
    thing: Tensor  # (b, n) int64: the place of what was met in its scene, GROUND or NOTHING
    reflectivity: Tensor  # (b, n) in 0 .. 1: the share that came back, by material and by how steeply it was met

    def array(self, i: int) -> np.ndarray:
        """The returns of scene i as one structured array: x, y, z, reflectivity, thing."""
        back = self.thing[i] != NOTHING
        columns = [*self.points[i, back].T, self.reflectivity[i, back], self.thing[i, back]]
        kinds = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("reflectivity", "<f4"), ("thing", "<i4")]
        return np.rec.fromarrays([column.numpy() for column in columns], dtype=kinds).view(np.ndarray)


def scan(scenes: Sequence[Scene], noise: Noise | None = None, beams: Beams = Beams()) -> Scan:
    """What a scanner finds of each scene; `noise`, of one seed a scene, moves points along their beams by `beams.error`.

    Raises UserError where the scanner stands in a thing or below the ground, or where an error comes without noise.
    """
    if not scenes:
        raise UserError("there is no scene to scan: give one or more")
    if beams.error and noise is None:
        raise UserError(f"an error of {beams.error} needs noise: give Noise(seeds), one seed a scene")
    things, bare, b = solids(scenes), is_bare(scenes), len(scenes)
    place = torch.tensor(beams.place)
    check_outside(scenes, things, place.expand(b, 1, 3))
    direction = beams.directions.expand(b, -1, 3)
    origin = place.expand_as(direction)
    seen = first(things, meet(things, origin, direction), origin, direction, bare)
    lost = seen.distance > beams.reach
    returns = torch.tensor([RETURNS[name] for name in MATERIALS] + [0.0, EARTH])  # the last two: NOTHING, GROUND
    solid = seen.row >= 0
    thing, kind = seen.row.clone(), seen.row.clone()
    thing[solid], kind[solid] = things.thing[seen.row[solid]], things.material[seen.row[solid]]
    thing[lost] = NOTHING
    steep = -(seen.normal * direction.flatten(0, 1)).sum(1)
    distance = torch.where(lost, torch.inf, seen.distance).unflatten(0, (b, -1))
    if noise is not None:
        distance = distance + beams.error * noise.normal(direction.shape[1])
    return Scan(
        points=origin + torch.where(distance.isfinite(), distance, 0)[..., None] * direction,
        distance=distance,
        thing=thing.unflatten(0, (b, -1)),
        reflectivity=torch.where(lost, 0, returns[kind] * steep).unflatten(0, (b, -1)),
    )
