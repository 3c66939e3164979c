"""`diorama replay`: a picture or a clip again, from the recipe it carries."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import Output, find_model
from diorama.errors import UserError
from diorama.foundations.registry import FOUNDATIONS
from diorama.models import locate_adapter, shipped, ships_adapter
from diorama.recipe import ClipRecipe, Recipe, read_recipes, tell_of_sheet


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The same picture again, bit for bit on the same kind of processor; elsewhere as close as rounding lets it be."""

    picture: Annotated[tyro.conf.Positional[str], flag("PICTURE")]
    """A picture or a clip (.webp, .gif, .png) that diorama wrote with its recipe inside."""
    out: Annotated[str | None, flag("PATH", "-o")] = None
    """A file, which is replaced, or a folder (ending in /, or without a suffix). Without it: SENTENCE-SEED.png here."""
    system: Annotated[str | None, flag("NAME|DIR")] = None
    """The model it was made with, where that is not a shipped one."""
    adapter: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("DIR")] = ()
    """The adapter it was made with; several in their order. Shipped ones are found by themselves."""
    first: Annotated[str | None, flag("PICTURE")] = None
    """Of a clip, the picture that it began with, where it began with one."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Annotated[bool, flag()] = False
    """One JSON object on standard output."""

    def run(self) -> int:
        recipes, began = read_recipes(self.picture), time.perf_counter()
        system = self.system or _known(recipes[0])
        if isinstance(recipes[0], ClipRecipe):
            from diorama.apps.animate import Animate

            return Animate.again(recipes[0], self.first, system, out=self.out, device=self.device).run()
        output = Output(self.out, [None])
        model = _load(system, recipes[0], self.device, self.adapter)
        said: list[str] = []
        pictures = [model.replay(recipe, said.append) for recipe in recipes]
        for line in dict.fromkeys(said):
            print(f"diorama: {line}", file=sys.stderr)
        path = output.write(0, _together(pictures), True, recipes[0])
        seconds = time.perf_counter() - began
        if self.json:
            told = {"path": str(path), "seed": recipes[0].seed, "seconds": round(seconds, 3), "exact": not said}
            print(json.dumps(told))
        else:
            print(f"{path}  seed {recipes[0].seed}  {seconds:.2f} s")
        return 0


def _together(pictures: Sequence[Any]) -> Any:
    """The picture, or the sheet of several."""
    if len(pictures) == 1:
        return pictures[0]
    from diorama.pictures import sheet

    paper = sheet(pictures)
    tell_of_sheet(paper, [picture.recipe for picture in pictures])
    return paper


def _known(recipe: Recipe) -> str:
    """The name of its model. Raises UserError where that is none of ours: a stranger's file may name no folder."""
    if recipe.model not in (*shipped(), *FOUNDATIONS):
        raise UserError(f"it was made with {recipe.maker}, which is not a shipped one: name its folder with --system")
    return recipe.model


def _load(name: str, recipe: Recipe, device: str, adapters: Sequence[str]) -> Any:
    """The model on the recipe's own ground as far as it can be had here: its precision, its number of threads, its adapters."""
    find_model(name)  # before torch is imported
    worn = _worn(recipe, adapters)
    from diorama.pipeline import load

    threads = min(recipe.threads, os.cpu_count() or 1)  # a larger machine's number would only crowd this one
    try:
        return load(name, device, recipe.dtype, threads, worn)
    except UserError:  # a precision this processor does not have; what else is wrong comes again
        return load(name, device, "auto", threads, worn)


def _worn(recipe: Recipe, folders: Sequence[str]) -> list[str]:
    """The folders, and shipped adapters, with the strengths that the recipe says. Raises UserError where there are fewer or more of them."""
    if len(folders) < len(recipe.adapters):
        named = iter(folders)
        folders = [name if ships_adapter(name) else next(named, "") for name, _, _ in recipe.adapters]
        folders = [*filter(None, folders), *named]
    if len(folders) != len(recipe.adapters):
        made = ", ".join(f"{name!r} (weights {weights[:10]})" for name, weights, _ in recipe.adapters) or "none"
        raise UserError(
            f"the picture was made with {len(recipe.adapters)} adapters, {made}: name the folder of each with --adapter"
        )
    worn = [f"{folder}:{strength}" for folder, (_, _, strength) in zip(folders, recipe.adapters, strict=True)]
    for words in worn:
        locate_adapter(words)
    return worn
