"""Generative systems as short compositions of the same parts. `import diorama` is light: torch comes with `diorama.load`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diorama.errors import UserError as UserError
    from diorama.pipeline import Pipeline as Pipeline
    from diorama.pipeline import load as load
    from diorama.recipe import Recipe as Recipe
    from diorama.recipe import read_recipe as read_recipe
    from diorama.recipe import save as save

__version__ = "0.1.0"

LAZY = {
    "load": "pipeline",
    "Pipeline": "pipeline",
    "Recipe": "recipe",
    "read_recipe": "recipe",
    "save": "recipe",
    "UserError": "errors",
}  # name: the module it comes from

__all__ = ["Pipeline", "Recipe", "UserError", "__version__", "load", "read_recipe", "save"]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module 'diorama' has no attribute {name!r}")
    return getattr(import_module(f"diorama.{LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
