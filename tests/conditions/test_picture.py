import tiny
import torch

from diorama.conditions.picture import PictureWords, PictureWordsConfig
from diorama.types import Noise, TextEmbedding

WORDS = tiny.randomised(PictureWords(PictureWordsConfig(channels=8, text_width=6, words=4)))


def text():
    noise = Noise([0, 1])
    return TextEmbedding(noise.normal(3, 6), torch.tensor([[True, True, False], [True] * 3]), noise.normal(6))


@torch.no_grad()
def test_a_picture_is_four_more_words():
    z = Noise([5, 6]).normal(8)
    joined = WORDS(text(), z)
    assert joined.tokens.shape == (2, 7, 6)
    assert joined.mask.tolist() == [[True, True, False, *[True] * 4], [True] * 7]
    assert torch.equal(joined.tokens[:, :3], text().tokens)
    assert not torch.allclose(WORDS(text(), z.flip(0)).tokens[:, 3:], joined.tokens[:, 3:], atol=1e-3)
    assert not torch.allclose(joined.pooled, text().pooled, atol=1e-3)


@torch.no_grad()
def test_no_picture_asks_for_nothing():
    joined = WORDS(text(), torch.zeros(2, 8))
    assert not joined.mask[:, 3:].any()
    assert not joined.tokens[:, 3:].any()
    assert torch.equal(joined.pooled, text().pooled)
