"""One model, asked in different ways: every thing of a picture, its edges, proposals, instances, and what a sentence names.

Kirillov et al. 2023, section 7: none of it is trained for, but for the vectors that stand for sentences.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.conditions.clicks import middle
from diorama.critics.detection import box_overlaps
from diorama.networks.prompts import NO_POINT, Prompts
from diorama.systems.understanding.sam import Masks, Sam, Seen, fit
from diorama.worlds.render import boxes as boxes_of

AT_ONCE = 64  # points asked for together
OFFSET = 1.0  # in logits: a mask cut so much higher or lower should be the same mask


class Found(NamedTuple):
    """n masks of one picture, and how sure they are."""

    logits: Tensor  # (n, h, w)
    boxes: Tensor  # (n, 4) pixels, left, top, right, bottom
    points: Tensor  # (n, 2) pixels: where it was asked for
    iou: Tensor  # (n,) how well it is expected to fit
    stability: Tensor  # (n,)

    @property
    def masks(self) -> Tensor:
        """(n, h, w) bool."""
        return self.logits > 0

    def rows(self, index: Tensor) -> Found:
        return Found(*(part[index] for part in self))

    def ranked(self, rank: Tensor, overlap: float) -> Found:
        """Those left of each heap of boxes that overlap by more, the highest in rank (n,), which comes first."""
        return self.rows(apart(self.boxes, rank, overlap))


def everything(sam: Sam, image: Tensor, side: int = 32, sure: float = 0.88, stable: float = 0.95, overlap: float = 0.7) -> Found:
    """All there is in a picture (c >= 3, h, w) in [-1, 1], surest first: what a grid of side x side points finds (app. B).

    Kept is what is expected to fit by more than `sure`, is `stable`, and overlaps no surer one by more than `overlap`.
    """
    found = asked(sam.see(image), side)
    found = found.rows((found.iou > sure) & (found.stability >= stable))
    return found.ranked(found.iou, overlap)


def proposals(sam: Sam, image: Tensor, most: int = 1000, side: int = 32, overlap: float = 0.9) -> Found:
    """Up to `most` guesses at what is there, the best first, the unlikely too (sec. 7.3)."""
    found = asked(sam.see(image), side)
    found = found.ranked(found.iou + found.stability, overlap)
    return Found(*(part[:most] for part in found))


def instances(sam: Sam, image: Tensor, boxes: Tensor) -> Masks:
    """One mask for each box (n, 4) that some detector found, left, top, right, bottom in pixels (sec. 7.4)."""
    masks = sam.see(image).masks(Prompts.box(boxes))
    return Masks(*(part[:, :1] for part in masks))


def named(sam: Sam, image: Tensor, vector: Tensor, point: Tensor | None = None) -> Masks:
    """What a vector (d,) describes, such as CLIP's of a sentence; where that is not enough, a point (2,) helps (sec. 7.5).

    The model must have learned from such vectors of pictures: `Sam.build(vector=d)`, `sam.describe = clip.encode_image`.
    """
    prompts = Prompts(torch.zeros(1, 1, 2), torch.full((1, 1), NO_POINT)) if point is None else Prompts.at(point[None, None])
    return sam.see(image).masks(prompts._replace(vector=vector[None]))


def edges(sam: Sam, image: Tensor, side: int = 16, overlap: float = 0.7, thin: bool = True) -> Tensor:
    """(h, w) in 0 .. 1: how much each pixel is an edge of something (sec. 7.2, app. D.2).

    The steepest that the probabilities of any mask are there, near that mask's own outline alone.
    """
    found = asked(sam.see(image), side)
    found = found.ranked(found.iou, overlap)
    if not len(found.logits):
        return torch.zeros(image.shape[-2:])
    slope = sobel(found.logits.sigmoid())
    steep = slope.norm(dim=1) * outline(found.masks)
    strength, which = steep.max(0)
    if thin:
        strength = strength * crest(strength, slope.permute(1, 0, 2, 3).gather(1, which[None, None].expand(2, 1, -1, -1))[:, 0])
    return strength / strength.max().clamp_min(1e-6)


# --- asking ---------------------------------------------------------------------------------------


def asked(seen: Seen, side: int) -> Found:
    """All masks that a grid of side x side points gives: three for each, but for those of nothing."""
    points, parts = grid(side, seen.frame.h, seen.frame.w).to(seen.features), []
    for some in points.split(AT_ONCE):
        masks = seen.masks(Prompts.at(some[:, None]))
        logits, iou = masks.logits.flatten(0, 1), masks.iou.flatten()
        where = some.repeat_interleave(masks.iou.shape[1], 0)
        found = Found(logits, boxes_of(logits[:, None].sigmoid())[:, 0], where, iou, stability(logits))
        parts.append(found.rows(found.masks.flatten(1).any(1)))
    return Found(*(torch.cat(part) for part in zip(*parts, strict=True)))


def grid(side: int, h: int, w: int) -> Tensor:
    """The middles of side x side equal parts of a picture, (side * side, 2)."""
    x, y = ((torch.arange(side) + 0.5) * length / side for length in (w, h))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)


def stability(logits: Tensor, offset: float = OFFSET) -> Tensor:
    """How little of masks (*, h, w) depends on where they are cut: the IoU of those cut higher and lower (*)."""
    high, low = ((logits > cut).sum((-2, -1)) for cut in (offset, -offset))
    return high / low.clamp_min(1)


def apart(boxes: Tensor, rank: Tensor, overlap: float) -> Tensor:
    """Which boxes (n, 4) stay, highest rank (n,) first, where each drops all lower ones that it overlaps by more: indices (m,)."""
    order = rank.argsort(descending=True, stable=True)
    close, free, kept = box_overlaps(boxes[order].float(), boxes[order].float()) > overlap, torch.ones_like(order).bool(), []
    for i in range(len(order)):
        if free[i]:
            kept.append(i)
            free &= ~close[i]
    return order[kept]


def pointed(sam: Sam, image: Tensor, truth: Tensor) -> Tensor:
    """How well things (k, h, w) bool of a picture are found, (k, 3) IoU: by a click in their middle, the surest mask and the best of
    three, and by the box around them, the surest.
    """
    seen = sam.see(image)
    clicked, boxed = seen.masks(Prompts.at(middle(truth)[:, None])), seen.masks(Prompts.box(boxes_of(truth[:, None])[:, 0]))
    clicks, box = (fit(masks.logits, truth[:, None].expand_as(masks.logits)) for masks in (clicked, boxed))
    return torch.stack([clicks[:, 0], clicks.amax(1), box[:, 0]], 1)


# --- edges ----------------------------------------------------------------------------------------


def sobel(x: Tensor) -> Tensor:
    """The slopes of pictures (n, h, w) across and down, (n, 2, h, w), as if they went on beyond their borders."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(x) / 8
    return F.conv2d(F.pad(x[:, None], (1, 1, 1, 1), mode="replicate"), torch.stack([across, across.T])[:, None])


def outline(masks: Tensor) -> Tensor:
    """The pixels of masks (n, h, w) with a neighbour on the other side, in or out; the picture's border is no outline."""
    soft = F.pad(masks[:, None].float(), (1, 1, 1, 1), mode="replicate")
    return (F.max_pool2d(soft, 3, 1) > -F.max_pool2d(-soft, 3, 1))[:, 0]


def crest(strength: Tensor, slope: Tensor) -> Tensor:
    """Where strength (h, w) is no less than at both neighbours along its slope (2, h, w): the thinning of Canny 1986."""
    eighth = (torch.atan2(slope[1], slope[0]) / (torch.pi / 4)).round().long() % 4
    wide = F.pad(strength, (1, 1, 1, 1))
    h, w = strength.shape
    best = torch.zeros_like(strength, dtype=torch.bool)
    for direction, (x, y) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        sides = (wide[1 + s * y : 1 + s * y + h, 1 + s * x : 1 + s * x + w] for s in (1, -1))
        best |= (eighth == direction) & torch.stack([strength >= side for side in sides]).all(0)
    return best
