"""What a cleaning did, for people and for programs: how many pictures went and why, with examples of each kind."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from diorama.data.batches import fit
from diorama.data.curate import REASONS, Limits, Verdicts, on_paper
from diorama.data.source import Source, Unreadable
from diorama.data.twins import difference

REPORT = "report.json"
EXAMPLES = 12  # pictures shown of each kind
SHOWN = 96  # pixels along a side
BINS = 40  # of the histogram
VALUES = {"small": "area", "large": "area", "disagree": "agreement", "colour": "colour", "unlike": "score"}  # what decided
Kinds = Mapping[str, Mapping[str, Any]]  # reasons by name, as `summary` tells them


@dataclass(frozen=True)
class Report:
    """A source, what was seen of it, and what was made of that."""

    source: Source
    seen: np.ndarray
    verdicts: Verdicts
    limits: Limits

    def summary(self, notes: Sequence[str]) -> dict[str, Any]:
        """What report.json says. `pictures` of a reason were dropped for it, `all` have it, also where another came first."""
        kinds = {
            name: {
                "filter": REASONS[name].filter,
                "words": REASONS[name].words,
                "pictures": len(self.verdicts.dropped(name)),
                "all": count,
                "examples": [self._line(i) for i in self._examples(name)],
            }
            for name, count in self.verdicts.counts.items()
        }
        return {
            "layout": getattr(self.source, "layout", type(self.source).__name__),
            "pictures": len(self.source),
            "kept": len(self.verdicts.kept),
            "reasons": kinds,
            "least score kept": self.verdicts.line if math.isfinite(self.verdicts.line) else None,
            "notes": list(notes),
        }

    def dropped(self) -> Iterator[dict[str, Any]]:
        """A line for every picture that went."""
        return (self._line(i) for i in np.flatnonzero(self.verdicts.reason).tolist())

    def _line(self, i: int) -> dict[str, Any]:
        said, name = self.source.record(i), list(REASONS)[self.verdicts.reason[i] - 1]
        return {"key": said["key"], "text": said["text"], "reason": name, "why": self._why(i, name)}

    def _why(self, i: int, name: str) -> str:
        """What was measured of this picture; nothing where the reason says all."""
        row = self.seen[i]
        match name:
            case "unreadable":
                return self._trouble(i)
            case "short":
                return f"{row['words']} words"
            case "small" | "large":
                return f"it fills {row['area']:.1%}"
            case "disagree":
                return f"they overlap by {row['agreement']:.0%}"
            case "colour":
                return f"{row['colour']:.1%} of the subject has it"
            case "unlike":
                return f"score {row['score']:.3f}, least kept {self.verdicts.line:.3f}"
            case "duplicate":
                twin = int(self.verdicts.twin[i])
                off = difference(self.seen["thumbnail"][twin][None], row["thumbnail"])[0]
                return f"repeats {self.source.record(twin)['key']} (difference {off:.3f})"
        return ""

    def _trouble(self, i: int) -> str:
        try:
            self.source.read(i)
        except Unreadable as error:
            return str(error).partition(": ")[2]
        return "it could not be read when it was looked at"

    def _examples(self, name: str) -> list[int]:
        """A few of the pictures that went for this reason, evenly from the clearest case to the narrowest."""
        rows = self.verdicts.dropped(name)
        return _spread(rows[np.argsort(self.seen[VALUES[name]][rows], kind="stable")] if name in VALUES else rows)

    # --- the page ---------------------------------------------------------------------------------

    def page(self, about: Mapping[str, Any]) -> str:
        """report.html: one file that needs nothing beside it."""
        n, kept = about["pictures"], about["kept"]
        kinds = {name: kind for name, kind in about["reasons"].items() if kind["all"]}
        limits = ", ".join(f"{name} {value}" for name, value in asdict(self.limits).items())
        parts = [
            f"<h1>{n:,} pictures, {kept:,} kept ({kept / n:.1%})</h1>",
            f"<p>{escape(Path(about['asked'].get('source', '')).name)}, read as {escape(about['layout'])}</p>",
            _bar(kinds, kept),
            _table(kinds, n),
            *(f"<p class=note>{escape(note)}</p>" for note in about["notes"]),
            self._histogram(),
            *(self._section(name, kind) for name, kind in kinds.items() if kind["pictures"]),
            "<h2>Kept</h2>",
            _figures(self._figure(i, self._score(i)) for i in _spread(self.verdicts.kept)),
            f"<p class=note>Limits: {escape(limits)}. All that went is in dropped.jsonl.</p>",
        ]
        head = f"<meta charset=utf-8><title>What was kept</title>{STYLE}"
        return f"<!doctype html><html lang=en>{head}<body>{''.join(parts)}</body></html>\n"

    def _section(self, name: str, kind: Mapping[str, Any]) -> str:
        shown = zip(self._examples(name), kind["examples"], strict=True)
        figures = (self._figure(i, line["why"], int(self.verdicts.twin[i])) for i, line in shown)
        return f"<h2>{kind['pictures']:,} dropped: the picture {escape(kind['words'])}</h2>{_figures(figures)}"

    def _histogram(self) -> str:
        """How well pictures fit their captions, and where the line was drawn."""
        score, line = self.seen["score"][~np.isnan(self.seen["score"])], self.verdicts.line
        if not len(score) or not math.isfinite(line):
            return ""
        counts, edges = np.histogram(score, BINS)
        highs = 100 * counts / counts.max()
        bars = "".join(
            f"<rect x={10 * k} y={100 - high:.1f} width=9 height={high:.1f} class={'low' if edge < line else 'kept'} />"
            for k, (high, edge) in enumerate(zip(highs, edges[1:], strict=True))
        )
        words = f"<p class=note>scores {edges[0]:.2f} to {edges[-1]:.2f}; below {line:.3f} they go</p>"
        return f"<h2>How well pictures fit their captions</h2><svg viewBox='0 0 {10 * BINS} 100'>{bars}</svg>{words}"

    def _score(self, i: int) -> str:
        return "" if np.isnan(self.seen["score"][i]) else f"score {self.seen['score'][i]:.3f}"

    def _figure(self, i: int, why: str, twin: int = -1) -> str:
        said = self.source.record(i)
        pictures = "".join(self._picture(j) for j in (i, twin) if j >= 0)
        lines = f"<b>{escape(said['text'][:120]) or '(no caption)'}</b>", escape(why), f"<small>{escape(said['key'])}</small>"
        return f"<figure>{pictures}<figcaption>{'<br>'.join(filter(None, lines))}</figcaption></figure>"

    def _picture(self, i: int) -> str:
        try:
            image = on_paper(fit(self.source.read(i).image, SHOWN))
        except Unreadable:
            return "<div class=none>?</div>"
        stream = BytesIO()
        image.save(stream, "JPEG", quality=85)
        data = base64.b64encode(stream.getvalue()).decode()
        return f"<img src='data:image/jpeg;base64,{data}' width={SHOWN} height={SHOWN} alt=''>"


def _spread(rows: np.ndarray) -> list[int]:
    n = min(EXAMPLES, len(rows))
    return [int(rows[round(k * (len(rows) - 1) / max(1, n - 1))]) for k in range(n)]


def _figures(figures: Iterable[str]) -> str:
    return f"<div class=sheet>{''.join(figures)}</div>"


def _bar(kinds: Kinds, kept: int) -> str:
    """All pictures as one line, coloured by what became of them."""
    parts = [("kept", kept), *((kind["filter"], kind["pictures"]) for kind in kinds.values())]
    return f"<div class=bar>{''.join(f'<i class={name} style=flex:{count}></i>' for name, count in parts if count)}</div>"


def _table(kinds: Kinds, n: int) -> str:
    rows = "".join(
        f"<tr><td><i class={kind['filter']}></i>{kind['filter']}<td>{escape(kind['words'])}<td>{kind['pictures']:,}"
        f"<td>{kind['pictures'] / n:.1%}<td>{kind['all']:,}"
        for kind in kinds.values()
    )
    return f"<table><tr><th>filter<th>the picture ...<th>dropped<th>share<th>with those dropped before{rows}</table>"


COLOURS = {
    "unreadable": "#777",
    "caption": "#d99a00",
    "mask": "#2e7af0",
    "retrieval": "#c2298a",
    "duplicate": "#7a4fcf",
}
STYLE = f"""<style>
body {{ font: 14px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222 }}
h1 {{ font-size: 1.5em }} h2 {{ font-size: 1.1em; margin-top: 2em }}
table {{ border-collapse: collapse; margin: 1em 0 }} td, th {{ padding: .2em 1em .2em 0; text-align: left; border-bottom: 1px solid #ddd }}
td:nth-child(n+3) {{ text-align: right; font-variant-numeric: tabular-nums }}
td i {{ display: inline-block; width: .8em; height: .8em; margin-right: .5em }}
.bar {{ display: flex; height: 1.6em }} .kept {{ background: #3f9c5a; fill: #3f9c5a }} .low {{ fill: #c2298a }}
{" ".join(f".{name} {{ background: {colour} }}" for name, colour in COLOURS.items())}
.sheet {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 14px }}
figure {{ margin: 0; overflow-wrap: anywhere; font-size: 12px }} figcaption {{ color: #555 }} figcaption b {{ color: #222 }}
img, .none {{ border: 1px solid #ddd; margin-right: 4px }}
.none {{ width: 96px; height: 96px; display: grid; place-items: center; font-size: 2em; color: #999 }}
svg {{ width: 100%; height: 120px }} .note {{ color: #666 }}
</style>"""
