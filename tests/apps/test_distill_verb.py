"""From sentences to an adapter of a few steps, and from that to pictures: `distill`, `generate`, `replay`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import diorama
from diorama.apps.cli import main
from diorama.assets import asset
from diorama.models import fast_adapter, locate
from diorama.networks.lora import told_of
from diorama.recipe import read_recipe

QUICK = ["--steps", "2", "--paths", "3", "--into", "2", "--rank", "2", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(before)


def distill(model, *more):
    rows = [{"prompt": "a red square", "style": "noto"}, {"prompt": "a round thing", "style": None}]
    with open("asked.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return main(["distill", "asked.jsonl", "--system", str(model), *QUICK, *more])


def drawn(*words):
    assert main(["generate", "a red square", "--seed", "3", "-o", "x.png", *map(str, words)]) == 0
    return np.asarray(Image.open("x.png")).astype(int), read_recipe("x.png")


def fails(capsys, code):
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


def test_the_adapter_brings_its_own_steps_and_a_person_may_ask_for_others(tiny_model, here):
    assert distill(tiny_model) == 0
    assert not any((here / "cache" / "diorama" / "distill").iterdir())
    worn = ["--system", tiny_model, "--adapter", "fast"]
    picture, recipe = drawn(*worn)
    assert (recipe.steps, recipe.guidance, recipe.solver) == (2, 1.0, "euler")
    assert drawn("--system", tiny_model)[1].steps == 4
    assert drawn(*worn, "--steps", "5", "--guidance", "2")[1].steps == 5
    diorama.load(tiny_model, adapters=["fast"]).save_pretrained("baked", name="baked")
    baked, own = drawn("--system", "baked")
    assert (own.steps, own.guidance, own.adapters) == (2, 1.0, ())
    assert np.abs(baked - picture).max() <= 1


def test_the_shipped_one_is_worn_by_a_word_and_found_again_by_replay(capsys):
    fast, recipe = drawn("--fast", "--device", "cpu")
    (name, _, strength), folder = recipe.adapters[0], locate("default")
    assert (name, strength, len(recipe.adapters)) == (fast_adapter(folder), 1.0, 1)
    assert told_of(asset(name))["weights"] == recipe.weights  # it was made for these
    assert sum(file.stat().st_size for file in asset(name).iterdir()) < 2_000_000
    assert recipe.steps * (2 if recipe.guidance != 1 else 1) * 5 <= 24  # evaluations: a fifth of the default's
    assert main(["replay", "x.png", "-o", "y.png", "--device", "cpu"]) == 0
    assert np.array_equal(np.asarray(Image.open("y.png")), fast)
    capsys.readouterr()
    assert "made with 1 adapters" in fails(capsys, main(["replay", "x.png", "--adapter", "one", "--adapter", "two"]))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--into", "0"], "into 0 is not allowed: use 1 or more"),
        (["--paths", "0"], "paths 0 is not allowed: use 1 or more"),
        (["--rank", "300"], "rank 300 is not allowed: use 1 to 256"),
        (["--lr", "-1"], "lr -1.0 is not allowed"),
        (["-o", "cache"], "cache holds something else"),
    ],
)
def test_mistakes_are_told_in_one_line(tiny_model, here, capsys, more, line):
    (here / "cache" / "diorama").mkdir(parents=True)
    assert line in fails(capsys, distill(tiny_model, *more))


def test_a_style_that_is_not_there_is_told(tiny_model, capsys):
    with open("odd.jsonl", "w") as file:
        file.write('{"prompt": "a", "style": "cubist"}\n')
    assert "style 'cubist' is not known" in fails(capsys, main(["distill", "odd.jsonl", "--system", str(tiny_model)]))


def test_a_model_without_one_says_so(tiny_model, capsys):
    assert "tiny has no fast adapter: make one with" in fails(
        capsys, main(["generate", "a", "--fast", "--system", str(tiny_model)])
    )
