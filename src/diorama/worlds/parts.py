"""Masks said in other ways: labels, edges, and the three nested answers to "what is at this pixel" (Kirillov et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diorama.types import Batch
from diorama.worlds.render import Views, render
from diorama.worlds.scene import Scene

if TYPE_CHECKING:
    from diorama.worlds.source import World

SHOWS = 0.15  # by how much a texture changes a colour where it is more than half there


@dataclass(frozen=True)
class Parts:
    """Of every thing k three masks (*, k, h, w) in 0 .. 1, each within the next."""

    part: Tensor  # its texture or its front mark; empty where it has none
    whole: Tensor  # what is seen of it
    group: Tensor  # and of all that it touches, or that touches what it touches


def parts(scenes: Sequence[Scene], views: Views) -> Parts:
    """The nested truths of flat pictures: a texture is where the picture differs from that of the same scene with plain things."""
    bare = [replace(s, things=tuple(replace(thing, texture="plain") for thing in s.things)) for s in scenes]
    shows = (views.image - render(bare, views.image.shape[-1]).image).abs().amax(1, keepdim=True) / 2 > SHOWS
    textured = torch.zeros(views.ids.shape, dtype=torch.bool)
    for b, made in enumerate(scenes):
        textured[b, : len(made.things)] = torch.tensor([thing.texture != "plain" for thing in made.things])
    return nested(views.masks, views.masks * (shows & textured[..., None, None]))


def nested(masks: Tensor, part: Tensor) -> Parts:
    """The three truths of masks (*, k, h, w) and of parts of them: of a flat picture, or `shots.masks` and `shots.marks`."""
    own = (labels(masks)[..., None, :, :] == 1 + torch.arange(masks.shape[-3])[:, None, None]).float()
    wider = torch.nn.functional.max_pool2d(own.reshape(-1, *own.shape[-3:]), 3, 1, 1).reshape(own.shape)
    touch = torch.einsum("...ihw, ...jhw -> ...ij", wider, own).clamp(max=1)
    for _ in range(masks.shape[-3]):  # who touches whom touches whom
        touch = (touch @ touch).clamp(max=1)
    alone = torch.eye(masks.shape[-3])  # a thing too thin to win a pixel is a group of its own
    return Parts(part, masks, torch.einsum("...ij, ...jhw -> ...ihw", torch.maximum(touch, alone), masks))


class Masked:
    """A flat world whose batches say what in each picture may be meant: `meanings`, (n, 3 things, size, size)."""

    def __init__(self, world: World):
        self.world = world

    def batch(self, first: int, n: int) -> Batch:
        scenes = [self.world.scene(i % len(self.world)) for i in range(first, first + n)]
        views = render(scenes, self.world.size)
        return replace(self.world.batch(first, n), masks=meanings(parts(scenes, views)))


def meanings(found: Parts) -> Tensor:
    """All three truths of all things as one list (*, 3 k, h, w); what says the same as an earlier one is empty."""
    masks = torch.cat([found.whole, found.part, found.group], -3)
    solid = (masks >= 0.5).flatten(-2)
    same = (solid[..., :, None, :] == solid[..., None, :, :]).all(-1).tril(-1).any(-1)
    return masks * ~same[..., None, None]


def labels(masks: Tensor) -> Tensor:
    """(*, h, w) int64 of masks (*, k, h, w): k + 1 where most of a pixel is thing k, 0 where it is none."""
    return torch.cat([1 - masks.sum(-3, keepdim=True), masks], -3).argmax(-3)


def edges(masks: Tensor) -> Tensor:
    """(*, h, w) bool: pixels whose right or lower neighbour is another thing, of masks (*, k, h, w)."""
    label = labels(masks)
    out = torch.zeros_like(label, dtype=torch.bool)
    out[..., :-1] |= label[..., 1:] != label[..., :-1]
    out[..., :-1, :] |= label[..., 1:, :] != label[..., :-1, :]
    return out
