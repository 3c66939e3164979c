"""A folder and shards with one of each defect, cleaned; killed at many moments, and the same in the end."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from data_makers import disc, encoded, save, tar
from PIL import Image

from diorama.data import cleaning, open_data
from diorama.data.cleaning import clean
from diorama.data.curate import CHUNK, Limits, Looker
from diorama.errors import UserError

HUES = [(230, 30, 30), (30, 200, 30), (30, 60, 230), (230, 220, 20), (200, 30, 220)]


def thing(i):
    """Discs of which no two are alike."""
    x, y = 2 + i % 7, 2 + i // 7 % 7
    return disc(HUES[i % 5], box=(x, y, x + 12 + i // 49 % 9, y + 14 + i // 441))


def dirty(folder: Path, n: int = 40) -> Path:
    """n sound pictures and six that are not."""
    said = {f"{i:03d}.png": f"a thing of kind {chr(97 + i % 26)}{i // 26}x" for i in range(n)}
    for i, name in enumerate(said):
        save(folder / name, thing(i))
    other = {
        "empty.png": "",
        "name.png": "IMG_2041.jpg",
        "small.png": "a dot",
        "blue.png": "a blue thing",
        "twin.png": "the same thing again",
        "broken.png": "a broken thing",
    }
    save(folder / "small.png", disc(box=(4, 4, 6, 6)))
    save(folder / "blue.png", disc((30, 200, 30)))
    save(folder / "twin.png", Image.open(folder / "003.png").resize((48, 48)))
    save(folder / "empty.png", thing(n + 3))
    save(folder / "name.png", thing(n + 4))
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:60])
    lines = [json.dumps({"file_name": name, "text": text, "year": 1}) for name, text in {**said, **other}.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


GOES = {
    "empty.png": "empty",
    "name.png": "file name",
    "small.png": "small",
    "blue.png": "colour",
    "twin.png": "duplicate",
    "broken.png": "unreadable",
}


def run(folder, out, limits=None, looker=None, **more):
    return clean(open_data(folder), out, looker or Looker(), limits or Limits(), asked={"source": str(folder)}, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dirty(tmp_path_factory.mktemp("dirty") / "pictures")


def test_a_folder_becomes_one_of_its_sound_pictures(folder, tmp_path):
    about = run(folder, tmp_path / "out")
    before, after = open_data(folder), open_data(tmp_path / "out")
    assert (about["pictures"], about["kept"]) == (46, 40)
    assert after.notes == []  # nothing lies there that metadata.jsonl does not name
    assert [after.record(i) for i in range(40)] == [before.record(i) for i in range(40)]
    assert after.read(7).image.tobytes() == before.read(7).image.tobytes()
    gone = {line["key"]: line for line in lines(tmp_path / "out" / "dropped.jsonl")}
    assert {key: line["reason"] for key, line in gone.items()} == GOES
    assert gone["twin.png"]["why"].startswith("repeats 003.png (difference 0.0")
    assert "truncated" in gone["broken.png"]["why"]
    assert about == json.loads((tmp_path / "out" / "report.json").read_text())
    assert not (tmp_path / "out.partial").exists()


def test_files_are_linked_or_copied(folder, tmp_path):
    run(folder, tmp_path / "linked")
    run(folder, tmp_path / "copied", copy=True)
    assert os.path.samefile(folder / "000.png", tmp_path / "linked" / "000.png")
    assert not os.path.samefile(folder / "000.png", tmp_path / "copied" / "000.png")
    assert files(tmp_path / "linked") == files(tmp_path / "copied")


def test_the_report_shows_every_reason_with_a_picture(folder, tmp_path):
    run(folder, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "46 pictures, 40 kept (87.0%)" in page
    for words in (
        "cannot be read",
        "has no caption",
        "has a file name for a caption",
        "fills too little",
        "repeats another picture",
    ):
        assert f"1 dropped: the picture {words}" in page or f"1 dropped: the picture has a subject that {words}" in page
    assert page.count("<img") == 4 + 2 + 12  # one each but of the broken one, two of the twins, twelve that were kept
    assert "<script" not in page and "http" not in page


def test_shards_become_shards_with_all_that_belongs_to_what_is_kept(tmp_path):
    members = {}
    for i, letter in enumerate("abcdef"):
        members |= {f"{i:02d}.png": encoded(thing(i)), f"{i:02d}.txt": f"thing {letter}", f"{i:02d}.depth.bin": b"d" * i}
    members["03.txt"] = ""
    (tmp_path / "in").mkdir()
    for number in range(2):
        tar(tmp_path / "in" / f"{number}.tar", dict(list(members.items())[9 * number : 9 * number + 9]))
    run(tmp_path / "in", tmp_path / "out")
    before, after = open_data(tmp_path / "in"), open_data(tmp_path / "out")
    assert [path.name for path in after.paths] == ["0.tar", "1.tar"]
    assert [after.record(i) for i in range(5)] == [before.record(i) for i in (0, 1, 2, 4, 5)]
    assert dict(after.members_of(1, range(3, 5)))["05.depth.bin"] == b"d" * 5
    assert "03.png" not in dict(after.members_of(1, range(3, 5)))


# --- stopped and gone on with ---


def in_a_child(work, *arguments) -> int:
    """The exit code of a forked process."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    child.join(60)
    return child.exitcode


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_looking(folder, out):
    """After the second chunk is on the disk, with half a row of the third."""

    def on_step(step):
        if step.index + 1 == 2 * CHUNK:
            with open(out.with_name("out.partial") / "seen.bin", "ab") as file:
                file.write(b"\1" * 100)
            kill()

    run(folder, out, on_step=on_step)


