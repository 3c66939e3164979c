"""The worlds that foundation models know."""

from __future__ import annotations

from typing import Any, cast

from diorama.foundations.registry import HELD_OUT, Foundation
from diorama.sources import Clips, Views, Worlds
from diorama.worlds.source import World


def data_of(what: Foundation, **rules: Any) -> Worlds:
    """What the model is trained on, under its rules and others."""
    kind = Clips if what.moving else Views if what.around else Worlds
    return kind(size=what.size, rules={**what.rules, **rules}, label=what.label, form=what.form, hold_out=HELD_OUT)


def world_of(what: Foundation, seed: int, **rules: Any) -> World:
    """The endless world of this seed as the model knows it: its size, captions and labels; nothing held out but by `rules`.

    Of clips or views of solids where the model knows those; they are read by number as well.
    """
    return cast(World, data_of(what, **rules).world(seed))
