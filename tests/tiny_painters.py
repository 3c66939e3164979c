"""Saved systems that are not asked by sentence and solver: random weights, 16 pixels, sampled in a blink."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch

from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.codecs.quantise import VectorQuantiser, VectorQuantiserConfig
from diorama.conditions.picture import Standard, StandardConfig
from diorama.networks.mage import Mage, MageConfig
from diorama.networks.mlp import VectorMLP, VectorMLPConfig
from diorama.networks.tokens import TokenTransformer, TokenTransformerConfig
from diorama.networks.unet import UNet, UNetConfig
from diorama.networks.vit import ViT, ViTConfig
from diorama.systems.images.ddpm import DDPM
from diorama.systems.images.guided_diffusion import GuidedDiffusion
from diorama.systems.images.masked_tokens import MaskedTokens
from diorama.systems.images.rcg import Rcg

CLASSES = ("circle", "square", "Star")


def unet(levels: float, labels: int = 0) -> UNet:
    config = UNetConfig(
        channels=3, patch=2, widths=(8,), depth=1, attention=(False,), embedding=16, levels=levels, labels=labels, heads=2
    )
    return tiny.randomised(UNet(config))


def tokenizer() -> tuple[ConvCodec, VectorQuantiser]:
    codec = ConvCodecConfig(latent=4, patch=2, widths=(8, 16), decoder_depth=1, variational=False)
    return tiny.randomised(ConvCodec(codec)), VectorQuantiser(VectorQuantiserConfig(codes=8, width=4))


def rcg() -> Rcg:
    encoder = ViT(ViTConfig(size=8, patch=4, width=16, depth=1, heads=2))
    rdm = tiny.randomised(VectorMLP(VectorMLPConfig(channels=16, width=16, depth=1, embedding=8)))
    mage = tiny.randomised(Mage(MageConfig(codes=8, places=(4, 4), told=16, width=16, depth=2, decoder_depth=1, heads=2)))
    return Rcg(*tokenizer(), encoder, Standard(StandardConfig(channels=16)), rdm, mage)


def masked_tokens() -> MaskedTokens:
    config = TokenTransformerConfig(codes=8, places=(4, 4), width=16, depth=2, heads=2, text_width=16, labels=2)
    return MaskedTokens(*tokenizer(), tiny.sentence_encoder(), tiny.randomised(TokenTransformer(config)), tiny.STYLES)


def save(folder: Path) -> dict[str, Path]:
    """The folder of each, by the name of its system."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = [
            DDPM(unet(1.0), 16),
            GuidedDiffusion(unet(100.0, len(CLASSES)), CLASSES, 16),
            rcg(),
            masked_tokens(),
        ]
    for system in made:
        system.save_pretrained(folder / system.card.slug)
    return {system.card.slug: folder / system.card.slug for system in made}
