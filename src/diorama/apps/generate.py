"""`diorama generate`: pictures from sentences."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import Output, find_model, steps_bar, use_all_cores
from diorama.errors import UserError
from diorama.models import fast_adapter, locate_adapter
from diorama.recipe import FORMATS, MOST, Request

WIDEST = 16384  # pixels along a side of a sheet


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Pictures from sentences. Each carries its recipe, so that `diorama replay` can make it again.

    Picture i is the picture of seed + i alone, however many are made together.
    """

    prompts: Annotated[tyro.conf.Positional[tuple[str, ...]], flag("SENTENCE")] = ()
    """What to draw, one sentence each, "" for anything. Of a model asked by class a class; none of one asked for nothing."""
    file: Annotated[str | None, flag("FILE", name="prompts")] = None
    """Sentences from a file, one a line, or .jsonl with a "prompt" and any option per line; - reads standard input."""
    out: Annotated[str | None, flag("PATH", "-o")] = None
    """A file, which is replaced; numbered for several pictures, which replace nothing. Or a folder (ending in /, or without a suffix).
    Without it: SENTENCE-SEED.png here."""
    negative: Annotated[str, flag("TEXT")] = ""
    """What to keep away from."""
    n: int = 1
    """Pictures per sentence."""
    seed: Annotated[int | None, flag("INT")] = None
    """Of the first picture; drawn and printed where not given."""
    steps: Annotated[int | None, flag("INT")] = None
    """Solver steps, 1 to 1000. Without it the model's own choice, as for guidance, solver and size."""
    guidance: Annotated[float | None, flag("FLOAT")] = None
    """How hard the sentence is pressed; 1 is no guidance."""
    style: Annotated[str | None, flag("NAME")] = None
    """One of the model's styles; `diorama show` lists them."""
    size: Annotated[int | None, flag("INT")] = None
    """Pixels along a side, 16 to 1024; beyond the model's own its upsampler draws them, where it has one, else they are resampled."""
    solver: Annotated[str | None, flag("NAME")] = None
    """How the noise is removed: euler, heun or dpmpp_2m."""
    transparent: Annotated[bool, flag()] = False
    """RGBA without a ground, instead of RGB on white."""
    grid: Annotated[bool, flag()] = False
    """One sheet of all pictures instead of a file for each."""
    system: Annotated[str, tyro.conf.arg(metavar="NAME|DIR")] = "default"
    """A shipped model, the folder of a saved one or of a checkpoint of diffusers, or hub:OWNER/NAME."""
    fast: Annotated[bool, flag()] = False
    """In a few steps, without guidance: the model wears its fast adapter, where one is shipped."""
    upsample_prompt: Annotated[bool, flag()] = False
    """Make each sentence as long as those the model learned from, by its own language model; recipes hold the long ones."""
    adapter: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], flag("DIR[:STRENGTH]")] = ()
    """What `diorama personalize` or `distill` wrote; several times for several."""
    device: str = "auto"
    """auto, cpu or cuda."""
    dtype: str = "auto"
    """auto, float32 or bfloat16."""
    recipe: Annotated[bool, flag()] = True
    """Leave the recipe out of the files."""
    json: Annotated[bool, flag()] = False
    """One JSON object per file on standard output."""

    def run(self) -> int:
        rows = list(self._rows())
        if not rows:
            raise UserError('nothing to draw: give a sentence, as in diorama generate "a red apple"')
        requests, output = [row.request for row in rows], Output(self.out, [row.out for row in rows], self.grid)
        if self.grid:
            _check_sheet(requests)
        else:
            output.check(request.transparent for request in requests)
        folder = find_model(self.system)
        if self.fast:
            fast_adapter(folder)
        for adapter in self.adapter:
            locate_adapter(adapter)
        from diorama.pipeline import load  # torch, from here on

        use_all_cores()
        model = load(self.system, self.device, self.dtype, adapters=self.adapter, fast=self.fast)
        if self.upsample_prompt:
            requests = model.upsampled(requests)
        sheet, done, began = [], 0, time.perf_counter()
        try:
            with steps_bar() as on_step:
                for i, picture in enumerate(model.stream(requests, on_step)):
                    done += 1
                    if self.grid:
                        sheet.append(picture)
                    else:
                        path = output.write(i, picture, self.recipe)
                        self._tell(path, picture.recipe.prompt, picture.recipe.seed, picture.seconds)
        except KeyboardInterrupt:
            self._sheet(output, sheet, began)
            kept = "nothing was saved" if not done else f"{done} of {len(requests)} pictures are saved"
            raise KeyboardInterrupt(kept) from None
        self._sheet(output, sheet, began)
        return 0

    def _sheet(self, output: Output, pictures: Sequence[Any], began: float) -> None:
        if not pictures:
            return
        from diorama.pictures import sheet
        from diorama.recipe import tell_of_sheet

        paper, recipes = sheet(pictures), [picture.recipe for picture in pictures]
        tell_of_sheet(paper, recipes)
        path = output.write(0, paper, self.recipe, recipes[0])
        self._tell(path, recipes[0].prompt, recipes[0].seed, time.perf_counter() - began)

    def _tell(self, path: Path, prompt: str, seed: int, seconds: float) -> None:
        if self.json:
            print(json.dumps({"path": str(path), "prompt": prompt, "seed": seed, "seconds": round(seconds, 3)}), flush=True)
        else:
            print(f"{path}  seed {seed}  {seconds:.2f} s", flush=True)

    def _rows(self) -> Iterator[Row]:
        """Every picture asked for, in order, with its seed."""
        if not 1 <= self.n <= MOST:
            raise UserError(f"n {self.n} is not allowed: use 1 to {MOST}")
        own = {f.name: getattr(self, f.name) for f in fields(Request) if f.name not in ("prompt", "seed")}
        seed = secrets.randbelow(2**32) if self.seed is None else Request(seed=self.seed).seed
        lines: list[dict[str, Any]] = [{"prompt": prompt} for prompt in self.prompts]
        lines += read_prompts(self.file) if self.file is not None else []
        lines = lines or self._unsaid()
        for line in lines:
            values = {**own, **line}
            n, out, first = values.pop("n", self.n), values.pop("out", None), values.pop("seed", seed)
            for k in range(n):
                yield Row(Request(**values, seed=first + k), out)
            seed += 0 if "seed" in line else n

    def _unsaid(self) -> list[dict[str, Any]]:
        """One line that asks for anything, where the model knows no sentences: of others it is a slip."""
        from diorama.asking import needs_sentence

        return [] if needs_sentence(find_model(self.system)) else [{"prompt": ""}]


