from collections import Counter
from itertools import combinations

import pytest
import torch

from diorama.errors import UserError
from diorama.scenes.cameras import orbit
from diorama.worlds.captions import FORMS, SYNONYMS, caption, parse
from diorama.worlds.clips import ClipRules, clip
from diorama.worlds.film import frames
from diorama.worlds.oracle import Oracle
from diorama.worlds.patches import hues
from diorama.worlds.render import as_poses, corner, paint, pictures, window
from diorama.worlds.scene import (
    ALL_STYLES,
    ALL_TEXTURES,
    COLOURS,
    RARE_STYLES,
    RARE_TEXTURES,
    STYLES,
    TEXTURES,
    Rules,
    Thing,
    scene,
)
from diorama.worlds.views import shoot

RARE = Rules(textures=RARE_TEXTURES, styles=RARE_STYLES, subjects=0.0)


def test_the_rare_come_where_they_are_named_and_nowhere_else():
    common, rare = ([scene(5, i, rules) for i in range(150)] for rules in (Rules(), RARE))
    for scenes, textures, styles in ((common, TEXTURES, STYLES), (rare, RARE_TEXTURES, RARE_STYLES)):
        assert {thing.texture for made in scenes for thing in made.things} == set(textures)
        assert {made.style for made in scenes} == set(styles)


def _disc(texture, style, colour="blue", size=64):
    """Colours (p, 3) of the pixels that a large disc covers entirely."""
    thing = Thing(shape="circle", colour=colour, size="large", texture=texture, x=0.5, y=0.5, radius=0.205, angle=0.0, depth=0.5)
    poses, wide = as_poses([(thing, style)], size), window(size)
    rgb, cover = paint(poses, *corner(poses, wide), wide, size)
    return rgb[0][:, cover[0] == 1].T


@pytest.mark.parametrize("style", ALL_STYLES)
def test_no_texture_or_style_changes_a_hue_or_takes_more_than_four_fifths_of_the_chroma(style):
    for texture in ALL_TEXTURES:
        for name, colour in COLOURS.items():
            hue, chroma = hues(_disc(texture, style, name))
            true_hue, true_chroma = hues(torch.tensor(colour))
            assert float(((hue - true_hue + 0.5) % 1 - 0.5).abs().max()) < 1e-4
            assert float(chroma.min()) > 0.2 * float(true_chroma)


def test_looks_differ_clearly_at_the_smallest_size():
    """Root mean square between any two, of pixels in 0 .. 1. The other two styles have outlines of their own."""
    textures = [_disc(texture, "flat", size=32) for texture in ALL_TEXTURES]
    styles = [_disc("plain", style, size=32) for style in ("flat", "outlined", "shaded", *RARE_STYLES)]
    for looks, least in ((textures, 0.15), (styles, 0.08)):
        assert all(float((one - other).square().mean().sqrt()) > least for one, other in combinations(looks, 2))


@pytest.mark.parametrize("form", [None, *FORMS])
def test_captions_name_the_rare_and_are_read_back(form):
    for made in (scene(5, i, RARE) for i in range(150)):
        words = caption(made, 1, form)
        assert parse(words).true_of(made), words
        if form == "long":
            assert parse(words).style == made.style


def test_no_word_means_two_things():
    words = Counter(word for kind in SYNONYMS for meant in SYNONYMS[kind].values() for word in meant)
    assert set(words.values()) == {1}


def test_an_oracle_that_is_asked_to_reads_the_rare():
    oracle = Oracle(textures=ALL_TEXTURES, styles=ALL_STYLES)
    scenes = [scene(21, i, Rules(textures=RARE_TEXTURES, styles=("flat", *RARE_STYLES), subjects=0.0)) for i in range(10)]
    readings = oracle.read(pictures(scenes, 32))
    drawn, read = (Counter((t.texture, t.colour) for made in all_ for t in made.named) for all_ in (scenes, readings))
    assert (drawn & read).total() >= 0.8 * drawn.total()
    assert sum(made.style == reading.style for made, reading in zip(scenes, readings, strict=True)) >= 8


def test_an_oracle_tries_only_what_it_is_given():
    image = pictures([scene(21, i, RARE) for i in range(3)], 32)
    assert all(found.texture in TEXTURES for reading in Oracle().read(image) for found in reading.named)
    only = Oracle(textures=("spiral",), styles=("neon",))
    made = scene(21, 0, Rules(textures=("spiral",), styles=("neon",), most=1, sizes=("large",), subjects=0.0))
    (reading,) = only.read(pictures([made], 32))
    assert (reading.style, [found.texture for found in reading.named]) == ("neon", ["spiral"])
    with pytest.raises(UserError, match="'tartan' is none of the textures"):
        Oracle(textures=("tartan",))
    with pytest.raises(UserError, match="no styles"):
        Oracle(styles=())


def test_rare_textures_are_on_solids_and_rare_styles_are_not():
    def solid(texture, style):
        rules = Rules(textures=(texture,), styles=(style,), shapes=("square",), most=1, subjects=0.0)
        return shoot([scene(1, 2, rules)], orbit(1, size=32)).image

    looks = [solid(texture, "flat") for texture in ("plain", *RARE_TEXTURES)]
    assert all(bool((a - b).abs().max() > 0.2) for a, b in combinations(looks, 2))
    assert torch.equal(solid("wavy", "neon"), solid("wavy", "flat"))


def test_what_has_a_rare_texture_moves_and_sounds_like_plain_things():
    made = clip(2, 1, ClipRules(frames=4, world=Rules(textures=RARE_TEXTURES, styles=RARE_STYLES, most=3)))
    assert {motion.material for shot in made.shots for motion in shot.motions} == {"rubber"}
    assert frames(made, 32).shape == (4, 4, 32, 32)
