"""What is in the house, as plain data: read by the command line before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from diorama.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a system is, in one place. `place` says where its class lives; the rest is for people."""

    slug: str
    title: str
    paper: str  # authors, title, venue, where to read it
    year: int
    family: str  # images, editing, video, scenes, understanding, other
    verb: str  # what it does for a person: sample, edit, segment ...
    summary: str
    claim: str  # the paper's own point, as a sentence that can turn out false
    parts: Mapping[str, str]  # field: what stands there
    presets: Mapping[str, int] = field(default_factory=dict)  # name: trained parameters; a test builds each and counts
    place: str = ""  # "package.module:Class"
    ours: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in asdict(self).items()}


AUTOENCODER = Card(
    slug="autoencoder",
    title="Convolutional picture codec",
    paper="after Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014 (arXiv 1312.6114)",
    year=2014,
    family="images",
    verb="reconstruct",
    summary="RGBA pictures to latents sixteen times smaller along each side, and back.",
    claim="none of its own: its reconstruction quality stands on the model card of what is built on it",
    parts={"codec": "ConvCodec"},
    presets={"mini": 3_154_848},
    place="diorama.systems.images.autoencoder:Autoencoder",
    ours=True,
)

FLOW = Card(
    slug="flow",
    title="Rectified-flow text-to-image",
    paper="after Liu et al. 2022 (arXiv 2209.03003), Lipman et al. 2022 (arXiv 2210.02747), Esser et al. 2024 (arXiv 2403.03206)",
    year=2024,
    family="images",
    verb="sample",
    summary="A sentence and a style to an RGBA picture, by a flow in the latents of a frozen codec; the default model.",
    claim="none of its own: its measured quality stands on the default model's card",
    parts={
        "codec": "ConvCodec, frozen",
        "text": "SentenceEncoder, frozen",
        "network": "UNet",
        "process": "Diffusion(RectifiedFlow)",
    },
    presets={"nano": 1_626_544, "mini": 7_830_544, "base": 48_136_464},
    place="diorama.systems.images.flow:Flow",
    ours=True,
)


CLIP = Card(
    slug="clip",
    title="CLIP",
    paper="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021 (arXiv 2103.00020)",
    year=2021,
    family="understanding",
    verb="score",
    summary="Pictures and sentences in one space: how well a sentence fits a picture, and which of many fits best.",
    claim="telling which sentence goes with a picture teaches more per FLOP than predicting the sentence's words",
    parts={"image": "ImageTower", "text": "SentenceEncoder, frozen", "heads": "Heads", "style": "StyleTower"},
    presets={"mini": 1_764_822},
    place="diorama.systems.understanding.clip:Clip",
)


def catalogue() -> dict[str, Card]:
    """Every system there is, ours and those other packages add through the `diorama.systems` entry point."""
    cards = {card.slug: card for card in (FLOW, AUTOENCODER, CLIP)}
    for point in entry_points(group="diorama.systems"):
        card = point.load()
        cards.setdefault(card.slug, card)
    return cards


def find(slug: str) -> Card:
    """The card of this name; UserError with the nearest names where there is none."""
    from difflib import get_close_matches

    cards = catalogue()
    if slug not in cards:
        near = get_close_matches(slug, cards, 3, 0.4) or list(cards)
        raise UserError(f"system {slug!r} is not known: did you mean {' or '.join(near)}? `diorama systems` lists all")
    return cards[slug]


def system_class(card: Card) -> Any:
    """The class behind a card. This is where torch is imported."""
    module, _, name = card.place.partition(":")
    return getattr(import_module(module), name)
