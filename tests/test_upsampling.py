"""Pictures larger than the model makes them: by the upsampler its index names, where that is shipped, else resampled."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

import diorama
from diorama import pipeline
from diorama.errors import UserError
from diorama.models import INDEX, weights_hash
from diorama.networks.unet import UNet
from diorama.recipe import Recipe, read_recipe
from diorama.systems.images.upsampler import Upsampler


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    Upsampler(tiny.randomised(UNet(tiny.ENLARGING)), 32).save_pretrained(folder / "larger")
    return folder


@pytest.fixture
def model(tiny_model, shipped, tmp_path, monkeypatch):
    """The tiny model of 32 pixels, its index naming the upsampler."""
    folder = shutil.copytree(tiny_model, tmp_path / "tiny")
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "upsampler": "larger"}))
    monkeypatch.setattr(pipeline, "asset", lambda name: shipped / name)
    monkeypatch.setattr(pipeline, "shipped", lambda: [path.name for path in shipped.iterdir()])
    return diorama.load(folder, dtype="float32", threads=1)


def plain(tiny_model):
    return diorama.load(tiny_model, dtype="float32", threads=1)


def test_a_larger_picture_is_the_upsampler_s_and_says_so(model, tiny_model, shipped):
    larger, resampled = (m.sample("a red apple", seed=3, size=64)[0] for m in (model, plain(tiny_model)))
    assert larger.size == resampled.size == (64, 64)
    assert np.abs(np.asarray(larger).astype(int) - np.asarray(resampled)).mean() > 1
    assert larger.recipe.upsampler == weights_hash(shipped / "larger")
    assert resampled.recipe.upsampler == ""


@pytest.mark.parametrize("size", [16, 32])
def test_what_is_not_larger_is_as_it_was(model, tiny_model, size):
    pictures = [m.sample("a red apple", seed=3, size=size)[0] for m in (model, plain(tiny_model))]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert pictures[0].recipe.upsampler == ""


def test_any_size_transparent_or_not(model):
    sizes = [48, 64, 100, 128, 200]
    pictures = [model.sample("robot", size=size, transparent=True, steps=1)[0] for size in sizes]
    assert [(p.size, p.mode) for p in pictures] == [((size, size), "RGBA") for size in sizes]


def test_replay_is_bit_for_bit_with_and_without(model, tiny_model, tmp_path):
    for i, made in enumerate(
        [model.sample(["a", "robot", "sea"], seed=1, size=64)[2], plain(tiny_model).sample("a", size=64)[0]]
    ):
        made.save(tmp_path / f"{i}.png")
        assert model.replay(read_recipe(tmp_path / f"{i}.png")).tobytes() == made.tobytes()


def test_a_picture_of_another_upsampler_is_refused(model, tiny_model):
    recipe = model.sample("a", size=64)[0].recipe
    for other, mended in ((model, replace(recipe, upsampler="0" * 64)), (plain(tiny_model), recipe)):
        with pytest.raises(UserError, match="enlarged by an upsampler"):
            other.replay(mended)


def test_a_recipe_from_before_there_were_any_is_still_read(model):
    values = model.sample("a", size=64)[0].recipe.to_dict()
    del values["upsampler"]
    assert Recipe.from_dict(values).upsampler == ""


def test_a_picture_does_not_depend_on_its_neighbours(model):
    together = model.sample(["a", "robot", "sea"], seed=5, size=64)
    for i, word in enumerate(["a", "robot", "sea"]):
        alone = np.asarray(model.sample(word, seed=5 + i, size=64)[0]).astype(int)
        assert np.abs(alone - np.asarray(together[i])).max() <= 1


def test_a_name_that_is_not_shipped_changes_nothing(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "tiny")
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "upsampler": "not-there"}))
    pictures = [m.sample("a", size=64)[0] for m in (diorama.load(folder, dtype="float32", threads=1), plain(tiny_model))]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert torch.get_num_threads() == 1
