"""Figures and rooms shown to a person: rows of small pictures, as `diorama world` and the documentation lay them out."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import torch
from PIL import Image

from diorama.pictures import to_pil
from diorama.worlds.actions import act
from diorama.worlds.dressing import Dressed, draw
from diorama.worlds.figures import Figure, Posed, standing
from diorama.worlds.rooms import Room, draw_rooms
from diorama.worlds.wardrobe import PARTS, SLOTS, flat


def part_maps(dressed: Dressed) -> list[Image.Image]:
    """Palette pictures of part maps: 0 where nobody is, then one colour for each part."""
    hues = [colorsys.hsv_to_rgb(k * 0.38 % 1, 0.55 + 0.35 * (k % 2), 0.95 - 0.3 * (k % 3 == 2)) for k in range(len(PARTS))]
    pictures = [Image.fromarray(parts.byte().numpy(), "P") for parts in dressed.parts]
    for picture in pictures:
        picture.putpalette([255] * 3 + [round(255 * value) for hue in hues for value in hue])
    return pictures


def film(figure: Figure, action: str, frames: int, size: int, azimuth: float = 30.0, seed: int = 0) -> list[Image.Image]:
    """The figure at it, once through: a walk and the like as a whole period, as seen from this side."""
    period = act(figure, action, 1, seed).period
    posed = act(figure, action, frames, seed, rate=(frames - 1) / period if frames > 1 else 1.0).posed
    return to_pil(draw([figure] * frames, posed, size, azimuth).image)


def wardrobe(figure: Figure, size: int) -> list[Image.Image]:
    """Without its garments, each of them laid flat, and wearing them, from the front and from the back; RGB."""
    stood = standing([figure])
    flats = [picture.resize((size, size), Image.Resampling.NEAREST) for picture in to_pil(flat(figure.garments))]
    worn = [to_pil(draw([figure], stood, size, azimuth, wear).image)[0] for azimuth, wear in ((0, ()), (0, SLOTS), (180, SLOTS))]
    return [worn[0], *flats, *worn[1:]]


def figure_card(figure: Figure, size: int, action: str | None = None, azimuth: float = 30.0) -> list[Image.Image]:
    """What the world knows of a figure, at rest or in the middle of an action: picture, part map, shading, albedo, and `wardrobe`."""
    posed = standing([figure])
    if action is not None:
        motion = act(figure, action, 1)
        middle = act(figure, action, 2, rate=2 / motion.period).posed
        posed = Posed(middle.joints[1:], middle.turns[1:])
    dressed = draw([figure], posed, size, azimuth)
    layers = [
        torch.cat([2 * layer.expand(-1, 3, -1, -1) - 1, dressed.image[:, 3:]], 1) for layer in (dressed.shading, dressed.albedo)
    ]
    maps = [picture.convert("RGB") for picture in part_maps(dressed)]
    return [*to_pil(dressed.image), *maps, *(to_pil(layer)[0] for layer in layers), *wardrobe(figure, size)]


def room_cards(rooms: Sequence[Room], size: int) -> list[Image.Image]:
    """Top views with a shortest way from the green start to the red goal."""
    return to_pil(draw_rooms(rooms, size))
