import io
import json
import pickle
import struct
import tarfile
import zlib

import numpy as np
import pytest
from data_makers import disc, encoded, save, tar
from PIL import Image

from diorama.data import Unreadable, describe, open_data
from diorama.errors import UserError


def records(source):
    return {source.record(i)["key"]: source.record(i) for i in range(len(source))}


def test_plain_folder(tmp_path):
    save(tmp_path / "b.png"), save(tmp_path / "a.jpg"), save(tmp_path / "deep" / "c.WEBP"), save(tmp_path / ".hidden" / "d.png")
    (tmp_path / "notes.pdf").write_text("no picture")
    source = open_data(tmp_path)
    assert source.layout == "folder"
    assert list(records(source)) == ["a.jpg", "b.png", "deep/c.WEBP"]
    item = source.read(1)
    assert (item.image.mode, item.image.size, item.text, item.label) == ("RGBA", (8, 6), "", None)
    assert item.image.getpixel((0, 0)) == (10, 20, 30, 255)


def test_class_folders(tmp_path):
    save(tmp_path / "dog" / "1.png"), save(tmp_path / "cat" / "1.png"), save(tmp_path / "cat" / "sub" / "2.png")
    source = open_data(tmp_path)
    assert (source.layout, source.labels) == ("classes", ("cat", "dog"))
    assert {key: said["label"] for key, said in records(source).items()} == {
        "cat/1.png": "cat",
        "cat/sub/2.png": "cat",
        "dog/1.png": "dog",
    }


def test_a_class_folder_is_the_caption_where_there_is_no_other(tmp_path):
    save(tmp_path / "sea_horse" / "1.png"), save(tmp_path / "2_cat" / "1.png"), save(tmp_path / "2_cat" / "2.png")
    (tmp_path / "2_cat" / "2.txt").write_text("a cat asleep")
    assert [said["text"] for said in records(open_data(tmp_path)).values()] == ["cat", "a cat asleep", "sea horse"]


def test_one_wrapping_folder_is_no_class(tmp_path):
    save(tmp_path / "images" / "a.png"), save(tmp_path / "images" / "b.png")
    source = open_data(tmp_path)
    assert (source.layout, source.labels, len(source)) == ("folder", (), 2)


def test_sidecars(tmp_path):
    for name in "abcd":
        save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("\ufeffa cat\n", "utf-8")
    (tmp_path / "b.caption").write_text("a dog")
    (tmp_path / "c.json").write_text('{"text": "a fox", "style": "flat", "class": "x", "width": 8}')
    source = open_data(tmp_path)
    assert source.layout == "sidecars"
    assert [source.read(i).text for i in range(4)] == ["a cat", "a dog", "a fox", ""]
    assert source.read(2).label == "flat"
    assert source.read(2).fields == {"style": "flat", "class": "x", "width": 8}


def test_repeat_folders(tmp_path):
    save(tmp_path / "3_sks dog" / "a.png"), save(tmp_path / "1_dog" / "b.png")
    (tmp_path / "3_sks dog" / "a.txt").write_text("sks dog on grass")
    source = open_data(tmp_path)
    assert source.layout == "repeats"
    assert sorted(source.record(i)["text"] for i in range(len(source))) == ["dog"] + ["sks dog on grass"] * 3
    assert "folder 3_sks dog: every picture is seen 3 times per epoch" in describe(source).lines()


def test_numbered_classes_are_classes(tmp_path):
    for name in ("1_cat", "2_dog", "3_fox"):
        save(tmp_path / name / "a.png")
    assert open_data(tmp_path).labels == ("1_cat", "2_dog", "3_fox")


def write_table(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]))
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="the parquet table needs pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_metadata_tables(tmp_path, kind):
    save(tmp_path / "in" / "a.png"), save(tmp_path / "b.png"), save(tmp_path / "unnamed.png")
    rows = [{"file_name": "in/a.png", "text": "a cat", "score": 3}, {"file_name": "b.png", "text": "a dog", "score": 4}]
    write_table(tmp_path / f"metadata.{kind}", rows)
    source = open_data(tmp_path)
    assert source.layout == f"metadata ({kind})"
    assert [source.read(i).text for i in range(2)] == ["a cat", "a dog"]
    assert str(source.record(1)["score"]) == "4"
    assert source.notes == [f"pictures left out because metadata.{kind} does not name them: 1"]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"pip install diorama\[data\]"):
        open_data(tmp_path)


