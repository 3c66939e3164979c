"""What the cards say is what stands in the code."""

import pytest
import tiny
import torch

from diorama import cards
from diorama.claims import board
from diorama.errors import UserError
from diorama.processes.solvers import SOLVERS

ALL = tuple(cards.catalogue().values())
PUBLISHED = [card for card in ALL if card.compared("paper")]
KNOWN = {"unclip": "its table rounds 1.2 B to 1 B"}  # whose card says what is off, and whose own test holds its parts


@pytest.mark.parametrize("card", [card for card in ALL if card.family != "study"], ids=lambda card: card.slug)
def test_a_card_leads_to_its_class_and_back(card):
    kind = cards.system_class(card)
    assert kind.card is card
    assert set(kind.part_types()) <= set(card.parts)


def test_a_study_has_no_class_and_a_claim():
    with pytest.raises(UserError, match="samplers is a study of parts, no system of its own: `diorama show samplers`"):
        cards.system_class(cards.SAMPLERS)
    assert cards.SAMPLERS.slug in board.slugs()
    assert {"euler", "heun", "dpmpp_2m"} == set(SOLVERS) <= set(cards.SAMPLERS.parts)


@pytest.mark.parametrize(
    ("card", "preset"), [(card, name) for card in ALL for name in card.presets], ids=lambda x: getattr(x, "slug", x)
)
def test_presets_count_the_trained_parameters(card, preset):
    """As for the models that are shipped: five labels, and parts that are frozen not counted."""
    size = 256 if preset == "paper" else 64  # of which the many levels of the published ones need more
    with torch.device("meta"):
        system = cards.system_class(card).new(preset=preset, size=size, labels=list("abcde"), part=tiny.part)
    assert card.presets[preset] == sum(p.numel() for p in system.parameters() if p.requires_grad)


@pytest.mark.parametrize("card", PUBLISHED, ids=lambda card: card.slug)
def test_the_published_shape_has_the_published_size(card):
    trained = card.published["parameters"] - card.published.get("frozen", 0)
    assert (card.presets["paper"] == pytest.approx(trained, rel=0.03)) == (card.slug not in KNOWN)


def test_what_the_paper_says_of_its_own_size_stands_beside_no_other():
    assert cards.DDPM.compared("paper") == "35.7 M in the paper"
    assert cards.RCG.compared("paper") == "502 M in the paper, 30.7 M of them frozen"
    assert cards.RCG.compared("mini") == cards.DALLE3.compared("paper") == ""
