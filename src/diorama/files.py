"""Files that are whole or not there: atomic writing, JSON, checksums. Imports nothing of torch."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diorama.errors import UserError

ADVICE = {
    errno.ENOSPC: "free some space or write elsewhere",
    errno.EDQUOT: "free some space or write elsewhere",
    errno.EFBIG: "write to a disk that takes files of this size",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENOENT: "create the folder first",
    errno.ENOTDIR: "name a folder, not a file",
    errno.EISDIR: "name a file, not a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}

_serial = itertools.count()  # two threads of one process may write the same name
LEFT = re.compile(r"\.(?P<stem>.+)\.(?P<kind>tmp|old)-(?P<process>\d+)-\d+(?P<suffix>\.[^.]*)?")  # the names of `_beside`


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the name `path` when the block ends well, else it is removed.

    It has the suffix of `path`, by which many writers choose their format. A link is followed. Raises UserError where the disk
    is full, the folder is missing or may not be written, before the block runs where that can be known.
    """
    target = _target(path)
    temporary = _beside(target, "tmp")
    with _told(path, temporary):
        try:
            temporary.touch()
            mode = temporary.stat().st_mode  # what the umask allows: some writers make files only the owner can read
            yield temporary
            temporary.chmod(mode)
            _sync(temporary)
            os.replace(temporary, target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, replaces: str | None = None) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it takes the name `path` when the block ends well, else it is removed.

    An existing folder is replaced as a whole, so it is moved aside first and removed last. `replaces` names a file it must
    hold to be replaced: where it is missing the folder is someone else's. Raises UserError as `atomic_file` does.
    """
    target = _target(path)
    _check_replaceable(path, target, replaces)
    temporary = _beside(target, "tmp")
    with _told(path, temporary):
        try:
            temporary.mkdir()
            yield temporary
            _sync_tree(temporary)
            _swap(temporary, target)
            _sync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def read_json(path: str | Path) -> Any:
    """What the JSON file says. Raises UserError where it is absent or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({_reason(error)}): check the path") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): mend it or write it again") from error


def write_json(path: str | Path, obj: Any) -> None:
    """`obj` as indented UTF-8 JSON, atomically."""
    text = json.dumps(obj, indent=2, ensure_ascii=False) + "\n"  # before the file is touched: obj may not be JSON
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append(path: str | Path, text: str) -> None:
    """`text` at the end of the file. Raises UserError as `atomic_file` does; a process killed inside may leave half of it."""
    with _told(path, Path(path)), open(path, "a", encoding="utf-8") as file:
        file.write(text)


def tidy(folder: Path) -> None:
    """Remove what processes that were killed left half written in this folder; what a living one writes stays."""
    for path in folder.glob(".*"):
        left = LEFT.fullmatch(path.name)
        if left is None or _lives(int(left["process"])):
            continue
        target = path.with_name(left["stem"] + (left["suffix"] or ""))
        if left["kind"] == "old" and not target.exists():  # killed between the two renames of `_swap`
            path.rename(target)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def user_cache(name: str) -> Path:
    """Where things are kept between runs that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diorama" / name


def sha256(path: str | Path) -> str:
    """The file's SHA-256, 64 hexadecimal digits. Raises UserError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path} ({_reason(error)}): check the path") from error


def _target(path: str | Path) -> Path:
    """Where `path` really is, its links followed."""
    try:
        target = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise UserError(f"cannot write {path} (its links lead nowhere): name another place") from error
    if not target.parent.is_dir():
        raise UserError(f"cannot write {path} ({target.parent} is not a folder): create the folder first")
    return target


def _beside(target: Path, kind: str) -> Path:
    """A hidden name in the same folder, so that a rename never crosses disks; what is there under it goes."""
    path = target.with_name(f".{target.stem[:200]}.{kind}-{os.getpid()}-{next(_serial)}{target.suffix}")
    shutil.rmtree(path, ignore_errors=True)
    return path


def _lives(process: int) -> bool:
    """Whether there is such a process on this machine; where that cannot be asked it is taken to live."""
    if os.name != "posix":  # elsewhere asking ends it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _check_replaceable(path: str | Path, target: Path, replaces: str | None) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"cannot write {path} (it is a file): name a folder")
    if Path.cwd().is_relative_to(target) or Path.home().is_relative_to(target):
        raise UserError(f"cannot write {path} (it holds the current or the home folder and would be replaced): name a new folder")
    if replaces and any(target.iterdir()) and not (target / replaces).exists():
        raise UserError(f"cannot write {path} (it holds other files and no {replaces}): name a new or an empty folder")


def _swap(new: Path, target: Path) -> None:
    """`new` takes the name `target`; an old folder of that name is moved aside, and back should the rename fail."""
    if not target.exists():
        new.rename(target)
        return
    old = _beside(target, "old")
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _told(path: str | Path, temporary: Path) -> Iterator[None]:
    """A failure of this writing becomes one line that names `path`; an error of another file inside the block passes as it is."""
    try:
        yield
    except UserError as error:  # perhaps of a file within the temporary folder
        raise UserError(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        named = str(error.filename or temporary)
        if not named.startswith(str(temporary)):
            raise
        error.filename = named.replace(str(temporary), str(path))
        if error.errno not in ADVICE:
            raise
        raise UserError(f"cannot write {path} ({_reason(error)}): {ADVICE[error.errno]}") from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _sync(path: Path) -> None:
    """Onto the disk itself, so that a power cut after the rename does not leave an empty file under the real name."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root, name))
        _sync_folder(Path(root))
