"""How good a foundation model is: on pictures and captions of another world than it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from diorama.critics.fidelity import psnr
from diorama.critics.statistics import mean, share
from diorama.foundations.registry import HELD_OUT, Foundation
from diorama.foundations.world import world_of
from diorama.systems.base import System
from diorama.systems.images.autoencoder import Autoencoder
from diorama.systems.images.flow import Flow
from diorama.systems.understanding.clip import Clip
from diorama.types import Noise, Score
from diorama.worlds.oracle import Oracle
from diorama.worlds.scene import Rules
from diorama.worlds.source import unseen

SEED = 77  # of the world that is measured on; training uses 0 and 1
CHUNK = 64
Measure = Callable[[Foundation, System], dict[str, Score]]


def measure(what: Foundation, system: System) -> dict[str, Score]:
    """Its numbers by name; none where the kind of system has no measure yet."""
    with torch.no_grad():
        return MEASURES[what.system](what, system.eval()) if what.system in MEASURES else {}


def held_out(what: Foundation) -> tuple[tuple[str, str], ...]:
    """The (colour, shape) pairs that its training never showed."""
    return unseen(Rules(**what.rules), HELD_OUT)


def reconstruction(what: Foundation, system: System, n: int = 512) -> dict[str, Score]:
    assert isinstance(system, Autoencoder)
    world, values = world_of(what, SEED), []
    for first in range(0, n, CHUNK):
        image = world.batch(first, CHUNK).image
        values.append(psnr(system.reconstruct(image), image))
    return {"PSNR": mean(torch.cat(values), "dB", True)}


def zero_shot(what: Foundation, system: System, n: int = 1024) -> dict[str, Score]:
    """Of one thing: its colour and its shape, each taken from the best of 64 sentences "a red circle"; and in pairs never trained on."""
    assert isinstance(system, Clip)
    rules = Rules(**what.rules)
    pairs = [(colour, shape) for colour in rules.colours for shape in rules.shapes]
    classes = system.encode_text([named(colour, shape) for colour, shape in pairs])
    world, right = world_of(what, SEED, most=1, subjects=0.0), []
    for first in range(0, n, CHUNK):
        best = (system.encode_image(world.batch(first, CHUNK).image) @ classes.T).argmax(1).tolist()
        things = [world.scene(i).things[0] for i in range(first, first + CHUNK)]
        right += [
            (pairs[k][0] == t.colour, pairs[k][1] == t.shape, (t.colour, t.shape) in set(held_out(what)))
            for k, t in zip(best, things, strict=True)
        ]
    colour, shape, new = torch.tensor(right).T
    return {
        "zero-shot colour, of 8": share(colour),
        "zero-shot shape, of 8": share(shape),
        "zero-shot colour and shape, of 64": share(colour & shape),
        "the same, of pairs never trained on": share((colour & shape)[new]),
    }


def alignment(what: Foundation, system: System, n: int = 256) -> dict[str, Score]:
    """Whether the oracle reads in a picture what its caption asks for; unreadable is wrong. Half the captions name two things."""
    assert isinstance(system, Flow)
    rules, held = Rules(**what.rules), held_out(what)
    known = replace(rules, held_out=held).pairs
    scores = {}
    for name, first in (("pairs trained on", known), ("pairs never trained on", held)):
        captions = [_asked(first[i % len(first)], known[(7 * i) % len(known)] if i % 2 else None) for i in range(n)]
        scores[f"oracle alignment, {name}"] = kept(captions, lambda some, noise: system.sample(some, noise=noise))
    return scores


def _asked(first: tuple[str, str], second: tuple[str, str] | None) -> str:
    words = [named(colour, shape) for colour, shape in dict.fromkeys(pair for pair in (first, second) if pair)]
    return " and ".join(words)


def named(colour: str, shape: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"


def kept(captions: list[str], sample: Callable[[list[str], Noise], Tensor], seed: int = SEED) -> Score:
    """The share of captions that the oracle finds kept, all of it, in a picture sampled for each."""
    oracle, found = Oracle(), []
    for first in range(0, len(captions), CHUNK):
        some = captions[first : first + CHUNK]
        pictures = sample(some, Noise([seed * 1000 + first + i for i in range(len(some))]))
        found.append(oracle.observe(pictures, some))
    return oracle.score(torch.cat(found))


MEASURES: Mapping[str, Measure] = {"autoencoder": reconstruction, "clip": zero_shot, "flow": alignment}
