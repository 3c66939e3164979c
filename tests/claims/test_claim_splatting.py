"""The experiment can come out otherwise: with the free Gaussians made balls, and with none that grow, the parts about them fail."""

from dataclasses import replace

import pytest

pytest.importorskip("numba")

from diorama.claims.gaussian_splatting import CLAIM, FIRST, Round, fitted
from diorama.claims.verdict import judge


def never(seed, seen, steps):
    return fitted(Round, seed, seen, steps, FIRST)


def test_balls_and_no_growth_fail():
    effects = replace(CLAIM, free=Round, grow=never, steps=6).run(0)
    parts = {part.letter: part for part in CLAIM.parts}
    assert set(effects) == set(parts)
    for letter in ("A1", "B"):
        assert effects[letter].value == 0  # both arms are one and the same
        assert judge(parts[letter], [effects[letter]] * 3).verdict == "fails"
