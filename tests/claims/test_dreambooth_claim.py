"""What the claim measures with knows a subject when it sees one, and its parts are judged the right way round."""

from dataclasses import replace

import pytest
import torch

from diorama.claims import dreambooth
from diorama.claims.dreambooth import CLAIM, SHOWN, DreamBoothClaim, Nameless, Shown, Subject, Words, overlap
from diorama.claims.runner import verify
from diorama.worlds.render import pictures
from diorama.worlds.scene import scene


@pytest.mark.parametrize("seed", range(3))
def test_real_pictures_show_the_subject_and_coloured_things_do_not(seed):
    subject = Subject(seed)
    assert subject.given.shape == (4, 4, 32, 32)
    assert subject.share(subject.given) == 1.0
    others = pictures([scene(seed + 50, i, subject.rules) for i in range(24)], 32)
    assert overlap(others, subject.paintings).max() < SHOWN / 4
    assert subject.share(torch.full((2, 4, 32, 32), -1.0)) == 0.0  # nor does a black picture


def test_what_it_is_painted_beside_has_another_colour():
    subject = Subject(0)
    colour, _ = subject.noun.split()
    others = subject.others(20)
    assert len(others) == 20
    assert not any(colour in other for other in others)


def test_seeds_differ_and_repeat():
    assert len({Subject(seed).number for seed in range(5)}) == 5
    assert Subject(1).noun == Subject(1).noun
    assert torch.equal(Subject(1).given, Subject(1).given)


FOUND = {  # fidelity, leak, kept of each arm in a world where the paper is right
    "untuned": Shown(0.0, 0.0, 0.8),
    "DreamBooth": Shown(0.8, 0.1, 0.7),
    "no class": Shown(0.85, 0.9, 0.1),
    "no name": Shown(0.4, 0.4, 0.4),
}


def arm(words: Words, prior: int | None) -> str:
    if prior is None:
        return "untuned"
    return "no name" if isinstance(words, Nameless) else "DreamBooth" if prior else "no class"


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({}, set()),
        ({"DreamBooth": Shown(0.2, 0.1, 0.7)}, {"A", "B2", "C"}),
        ({"DreamBooth": Shown(0.8, 0.8, 0.2)}, {"B1"}),
        ({"DreamBooth": Shown(0.7, 0.1, 0.7)}, {"B2"}),
        ({"no name": Shown(0.7, 0.1, 0.7)}, {"C"}),
    ],
)
def test_each_part_fails_for_its_own_reason(monkeypatch, change, failing):
    monkeypatch.setattr(DreamBoothClaim, "shown", lambda self, subject, words, prior: (FOUND | change)[arm(words, prior)])
    monkeypatch.setattr(dreambooth, "model_folder", lambda name: None)
    assert {part.letter for part in verify(CLAIM).parts if part.verdict == "fails"} == failing
    off = {part.letter: part.verdict for part in verify(replace(CLAIM, prior=0)).parts}
    assert off["B1"] == "fails"


def test_without_its_model_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("diorama.foundations.registry.asset", lambda name: tmp_path / "assets" / name)
    row = verify(CLAIM)
    assert row.verdict == "undecided"
    assert all("world-flow" in part.note for part in row.parts)
