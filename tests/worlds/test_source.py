import json

import numpy as np
import pytest
from PIL import Image

from diorama.apps.cli import main
from diorama.data.batches import Batches
from diorama.errors import UserError
from diorama.worlds.captions import parse
from diorama.worlds.source import World


def test_the_world_is_a_source_that_training_can_read():
    world = World(3, 40, 32)
    batch = Batches(world, 32, 8, seed=0)(0)
    assert batch.image.shape == (8, 4, 32, 32)
    assert len(batch.text) == 8
    assert set(batch.label.tolist()) <= set(range(len(world.labels)))
    assert world.labels == ("flat", "outlined", "pixel", "shaded", "sketch")


def test_an_item_is_the_same_in_any_order_and_any_length():
    a, b = World(3, 40, 32).read(37), World(3, 1000, 32).read(37)
    assert (a.key, a.text, a.label) == (b.key, b.text, b.label)
    assert np.array_equal(np.asarray(a.image), np.asarray(b.image))
    assert World(3, 40, 32).record(37)["text"] == a.text
    with pytest.raises(IndexError):
        World(3, 40, 32).read(40)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"size": 500}, {"form": "haiku"}])
def test_an_impossible_world_is_told(wrong):
    with pytest.raises(UserError):
        World(**{"seed": 0, "n": 4, **wrong})


def test_the_verb_writes_pictures_masks_and_lines(tmp_path, capsys):
    assert (
        main(
            [
                "world",
                "--seed",
                "3",
                "--n",
                "3",
                "--size",
                "32",
                "--ask",
                "picture,mask,boxes,caption,scene",
                "-o",
                f"{tmp_path}/",
            ]
        )
        == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "world.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == ["0.png", "1.png", "2.png"]
    for line in lines:
        parse(line["text"])
        assert Image.open(tmp_path / line["file_name"]).mode == "RGBA"
        mask = np.asarray(Image.open(tmp_path / f"{line['index']}-mask.png"))
        assert set(np.unique(mask)) == set(range(len(line["boxes"]) + 1))
        for k, box in enumerate(line["boxes"]):
            left, top, right, bottom = box["box"]
            rows, columns = (mask == k + 1).nonzero()
            assert left - 1 <= columns.min() and columns.max() <= right and top - 1 <= rows.min() and rows.max() <= bottom
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ask", "smell"], "cannot be asked"),
        (["--ask", ","], "nothing is asked"),
        (["--size", "8"], "32 to 128"),
        (["--n", "0"], "n 0 is not allowed"),
        (["--form", "haiku"], "haiku"),
        (["--first", "-1"], "count from 0"),
    ],
)
def test_impossible_requests_are_told_in_one_line(flags, words, tmp_path, capsys):
    assert main(["world", "-o", str(tmp_path / "new"), *flags]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "new").exists()