def test_splits(tmp_path):
    for split, n in (("train", 3), ("val", 2)):
        for i in range(n):
            save(tmp_path / split / f"{i}.png")
    assert [len(open_data(tmp_path, split=split)) for split in (None, "train", "validation", "val")] == [3, 3, 2, 2]
    assert "this is the split in train" in describe(open_data(tmp_path)).lines()
    with pytest.raises(UserError, match="has no split 'test': it has train, validation"):
        open_data(tmp_path, split="test")


# --- shards ---------------------------------------------------------------------------------------


def shard(path, n=3, **options):
    members = {}
    for i in range(n):
        members[f"{i:03d}.png"] = encoded(disc((i, 0, 0)))
        members[f"{i:03d}.json"] = {"caption": f"thing {i}", "style": "ab"[i % 2], "class": "no", "keywords": ["k"]}
    return tar(path, members, **options)


def test_shards_are_read_in_any_order_and_pickled(tmp_path):
    shard(tmp_path / "s-000.tar"), shard(tmp_path / "s-001.tar", 2)
    source = open_data(tmp_path)
    assert (source.layout, len(source), source.labels) == ("webdataset", 5, ("a", "b"))
    item = pickle.loads(pickle.dumps(source)).read(4)
    assert (item.key, item.text, item.label, item.fields["keywords"]) == ("s-001/001", "thing 1", "b", ["k"])
    assert item.image.getpixel((16, 16)) == (1, 0, 0, 255)
    assert source.read(0).text == "thing 0"
    assert len(open_data(tmp_path / "s-{000..001}.tar")) == 5
    assert source.record(0)["key"] == "s-000/000"


def test_groups_end_at_the_first_dot(tmp_path):
    members = {
        "in.dir/a.png": encoded(),
        "in.dir/a.txt": " a cat\n",
        "in.dir/a.seg.png": b"mask",
        "b.cls": "7",
        "b.jpg": encoded(disc().convert("RGB"), "JPEG"),
    }
    members |= {"alone.txt": "nothing to see", "._a.png": b"resource fork"}
    source = open_data(tar(tmp_path / "x.tar", members))
    assert {key: (said["text"], said["label"]) for key, said in records(source).items()} == {
        "in.dir/a": ("a cat", None),
        "b": ("", "7"),
    }
    assert source.notes == ["x.tar: groups left out because they have no picture: 1"]
    assert source.read(0).image.size == (32, 32)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_tar_format(tmp_path, format):
    name = "/".join(["d" * 60, "e" * 60, "n" * 40]) if format == tarfile.USTAR_FORMAT else "é/" + "n" * 200
    source = open_data(tar(tmp_path / "x.tar", {f"{name}.png": encoded(), f"{name}.txt": "far", "z.png": encoded()}, format))
    assert {key: said["text"] for key, said in records(source).items()} == {name: "far", "z": ""}


def test_a_tar_cut_short_loses_only_its_end(tmp_path):
    path = shard(tmp_path / "x.tar")
    with tarfile.open(path) as opened:
        last = opened.getmember("002.png")
    path.write_bytes(path.read_bytes()[: last.offset_data + 20])
    source = open_data(path)
    assert source.read(1).text == "thing 1"
    with pytest.raises(Unreadable, match=r"002: x\.tar ends in the middle of it"):
        source.read(2)
    assert source.notes == ["x.tar is cut short: its last member is not whole"]
    path.write_bytes(path.read_bytes()[: last.offset])  # between two members
    assert open_data(path).notes == ["x.tar is cut short: its closing block is missing, and pictures may be"]


def test_rgb_on_white_becomes_straight(tmp_path):
    straight = np.zeros((1, 3, 4), np.uint8)
    straight[0] = [(200, 100, 0, 255), (200, 100, 0, 128), (9, 9, 9, 0)]
    alpha = straight[..., 3:] / 255
    stored = straight.copy()
    stored[..., :3] = np.round(straight[..., :3] * alpha + 255 * (1 - alpha))
    save(tmp_path / "a.png", Image.fromarray(stored))
    found = np.asarray(open_data(tmp_path, on_white=True).read(0).image).astype(int)
    assert np.abs(found[0, :2] - straight[0, :2]).max() <= 1
    assert found[0, 2].tolist() == [255, 255, 255, 0]


