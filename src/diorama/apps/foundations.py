"""`diorama foundations`: the trained models in miniature, listed, or made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.assets import asset
from diorama.errors import UserError
from diorama.files import read_json
from diorama.foundations.plans import PLANS
from diorama.foundations.registry import FOUNDATIONS, find, folder_of
from diorama.models import INDEX, made, weight_files


@dataclass(frozen=True, kw_only=True)
class Foundations:
    """The models that claims and other systems stand on: a list, or one of them trained again.

    Each is trained on the miniature world by one command. What is not shipped is trained when it is first needed.
    """

    name: Annotated[tyro.conf.Positional[str | None], flag("NAME")] = None
    """Which one to train; without it, the list."""
    out: Annotated[str | None, flag("DIR", "-o")] = None
    """Where the trained model goes; your cache where not given. Started again, it goes on where it stopped."""
    json: Annotated[bool, flag()] = False
    """The list as JSON."""

    def run(self) -> int:
        if self.name is None:
            if self.out is not None:
                raise UserError(f"--out {self.out} is for one of them: name which to train")
            rows = [_row(name) for name in FOUNDATIONS]
            print(json.dumps(rows, indent=2) if self.json else _table(rows), end="\n" if self.json else "")
            return 0
        from diorama.apps.output import check_new, use_all_cores
        from diorama.apps.train import progress, say

        plan = PLANS[find(self.name).name]
        out = made() / self.name if self.out is None else Path(self.out)
        check_new(out, INDEX)
        from diorama.foundations.make import make  # torch, from here on

        use_all_cores()
        say(
            f"{self.name} is trained into {out}: {plan.steps:,} steps of {plan.batch} pictures, minutes to hours; "
            "the time left is told within a minute, and what is stopped goes on by the same command"
        )
        with progress(plan) as on_step:
            print(make(self.name, out, on_step=on_step, say=say))
        return 0


def _row(name: str) -> dict[str, Any]:
    """What is known of a model without opening its weights."""
    what, folder = find(name), folder_of(name)
    index: Mapping[str, Any] = {} if folder is None else read_json(folder / INDEX)
    weights = [] if folder is None else weight_files(folder)
    return {
        "name": name,
        "system": what.system,
        "preset": what.preset,
        "size": what.size,
        "where": "not here" if folder is None else "shipped" if folder == asset(name) else "trained here",
        "parameters": sum(index.get("parameters", {}).values()),
        "bytes": sum(path.stat().st_size for path in weights),
        "measured": index.get("measured", {}),
        "summary": what.summary,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    wide = max(len(row["name"]) for row in rows)
    return "".join(f"{line}\n" for row in rows for line in _lines(row, wide))


def _lines(row: Mapping[str, Any], wide: int) -> Iterator[str]:
    size = f"{row['parameters'] / 1e6:.2f} M weights, {row['bytes'] / 1e6:.2f} MB, " if row["bytes"] else ""
    yield f"{row['name']:<{wide}}  {row['summary']} ({row['system']}; {size}{row['where']})"
    for name, score in row["measured"].items():
        yield f"{'':<{wide}}  {name}: {score['value']:.4g} ± {score['stderr']:.2g} {score['unit']}"
