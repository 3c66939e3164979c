"""What a claim's numbers depend on, as one hash: its source, what that imports, its system, its models. Imports nothing of torch."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from diorama.cards import catalogue
from diorama.claims.claim import Claim
from diorama.files import sha256
from diorama.foundations.registry import folder_of

HOUSE = Path(__file__).parents[2]  # where the package `diorama` lies
DESK = ("errors", "files", "models", "cards")  # they find and describe what is in the house: no number passes through them


def source_hash(claim: Claim) -> str:
    """64 hexadecimal digits. Another number in any file behind the claim, or other weights, and it is another."""
    module = sys.modules[type(claim).__module__]
    card = catalogue().get(claim.slug)
    starts = [Path(str(module.__file__)), *([_file(card.place.partition(":")[0])] if card else [])]
    folders = [folder for name in claim.assets if (folder := folder_of(name))]
    models = [path for folder in folders for path in sorted(folder.rglob("*.safetensors"))]
    digest = hashlib.sha256()
    for path in [*sources(path for path in starts if path), *models]:
        digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()


def sources(starts: Iterable[Path]) -> list[Path]:
    """These files and every diorama module they import, however far down, sorted. They are read and never run.

    Imports inside functions count and those for type checkers alone do not; `import_module` cannot be seen.
    """
    found: set[Path] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path, path.stat().st_mtime_ns)
    return sorted(found)


@cache
def _imported(path: Path, changed: int) -> list[Path]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [file for name in _names(tree) if (file := _file(name))]


def _names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that could be an imported module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _names(node)


def _file(module: str) -> Path | None:
    """The file of a module of the house; None for what is no module of ours, and for those of its desk."""
    if module.partition(".")[0] != "diorama":
        return None
    path = HOUSE.joinpath(*module.split("."))
    if path.parent == HOUSE / "diorama" and path.name in DESK:
        return None
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
