"""How the verbs' arguments look in --help."""

from __future__ import annotations

from typing import Any

import tyro


def flag(metavar: str | None = None, *aliases: str, name: str | None = None) -> Any:
    """A flag whose help is its docstring alone: without a default that the docstring tells better."""
    return tyro.conf.arg(metavar=metavar, aliases=aliases, name=name, help_behavior_hint="")
