import pytest
import torch

from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.conditions.text import TextTower
from diorama.files import read_json, write_json

CAPTIONS = ["a red circle", "two small blue stars", "a sketch of a cross on a grey background."] * 5


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "token shift"])
def encoder(request):
    torch.manual_seed(0)
    return CaptionEncoder.of(CAPTIONS, CaptionConfig(words=400, width=32, depth=1, token_shift=request.param)).eval()


def test_the_commonest_words_are_whole(encoder):
    assert [len(encoder.tokenizer.encode(text).ids) for text in ("a red circle", "two small blue stars")] == [3, 4]


def test_what_it_never_saw_is_spelled(encoder):
    _, mask, pooled = encoder(["une pomme de terre, été ✓"])
    assert mask.sum() > 10
    assert torch.isfinite(pooled).all()


def test_a_text_means_the_same_alone_and_in_any_batch(encoder):
    together = encoder(CAPTIONS[:3])
    for i in range(3):
        alone = encoder(CAPTIONS[i : i + 1])
        n = alone.tokens.shape[1]
        assert torch.allclose(alone.tokens[0], together.tokens[i, :n], atol=1e-5)
        assert not together.tokens[i, n:].any()
        assert torch.allclose(alone.pooled[0], together.pooled[i], atol=1e-5)


@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_text_asks_for_nothing(encoder, blank):
    if blank.strip() != blank and len(encoder.tokenizer.encode(blank).ids):
        pytest.skip("a space is a piece of this vocabulary")
    tokens, mask, pooled = encoder([blank, "a red circle"])
    assert not mask[0].any()
    assert not tokens[0].any()
    assert not pooled[0].any()


def test_it_learns_with_its_system(encoder):
    encoder(CAPTIONS[:2]).pooled.sum().backward()
    assert encoder.words.weight.grad.abs().sum() > 0
    assert not encoder.frozen


def test_saved_and_loaded_it_is_the_same(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "text")
    again = CaptionEncoder.from_pretrained(tmp_path / "text")
    assert isinstance(again, TextTower)
    assert torch.equal(again(CAPTIONS).tokens, encoder(CAPTIONS).tokens)


def test_shifted_a_token_carries_the_word_before_it():
    towers = [CaptionEncoder.of(CAPTIONS, CaptionConfig(words=400, width=32, depth=0, token_shift=on)) for on in (False, True)]
    plain, shifted = (tower(["a red circle", "two red circle", "two blue circle"]).tokens for tower in towers)
    assert torch.equal(plain[1, 2], plain[2, 2])  # without blocks each word stands alone
    assert torch.equal(shifted[0, 2], shifted[1, 2])  # one word before, not two
    assert not torch.allclose(shifted[1, 2], shifted[2, 2], atol=0.1)


def test_a_tower_from_before_there_was_a_shift_is_read_without_one(tmp_path):
    CaptionEncoder.of(CAPTIONS, CaptionConfig(words=400, width=32, depth=1)).save_pretrained(tmp_path / "text")
    config = read_json(tmp_path / "text" / "config.json")
    del config["token_shift"]
    write_json(tmp_path / "text" / "config.json", config)
    assert CaptionEncoder.from_pretrained(tmp_path / "text").before is None
    assert CaptionEncoder.of(CAPTIONS).config.token_shift  # new ones have it


def test_long_texts_are_cut(encoder):
    assert encoder(["red " * 100]).mask.shape == (1, encoder.config.max_tokens)
