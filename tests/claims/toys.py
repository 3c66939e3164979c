"""Claims small enough to know their answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from diorama.claims.claim import Claim, Effect, Part

RAN = []  # the seeds that were really run


def constant(seed):
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Toy(Claim):
    effect: Callable[[int], float] = constant

    slug: ClassVar[str] = "toy"
    title: ClassVar[str] = "A toy"
    parts: ClassVar[tuple[Part, ...]] = (
        Part(letter="A", statement="one is at least a half", unit="ones", margin=0.5),
        Part(letter="B", statement="two is two", unit="twos", margin=0.0, exact=True),
    )

    def run(self, seed):
        RAN.append(seed)
        torch.ones(100, 100) @ torch.ones(100, 100)  # 2e6 FLOP
        exact = {"B": Effect(2.0)} if seed == 0 else {}
        return {"A": Effect(self.effect(seed), {"drawn": float(torch.rand(()))}), **exact}


@dataclass(frozen=True, kw_only=True)
class Worn(Toy):
    slug: ClassVar[str] = "worn-toy"
    worth: ClassVar[float] = 1.0

    def run(self, seed):
        return {**super().run(seed), "A": Effect(self.worth)}


CLAIM = Toy()
MFLOP = 2.0
