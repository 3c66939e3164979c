"""What a claim's numbers depend on, as one hash: its definitions, what those name, its system, its models. Torch waits for the claims."""

from __future__ import annotations

import ast
import hashlib
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

from diorama.assets import asset
from diorama.cards import catalogue
from diorama.claims import board
from diorama.claims.claim import Claim
from diorama.claims.scoreboard import Row
from diorama.files import sha256
from diorama.foundations.plans import PLANS
from diorama.foundations.registry import find

HOUSE = Path(__file__).parents[2]  # where the package `diorama` lies
DESK = ("errors", "files", "models", "cards")  # they find and describe what is in the house: no number passes through them
ALL, ON_IMPORT = "*", ""  # in place of a name: every definition of a module, and what it runs when it is imported


class Place(NamedTuple):
    """A definition: the file, and the name that it binds at the file's top."""

    file: Path
    name: str = ALL


@dataclass
class Module:
    """A file, read and never run."""

    code: list[str]  # its lines without comments and docstrings
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)  # what binds each name at its top
    on_import: list[ast.stmt] = field(default_factory=list)  # the rest

    def statements(self, name: str) -> list[ast.stmt]:
        """What binds this name, or what runs ON_IMPORT."""
        return self.on_import if name == ON_IMPORT else self.bound.get(name, [])

    def text(self, statement: ast.stmt) -> str:
        """Its code; of an import what it brings, which has no lines of its own."""
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return ast.unparse(statement)
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(line for line in self.code[first - 1 : statement.end_lineno] if line)


def source_hash(claim: Claim) -> str:
    """64 hexadecimal digits. Another number in any definition behind the claim, or another model, and it is another."""
    digest = hashlib.sha256()
    for place in definitions(_starts(claim)):
        module = _module(place.file)
        for statement in module.statements(place.name):
            digest.update(f"{place.file.stem} {module.text(statement)}\n".encode())
    for name in claim.assets:
        for line in _model_lines(name):
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def current(row: Row) -> bool:
    """Whether nothing was missing when it was run, and nothing behind the claim has changed or gone since."""
    return row.complete and row.slug in board.slugs() and row.source == source_hash(board.find(row.slug))


def stale(rows: Mapping[str, Row]) -> set[str]:
    """The slugs of these rows that are not current. This is where torch is imported."""
    return {slug for slug, row in rows.items() if not current(row)}


def _model_lines(name: str) -> Iterator[str]:
    """A shipped model's weights; of one that everybody trains, how: the same plan ends with other weights on another processor."""
    if weights := sorted(asset(name).rglob("*.safetensors")):
        yield from (f"{path.name} {sha256(path)}" for path in weights)
        return
    what = find(name)
    yield f"{what} {PLANS[name]}"
    if what.base:
        yield from _model_lines(what.base)


def _starts(claim: Claim) -> list[Place]:
    """All of the claim's module, and its system, where it has one."""
    module, card = sys.modules[type(claim).__module__], catalogue().get(claim.slug)
    home, _, name = card.place.partition(":") if card else ("", "", "")
    system = _file(home)
    return [Place(Path(str(module.__file__))), *([Place(system, name)] if system else [])]


def definitions(starts: Iterable[Place]) -> list[Place]:
    """These and every definition of diorama that they name, in whatever module and however far down, sorted.

    Whatever a name could mean counts: a local variable called as a function of its module is taken for that function. Imports
    inside functions count and those for type checkers alone do not; `import_module` cannot be seen.
    """
    found: set[Place] = set()
    waiting = list(starts)
    while waiting:
        place = waiting.pop()
        if place in found:
            continue
        found.add(place)
        module = _module(place.file)
        if place.name not in module.bound and place.name != ON_IMPORT:  # every one of them, or a name it makes on demand
            waiting += (Place(place.file, name) for name in module.bound)
        waiting.append(Place(place.file, ON_IMPORT))
        for statement in module.statements(place.name):
            waiting += _named(statement, place.file, module)
    return sorted(found)


def _named(statement: ast.AST, file: Path, module: Module) -> Iterator[Place]:
    """Every definition of the house that the statement could mean."""
    if isinstance(statement, ast.Import):
        yield from (Place(home) for alias in statement.names if (home := _file(alias.name)))
    elif isinstance(statement, ast.ImportFrom) and statement.module:
        for alias in statement.names:
            if inner := _file(f"{statement.module}.{alias.name}"):
                yield Place(inner)
            elif home := _file(statement.module):
                yield Place(home, alias.name)
    elif isinstance(statement, ast.Name) and statement.id in module.bound:
        yield Place(file, statement.id)
    for node in ast.iter_child_nodes(statement):
        if not _for_type_checkers(node):
            yield from _named(node, file, module)


def _module(file: Path) -> Module:
    return _parsed(file, file.stat().st_mtime_ns)


@cache
def _parsed(file: Path, changed: int) -> Module:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    module = Module(_code(source, tree))
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):  # by name: who needs one of them does not need them all
            for alias in statement.names:
                one = (
                    ast.ImportFrom(statement.module, [alias], 0) if isinstance(statement, ast.ImportFrom) else ast.Import([alias])
                )
                module.bound.setdefault(alias.asname or alias.name.partition(".")[0], []).append(one)
        elif not _for_type_checkers(statement) and not _is_text(statement):
            for name in (names := _binds(statement)):
                module.bound.setdefault(name, []).append(statement)
            if not names:
                module.on_import.append(statement)
    return module


def _binds(statement: ast.stmt) -> list[str]:
    """The names that a definition or an assignment at the top of a module binds; none for what else it does."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return []


def _code(source: str, tree: ast.Module) -> list[str]:
    """The lines of a file, comments, docstrings and what trails them left out."""
    lines = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(tree):
        if _is_text(node) and lines[node.lineno - 1].lstrip().startswith(('"', "'")):
            for i in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[i] = ""
    return [line.rstrip() for line in lines]


def _is_text(node: ast.AST) -> TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _file(module: str) -> Path | None:
    """The file of a module of the house; None for what is no module of ours, and for those of its desk."""
    if module.partition(".")[0] != "diorama":
        return None
    path = HOUSE.joinpath(*module.split("."))
    if path.parent == HOUSE / "diorama" and path.name in DESK:
        return None
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
