"""What a claim is. Imports nothing of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from diorama.errors import UserError
from diorama.foundations.registry import folder_of

BUDGET = 60.0  # TFLOP: the most that all seeds of a claim may cost together


@dataclass(frozen=True, kw_only=True)
class Part:
    """One lettered statement, and by how much the method must beat its baseline. The margin is set before the first run."""

    letter: str
    statement: str
    unit: str
    margin: float
    exact: bool = False  # nothing is drawn: the first seed's number is the number, later seeds may leave it out
    conditional_on: str = ""  # the shipped model whose sampling alone the seeds vary


@dataclass(frozen=True)
class Effect:
    """What one seed found of one part: method minus baseline on paired arms, in the direction of the claim and the part's unit."""

    value: float | None  # None where it could not be measured; `note` says why
    arms: Mapping[str, float] = field(default_factory=dict)  # each arm's own number, for the table
    stderr: float = 0.0  # of the sampling within the seed, where it is known
    note: str = ""

    @classmethod
    def missing(cls, why: str) -> Effect:
        return cls(None, note=why)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A paper's own point as an experiment. Subclasses are frozen dataclasses: their fields are its pieces (solver, guidance,
    pairing of texts ...), each with a default, so that `replace(CLAIM, solver=broken)` is the experiment that must fail.
    """

    slug: ClassVar[str]
    title: ClassVar[str]
    parts: ClassVar[tuple[Part, ...]]
    seeds: ClassVar[int] = 3
    assets: ClassVar[tuple[str, ...]] = ()  # foundation models it stands on: another one makes old numbers stale

    def run(self, seed: int) -> Mapping[str, Effect]:
        """The effect of each part by its letter. A function of the seed alone; torch's own generator is seeded from it."""
        raise NotImplementedError


def model_folder(name: str) -> Path:
    """Where a foundation model is. Raises UserError where it is nowhere yet: training it is no part of a claim's cost."""
    folder = folder_of(name)
    if folder is None:
        raise UserError(f"needs {name}: run diorama foundations {name} first")
    return folder
