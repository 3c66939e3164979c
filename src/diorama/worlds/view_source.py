"""Single solids seen from anywhere as a data set: one thing with its front mark, and words that say from where it is seen.

What a text-to-3D system's painter must have seen (Poole et al. 2022): "front view of a red cube with a face" differs from its back view.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from diorama.errors import UserError
from diorama.scenes.cameras import all_around, view_words
from diorama.types import Batch, mix
from diorama.worlds.render import LARGEST, SMALLEST
from diorama.worlds.scene import ANY, TONES, Ground, Rules, Scene, scene
from diorama.worlds.space import BUILDS
from diorama.worlds.views import shoot

NOUNS = {"square": "cube", "circle": "ball", "triangle": "cone"}  # other solids are called as their shapes
UNSAID = 0.25  # how often no word says from where: what is asked without one is known too
FACED = 0.5  # how often the face is named; it is always there


class ViewWorld:
    """n pictures of solids, item i a function of (seed, i) alone, each on a plain ground.

    Casting rays is dear, so there are SHOTS of them, each cast when first asked for and then seen on other grounds and in other words.
    Raises UserError for an impossible size or number.
    """

    layout = "views"
    labels: tuple[str, ...] = ()
    SHOTS = 1 << 14
    AT_ONCE = 32  # cast together

    def __init__(self, seed: int, n: int, size: int = 32, rules: Rules = ANY):
        if n < 1:
            raise UserError(f"a world of {n} views is not possible: use 1 or more")
        if not SMALLEST <= size <= LARGEST:
            raise UserError(f"size {size} is not possible in the world: use {SMALLEST} to {LARGEST}")
        self.seed, self.n, self.size = seed, n, size
        self.rules = replace(rules, least=1, most=1, subjects=0.0, grounds=("clear",))
        self._shot = lru_cache(self.SHOTS // self.AT_ONCE)(self._shoot)

    def __len__(self) -> int:
        return self.n

    def scene(self, i: int) -> Scene:
        """What item i is a view of, in the middle of the world and facing azimuth 0."""
        return centred(scene(self.seed, i % self.SHOTS, self.rules))

    def seen_from(self, i: int) -> Tensor:
        """(6,) in 0 .. 1: where item i is seen from, as `all_around` takes it."""
        rng = random.Random(mix(self.seed, i % self.SHOTS, 0x5EE))
        return torch.tensor([rng.random() for _ in range(6)])

    def record(self, i: int) -> Mapping[str, Any]:
        """What is said of item i, nothing drawn: key, text, label, and whence it is seen."""
        if not 0 <= i < self.n:
            raise IndexError(i)
        _, azimuth, elevation = all_around(self.seen_from(i)[None])
        rng, thing = random.Random(mix(self.seed, i, 0x5A1D)), self.scene(i).things[0]
        words = call(thing.shape, thing.colour, face=rng.random() < FACED)
        if rng.random() >= UNSAID:
            words = f"{view_words(float(azimuth), float(elevation))} of {words}"
        where = {"azimuth": float(azimuth), "elevation": float(elevation)}
        return {"key": f"views-{self.seed}-{i}", "text": words, "label": None, **where}

    def lines(self) -> list[str]:
        """What it holds, for people, one fact a line."""
        said = [self.record(i)["text"] for i in range(min(3, self.n))]
        head = f"single solids of the miniature world {self.seed} from all sides, {self.size} x {self.size}"
        return [f"{head}; {len(self.rules.pairs)} coloured shapes", *(f"for example {words}" for words in said)]

    def batch(self, first: int, n: int) -> Batch:
        """Items first .. first + n - 1, from the front again after the last: image (n, 4, size, size) in [-1, 1], alpha 1."""
        items = [i % self.n for i in range(first, first + n)]
        shots = [i % self.SHOTS for i in items]
        seen = torch.stack([self._shot(i // self.AT_ONCE)[i % self.AT_ONCE] for i in shots]).float() / 255
        return Batch(on_ground(seen, torch.stack([self.ground(i) for i in items])), [self.record(i)["text"] for i in items])

    def ground(self, i: int) -> Tensor:
        """(3,) in 0 .. 1: the colour behind item i."""
        tones = self.rules.tones
        return torch.tensor(TONES[tones[int(random.Random(mix(self.seed, i, 0x60)).random() * len(tones))]])

    def _shoot(self, group: int) -> Tensor:
        """(AT_ONCE, 4, size, size) bytes: neighbouring shots on white, and their alpha."""
        items = range(group * self.AT_ONCE, (group + 1) * self.AT_ONCE)
        scenes = [self.scene(i) for i in items]
        camera, _, _ = all_around(torch.stack([self.seen_from(i) for i in items]), middle(scenes), self.size)
        return ((shoot(scenes, camera.rows((slice(None), None))).image[:, 0] + 1) * 127.5).round().byte()


def call(shape: str, colour: str, face: bool = True) -> str:
    """ "a red cube with a face"."""
    noun = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {NOUNS.get(shape, shape)}"
    return f"{noun} with a face" if face else noun


def centred(scene: Scene) -> Scene:
    """The scene with its only thing in the middle of the floor, facing azimuth 0, on nothing."""
    thing = replace(scene.things[0], x=0.5, y=0.5, angle=0.0)
    return replace(scene, things=(thing,), ground=Ground(kind="clear", tone="white"))


def middle(scenes: list[Scene]) -> Tensor:
    """(b, 3) metres: the middles of the only things of these scenes, each centred."""
    return torch.tensor([[0.0, 0.0, s.things[0].radius * BUILDS[s.things[0].shape].foot] for s in scenes])


def on_ground(seen: Tensor, ground: Tensor) -> Tensor:
    """Pictures (b, 4, h, w) on white with alpha, laid on grounds (b, 3), all in 0 .. 1 -> (b, 4, h, w) in [-1, 1] without holes."""
    clear = 1 - seen[:, 3:]
    rgb = seen[:, :3] - clear * (1 - ground[:, :, None, None])
    return torch.cat([rgb, torch.ones_like(clear)], 1) * 2 - 1
