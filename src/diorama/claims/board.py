"""Which claims there are, by slug. Imports nothing of torch until a claim is opened."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

from diorama import claims
from diorama.claims.claim import Claim
from diorama.errors import UserError

HARNESS = {"board", "claim", "runner", "scoreboard", "sources", "verdict"}


def slugs() -> list[str]:
    """Every claim: each module of this room that is not the harness's own, as `guided_diffusion` is `guided-diffusion`."""
    return sorted(module.name.replace("_", "-") for module in iter_modules(claims.__path__) if module.name not in HARNESS)


def check(slug: str) -> None:
    """Raises UserError with the nearest names where there is no such claim."""
    if slug not in slugs():
        near = get_close_matches(slug, slugs(), 3, 0.4) or slugs()
        raise UserError(f"there is no claim for {slug!r}: use {' or '.join(near)}; `diorama verify --all` runs all")


def find(slug: str) -> Claim:
    """The claim of this name, its module's CLAIM. This is where torch is imported."""
    check(slug)
    claim: Claim = import_module(f"{claims.__name__}.{slug.replace('-', '_')}").CLAIM
    return claim
