"""The board: one row per claim, as JSON and as a page. Imports nothing of torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from diorama.assets import asset
from diorama.claims.verdict import Judged, Verdict
from diorama.errors import UserError
from diorama.files import read_json, user_cache, write_json

NAME = "scoreboard.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of one claim."""

    slug: str
    title: str
    verdict: Verdict
    parts: tuple[Judged, ...]
    seeds: int
    tflop: float
    minutes: float
    processor: str
    source: str  # the hash of all it depends on
    date: str
    note: str = ""
    carried: str = ""  # why it stands, where code behind it has changed since it was run and `source` is that of the new code

    @property
    def complete(self) -> bool:
        """Whether no part lacked a model, which may be there by now; a row with a note was stopped, and lacked nothing but budget."""
        return bool(self.note) or all(part.effect is not None for part in self.parts)


def user_store() -> Path:
    """Where this user's seeds and board are kept."""
    return user_cache("claims")


def read(folder: Path) -> dict[str, Row]:
    """The rows by slug; none where there is no board. Raises UserError where it is damaged or newer."""
    path = folder / NAME
    if not path.is_file():
        return {}
    board = read_json(path)
    version = board.get("format_version") if isinstance(board, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has format_version {version}, this diorama reads {FORMAT_VERSION}: remove it or update diorama")
    try:
        rows = [Row(**{**row, "parts": tuple(Judged(**part) for part in row["parts"])}) for row in board["rows"]]
    except (TypeError, KeyError) as error:
        raise UserError(f"{path} is not a board ({error}): remove it and run diorama verify again") from None
    return {row.slug: row for row in rows}


def write(folder: Path, rows: Mapping[str, Row]) -> None:
    """The board, atomically, in the order of the slugs."""
    write_json(folder / NAME, {"format_version": FORMAT_VERSION, "rows": [asdict(rows[slug]) for slug in sorted(rows)]})


def known() -> dict[str, Row]:
    """The shipped board, with this user's own rows before it."""
    return {**read(asset("")), **read(user_store())}


def page(rows: Mapping[str, Row], stale: Collection[str] = ()) -> str:
    """The board as Markdown, in which the rows of these slugs are marked as `stale`."""
    table = ["| claim | verdict | seeds | TFLOP | minutes | processor | date |", "|---|---|---|---|---|---|---|"]
    for slug, row in sorted(rows.items()):
        numbers = f"{row.seeds} | {row.tflop:.3g} | {row.minutes:.2g} | {row.processor} | {row.date}"
        table.append(f"| [{row.title}](#{slug}) | **{row.verdict}**{STALE if slug in stale else ''} | {numbers} |")
    sections = (line for slug in sorted(rows) for line in _section(rows[slug], slug in stale))
    return "\n".join([HEAD, *table, *sections]) + "\n"


HEAD = """# Scoreboard

Written by `diorama verify --all --board src/diorama/assets --page docs/scoreboard.md`; [claims.md](claims.md) says how to read it.
A row is stale where code or models behind its claim have changed since it was run.
"""
STALE = ", stale"


def _section(row: Row, stale: bool) -> list[str]:
    lines = ["", f'<a id="{row.slug}"></a>', f"## {row.title} (`{row.slug}`): {row.verdict}{STALE if stale else ''}", ""]
    lines += [f"{row.note}", ""] if row.note else []
    lines += ["| part | statement | effect ± standard error | margin | unit | verdict |", "|---|---|---|---|---|---|"]
    for part in row.parts:
        lines.append(f"| {part.letter} | {part.statement} | {found(part)} | {part.margin:.3g} | {part.unit} | {part.verdict} |")
    told = [f"- {part.letter}: {details(part)}" for part in row.parts if details(part)]
    told += [f"- carried over without another run: {row.carried}"] if row.carried else []
    return [*lines, "", *told, f"- source {row.source[:16]}"]


def found(part: Judged) -> str:
    """The effect with its error, as people read it."""
    if part.effect is None:
        return "not run"
    return f"{part.effect:.3g}" + ("" if part.exact or part.stderr is None else f" ± {part.stderr:.2g}")


def details(part: Judged) -> str:
    """The arms, and what must be known to read the number."""
    told = [", ".join(f"{arm} {value:.3g}" for arm, value in part.arms.items())]
    told += [f"conditional on {part.conditional_on}" if part.conditional_on else "", "exact" if part.exact else "", part.note]
    return "; ".join(filter(None, told))
