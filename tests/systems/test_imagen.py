from dataclasses import replace

import pytest
import tiny
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import diorama
from diorama import cards
from diorama.conditions.text import SentenceConfig, SentenceEncoder
from diorama.errors import UserError
from diorama.networks.unet import UNet, UNetConfig
from diorama.processes.cascade import resized
from diorama.systems.images.imagen import PRESETS, Imagen, cropped
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

BASE = UNetConfig(channels=4, widths=(16,), depth=1, attention=(True,), heads=2, text_width=16, embedding=16, levels=1.0)
LARGER = replace(BASE, given=4, augmented=True, patch=2, attention=(False,), own=False)


@pytest.fixture
def system():
    torch.manual_seed(0)
    return Imagen(tiny.sentence_encoder(), UNet(BASE), UNet(LARGER), UNet(LARGER), 2, 32).eval()


def batch(step=0, rank=0, world=1):
    colour = torch.tensor([-0.8, 0.8]).repeat(4)[:, None, None, None]
    return Batch(colour.expand(8, 4, 32, 32).contiguous(), ["a red thing", "a blue thing"] * 4)


def randomised(system):
    for network in (system.base, system.middle, system.top):
        tiny.randomised(network)
    return system


def test_a_picture_is_the_same_alone_and_in_a_batch(system):
    prompts = ["a red thing", "", "round"]
    together = randomised(system).sample(prompts, steps=3, negative=["a", "", "square"], noise=Noise([5, 6, 7]))
    assert together.shape == (3, 4, 32, 32)
    for i, negative in enumerate(["a", "", "square"]):
        alone = system.sample(prompts[i : i + 1], steps=3, negative=[negative], noise=Noise([5 + i]))
        assert torch.allclose(alone[0], together[i], atol=1e-3)


def test_words_and_what_to_keep_away_from_matter(system):
    ways = [{}, {"negative": ["round"]}, {"guidance": 1.0}, {"solver": "euler"}, {"augmentation": 0.9}, {"share": 0.5}]
    pictures = [randomised(system).sample(["a red thing"], steps=3, noise=Noise([1]), **way) for way in ways]
    pictures.append(system.sample(["a blue thing"], steps=3, noise=Noise([1])))
    assert all((picture - pictures[0]).abs().max() > 1e-3 for picture in pictures[1:])


def test_each_stage_learns_for_itself_and_the_words_stay(system):
    def losses():
        with torch.no_grad():
            return torch.stack([phase.loss(batch(), Noise(range(8))).mean() for phase in system.phases()])

    before, text = losses(), tiny.weights(system.text)
    phases = system.phases()
    assert [phase.name for phase in phases] == ["base", "middle", "top"]
    assert sum(len(phase.parameters) for phase in phases) == sum(p.requires_grad for p in system.parameters())
    fit(system, batch, Plan(steps=12, batch=8, lr=1e-2, warmup=2, ema=0.5, device="cpu", dtype="float32"))
    assert (losses() < 0.9 * before).all()
    assert torch.equal(text, tiny.weights(system.text))


def test_larger_stages_are_shown_all_levels_of_noise_and_told_which(system, monkeypatch):
    seen = []

    def watch(x, c_noise, condition):
        seen.append((x, condition))
        return torch.zeros_like(x)

    monkeypatch.setattr(system.middle, "forward", watch)
    monkeypatch.setattr(system.top, "forward", watch)
    for stage in (1, 2):
        system.stage_loss(stage, batch(), Noise(range(8)))
    for x, condition in seen:  # the last learns on pieces of the size the one before it makes
        level = condition.extra["augmentation"]
        assert x.shape == condition.image.shape == (8, 4, 16, 16)
        assert level.min() < 0.3
        assert level.max() > 0.7
        mean = (1 - level) * batch().image[:, 0, 0, 0]
        assert torch.allclose(condition.image.mean((1, 2, 3)), mean, atol=0.2)


def test_pieces_are_pieces():
    image = resized(Noise(range(3)).normal(2, 4, 4), (16, 16))
    pieces = cropped(image, 5, Noise(range(3)))
    for x, piece in zip(image, pieces, strict=True):
        windows = x.unfold(1, 5, 1).unfold(2, 5, 1)
        assert (windows == piece[:, None, None]).all(0).all(-1).all(-1).sum() == 1


def test_the_front_door_opens(system, tmp_path):
    randomised(system).save_pretrained(tmp_path / "model")
    picture = diorama.load(tmp_path / "model", dtype="float32").sample("a red thing", steps=2, solver="euler")[0]
    assert picture.size == (32, 32)
    assert picture.recipe.model == "model"


def test_published_sizes():
    """With the 4096 channels of T5-XXL. The larger stages have 600 and 400 M in the paper, which gives both one shape (app. F.3)."""
    _, shapes = PRESETS["paper"]
    with torch.device("meta"):
        base, middle, top = (sum(p.numel() for p in UNet(replace(shape, text_width=4096)).parameters()) / 1e6 for shape in shapes)
    assert base + middle + top == pytest.approx(cards.IMAGEN.published["parameters"] / 1e6, rel=0.03)
    assert middle + top == pytest.approx(600 + 400, rel=0.03)


def test_sizes_that_do_not_fit_are_told():
    text = SentenceEncoder(SentenceConfig(words=8, depth=1), Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UserError, match="size 30 is not a multiple of 4: use 28"):
        Imagen.new(preset="nano", size=30, labels=(), part=lambda name, kind: text)
    with pytest.raises(UserError, match="preset 'huge'"):
        Imagen.new(preset="huge", size=32, labels=(), part=lambda name, kind: text)
