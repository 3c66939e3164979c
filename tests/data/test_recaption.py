"""Pictures under other captions: as a source, and as a folder that is read again."""

import json

import pytest
import tiny

from diorama.data import Batches, open_data
from diorama.data.recaption import Recaptioned, described, recaption
from diorama.errors import UserError


def told(words):
    """A describer that sees colour: one letter of what the picture's middle is, and how many were shown together."""
    return lambda image: [f"{words} {pixel.argmax().item()}" for pixel in image[:, :3, 8, 8]]


def test_a_share_keeps_its_words_and_all_say_what_was_said(picture_folder):
    source = open_data(picture_folder)
    captions = [f"new {i}" for i in range(len(source))]
    blended = Recaptioned(source, captions, 0.5, seed=1)
    kept = [i for i in range(len(source)) if blended.record(i)["text"] != captions[i]]
    assert 0 < len(kept) < len(source)
    for i in range(len(source)):
        item, own = blended.read(i), source.read(i)
        assert item.text == (own.text if i in kept else captions[i])
        assert item.fields["original"] == own.text
        assert (item.key, item.label, item.image.tobytes()) == (own.key, own.label, own.image.tobytes())
    assert [Recaptioned(source, captions, 1.0).record(i)["text"] for i in range(len(source))] == captions
    assert [Recaptioned(source, captions, 0.0).record(i)["text"] for i in kept] == [source.record(i)["text"] for i in kept]


def test_the_share_is_the_blend(picture_folder):
    source = open_data(picture_folder)
    n = 400
    many = [Recaptioned(source, ["new"] * len(source), 0.95, seed).renamed for seed in range(n)]
    share = sum(map(sum, many)) / (n * len(source))
    assert abs(share - 0.95) < 4 * (0.95 * 0.05 / (n * len(source))) ** 0.5


def test_a_folder_is_written_and_read_again(picture_folder, tmp_path):
    source, out = open_data(picture_folder), tmp_path / "out"
    made = recaption(source, out, told("most in channel"), told("channel"), 16, blend=0.7, seed=5)
    again = open_data(out)
    assert len(again) == len(source)
    for i in range(len(source)):
        assert again.read(i).image.tobytes() == source.read(i).image.tobytes()
        assert again.record(i) == {**made.record(i), "key": again.record(i)["key"]}
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert sorted(path.name for path in out.rglob("*.png")) == sorted(line["file_name"].split("/")[1] for line in lines)
    batch = Batches(again, 16, 12, 0, ordered=True)(0)
    assert list(batch.text) == [line["text"] for line in lines]
    assert list(batch.short) == [line["short"] for line in lines]
    assert {line["short"][:9] for line in lines} == {"channel 0", "channel 1", "channel 2"}
    with pytest.raises(UserError, match="is there already"):
        recaption(source, out, told(""), told(""), 16)


def test_a_picture_that_cannot_be_read_keeps_its_words(tmp_path):
    source = open_data(tiny.pictures(tmp_path / "squares"))
    source.entries[0].path.write_bytes(b"no picture")
    captions = described(source, told("new"), 16)
    assert captions[0] == source.record(0)["text"]
    assert all(words.startswith("new") for words in captions[1:])


def test_what_does_not_fit_is_told(picture_folder):
    source = open_data(picture_folder)
    with pytest.raises(UserError, match="a blend of 2 is not allowed"):
        Recaptioned(source, [""] * len(source), 2)
    with pytest.raises(ValueError, match="3 captions for 12 items"):
        Recaptioned(source, [""] * 3)
