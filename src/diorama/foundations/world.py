"""The pictures that foundation models know."""

from __future__ import annotations

from typing import Any

from diorama.foundations.registry import Foundation
from diorama.worlds.scene import Rules
from diorama.worlds.source import ENDLESS, World


def world_of(what: Foundation, seed: int, **rules: Any) -> World:
    """The endless world of this seed as a model of pictures knows it: its size, captions and labels; nothing held out but by `rules`."""
    assert not (what.moving or what.around), f"{what.name} knows no flat pictures: use foundations.data.data_of"
    return World(seed, ENDLESS, what.size, Rules(**{**what.rules, **rules}), what.form, what.label)
