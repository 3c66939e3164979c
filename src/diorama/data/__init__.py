"""Folders, shards and compositions of pictures with words: every data set is a `Source`, every batch a function of its step."""

from diorama.data.batches import Ahead, Batches
from diorama.data.compose import Composed
from diorama.data.open import Description, describe, open_data
from diorama.data.order import index_at
from diorama.data.source import Item, Source, Unreadable
from diorama.data.views import Joined, Repeated, Subset, hold_out

__all__ = [
    "Ahead",
    "Batches",
    "Composed",
    "Description",
    "Item",
    "Joined",
    "Repeated",
    "Source",
    "Subset",
    "Unreadable",
    "describe",
    "hold_out",
    "index_at",
    "open_data",
]