def killed_after(name, at):
    """In a later step: before this function's call number `at`."""

    def work(folder, out):
        calls, real = iter(range(100)), getattr(cleaning, name)

        def counted(*arguments):
            return kill() if next(calls) == at else real(*arguments)

        setattr(cleaning, name, counted)
        run(folder, out)

    return work


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    folder = dirty(tmp_path_factory.mktemp("larger") / "pictures", 150)
    out = folder.parent / "whole"
    run(folder, out)
    return folder, files(out)


MOMENTS = {
    "looking": killed_looking,
    "judging": killed_after("judge", 0),
    "writing": killed_after("_place", 20),
    "reporting": killed_after("write_json", 1),
}


@pytest.mark.parametrize("work", MOMENTS.values(), ids=MOMENTS)
def test_killed_it_goes_on_and_ends_with_the_same_files(larger, tmp_path, work):
    folder, expected = larger
    assert in_a_child(work, folder, tmp_path / "out") == -signal.SIGKILL
    assert not (tmp_path / "out").exists()  # nothing looks like data before it is whole
    seen = []
    run(folder, tmp_path / "out", on_step=lambda step: seen.append(step.index + 1))
    assert seen == ([156] if work is killed_looking else [])
    assert files(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_finished_one_is_not_made_again(folder, tmp_path):
    about, stamp = run(folder, tmp_path / "out"), (tmp_path / "out").stat().st_mtime_ns

    def never(step):
        raise AssertionError("looked again")

    assert run(folder, tmp_path / "out", on_step=never) == about
    assert (tmp_path / "out").stat().st_mtime_ns == stamp


def test_mistakes_are_told(folder, tmp_path):
    run(folder, tmp_path / "out")
    with pytest.raises(UserError, match="with other limits: name another --out"):
        run(folder, tmp_path / "out", Limits(alike=0.5))
    with pytest.raises(UserError, match="holds other files: name a new folder"):
        run(folder, folder)
    with pytest.raises(UserError, match=r"nothing would be kept, most \(46\) because of 'large'|nothing would be kept, most"):
        run(folder, tmp_path / "none", Limits(least_area=0, most_area=0))
    with pytest.raises(UserError, match="source was .* when .* was begun"):
        clean(open_data(folder), tmp_path / "none", Looker(), Limits(), asked={"source": "elsewhere"})
    save(folder / "000.png", thing(99))
    with pytest.raises(UserError, match="the pictures have changed since"):
        run(folder, tmp_path / "none")
