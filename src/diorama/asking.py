"""How a system is asked for pictures: by sentence, by class or for nothing, as the signature of its `sample` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diorama.cards import find, system_class
from diorama.errors import UserError
from diorama.models import index_of
from diorama.processes.solvers import SOLVERS
from diorama.recipe import Request
from diorama.systems.base import System
from diorama.types import NO_LABEL, Noise, OnStep

# of a system that is asked by sentence and solver, where the model's index has none
DEFAULTS: Mapping[str, Any] = {"steps": 20, "guidance": 4.0, "solver": "euler"}
LISTED = 20  # names that an error tells at most


def takes(system: Any) -> dict[str, Parameter]:
    """What the `sample` of a system, or of its class, takes; nothing where it has none."""
    sample = getattr(system, "sample", None)
    return {} if sample is None else {k: p for k, p in signature(sample).parameters.items() if k != "self"}


def can_be_asked(system: System) -> bool:
    """Whether sentences, classes or nothing at all make pictures of it; some need a picture first, and some make clips."""
    taken = takes(system)
    needed = {name for name, parameter in taken.items() if parameter.default is Parameter.empty}
    return "noise" in taken and "frames" not in taken and needed <= {"prompts", "label", "noise"}


def needs_sentence(folder: Path) -> bool:
    """Whether the system saved there reads sentences, so that none at all is a slip. Raises UserError where there is no system."""
    return "prompts" in takes(system_class(find(index_of(folder)["system"])))


class Asking:
    """One system, and what may be asked of it. `name` is what errors call it."""

    def __init__(self, system: Any, name: str):
        self.system, self.name, self.takes = system, name, takes(system)

    @property
    def styles(self) -> tuple[str, ...]:
        """That a sentence may be drawn in, whatever the system calls them."""
        return tuple(self.system.styles if "styles" in self.takes else self.system.known_labels if "labels" in self.takes else ())

    @property
    def classes(self) -> tuple[str, ...]:
        """That stand where others have a sentence."""
        return tuple(self.system.known_labels) if "label" in self.takes else ()

    @property
    def defaults(self) -> dict[str, Any]:
        """The system's own choices. What is missing it does not take, or does in a way of its own."""
        if {"prompts", "solver"} <= self.takes.keys():
            return dict(DEFAULTS)
        own = {name: self.takes[name].default for name in DEFAULTS if name in self.takes}
        return {name: value for name, value in own.items() if value is not None}

    @property
    def makes_alpha(self) -> bool:
        """Every codec does; of systems that paint pixels, those with a fourth channel."""
        if hasattr(self.system, "codec"):
            return True
        configs = (getattr(self.system, name).config for name in self.system.part_types())
        return next((config.channels for config in configs if hasattr(config, "channels")), 4) != 3

    @property
    def one_by_one(self) -> bool:
        """Whether each picture is sampled alone, where tokens are drawn: what rounds otherwise in a batch may draw another one.

        Seldom: none of 2000 pictures of a `nano` changed. But then by far more than 1/255, and the `mini` gains only a fifth by eights.
        """
        return hasattr(self.system, "quantiser")

    def understood(self, request: Request) -> Request:
        """The request with class and style by their own names. Raises UserError for what the system does not take or know."""
        has = self.takes.keys()
        lacking = {what: "takes none" for what in ("negative", "guidance", "solver") if what not in has}
        lacking |= {} if has & {"prompts", "label"} else {"prompt": "is asked for nothing"}
        lacking |= {} if self.makes_alpha else {"transparent": "makes RGB"}
        for what, why in lacking.items():
            if (given := getattr(request, what)) != getattr(Request, what):
                raise UserError(f"{what} {given!r} is not allowed: the model {self.name} {why}, leave it out")
        prompt = self._known("class", request.prompt, self.classes) if "label" in has and request.prompt else request.prompt
        style = None if request.style is None else self._known("style", request.style, self.styles)
        return replace(request, prompt=prompt, style=style)

    def _known(self, what: str, name: str, among: Sequence[str]) -> str:
        """The one of these names that is meant, in any case. Raises UserError with the nearest first."""
        same = {own.casefold(): own for own in among}
        if name in among or name.casefold() in same:
            return name if name in among else same[name.casefold()]
        if not among:
            raise UserError(f"{what} {name!r} is not known: the model {self.name} has none, leave it out")
        near = [same[match] for match in get_close_matches(name.casefold(), same, 3, 0.4)]
        names = [*near, *(own for own in among if own not in near)]
        raise UserError(f"{what} {name!r} is not known: use {', '.join(names[:LISTED])}{', ...' * (len(names) > LISTED)}")

    def __call__(self, rows: Sequence[Request], noise: Noise, on_step: OnStep) -> Tensor:
        """(b, 4, size, size) in [-1, 1] on the processor, on white, and alpha: of requests alike in steps, guidance and solver."""
        chosen, styles = rows[0], [row.style for row in rows] if self.styles else None
        asked = {
            "prompts": [row.prompt for row in rows],
            "label": self._labels(rows),
            "styles": styles,
            "labels": styles,
            "negative": [row.negative for row in rows] if any(row.negative for row in rows) else None,
            "steps": chosen.steps,
            "guidance": None if chosen.guidance is None else float(chosen.guidance),
            "solver": self._solver(chosen.solver),
        }
        given = {name: value for name, value in asked.items() if name in self.takes and value is not None}
        x = self.system.sample(**given, noise=noise, on_step=on_step).cpu()
        return x if x.shape[1] == 4 else torch.cat([x, torch.ones_like(x[:, :1])], 1)

    def _labels(self, rows: Sequence[Request]) -> Tensor:
        """The place of each class among its labels, (b,) int64."""
        places = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([places.get(row.prompt, NO_LABEL) for row in rows])

    def _solver(self, name: str | None) -> Any:
        """By its name; itself where that is what the system takes."""
        itself = "solver" in self.takes and "Solver" in str(self.takes["solver"].annotation)
        return SOLVERS[name] if itself and name is not None else name


__all__ = ["DEFAULTS", "Asking", "can_be_asked", "needs_sentence"]
