"""Masks as run lengths, the way COCO's annotations write them: column by column, first the zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def runs(mask: np.ndarray) -> dict[str, Any]:
    """A mask (h, w) bool -> {"size": [h, w], "counts": lengths}: COCO's uncompressed form, which pycocotools reads."""
    flat = np.asarray(mask, dtype=bool).flatten(order="F")
    turns = np.flatnonzero(np.diff(flat, prepend=False))
    return {"size": [int(side) for side in mask.shape], "counts": np.diff([0, *turns, flat.size]).tolist()}


def unrun(written: Mapping[str, Any]) -> np.ndarray:
    """The mask (h, w) bool that `runs` wrote."""
    counts, (h, w) = written["counts"], written["size"]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(h, w, order="F")
