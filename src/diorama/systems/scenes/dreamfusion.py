"""DreamFusion (Poole et al. 2022): a sentence becomes a scene, by asking a painter of pictures what it would change in every view.

No picture is ever drawn from the painter, and no scene was ever shown to it. The scene is looked at from anywhere, in any light; noise
is added to what is seen; and what the painter takes for noise beyond that is the gradient of the scene (score distillation, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from diorama import cards
from diorama.cards import Card
from diorama.guidance.distill import distill
from diorama.networks.precision import ground
from diorama.scenes.cameras import all_around, around, orbit, view_words
from diorama.scenes.cloud import Cloud, CloudConfig
from diorama.scenes.fields import VoxelConfig, VoxelField
from diorama.scenes.gaussians import Gaussians
from diorama.scenes.volume import Paint, Scene
from diorama.systems.base import System
from diorama.systems.images.latent import LatentPainter
from diorama.training.loop import Phase, fit
from diorama.training.plan import Plan
from diorama.types import Batch, Condition, Denoiser, Noise, OnStep, ignore

MIDDLE, HALF = (0.0, 0.0, 0.0), 0.26  # metres: a cube that any solid of half a metre fits in
MANY = CloudConfig(places=2000, degree=0)
PRESETS = {
    "nano": VoxelConfig(side=32, middle=MIDDLE, half=HALF, samples=32),
    "mini": VoxelConfig(side=48, middle=MIDDLE, half=HALF, samples=48),
    "paper": VoxelConfig(
        side=128, middle=MIDDLE, half=HALF, samples=128
    ),  # our grid: the paper does not say how large its network is
}
SCENE: dict[str, Any] = {"warmup": 0, "weight_decay": 0.0, "clip": 0.0, "ema": 0.0, "sample_every": 10**6, "dtype": "float32"}
PLAN = Plan(steps=500, batch=2, lr=0.05, decay=0.2, **SCENE)
PAPER = Plan(
    steps=15_000, batch=4, lr=0.01, decay=0.0, **SCENE
)  # section 3.2 and appendix A.2; the rate is ours, as the optimiser is
RATES = {"means": 0.04, "scales": 0.2, "turns": 0.2, "opacities": 1.0, "first": 0.4, "rest": 0.0}  # of Gaussians, in the plan's
VIEWS = ("front view", "side view", "back view", "overhead view")
Pull = Callable[[Denoiser, Tensor, Condition, Tensor, Noise], Tensor]  # as `guidance.distill`


@dataclass(frozen=True, kw_only=True)
class How:
    """How a scene is asked about. Times are a flow's, 0 for data and 1 for noise."""

    pull: Pull = distill
    guidance: float = 10.0  # a tenth of the paper's: with 30 colours run over
    views: bool = True  # words that say from where
    times: tuple[float, float] = (0.02, 0.98)
    late: float = 0.5  # to what the upper one falls in the second half
    plain: float = 0.2  # share of the steps in which colours are seen as they are, without light
    shaded: float = 0.75  # how often a view is lit afterwards
    textureless: float = 0.1  # how often a view that is lit is of white clay; half in the paper, whose painter knows white things
    ambient: float = 0.55  # share of the light that comes from everywhere
    grounds: tuple[float, float] = (0.6, 1.0)  # greys behind it, drawn anew for each view
    opacity: float = 0.05  # how dear it is to be seen, and
    turned: float = 0.1  # to look away, per pixel
    roughness: float = 30.0


@dataclass(frozen=True)
class Asked:
    """A painter and what is asked of it, from every side."""

    painter: LatentPainter
    conditions: Condition  # a row for each of VIEWS, and one without such words

    @classmethod
    @torch.no_grad()
    def of(cls, painter: LatentPainter, prompt: str) -> Asked:
        painter.requires_grad_(False).eval()
        return cls(painter, painter.condition([*(f"{view} of {prompt}" for view in VIEWS), prompt]))

    def rows(self, azimuth: Tensor, elevation: Tensor, views: bool) -> Condition:
        """What to ask of views from there (b,)."""
        seen = sides(azimuth, elevation)
        return self.conditions.rows(seen if views else torch.full_like(seen, len(VIEWS)))


