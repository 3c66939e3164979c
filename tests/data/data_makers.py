"""Tiny pictures, tars and sources with exact answers."""

import io
import json
import tarfile

import numpy as np
from PIL import Image, ImageDraw

from diorama.data import Item, Unreadable


def disc(rgb=(220, 30, 30), side=32, box=(4, 4, 27, 27)):
    """A hard-edged disc of one colour on clear ground."""
    image = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    ImageDraw.Draw(image).ellipse(box, fill=(*rgb, 255))
    return image


def save(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (8, 6), (10, 20, 30))).save(path)
    return path


def encoded(image=None, kind="PNG"):
    stream = io.BytesIO()
    (image or disc()).save(stream, kind)
    return stream.getvalue()


def tar(path, members, format=tarfile.PAX_FORMAT):
    """A tar of {name: bytes, text or JSON object}."""
    with tarfile.open(path, "w", format=format) as out:
        for name, content in members.items():
            data = (
                content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
            )
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


class Listed:
    """A source of items in memory; an exception in the place of an item is raised when it is read."""

    def __init__(self, items):
        self.items = items
        self.labels = tuple(sorted({i.label for i in items if isinstance(i, Item) and i.label is not None}))

    def __len__(self):
        return len(self.items)

    def record(self, i):
        item = self.items[i]
        if isinstance(item, Exception):
            return {"key": str(i), "text": "", "label": None}
        return {**item.fields, "key": item.key, "text": item.text, "label": item.label}

    def read(self, i):
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


def grey(i, side=4):
    """Item i is all of grey i."""
    return Item(f"k{i}", Image.new("RGBA", (side, side), (i, i, i, 255)), text=str(i))


def greys(n, broken=()):
    return Listed([Unreadable(f"k{i}: cut short") if i in broken else grey(i) for i in range(n)])


def cutouts(n=24):
    """Red discs with one-word captions, in two styles."""
    nouns = ("apple", "ball", "cat", "drum", "egg", "fox")
    return Listed([Item(f"c{i}", disc(), nouns[i % 6], ("flat", "solid")[i % 2], {"keywords": ["thing"]}) for i in range(n)])


def same(a, b):
    return (
        a.text == b.text and a.key == b.key and a.fields == b.fields and np.array_equal(np.asarray(a.image), np.asarray(b.image))
    )
