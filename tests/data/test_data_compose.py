import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_makers import Listed, cutouts, disc, grey, same
from PIL import Image

from diorama.data import Composed, Item, Repeated, describe, hold_out, open_data
from diorama.data import compose as made
from diorama.data.colours import COLOURS, GROUNDS, dominant, recolour
from diorama.data.phrases import described, noun_phrase, plural

EMOJI = Path(os.environ.get("DIORAMA_DATA") or Path(__file__).parents[3] / "shared" / "data") / "emoji"


def box(image):
    return image.getchannel("A").getbbox()


def of_way(source, way, seed=0, n=400):
    composed = Composed(source, n, seed)
    return [item for item in map(composed.read, range(n)) if item.fields["way"] == way]


def test_an_item_depends_on_seed_and_number_alone():
    items = [Composed(cutouts(), 100, 3).read(i) for i in range(40)]
    longer = Composed(cutouts(), 1000, 3)
    assert all(same(longer.read(i), items[i]) for i in reversed(range(40)))
    assert not all(same(Composed(cutouts(), 100, 4).read(i), items[i]) for i in range(40))


def test_records_say_what_read_says():
    composed = Composed(cutouts(), 200, 0)
    for i in range(200):
        item = composed.read(i)
        assert composed.record(i) == {**item.fields, "key": item.key, "text": item.text, "label": item.label}
        assert item.label in composed.labels
        assert item.key == f"{item.fields['base_key']}#{i}"


def test_every_way_is_taken_about_as_often_as_promised():
    composed = Composed(cutouts(), 3000, 0)
    counts = Counter(composed._draw(i)[2] for i in range(3000))
    assert {way: abs(counts[way] / 3000 - share) < 0.025 for way, share in made.WAYS.items()} == dict.fromkeys(made.WAYS, True)


@pytest.mark.parametrize("name", [n for n in COLOURS if n != "black"])
def test_a_recoloured_disc_has_the_named_colour(name):
    image = recolour(disc((220, 40, 30)), dominant(disc((220, 40, 30))), COLOURS[name])
    assert np.abs(np.array(image.getpixel((16, 16))[:3]) - np.array(COLOURS[name].rgb())).max() <= 10
    assert image.getchannel("A").tobytes() == disc().getchannel("A").tobytes()


def test_recolouring_leaves_other_colours_and_greys():
    image = disc((220, 30, 30))
    image.paste((30, 200, 60, 255), (10, 10, 14, 14))
    image.paste((240, 240, 240, 255), (16, 10, 20, 14))
    changed = recolour(image, dominant(image), COLOURS["blue"])
    assert changed.getpixel((12, 12)) == (30, 200, 60, 255)
    assert changed.getpixel((18, 12)) == (240, 240, 240, 255)
    assert changed.getpixel((16, 20))[2] > 200


def test_grey_objects_have_no_colour_to_change():
    assert dominant(disc((120, 120, 120))) is None
    assert made.recoloured(Item("a", disc((120, 120, 120)), "stone"), random.Random(0)) is None


@pytest.mark.parametrize(
    ("text", "fields", "allowed"),
    [
        ("apple", {}, True),
        ("red apple", {}, False),
        ("shrewd fox", {}, True),  # "red" inside a word is no colour
        ("grinning face", {"category": "Smileys & Emotion"}, True),
        ("waving hand", {"category": "People & Body"}, False),
        ("waving hand", {"category": ""}, False),
        ("mage", {"category": "", "skin_tone": ["dark"]}, False),
        ("triangular", {"category": "Flags"}, False),
    ],
)
def test_what_may_be_recoloured(text, fields, allowed):
    assert made.may_be_recoloured({"text": text, **fields}) is allowed


def test_two_side_by_side_are_said_from_left_to_right():
    left, right = Item("a", disc((220, 30, 30)), "apple"), Item("b", disc((30, 30, 220)), "cat")
    item = made.pair(left, right, random.Random(0))
    assert item.text in ("an apple and a cat", "an apple next to a cat")
    assert item.fields["other_key"] == "b"
    pixels = np.asarray(item.image)
    x_red = np.nonzero((pixels[..., 0] > 150) & (pixels[..., 3] > 200))[1]
    x_blue = np.nonzero((pixels[..., 2] > 150) & (pixels[..., 3] > 200))[1]
    assert x_red.max() < x_blue.min()
    assert made.pair(left, left, random.Random(0)) is None


def test_pairs_are_of_one_style():
    keys = {f"c{i}": i % 2 for i in range(24)}
    pairs = of_way(cutouts(), "pair")
    assert pairs
    assert all(keys[item.fields["base_key"]] == keys[item.fields["other_key"]] for item in pairs)


