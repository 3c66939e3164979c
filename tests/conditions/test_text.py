import json
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import diorama
from diorama.conditions.text import SentenceConfig, SentenceEncoder, from_bert
from diorama.errors import UserError

ASSETS = Path(diorama.__path__[0]) / "assets" / "default" / "text"

# The original all-MiniLM-L6-v2 in float32 through transformers 5.23: the first 8 of 384 numbers, and the cosines between them.
SENTENCES = ["a smiling cat with sunglasses", "a red car", "fireworks over the sea"]
POOLED = [
    [0.0490, 0.0265, -0.0002, 0.0208, -0.0345, -0.0232, 0.1187, -0.0142],
    [-0.0401, 0.0325, -0.0595, 0.0584, -0.0408, 0.0697, 0.0771, 0.0473],
    [0.0175, 0.1004, 0.0302, -0.0226, 0.0482, -0.0478, 0.0341, -0.0663],
]
COSINES = [[1.0, 0.1541, 0.1216], [0.1541, 1.0, 0.0866], [0.1216, 0.0866, 1.0]]


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder.from_pretrained(ASSETS)


def test_the_shipped_encoder_is_the_original_within_int8(encoder):
    pooled = encoder(SENTENCES).pooled
    assert torch.allclose(pooled[:, :8], torch.tensor(POOLED), atol=0.004)
    assert torch.allclose(pooled @ pooled.T, torch.tensor(COSINES), atol=0.01)


def test_shapes_and_lengths(encoder):
    tokens, mask, pooled = encoder(SENTENCES)
    assert tokens.shape == (3, 7, 384)
    assert mask.sum(1).tolist() == [7, 5, 6]  # the words and the two special tokens
    assert mask.dtype == torch.bool
    assert pooled.shape == (3, 384)
    assert torch.allclose(pooled.norm(dim=-1), torch.ones(3))
    assert not tokens[~mask].any()


def test_a_text_means_the_same_alone_and_in_any_batch(encoder):
    texts = [*SENTENCES, "", "x", "a very long sentence about nothing in particular that goes on and on until it is cut"]
    together = encoder(texts)
    for i, text in enumerate(texts):
        alone = encoder([text])
        n = alone.tokens.shape[1]
        assert torch.allclose(together.tokens[i, :n], alone.tokens[0], atol=1e-5)
        assert torch.equal(together.mask[i, :n], alone.mask[0])
        assert torch.allclose(together.pooled[i], alone.pooled[0], atol=1e-5)


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u200b\u00a0"])
def test_a_blank_text_asks_for_nothing(encoder, blank):
    tokens, mask, pooled = encoder([blank])
    assert tokens.shape == (1, 1, 384)
    assert not any(part.any() for part in (tokens, mask, pooled))
    tokens, mask, pooled = encoder(["a cat", blank])
    assert mask.tolist() == [[True] * 4, [False] * 4]
    assert tokens.any((1, 2)).tolist() == pooled.any(1).tolist() == [True, False]


def test_no_text_at_all(encoder):
    tokens, mask, pooled = encoder([])
    assert (tokens.shape, mask.shape, pooled.shape) == ((0, 1, 384), (0, 1), (0, 384))


def test_near_in_meaning_is_near(encoder):
    cat, car, kitty, automobile = encoder(["cat", "car", "kitty", "automobile"]).pooled
    assert kitty @ cat > kitty @ car + 0.2
    assert automobile @ car > automobile @ cat + 0.2


def test_every_word_of_ascii_letters_has_pieces(encoder):
    table = encoder.tokenizer.get_vocab()
    for letter in string.ascii_lowercase + string.digits:
        assert {letter, "##" + letter} <= table.keys()
    assert "[UNK]" not in encoder.tokenizer.encode("qzxjv wqk7z supercalifragilistic! #@?&").tokens


