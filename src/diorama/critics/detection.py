"""Was everything found, and nothing else? Average precision and recall of masks, boxes or centres."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.critics.statistics import bootstrap, need
from diorama.errors import UserError
from diorama.types import Score

COCO = tuple(n / 100 for n in range(50, 100, 5))  # overlaps at which a find counts (Lin et al. 2014)
CENTRES = (-0.5, -1.0, -2.0, -4.0)  # metres between centres, less is better (Caesar et al. 2020, sec. 3.1)
RECALLS = torch.arange(101, dtype=torch.float64) / 100


class Detections(NamedTuple):
    """What was found in one picture beside what is there. Labels may be left out where there is one class."""

    confidence: Tensor  # (n,)
    fit: Tensor  # (n, m): how well each found one fits each real one, an overlap or minus a distance
    label: Tensor | None = None  # (n,) int64
    truth: Tensor | None = None  # (m,) int64

    def of(self, label: int) -> Detections:
        """Those of one class, surest first."""
        found = torch.zeros(len(self.fit)) if self.label is None else self.label
        real = torch.zeros(self.fit.shape[1]) if self.truth is None else self.truth
        mine = (found == label).nonzero().flatten()
        mine = mine[self.confidence[mine].argsort(descending=True, stable=True)]
        return Detections(self.confidence[mine], self.fit[mine][:, real == label])


class Ranked(NamedTuple):
    """All that was found of one class, surest first."""

    hit: Tensor  # (t, n) float64: right at this threshold
    picture: Tensor  # (n,) int64
    real: Tensor  # (pictures,) int64: how many there are


def average_precision(pictures: Sequence[Detections], at: Sequence[float] = COCO, most: int = 100, floor: float = 0.0) -> Score:
    """The area under precision over recall, at 101 recalls, mean over thresholds and classes (Lin et al. 2014).

    The `most` surest of a picture and class count. `average_precision(pictures, CENTRES, floor=0.1)` is nuScenes' centre-distance
    AP: only what lies above the floor, of recall and of precision, counts, scaled to 1. The error is a bootstrap over pictures.
    """

    def area(ranked: Ranked, times: Tensor) -> Tensor:
        weight = times[ranked.picture]
        right, found = (ranked.hit * weight).cumsum(1), weight.cumsum(0)
        recall, precision = right / (ranked.real * times).sum(), right / found.clamp_min(1)
        best = F.pad(precision.flip(1).cummax(1).values.flip(1), (0, 1))  # from here on; none beyond the last
        asked = RECALLS[floor < RECALLS] if floor else RECALLS
        reached = best.gather(1, torch.searchsorted(recall, asked.expand(len(recall), -1).contiguous()))
        return ((reached - floor).clamp_min(0) / (1 - floor)).mean()

    return _score(pictures, at, most, area, "average precision")


def average_recall(pictures: Sequence[Detections], k: int = 100, at: Sequence[float] = COCO) -> Score:
    """AR@k: the share of what is there that the k surest of each picture and class find, mean over thresholds and classes."""

    def recall(ranked: Ranked, times: Tensor) -> Tensor:
        return (ranked.hit * times[ranked.picture]).sum(1).mean() / (ranked.real * times).sum()

    return _score(pictures, at, k, recall, "average recall")


def _score(
    pictures: Sequence[Detections], at: Sequence[float], most: int, of_class: Callable[[Ranked, Tensor], Tensor], unit: str
) -> Score:
    """The mean over classes of what `of_class` says, each picture counted `times` times."""
    n = len(pictures)
    labels = sorted({int(label) for p in pictures for label in (torch.zeros(p.fit.shape[1]) if p.truth is None else p.truth)})
    if n < 2 or not labels:
        raise UserError(f"{n} pictures with {len(labels)} classes are too few for {unit}: use 2 or more, with something to find")
    if odd := [i for i, picture in enumerate(pictures) if len(picture.confidence) != len(picture.fit)]:
        raise UserError(f"picture {odd[0]} has not one confidence for each row of its fit: give as many")
    classes = [_rank([picture.of(label) for picture in pictures], at, most) for label in labels]

    def value(drawn: Tensor) -> float:
        times = torch.bincount(drawn, minlength=n).double()
        found = [float(of_class(ranked, times)) for ranked in classes if (ranked.real * times).any()]
        return sum(found) / len(found) if found else math.nan

    every = torch.arange(n)
    return Score(value(every), bootstrap(value, (every,)), unit, True, n)


def _rank(pictures: Sequence[Detections], at: Sequence[float], most: int) -> Ranked:
    thresholds = torch.tensor(at, dtype=torch.float64)
    confidence = torch.cat([picture.confidence[:most] for picture in pictures])
    need(confidence, 0, "confidences")
    hit = torch.cat([_match(picture.fit[:most].double(), thresholds) for picture in pictures], 1)
    number = torch.cat([torch.full((len(picture.fit[:most]),), i) for i, picture in enumerate(pictures)])
    order = confidence.argsort(descending=True, stable=True)
    return Ranked(hit[:, order].double(), number[order], torch.tensor([picture.fit.shape[1] for picture in pictures]))


def _match(fit: Tensor, at: Tensor) -> Tensor:
    """Surest first, each takes the best-fitting real one that is still free: (n, m), (t,) -> (t, n) whether it fits well enough."""
    hit = torch.zeros(len(at), len(fit), dtype=torch.bool)
    if not fit.shape[1]:
        return hit
    free, rows = torch.ones(len(at), fit.shape[1], dtype=torch.bool), torch.arange(len(at))
    for i, fits in enumerate(fit):
        best, which = fits.where(free, -torch.inf).max(1)
        hit[:, i] = best >= at
        free[rows, which] &= ~hit[:, i]
    return hit


def box_overlaps(boxes: Tensor, truth: Tensor) -> Tensor:
    """The IoU of every box (n, 4) with every other (m, 4), each left, top, right, bottom: (n, m)."""
    first = torch.maximum(boxes[:, None, :2], truth[:, :2])
    last = torch.minimum(boxes[:, None, 2:], truth[:, 2:])
    both = (last - first).clamp_min(0).prod(-1)
    a, b = ((part[:, 2:] - part[:, :2]).clamp_min(0).prod(1) for part in (boxes, truth))
    return both / (a[:, None] + b - both).clamp_min(1e-12)
