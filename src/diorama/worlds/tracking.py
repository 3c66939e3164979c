"""What every frame of a clip shows and where, for measures that ask whether it stays: the still oracle, frame by frame."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from diorama.worlds.oracle import Oracle
from diorama.worlds.scene import COLOURS, TONES
from diorama.worlds.shapes import SHAPES

LEAP = 1.5 * 0.7  # sides a second: half as far again as anything goes


def tracked(clips: Tensor) -> tuple[Tensor, Tensor]:
    """What the oracle reads of every frame of (b, c, t, h, w): kinds (b, t, k) and places (b, t, k, 2) in sides.

    One slot for each colour, of which no two things of a clip share one: which shape has it; and one for the tone of the ground.
    """
    b, t = len(clips), clips.shape[2]
    kinds, places = torch.full((b * t, len(COLOURS) + 1), -1), torch.full((b * t, len(COLOURS) + 1, 2), torch.nan)
    colours, shapes, tones = (list(words) for words in (COLOURS, SHAPES, TONES))
    for i, reading in enumerate(Oracle().read(rearrange(clips, "b c t h w -> (b t) c h w"))):
        if not reading.readable:
            continue
        for thing in reading.named:
            if thing.shape is not None:
                kinds[i, colours.index(thing.colour)] = shapes.index(thing.shape)
                places[i, colours.index(thing.colour)] = torch.tensor([thing.x, thing.y])
        if reading.named and reading.tone is not None:
            kinds[i, -1], places[i, -1] = tones.index(reading.tone), 0.0
    return kinds.unflatten(0, (b, t)), places.unflatten(0, (b, t))
