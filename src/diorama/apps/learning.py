"""What the verbs share that teach a model something new: their bounds, the model, the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from diorama.apps.output import use_all_cores
from diorama.errors import UserError
from diorama.training.plan import Plan

if TYPE_CHECKING:
    from diorama.pipeline import Pipeline
    from diorama.systems.images.latent import LatentPainter

WIDEST = 256  # rank of an adapter: beyond, it is wider than the layers it stands beside


class Lesson(Protocol):
    """What such a verb is told, among other things."""

    @property
    def system(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def check(lesson: Lesson, least: Mapping[str, tuple[int, int]]) -> None:
    """Raises UserError where an adapter cannot be learned so; `least` has the verb's own numbers, and their bounds."""
    numbers = {"rank": (lesson.rank, 1), "steps": (lesson.steps, 1), "seed": (lesson.seed, 0), **least}
    for name, (value, bound) in numbers.items():
        if value is not None and value < bound:
            raise UserError(f"{name} {value} is not allowed: use {bound} or more")
    if lesson.rank > WIDEST:
        raise UserError(f"rank {lesson.rank} is not allowed: use 1 to {WIDEST}, usually 4 to 64")
    if lesson.lr is not None and not 0 < lesson.lr < float("inf"):
        raise UserError(f"lr {lesson.lr} is not allowed: use a number above 0, such as 1e-3")


def load_painter(lesson: Lesson, done: str) -> tuple[Pipeline, LatentPainter]:
    """The model that learns, on all cores. Raises UserError, which says what cannot be `done` to it, where it paints in no latents."""
    from diorama.pipeline import load
    from diorama.systems.images.latent import LatentPainter

    use_all_cores()
    model = load(lesson.system, lesson.device, lesson.dtype)
    if not isinstance(model.system, LatentPainter):
        slug = model.system.card.slug
        raise UserError(f"{slug} cannot be {done} yet: use a model that paints in latents, such as default")
    return model, model.system


def planned(plan: Plan, lesson: Lesson) -> Plan:
    """The plan with what was asked for."""
    steps, lr = lesson.steps or plan.steps, lesson.lr or plan.lr
    return replace(plan, steps=steps, lr=lr, seed=lesson.seed, device=lesson.device, dtype=lesson.dtype)
