"""What foundation models are trained on: pictures, clips or views of solids, each model under its own rules."""

from __future__ import annotations

from typing import cast

from diorama.foundations.registry import HELD_OUT, Foundation
from diorama.sources import Clips, Views, Worlds
from diorama.worlds.source import Numbered


def data_of(what: Foundation) -> Worlds:
    """The miniature world as this model knows it; a twelfth of its (colour, shape) pairs is held out when it is opened."""
    kind = Clips if what.moving else Views if what.around else Worlds
    return kind(size=what.size, rules=what.rules, label=what.label, form=what.form, hold_out=HELD_OUT)


def items_of(what: Foundation, seed: int) -> Numbered:
    """All of the endless world of this seed, whatever kind of items the model knows, by number."""
    return cast(Numbered, data_of(what).world(seed))