# --- what is wrong --------------------------------------------------------------------------------


def bomb(side=9000):
    """A PNG of a few hundred bytes that claims side x side pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello", "bad.png: not a picture"),
        (b"", "bad.png: not a picture"),
        (encoded()[:60], "bad.png: "),
        (bomb(), "bad.png: 9000 x 9000 pixels, at most 64 million are read"),
        (bomb(30000), "bad.png: "),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unreadable_pictures_are_named(tmp_path, content, reason):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(Unreadable, match=reason) as caught:
        open_data(tmp_path).read(0)
    assert "\n" not in str(caught.value)


def test_a_missing_file_of_a_table_is_unreadable(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "a cat"}\n')
    with pytest.raises(Unreadable, match=r"gone\.png: there is no such file"):
        open_data(tmp_path).read(0)


@pytest.mark.parametrize(
    ("files", "opened", "told"),
    [
        ({}, "nowhere", "does not exist: pass a folder of pictures"),
        ({}, ".", "no pictures in"),
        ({"a.txt": "x"}, ".", "no pictures in"),
        ({"a.zip": "PK"}, "a.zip", "unpack it first"),
        ({"a.png": "x"}, "a.png", "is a .png file, not a folder of pictures"),
        ({"a.tar": "x" * 2000}, ".", "is no tar"),
        ({"a.tar": ""}, ".", "is empty"),
        ({"a.tar": "\0" * 10240}, ".", "no pictures in a.tar"),
        ({"metadata.jsonl": '{"text": "a"}'}, ".", "record 1 has no file_name \\(it has: text\\)"),
        ({"metadata.jsonl": '{"file_name": "a.png"}\n{'}, ".", "line 2 is not JSON"),
        ({"metadata.jsonl": '{"file_name": "../a.png"}'}, ".", "leaves the data folder"),
        ({"metadata.csv": "file_name,text\n"}, ".", "has no records"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, files, opened, told):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=told) as caught:
        open_data(tmp_path / opened)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_table_that_is_not_utf8_is_told_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes("file_name,text\na.png,café\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        open_data(tmp_path)


def test_whatever_pillow_raises_costs_one_picture(tmp_path, monkeypatch):
    save(tmp_path / "a.png")

    def broken(image):
        raise struct.error("required argument is not an integer")  # seen with a damaged EXIF block

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
    with pytest.raises(Unreadable, match="a.png: required argument"):
        open_data(tmp_path).read(0)


def test_upright_and_sixteen_bits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(np.full((4, 4), 0x8080, np.uint16)).save(tmp_path / "b.png")
    source = open_data(tmp_path)
    assert source.read(0).image.size == (6, 8)
    assert source.read(1).image.getpixel((0, 0)) == (128, 128, 128, 255)


def test_description(tmp_path):
    for i, side in enumerate((8, 16, 32)):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", Image.new("RGB", (side, side)))
    (tmp_path / "a" / "0.txt").write_text("a cat")
    (tmp_path / "b" / "9.png").write_bytes(b"broken")
    found = describe(open_data(tmp_path))
    assert (found.n, found.smallest, found.median, found.largest) == (4, (8, 8), (16, 16), (32, 32))
    assert (found.captions, found.missing, dict(found.labels)) == (4, 0, {"a": 2, "b": 2})
    assert found.lines() == [
        "4 pictures (classes + sidecars)",
        "size 8 x 8 / 16 x 16 / 32 x 32 (smallest / median / largest of 4 looked at)",
        "captions: 4 present, 0 missing",
        "2 labels: a 2, b 2",
        "for example a/0.png: a cat",
        "for example b/1.png: b",
        "for example b/9.png: b",
        "cannot be read: b/9.png: not a picture",
    ]


def test_gif_and_palette_keep_their_clear_pixels(tmp_path):
    stream = io.BytesIO()
    disc().convert("RGBA").quantize(8).save(stream, "PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    assert open_data(tmp_path).read(0).image.getpixel((0, 0))[3] == 0
