"""How good a foundation model is: on pictures and captions of another world than it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from diorama.critics.contrastive import accuracy
from diorama.critics.fidelity import psnr
from diorama.critics.motion import persistence, steps
from diorama.critics.segmentation import iou
from diorama.critics.statistics import mean, share
from diorama.critics.usage import counts, perplexity, used
from diorama.foundations.data import items_of
from diorama.foundations.plans import DEFAULTS
from diorama.foundations.registry import HELD_OUT, Foundation
from diorama.foundations.world import world_of
from diorama.networks.vit import patches
from diorama.systems.base import System
from diorama.systems.images.autoencoder import Autoencoder
from diorama.systems.images.flow import Flow
from diorama.systems.images.guided_diffusion import GuidedDiffusion
from diorama.systems.images.masked_tokens import MaskedTokens
from diorama.systems.images.vq import VectorQuantised
from diorama.systems.understanding.classifier import Classifier
from diorama.systems.understanding.clip import Clip
from diorama.systems.understanding.everything import pointed
from diorama.systems.understanding.mae import MaskedAutoencoder
from diorama.systems.understanding.sam import Sam
from diorama.systems.video.video_ldm import VideoLDM
from diorama.types import Noise, Score
from diorama.worlds.oracle import Oracle
from diorama.worlds.parts import Masked
from diorama.worlds.render import render
from diorama.worlds.scene import Rules
from diorama.worlds.source import Numbered, unseen
from diorama.worlds.tracking import LEAP, tracked
from diorama.worlds.view_oracle import gaze
from diorama.worlds.view_source import call

SEED = 77  # of the world that is measured on; training uses 0 and 1
CHUNK = 64
N = 512  # pictures
CLIPS = 32
Scores = dict[str, Score]


def measure(what: Foundation, system: System) -> Scores:
    """Its numbers by name."""
    with torch.no_grad():
        return MEASURES[what.system](what, system.eval())


def held_out(what: Foundation) -> tuple[tuple[str, str], ...]:
    """The (colour, shape) pairs that its training never showed."""
    return unseen(Rules(**what.rules), HELD_OUT)


def named(colour: str, shape: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"


# --- codecs ----------------------------------------------------------------------------------------


def reconstruction(what: Foundation, system: System) -> Scores:
    assert isinstance(system, Autoencoder)
    return {"PSNR": psnr.score(_over(world_of(what, SEED), lambda image: psnr(system.reconstruct(image), image)))}


def tokens(what: Foundation, system: System) -> Scores:
    assert isinstance(system, VectorQuantised)
    world = world_of(what, SEED)
    codes = _over(world, system.tokenise)
    pictures = _over(world, lambda image: psnr(system.detokenise(system.tokenise(image)), image))
    seen = counts(codes, system.quantiser.config.codes)
    return {"PSNR": psnr.score(pictures), "codes used": used(seen), "perplexity of the codes": perplexity(seen)}


def _over(world: Numbered, see: Callable[[Tensor], Tensor], n: int | None = None) -> Tensor:
    return torch.cat([see(world.batch(first, CHUNK).image) for first in range(0, n or N, CHUNK)])


# --- what reads pictures ---------------------------------------------------------------------------


def zero_shot(what: Foundation, system: System) -> Scores:
    """Of one thing: its colour and its shape, each taken from the best of 64 sentences "a red circle"; and in pairs never trained on."""
    assert isinstance(system, Clip)
    rules = Rules(**what.rules)
    pairs = [(colour, shape) for colour in rules.colours for shape in rules.shapes]
    sentences = system.encode_text([named(*pair) for pair in pairs])
    world = world_of(what, SEED, most=1, subjects=0.0)
    best = _over(world, lambda image: (system.encode_image(image) @ sentences.T).argmax(1), 2 * N).tolist()
    things = [world.scene(i).things[0] for i in range(2 * N)]
    colour = torch.tensor([pairs[k][0] == thing.colour for k, thing in zip(best, things, strict=True)])
    shape = torch.tensor([pairs[k][1] == thing.shape for k, thing in zip(best, things, strict=True)])
    new = torch.tensor([(thing.colour, thing.shape) in held_out(what) for thing in things])
    return {
        "zero-shot colour, of 8": share(colour),
        "zero-shot shape, of 8": share(shape),
        "zero-shot colour and shape, of 64": share(colour & shape),
        "the same, of pairs never trained on": share((colour & shape)[new]),
    }


def classes(what: Foundation, system: System) -> Scores:
    assert isinstance(system, Classifier)
    world = items_of(what, SEED)
    truth = torch.cat([_labels(world, first) for first in range(0, N, CHUNK)])
    return {f"label right, of {len(system.labels)}": accuracy(_over(world, system.label_of), truth)}


def linear(what: Foundation, system: System) -> Scores:
    """Linear readers of its tokens, each beside the same reader of the pixels: which patches things cover, and the colour of a lone thing."""
    assert isinstance(system, MaskedAutoencoder)
    world, patch = world_of(what, SEED), system.encoder.config.patch
    views = [render([world.scene(i) for i in range(first, first + CHUNK)], what.size) for first in range(0, 2 * N, CHUNK)]
    things = torch.cat([F.avg_pool2d(view.masks.sum(1, keepdim=True), patch)[:, 0] for view in views])
    truth = (things > 0.5).flatten(1)
    lone = world_of(replace(what, label="colour"), SEED, most=1, subjects=0.0)
    colours = torch.cat([_labels(lone, first) for first in range(0, 4 * N, CHUNK)])

    def covered(see: Callable[[Tensor], Tensor]) -> Score:
        x = torch.cat([see(view.image) for view in views])
        found = _read(x[:N].flatten(0, 1), truth[:N].flatten()[:, None], x[N:].flatten(0, 1)) > 0.5
        return iou.score(iou(found.reshape(-1, *things.shape[1:]), things[N:] > 0.5))

    def coloured(see: Callable[[Tensor], Tensor]) -> Score:
        x = _over(lone, see, 4 * N)
        return accuracy(_read(x[: 3 * N], F.one_hot(colours[: 3 * N]), x[3 * N :]).argmax(1), colours[3 * N :])

    return {
        "patches that things cover, by a linear reader": covered(system.tokens),
        "the same from their pixels": covered(lambda image: patches(image[:, :3], patch)),
        "colour by a linear reader, of 8": coloured(lambda image: system.tokens(image).mean(1)),
        "the same from pixels": coloured(lambda image: image[:, :3].flatten(1)),
    }


def _read(x: Tensor, goal: Tensor, new: Tensor) -> Tensor:
    """What ridge regression from x (n, d) to goals (n, c) says of new (m, d): (m, c)."""
    middle, scale = x.double().mean(0), x.double().std(0).clamp_min(1e-6)
    fitted, asked = (F.pad((some - middle) / scale, (0, 1), value=1.0) for some in (x, new))
    square = fitted.T @ fitted + 30.0 * torch.eye(fitted.shape[1], dtype=torch.float64)
    return asked @ torch.linalg.solve(square, fitted.T @ goal.double())


def _labels(world: Numbered, first: int) -> Tensor:
    label = world.batch(first, CHUNK).label
    assert label is not None
    return label


# --- what makes pictures ---------------------------------------------------------------------------


def _painter(what: Foundation, system: Flow | MaskedTokens | VideoLDM) -> Callable[[Sequence[str], Noise], Tensor]:
    """Sentences to pictures or clips, as the model makes them where nobody says how."""
    return lambda some, noise: system.sample(some, noise=noise, **DEFAULTS.get(what.name, {}))


def alignment(what: Foundation, system: System) -> Scores:
    """Whether the oracle reads in a picture what its caption asks for; unreadable is wrong. Half the captions name two things."""
    assert isinstance(system, Flow | MaskedTokens)
    if what.around:
        return asked_views(what, system)
    held = held_out(what)
    known = replace(Rules(**what.rules), held_out=held).pairs
    return {
        f"oracle alignment, {name}": kept(_asked(first, known), _painter(what, system))
        for name, first in (("pairs trained on", known), ("pairs never trained on", held))
    }


def asked_views(what: Foundation, system: Flow | MaskedTokens) -> Scores:
    """Whether the oracle of solids finds the colour and the shape that were asked for, and the face from the front alone."""
    held, views = held_out(what), ("front", "side", "back")
    known = replace(Rules(**what.rules), held_out=held).pairs
    scores: Scores = {}
    for name, pairs in (("pairs trained on", known), ("pairs never trained on", held)):
        asked = [pairs[i // 3 % len(pairs)] for i in range(N // 2)]
        words = [f"{views[i % 3]} view of {call(shape, colour)}" for i, (colour, shape) in enumerate(asked)]
        pictures = torch.cat(list(_sampled(words, _painter(what, system))))
        seen = gaze(pictures, what.rules["shapes"])
        scores |= {
            f"colour and shape, {name}": share(torch.tensor([a == b for a, b in zip(seen.kinds, asked, strict=True)])),
            f"a face from the front, {name}": share(seen.face[0::3]),
            f"no face from the back, {name}": share(~seen.face[2::3]),
        }
    return scores


def _asked(first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]]) -> list[str]:
    """Captions of one thing and of two in turn."""
    words = []
    for i in range(N // 2):
        a, b = first[i // 2 % len(first)], second[(7 * i) % len(second)]
        words.append(named(*a) if i % 2 or a == b else f"{named(*a)} and {named(*b)}")
    return words


def asked_class(what: Foundation, system: System) -> Scores:
    assert isinstance(system, GuidedDiffusion)
    label = torch.arange(N // 2) % len(system.labels)
    captions = [f"a {system.labels[k]}" for k in label.tolist()]
    sizes = {word: k for k, word in enumerate(system.labels)}
    return {
        f"asked class, {name}": kept(
            captions,
            lambda some, noise, guidance=guidance: system.sample(  # type: ignore[misc]
                torch.tensor([sizes[words.split()[-1]] for words in some]), guidance=guidance, noise=noise
            ),
        )
        for name, guidance in (("no guidance", 1.0), ("classifier-free guidance 3", 3.0))
    }


def kept(captions: Sequence[str], sample: Callable[[Sequence[str], Noise], Tensor], seed: int = SEED) -> Score:
    """The share of captions that the oracle finds kept, all of it, in a picture sampled for each."""
    oracle = Oracle()
    pictures = torch.cat(list(_sampled(captions, sample, seed)))
    return oracle.score(oracle.observe(pictures, captions))


def _sampled(captions: Sequence[str], sample: Callable[[Sequence[str], Noise], Tensor], seed: int = SEED) -> Iterator[Tensor]:
    """Pictures for captions, CHUNK at a time."""
    for first in range(0, len(captions), CHUNK):
        some = captions[first : first + CHUNK]
        yield sample(some, Noise([seed * 1000 + first + i for i in range(len(some))]))


def overlap(what: Foundation, system: System) -> Scores:
    """With whole things, asked for by a click in their middle and by the box around them."""
    assert isinstance(system, Sam)
    batch = Masked(world_of(what, SEED)).batch(0, N // 4)
    assert batch.masks is not None
    wholes = (masks[masks.flatten(1).any(1)] for masks in batch.masks[:, : batch.masks.shape[1] // 3] >= 0.5)
    found = torch.cat([pointed(system, image, truth) for image, truth in zip(batch.image, wholes, strict=True)])
    ways = ("one click", "one click, best of three masks", "a box")
    return {way: mean(values, "IoU", True) for way, values in zip(ways, found.T, strict=True)}


def motion(what: Foundation, system: System) -> Scores:
    """Whether what the first frame shows stays, and how far it goes, beside real clips."""
    assert isinstance(system, VideoLDM)
    real = items_of(what, SEED).batch(0, CLIPS)
    made = torch.cat(list(_sampled(real.text, _painter(what, system))))
    scores: Scores = {}
    for name, clips in (("painted", made), ("real", real.image)):
        track = tracked(clips)
        went = steps(*track)
        scores |= {
            f"what stays what it was, {name}": persistence.score(persistence(*track, LEAP / system.fps)),
            f"how far it goes, {name}": mean(went[went.isfinite()], "sides a frame", True),
        }
    return scores


MEASURES: Mapping[str, Callable[[Foundation, System], Scores]] = {
    "autoencoder": reconstruction,
    "vq": tokens,
    "clip": zero_shot,
    "classifier": classes,
    "mae": linear,
    "sam": overlap,
    "flow": alignment,
    "masked-tokens": alignment,
    "guided-diffusion": asked_class,
    "video-ldm": motion,
}
