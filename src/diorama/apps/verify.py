"""`diorama verify`: a system's own claim, run and judged."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import make_folder, steps_bar, use_all_cores
from diorama.claims import board, scoreboard
from diorama.claims.claim import BUDGET, Claim
from diorama.claims.scoreboard import Row
from diorama.errors import UserError
from diorama.files import atomic_file

MOST = 100  # seeds


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Run what a system claims, method against baseline, and say whether it holds, fails or is undecided.

    Finished seeds are kept, so an interrupted run goes on where it was, and nothing runs twice from the same source.
    """

    systems: Annotated[tyro.conf.Positional[tuple[str, ...]], flag("SYSTEM")] = ()
    """Whose claims. `diorama systems` shows what is known of each."""
    all: Annotated[bool, flag()] = False
    """Every claim that is stale: without a row on the board, or whose source or models have changed since."""
    seeds: Annotated[int | None, flag("N")] = None
    """How often to repeat, with other noise, data and weights; fewer than 3 decide nothing. Without it: what the claim asks for."""
    budget: Annotated[float, flag("TFLOP")] = BUDGET
    """The most work for one claim, all seeds together. One that needs more is stopped, and undecided."""
    carry: Annotated[str | None, flag("WHY")] = None
    """Run nothing: take the rows for those of the present code, and say why on the page. For changes that no number passes through."""
    json: Annotated[bool, flag()] = False
    """The rows as one JSON list on standard output."""
    board: Annotated[str | None, flag("DIR")] = None
    """The folder of scoreboard.json. Without it: your own, in the cache folder."""
    page: Annotated[str | None, flag("FILE")] = None
    """Write the whole board as Markdown here too; without SYSTEM and --all nothing is run."""

    def run(self) -> int:
        slugs = self._slugs()
        store = scoreboard.user_store()
        folder = Path(self.board) if self.board else store
        for place in (folder, Path(self.page or folder / "page").parent):  # before any work is done
            make_folder(place)
        rows, done = scoreboard.read(folder), []
        use_all_cores()
        for slug in slugs:
            try:
                row = self._row(board.find(slug), rows.get(slug), store)
            except FloatingPointError as error:  # which stops no other claim
                print(f"diorama: error: {error}", file=sys.stderr)
                continue
            done.append(row)
            rows[slug] = row
            scoreboard.write(folder, rows)
            if not self.json:
                _show(row)
        if self.json:
            print(json.dumps([asdict(row) for row in done], indent=2))
        if self.page:
            from diorama.claims.sources import stale

            with atomic_file(self.page) as temporary:
                temporary.write_text(scoreboard.page(rows, stale(rows)), encoding="utf-8")
        return 0 if len(done) == len(slugs) else 1

    def _slugs(self) -> list[str]:
        if (self.all and self.systems) or not (self.all or self.systems or self.page):
            raise UserError(f"name the systems whose claims to run, or use --all: {', '.join(board.slugs())}")
        for slug in self.systems:
            board.check(slug)
        if self.seeds is not None and not 1 <= self.seeds <= MOST:
            raise UserError(f"seeds {self.seeds} is not allowed: use 1 to {MOST}, at least 3 for a verdict")
        if self.carry is not None and not (self.systems and self.carry.strip()):
            raise UserError("--carry needs a reason, and the systems whose rows it is true of: diorama verify NAME --carry WHY")
        if not (self.budget > 0 and math.isfinite(self.budget)):
            raise UserError(f"budget {self.budget} is not allowed: use a number of TFLOP above 0, usually 60")
        return board.slugs() if self.all else list(dict.fromkeys(self.systems))

    def _row(self, claim: Claim, before: Row | None, store: Path) -> Row:
        """The row as it stands where --all finds it current, else a new one."""
        from diorama.claims.runner import verify  # torch, from here on
        from diorama.claims.sources import current, source_hash

        if self.carry is not None:
            if before is None:
                raise UserError(f"there is no row of {claim.slug} to carry over: run it without --carry")
            return replace(before, source=source_hash(claim), carried="; ".join(filter(None, (before.carried, self.carry))))
        seeds = self.seeds or claim.seeds
        if self.all and before and before.seeds >= seeds and current(before):
            return before
        with steps_bar(f"{claim.slug}, seeds") as on_step:
            return verify(claim, seeds, self.budget, store, on_step)


def _show(row: Row) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("part", "statement", "effect", "margin", "verdict"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "statement")
    for part in row.parts:
        small = "".join(f"\n{line}" for line in (part.unit, scoreboard.details(part)) if line)
        statement = Text.assemble(part.statement, (small, "dim"))
        table.add_row(part.letter, statement, scoreboard.found(part), f"{part.margin:.3g}", part.verdict)
    cost = f"  {row.seeds} seeds, {row.tflop:.3g} TFLOP, {row.minutes:.2g} minutes on {row.processor}, {row.date}"
    note = f"; {row.note}" if row.note else ""
    console.print(
        table, Text.assemble(f"\n{row.slug} ({row.title}): ", (row.verdict, "bold"), cost, note, "\n"), sep="\n", soft_wrap=True
    )
