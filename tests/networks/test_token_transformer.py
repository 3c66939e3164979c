import pytest
import tiny
import torch

from diorama.networks.tokens import TokenTransformer, TokenTransformerConfig
from diorama.types import MASK, NO_LABEL, Condition, Noise, TextEmbedding


def network(**changes) -> TokenTransformer:
    config = {"codes": 6, "places": (3, 4), "width": 16, "depth": 2, "heads": 2, "text_width": 8, "labels": 3}
    return tiny.randomised(TokenTransformer(TokenTransformerConfig(**{**config, **changes})))


def words(n: int) -> TextEmbedding:
    tokens = Noise([1, 2]).normal(n, 8)
    return TextEmbedding(tokens, torch.ones(2, n, dtype=torch.bool), tokens.mean(1))


TOKENS = Noise([0, 1]).integers(6, 3, 4)


@pytest.mark.parametrize("places", [(5,), (3, 4), (2, 3, 2)])
def test_every_place_has_its_logits(places):
    tokens = Noise([0, 1]).integers(6, *places)
    assert network(places=places)(tokens, Condition()).shape == (2, *places, 6)


def test_a_masked_token_is_a_token_of_its_own():
    model, masked = network(), TOKENS.clone()
    masked[:, 0, 0] = MASK
    changed = (model(masked, Condition()) - model(TOKENS, Condition())).abs().amax(-1)
    assert (changed > 1e-4).all()


def test_what_asks_for_nothing_is_what_is_not_there():
    model, condition = network(), Condition(text=words(4), label=torch.tensor([0, 2]))
    asked, unasked = model(TOKENS, condition), model(TOKENS, condition.null())
    assert not torch.allclose(asked, unasked)
    assert torch.allclose(unasked, model(TOKENS, Condition(label=torch.full((2,), NO_LABEL))), atol=1e-5)


def test_padding_of_a_sentence_does_not_matter():
    model, text = network(), words(4)
    longer = Condition.cat([Condition(text=text), Condition(text=words(9))]).rows(slice(2))
    assert torch.allclose(model(TOKENS, longer), model(TOKENS, Condition(text=text)), atol=1e-5)


def test_tokens_know_their_places():
    model = network()
    logits = model(torch.zeros(1, 3, 4, dtype=torch.int64), Condition())
    assert len(logits.flatten(0, 2).unique(dim=0)) == 12
