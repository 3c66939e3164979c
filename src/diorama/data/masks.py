"""Where the subject of a picture is, how well several opinions of it agree, and whether it has the colours its caption names.

Pictures are small squares here: (s, s, 4) uint8, straight RGBA; masks are (s, s) bool.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from PIL import Image

from diorama.data.colours import COLOURS

GROUND = 24  # of 255: how far the edge of a picture may stray from its middle colour and still be one ground
APART = 40  # of 255: how far from the ground's colour a pixel of the subject is
PLAIN = 0.7  # the share of the edge that must be ground for there to be one
HUES = {name: colour.hue for name, colour in COLOURS.items() if colour.saturation > 0.4 and name != "brown"}
NAMED = re.compile(rf"\b(?:{'|'.join(HUES)})\b")
REACH = 35.0  # degrees to either side of a hue that may still be called so


def subject(picture: np.ndarray) -> np.ndarray | None:
    """What alpha shows; of an opaque picture, what stands apart from a plain ground. None where neither is there."""
    alpha = picture[..., 3]
    if alpha.min() < 128:
        return alpha >= 128
    rgb = picture[..., :3].astype(np.int16)
    edge = np.concatenate([rgb[0], rgb[-1], rgb[1:-1, 0], rgb[1:-1, -1]])
    ground = np.median(edge, axis=0)
    if (np.abs(edge - ground).max(1) <= GROUND).mean() < PLAIN:
        return None
    return np.abs(rgb - ground).max(2) > APART


def as_mask(picture: np.ndarray) -> np.ndarray:
    """A picture that was made as a mask: its alpha where it has any, else what is bright."""
    return picture[..., 3] >= 128 if picture[..., 3].min() < 128 else picture[..., :3].mean(2) >= 128


def agreement(masks: Sequence[np.ndarray]) -> float:
    """The smallest intersection over union of any two; nan where there are no two. Two empty masks agree."""
    overlaps = [(a & b).sum() / u if (u := (a | b).sum()) else 1.0 for a, b in combinations(masks, 2)]
    return float(min(overlaps, default=math.nan))


def colours_shown(picture: np.ndarray, mask: np.ndarray, caption: str) -> float:
    """Of the colours the caption names, the one seen least: its share of the mask, 0 .. 1; nan where none is named.

    Hues alone are asked for: what is called black, white or brown depends on the light.
    """
    asked = set(NAMED.findall(caption.lower()))
    if not asked or not mask.any():
        return math.nan
    rgb = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    hue, saturation, value = np.moveaxis(np.asarray(rgb.convert("HSV"))[mask].astype(np.float32), -1, 0)
    colourful = (saturation > 50) & (value > 50)
    away = {name: np.abs((hue * (360 / 256) - HUES[name] + 180) % 360 - 180) for name in asked}
    return float(min((colourful & (off <= REACH)).mean() for off in away.values()))
