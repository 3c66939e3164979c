"""Draw docs/architecture.svg from the import contracts in pyproject.toml and the imports there are.

    python docs/rooms.py            writes the picture
    python docs/rooms.py --check    only says whether the picture is up to date

Each floor is a line of the `layers` contract, lower floors below; the contract is exhaustive, so no room can be missing. Arrows
are the imports there are, as import-linter's own graph sees them, less those that a chain of other arrows already says.
"""

from __future__ import annotations

import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

HERE = Path(__file__).parent
PICTURE = HERE / "architecture.svg"
WIDTH, HEIGHT, GAP, FLOOR = 128, 40, 22, 100  # of a room, between rooms, from floor to floor
MARGIN = 24
WORDS = {
    "apps": "the command line",
    "asking": "what is taken",
    "pipeline": "words in, pictures out",
    "train": "a folder in, a model out",
    "systems": "published systems",
    "worlds": "exact ground truth",
    "data": "folders and shards",
    "training": "the one loop",
    "codecs": "data ↔ latents",
    "processes": "nothing → something",
    "conditions": "what was asked for",
    "guidance": "how it is pressed",
    "adapters": "beside trained weights",
    "critics": "how good it is",
    "scenes": "seen from anywhere",
    "networks": "what learns",
    "types": "the vocabulary",
    "parts": "saved and read back",
    "pictures": "tensors → Pillow",
    "recipe": "what made a picture",
    "models": "where models are",
    "cards": "the catalogue",
    "storage": "safetensors, int8",
    "files": "whole or not there",
    "assets": "shipped weights",
    "errors": "one clear line",
}


def floors() -> list[list[str]]:
    """The rooms of each floor, from the top."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    layers = next(c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")["layers"]
    return [[room.strip(" ()") for room in layer.replace("|", ":").split(":")] for layer in layers]


def arrows(rooms: list[str]) -> list[tuple[str, str]]:
    """(importer, imported) for every pair of rooms between which there is an import."""
    graph = grimp.build_graph("diorama", exclude_type_checking_imports=True)
    inside = {room: {f"diorama.{room}", *graph.find_descendants(f"diorama.{room}")} for room in rooms}
    owner = {module: room for room, modules in inside.items() for module in modules}
    found = {
        (room, owner[target])
        for room, modules in inside.items()
        for module in modules
        for target in graph.find_modules_directly_imported_by(module)
        if owner.get(target, room) != room
    }
    return sorted(found)


def draw(levels: list[list[str]], imports: list[tuple[str, str]]) -> str:
    """The house as an SVG that reads on light and dark pages."""
    wide = max(len(level) for level in levels) * (WIDTH + GAP) - GAP + 2 * MARGIN
    high = len(levels) * FLOOR - (FLOOR - HEIGHT) + 2 * MARGIN
    place: dict[str, tuple[float, float]] = {}
    for row, level in enumerate(levels):
        left = (wide - len(level) * (WIDTH + GAP) + GAP) / 2
        place |= {room: (left + i * (WIDTH + GAP), MARGIN + row * FLOOR) for i, room in enumerate(level)}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}"'
        ' font-family="system-ui, sans-serif" text-anchor="middle" role="img">',
        "<title>The rooms of diorama and what each imports</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#5b7083"/></marker></defs>',
        f'<rect width="{wide}" height="{high}" fill="#fbfaf7"/>',
    ]
    lines += [_arrow(*place[a], *place[b]) for a, b in imports]
    lines += [_room(room, *place[room]) for level in levels for room in level]
    return "\n".join([*lines, "</svg>", ""])


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    """From the floor of the importer to the ceiling of the imported; between neighbours on a floor, from side to side."""
    if y == to_y:
        x, to_x = (x + WIDTH, to_x) if x < to_x else (x, to_x + WIDTH)
        y = to_y = y + HEIGHT / 2
        middle, to_middle = y, to_y
    else:
        x, to_x, y = x + WIDTH / 2, to_x + WIDTH / 2, y + HEIGHT
        middle, to_middle = y + 26, to_y - 26
    return (
        f'<path d="M{x:g},{y:g} C{x:g},{middle:g} {to_x:g},{to_middle:g} {to_x:g},{to_y - 1:g}"'
        ' fill="none" stroke="#5b7083" stroke-opacity="0.45" marker-end="url(#tip)"/>'
    )


def _room(name: str, x: float, y: float) -> str:
    middle = x + WIDTH / 2
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff" stroke="#2f4858"/>'
        f'<text x="{middle:g}" y="{y + 17:g}" font-size="13" font-weight="600" fill="#1d2b36">{escape(name)}</text>'
        f'<text x="{middle:g}" y="{y + 32:g}" font-size="10" fill="#5b7083">{escape(WORDS.get(name, ""))}</text>'
    )


def reduced(levels: list[list[str]], imports: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that no chain of others already says, so that the picture can be read."""
    targets: dict[str, set[str]] = {room: {b for a, b in imports if a == room} for level in levels for room in level}

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        return any(b == goal or (b not in seen and reaches(b, goal, seen | {b})) for b in targets[start])

    return [(a, b) for a, b in imports if not any(reaches(c, b, {a}) for c in targets[a] - {b})]


def main() -> None:
    levels = floors()
    for above, below in pairwise(levels):
        assert not set(above) & set(below), "a room stands on two floors"
    rooms = [room for level in levels for room in level]
    picture = draw(levels, reduced(levels, arrows(rooms)))
    if "--check" not in sys.argv:
        PICTURE.write_text(picture)
    elif not PICTURE.is_file() or PICTURE.read_text() != picture:
        sys.exit("docs/architecture.svg is out of date: run python docs/rooms.py")


if __name__ == "__main__":
    main()
