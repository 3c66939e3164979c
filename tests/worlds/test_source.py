import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diorama.apps.cli import main
from diorama.data.batches import Batches
from diorama.errors import UserError
from diorama.pictures import to_pil
from diorama.types import NO_LABEL
from diorama.worlds.captions import parse
from diorama.worlds.scene import ANY, Rules
from diorama.worlds.source import World, WorldBatches, unseen


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


@pytest.mark.parametrize("wrong", [{"n": 0}, {"size": 500}, {"form": "haiku"}, {"label": "taste"}])
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


def test_a_batch_is_what_its_items_are():
    world = World(3, 40, 32, label="kind", rules=Rules(most=1, subjects=0.0))
    batch, items = world.batch(36, 6), [world.read(i % 40) for i in range(36, 42)]  # it goes round
    assert list(batch.text) == [item.text for item in items]
    assert [world.labels[k] for k in batch.label] == [item.label for item in items]
    for picture, item in zip(to_pil(batch.image, transparent=True), items, strict=True):
        assert np.array_equal(np.asarray(picture), np.asarray(item.image))


def test_batches_are_a_function_of_the_step_and_shared_out_among_processes():
    world = World(3, 2**40, 32)
    alone, shared = WorldBatches(world, 4), WorldBatches(world, 2)
    both = [shared(5, rank, 2) for rank in (0, 1)]
    assert torch.equal(alone(5).image, torch.cat([b.image for b in both]))
    assert list(alone(5).text) == [text for b in both for text in b.text]


def test_only_one_thing_has_a_label_of_its_own():
    world = World(3, 100, 32, label="shape")
    labels = world.batch(0, 100).label
    alone = torch.tensor([len(world.scene(i).things) == 1 and len(world.scene(i).named) == 1 for i in range(100)])
    assert torch.equal(labels != NO_LABEL, alone)


@pytest.mark.parametrize("share", [0.0, 1 / 12, 0.5])
def test_what_is_held_out_leaves_every_colour_and_shape_known(share):
    held, rules = unseen(ANY, share), ANY
    rest = replace(rules, held_out=held).pairs
    assert len(held) == round(share * 64)
    assert {c for c, _ in rest} == set(rules.colours)
    assert {s for _, s in rest} == set(rules.shapes)
    assert held == unseen(ANY, share)  # and the same tomorrow


def test_too_much_held_out_is_told():
    with pytest.raises(UserError, match="hold-out of 0.9"):
        unseen(ANY, 0.9)


def test_the_verb_writes_views_with_their_cameras_depth_and_points(tmp_path, capsys):
    ask = "views,depth,normals,cameras,points,edges,parts"
    assert main(["world", "--seed", "3", "--n", "2", "--size", "32", "--views", "3", "--ask", ask, "-o", f"{tmp_path}/"]) == 0
    said = json.loads((tmp_path / "1-transforms.json").read_text())
    assert (said["w"], said["h"], len(said["frames"])) == (32, 32, 3)
    for v, frame in enumerate(said["frames"]):
        assert frame["file_path"] == f"1-view{v}.png"
        assert Image.open(tmp_path / frame["file_path"]).mode == "RGBA"
        depth = np.asarray(Image.open(tmp_path / f"1-view{v}-depth.png"))
        assert depth.max() > 1000  # millimetres
        assert Image.open(tmp_path / f"1-view{v}-normals.png").size == (32, 32)
    points = np.load(tmp_path / "1-points.npy")
    assert points.dtype.names == ("x", "y", "z", "reflectivity", "thing")
    assert set(points["thing"]) >= {-1, 0}
    assert {"1-edges.png", "1-part.png", "1-group.png", "sheet.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--views", "0"], "views 0"), (["--views", "99"], "views 99"), (["--elevation", "-5"], "below the ground")],
)
def test_impossible_views_are_told_in_one_line(flags, words, tmp_path, capsys):
    assert main(["world", "-o", str(tmp_path / "new"), "--n", "4", "--ask", "views", *flags]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "new").exists()
