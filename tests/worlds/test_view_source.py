"""Single solids from all sides, and their oracle, held to what is truly there."""

import pytest
import torch

from diorama.errors import UserError
from diorama.scenes.cameras import pixel_centres, view_words
from diorama.worlds.scene import TONES, Rules
from diorama.worlds.view_oracle import gaze, likeness
from diorama.worlds.view_source import ViewWorld, call

SHAPES = ("circle", "square", "triangle", "star")
RULES = Rules(shapes=SHAPES, sizes=("large",), textures=("plain",), materials=("matte",), tones=("white", "grey", "cream"))


@pytest.fixture(scope="module")
def world():
    return ViewWorld(4, 1000, 32, RULES)


@pytest.fixture(scope="module")
def seen(world):
    batch = world.batch(0, 96)
    return batch, gaze(batch.image, SHAPES), [world.record(i) for i in range(96)]


def test_an_item_is_the_same_alone_and_among_others(world):
    some = world.batch(5, 3)
    other = ViewWorld(4, 1000, 32, RULES).batch(7, 1)
    assert torch.equal(some.image[2], other.image[0])
    assert some.text[2] == other.text[0] == world.record(7)["text"]


def test_it_starts_again_after_the_last(world):
    around = ViewWorld(4, 40, 32, RULES).batch(38, 4)
    assert around.text == [world.record(i)["text"] for i in (38, 39, 0, 1)]


def test_a_shot_comes_again_on_another_ground_and_in_other_words(world, monkeypatch):
    monkeypatch.setattr(ViewWorld, "SHOTS", 32)
    again = ViewWorld(4, 10**6, 32, RULES)
    pictures = again.batch(3, 1).image, torch.cat([again.batch(3 + 32 * k, 1).image for k in range(1, 9)])
    corner = {tuple(round(v, 2) for v in ((p[:3, 0, 0] + 1) / 2).tolist()) for p in pictures[1]}
    assert corner == {TONES[tone] for tone in RULES.tones}
    assert len({again.record(3 + 32 * k)["text"] for k in range(8)}) > 1
    assert len({(again.record(3 + 32 * k)["azimuth"]) for k in range(8)}) == 1


def test_words_say_what_is_there_and_from_where(world, seen):
    _, _, records = seen
    for i, record in enumerate(records):
        thing, words = world.scene(i).things[0], record["text"]
        assert call(thing.shape, thing.colour, face=False) in words
        if "view" in words:
            assert words.startswith(f"{view_words(record['azimuth'], record['elevation'])} of a")
    assert 0.1 < sum("view" not in record["text"] for record in records) / len(records) < 0.4


def test_pictures_have_no_holes(seen):
    assert bool((seen[0].image[:, 3] == 1).all())


def test_the_oracle_names_what_is_seen(world, seen):
    _, found, records = seen
    things = [world.scene(i).things[0] for i in range(len(records))]
    right = [kind == (t.colour, t.shape) for kind, t in zip(found.kinds, things, strict=True)]
    low = [r["elevation"] < 60 for r in records]  # from above a cone is a ball
    assert all(ok for ok, side in zip(right, low, strict=True) if side)
    assert all(kind[0] == t.colour for kind, t in zip(found.kinds, things, strict=True))


def test_the_oracle_finds_a_face_from_the_front_and_none_from_behind(seen):
    _, found, records = seen
    off = torch.tensor([abs((r["azimuth"] + 180) % 360 - 180) for r in records])
    low = torch.tensor([r["elevation"] < 40 for r in records])
    assert bool(found.face[low & (off < 40)].all())
    assert not bool(found.face[off > 90].any())


def test_an_empty_picture_shows_nothing():
    found = gaze(torch.full((1, 4, 32, 32), 0.9), SHAPES)
    assert found.kinds == [None]
    assert not bool(found.face)


def test_an_outline_is_known_wherever_and_however_large():
    disc = (pixel_centres(64, 64) - torch.tensor([41.0, 20.0])).norm(dim=1).reshape(64, 64)
    alike = likeness(torch.stack([disc < 9, disc < 18]).float(), SHAPES)
    assert float((alike[0] - alike[1]).abs().max()) < 0.05
    assert bool((alike[:, 0] > 0.9).all())
    assert bool((alike[:, 0:1] > alike[:, [1, 3]]).all())


@pytest.mark.parametrize(("n", "size", "words"), [(0, 32, "1 or more"), (5, 8, "32 to")])
def test_impossible_worlds(n, size, words):
    with pytest.raises(UserError, match=words):
        ViewWorld(0, n, size)
