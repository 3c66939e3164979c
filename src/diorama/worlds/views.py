"""The 3D mode: pictures of scenes from any camera, with depth, normals, masks and shadows, by casting rays.

A pixel's colour and masks are half of its centre and an eighth of each of its corners, which it shares with its neighbours: two rays
a pixel. Depth, normals and `thing` are those of the centre alone. Styles belong to the flat mode; everything is lit here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.scenes.cameras import Camera, around, pixel_centres, rays
from diorama.worlds.render import LARGEST, SMALLEST, TINT, ground, pattern
from diorama.worlds.scene import TONES, Scene
from diorama.worlds.shapes import KINDS
from diorama.worlds.space import BUILDS, NOTHING, Sight, Solids, check_outside, first, is_bare, meet, solids

AT_ONCE = 1 << 18  # rays cast together
AMBIENT = 0.55  # the share of the light that comes from everywhere
LIFT = 0.003  # metres off a surface from which its own shadow is sought
TILE = 64  # pixels of a flat ground on the floor
FADE = 4.0  # half metres
SHINE = torch.tensor([(0.0, 1.0), (0.5, 40.0), (0.35, 8.0)])  # of each material: strength and sharpness of its highlight
MARKS = torch.tensor([BUILDS[kind].mark for kind in KINDS])


@dataclass(frozen=True)
class Shots:
    """What v cameras see of b scenes; b comes first, then v, then things k, of which some scenes have fewer."""

    image: Tensor  # (b, v, 4, h, w) in [-1, 1]: the picture on white and its alpha
    depth: Tensor  # (b, v, h, w) metres along the camera's z; inf where nothing is
    normals: Tensor  # (b, v, 3, h, w) unit vectors in the camera's axes, towards the camera; 0 where nothing is
    thing: Tensor  # (b, v, h, w) int64: the place of what is seen in its scene, GROUND or NOTHING
    masks: Tensor  # (b, v, k, h, w) in 0 .. 1: the share of each pixel where thing k is seen
    whole: Tensor  # (b, v, k, h, w) in 0 .. 1: the same if nothing covered it
    marks: Tensor  # (b, v, k, h, w) in 0 .. 1: the share of each pixel where the front mark of thing k is seen


def shoot(scenes: Sequence[Scene], camera: Camera, apart: bool = True) -> Shots:
    """Pictures of every scene by the same cameras (v,), or by its own of (b, v); `apart` as in `space.solids`. Raises UserError where a
    camera sees nothing of use: a size that is not 32 to 128, no camera or scene, a camera below the ground or inside a thing.
    """
    if not scenes:
        raise UserError("there is no scene to draw: give one or more")
    for size in (camera.height, camera.width):
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
    if camera.K.ndim not in (3, 4) or 0 in camera.K.shape:
        raise UserError(
            f"cameras of shape {tuple(camera.K.shape[:-2])} are not possible: use (views,) or (scenes, views), 1 or more"
        )
    shape = (len(scenes), *camera.K.shape[-3:-2])
    camera = Camera(camera.K.expand(*shape, 3, 3), camera.world_to_camera.expand(*shape, 4, 4), camera.height, camera.width)
    most = max(len(scene.things) for scene in scenes)
    n = max(1, AT_ONCE // (2 * shape[1] * camera.height * camera.width))
    parts = [_shoot(scenes[i : i + n], camera.rows(slice(i, i + n)), most, apart) for i in range(0, len(scenes), n)]
    return Shots(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Shots)))


def _shoot(scenes: Sequence[Scene], camera: Camera, most: int, apart: bool) -> Shots:
    b, v, h, w = *camera.K.shape[:2], camera.height, camera.width
    things, bare = solids(scenes, apart), is_bare(scenes)
    check_outside(scenes, things, camera.centre)
    at = torch.cat([pixel_centres(h, w), pixel_centres(h + 1, w + 1) - 0.5])  # (r, 2): middles and corners
    eye, deep = rays(camera, at)  # (b, v, 3), (b, v, r, 3)
    length = deep.norm(dim=-1)
    origin, direction = eye.repeat_interleave(len(at), 1), (deep / length[..., None]).flatten(1, 2)  # (b, v * r, 3)
    met = meet(things, origin, direction)
    seen = first(things, met, origin, direction, bare)
    colours, marked = _paint(scenes, things, seen, direction, h)
    ray = (seen.row >= 0).nonzero()[:, 0]
    thing = seen.row.clone()
    thing[ray] = things.thing[seen.row[ray]]

    def masks(ray: Tensor, thing: Tensor) -> Tensor:  # (n,), (n,) -> (b, v, k, h, w)
        plane = ray // len(at) * most + thing
        return _covered(plane, ray % len(at), b * v * most, h, w).unflatten(0, (b, v, most))

    def middle(part: Tensor) -> Tensor:  # (b * v * r, *) -> (b, v, h, w, *)
        return part.unflatten(0, (b, v, len(at)))[:, :, : h * w].unflatten(2, (h, w))

    return Shots(
        image=(_shares(colours.unflatten(0, (b * v, len(at))), h, w) * 2 - 1).unflatten(0, (b, v)),
        depth=middle(seen.distance / length.flatten()),
        normals=(middle(seen.normal) @ camera.world_to_camera[:, :, None, :3, :3].mT).permute(0, 1, 4, 2, 3),
        thing=middle(thing),
        masks=masks(ray, thing[ray]),
        whole=masks(met.ray, things.thing[met.row]),
        marks=masks(*(part[marked] for part in (ray, thing[ray]))),
    )


def _shares(planes: Tensor, h: int, w: int) -> Tensor:
    """(n, c, h, w): what rays (n, h * w + (h + 1) * (w + 1), c) through middles and corners of pixels say of the pixels."""
    middle, corner = planes[:, : h * w].unflatten(1, (h, w)), planes[:, h * w :].unflatten(1, (h + 1, w + 1))
    sides = corner[:, 1:] + corner[:, :-1]
    return (middle / 2 + (sides[:, :, 1:] + sides[:, :, :-1]) / 8).permute(0, 3, 1, 2)


def _covered(plane: Tensor, ray: Tensor, planes: int, h: int, w: int) -> Tensor:
    """(planes, h, w): the same of planes that are 1 for these rays (n,) of these planes (n,) and 0 for the others: most are 0."""
    spot = torch.arange((h + 2) * (w + 2)).reshape(h + 2, w + 2)  # pixels with a rim: a corner may have neighbours outside
    middle = spot[1:-1, 1:-1].flatten().expand(4, -1)
    corner = torch.stack([spot[:-1, :-1], spot[:-1, 1:], spot[1:, :-1], spot[1:, 1:]]).flatten(1)
    given = torch.cat([middle, corner], 1)  # (4, r): the pixels to which each ray gives an eighth
    eighths = torch.bincount((plane * spot.numel() + given[:, ray]).flatten(), minlength=planes * spot.numel())
    return (eighths / 8).unflatten(0, (planes, h + 2, w + 2))[:, 1:-1, 1:-1]


# --- light and colour -----------------------------------------------------------------------------


def _paint(scenes: Sequence[Scene], things: Solids, seen: Sight, direction: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(n, 4) in 0 .. 1: what each ray sees, on white, and its alpha; and for those that see a solid, whether it is its front mark."""
    ray = (seen.row >= 0).nonzero()[:, 0]
    row = seen.row[ray]
    places = things.places(row, seen.point[ray].T)
    albedo, marked = _albedo(things, row, places, seen.normal[ray].T, size)
    colours = _grounds(scenes, seen)
    colours[ray] = torch.nn.functional.pad(albedo, (0, 1), value=1.0)
    sun = around(*torch.tensor([scene.light for scene in scenes]).T)  # (b, 3)
    lit = _lit(things, seen, sun)
    sun, normal = sun[ray // direction.shape[1]], seen.normal[ray]
    facing = (normal * sun).sum(1).clamp(min=0)
    direct = (seen.row != NOTHING) * (lit - 1) + 1  # the ground keeps its tone in the light, whatever the sun's height
    direct[ray] = facing * lit[ray]
    colours[:, :3] *= (AMBIENT + (1 - AMBIENT) * direct)[:, None]
    strength, sharpness = SHINE[things.material[row]].T
    half = torch.nn.functional.normalize(sun - direction.flatten(0, 1)[ray], dim=1)
    shine = strength * (normal * half).sum(1).clamp(min=0) ** sharpness * (facing > 0) * lit[ray]
    colours[ray, :3] = torch.lerp(colours[ray, :3], torch.ones(3), shine[:, None])
    return colours, marked


def _lit(things: Solids, seen: Sight, sun: Tensor) -> Tensor:
    """(n,): 1 where the sun (b, 3) reaches what is seen, 0 where a solid is before it."""
    start = (seen.point + LIFT * seen.normal).unflatten(0, (len(sun), -1))
    lit = torch.ones(len(seen.row))
    lit[meet(things, start, sun[:, None].expand_as(start)).ray] = 0
    return lit


def _albedo(things: Solids, row: Tensor, places: Tensor, normal: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Colours (n, 3) of places (3, n) on solids by themselves, and whether they are on the front mark (n,)."""
    poses = things.poses
    x, y, z = places
    along = things.turn(row, normal).abs()  # a texture lies flat on the side it is on
    across, down = torch.where(along[0] > along[1:].amax(0), y, x), torch.where(along[2] > along[:2].amax(0), y, -z)
    cos, sin = poses.grain[row].cos(), poses.grain[row].sin()
    lighter = TINT * pattern(poses.texture[row], cos * across + sin * down, cos * down - sin * across, poses.radius[row] * size)
    colour = torch.lerp(poses.rgb[row], torch.ones(3), lighter[:, None])
    right, below, radius = MARKS[poses.kind[row]].T
    off = torch.hypot(x - right, -z - below) / radius
    marked = (off < 1) & (y < 0)
    eye = torch.where(off < 0.5, 0.05, 0.97)[:, None]  # a dark spot on a white one: no thing has such colours
    return torch.where(marked[:, None], eye, colour), marked


def _grounds(scenes: Sequence[Scene], seen: Sight) -> Tensor:
    """(n, 4) in 0 .. 1: the flat grounds laid on the floor, fading into their tone far out; white where there is none."""
    flat = ground(scenes, TILE).permute(0, 3, 1, 2)
    plan = seen.point[:, :2].unflatten(0, (len(scenes), -1)) * torch.tensor([2.0, -2.0])  # 1 at the picture's edge
    laid = torch.nn.functional.grid_sample(flat, plan[:, :, None], padding_mode="reflection", align_corners=False)[..., 0].mT
    tone = torch.tensor([(*TONES[s.ground.tone], 1.0) if s.ground.kind != "clear" else (1.0, 1.0, 1.0, 0.0) for s in scenes])
    near = torch.exp(-(plan.square().sum(-1, keepdim=True) / FADE**2))
    return torch.lerp(tone[:, None], laid, near).flatten(0, 1)
