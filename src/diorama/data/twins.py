"""Which pictures repeat another: exact in what it calls a repetition, and thirty bytes of memory for a picture.

A is like B where their difference hashes (of brightness to the right, 8 x 8) differ in at most 7 of 64 bits and their 16 x 16
thumbnails by no more than a tolerance. In one of four bands of 16 bits such hashes differ in at most one, so all are found.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

BANDS, BITS = 4, 7
SIDE = 16  # of the thumbnail
STEP = 3  # of 255: less than this is no difference, so that noise on a plain ground turns no bit
PROBES = np.array([0, *(1 << bit for bit in range(16))], np.uint16)


def fingerprint(rgb: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """A picture on white -> its hash, (4,) uint16, and its thumbnail, (16, 16, 3) uint8."""
    grey = np.asarray(rgb.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    bits = (np.diff(grey, axis=1) > STEP).reshape(-1, BANDS).T  # a band is two columns: none lies in the margin alone
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint16)[:, 0], np.asarray(
        rgb.resize((SIDE, SIDE), Image.Resampling.BOX)
    )


def twins(hashes: np.ndarray, thumbnails: np.ndarray, order: Iterable[int], alike: float) -> np.ndarray:
    """For each of the pictures in `order` the nearest one before it that is kept and like it, else -1: (n,) int32.

    hashes (n, 4) uint16; thumbnails (n, 16, 16, 3) uint8, of which only a few are read at a time; `alike` is a root mean square
    difference in 0 .. 1. A picture with a twin is not kept, so nothing is a twin of a twin.
    """
    index = _Index(hashes)
    kept, twin = np.zeros(len(hashes), bool), np.full(len(hashes), -1, np.int32)
    for i in order:
        near = index.near(i, kept)
        off = difference(thumbnails[near], thumbnails[i])
        if len(near) and off.min() <= alike:
            twin[i] = near[off.argmin()]
        else:
            kept[i] = True
    return twin


def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square difference of thumbnails, (m, 16, 16, 3) and (16, 16, 3) -> (m,) in 0 .. 1."""
    return np.sqrt(np.square((x.astype(np.float32) - y) / 255).mean((1, 2, 3)))


class _Index:
    """For each band the pictures sorted by it, and where each of its 65,536 values begins."""

    def __init__(self, hashes: np.ndarray):
        self.hashes = np.ascontiguousarray(hashes)
        self.sorted = [band.argsort(kind="stable").astype(np.int32) for band in self.hashes.T]
        self.starts = [np.concatenate([[0], np.bincount(band, minlength=1 << 16).cumsum()]) for band in self.hashes.T]

    def near(self, i: int, kept: np.ndarray) -> np.ndarray:
        """The kept pictures whose hash is near to that of picture i, rising."""
        found = []
        for band, (places, starts) in enumerate(zip(self.sorted, self.starts, strict=True)):
            for value in self.hashes[i, band] ^ PROBES:
                bucket = places[starts[value] : starts[int(value) + 1]]
                if len(bucket):
                    found.append(bucket[kept[bucket]])
        near = np.unique(np.concatenate(found))
        apart = (self.hashes[near] ^ self.hashes[i]).view(np.uint8)
        return near[np.unpackbits(apart, axis=1).sum(1) <= BITS]
