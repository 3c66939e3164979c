"""Trained models in miniature, by name: shipped with the package, or trained on first need into the user's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diorama.foundations.registry import FOUNDATIONS as FOUNDATIONS
from diorama.foundations.registry import Foundation as Foundation
from diorama.foundations.registry import find as find
from diorama.foundations.registry import folder_of as folder_of

if TYPE_CHECKING:
    from diorama.systems.base import System


def foundation(name: str) -> System:
    """The trained system of this name. Where it is neither shipped nor in the cache it is trained now, which takes minutes."""
    from diorama.foundations.make import ready  # torch, from here on

    return ready(name)
