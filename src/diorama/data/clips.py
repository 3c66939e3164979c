"""Folders and shards of animations: GIF, WebP, APNG, strips of frames side by side and, where the package av is there, films."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diorama.data import pictures
from diorama.data.batches import Batches, fit, on_white
from diorama.data.folder import METADATA, Entry, Folder, open_metadata, walk
from diorama.data.shards import Shards
from diorama.data.source import Item, Unreadable
from diorama.errors import UserError
from diorama.types import mix

MOVING = ("gif", "webp", "png", "apng")
FILMS = ("mp4", "mov", "webm", "mkv", "avi")
LONGEST = 512  # frames that are read of one file
USUAL = 100  # milliseconds a frame that says none is shown


@dataclass(frozen=True)
class Clip(Item):
    """An item that moves: `image` is its first frame."""

    frames: tuple[Image.Image, ...] = ()  # RGBA, evenly in time


class Animations:
    """The animations of a folder or of shards, with what is said of them, brought to `fps` frames a second.

    A still picture whose record says of how many `frames` it is a strip (and perhaps at which `fps`) is that clip. Raises
    UserError where there is none.
    """

    def __init__(self, path: str | Path, fps: float = 8.0):
        self.source, self.fps = _open(Path(path).expanduser()), fps
        self.layout, self.notes = f"clips, {self.source.layout}", self.source.notes

    @property
    def labels(self) -> tuple[str, ...]:
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def record(self, i: int) -> Mapping[str, Any]:
        return self.source.record(i)

    def read(self, i: int) -> Clip:
        said = self.record(i)
        frames = tuple(evenly(frames_of(self.source.file(i), said["key"], said), self.fps))
        item = pictures.item(said, frames[0])
        return Clip(item.key, item.image, item.text, item.label, item.fields, frames)


def _open(path: Path) -> Folder | Shards:
    if not path.exists():
        raise UserError(f"{path} does not exist: give a folder of animations or .tar shards of them")
    tars = [path] if path.suffix == ".tar" else sorted(path.glob("*.tar"))
    if tars:
        return Shards(tars)
    if table := next((path / name for name in METADATA if (path / name).is_file()), path if path.is_file() else None):
        return open_metadata(table)
    found = sorted(walk(path, (*MOVING, *FILMS)))
    if not found:
        raise UserError(f"no clips in {path}: put .{', .'.join((*MOVING[:3], FILMS[0]))} files there, or .tar shards of them")
    return Folder(
        [Entry(name, path / name, sidecars=sidecars) for name, sidecars in found], "sidecars" if found[0][1] else "folder"
    )


class ClipBatches(Batches):
    """The same batches of clips: image (b, 4, frames, size, size), which frames of a longer one is drawn from its position.

    Shorter clips are left out, as broken ones are.
    """

    def __init__(self, source: Any, size: int, batch: int, seed: int, *, frames: int, **options: Any):
        super().__init__(source, size, batch, seed, **options)
        self.frames = frames

    def picture(self, item: Item, position: int) -> np.ndarray:
        assert isinstance(item, Clip)
        if (spare := len(item.frames) - self.frames) < 0:
            raise Unreadable(f"{item.key}: {len(item.frames)} frames, {self.frames} are needed")
        first = mix(self.seed, position) % (spare + 1)
        chosen = item.frames[first : first + self.frames]
        return np.stack([on_white(fit(frame, self.size)) for frame in chosen], 1)


# --- files to frames ------------------------------------------------------------------------------

Timed = tuple[Image.Image, float]  # a frame in RGBA, and for how many milliseconds it is shown


def frames_of(file: Path | bytes, key: str, said: Mapping[str, Any] | None = None) -> list[Timed]:
    """All frames, 512 at most. Raises `Unreadable` as `pictures.decode` does, and where a film needs a package that is not there."""
    if isinstance(file, Path) and file.suffix[1:].lower() in FILMS:
        return list(islice(_of_film(file, key), LONGEST))
    first = pictures.decode(file, key)  # which knows what is no picture, and what is too large
    n = (said or {}).get("frames")
    try:
        with Image.open(file if isinstance(file, Path) else io.BytesIO(file)) as image:
            if (moving := getattr(image, "n_frames", 1)) > 1:
                return [_at(image, k) for k in range(min(moving, LONGEST))]
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise Unreadable(f"{key}: {' '.join(str(error).split())}") from error
    if isinstance(n, int) and 1 < n <= LONGEST and not first.width % n:
        wide, shown = first.width // n, 1000 / float((said or {}).get("fps") or 1000 / USUAL)
        return [(first.crop((k * wide, 0, (k + 1) * wide, first.height)), shown) for k in range(n)]
    return [(first, USUAL)]


def _at(image: Image.Image, k: int) -> Timed:
    image.seek(k)
    frame = image.convert("RGBA")  # which also decodes it: only then is its duration known
    return frame, float(image.info.get("duration") or USUAL)


def _of_film(path: Path, key: str) -> Iterator[Timed]:
    try:
        import av
    except ImportError:
        raise Unreadable(f"{key}: films are read by the package av: pip install diorama[video]") from None
    try:
        with av.open(str(path)) as film:
            stream = film.streams.video[0]
            shown = 1000 / float(stream.average_rate or 1000 / USUAL)
            yield from ((frame.to_image().convert("RGBA"), shown) for frame in film.decode(stream))
    except Exception as error:  # the package raises errors of its own, which cannot be named without it
        raise Unreadable(f"{key}: {' '.join(str(error).split()) or type(error).__name__}") from error


def evenly(frames: list[Timed], fps: float) -> Iterator[Image.Image]:
    """What is seen every 1 / fps seconds, from the first frame on; at least that."""
    ends = list(accumulate(shown for _, shown in frames))
    step, at = 1000 / fps, 0
    for k in range(max(1, round(ends[-1] / step))):
        while at + 1 < len(frames) and ends[at] <= k * step + 1e-6:
            at += 1
        yield frames[at][0]


__all__ = ["Animations", "Clip", "ClipBatches", "evenly", "frames_of"]