def sides(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """(b,) int64: the places in VIEWS of the words for views from there."""
    words = [view_words(*place) for place in zip(azimuth.tolist(), elevation.tolist(), strict=True)]
    return torch.tensor([VIEWS.index(word) for word in words])


@dataclass(eq=False)
class DreamFusion(System):
    """A scene that was dreamt of a sentence."""

    scene: Scene
    prompt: str = ""
    painter: str = ""  # the model that was asked

    card: ClassVar[Card] = cards.DREAMFUSION

    def __post_init__(self) -> None:
        self.how = How()
        self.asked: Asked | None = None
        self.done: Tensor
        self.register_buffer("done", torch.zeros(()))  # share of the steps

    @classmethod
    def over(cls, prompt: str, painter: LatentPainter, shape: VoxelConfig | CloudConfig, how: How | None = None) -> DreamFusion:
        """A cloud in the middle of nothing, to become what the prompt says. Its painter is only asked; it is not saved with it."""
        name = painter.origin.name if painter.origin else painter.card.slug
        system = cls(_cloud(shape) if isinstance(shape, CloudConfig) else _fog(shape), prompt, name)
        system.how, system.asked = how or How(), Asked.of(painter, prompt)
        return system

    def dream(self, plan: Plan = PLAN, on_step: OnStep = ignore) -> DreamFusion:
        """The shared loop, with nothing to read: what a step sees, it draws."""
        self.steps = plan.steps
        self.known.painter.to(ground(plan.device, plan.dtype).device)
        fit(self, lambda step, rank=0, world=1: Batch(torch.zeros(plan.batch, 0)), plan, on_step=on_step)
        return self

    @torch.no_grad()
    def turned(self, n: int, size: int, elevation: float = 20.0) -> Tensor:
        """(n, 4, size, size) in [-1, 1]: once around, in the light, on white."""
        cameras = orbit(n, elevation, 1.35, target=MIDDLE, size=size, field=30.0)
        light = lit(around(torch.tensor(-40.0), 50.0).to(self.device), self.how.ambient)
        seen = [self.scene.look(cameras.rows(i), light) for i in range(n)]
        pictures = [torch.cat([one.colour + one.left[:, None], 1 - one.left[:, None]], 1) for one in seen]
        return torch.stack(pictures).mT.unflatten(2, (size, size)) * 2 - 1

    # --- a step -----------------------------------------------------------------------------------

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """What a view is pulled to, in some light on some ground, beside what keeps the scene solid (section 3.2)."""
        how, size = self.how, self.known.painter.size
        camera, azimuth, elevation = all_around(noise.uniform(6).cpu(), size=size)
        grounds, jitter = noise.uniform(), noise.uniform(size**2, self.scene.samples)
        low, high = how.grounds
        pictures, kept = [], []
        for i, paint in enumerate(self.lights(azimuth, noise)):
            seen = self.scene.look(camera.rows(i), paint, jitter[i])
            pictures.append(seen.colour + seen.left[:, None] * (low + (high - low) * grounds[i]))
            cover = ((1 - seen.left).square() + 0.01).sqrt()  # appendix A.2
            kept.append((how.opacity * cover + how.turned * seen.turned).sum())
        picture = torch.stack(pictures).mT.unflatten(2, (size, size)) * 2 - 1
        return self.pull(picture, azimuth, elevation, noise) + torch.stack(kept) + how.roughness * self.scene.roughness()

    def pull(self, picture: Tensor, azimuth: Tensor, elevation: Tensor, noise: Noise) -> Tensor:
        """(b,): how far pictures (b, 3, size, size) in [-1, 1], seen from there, are from what the painter is asked for."""
        how, painter = self.how, self.known.painter
        x = painter.codec.encode(torch.cat([picture, torch.ones_like(picture[:, :1])], 1))
        denoiser = painter.guided(how.guidance)
        return how.pull(denoiser, x, self.known.rows(azimuth, elevation, how.views).to(x.device), self.levels(noise), noise)

    @property
    def known(self) -> Asked:
        assert self.asked is not None, "a scene that was read has no painter to ask"
        return self.asked

    def levels(self, noise: Noise) -> Tensor:
        """(b,) sigma: the loudest noise, which settles what it is, grows rarer in the second half."""
        low, high = self.how.times
        high += (self.how.late - high) * max(0.0, 2 * float(self.done) - 1)
        t = low + (high - low) * noise.uniform()
        return t / (1 - t)

    def lights(self, azimuth: Tensor, noise: Noise) -> list[Paint]:
        """The light each view is seen in: its colours themselves, or lit from somewhere above the camera, or lit and white."""
        how, u = self.how, noise.uniform(4).cpu()
        lamps = around(azimuth + 180 * (u[:, 2] - 0.5), 20 + 60 * u[:, 3]).to(self.device)
        later = float(self.done) >= how.plain
        return [
            lit(lamp, how.ambient, textureless=two < how.textureless) if later and one < how.shaded else bare
            for lamp, (one, two) in zip(lamps, u[:, :2].tolist(), strict=True)
        ]

    def phases(self) -> Sequence[Phase]:
        rates = [{"scale": RATES.get(name, 1.0)} for name, _ in self.scene.named_parameters()]
        return [Phase("loss", list(self.scene.parameters()), self.loss, rates)]

    def after_backward(self, step: int, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.done.fill_((step + 1) / self.steps)


def bare(colours: Tensor, normals: Tensor) -> Tensor:
    """The colours themselves."""
    return colours


def lit(towards: Tensor, ambient: float, textureless: bool = False) -> Paint:
    """Matt in the light of a lamp far away in this direction (3,); `textureless`, as if of white clay (section 3.1)."""

    def paint(colours: Tensor, normals: Tensor) -> Tensor:
        light = ambient + (1 - ambient) * (normals @ towards).clamp_min(0)[..., None]
        return light.expand_as(colours) if textureless else colours * light

    return paint


# --- before the first step ------------------------------------------------------------------------


def _fog(shape: VoxelConfig) -> VoxelField:
    scene = VoxelField(shape)
    scene.blob(5.0, 0.5)
    return scene


def _cloud(shape: CloudConfig) -> Cloud:
    """As many Gaussians as there may be, evenly in a ball half as wide as the cube (a Fibonacci spiral), grey and half clear."""
    n = shape.places
    i = torch.arange(n) + 0.5
    height, turn = 1 - 2 * i / n, i * math.pi * (5**0.5 - 1)
    flat = (1 - height.square()).sqrt()
    radius = (i * 0.618034 % 1) ** (1 / 3) * HALF / 2
    means = radius[:, None] * torch.stack([flat * turn.cos(), flat * turn.sin(), height], 1)
    size = HALF / 2 * (4 / n) ** (1 / 3)
    scene = Cloud(shape)
    turns = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4)
    colours = torch.zeros(n, (shape.degree + 1) ** 2, 3)
    scene.become(Gaussians(means, torch.full((n, 3), math.log(size)), turns, torch.full((n,), -2.0), colours))
    return scene
