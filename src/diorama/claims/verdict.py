"""What the seeds say of a part, and the parts of a claim. Imports nothing of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from diorama.claims.claim import Effect, Part

Verdict = Literal["holds", "fails", "undecided"]
LEAST = 3  # seeds


@dataclass(frozen=True, kw_only=True)
class Judged(Part):
    """A part with what was found."""

    effect: float | None
    stderr: float | None  # of the mean over seeds
    n: int  # seeds
    verdict: Verdict
    arms: Mapping[str, float]  # means over seeds
    note: str = ""


def judge(part: Part, effects: Sequence[Effect]) -> Judged:
    """holds: mean >= margin and mean - 2 SE > 0; fails: mean + 2 SE < margin; else undecided, as with fewer than three seeds."""
    found = [effect for effect in effects if effect.value is not None][: 1 if part.exact else None]
    values = [effect.value for effect in found if effect.value is not None]
    stderr = 0.0 if part.exact and found else _stderr(values, [effect.stderr for effect in found])
    mean = fmean(values) if values else None
    note = next((effect.note for effect in effects if effect.note), "")
    if not note and not part.exact and len(found) < LEAST:
        note = f"{len(found)} {'seed is' if len(found) == 1 else 'seeds are'} too few: use {LEAST} or more"
    return Judged(
        **vars(part),
        effect=mean,
        stderr=stderr,
        n=len(found),
        verdict="undecided" if note or mean is None or stderr is None else _verdict(mean, stderr, part.margin),
        arms={arm: fmean(effect.arms[arm] for effect in found) for arm in (found[0].arms if found else ())},
        note=note,
    )


def together(verdicts: Iterable[str]) -> Verdict:
    """A claim fails if any part fails and holds if all do."""
    found = set(verdicts)
    return "fails" if "fails" in found else "holds" if found == {"holds"} else "undecided"


def _verdict(mean: float, stderr: float, margin: float) -> Verdict:
    if mean >= margin and mean - 2 * stderr > 0:
        return "holds"
    return "fails" if mean + 2 * stderr < margin else "undecided"


def _stderr(values: Sequence[float], within: Sequence[float]) -> float | None:
    """Of the mean: the spread between seeds, or the noise within them where that is larger. None from fewer than two."""
    if len(values) < 2:
        return None
    return max(stdev(values), math.sqrt(fmean(s**2 for s in within))) / math.sqrt(len(values))
