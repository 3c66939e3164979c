"""The door to data: any folder, shard or table of pictures in one call, and a description of what was found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diorama.data.folder import METADATA, open_folder, open_metadata
from diorama.data.shards import Shards
from diorama.data.source import Source, Unreadable
from diorama.errors import UserError

SPLITS = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test", "testing")}
ALLOWED = "a folder of pictures, a folder with metadata.jsonl|csv|parquet, or webdataset .tar shards"
SAMPLED = 64


def open_data(path: str | Path, *, on_white: bool = False, split: str | None = None) -> Source:
    """The pictures at this path, their layout recognised: plain or class folders, metadata tables, sidecars, webdataset tars.

    `on_white`: RGB is stored already laid on white and alpha is only a mask; it is taken back to straight colour.
    `split`: train, validation or test where there are such folders (train if not said). `UserError` says what is wrong.
    """
    if tars := _braces(str(path)):
        return Shards([_there(Path(tar)) for tar in tars], on_white)
    root = _there(Path(path).expanduser())
    if root.is_file():
        return _open_file(root, on_white)
    folder = _of_split(root, split)
    shards = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    source = Shards(shards, on_white) if shards else open_folder(folder, on_white)
    if folder != root:
        notes: list[str] = getattr(source, "notes", [])
        notes.append(f"this is the split in {folder.name}")
    return source


def _there(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path} does not exist: pass {ALLOWED}")
    return path


def _open_file(path: Path, on_white: bool) -> Source:
    if path.suffix == ".tar":
        return Shards([path], on_white)
    if path.name in METADATA:
        return open_metadata(path, on_white)
    hint = "unpack it first" if path.name.endswith((".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")) else "pass its folder"
    raise UserError(f"{path} is a {path.suffix or 'nameless'} file, not {ALLOWED}: {hint}")


def _of_split(root: Path, split: str | None) -> Path:
    """The split's own folder, where the data set has any."""
    here = {name: root / alias for name, aliases in SPLITS.items() for alias in aliases if (root / alias).is_dir()}
    wanted = next((name for name, aliases in SPLITS.items() if split in aliases), split)
    if wanted is None:
        return here.get("train", root)
    if wanted not in here:
        raise UserError(f"{root} has no split {split!r}: it has {', '.join(here) or 'none, so leave the split out'}")
    return here[wanted]


def _braces(path: str) -> list[str]:
    """ "a-{000..012}.tar" -> its thirteen paths; nothing for a path without braces."""
    match = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", path)
    if not match:
        return []
    before, first, last, after = match.groups()
    return [f"{before}{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1)]


# --- what was found -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Description:
    """What a data set holds. Sizes are (width, height) by area, from up to 64 pictures spread over the whole."""

    layout: str
    n: int
    smallest: tuple[int, int] | None
    median: tuple[int, int] | None
    largest: tuple[int, int] | None
    sampled: int
    captions: int
    missing: int
    labels: Mapping[str, int]
    examples: Sequence[tuple[str, str]]  # key and caption
    unreadable: Mapping[str, str]  # of the sampled ones: key and reason
    notes: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The description for people, one fact a line."""
        out = [f"{self.n:,} picture{'s' * (self.n != 1)} ({self.layout})"]
        if self.smallest and self.median and self.largest:
            sizes = " / ".join(f"{w} x {h}" for w, h in (self.smallest, self.median, self.largest))
            out.append(f"size {sizes} (smallest / median / largest of {self.sampled} looked at)")
        out.append(f"captions: {self.captions:,} present, {self.missing:,} missing")
        if self.labels:
            most = sorted(self.labels.items(), key=lambda pair: (-pair[1], pair[0]))
            more = f", and {len(most) - 8} more" if len(most) > 8 else ""
            out.append(f"{len(most)} labels: " + ", ".join(f"{name} {count:,}" for name, count in most[:8]) + more)
        out += [f"for example {key}: {text}" for key, text in self.examples if text]
        out += [f"cannot be read: {key}: {reason}" for key, reason in self.unreadable.items()]
        return out + list(self.notes)


def describe(source: Source) -> Description:
    """What is in a source: all its records are read, and up to 64 of its pictures."""
    records = [source.record(i) for i in range(len(source))]
    sizes, broken = _sizes(source)
    captioned = [said for said in records if said["text"]]
    return Description(
        layout=getattr(source, "layout", type(source).__name__),
        n=len(source),
        smallest=sizes[0] if sizes else None,
        median=sizes[(len(sizes) - 1) // 2] if sizes else None,
        largest=sizes[-1] if sizes else None,
        sampled=len(sizes) + len(broken),
        captions=len(captioned),
        missing=len(records) - len(captioned),
        labels=Counter(said["label"] for said in records if said["label"] is not None),
        examples=_examples(captioned or records),
        unreadable=broken,
        notes=tuple(getattr(source, "notes", ())),
    )


def _sizes(source: Source) -> tuple[list[tuple[int, int]], dict[str, str]]:
    """The sizes of up to 64 pictures by rising area, and those that could not be read."""
    n = min(SAMPLED, len(source))
    sizes, broken = [], {}
    for k in range(n):
        try:
            sizes.append(source.read(k * len(source) // n).image.size)
        except Unreadable as error:
            key, _, reason = str(error).partition(": ")
            broken[key] = reason
    return sorted(sizes, key=lambda size: (size[0] * size[1], size)), broken


def _examples(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Three from the start, the middle and the end (fewer where there are fewer)."""
    places = sorted({0, len(records) // 2, len(records) - 1}) if records else []
    return [(records[i]["key"], records[i]["text"]) for i in places]
