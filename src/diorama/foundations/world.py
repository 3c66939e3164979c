"""The worlds that foundation models know."""

from __future__ import annotations

from typing import Any

from diorama.foundations.registry import Foundation
from diorama.worlds.clip_source import ClipWorld
from diorama.worlds.clips import ClipRules
from diorama.worlds.scene import Rules
from diorama.worlds.source import ENDLESS, World
from diorama.worlds.view_source import ViewWorld


def clips_of(what: Foundation, seed: int) -> ClipWorld:
    """The same of a model that knows clips."""
    return ClipWorld(seed, ENDLESS, what.size, ClipRules(**what.rules), what.form, what.label)


def views_of(what: Foundation, seed: int) -> ViewWorld:
    """The same of a model that knows single solids from all sides."""
    return ViewWorld(seed, ENDLESS, what.size, Rules(**what.rules))


def world_of(what: Foundation, seed: int, **rules: Any) -> World:
    """The endless world of this seed as the model knows it: its size, captions and labels; nothing held out but by `rules`."""
    return World(seed, ENDLESS, what.size, Rules(**{**what.rules, **rules}), what.form, what.label)
