"""`diorama systems` and `diorama show`: what is in the house, without importing torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from diorama.apps.flags import flag
from diorama.apps.output import find_model
from diorama.cards import Card, catalogue, find
from diorama.claims import scoreboard
from diorama.errors import UserError
from diorama.models import index_of, known_as, locate, shipped, weight_files, weights_hash


@dataclass(frozen=True, kw_only=True)
class Systems:
    """Every system there is: ours and those that other packages add."""

    json: Annotated[bool, flag()] = False
    """The cards as one JSON list."""

    def run(self) -> int:
        cards, rows = list(catalogue().values()), scoreboard.known()
        if self.json:
            print(json.dumps([{**card.to_dict(), "verdict": _verdict(rows, card.slug)} for card in cards], indent=2))
            return 0
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("system", "family", "claim", "what it does"):
            table.add_column(heading, overflow="fold", no_wrap=heading != "what it does")
        for card in cards:
            summary = f"{card.summary}{' (ours)' if card.ours else ''}"
            table.add_row(card.slug, card.family, _verdict(rows, card.slug) or "-", summary)
        Console().print(table)
        return 0


@dataclass(frozen=True, kw_only=True)
class Show:
    """One system, shipped model or saved model: its card, parts, presets and parameter counts."""

    system: Annotated[tyro.conf.Positional[str], flag("SYSTEM")]
    """A system of `diorama systems`, a shipped model's name, or the folder of a saved one."""
    json: Annotated[bool, flag()] = False
    """The same as one JSON object."""

    def run(self) -> int:
        card, folder = _card_and_folder(self.system)
        if self.json:
            row = scoreboard.known().get(card.slug)
            told = {"verdict": asdict(row) if row else None, "models": [_model(path) for path in folder]}
            print(json.dumps({**card.to_dict(), **told}, indent=2))
        else:
            models = (line for path in folder for line in _model_lines(path))
            print("\n".join([*_card_lines(card), *_verdict_lines(card.slug), *models]))
        return 0


def _card_and_folder(name: str) -> tuple[Card, list[Path]]:
    """A system's card and the shipped models of it, or a model's card and the model."""
    if name in catalogue():
        return find(name), [path for path in map(locate, shipped()) if index_of(path)["system"] == name]
    try:
        folder = find_model(name)
    except UserError as error:
        if os.path.isdir(name):
            raise error
        return find(name), []  # which says what is near
    return find(index_of(folder)["system"]), [folder]


def _card_lines(card: Card) -> list[str]:
    rows = {"paper": card.paper, "family": card.family, "verb": card.verb, "claim": card.claim}
    parts = [f"  {name:<10} {what}" for name, what in card.parts.items()]
    presets = [f"  {name:<10} {n:,} trained parameters{_compared(card, name)}" for name, n in card.presets.items()]
    lines = [f"{card.slug}: {card.title}{' (ours)' if card.ours else ''}", "", card.summary, ""]
    lines += [f"{name:<8} {text}" for name, text in rows.items()]
    lines += ["", "parts", *parts] + (["", "presets", *presets] if presets else [])
    return lines + (["", "not as in the paper", *(f"  {note}" for note in card.notes)] if card.notes else [])


def _compared(card: Card, preset: str) -> str:
    return f" ({said})" if (said := card.compared(preset)) else ""


def _verdict(rows: Mapping[str, scoreboard.Row], slug: str) -> str | None:
    return rows[slug].verdict if slug in rows else None


def _verdict_lines(slug: str) -> list[str]:
    """What the claim's experiment found, part by part."""
    row = scoreboard.known().get(slug)
    if row is None:
        return []
    parts = [
        f"  {part.letter:<10} {part.verdict}: {scoreboard.found(part)}, margin {part.margin:.3g} {part.unit}"
        for part in row.parts
    ]
    return ["", f"verdict  {row.verdict} ({row.seeds} seeds, {row.date}; diorama verify {slug})", *parts]


def _model(folder: Path) -> dict[str, Any]:
    index = index_of(folder)
    weights = weight_files(folder)
    return {
        "name": known_as(folder),
        "weights": weights_hash(folder),
        "bytes": sum(path.stat().st_size for path in weights),
        "parameters": index.get("parameters", {}),
        **{name: index[name] for name in ("settings", "defaults") if isinstance(index.get(name), Mapping)},
    }


def _model_lines(folder: Path) -> list[str]:
    model = _model(folder)
    counts = model["parameters"]
    lines = ["", f"model {model['name']}: {model['bytes'] / 1e6:.1f} MB, weights {model['weights'][:10]}"]
    lines += [f"  {part:<10} {n:,} parameters" for part, n in counts.items()]
    lines += [f"  {'in all':<10} {sum(counts.values()):,} parameters"] if counts else []
    for values in (model.get("settings", {}), model.get("defaults", {})):
        lines += [f"  {name:<10} {', '.join(map(str, v)) if isinstance(v, list) else v}" for name, v in values.items()]
    return lines
