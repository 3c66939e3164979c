"""What may be trained on: someone's pictures or animations, and the miniature world, each opened and split the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

from diorama.data.clips import Animations
from diorama.data.compose import Composed
from diorama.data.open import open_data
from diorama.data.source import Source
from diorama.data.views import Repeated, Subset, hold_out
from diorama.errors import UserError
from diorama.types import mix
from diorama.worlds.clip_source import ClipWorld
from diorama.worlds.clips import ClipRules
from diorama.worlds.scene import Rules
from diorama.worlds.source import ENDLESS, World, unseen
from diorama.worlds.view_source import ViewWorld


@dataclass(frozen=True, kw_only=True)
class Data:
    """Someone's pictures to train on, and how to look at them."""

    path: Path
    on_white: bool = False  # RGB is stored already laid on white; alpha is a mask
    size: int = 128  # pixels along a side
    compose: int = 0  # true captions composed from alpha: this many composed pictures per picture; 0 for none
    often: str = ""  # FIELD=TIMES: items whose field is true are seen that many times as often
    hold_out: float = 0.0  # share of (concept, style) combinations, where the data names them, never trained on
    cache: bool = True  # see every picture once through the frozen encoders and train on what they saw

    @property
    def name(self) -> str:
        return self.path.name

    def open(self, seed: int) -> Source:
        """All there is."""
        source = open_data(self.path, on_white=self.on_white)
        if not len(source):
            raise UserError(f"{self.path} holds no pictures: give a folder of pictures or .tar shards")
        return source

    def split(self, source: Source, seed: int) -> tuple[Source, Source]:
        """The pictures to train on, and a few that are not (for the held-out loss)."""
        train: Source
        held: Source
        train, held = hold_out(source, self.hold_out, seed)
        if not len(held):
            train, held = _every(source, 20)
        train = self._repeated(train)
        return Composed(train, self.compose * len(train), seed) if self.compose else train, held

    def _repeated(self, source: Source) -> Source:
        if not self.often:
            return source
        name, _, times = self.often.partition("=")
        if not times.isdigit() or int(times) < 1:
            raise UserError(f"--often {self.often!r} is not FIELD=TIMES: for example base=3")
        return Repeated(source, [int(times) if source.record(i).get(name) else 1 for i in range(len(source))])


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """The miniature world to train on: every picture new. `rules` are the fields of `worlds.scene.Rules`."""

    size: int = 64  # pixels along a side
    rules: Mapping[str, Any] = field(default_factory=dict)
    label: str = "style"  # what its labels are: style, shape, colour or kind
    form: str | None = None  # of its captions
    hold_out: float = 0.0  # share of (colour, shape) pairs never trained on

    name: ClassVar[str] = "world"
    cache: ClassVar[bool] = False  # no picture comes twice

    def open(self, seed: int) -> Source:
        return self.world(seed, self.hold_out)

    def split(self, source: Source, seed: int) -> tuple[Source, Source]:
        """The world without what is held out, and another one with all there is."""
        return source, self.world(mix(seed, 1))

    def world(self, seed: int, hold_out: float = 0.0) -> Source:
        return World(seed, ENDLESS, self.size, _without(Rules(**self.rules), hold_out), self.form, self.label)


@dataclass(frozen=True, kw_only=True)
class Clips(Worlds):
    """The miniature world in motion: every clip new. `rules` are the fields of `worlds.clips.ClipRules`."""

    size: int = 32
    label: str = "motion"  # camera, law or motion

    name: ClassVar[str] = "clips"

    def world(self, seed: int, hold_out: float = 0.0) -> Source:
        rules = ClipRules(**self.rules)
        rules = replace(rules, world=_without(rules.world, hold_out))
        clips = ClipWorld(seed, ENDLESS, self.size, rules, self.form, self.label)
        return cast(Source, clips)  # in all but that its items are no pictures, which only `Batches` would read


@dataclass(frozen=True, kw_only=True)
class Views(Worlds):
    """Single solids of the miniature world, seen from anywhere, under captions that say from where."""

    size: int = 32

    name: ClassVar[str] = "views"

    def world(self, seed: int, hold_out: float = 0.0) -> Source:
        views = ViewWorld(seed, ENDLESS, self.size, _without(Rules(**self.rules), hold_out))
        return cast(Source, views)  # read by number, as clips are


@dataclass(frozen=True, kw_only=True)
class Films:
    """Someone's animations to train on."""

    path: Path
    size: int = 32  # pixels along a side
    frames: int = 8
    fps: float = 8.0

    cache: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return self.path.name

    def open(self, seed: int) -> Source:
        return Animations(self.path, self.fps)

    def split(self, source: Source, seed: int) -> tuple[Source, Source]:
        return _every(source, 20)


def _without(rules: Rules, share: float) -> Rules:
    """The rules but for a share of their (colour, shape) pairs."""
    return replace(rules, held_out=(*rules.held_out, *unseen(rules, share)))


def _every(source: Source, n: int) -> tuple[Source, Source]:
    """All but every n-th item, at most 64 of them, and those. A set too small to spare any is its own test."""
    held = list(range(0, len(source), n))[:64] if len(source) >= 2 * n else []
    kept = sorted(set(range(len(source))) - set(held))
    return Subset(source, kept), Subset(source, held or kept[:64])


Anything = Data | Worlds | Films
