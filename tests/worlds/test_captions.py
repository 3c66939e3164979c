from itertools import pairwise

import pytest

from diorama.errors import UserError
from diorama.worlds.captions import FORMS, SYNONYMS, Description, Said, caption, parse
from diorama.worlds.scene import ALL_STYLES, ALL_TEXTURES, COLOURS, SIZES, TONES, scene
from diorama.worlds.shapes import SHAPES

MANY = [scene(5, i) for i in range(400)]


@pytest.mark.parametrize("form", [None, *FORMS])
def test_what_a_caption_says_is_read_back_as_true(form):
    for made in MANY:
        words = caption(made, 1, form)
        assert parse(words).true_of(made), words


def test_captions_can_be_false_of_other_scenes():
    true = [parse(caption(a, form="long")).true_of(b) for a, b in pairwise(MANY)]
    assert sum(true) == 0


def test_a_long_caption_names_every_thing_completely():
    for made in MANY[:100]:
        if made.named:
            said = parse(caption(made, form="long"))
            whole = [s for s in said.things if s.size]
            assert sum(s.count or 1 for s in whole[: len(made.named)]) >= len(set(made.named))
            assert (said.style, said.tone) == (made.style, made.tone)


def test_a_caption_is_a_function_of_scene_and_seed():
    assert caption(MANY[3], 2) == caption(MANY[3], 2)
    assert len({caption(MANY[3], seed) for seed in range(20)}) > 8


def test_every_attribute_can_be_said():
    known = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "texture": ALL_TEXTURES, "style": ALL_STYLES, "tone": TONES}
    for kind, names in known.items():
        assert set(SYNONYMS[kind]) == set(names)


def test_what_is_read():
    read = parse("A sketch of two tiny stripy violet moons behind a disc but no red things on a gray backdrop.")
    assert read == Description(
        things=(Said("crescent", "purple", "small", "striped", 2), Said("circle")),
        relations=((0, "behind", 1),),
        absent=(Said(None, "red"),),
        style="sketch",
        tone="grey",
    )
    assert parse("THREE OBJECTS").things == (Said(count=3),)


@pytest.mark.parametrize(
    "words", ["", "a blorp", "a red", "a red star left of", "no", "left of a star", "photo", "a red star; DROP TABLE", "\x00"]
)
def test_what_cannot_be_read_is_told_in_one_line(words):
    with pytest.raises(UserError) as told:
        parse(words)
    assert "\n" not in str(told.value)


def test_an_unknown_form_is_told():
    with pytest.raises(UserError, match="short, long"):
        caption(MANY[0], form="haiku")
