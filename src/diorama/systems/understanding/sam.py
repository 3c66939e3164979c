"""Segment Anything: a picture is encoded once; then a point, a box, a rough mask or a few of them tell what is meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama import cards
from diorama.conditions.clicks import correction, drawn, somewhere
from diorama.critics.soft_masks import dice, focal
from diorama.data.collage import collage
from diorama.errors import UserError
from diorama.networks.prompts import NO_POINT, PromptConfig, PromptEncoder, Prompts
from diorama.networks.two_way import Answer, MaskDecoder, MaskDecoderConfig, Neck, NeckConfig
from diorama.networks.vit import ViT, ViTConfig
from diorama.systems.base import System, TakePart
from diorama.types import Batch, Noise
from diorama.worlds.render import boxes

PRESETS = {
    "nano": (ViTConfig(size=32, width=64, depth=4), MaskDecoderConfig(width=64, heads=4, hidden=128)),
    "mini": (ViTConfig(), MaskDecoderConfig(width=64, heads=4, hidden=256)),
    # ViT-H (app. A): 14 x 14 windows, four blocks that look at the whole picture; the project's page counts 632 M + 4 M parameters
    "paper": (
        ViTConfig(size=1024, patch=16, width=1280, depth=32, heads=16, window=14),
        MaskDecoderConfig(),
    ),
}

FOCAL, DICE = 20.0, 1.0  # weights of the losses (app. A)
LEAST = 4.0  # pixels of a mask that is asked for
Describe = Callable[[Tensor], Tensor]  # pictures (b, 3, h, w) to vectors of unit length (b, d), as CLIP's


@dataclass(eq=False)
class Sam(System):
    """Points, boxes, masks and vectors to masks, several where one prompt can mean several things (Kirillov et al. 2023, fig. 4)."""

    encoder: ViT
    neck: Neck
    prompts: PromptEncoder
    decoder: MaskDecoder
    clicks: int = 2  # corrections of an answer while training; the paper's 8. One more round has no new click
    each: int = 4  # things asked for in a picture while training

    card: ClassVar[cards.Card] = cards.SAM
    learns_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.describe: Describe | None = None  # set it to have the system learn to find what looks like a vector

    @classmethod
    def new(cls, *, preset: str, size: int, labels: Sequence[str], part: TakePart) -> Sam:
        cls.card.check_preset(preset)
        return cls.build(preset, size)

    @classmethod
    def build(cls, preset: str, size: int, vector: int = 0) -> Sam:
        """A new, untrained system for frames of this size, that may be prompted with vectors of this width too."""
        vit, decoder = PRESETS[preset]
        if size < vit.patch or size % vit.patch:
            raise UserError(f"size {size} is not a multiple of {vit.patch}: use {max(1, size // vit.patch) * vit.patch}")
        vit, width = replace(vit, size=size), decoder.width
        prompts = PromptConfig(width=width, size=size, side=vit.side, vector=vector)
        return cls(ViT(vit), Neck(NeckConfig(given=vit.width, width=width)), PromptEncoder(prompts), MaskDecoder(decoder))

    @property
    def size(self) -> int:
        return self.encoder.config.size

    # --- the three parts --------------------------------------------------------------------------

    def features(self, image: Tensor) -> Tensor:
        """Pictures (b, c >= 3, size, size) in [-1, 1] -> (b, width, side, side): the dear part, once per picture."""
        return self.neck(self.encoder(image[:, :3].to(self.device)))

    def answer(self, features: Tensor, prompts: Prompts) -> Answer:
        """Features (b, width, side, side), and prompts in pixels of the frame, a row for each."""
        tokens, dense = self.prompts(prompts)
        return self.decoder(features + dense, self.prompts.places(), tokens)

    def allowed(self, prompts: Prompts) -> Tensor:
        """(b, 1 + masks) bool: which masks answer; the first where there are several prompts, the others where there is one."""
        first = torch.arange(1 + self.decoder.config.masks, device=self.device) == 0
        return first != prompts.alone[:, None]

    # --- training ---------------------------------------------------------------------------------

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """(b,): things of each picture asked for with a point or a box, then corrected click by click (app. A)."""
        image, truth, there = self.asked(batch, noise, self.each)
        features = self.features(image).repeat_interleave(self.each, 0)
        prompts, losses = self.first(image, truth, noise), []
        for click in range(self.clicks + 2):
            answer = self.answer(features, prompts)
            losses.append(self.error(answer, self.allowed(prompts), truth))
            prompts = self.corrected(prompts, answer, truth, noise.uniform(self.each).flatten(), last=click >= self.clicks)
        mean = torch.stack(losses).mean(0) * there
        return mean.unflatten(0, (len(image), self.each)).mean(1)

    def asked(self, batch: Batch, noise: Noise, each: int) -> tuple[Tensor, Tensor, Tensor]:
        """The pictures, masks of `each` of the things in each (b * each, h, w) bool, and whether there is one (b * each,)."""
        image, masks = batch.image.to(self.device), batch.masks
        image, masks = collage(image, noise) if masks is None else (image[:, :3], masks.to(self.device))
        return image, *picked(masks >= 0.5, noise.uniform(each))

    def first(self, image: Tensor, truth: Tensor, noise: Noise) -> Prompts:
        """A point anywhere in the thing or a shaken box around it; where the system learns to, every other time its description."""
        each = len(truth) // len(image)
        u, hand = noise.uniform(each, 3).flatten(0, 1), noise.normal(each, 4).flatten(0, 1)
        box = boxes(truth[:, None])[:, 0]
        point, drawing = Prompts.at(somewhere(truth, u[:, 0])[:, None]), Prompts.box(drawn(box, hand, self.size))
        boxed = (u[:, 1] < 0.5)[:, None]
        points = torch.where(boxed[..., None], drawing.points, point.points)
        says = torch.where(boxed, drawing.says, point.says)
        if self.describe is None:
            return Prompts(points, says)
        told = u[:, 2:] < 0.5
        vector = self.describe(crops(image.repeat_interleave(each, 0), box, 1 + u[:, 0])) * told
        return Prompts(points, says.masked_fill(told, NO_POINT), vector=vector)

    def error(self, answer: Answer, allowed: Tensor, truth: Tensor) -> Tensor:
        """(b,): focal and Dice loss of the best of the allowed masks, and how wrong it was about how well each of them fits."""
        small = shrunk(truth, answer.logits)[:, None].expand_as(answer.logits)
        losses = FOCAL * focal(answer.logits, small) + DICE * dice(answer.logits, small)
        wrong = (answer.iou - fit(answer.logits, small)).square()
        return self.over(losses, allowed) + (wrong * allowed).sum(1) / allowed.sum(1)

    def over(self, losses: Tensor, allowed: Tensor) -> Tensor:
        """One loss of those of several masks (b, 1 + masks): the least, so that each mask may learn another meaning (sec. 3)."""
        return losses.masked_fill(~allowed, torch.inf).amin(1)

    def corrected(self, prompts: Prompts, answer: Answer, truth: Tensor, u: Tensor, last: bool) -> Prompts:
        """The next prompts: the surest mask's own logits and, but for the last round, a click where it is wrong."""
        mask = chosen(answer, self.allowed(prompts)).detach()
        prompts = prompts._replace(mask=mask)
        if last:
            return prompts
        large = F.interpolate(mask[:, None], truth.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        point, says = correction(large > 0, truth, u)
        return prompts.clicked(point[:, None], says[:, None])

    @torch.no_grad()
    def look(self, batch: Batch, noise: Noise) -> Tensor:
        """The pictures, and tinted what a point or a box on one of their things is taken to mean."""
        image, truth, _ = self.asked(batch, noise, 1)
        prompts = self.first(image, truth, noise)
        logits = chosen(self.answer(self.features(image), prompts), self.allowed(prompts))
        large = F.interpolate(logits[:, None], image.shape[-2:], mode="bilinear", align_corners=False)
        return F.pad(torch.where(large > 0, 0.4 * image + TINT.to(image), image), (0, 0, 0, 0, 0, 1), value=1.0)

    # --- use --------------------------------------------------------------------------------------

    @torch.no_grad()
    def see(self, image: Tensor) -> Seen:
        """A picture (c >= 3, h, w) in [-1, 1] of any size, encoded, ready to be asked about."""
        h, w = image.shape[-2:]
        frame = Frame(h, w, self.size)
        return Seen(self, frame, self.features(frame.into(image)))


@dataclass(frozen=True)
class Frame:
    """A picture of h x w pixels in the upper left of a square of `size`, whose side its longer side is."""

    h: int
    w: int
    size: int

    @property
    def scale(self) -> float:
        return self.size / max(self.h, self.w)

    @property
    def shape(self) -> tuple[int, int]:
        """How high and wide the picture is in the square."""
        return max(1, round(self.h * self.scale)), max(1, round(self.w * self.scale))

    def into(self, image: Tensor) -> Tensor:
        """(c, h, w) -> (1, c, size, size), grey beyond the picture."""
        h, w = self.shape
        small = resized(image[None], self.shape)
        return F.pad(small, (0, self.size - w, 0, self.size - h))

    def prompts(self, prompts: Prompts) -> Prompts:
        return prompts._replace(points=prompts.points.float() * self.scale)

    def out(self, logits: Tensor) -> Tensor:
        """(n, m, side, side) of the square -> (n, m, h, w) of the picture."""
        h, w = self.shape
        return resized(resized(logits, (self.size, self.size))[..., :h, :w], (self.h, self.w))


class Masks(NamedTuple):
    """What may be meant by each of n prompts, the surest first."""

    logits: Tensor  # (n, m, h, w) at the picture's size; above 0 is the mask
    iou: Tensor  # (n, m) how well each is expected to fit
    small: Tensor  # (n, m, side, side) the same logits as the decoder gave them: one may stand beside the next click


@dataclass(frozen=True)
class Seen:
    """A picture that was encoded."""

    sam: Sam
    frame: Frame
    features: Tensor

    @torch.no_grad()
    def masks(self, prompts: Prompts) -> Masks:
        """Answers to n prompts in pixels of the picture: three each where all are a single point, box or vector, else one."""
        prompts = self.frame.prompts(prompts.to(self.sam.device))
        answer = self.sam.answer(self.features, prompts)
        rows = self.sam.allowed(prompts)[prompts.alone.int().argmin()]
        iou, order = answer.iou[:, rows].sort(1, descending=True)
        small = answer.logits[:, rows].gather(1, order[..., None, None].expand(-1, -1, *answer.logits.shape[2:]))
        return Masks(self.frame.out(small), iou, small)


# --- masks ----------------------------------------------------------------------------------------

TINT = torch.tensor([0.6, -0.5, -0.5])[:, None, None]


def picked(masks: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """One of the masks (b, k, h, w) for each of u (b, n) on [0, 1): (b * n, h, w) bool, and where there was one to pick (b * n,)."""
    there = masks.flatten(2).sum(2) >= LEAST
    order, count = there.int().argsort(dim=1, descending=True, stable=True), there.sum(1, keepdim=True)
    which = order.gather(1, (u * count).long())
    return masks[torch.arange(len(masks))[:, None], which].flatten(0, 1), (count > 0).expand_as(u).flatten()


def chosen(answer: Answer, allowed: Tensor) -> Tensor:
    """(b, side, side): the logits of the allowed mask that is expected to fit best."""
    best = answer.iou.masked_fill(~allowed, -torch.inf).argmax(1)
    return answer.logits[torch.arange(len(best)), best]


def fit(logits: Tensor, truth: Tensor) -> Tensor:
    """How well masks fit, (*, h, w) -> (*): intersection over union, 1 where both are empty; nothing flows back."""
    mask, truth = logits.detach() > 0, truth > 0.5
    both, either = (mask & truth).sum((-2, -1)), (mask | truth).sum((-2, -1))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def shrunk(truth: Tensor, logits: Tensor) -> Tensor:
    """Masks (b, h, w) at the size of the logits: 1 where most of a place is of the mask."""
    return (F.interpolate(truth[:, None].float(), logits.shape[-2:], mode="area")[:, 0] >= 0.5).float()


def resized(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """(b, c, h, w) at another size: averages over areas where it shrinks, straight lines between places where it grows."""
    if shape[0] < x.shape[-2] or shape[1] < x.shape[-1]:
        return F.interpolate(x, shape, mode="area")
    return F.interpolate(x, shape, mode="bilinear", align_corners=False)


def crops(image: Tensor, boxes: Tensor, wider: Tensor, size: int = 32) -> Tensor:
    """What boxes (b, 4), made `wider` (b,) times as large, show of square pictures (b, 3, h, h): (b, 3, size, size)."""
    box = 2 * boxes.float() / image.shape[-1] - 1
    theta = image.new_zeros(len(image), 2, 3)
    theta[:, :, 2] = (box[:, :2] + box[:, 2:]) / 2
    half = (box[:, 2:] - box[:, :2]).amax(1) / 2 * wider  # a square around it
    theta[:, 0, 0] = theta[:, 1, 1] = half
    grid = F.affine_grid(theta, [len(image), 3, size, size], align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)
