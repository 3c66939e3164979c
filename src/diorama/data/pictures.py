"""Bytes and paths to pictures: straight RGBA, upright, of bounded size; and what a data set says of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from diorama.data.source import Item, Unreadable

SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
LARGEST = 64_000_000  # pixels; a few kilobytes can unpack to gigabytes

TEXTS = ("caption", "text")
LABELS = ("style", "label", "class")


def decode(data: bytes | Path, key: str, on_white: bool = False) -> Image.Image:
    """One picture in straight RGBA. Raises `Unreadable` for what is no picture, is cut short or is larger than 64 megapixels."""
    try:
        with Image.open(data if isinstance(data, Path) else io.BytesIO(data)) as image:
            if image.width * image.height > LARGEST:
                raise Unreadable(f"{key}: {image.width} x {image.height} pixels, at most {LARGEST // 1_000_000} million are read")
            image.load()
            rgba = _to_rgba(ImageOps.exif_transpose(image))
    except Unreadable:
        raise
    except FileNotFoundError as error:
        raise Unreadable(f"{key}: there is no such file") from error
    except Image.UnidentifiedImageError as error:
        raise Unreadable(f"{key}: not a picture") from error
    except Exception as error:  # broken files make Pillow raise almost anything, struct.error and SyntaxError among it
        raise Unreadable(f"{key}: {_one_line(error)}") from error
    return straight(rgba) if on_white else rgba


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_rgba(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: Pillow would clip, not scale
        values = np.asarray(image, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError("some of its values are NaN or infinite")
        top = 65535 if values.max(initial=0) > 255 else 255
        image = Image.fromarray(np.clip(values * (255 / top), 0, 255).astype(np.uint8))
    return image if image.mode == "RGBA" else image.convert("RGBA")


def straight(image: Image.Image) -> Image.Image:
    """RGBA whose RGB was already laid on white -> straight RGBA: (rgb - 255 (1 - a)) / a, white where a = 0."""
    pixels = np.array(image)
    flat = pixels.reshape(-1, 4)
    alpha = flat[:, 3]
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))  # few: solid pixels are straight already, clear ones are white
    rgb, a = flat[edge, :3], flat[edge, 3:]
    flat[edge, :3] = 255.5 - np.minimum((255 - rgb) * (255 / a), 255)
    flat.view(np.uint32)[alpha == 0] = _CLEAR
    return Image.fromarray(pixels)


_CLEAR = np.array([255, 255, 255, 0], np.uint8).view(np.uint32)[0]


def record(key: str, said: Mapping[str, Any], text: str | None = None, label: str | None = None) -> dict[str, Any]:
    """Key, text and label under their own names, then every field but the text; `text` and `label` win over what is said."""
    name = next((k for k in TEXTS if _filled(said.get(k))), None)
    fields = {str(k): v for k, v in said.items() if k != name and k not in ("key", "label", "text")}
    if text is None:
        text = "" if name is None else _first(said[name])
    if label is None:
        label = next((str(said[k]) for k in LABELS if _filled(said.get(k))), None)
    return {**fields, "key": key, "text": text.strip(), "label": label}


def _filled(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value == value  # a missing number in a table is NaN


def _first(value: Any) -> str:
    return str(value[0] if isinstance(value, (list, tuple)) else value)


def item(said: Mapping[str, Any], image: Image.Image) -> Item:
    """An item of this record and this picture."""
    fields = {k: v for k, v in said.items() if k not in ("key", "text", "label")}
    return Item(said["key"], image, said["text"], said["label"], fields)


def labels_of(records: Any) -> tuple[str, ...]:
    """The different labels of some records, sorted."""
    return tuple(sorted({said["label"] for said in records if said["label"] is not None}))