def test_common_asks_are_whole_words(encoder):
    for text in ("a turquoise volcano", "two knives and a snowman", "a watercolor portrait", "three octopuses made of steel"):
        assert not [piece for piece in encoder.tokenizer.encode(text).tokens if len(piece) == 1 and piece != "a"]


def test_case_and_accents_do_not_matter(encoder):
    pooled = encoder(["A Café", "a cafe"]).pooled
    assert torch.allclose(pooled[0], pooled[1], atol=1e-5)


def test_long_texts_are_cut(encoder):
    assert encoder(["cat " * 100]).tokens.shape[1] == encoder.config.max_tokens == 24


def test_it_is_frozen_and_stays_so(encoder):
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder(["a cat"]).pooled.requires_grad
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())


def test_it_means_the_same_inside_an_autocast(encoder):
    expected = encoder(SENTENCES).pooled
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(SENTENCES).pooled, expected)


@pytest.mark.parametrize(("storage", "atol"), [("float32", 0.0), ("bfloat16", 0.005), ("int8", 1e-5)])
def test_saved_and_loaded_it_is_the_same(encoder, tmp_path, storage, atol):
    encoder.save_pretrained(tmp_path / "text", storage)
    assert sorted(p.name for p in (tmp_path / "text").iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    again = SentenceEncoder.from_pretrained(tmp_path / "text")
    assert again.config == encoder.config
    assert not any(p.requires_grad or p.is_meta for p in again.parameters())
    assert torch.allclose(again(SENTENCES).pooled, encoder(SENTENCES).pooled, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_told_in_one_line(tmp_path, name):
    shutil.copytree(ASSETS, tmp_path, dirs_exist_ok=True)
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:100]), Path.unlink):
        damage(tmp_path / name)
        with pytest.raises(UserError, match=name) as caught:
            SentenceEncoder.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"width": 96}, "does not fit"),
        ({"depth": 5}, "does not fit"),
        ({"colour": 1}, "does not describe"),
        ({"format_version": 99}, "update diorama"),
        ({"max_tokens": 65}, "use 3 to 64"),
    ],
)
def test_a_config_that_does_not_fit_is_told_in_one_line(tmp_path, change, line):
    shutil.copytree(ASSETS, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=line) as caught:
        SentenceEncoder.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_loading_is_light():
    """Drawing normal numbers on the meta device would import torch._dynamo and sympy, two seconds for nothing."""
    code = f"""
import sys
from diorama.conditions.text import SentenceEncoder
before = set(sys.modules)
SentenceEncoder.from_pretrained({str(ASSETS)!r})
heavy = {{"sympy", "torch._dynamo"}} & (set(sys.modules) - before)
sys.exit(str(heavy) if heavy else 0)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_string_is_not_a_batch(encoder):
    with pytest.raises(TypeError, match="list of strings"):
        encoder("a cat")


def test_the_published_size():
    """22,713,216 is all-MiniLM-L6-v2 with BERT's unused pooler (384 x 385) and both token types (2 x 384)."""
    with torch.device("meta"):
        model = SentenceEncoder(SentenceConfig(), Tokenizer.from_file(str(ASSETS / "tokenizer.json")))
    assert sum(p.numel() for p in model.parameters()) == 22_713_216 - 384 * 385 - 2 * 384


def test_it_is_transformers_own_bert(encoder):
    transformers = pytest.importorskip("transformers")
    config = SentenceConfig(words=encoder.config.words, positions=32, width=32, depth=3, heads=4, hidden=48)
    torch.manual_seed(0)
    theirs = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=config.words,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=config.hidden,
            max_position_embeddings=config.positions,
            layer_norm_eps=config.eps,
            initializer_range=0.3,
        ),
    ).eval()
    ours = SentenceEncoder(config, Tokenizer.from_str(encoder.tokenizer.to_str()))
    ours.load_state_dict(from_bert(theirs.state_dict()))
    ids, mask = ours.pieces(SENTENCES)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    assert torch.allclose(ours(SENTENCES).tokens[mask], expected[mask], atol=1e-5)
