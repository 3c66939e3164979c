"""What the claim of DALL-E 3 measures, with captioners whose answers are known in the place of a trained one."""

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from diorama.claims.dalle3 import CLAIM, RULES, TRUSTED, Experiment, Painter, Sentences, errors, world
from diorama.claims.verdict import judge
from diorama.types import mix
from diorama.worlds.captions import caption
from diorama.worlds.oracle import Oracle
from diorama.worlds.render import pictures

POOL = 128
FORMS = {"descriptive": "long", "short": "short"}


@cache
def scenes(seed):
    pool = world(mix(seed, 1), POOL)
    return [pool.scene(i) for i in range(POOL)]


def knowing(seed, off=0):
    """Says what the picture shows, or what the one `off` places further shows."""
    known = scenes(seed)
    image = pictures(known, 32).flatten(1)

    def describe(captioner, some, form, noise):
        return [caption(known[(int(i) + off) % POOL], form=FORMS[form]) for i in torch.cdist(some.flatten(1), image).argmin(1)]

    return describe


@dataclass
class Believing(Experiment):
    """Instead of training: a painter keeps what its captions said truly."""

    captioner = None

    class upsampler:
        @staticmethod
        def prompt_upsampler(prompts, noise):
            return prompts

    def painter(self, texts):
        return texts

    def kept(self, painter, prompts, made=None):
        return 1 - sum(errors(words, scene)[1] for words, scene in zip(painter, scenes(self.seed), strict=True)) / POOL


def effects(off=0):
    return [Believing(replace(CLAIM, pool=POOL, describe=knowing(seed, off)), seed).effects() for seed in range(3)]


def test_true_captions_beat_alt_text_and_short_ones_say_as_much_of_things():
    found = effects()
    assert judge(CLAIM.parts[0], [effect["A1"] for effect in found]).verdict == "holds"
    arms = found[0]["A1"].arms
    assert arms["captioner, wrong"] == 0
    assert arms["alt-text"] < 0.7 < arms["short"] <= arms["descriptive"] < 1  # a twentieth of either is alt-text
    assert found[0]["C"].arms["descriptive alone"] == 1


def test_captions_of_other_pictures_fail_and_are_told():
    found = effects(off=1)
    assert all(effect["A1"].value < 0 and effect["A1"].arms["captioner, wrong"] > TRUSTED for effect in found)
    judged = judge(CLAIM.parts[0], [effect["A1"] for effect in found])
    assert judged.verdict != "holds" and "look for a leak" in judged.note


def test_the_arms_share_their_pictures_their_first_weights_and_what_stays_alt_text():
    one = Experiment(replace(CLAIM, pool=POOL, describe=knowing(0)), 0)
    one.captioner = None
    alt, short, long, alone = one.captions.values()
    kept = [i for i in range(POOL) if long[i] == alt[i]]
    assert kept == [i for i in range(POOL) if short[i] == alt[i] and long[i] != alone[i]]
    assert 0 < len(kept) < 0.15 * POOL
    first, again = (one.untrained(Painter) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_errors_of_a_caption():
    known = next(
        s for s in map(world(5).scene, range(99)) if len(s.named) == 2 and len({(t.colour, t.shape) for t in s.named}) == 2
    )
    a, b = known.named
    assert errors(caption(known, form="long"), known) == (0, 0)
    assert errors(f"a {a.colour} {a.shape}", known) == (0, 0.5)
    other = next(colour for colour in RULES.colours if colour not in (a.colour, b.colour))
    assert errors(f"a {a.colour} {a.shape} and a {other} {b.shape}", known) == (0.5, 0.5)
    assert errors("mumble", known) == (1, 1)


def test_sentences_are_of_one_scene():
    batch = Sentences(world(5), 4)(2)
    assert list(batch.text) == [caption(world(5).scene(i), form="long") for i in range(8, 12)]
    assert list(batch.short) == [caption(world(5).scene(i), form="short") for i in range(8, 12)]


def test_what_is_kept_is_told_of_the_prompts_and_not_of_what_was_made_of_them(monkeypatch):
    asked = []

    class Echo:
        def sample(self, prompts, *, noise, **how):
            asked.extend((words, len(noise)) for words in prompts)
            return torch.zeros(len(prompts), 4, 32, 32)

    monkeypatch.setattr(Oracle, "observe", lambda self, x, words: torch.tensor([[float(w == "a"), 0, 1] for w in words]))
    kept = Experiment(CLAIM, 0).kept(Echo(), ["a", "b", "a", "a"], ["1", "2", "3", "4"])
    assert kept == 0.75
    assert [words for words, _ in asked] == ["1", "2", "3", "4"]


@pytest.mark.slow
def test_it_runs_from_end_to_end():
    quick = {name: replace(getattr(CLAIM, name), steps=1, batch=4, warmup=1) for name in ("look", "paint", "write")}
    found = replace(CLAIM, pool=8, drawn=2, **quick).run(0)
    assert set(found) == {part.letter for part in CLAIM.parts}
    assert all(effect.value is not None for effect in found.values())
