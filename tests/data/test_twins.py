"""The index against a slow twin, and fingerprints under what a picture meets on its way."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diorama.data.twins import BITS, difference, fingerprint, twins


def slow(hashes, thumbnails, order, alike):
    """The same, every kept picture compared."""
    kept, found = [], np.full(len(hashes), -1)
    for i in order:
        near = sorted(j for j in kept if sum(int(a ^ b).bit_count() for a, b in zip(hashes[i], hashes[j], strict=True)) <= BITS)
        off = {j: difference(thumbnails[j][None], thumbnails[i])[0] for j in near}
        best = min(near, key=off.__getitem__, default=None)
        if best is not None and off[best] <= alike:
            found[i] = best
        else:
            kept.append(i)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_what_comparing_all_finds(seed):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 16, (12, 4), dtype=np.uint16)[rng.integers(12, size=300)]
    bits = (rng.random((300, 64)) < 0.06).reshape(300, 4, 16)
    hashes ^= (bits << np.arange(16)).sum(-1).astype(np.uint16)
    thumbnails = rng.integers(0, 60, (300, 1, 1, 1), dtype=np.uint8) + np.zeros((1, 16, 16, 3), np.uint8)
    order, alike = rng.permutation(300)[:250], 0.02
    found = twins(hashes, thumbnails, order, alike)
    assert np.array_equal(found, slow(hashes, thumbnails, order, alike))
    assert 50 < (found >= 0).sum() < 250
    assert (found[found[found >= 0]] == -1).all()  # nothing is a twin of a twin
    assert (found[np.setdiff1d(np.arange(300), order)] == -1).all()


def drawing(seed):
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (128, 128), "white")
    for _ in range(6):
        x, y, w, h = rng.integers(8, 72, 4).tolist()
        ImageDraw.Draw(image).ellipse((x, y, x + w, y + h), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def jpeg(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=60)
    return Image.open(stream).convert("RGB")


@pytest.mark.parametrize("worn", [jpeg, lambda x: x.resize((96, 96)), lambda x: x.resize((200, 200))])
def test_a_worn_copy_is_a_twin_and_another_picture_is_none(worn):
    pictures = [drawing(i) for i in range(20)]
    prints = [fingerprint(picture) for picture in [*pictures, *map(worn, pictures)]]
    found = twins(*(np.stack(column) for column in zip(*prints, strict=True)), range(40), 0.02)
    assert found.tolist() == [-1] * 20 + list(range(20))
