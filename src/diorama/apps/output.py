"""Where pictures go, and how a long job shows itself: what the verbs share."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diorama.errors import UserError
from diorama.foundations.registry import FOUNDATIONS
from diorama.models import locate
from diorama.recipe import Recipe, check_suffix, save

if TYPE_CHECKING:
    from PIL import Image


class Output:
    """The names of the files to write. Made, and its folder checked, before any work is done.

    A file that --out names is replaced; a name that diorama chose (one of several numbered ones too) never is: it gets -2, -3 ...
    """

    def __init__(self, out: str | None, names: Sequence[str | None], together: bool = False):
        self.names = names
        self.several = len(names) > 1 and not together
        self.file = None if out is None or _is_folder(out) else Path(out)
        self.folder = Path(out) if out is not None and self.file is None else Path()
        if self.file is not None:
            check_suffix(self.file)
            self.folder = self.file.parent
        elif out is not None:
            make_folder(self.folder)
        check_folder(self.folder, out)
        if self.file is None:
            for below in {(self.folder / name).parent for name in names if name} - {self.folder}:
                make_folder(below)

    def check(self, transparent: Iterable[bool]) -> None:
        """Raises UserError where a picture without a ground would go into a JPEG, which needs one."""
        for i, clear in enumerate(transparent):
            name = self.file or Path(self.names[i] or "picture.png")
            if clear and name.suffix.lower() in (".jpg", ".jpeg"):
                raise UserError(f"{name}: JPEG knows no transparency: use .png or .webp")

    def write(self, i: int, image: Image.Image, recipe: bool, of: Recipe | None = None) -> Path:
        """Save picture i under its name, and return that."""
        path = self._path(i, of or image.recipe)  # type: ignore[attr-defined]
        save(image, path, recipe=recipe)
        return path

    def _path(self, i: int, recipe: Recipe) -> Path:
        if self.file is not None and not self.several:
            return self.file
        if self.file is not None:
            return free(self.file.with_stem(f"{self.file.stem}-{i + 1}"))
        return free(self.folder / (self.names[i] or f"{slug(recipe.prompt)}-{recipe.seed}.png"))


def slug(prompt: str) -> str:
    """A file name of the sentence's first words, in plain ASCII."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].rstrip("-") or "picture"


def _is_folder(out: str) -> bool:
    """Whether it is one, or would be: a picture has a suffix that says its format."""
    return out.endswith(("/", os.sep)) or not Path(out).suffix or os.path.isdir(out)  # which a name too long for a disk is not


def free(path: Path) -> Path:
    """The path, or with -2, -3 ... the first that is not taken."""
    candidate, k = path, 1
    while candidate.exists():
        k += 1
        candidate = path.with_stem(f"{path.stem}-{k}")
    return candidate


def find_model(name: str) -> Path:
    """The folder of a shipped or a saved model. Raises UserError as `models.locate` does, and for a name that no disk can hold."""
    try:
        return locate(name)
    except UserError:
        if name in FOUNDATIONS:
            raise UserError(f"{name} is not here: run `diorama foundations {name}` once (minutes to hours)") from None
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"model {name[:40]!r} ... cannot be looked for ({reason}): name a shipped one, or a folder") from None


def make_folder(folder: Path) -> None:
    """The folder and those above it. Raises UserError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {folder} ({(error.strerror or str(error)).lower()}): choose another --out"
        ) from None


def check_new(folder: Path, made: str) -> None:
    """Before much work: what is there may be replaced only by its own kind, which has a file `made`. Raises UserError."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / made).is_file()):
        raise UserError(f"{folder} holds something else: name a new folder with --out")
    make_folder(folder.parent)
    check_folder(folder.parent, str(folder))


def check_folder(folder: Path, out: str | None) -> None:
    """Before much work: raises UserError where nothing can be written into the folder of `out`."""
    if not folder.is_dir():
        raise UserError(f"the folder {folder} of {out} does not exist: create it, or write {folder}/ to have diorama create it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"the folder {folder} is not writable: choose another with --out")


def use_all_cores() -> None:
    """Let torch use every core this process may run on, unless the environment says how many (as launchers do)."""
    if "OMP_NUM_THREADS" not in os.environ:
        from diorama.networks.precision import use_cores

        use_cores()


@contextmanager
def steps_bar(words: str = "sampling") -> Iterator[Callable[[Any], None]]:
    """A progress bar on standard error, where that is a terminal; yields the `on_step` that moves it."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn()
    # rich would send standard output through its own console, away from a pipe or a file that it is led into
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    task = progress.add_task(words, total=None)

    def on_step(step: Any) -> None:  # only between the first step and the last: a terminal shows one bar at a time
        progress.start()
        progress.update(task, completed=step.index + 1, total=step.n)
        if step.index + 1 == step.n:
            progress.stop()

    try:
        yield on_step
    finally:
        progress.stop()
