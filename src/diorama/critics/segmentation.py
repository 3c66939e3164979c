"""How well do masks and label maps fit? Overlaps, borders, and both at once for every class.

`class_overlaps` and `panoptic_overlaps` observe picture by picture, `over_classes` scores all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.critics.statistics import alike, bootstrap, need, per_sample, within
from diorama.errors import UserError
from diorama.types import Score

VOID = -1  # where the truth does not say


@per_sample("IoU", higher_is_better=True)
def iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks (b, h, w) -> (b,); 1 where both are empty."""
    alike(mask, truth, "masks")
    mask, truth = mask.bool().flatten(1), truth.bool().flatten(1)
    both, either = (mask & truth).sum(1), (mask | truth).sum(1)
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


@per_sample("F measure", higher_is_better=True)
def boundary_f(mask: Tensor, truth: Tensor, tolerance: float = 1.0) -> Tensor:
    """How well outlines agree: harmonic mean of the shares of each that lie within `tolerance` pixels of the other.

    Masks (b, h, w) -> (b,); 1 where both are empty (Perazzi et al. 2016, who take 0.008 of the diagonal).
    """
    alike(mask, truth, "masks")
    a, b = _outline(mask), _outline(truth)
    precision, recall = _near(a, b, tolerance), _near(b, a, tolerance)
    none = ~(a.flatten(1).any(1) | b.flatten(1).any(1))
    return torch.where(none, 1.0, 2 * precision * recall / (precision + recall).clamp_min(1e-12))


def _outline(mask: Tensor) -> Tensor:
    """The pixels of a mask (b, h, w) with a neighbour above, below, left or right that is not of it; the picture's edge is none."""
    inside = F.pad(mask.bool(), (1, 1, 1, 1))
    core = inside[:, 2:, 1:-1] & inside[:, :-2, 1:-1] & inside[:, 1:-1, 2:] & inside[:, 1:-1, :-2]
    return mask.bool() & ~core


def _near(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    """The share of the true places of a (b, h, w) with one of b within `tolerance`, Euclidean: (b,), 0 where a has none."""
    r = int(tolerance)
    y, x = torch.meshgrid(torch.arange(-r, r + 1), torch.arange(-r, r + 1), indexing="ij")
    disk = (x**2 + y**2 <= tolerance**2).to(a.device, torch.float32)
    grown = F.conv2d(b[:, None].float(), disk[None, None], padding=r)[:, 0] > 0.5
    return (a & grown).flatten(1).sum(1) / a.flatten(1).sum(1).clamp_min(1)


def overlaps(masks: Tensor, truth: Tensor) -> Tensor:
    """The IoU of every mask (n, h, w) with every other (m, h, w): (n, m)."""
    alike(masks, truth, "masks", 1)
    a, b = masks.bool().flatten(1).float(), truth.bool().flatten(1).float()
    both = a @ b.T
    return both / (a.sum(1, keepdim=True) + b.sum(1) - both).clamp_min(1)


# --- all classes at once ---------------------------------------------------------------------------


def class_overlaps(labels: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Intersection and union of each class in each picture: label maps (b, h, w) int64 -> (b, classes, 2) for mean IoU.

    Where the truth is VOID nothing counts.
    """
    alike(labels, truth, "label maps")
    rows = []
    for found, real in zip(labels, truth, strict=True):
        found, real = (within(part[real != VOID], classes, "labels") for part in (found, real))
        table = torch.bincount(classes * real + found, minlength=classes**2).reshape(classes, classes)
        both = table.diagonal()
        rows.append(torch.stack([both, table.sum(0) + table.sum(1) - both], 1))
    return torch.stack(rows).double()


def panoptic_overlaps(segments: Tensor, truth: Tensor, classes: int) -> Tensor:
    """What panoptic quality is made of (Kirillov et al. 2019, eq. 1), per class and picture: (b, classes, 2).

    Both (b, 2, h, w) int64: the class of each pixel and the number of its thing (one number for all of a stuff class). Segments of
    one class match where their IoU is above a half; a found one that is mostly VOID in the truth counts nowhere.
    """
    alike(segments, truth, "segment maps")
    return torch.stack([_panoptic(found, real, classes) for found, real in zip(segments, truth, strict=True)])


def _panoptic(found: Tensor, real: Tensor, classes: int) -> Tensor:
    """Of one picture (2, h, w): per class the sum of matched IoUs, and the matched with half of the unmatched."""
    found, of_found = found.flatten(1).unique(dim=1, return_inverse=True)  # (2, n), (h w,)
    real, of_real = real.flatten(1).unique(dim=1, return_inverse=True)
    both = torch.bincount(of_found * real.shape[1] + of_real, minlength=found.shape[1] * real.shape[1])
    both = both.reshape(found.shape[1], -1).double()
    known = real[0] != VOID
    area = both[:, known].sum(1)
    overlap = both / (area[:, None] + both.sum(0) - both).clamp_min(1)
    hit = (overlap > 0.5) & (found[0][:, None] == real[0]) & known  # at most one in a row and in a column
    counted = (hit.any(1) | (area >= both.sum(1) / 2)) & (found[0] != VOID)
    there, seen = within(real[0][known], classes, "labels"), within(found[0][counted], classes, "labels")
    quality = torch.bincount(there, (overlap * hit).sum(0)[known], classes)
    return torch.stack([quality, (torch.bincount(there, minlength=classes) + torch.bincount(seen, minlength=classes)) / 2], 1)


def over_classes(observed: Tensor, unit: str = "mean IoU") -> Score:
    """Sums over pictures, the first over the second, and the mean over the classes that occur: (n, classes, 2) -> mean IoU or PQ.

    The error is a bootstrap over pictures.
    """
    n = need(observed, 2, "pictures")
    if not observed[..., 1].any():
        raise UserError("no class occurs in these pictures: give a truth that is not void everywhere")

    def value(rows: Tensor) -> float:
        top, bottom = rows.sum(0).unbind(-1)
        return float((top / bottom)[bottom > 0].mean())

    return Score(value(observed), bootstrap(value, (observed,)), unit, True, n)
