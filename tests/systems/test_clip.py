import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from diorama.conditions.text import SentenceConfig, SentenceEncoder
from diorama.critics.contrastive import info_nce, same
from diorama.data.augment import augment
from diorama.errors import UserError
from diorama.networks.towers import TowerConfig
from diorama.systems.base import load_system
from diorama.systems.understanding.clip import Clip
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0), "black": (-1.0, -1.0, -1.0)}
NAMES = list(COLOURS)


def sentence_encoder() -> SentenceEncoder:
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "square", *NAMES])}
    tokenizer = Tokenizer(WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    config = SentenceConfig(words=len(words), positions=8, width=32, depth=1, heads=2, hidden=32, max_tokens=8)
    encoder = SentenceEncoder(config, tokenizer)
    torch.nn.init.normal_(encoder.words.weight)
    return encoder


def clip() -> Clip:
    return Clip.build(sentence_encoder(), ["flat", "framed"], TowerConfig(size=16, patch=2, widths=(16, 32)))


def squares(step: int, rank: int = 0, world: int = 1, n: int = 32) -> Batch:
    """Coloured squares on white at different places; the second style has a black frame."""
    colour = torch.arange(n) % 4
    style = torch.arange(n) // 4 % 2
    image = torch.ones(n, 4, 16, 16)
    for i in range(n):
        x, y = 3 + (step + i) % 4, 3 + (3 * step + i) % 4
        image[i, :3, y : y + 6, x : x + 6] = torch.tensor(COLOURS[NAMES[colour[i]]])[:, None, None]
        if style[i]:
            image[i, :3, 0], image[i, :3, -1] = -1, -1
    return Batch(image, [f"{NAMES[c]} square" for c in colour], style)


@pytest.fixture(scope="module")
def trained() -> Clip:
    system = clip()
    fit(system, squares, Plan(steps=60, batch=32, lr=3e-3, warmup=5, ema=0.8, sample_every=60, device="cpu", dtype="float32"))
    return system


@torch.no_grad()
def test_four_coloured_squares_are_told_apart(trained: Clip):
    batch = squares(1000)
    found = (trained.encode_image(batch.image) @ trained.encode_text([f"{name} square" for name in NAMES]).T).argmax(1)
    assert found.tolist() == [i % 4 for i in range(32)]
    assert trained.style_of(batch.image).tolist() == batch.label.tolist()


@torch.no_grad()
def test_it_is_the_same_after_a_journey_over_the_disk(trained: Clip, tmp_path):
    trained.save_pretrained(tmp_path / "clip")
    loaded, batch = load_system(tmp_path / "clip"), squares(7)
    assert torch.equal(loaded.encode_image(batch.image), trained.encode_image(batch.image))
    assert torch.equal(loaded.encode_text(batch.text), trained.encode_text(batch.text))
    assert loaded.styles == trained.styles


def test_the_score_has_a_gradient_in_the_picture(trained: Clip):
    image = squares(0).image[:2].requires_grad_()
    trained.encode_image(image)[:, 0].sum().backward()
    assert image.grad[:, :3].abs().amax((1, 2, 3)).min() > 0


def test_the_same_sentence_is_no_negative():
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    texts = torch.eye(3)[[0, 1, 0, 2]]
    worse = logits.clone()
    worse[0, 2] = worse[2, 0] = 50.0  # fits the other picture of the same sentence perfectly: no reason to complain
    assert torch.equal(info_nce(logits, same(texts)), info_nce(worse, same(texts)))
    worse[0, 1] = 50.0
    assert info_nce(worse, same(texts))[0] > 20


def test_info_nce_is_the_cross_entropy_of_both_directions():
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    p, q = logits.softmax(1).diagonal(), logits.softmax(0).diagonal()
    assert torch.allclose(info_nce(logits, torch.eye(5, dtype=torch.bool)), -(p.log() + q.log()) / 2)


def test_augmentation_keeps_white_white_and_a_sample_its_own():
    noise: list[Tensor] = [augment(torch.ones(3, 3, 16, 16), Noise([1, 2, 3]))]
    assert torch.equal(noise[0], torch.ones(3, 3, 16, 16))
    x = squares(0).image[:3, :3]
    assert torch.equal(augment(x, Noise([1, 2, 3]))[1:2], augment(x[1:2], Noise([2])))


def test_a_size_that_does_not_fit_the_tower_is_refused():
    with pytest.raises(UserError, match="size 20 is not a multiple of 8: use 24"):
        Clip.build(sentence_encoder(), [], TowerConfig(size=20, patch=2, widths=(8, 8, 8)))


def test_without_styles_there_is_no_style_to_tell():
    system = Clip.build(sentence_encoder(), [], TowerConfig(size=16, patch=2, widths=(8, 8)))
    assert system(0, squares(0), Noise(range(32))).shape == (32,)
    with pytest.raises(UserError, match="without styles"):
        system.style_of(squares(0).image)
