from dataclasses import replace

import pytest
import torch

from diorama.errors import UserError
from diorama.worlds.captions import Said
from diorama.worlds.clips import SPEEDS, WAYS, ClipRules, Motion, Shot, clip
from diorama.worlds.film import film
from diorama.worlds.motions import CAMERA_WORDS, FORMS, VERBS, describe, drift, parse_clip, story
from diorama.worlds.scene import Rules
from diorama.worlds.watching import Watcher, _camera, _followed, _windows, watch

MANY = [clip(4, i) for i in range(100)]


def test_every_sentence_reads_back_and_is_true():
    told = [(made, describe(made, seed, form)) for made in MANY for form in (None, *FORMS) for seed in (0, 1)]
    for made, words in told:
        assert parse_clip(words).true_of(story(made)), words
    assert {verb.split()[0] for made in MANY for _, verb in parse_clip(describe(made, form="long")).does} == {
        v.split()[0] for v in VERBS
    }


def test_a_long_sentence_leaves_out_nothing_that_happens():
    """Of a way with and without its speed it says the one that says more."""
    for made in MANY:
        told, held = parse_clip(describe(made, form="long")), story(made)
        for actor in held.named:
            less = {verb for verb in actor.does if any(set(verb.split()) < set(other.split()) for other in actor.does)}
            assert {verb for said, verb in told.does if said.fits(actor)} == actor.does - less
    assert any("moves slowly" in describe(made, form="long") for made in MANY)


def test_what_is_told_wrongly_is_false_of_its_clip_and_labelled():
    made = [clip(4, i, ClipRules(defects=("mistold",), defective=1.0)) for i in range(40)]
    assert {m.defect for m in made} == {"mistold"}
    for one, form in ((m, form) for m in made for form in FORMS):
        told, held = parse_clip(describe(one, form=form)), story(one)
        assert not any(told.what.claims(held)), describe(one, form=form)
        assert parse_clip(describe(replace(one, defect=None), form=form)).true_of(held)
    unseen = clip(4, 0, ClipRules(world=Rules(most=1, subjects=1.0), defects=("mistold",), defective=1.0))
    assert unseen.defect is None  # a subject alone: there is nothing to be told wrongly


def test_a_sentence_is_the_same_again_and_seldom_true_of_another_clip():
    words = [describe(made, form="long") for made in MANY]
    assert words == [describe(clip(4, i), form="long") for i in range(len(MANY))]
    true = sum(parse_clip(said).true_of(story(MANY[i - 1])) for i, said in enumerate(words))
    assert true <= 2


def test_a_claim_is_false_of_the_opposite():
    made = clip(2, 0, ClipRules(world=Rules(most=1, subjects=0), laws=("drift",), moving=0.0, changes=0.0))
    for way, (vx, vy) in {"to the left": (-0.3, 0), "to the right": (0.3, 0), "up": (0, -0.3), "down": (0, 0.3)}.items():
        told = story(replace(made, shots=(Shot(scene=made.shots[0].scene, motions=(Motion(vx=vx, vy=vy),)),)))
        held = [w for w in WAYS if parse_clip(f"a thing moves {w}").true_of(told)]
        assert held == [way]
        assert not parse_clip("a thing does not move").true_of(told)


def test_all_ways_and_speeds_have_words():
    for way, angle in WAYS.items():
        for word, speed in SPEEDS.items():
            v = torch.polar(torch.tensor(speed), torch.tensor(angle * torch.pi / 180))
            assert f"moves {way}" in drift(float(v.real), float(v.imag))
            assert (f"moves {word} {way}" in drift(float(v.real), float(v.imag))) == bool(word)


def test_what_is_written_is_claimed():
    told = parse_clip("A red circle bounces and turns into a square, and a blue star hits a ring, and the camera zooms in.")
    red = Said("circle", "red")
    assert set(told.does) == {(red, "bounces"), (red, "becomes square")}
    assert told.hits == ((Said("star", "blue"), Said("ring")),)
    assert told.camera == "in" and told.what.things == (red,)
    assert all(parse_clip(words).camera == kind for kind, words in CAMERA_WORDS.items())


@pytest.mark.parametrize("wrong", ["a red circle dances", "falls", "", "a star and a ring falls", "the camera sleeps"])
def test_what_cannot_be_read_is_told_in_one_line(wrong):
    with pytest.raises(UserError) as told:
        parse_clip(wrong)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="haiku"):
        describe(MANY[0], form="haiku")


# --- the oracle of motion -------------------------------------------------------------------------


def test_the_camera_is_read_from_the_ground():
    rules = ClipRules(cameras=tuple(kind for kind in CAMERA_WORDS if kind != "still"), moving=1.0)
    right = 0
    for i in range(8):
        made = clip(8, i, rules)
        rgb = (film(made, 64).image[:, :3] + 1) / 2
        windows = _windows(rgb.mean(1, keepdim=True), ~_followed(rgb)[2][:, None])
        assert float((windows - torch.tensor(made.windows())).abs().max()) < 0.02
        right += _camera(windows) == made.shots[0].camera.kind
    assert right == 8


def test_clips_keep_their_own_sentences_and_not_the_next_ones():
    """Over six clips; docs/world-clips.md has the numbers of more."""
    made = [clip(7, i, ClipRules(frames=8, world=Rules(most=2, subjects=0, styles=("flat",)))) for i in range(6)]
    clips = torch.stack([film(one, 32).image.transpose(0, 1) for one in made])
    words, watcher = [describe(one, form="long") for one in made], Watcher()
    own = watcher.observe(clips, words, fps=8.0)
    other = watcher.observe(clips[:2], words[1:3], fps=8.0)
    assert float(own[:, 0].mean()) >= 0.9 and float(own[:, 1].sum()) >= 4
    assert float(other[:, 1].sum()) == 0
    assert watcher.score(own).n == 6


def test_a_frozen_clip_moves_nothing_and_noise_is_unreadable():
    made = clip(7, 1, ClipRules(frames=8, world=Rules(most=2, subjects=0, styles=("flat",))))
    frozen = film(made, 32).image[:1].expand(8, 4, 32, 32)
    told = watch(frozen, 8.0)
    assert told.camera == "still" and told.readable and all(actor.does == {"stays"} for actor in told.named)
    assert not watch(torch.rand(8, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1, 8.0).readable


def test_what_cannot_be_watched_is_told():
    with pytest.raises(UserError, match="too few"):
        watch(torch.zeros(3, 4, 32, 32), 8.0)
    with pytest.raises(UserError, match="one sentence for each"):
        Watcher().observe(torch.zeros(1, 4, 8, 32, 32), [], 8.0)
