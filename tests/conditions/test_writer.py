import pytest
import tiny
import torch

from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.conditions.writer import Writer, WriterConfig
from diorama.types import MASK, Condition, Noise, TextEmbedding

TEXTS = ["a red circle and a blue star", "a red circle", ""]
CONFIG = WriterConfig(words=300, width=16, depth=1, heads=2, max_tokens=12, read=8, forms=2)


@pytest.fixture(scope="module")
def reader():
    return CaptionEncoder.of(TEXTS * 4, CaptionConfig(words=300, width=8, depth=1, heads=2, max_tokens=4))


@pytest.fixture(scope="module")
def writer(reader):
    return tiny.randomised(Writer(CONFIG, reader.tokenizer)).eval()


def test_what_is_spelled_reads_as_it_was(writer):
    tokens = writer.spelled(TEXTS)
    assert writer.read_out(tokens) == TEXTS
    assert [row.tolist().count(writer.end) for row in tokens] == [1, 1, 1]
    assert (tokens[2] == MASK).sum() == tokens.shape[1] - 1  # END, and then nothing is asked
    assert writer.read_out(writer.spelled(["ÅSA's  cat"])) == ["åsa's  cat"]  # what it never saw, in bytes


def test_it_cuts_by_its_own_length_and_not_by_the_reader_s(writer, reader):
    assert reader.pieces(TEXTS)[0].shape[1] == 4
    assert writer.read_out(writer.spelled([TEXTS[0]])) == [TEXTS[0]]
    assert writer.spelled(["a red circle " * 9]).shape[1] == CONFIG.max_tokens + 1  # END always has a place


@torch.no_grad()
def test_what_it_reads_and_the_form_change_what_it_writes_and_later_tokens_do_not(writer):
    tokens, read = writer.spelled(TEXTS[:1]), Noise([0]).normal(3, 8)

    def logits(tokens, read, form):
        text = TextEmbedding(read, torch.ones(1, 3, dtype=torch.bool), read.mean(1))
        return writer(tokens, Condition(text=text, label=torch.tensor([form])))

    first = logits(tokens, read, 0)
    assert first.shape == (*tokens.shape, CONFIG.words + 1)
    assert not torch.allclose(logits(tokens, -read, 0), first, atol=1e-3)
    assert not torch.allclose(logits(tokens, read, 1), first, atol=1e-3)
    later = tokens.clone()
    later[:, 3:] = MASK
    torch.testing.assert_close(logits(later, read, 0)[:, :4], first[:, :4])  # the fourth is told from the three before it
    torch.testing.assert_close(logits(tokens[:, :4], read, 0), first[:, :4])


def test_saved_and_loaded_it_is_the_same(writer, tmp_path):
    writer.save_pretrained(tmp_path / "writer")
    again = Writer.from_pretrained(tmp_path / "writer")
    assert torch.equal(tiny.weights(writer), tiny.weights(again))
    assert again.read_out(again.spelled(TEXTS)) == TEXTS
