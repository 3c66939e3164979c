"""What the claims of GLIDE and DALL-E 2 measure, on pictures and curves whose answer is known."""

import math
from types import SimpleNamespace

import pytest
import torch

from diorama.claims import glide, unclip
from diorama.claims.glide import Drawn, distance_at, holes, seams, shown, truth
from diorama.claims.unclip import entropy, entropy_at, spread
from diorama.foundations import folder_of


@pytest.fixture(scope="module")
def things():
    return holes(3, 4)


def test_a_hole_hides_its_thing_and_no_other(things):
    side = things[0].mask.shape[-1]
    for hole in things:
        for thing in hole.scene.named:
            inside = hole.mask[0, int(thing.y * side), int(thing.x * side)] > 0
            assert inside == (thing is hole.hidden)
        assert hole.words.count(" and ") == 1


def test_the_truth_is_read_in_its_holes_and_has_no_seam(things):
    pictures = truth(things)
    assert shown(things, pictures) == 1.0
    assert seams(things, pictures) == 0.0
    masks = torch.stack([hole.mask for hole in things])
    grey = pictures * (1 - masks)
    assert shown(things, grey) == 0.0
    lighter = pictures + 0.25 * masks  # a step of a quarter all around
    assert seams(things, lighter) == pytest.approx(0.25, rel=1e-4)


def test_distances_are_compared_where_both_keep_as_much():
    arm = [Drawn(0.2, 1.0, 0), Drawn(0.6, 0.5, 0), Drawn(0.4, 0.9, 0)]
    assert distance_at(0.3, arm) == pytest.approx(0.875)
    assert distance_at(0.5, arm) == pytest.approx(0.625)  # of the two ways through, the better
    assert distance_at(0.6, arm) == 0.5
    assert distance_at(0.1, arm) == 1.0  # it always keeps more: where it begins


def test_entropy_of_what_is_open():
    def seen(tone, x):
        return SimpleNamespace(tone=tone, named=[SimpleNamespace(x=x, y=0.2)])

    half = [seen("white", 0.2), seen("black", 0.2)] * 50
    assert entropy(half) == pytest.approx(1.0 + 1 / (200 * math.log(2)))  # a bit, and a half of one over n of a second outcome
    assert entropy(half[::2]) == 0.0
    assert entropy([]) == 0.0


def test_entropy_is_read_between_the_scales():
    curve = [(0.4, 3.0), (0.6, 2.0), (0.8, 0.0)]
    assert entropy_at(0.5, curve) == pytest.approx(2.5)
    assert entropy_at(0.8, curve) == 0.0
    assert entropy_at(0.1, curve) == 3.0


def test_spread_is_of_both_axes():
    places = [SimpleNamespace(x=x, y=y) for x in (0.0, 1.0) for y in (0.0, 1.0)]
    assert spread(places) == pytest.approx(math.sqrt(2 / 3))


@pytest.mark.parametrize("claim", [glide.CLAIM, unclip.CLAIM], ids=lambda claim: claim.slug)
def test_without_its_models_it_says_what_it_needs(claim, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if folder_of(claim.assets[0]) is not None:
        pytest.skip("the models are shipped")
    effects = claim.run(0)
    assert set(effects) == {part.letter for part in claim.parts}
    assert all(effect.value is None and claim.assets[0] in effect.note for effect in effects.values())
