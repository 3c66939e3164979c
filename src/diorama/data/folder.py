"""Folders of pictures: plain, one folder per class, with sidecar texts, with `metadata.*`, or with kohya's repeat counts."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diorama.data import pictures
from diorama.data.shards import sidecar_fields
from diorama.data.source import Item, Source
from diorama.data.views import Repeated
from diorama.errors import UserError

SIDECARS = ("txt", "caption", "json")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
REPEATS = re.compile(r"([1-9]\d*)_(.+)")


@dataclass(frozen=True)
class Entry:
    """One picture of a folder: where it is, what its folder or table says, and which sidecars lie beside it."""

    key: str
    path: Path
    said: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    sidecars: tuple[str, ...] = ()
    text: str | None = None  # what its folder is called, where that is the caption


class Folder:
    """Pictures that are files. `notes` tells what a person should know about how they were found."""

    def __init__(self, entries: Sequence[Entry], layout: str, notes: Sequence[str] = (), on_white: bool = False):
        self.entries = tuple(entries)
        self.layout, self.notes, self.on_white = layout, list(notes), on_white

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return pictures.labels_of(self.record(i) for i in range(len(self)))

    def record(self, i: int) -> Mapping[str, Any]:
        entry = self.entries[i]
        found = {kind: self._sidecar(entry, kind) for kind in entry.sidecars}
        said = {**entry.said, **sidecar_fields(found.get("json"))}
        text = found.get("txt", found.get("caption"))
        if text is None and not any(said.get(name) for name in pictures.TEXTS):
            text = entry.text
        return pictures.record(entry.key, said, text, entry.label)

    @staticmethod
    def _sidecar(entry: Entry, kind: str) -> str:
        try:
            return entry.path.with_suffix(f".{kind}").read_text("utf-8-sig", "replace").strip()
        except OSError:  # it went away, or may not be read: the picture is still good
            return ""

    def file(self, i: int) -> Path:
        return self.entries[i].path

    def read(self, i: int) -> Item:
        entry = self.entries[i]
        return pictures.item(self.record(i), pictures.decode(entry.path, entry.key, self.on_white))


def open_folder(root: Path, on_white: bool = False) -> Source:
    """The pictures below a folder, read as what its layout says: metadata, repeat folders, class folders, sidecars or plain."""
    for name in METADATA:
        if (root / name).is_file():
            return open_metadata(root / name, on_white)
    found = sorted(walk(root))
    if not found:
        raise UserError(
            f"no pictures in {root}: put .png, .jpg or .webp files there (or in one folder per class), or webdataset .tar shards"
        )
    tops = sorted({name.split("/")[0] for name, _ in found if "/" in name})
    mixed = any("/" not in name for name, _ in found)
    captioned = any(sidecars for _, sidecars in found)
    if tops and not mixed and _are_repeats(tops, captioned):
        return _repeated(root, found, on_white)
    if len(tops) == 1 and not mixed:
        return open_folder(root / tops[0], on_white)
    return _classes(root, found, bool(tops) and not mixed, captioned, on_white)


def walk(root: Path, suffixes: Sequence[str] = pictures.SUFFIXES) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(path below root with forward slashes, kinds of its sidecars) of every picture; hidden ones are passed over."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        there = set(files)
        below = Path(folder).relative_to(root)
        for name in files:
            stem, _, suffix = name.rpartition(".")
            if stem and not name.startswith(".") and suffix.lower() in suffixes:
                yield (below / name).as_posix(), tuple(kind for kind in SIDECARS if f"{stem}.{kind}" in there)


def _are_repeats(tops: Sequence[str], captioned: bool) -> bool:
    """kohya's `10_name` folders; without captions, three and more of them look like numbered classes."""
    return all(REPEATS.fullmatch(top) for top in tops) and (captioned or len(tops) < 3)


def _words(folder: str) -> str:
    """What a folder's name says: "10_sks_dog" -> "sks dog"."""
    numbered = REPEATS.fullmatch(folder)
    return (numbered[2] if numbered else folder).replace("_", " ").strip()


def _repeated(root: Path, found: Sequence[tuple[str, tuple[str, ...]]], on_white: bool) -> Source:
    entries, times, notes = [], [], dict[str, str]()
    for name, sidecars in found:
        top = name.split("/")[0]
        count = REPEATS.fullmatch(top)[1]  # type: ignore[index]
        entries.append(Entry(name, root / name, sidecars=sidecars, text=_words(top)))
        times.append(int(count))
        notes[top] = f"folder {top}: every picture is seen {count} times per epoch"
    return Repeated(Folder(entries, "repeats", list(notes.values()), on_white), times)


def _classes(root: Path, found: Sequence[tuple[str, tuple[str, ...]]], classes: bool, captioned: bool, on_white: bool) -> Source:
    entries = []
    for name, sidecars in found:
        top = name.split("/")[0] if classes else None
        entries.append(Entry(name, root / name, label=top, sidecars=sidecars, text=None if top is None else _words(top)))
    layout = " + ".join([*(["classes"] if classes else []), *(["sidecars"] if captioned else [])]) or "folder"
    return Folder(entries, layout, on_white=on_white)


def open_metadata(path: Path, on_white: bool = False) -> Folder:
    """The pictures a `metadata.jsonl|csv|parquet` names in its column `file_name`, relative to it; every column is kept."""
    entries = []
    rows = _rows(path)
    for number, row in enumerate(rows, 1):
        name = row.get("file_name")
        if not name or not isinstance(name, str):
            raise UserError(
                f"{path}, record {number} has no file_name (it has: {', '.join(map(str, row)) or 'nothing'}): add one"
            )
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{path}, record {number}: file_name {name!r} leaves the data folder; use a path below it")
        entries.append(Entry(name, path.parent / name, {k: v for k, v in row.items() if k != "file_name"}))
    if not entries:
        raise UserError(f"{path} has no records: one per picture, each with file_name and text")
    named = {entry.key for entry in entries}
    unnamed = sum(name not in named for name, _ in walk(path.parent))
    notes = [f"pictures left out because {path.name} does not name them: {unnamed}"] if unnamed else []
    return Folder(entries, f"metadata ({path.suffix[1:]})", notes, on_white)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        yield from {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[path.suffix](path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: save it again as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{path} is not a table of comma-separated values ({error}): write it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}): check its permissions") from error


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}): one object per line") from error
            if not isinstance(row, dict):
                raise UserError(f'{path}, line {number} is no JSON object: write {{"file_name": "a.png", "text": "..."}}')
            yield row


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield {k: v for k, v in row.items() if k is not None}


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise UserError(f"{path.name} needs pyarrow: pip install diorama[data], or save the table as metadata.jsonl") from error
    try:
        yield from parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise UserError(f"{path} is no parquet table: write it again, or use metadata.jsonl") from error