@dataclass(frozen=True)
class Row:
    """One picture to make, and the name its own line asks for."""

    request: Request
    out: str | None = None


ALLOWED = [f.name for f in fields(Request)] + ["n", "out"]


def read_prompts(name: str) -> list[dict[str, Any]]:
    """The lines of a file of sentences, or of JSON objects where its name ends in .jsonl. Raises UserError, naming the line."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{name} cannot be read ({(error.strerror or str(error)).lower()}): give a file of sentences") from None
    except UnicodeDecodeError:
        raise UserError(f"{name} is not text in UTF-8: give a file of sentences, one a line") from None
    lines = [(i, line.strip()) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"{name} holds no sentence: write one a line")
    if not name.endswith((".jsonl", ".ndjson")):
        return [_checked({"prompt": line}, f"{name}, line {i}") for i, line in lines]
    return [_checked(_object(line, f"{name}, line {i}"), f"{name}, line {i}") for i, line in lines]


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{where} is not valid JSON: write one object a line") from None
    if not isinstance(values, dict) or values.get("prompt") is None:
        raise UserError(f'{where} has no prompt: write {{"prompt": "a red apple"}} and any option beside it')
    if unknown := sorted(set(values) - set(ALLOWED)):
        raise UserError(f"{where} has an unknown option {unknown[0]!r}: use {', '.join(ALLOWED)}")
    return {name: value for name, value in values.items() if value is not None}


def _checked(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The same values; UserError with the line's number for one that is not allowed."""
    n, out = values.get("n", 1), values.get("out", "x.png")
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST:
        raise UserError(f"{where}: n {n!r} is not allowed: use 1 to {MOST}")
    if not isinstance(out, str) or Path(out).is_absolute() or ".." in Path(out).parts or not out.lower().endswith(FORMATS):
        raise UserError(f"{where}: out {out!r} is not allowed: name a file in the output folder, as in cat.png")
    try:
        Request(**{name: value for name, value in values.items() if name not in ("n", "out")})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return values


def _check_sheet(requests: Sequence[Request]) -> None:
    columns = -(-(len(requests) ** 0.5) // 1)
    if (largest := columns * (max(request.size or 128 for request in requests) + 4)) > WIDEST:
        raise UserError(
            f"the sheet would be {largest:.0f} pixels wide: ask for fewer or smaller pictures, at most {WIDEST} along a side"
        )


__all__ = ["Generate", "Row", "read_prompts"]
