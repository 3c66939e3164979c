"""What a data set is to the rest of the house: items that can be read by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from diorama.types import Item as Item


class Unreadable(Exception):
    """One item could not be read; the message says which and why. Counted, named and skipped, up to a limit."""


class Source(Protocol):
    """A data set of known length. `read` is a pure function of i and raises `Unreadable` for a broken item."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes or styles, sorted; empty where there are none."""

    def __len__(self) -> int: ...

    def record(self, i: int) -> Mapping[str, Any]:
        """What is said of item i without opening its picture: key, text, label and all further fields."""

    def read(self, i: int) -> Item: ...
