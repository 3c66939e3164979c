"""Colours by name: what hue an object mostly has, and the same object in another colour."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops


class Colour(NamedTuple):
    """Hue in degrees, saturation and value in 0 .. 1: what the middle of an object of this colour looks like."""

    hue: float
    saturation: float
    value: float

    def rgb(self) -> tuple[int, int, int]:
        hsv = np.array([[[self.hue / 360 * 256 % 256, self.saturation * 255, self.value * 255]]], dtype=np.uint8)
        r, g, b = Image.fromarray(hsv, "HSV").convert("RGB").getpixel((0, 0))  # type: ignore[misc]
        return r, g, b


COLOURS = {
    "red": Colour(2, 0.82, 0.87),
    "orange": Colour(27, 0.85, 0.97),
    "yellow": Colour(51, 0.78, 0.99),
    "green": Colour(125, 0.65, 0.68),
    "blue": Colour(216, 0.76, 0.90),
    "purple": Colour(276, 0.62, 0.78),
    "pink": Colour(335, 0.45, 0.99),
    "brown": Colour(24, 0.62, 0.50),
    "black": Colour(0, 0.0, 0.17),
}
GROUNDS = {
    **COLOURS,
    "gray": Colour(0, 0.0, 0.62),
    "white": Colour(0, 0.0, 1.0),
    "light blue": Colour(200, 0.32, 0.97),
    "dark blue": Colour(222, 0.78, 0.42),
    "light green": Colour(110, 0.33, 0.90),
    "dark green": Colour(140, 0.70, 0.36),
}
COLOUR_WORDS = re.compile(
    r"\b(?:red|orange|yellow|green|blue|purple|pink|brown|black|white|gr[ae]y|gold|golden|silver|violet|cyan|magenta|teal|beige|"
    r"turquoise|rainbow|colou?r|colou?red|blonde?|dark|light)\b"
)


class Dominant(NamedTuple):
    """The colour that most of an object has, in Pillow's 8-bit HSV, and how much of what is visible has it."""

    hue: int
    saturation: int
    value: int
    share: float
    between: float  # the share that is neither this colour nor clearly another: a play of colours that cannot be cut apart


NEAR = 18  # of 256 hues, about 25 degrees: still the same colour to the eye
SURE, FADE = 20, 14  # hues within SURE are recoloured wholly, over the next FADE less and less


def dominant(image: Image.Image) -> Dominant | None:
    """The dominant saturated hue of a straight RGBA picture, or None where nothing visible is colourful."""
    pixels = np.asarray(image)
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("RGB").convert("HSV")), -1, 0)
    visible = pixels[..., 3] > 128
    colourful = visible & (saturation > 90) & (value > 60)
    if not colourful.any():
        return None
    counts = np.bincount(hue[colourful], minlength=256)
    around = np.concatenate([counts[-NEAR:], counts, counts[:NEAR]])
    windows = np.convolve(around, np.ones(2 * NEAR + 1, dtype=np.int64), "valid")  # (256,) pixels within NEAR of each hue
    peak = int(windows.argmax())
    offset = (hue[colourful].astype(np.int16) - peak + 128) % 256 - 128  # hues go round
    mine = np.abs(offset) <= NEAR
    centre = round(peak + float(offset[mine].mean())) % 256
    middle = [int(np.median(channel[colourful][mine])) for channel in (saturation, value)]
    away = np.abs((hue[colourful].astype(np.int16) - centre + 128) % 256 - 128)
    between = ((away > SURE) & (away < SURE + FADE + 12)).sum()
    return Dominant(centre, middle[0], middle[1], float(mine.sum() / visible.sum()), float(between / visible.sum()))


def recolour(image: Image.Image, old: Dominant, new: Colour) -> Image.Image:
    """The same object with its dominant colour replaced; other hues, whites, blacks, shading and alpha stay."""
    rgb = image.convert("RGB")
    hue, saturation, value = rgb.convert("HSV").split()
    offset = (np.arange(256) - old.hue + 128) % 256 - 128
    target = (new.hue / 360 * 256 + offset * 0.35) % 256  # a little of the play of hues stays
    member = np.clip((SURE + FADE - np.abs(offset)) / FADE, 0, 1) * 255
    coloured = np.clip((np.arange(256) - 20) / 50, 0, 1) * 255  # greys and highlights have no hue to change
    mask = ImageChops.multiply(hue.point(_list(member)), saturation.point(_list(coloured)))
    changed = Image.merge(
        "HSV",
        [
            hue.point(_list(target)),
            saturation.point(_tone(old.saturation, new.saturation)),
            value.point(_tone(old.value, new.value)),
        ],
    ).convert("RGB")
    out = Image.composite(changed, rgb, mask)
    out.putalpha(image.getchannel("A"))
    return out


def _tone(old: int, new: float) -> list[int]:
    """A table that takes the old middle to the new: in proportion when it falls, by a power when it rises, so nothing clips."""
    x, middle = np.arange(256) / 255, min(max(old / 255, 0.02), 0.98)
    return _list(255 * (x * new / middle if new < middle else x ** (np.log(new) / np.log(middle))))


def _list(values: np.ndarray) -> list[int]:
    """A look-up table for `Image.point`."""
    return [int(v) for v in np.clip(np.round(values), 0, 255)]
