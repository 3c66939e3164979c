"""Compile, clean, carry on: each step on a set with known answers."""

import pytest
import tiny
import torch
from PIL import Image, ImageDraw

from diorama.data import Item, Unreadable
from diorama.data.batches import Batches
from diorama.data.curate import Limits, tensor
from diorama.networks.towers import TowerConfig
from diorama.systems.images.flow import Flow
from diorama.systems.images.foodfusion import FoodFusion, cleaned, compiled, fitting, retrieve
from diorama.systems.understanding.clip import Clip
from diorama.train import Parts
from diorama.training.loop import fit
from diorama.training.plan import Plan
from diorama.types import Batch, Noise

QUERIES = ["a red square", "a blue thing", "a round thing"]


class Squares:
    """n pictures of no two squares alike, one of which is broken; the last repeats the first."""

    labels = ()

    def __init__(self, n, broken=5):
        self.n, self.broken = n, broken

    def __len__(self):
        return self.n

    def record(self, i):
        return {"key": str(i), "text": f"a {list(tiny.COLOURS)[i % 3]} square", "label": None}

    def read(self, i):
        if i == self.broken:
            raise Unreadable(f"{i}: cut short")
        k = 0 if i == self.n - 1 else i
        image = Image.new("RGBA", (32, 32), "white")
        ImageDraw.Draw(image).rectangle((k % 8, k // 8, k % 8 + 8 + k % 5, k // 8 + 16), list(tiny.COLOURS.values())[k % 3])
        return Item(str(i), image, self.record(i)["text"])


@pytest.fixture(scope="module")
def clip():
    tower = TowerConfig(size=16, patch=2, widths=(16, 16))
    return tiny.randomised(Clip.build(tiny.sentence_encoder(), [], tower)).eval()


def test_retrieval_finds_what_sorting_all_finds(clip):
    source = Squares(90)
    places = [i for i in range(90) if i != source.broken]
    image = tensor([source.read(i).image for i in places], 16)
    with torch.no_grad():
        near = clip.encode_text(QUERIES) @ clip.encode_image(image).T
    best = {places[k] for row in near.topk(7).indices.tolist() for k in row}
    found = retrieve(source, QUERIES, clip, 7)
    assert set(found.indices) == best
    assert found.indices == tuple(sorted(found.indices))
    assert len(compiled([source, Squares(4)], QUERIES, clip, 7)) == len(best) + 4


def test_a_score_is_the_cosine_less_that_of_what_it_should_not_be(clip):
    image, texts = tensor([Squares(9).read(i).image for i in range(3)], 16), ["a red square", "a green square", "a blue square"]
    with torch.no_grad():
        every = clip.encode_image(image) @ clip.encode_text([*texts, *QUERIES]).T
    torch.testing.assert_close(fitting(clip)(image, texts), every.diagonal())
    torch.testing.assert_close(fitting(clip, QUERIES)(image, texts), every.diagonal() - every[:, 3:].amax(1))


def test_cleaning_leaves_out_what_is_broken_or_repeated(clip):
    assert cleaned(Squares(20), clip, Limits(worst=0.0)).indices == tuple(i for i in range(19) if i != 5)


def test_it_begins_where_its_base_stood_and_only_the_network_learns(tiny_model):
    base = Flow.from_pretrained(tiny_model)
    system = FoodFusion.carry_on(Flow.from_pretrained(tiny_model))
    new = FoodFusion.new(preset="mini", size=32, labels=["a"], part=Parts([tiny_model], Squares(8)))
    for name in ("codec", "text", "network"):
        expected = tiny.weights(getattr(base, name))
        assert torch.equal(tiny.weights(getattr(system, name)), expected)
        assert torch.equal(tiny.weights(getattr(new, name)), expected)
    fit(system, Batches(Squares(8), 32, 4, 0), Plan(steps=2, batch=4, warmup=1, ema=0.0, device="cpu", dtype="float32"))
    for name, learned in (("codec", False), ("text", False), ("network", True)):
        assert torch.equal(tiny.weights(getattr(system, name)), tiny.weights(getattr(base, name))) is not learned


def test_it_is_saved_and_read_back(tiny_model, tmp_path):
    system = FoodFusion.carry_on(Flow.from_pretrained(tiny_model))
    system.save_pretrained(tmp_path / "model")
    again = FoodFusion.from_pretrained(tmp_path / "model")
    batch = Batch(torch.zeros(1, 4, 32, 32), ["a red thing"], torch.tensor([1]))  # its label is none of the model's
    assert torch.equal(system.look(batch, Noise([3])), again.look(batch, Noise([3])))
