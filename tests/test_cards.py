"""What the cards say is what stands in the code."""

import pytest
import torch

from diorama import cards
from diorama.codecs.conv import ConvCodec, ConvCodecConfig
from diorama.networks.towers import Heads, HeadsConfig, ImageTower, StyleConfig, StyleTower, TowerConfig


@pytest.mark.parametrize("card", cards.catalogue().values(), ids=lambda card: card.slug)
def test_a_card_leads_to_its_class_and_back(card):
    kind = cards.system_class(card)
    assert kind.card is card
    assert set(kind.part_types()) <= set(card.parts)


def test_presets_count_the_trained_parameters():
    with torch.device("meta"):
        codec = ConvCodec(ConvCodecConfig())
        clip = [ImageTower(TowerConfig()), Heads(HeadsConfig()), StyleTower(StyleConfig(styles=5))]
    assert cards.AUTOENCODER.presets["mini"] == _count(codec)
    assert cards.CLIP.presets["mini"] == sum(map(_count, clip))


def _count(module):
    return sum(p.numel() for p in module.parameters())
