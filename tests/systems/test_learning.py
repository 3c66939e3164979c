"""Every system of pictures, as it is trained: each of its phases reaches all that it is to train, and one step of it helps."""

import pytest
import tiny
import torch

from diorama import cards
from diorama.conditions.text import TextTower
from diorama.networks.towers import Heads, ImageTower
from diorama.systems.images.foodfusion import FoodFusion
from diorama.systems.understanding.clip import Clip
from diorama.types import Batch, Noise

SLUGS = ("dalle3", "ddpm", "flow", "glide", "guided-diffusion", "imagen", "kandinsky3", "ldm", "masked-tokens", "rcg", "unclip")
N, SIZE = 2, 64


def batch() -> Batch:
    image = Noise(range(5, 5 + N)).uniform(4, SIZE, SIZE) * 2 - 1
    return Batch(image, ["a red circle"] * N, torch.arange(N), short=["a circle"] * N)


def part(name: str, kind: type):
    """As the presets are counted on, but that CLIP's parts, which DALL-E 2 stands on, fit each other."""
    if kind not in (ImageTower, Heads, TextTower):
        return tiny.part(name, kind)
    clip = Clip.new(preset="nano", size=SIZE, labels=(), part=tiny.part)
    return {ImageTower: clip.image, Heads: clip.heads, TextTower: clip.text}[kind]


def system(slug: str):
    torch.manual_seed(0)
    if slug == "foodfusion":  # of no size of its own
        return FoodFusion(tiny.codec(), tiny.sentence_encoder(), tiny.unet(), tiny.STYLES, SIZE)
    return cards.system_class(cards.find(slug)).new(preset="nano", size=SIZE, labels=list("abcde"), part=part)


@pytest.mark.parametrize("slug", [*SLUGS, "foodfusion"])
def test_one_step_of_each_phase_lowers_its_loss(slug):
    """A step downhill, so short that a straight slope would lose a thousandth; the same batch, the same noise."""
    made = system(slug).train()
    for number, phase in enumerate(made.phases()):
        made.zero_grad(set_to_none=True)

        def loss(number=number):
            torch.manual_seed(1)
            values = made(number, batch(), Noise(range(N)))
            assert values.shape == (N,)
            return values.mean()

        before = loss()
        before.backward()
        learning = [p for p in phase.parameters if p.requires_grad]
        assert all(p.grad is not None for p in learning), phase.name
        rate = 0.001 * before.item() / sum(p.grad.square().sum().item() for p in learning)
        with torch.no_grad():
            for p in learning:
                p -= rate * p.grad
            assert loss() < before, phase.name
