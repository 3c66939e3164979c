"""The claim can say yes and no: to models that know the world's masks, and to those that know one thing thrice or nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from diorama.claims import sam as claim
from diorama.claims.runner import verify
from diorama.claims.sam import CLAIM, SIZE, Averaged, OneMask
from diorama.networks.prompts import Prompts
from diorama.networks.two_way import Answer
from diorama.systems.understanding.sam import Masks, Sam
from diorama.types import mix

N = 8  # pictures


@dataclass
class Knows:
    """Sees any test picture of a seed, and answers with the masks that hold the point, as `tells` chooses three of them."""

    seed: int
    tells: Callable

    def see(self, image):
        pictures, masks = known(self.seed)
        return Seen(masks[(pictures == image).flatten(1).all(1).int().argmax()], self.tells)


@cache
def known(seed):
    batch = claim.world(mix(seed, 3)).batch(0, N)
    return batch.image, batch.masks


@dataclass
class Seen:
    masks_there: torch.Tensor
    tells: Callable

    def masks(self, prompts):
        rows = []
        for x, y in prompts.points[:, 0].long().tolist():
            held = self.masks_there[self.masks_there[:, y, x] >= 0.5]
            rows.append(self.tells(held))
        logits = 20 * torch.stack(rows) - 10
        return Masks(logits, torch.linspace(1, 0.8, logits.shape[1]).expand(len(logits), -1), logits)


def all_of_them(held):
    return torch.cat([held, held[:1].expand(3, -1, -1)])[:3]


def one_thrice(held):
    return held[:1].expand(3, -1, -1)


def first(held):
    return held[:1]


def nothing(held):
    return 0 * held[:1].expand(3, -1, -1)


def judged(three):
    arms = {Sam: three, OneMask: first, Averaged: one_thrice}
    quick = replace(CLAIM, teach=lambda kind, seed, plan: Knows(seed, arms[kind]), pictures=N)
    return {part.letter: part for part in verify(quick).parts}


def test_a_model_that_knows_all_three_meanings_passes():
    found = judged(all_of_them)
    assert found["A1"].verdict == "holds"
    assert found["A2"].verdict == "holds"


def test_one_meaning_said_three_times_fails():
    found = judged(one_thrice)
    assert found["A1"].verdict == "fails"
    assert found["A1"].effect == pytest.approx(0.0, abs=1e-6)


def test_a_model_that_finds_nothing_fails():
    found = judged(nothing)
    assert found["A1"].verdict == found["A3"].verdict == "fails"


def test_the_arms_differ_in_which_masks_learn():
    """Gradients of a click: one mask, all three, or the best of three."""
    truth = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    truth[:, 4:20, 4:20] = True
    learn = {}
    for kind in (Sam, OneMask, Averaged):
        torch.manual_seed(0)
        sam, prompts = kind.build("nano", SIZE), Prompts.at(torch.tensor([[[9.0, 9.0]]]))
        logits = torch.randn(1, 4, SIZE, SIZE, requires_grad=True)
        sam.error(Answer(logits, torch.zeros(1, 4)), sam.allowed(prompts), truth).sum().backward()
        learn[kind] = logits.grad.flatten(2).any(2)[0].tolist()
    assert learn[OneMask] == [True, False, False, False]
    assert learn[Averaged] == [False, True, True, True]
    assert sum(learn[Sam]) == 1
    assert not learn[Sam][0]
