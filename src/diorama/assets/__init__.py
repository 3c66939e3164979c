"""The shipped weights, found wherever the package is installed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def asset(name: str) -> Path:
    """The folder of a shipped model."""
    return Path(str(files(__name__))) / name
