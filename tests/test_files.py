import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diorama.errors import UserError
from diorama.files import atomic_file, atomic_folder, read_json, sha256, tidy, write_json


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == ".png"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_file_leaves_the_old_one_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_writer_that_makes_private_files_does_not_decide_who_may_read(tmp_path):
    with atomic_file(tmp_path / "a") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    with atomic_file(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "real" / "a.txt").read_text() == "new"
    assert (tmp_path / "link.txt").is_symlink()


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with atomic_file(path) as first, atomic_file(path) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1"  # the outer block ends last


def test_a_missing_folder_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="create the folder first"), atomic_file(tmp_path / "none" / "a"):
        pass


def test_a_file_of_the_name_of_a_folder_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="name a file, not a folder"), atomic_file(tmp_path) as temporary:
        temporary.write_text("new")
    assert tmp_path.is_dir()


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_full_disk_is_told_in_one_line(tmp_path, atomic):
    with pytest.raises(UserError, match="free some space") as caught, atomic(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_of_the_name_that_was_asked_for(tmp_path, monkeypatch):
    def full(self, *arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError) as caught, atomic_folder(tmp_path / "model") as new:
        write_json(new / "config.json", {})
    where = tmp_path / "model" / "config.json"
    assert str(caught.value) == f"cannot write {where} (no space left on device): free some space or write elsewhere"


def test_a_failure_without_advice_names_the_file_too(tmp_path):
    with pytest.raises(OSError, match="a.png") as caught, atomic_file(tmp_path / "a.png") as new:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(new))
    assert caught.value.filename == str(tmp_path / "a.png")


def test_what_dead_processes_left_goes_and_what_living_ones_write_stays(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f".model.tmp-{ended.pid}-0").mkdir()
    (tmp_path / f".model.tmp-{ended.pid}-0" / "half").touch()
    (tmp_path / f".model.old-{ended.pid}-1").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / f".lost.old-{ended.pid}-2.json").touch()
    for name in (f".cache.tmp-{ended.pid}-3.safetensors", f".cache.tmp-{os.getpid()}-0.safetensors", ".hidden", ".a.tmp-b-c"):
        (tmp_path / name).touch()
    tidy(tmp_path)
    kept = {".a.tmp-b-c", f".cache.tmp-{os.getpid()}-0.safetensors", ".hidden", "lost.json", "model"}
    assert set(os.listdir(tmp_path)) == kept  # killed between two renames, the old file has its name again


def test_an_error_of_another_file_passes_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a") as temporary:
        temporary.write_text(Path(tmp_path / "other").read_text())


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "model"
    for text in ("old", "new"):
        with atomic_folder(path) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / text).write_text(text)
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["model", "model/deep", "model/deep/new"]


def test_an_interrupted_folder_leaves_the_old_one_and_nothing_beside_it(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()

    def write_half():
        with atomic_folder(path) as temporary:
            (temporary / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_rename_that_fails_brings_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    rename = Path.rename

    def failing(self, target):
        if ".tmp-" in self.name:
            raise OSError(errno.EACCES, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(UserError, match="permission denied"), atomic_folder(path):
        pass
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["model"]


def test_nobodys_own_files_are_replaced(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="other files"), atomic_folder(tmp_path, replaces="config.json"):
        pass
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="current"), atomic_folder("."):
        pass
    with pytest.raises(UserError, match="it is a file"), atomic_folder("thesis.txt"):
        pass
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_json_returns_as_it_was(tmp_path):
    obj = {"word": "é", "numbers": [1, 2.5, None]}
    write_json(tmp_path / "a.json", obj)
    assert read_json(tmp_path / "a.json") == obj


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {1, 2})
    assert read_json(tmp_path / "a.json") == 1


def test_absent_and_damaged_json_are_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a": ')
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "half.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "bytes.json")


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_text("abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    with pytest.raises(UserError, match="no such file"):
        sha256(tmp_path / "none")


def test_importing_it_does_not_import_torch():
    code = "import sys, diorama.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
