"""Tensors to pictures for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


def to_pil(x: Tensor, transparent: bool = False) -> list[Image.Image]:
    """(b, 4, h, w) in [-1, 1], the picture on white and its alpha, -> RGB pictures on white, or straight RGBA."""
    values = ((x.detach().float().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).cpu().numpy()
    return [_rgba(v) if transparent else Image.fromarray(_bytes(v[..., :3])) for v in values]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.round(255 * values.clip(0, 1)).astype(np.uint8)


def _rgba(values: np.ndarray) -> Image.Image:
    """White taken back out of the colour: (rgb - (1 - a)) / a."""
    rgb, alpha = values[..., :3], values[..., 3:]
    straight = np.where(alpha > 1 / 255, (rgb - (1 - alpha)) / np.maximum(alpha, 1 / 255), 1.0)
    return Image.fromarray(_bytes(np.concatenate([straight, alpha], -1)), "RGBA")


def sheet(pictures: Sequence[Image.Image], columns: int = 0, gap: int = 4) -> Image.Image:
    """All pictures on one white sheet, as square as it gets unless `columns` says otherwise."""
    columns = columns or int(np.ceil(len(pictures) ** 0.5))
    wide, high = max(p.width for p in pictures), max(p.height for p in pictures)
    rows = -(-len(pictures) // columns)
    paper = Image.new("RGB", (columns * (wide + gap) - gap, rows * (high + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        place = (i % columns * (wide + gap), i // columns * (high + gap))
        paper.paste(picture, place, picture if picture.mode == "RGBA" else None)
    return paper


def labelled(picture: Image.Image, label: str) -> Image.Image:
    """The picture with words under it, in as many lines as they need."""
    font, lines = ImageFont.load_default(11), [""]
    for word in label.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= picture.width else [*lines, word]
    paper = Image.new("RGB", (picture.width, picture.height + 13 * 3), "white")
    paper.paste(picture, (0, 0))
    ImageDraw.Draw(paper).multiline_text((2, picture.height), "\n".join(lines[:3]), "black", font, spacing=1)
    return paper
