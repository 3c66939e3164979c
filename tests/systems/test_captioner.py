import json

import pytest
import tiny
import torch

from diorama.conditions.caption import CaptionEncoder
from diorama.conditions.writer import Writer, WriterConfig
from diorama.errors import UserError
from diorama.networks.vit import ViT, ViTConfig
from diorama.sources import Data, Worlds
from diorama.systems.base import load_system
from diorama.systems.understanding.captioner import FORMS, Captioner
from diorama.train import Parts, train
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise
from diorama.worlds.captions import caption
from diorama.worlds.source import World

LONG, SHORT = ["a large red square", "a large blue square", "a large white square"], ["red", "blue", "white"]
PLAN = Plan(steps=2, batch=4, warmup=1, device="cpu", dtype="float32")


def built(seed=0):
    torch.manual_seed(seed)
    look = ViTConfig(size=16, patch=8, width=16, depth=1, heads=2)
    words = WriterConfig(words=300, width=24, depth=1, heads=2, max_tokens=6, read=16, forms=2)
    return Captioner(ViT(look), Writer(words, CaptionEncoder.of(LONG * 4).tokenizer))


def pictures():
    colours = torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    return colours[:, :, None, None].expand(3, 3, 32, 32).contiguous()  # larger than it looks at


def whole(short=SHORT):
    return Batch(pictures(), LONG, short=short)


def test_a_loss_of_one_sample_does_not_know_its_batch():
    captioner = tiny.randomised(built())
    batch = whole(["red", "", "white"])
    alone = [captioner.loss(Batch(batch.image[[i]], LONG[i : i + 1], short=batch.short[i : i + 1]), Noise([i])) for i in range(3)]
    torch.testing.assert_close(captioner.loss(batch, Noise(range(3))), torch.cat(alone))
    assert torch.equal(
        alone[1], captioner.loss(Batch(batch.image[[1]], LONG[1:2]), Noise([1]))
    )  # no short words, no loss of them


def test_it_learns_to_say_what_it_sees_in_both_forms():
    captioner = built()
    plan = Plan(steps=80, batch=3, lr=1e-2, warmup=5, ema=0.9, device="cpu", dtype="float32")
    fit(captioner, lambda step, rank=0, world=1: whole(), plan)
    captioner.eval()
    shuffled = [2, 0, 1]
    for form, words in zip(FORMS, (LONG, SHORT), strict=True):
        assert captioner.caption(pictures()[shuffled], form, noise=Noise(range(3))) == [words[i] for i in shuffled]
    with pytest.raises(UserError, match="form 'loud' is not known: use descriptive or short"):
        captioner.caption(pictures(), "loud", noise=Noise(range(3)))


def test_every_weight_learns_and_it_is_saved_and_read_back(tmp_path):
    captioner = tiny.randomised(built())
    captioner.loss(whole(), Noise(range(3))).mean().backward()
    assert all(p.grad is not None for p in captioner.parameters())
    captioner.save_pretrained(tmp_path / "model")
    again = load_system(tmp_path / "model")
    said = [c.eval().caption(pictures(), temperature=1.0, noise=Noise(range(3))) for c in (captioner, again)]
    assert said[0] == said[1]


def test_it_trains_on_pictures(picture_folder, tmp_path):
    train("captioner", Data(path=picture_folder, size=16), tmp_path / "run", PLAN, preset="nano", say=lambda line: None)
    assert len(load_system(tmp_path / "run" / "model").caption(pictures(), "short", noise=Noise(range(3)))) == 3


def test_the_world_is_asked_for_both_forms(tmp_path, monkeypatch):
    monkeypatch.setattr(Parts, "WORDS_FROM", 40)
    train("captioner", Worlds(size=32), tmp_path / "run", PLAN, preset="nano", say=lambda line: None)
    assert json.loads((tmp_path / "run" / "train.json").read_text())["form"] == "long"
    world = World(3, 4, 32, form="long")
    assert world.batch(1, 3).short == [caption(world.scene(i), form="short") for i in (1, 2, 3)]
    assert not World(3, 4, 32, form="short").batch(1, 3).short
