"""Webdataset shards: tars whose members share a name up to the first dot, read in any order without unpacking."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from diorama.data import pictures
from diorama.data.source import Item, Unreadable
from diorama.errors import UserError

BLOCK = 512
PICTURES = ("png", "jpg", "jpeg", "webp")
KNOWN = (*PICTURES, "txt", "caption", "json", "cls")

Span = tuple[int, int]  # where a member's bytes start in its tar, and how many there are


class Shards:
    """The pictures of some tars, with `txt`, `caption`, `json` or `cls` beside them. Only the headers are read at opening.

    `on_white`: RGB is already the picture on white and alpha only a mask; it is taken back to straight RGBA.
    """

    layout = "webdataset"

    def __init__(self, paths: Sequence[str | Path], on_white: bool = False):
        self.paths = [Path(path) for path in paths]
        self.on_white = on_white
        self.notes: list[str] = []
        self._entries: list[tuple[int, str, dict[str, Span]]] = []
        self._maps: dict[int, mmap.mmap] = {}
        for number, path in enumerate(self.paths):
            self._index(number, path)
        self._shared = len({key for _, key, _ in self._entries}) < len(self._entries)
        if not self._entries:
            names = ", ".join(path.name for path in self.paths[:3])
            raise UserError(f"no pictures in {names}: members must end in .{', .'.join(PICTURES)}, as in 000001.jpg + 000001.txt")

    def _index(self, number: int, path: Path) -> None:
        groups: dict[str, dict[str, Span]] = {}
        for name, start, size in members(self._map(number), path, self.notes):
            key, suffix = _group(name)
            if key and suffix in KNOWN:
                groups.setdefault(key, {})[suffix] = (start, size)
        pairs = [(number, key, group) for key, group in groups.items() if any(s in group for s in PICTURES)]
        if lonely := len(groups) - len(pairs):
            self.notes.append(f"{path.name}: groups left out because they have no picture: {lonely}")
        self._entries += pairs

    def _map(self, number: int) -> mmap.mmap:
        """The tar as memory, opened when first needed: it has no read position, so threads and forked workers can share it."""
        if number not in self._maps:
            with open(self.paths[number], "rb") as file:
                if not os.fstat(file.fileno()).st_size:
                    raise UserError(f"{self.paths[number]} is empty: make the shard again or leave it out")
                self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def __len__(self) -> int:
        return len(self._entries)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return pictures.labels_of(self.record(i) for i in range(len(self)))

    def _bytes(self, i: int, suffix: str) -> bytes:
        number, _, group = self._entries[i]
        start, size = group[suffix]
        return self._map(number)[start : start + size]

    def _key(self, i: int) -> str:
        number, key, _ = self._entries[i]
        return f"{self.paths[number].stem}/{key}" if self._shared else key

    def record(self, i: int) -> Mapping[str, Any]:
        key, group = self._key(i), self._entries[i][2]

        def said(suffix: str) -> str | None:
            return self._bytes(i, suffix).decode("utf-8-sig", "replace").strip() if suffix in group else None

        text = said("txt") if "txt" in group else said("caption")
        return pictures.record(key, sidecar_fields(said("json")), text, said("cls"))

    def file(self, i: int) -> bytes:
        """The picture's own bytes. Raises `Unreadable` where the tar ends before they do."""
        group = self._entries[i][2]
        suffix = next(s for s in PICTURES if s in group)
        data = self._bytes(i, suffix)
        if len(data) < group[suffix][1]:
            raise Unreadable(f"{self._key(i)}: {self.paths[self._entries[i][0]].name} ends in the middle of it")
        return data

    def read(self, i: int) -> Item:
        said = self.record(i)
        return pictures.item(said, pictures.decode(self.file(i), said["key"], self.on_white))

    def tar_of(self, i: int) -> int:
        """In which of the tars item i lies."""
        return self._entries[i][0]

    def members_of(self, number: int, items: Iterable[int]) -> Iterator[tuple[str, bytes]]:
        """The members of a tar that belong to these of its items, with those that no item shows: name and content."""
        keys = {self._entries[i][1] for i in items}
        data = self._map(number)
        for name, start, size in members(data, self.paths[number], []):
            if _group(name)[0] in keys:
                yield name, data[start : start + size]


def _group(name: str) -> tuple[str, str]:
    """A member's name -> the key it shares with its neighbours, empty where it has none, and its suffix from the first dot on."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    return key.removeprefix("./") if stem else "", suffix.lower()


def sidecar_fields(text: str | None) -> Mapping[str, Any]:
    """A JSON object, or nothing: a broken sidecar must not cost the picture."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def members(data: mmap.mmap, path: Path, notes: list[str]) -> Iterator[tuple[str, int, int]]:
    """(name, start, size) of every file in a tar, from its headers alone: ustar, GNU long names, pax paths and sizes."""
    at, long_name, pax = 0, "", dict[str, str]()
    while at + BLOCK <= len(data):
        header = data[at : at + BLOCK]
        if not header.strip(b"\0"):
            return
        size = _header_size(header)
        if size is None:
            if at == 0:
                raise UserError(f"{path} is no tar (or a compressed one): pass an uncompressed .tar or a folder")
            notes.append(f"{path.name} is damaged after byte {at:,}; what comes before is used")
            return
        kind, start = header[156:157], at + BLOCK
        if kind == b"L":
            long_name = data[start : start + size].rstrip(b"\0").decode("utf-8", "replace")
        elif kind == b"x":
            pax = _pax(data[start : start + size])
        elif kind != b"g":
            size = int(pax["size"]) if pax.get("size", "").isdecimal() else size
            if kind in b"0\0":
                yield pax.get("path") or long_name or _name(header), start, size
            long_name, pax = "", {}
        at = start + -(-size // BLOCK) * BLOCK
    left = "its last member is not whole" if at > len(data) else "its closing block is missing, and pictures may be"
    notes.append(f"{path.name} is cut short: {left}")


def _header_size(header: bytes) -> int | None:
    """The size a header tells, or None where the header's checksum says that it is no header."""
    try:
        total = int(header[148:156].split(b"\0")[0].strip() or b"0", 8)
        if total != sum(header[:148]) + 256 + sum(header[156:]):
            return None
        if header[124] & 0x80:  # base 256, for members of 8 GiB and more
            return int.from_bytes(header[125:136], "big")
        return max(0, int(header[124:136].split(b"\0")[0].strip() or b"0", 8))
    except ValueError:
        return None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "replace")


def _pax(data: bytes) -> dict[str, str]:
    """Lines of '<length> <key>=<value>\\n'; the length counts the whole line, so a value may hold line ends."""
    found: dict[str, str] = {}
    while data:
        digits, _, rest = data.partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits):
            break
        key, _, value = rest[: length - len(digits) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "replace")
        data = data[length:]
    return found
