"""A folder or shards of captioned pictures cleaned into another: looked at once, judged, written, and told in a report.

Work in progress lies in `OUT.partial`: the rows of what was seen, whose number says how far it is, and the new folder, which takes
its name when it is whole. A run killed at any moment goes on from there and ends with the same files.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from diorama.data.curate import CHUNK, SEEN, Limits, Looker, Verdicts, judge, look
from diorama.data.encoded import fingerprint, sayings, stamps
from diorama.data.folder import Entry, Folder
from diorama.data.report import REPORT, Report
from diorama.data.shards import Shards
from diorama.data.source import Source
from diorama.data.views import Repeated
from diorama.errors import UserError
from diorama.files import atomic_file, read_json, tidy, write_json
from diorama.types import OnStep, Step, ignore


def clean(
    source: Source,
    out: Path,
    looker: Looker,
    limits: Limits,
    *,
    asked: Mapping[str, Any],
    copy: bool = False,
    on_step: OnStep = ignore,
) -> Mapping[str, Any]:
    """The pictures of `source` that `limits` keep in the new folder `out`, with report.html, report.json and dropped.jsonl.

    `asked` names what the looker looks with: rows that another one saw are not used. Files are linked where the disk can, unless
    `copy`. Returns what report.json says. Raises UserError where `out` is something else, or the pictures changed underway.
    """
    whole = source.source if isinstance(source, Repeated) else source
    if not isinstance(whole, Folder | Shards):
        raise UserError(f"a {type(whole).__name__} of pictures cannot be cleaned into files: give a folder or shards")
    asked = {**asked, "pictures": len(whole), "state": f"{sayings(whole)} {stamps(whole)}"}
    partial = out.with_name(f"{out.name}.partial")
    if (found := _finished(out, {**asked, "limits": _plain(limits)})) is not None:
        shutil.rmtree(partial, ignore_errors=True)
        return found
    _begin(partial, asked)
    seen = _seen(whole, looker, Table(partial / "seen.bin", len(whole)), on_step)
    verdicts = judge(seen, limits)
    if not len(verdicts.kept):
        raise UserError(f"nothing would be kept, {_most(verdicts)}: loosen that, or leave it out of --filters")
    notes = [*whole.notes, *verdicts.notes, *_lost(source)]
    report = Report(whole, seen, verdicts, limits)
    about = {"asked": {**asked, "limits": _plain(limits)}, **report.summary(notes)}
    new = partial / f"clean-{fingerprint(_plain(limits), copy)}"
    new.mkdir(exist_ok=True)
    tidy(new)
    if isinstance(whole, Folder):
        write_folder(whole.entries, whole, verdicts.kept, new, copy)
    else:
        _write_shards(whole, verdicts.kept, new)
    with atomic_file(new / "dropped.jsonl") as file, open(file, "w", encoding="utf-8") as lines:
        lines.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in report.dropped())
    with atomic_file(new / "report.html") as file:
        file.write_text(report.page(about), encoding="utf-8")
    write_json(new / REPORT, about)
    if out.exists():
        out.rmdir()  # it is empty
    new.rename(out)
    shutil.rmtree(partial, ignore_errors=True)
    return about


def _plain(limits: Limits) -> dict[str, Any]:
    """As it will be read back from JSON."""
    return {**asdict(limits), "filters": list(limits.filters)}


def _finished(out: Path, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the report in `out` says, where it answers the same question. Raises UserError where `out` is something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if out.is_dir() and (out / REPORT).is_file():
        about = read_json(out / REPORT)
        if about.get("asked") == asked:
            return about
        raise UserError(f"{out} was cleaned from other pictures or with other limits: name another --out, or remove it")
    raise UserError(f"{out} holds other files: name a new folder")


def _begin(partial: Path, asked: Mapping[str, Any]) -> None:
    """The folder of the work, begun or found. Raises UserError where it was begun with other words or pictures."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {partial} ({(error.strerror or str(error)).lower()}): choose another --out") from None
    tidy(partial)
    words = partial / "asked.json"
    before = read_json(words) if words.is_file() else asked
    if changed := [name for name in asked if before.get(name) != asked[name]]:
        name = "pictures" if changed[0] == "state" else changed[0]
        said = "the pictures have changed since" if name == "pictures" else f"{name} was {before.get(name)!r} when"
        raise UserError(f"{said} {partial} was begun: remove it, or name another --out")
    write_json(words, asked)


class Table:
    """Rows of `SEEN` for n pictures in a file that only grows. A chunk that was not finished is seen again: chunks stay the same."""

    def __init__(self, path: Path, n: int):
        self.path = path
        path.touch()
        whole = path.stat().st_size // SEEN.itemsize
        self.rows = n if whole == n else whole // CHUNK * CHUNK
        os.truncate(path, self.rows * SEEN.itemsize)

    def append(self, rows: np.ndarray) -> None:
        with open(self.path, "ab") as file:
            file.write(rows.tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.rows += len(rows)

    def read(self) -> np.ndarray:
        """All rows, on the disk until they are needed."""
        return np.memmap(self.path, SEEN, "r", shape=(self.rows,))


def _seen(source: Source, looker: Looker, table: Table, on_step: OnStep) -> np.ndarray:
    for rows in look(source, looker, table.rows):
        table.append(rows)
        on_step(Step(table.rows - 1, len(source)))
    return table.read()


def _most(verdicts: Verdicts) -> str:
    name = max(verdicts.counts, key=lambda name: verdicts.counts[name])
    return f"most ({verdicts.counts[name]}) because of {name!r}"


def _lost(source: Source) -> Iterator[str]:
    if isinstance(source, Repeated):
        yield "the repeat counts of the folders are not kept: every picture stands once"


# --- writing --------------------------------------------------------------------------------------


def write_folder(entries: Sequence[Entry], source: Source, kept: Iterable[int], folder: Path, copy: bool) -> None:
    """The files under their own names, and metadata.jsonl with all that the source says of them."""
    with atomic_file(folder / "metadata.jsonl") as file, open(file, "w", encoding="utf-8") as lines:
        for i in kept:
            entry, said = entries[i], dict(source.record(i))
            _place(entry.path, folder / entry.key, copy)
            line = {"file_name": said.pop("key"), "text": said.pop("text"), **said}
            lines.write(json.dumps({k: v for k, v in line.items() if v is not None}, ensure_ascii=False, default=str) + "\n")


def _place(path: Path, target: Path, copy: bool) -> None:
    """The file under its new name, whole or not at all: a link to the same bytes where that can be had, else a copy."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.link(path.resolve(), target)
            return
        except OSError:  # another disk, or one without links
            pass
    new = target.with_name(f".{target.name}.new")
    shutil.copyfile(path, new)
    new.replace(target)


def _write_shards(source: Shards, kept: np.ndarray, folder: Path) -> None:
    """A tar for each tar, with every member of the kept groups."""
    names = [path.name for path in source.paths]
    if len(set(names)) < len(names):
        names = [f"{number:06d}.tar" for number in range(len(names))]
    for number, places in groupby(kept, source.tar_of):
        if not (folder / names[number]).exists():
            with atomic_file(folder / names[number]) as file, tarfile.open(file, "w") as tar:
                for name, data in source.members_of(number, places):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, BytesIO(data))
