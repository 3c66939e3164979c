"""Captions that a captioner wrote, long and to the point, teach a painter to follow words; short prompts should be made as long.

Betker et al. 2023, sec. 3. Each seed trains its own captioner, four painters that differ in nothing but their captions, and its own
upsampler of prompts; nothing stands on a shipped model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor

from diorama.claims.claim import Claim, Effect, Part
from diorama.claims.clip import Pairs
from diorama.codecs.patches import PatchCodec, PatchCodecConfig
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.conditions.writer import Writer, WriterConfig
from diorama.data.recaption import Recaptioned
from diorama.errors import UserError
from diorama.networks.unet import UNet, UNetConfig
from diorama.networks.vit import ViT, ViTConfig
from diorama.systems.images.dalle3 import Dalle3
from diorama.systems.understanding.captioner import Captioner
from diorama.training.loop import Phase, fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise, mix
from diorama.worlds.alt_text import alt_text
from diorama.worlds.captions import caption, parse
from diorama.worlds.oracle import Oracle
from diorama.worlds.scene import Rules, Scene
from diorama.worlds.source import ENDLESS, World, WorldBatches

SIZE = 32
RULES = Rules(
    shapes=("circle",),  # outlines take a painter far more pictures; what is asked is colour, number, place and ground
    colours=("red", "yellow", "green", "cyan", "blue", "pink"),
    sizes=("large",),
    styles=("flat",),
    textures=("plain",),
    grounds=("plain",),
    most=2,
    overlap=0.0,
    subjects=0.0,
)
POOL, DRAWN, STEPS, CHUNK, PRESSED = 1536, 96, 10, 64, 3.0
TRUSTED = 0.15  # the most of what the captioner says that may be wrong
WORDS = 400  # pieces: every word of the world is one
EYE = ViTConfig(size=SIZE, patch=4, width=64, depth=3)
PEN = WriterConfig(words=WORDS, width=64, depth=2, read=64, forms=2)
BRUSH = UNetConfig(channels=64, widths=(48,), depth=1, attention=(True,), embedding=128)
READER = CaptionConfig(words=WORDS, width=64, depth=1)
_QUICK = Plan(steps=1000, batch=16, lr=2e-3, warmup=50, decay=0.4, ema=0.98, device="cpu", dtype="float32")
LOOK, PAINT, WRITE = replace(_QUICK, steps=400, batch=32), _QUICK, replace(_QUICK, batch=32)
ARMS = ("alt-text", "short", "descriptive")
Describe = Callable[[Captioner, Tensor, str, Noise], Sequence[str]]


def seen(captioner: Captioner, image: Tensor, form: str, noise: Noise) -> Sequence[str]:
    return captioner.caption(image, form, noise=noise)


class Painter(Dalle3):
    """DALL-E 3, of which the painter alone learns."""

    def phases(self) -> Sequence[Phase]:
        return super().phases()[:1]


class Upsampler(Dalle3):
    """DALL-E 3, of which the painter does not learn."""

    def phases(self) -> Sequence[Phase]:
        return super().phases()[1:]


@dataclass(frozen=True, kw_only=True)
class Dalle3Claim(Claim):
    """One painter under four kinds of captions, asked in three ways."""

    describe: Describe = seen
    look: Plan = LOOK
    paint: Plan = PAINT
    write: Plan = WRITE
    pool: int = POOL
    drawn: int = DRAWN

    slug: ClassVar[str] = "dalle3"
    title: ClassVar[str] = "DALL-E 3"
    parts: ClassVar[tuple[Part, ...]] = (
        Part(
            letter="A1",
            statement="of long prompts, 15 points more of the claims are kept where 95 % of the captions were a captioner's, and descriptive, "
            "than where all were alt-text",
            unit="share of claims",
            margin=0.15,
        ),
        Part(
            letter="A2",
            statement="and more than where 95 % were the captioner's short ones",
            unit="share of claims",
            margin=0.0,
        ),
        Part(
            letter="B",
            statement="of short prompts, it keeps 5 points more where these are made long first",
            unit="share of claims",
            margin=0.05,
        ),
        Part(
            letter="C",
            statement="of prompts that are alt-text, it keeps at most 5 points less than where all its captions were descriptive",
            unit="share of claims, beyond a loss of 0.05",
            margin=0.0,
        ),
    )

    def run(self, seed: int) -> Mapping[str, Effect]:
        return Experiment(self, seed).effects()


@dataclass
class Experiment:
    """One seed."""

    claim: Dalle3Claim
    seed: int

    def effects(self) -> dict[str, Effect]:
        long, short, alt = (self.prompts(form) for form in ("long", "short", "alt"))
        painters = {name: self.painter(texts) for name, texts in self.captions.items()}
        kept = {name: self.kept(painters[name], long) for name in ARMS}
        asked = {name: self.kept(painters[name], short) for name in ARMS}
        made = self.upsampler.prompt_upsampler(short, self.noise(range(len(short))))
        asked["descriptive, made long"] = self.kept(painters["descriptive"], short, made)
        human = {name: self.kept(painters[name], alt) for name in ("descriptive", "descriptive alone")}
        wrong, left = self.errors
        about = {"captioner, wrong": wrong, "captioner, left out": left}
        doubt = f"its captioner is wrong in {wrong:.0%} of what it says: look for a leak before believing an effect"
        note = doubt if wrong > TRUSTED else ""
        return {
            "A1": Effect(kept["descriptive"] - kept["alt-text"], {**kept, **about}, note=note),
            "A2": Effect(kept["descriptive"] - kept["short"], kept, note=note),
            "B": Effect(asked["descriptive, made long"] - asked["descriptive"], asked),
            "C": Effect(human["descriptive"] - human["descriptive alone"] + 0.05, human),
        }

    # --- captions ---

    @cached_property
    def pool(self) -> World:
        """The pictures that all painters learn from."""
        return world(mix(self.seed, 1), self.claim.pool)

    @cached_property
    def image(self) -> Tensor:
        return self.pool.batch(0, self.claim.pool).image

    @cached_property
    def captioner(self) -> Captioner:
        """Trained on pictures that no painter sees."""
        pieces = self.pieces
        torch.manual_seed(mix(self.seed, 2))
        system = Captioner(ViT(EYE), Writer(PEN, pieces))
        fit(system, WorldBatches(world(mix(self.seed, 3)), self.claim.look.batch), self.claim.look)
        return system.eval()

    def described(self, form: str) -> list[str]:
        """What the captioner says of the pool."""
        return [
            words
            for some in self.image.split(CHUNK)
            for words in self.claim.describe(self.captioner, some, form, self.noise(range(len(some))))
        ]

    @cached_property
    def captions(self) -> dict[str, list[str]]:
        """The captions of the pool, by their source."""
        alt = Recaptioned(self.pool, [alt_text(self.pool.scene(i), rules=RULES) for i in range(self.claim.pool)], 1.0)
        long, short = self.described("descriptive"), self.described("short")
        sources = {
            "alt-text": alt,
            "short": Recaptioned(alt, short, seed=self.seed),
            "descriptive": Recaptioned(alt, long, seed=self.seed),
            "descriptive alone": Recaptioned(alt, long, 1.0),
        }
        return {name: [source.record(i)["text"] for i in range(len(source))] for name, source in sources.items()}

    @cached_property
    def errors(self) -> tuple[float, float]:
        """Of what the captioner's long captions claim, the share that is wrong; of the things there are, the share they leave out."""
        told = [errors(words, self.pool.scene(i)) for i, words in enumerate(self.captions["descriptive alone"])]
        wrong, left = (sum(column) / len(told) for column in zip(*told, strict=True))
        return wrong, left

    @cached_property
    def pieces(self) -> Tokenizer:
        """Of all words, whoever says them."""
        scenes = [self.pool.scene(i) for i in range(min(512, self.claim.pool))]
        texts = [words for s in scenes for words in (caption(s, form="long"), caption(s, form="short"), alt_text(s, rules=RULES))]
        return CaptionEncoder.of(texts, READER).tokenizer

    # --- painters ---

    def untrained(self, kind: type[Dalle3]) -> Dalle3:
        """The same first weights, whichever it is."""
        pieces = self.pieces
        torch.manual_seed(mix(self.seed, 4))
        codec, text = PatchCodec(PatchCodecConfig(patch=4, mean=0.3, std=0.6)), CaptionEncoder(READER, pieces)
        network, reader = UNet(replace(BRUSH, text_width=READER.width)), CaptionEncoder(READER, pieces)
        writer = Writer(replace(PEN, read=READER.width, forms=0), pieces)
        return kind(codec, text, network, (), SIZE, reader=reader, writer=writer)

    def painter(self, texts: Sequence[str]) -> Dalle3:
        system = self.untrained(Painter)
        fit(system, Pairs(self.image, texts, self.claim.paint.batch), self.claim.paint)
        return system.eval()

    @cached_property
    def upsampler(self) -> Dalle3:
        system = self.untrained(Upsampler)
        fit(system, Sentences(world(mix(self.seed, 5)), self.claim.write.batch), self.claim.write)
        return system.eval()

    # --- what they keep ---

    def prompts(self, form: str) -> list[str]:
        """Of scenes that nobody was shown."""
        scenes = world(mix(self.seed, 6))
        return [caption(scenes.scene(i), form=form) for i in range(self.claim.drawn)]

    def kept(self, painter: Dalle3, prompts: Sequence[str], made: Sequence[str] | None = None) -> float:
        """Of what the prompts claim, the mean share that is kept in pictures of them, or of what was `made` of them."""
        asked = made or prompts
        chunks = [range(first, min(first + CHUNK, len(asked))) for first in range(0, len(asked), CHUNK)]
        drawn = [
            painter.sample([asked[i] for i in rows], steps=STEPS, guidance=PRESSED, solver="dpmpp_2m", noise=self.noise(rows))
            for rows in chunks
        ]
        return float(Oracle().observe(torch.cat(drawn), prompts)[:, 0].mean())

    def noise(self, rows: Iterable[int]) -> Noise:
        return Noise([mix(self.seed, 7, i) for i in rows])


def world(seed: int, n: int = ENDLESS) -> World:
    return World(seed, n, SIZE, RULES, "long")


def errors(words: str, scene: Scene) -> tuple[float, float]:
    """The share of a caption's claims that is wrong, and of the scene's things that it does not name; all of both where it is none."""
    try:
        said = parse(words)
    except UserError:
        return 1.0, 1.0
    claims = said.claims(scene)
    named = {(thing.colour, thing.shape) for thing in said.things}
    left = [(thing.colour, thing.shape) not in named for thing in scene.named]
    return 1 - sum(claims) / len(claims), sum(left) / len(left)


@dataclass(frozen=True)
class Sentences:
    """Batches of what is said of scenes, at length and in few words; nothing is drawn."""

    world: World
    batch: int

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        first = (step * world + rank) * self.batch
        scenes = [self.world.scene(i) for i in range(first, first + self.batch)]
        long, short = ([caption(scene, form=form) for scene in scenes] for form in ("long", "short"))
        return Batch(torch.zeros(self.batch, 0), long, short=short)


CLAIM = Dalle3Claim()