@pytest.mark.parametrize("seed", range(12))
def test_a_placed_object_is_whole_and_where_it_is_said_to_be(seed):
    item = made.placed(Item("a", disc(side=64, box=(2, 12, 61, 50)), "cat"), random.Random(seed))
    left, top, right, bottom = box(item.image)
    if "large" in item.text or "big" in item.text:
        assert (left, right) == (0, 64)
        return
    assert right - left < 0.5 * 64
    x, y = (left + right) / 128, (top + bottom) / 128
    for word, there in (("left", x < 0.4), ("right", x > 0.6), ("top", y < 0.4), ("bottom", y > 0.6)):
        assert (word in item.text) == there, item.text


def test_several_are_as_many_as_said():
    for seed in range(6):
        item = made.several(Item("a", disc(side=64, box=(4, 4, 59, 59)), "apple"), random.Random(seed))
        solid = (np.asarray(item.image)[..., 3] > 128).sum()
        one = (
            np.asarray(
                made.scaled(
                    made.cut(disc(side=64, box=(4, 4, 59, 59))), *[{"two": 0.48, "three": 0.46}[item.text.split()[0]] * 64] * 2
                )
            )[..., 3]
            > 128
        ).sum()
        assert round(solid / one) == {"two apples": 2, "three apples": 3}[item.text]


def test_the_ground_is_opaque_and_has_the_named_colour():
    for item in of_way(cutouts(), "ground"):
        assert item.image.getextrema()[3] == (255, 255)
        name = next(n for n in sorted(GROUNDS, key=len, reverse=True) if f" {n}" in item.text)
        assert np.abs(np.array(item.image.getpixel((0, 0))[:3]) - np.array(GROUNDS[name].rgb())).max() <= 11


def test_opaque_pictures_and_pictures_without_words_stay_as_they_are():
    silent = Listed([Item("a", disc(), "")])
    assert all(Composed(silent, 30, 0).read(i).text == "" for i in range(30))
    photos = Listed([Item("a", grey(7).image, "a small dog")])
    for item in map(Composed(photos, 60, 0).read, range(60)):
        assert item.fields["way"] in ("plain", "keyword")
        assert item.image.tobytes() == photos.items[0].image.tobytes()


@pytest.mark.parametrize(
    ("caption", "one", "purple", "two"),
    [
        ("apple", "an apple", "a purple apple", "apples"),
        ("unicorn", "a unicorn", "a purple unicorn", "unicorns"),
        ("umbrella", "an umbrella", "a purple umbrella", "umbrellas"),
        ("a cat", "a cat", "a purple cat", "cats"),
        ("an old car", "an old car", "a purple old car", "old cars"),
        ("sunglasses", "sunglasses", "purple sunglasses", None),
        ("bowl with spoon", "a bowl with spoon", "a purple bowl with spoon", "bowls with spoon"),
        ("face with hand over mouth", "a face with hand over mouth", "a purple face with hand over mouth", None),
        ("keycap: 3", "keycap: 3", "purple keycap: 3", None),
        ("flag of Monaco", "a flag of Monaco", "a purple flag of Monaco", None),
        ("NEW button", "a NEW button", "a purple NEW button", "NEW buttons"),
        ("man biking, dark skin tone", "a man biking with dark skin tone", "a purple man biking with dark skin tone", None),
        ("fish", "a fish", "a purple fish", "fish"),
        ("wolf", "a wolf", "a purple wolf", "wolves"),
        ("cherry", "a cherry", "a purple cherry", "cherries"),
        ("glass", "a glass", "a purple glass", "glasses"),
    ],
)
def test_small_english(caption, one, purple, two):
    assert (noun_phrase(caption), described(caption, "purple"), plural(caption)) == (one, purple, two)


# --- the emoji ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emoji():
    if not EMOJI.is_dir():
        pytest.skip("the emoji data set is not here: set DIORAMA_DATA to the folder that holds emoji/")
    return open_data(EMOJI, on_white=True)


@pytest.mark.data
def test_emoji_open(emoji):
    found = describe(emoji)
    assert (found.n, found.missing, found.median) == (9936, 0, (128, 128))
    assert found.labels == {"noto": 3263, "fluent-3d": 2700, "blob": 2522, "fluent-flat": 1216, "noto-flag": 235}


@pytest.mark.data
def test_emoji_hold_out(emoji):
    train, test = hold_out(emoji, 0.1, seed=0)
    known = {train.record(i)["concept"] for i in range(len(train))}
    assert {test.record(i)["concept"] for i in range(len(test))} <= known
    assert 0.05 < len(test) / len(emoji) < 0.15


@pytest.mark.data
def test_emoji_compose(emoji):
    plain = Repeated(emoji, [1 + bool(emoji.record(i)["base"]) for i in range(len(emoji))])
    composed = Composed(plain, 10**6, 0)
    items = [composed.read(i) for i in range(300)]
    assert {item.image.size for item in items} == {(128, 128)}
    assert {item.fields["way"] for item in items} == set(made.WAYS)
    assert not any(Image.Image.getextrema(item.image)[3][1] < 200 for item in items)
