"""In which order a data set is seen: a function of position and seed that stores nothing, so a run resumes anywhere."""

from __future__ import annotations

import math
from functools import lru_cache

from diorama.types import mix

ROUNDS = 6


def index_at(position: int, n: int, seed: int) -> int:
    """Which of n items comes at this position; positions e n .. (e + 1) n - 1 are epoch e, a permutation of its own.

    A Feistel network over pairs of digits below ceil(sqrt(n)), walked until it lands below n (Black & Rogaway 2002).
    """
    if n < 1 or position < 0:
        raise ValueError(f"position {position} of {n} items: both must be there, position >= 0 and n >= 1")
    epoch, index = divmod(position, n)
    side = math.isqrt(n - 1) + 1  # side^2 >= n, and hardly more: few walks
    keys = _keys(seed, epoch)
    while True:
        left, right = divmod(index, side)
        for key in keys:
            left, right = right, (left + mix(key, right)) % side
        index = left * side + right
        if index < n:
            return index


@lru_cache(maxsize=64)
def _keys(seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(mix(seed, epoch, r) for r in range(ROUNDS))
