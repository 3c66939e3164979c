"""From a few pictures to an adapter, from the adapter to pictures, and from those back: `personalize`, `generate`, `replay`."""

import json

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import diorama
from diorama.apps.cli import main
from diorama.conditions.caption import CaptionConfig, CaptionEncoder
from diorama.errors import UserError
from diorama.models import locate_adapter
from diorama.networks.unet import UNet, UNetConfig
from diorama.recipe import Recipe, read_recipe
from diorama.systems.images.flow import Flow

UNET = UNetConfig(channels=4, widths=(16,), depth=1, attention=(True,), heads=2, text_width=16, embedding=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a saved flow of 16 pixels that spells what it does not know."""
    text = CaptionEncoder.of(["a red square"] * 2, CaptionConfig(words=300, width=16, depth=1, heads=2))
    system = Flow(tiny.codec(), tiny.randomised(text), tiny.randomised(UNet(UNET)), (), 16)
    folder = tmp_path_factory.mktemp("models") / "speller"
    system.save_pretrained(folder, name="speller", defaults={"steps": 2})
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(3):
        Image.new("RGB", (20, 20), (200, 40 * i, 30)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(before)


def personalize(photos, model, *more):
    quick = ["--steps", "2", "--prior", "2", "--lr", "0.05", "--device", "cpu", "--dtype", "float32"]
    return main(["personalize", str(photos), "--system", str(model), *quick, *more])


@pytest.fixture(scope="module")
def adapter(photos, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "mine"
    assert personalize(photos, model, "--as", "sks square", "-o", str(folder)) == 0
    return folder


def drawn(model, *more):
    assert main(["generate", "a sks square", "--system", str(model), "--seed", "3", "-o", "x.png", *map(str, more)]) == 0
    return np.asarray(Image.open("x.png")).astype(int)


def fails(capsys, code):
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


def test_the_adapter_says_what_it_is(adapter, model):
    said = json.loads((adapter / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "speller"
    assert said["diorama"]["sentence"] == "a sks square"
    assert said["diorama"]["weights"] == diorama.load(model).weights


def test_it_is_put_on_as_strongly_as_asked(adapter, model):
    plain, worn = drawn(model), drawn(model, "--adapter", adapter)
    assert np.abs(plain - worn).max() > 5
    assert np.array_equal(drawn(model, "--adapter", f"{adapter}:0"), plain)
    assert np.array_equal(drawn(model, "--adapter", f"{adapter}:0.25", "--adapter", f"{adapter}:0.75"), worn)
    half = np.abs(drawn(model, "--adapter", f"{adapter}:0.5") - plain).sum()
    assert 0 < half < np.abs(worn - plain).sum()


def test_replay_puts_it_on_again(adapter, model, capsys):
    first = drawn(model, "--adapter", f"{adapter}:0.5")
    recipe = read_recipe("x.png")
    assert [(name, strength) for name, _, strength in recipe.adapters] == [("mine", 0.5)]
    assert f'Lora hashes: "mine: {recipe.adapters[0][1][:12]}"' in recipe.parameters
    again = ["replay", "x.png", "--system", str(model), "-o", "y.png"]
    assert main([*again, "--adapter", str(adapter)]) == 0
    assert np.array_equal(np.asarray(Image.open("y.png")), first)
    capsys.readouterr()
    assert "made with 1 adapters, 'mine' (weights" in fails(capsys, main(again))
    with pytest.raises(UserError, match="made with adapter 'mine', weights .*, strength 0.5, not with no adapter"):
        diorama.load(model).replay(recipe)


def test_a_recipe_from_a_strangers_file_is_checked(model):
    recipe = diorama.load(model).sample("a")[0].recipe
    assert Recipe.from_json(recipe.to_json()) == recipe
    for odd in ("x", [["a"]], [["a", "b", "c"]], [["a", "b", float("inf")]], [[1, "b", 1]], 3):
        with pytest.raises(UserError, match="are not lists of name, weights and strength"):
            Recipe.from_dict(recipe.to_dict() | {"adapters": odd})


def test_a_model_saved_with_it_needs_it_no_more(adapter, model):
    worn = drawn(model, "--adapter", adapter)
    diorama.load(model, adapters=[adapter]).save_pretrained("baked", name="baked")
    assert np.abs(drawn("baked") - worn).max() <= 1
    assert read_recipe("x.png").model == "baked"


def test_with_full_a_model_of_its_own_is_written(photos, model, here):
    assert personalize(photos, model, "--as", "sks square", "--full") == 0
    assert diorama.load(here / "sks-square").name == "sks-square"
    assert np.abs(drawn(here / "sks-square") - drawn(model)).max() > 5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--as", "sks"], "'sks' names no class"),
        (["--as", "red square"], "identifier 'red' means something to this model"),
        (["--as", "sks square", "--rank", "0"], "rank 0 is not allowed: use 1 or more"),
        (["--as", "sks square", "--rank", "100000"], "rank 100000 is not allowed: use 1 to 256"),
        (["--as", "sks square", "--steps", "0"], "steps 0 is not allowed: use 1 or more"),
        (["--as", "sks square", "--lr", "nan"], "lr nan is not allowed"),
        (["--as", "sks square", "-o", "taken"], "taken holds something else: name a new folder"),
    ],
)
def test_mistakes_are_told_in_one_line(photos, model, here, capsys, arguments, line):
    (here / "taken").mkdir()
    (here / "taken" / "mine.txt").touch()
    assert line in fails(capsys, personalize(photos, model, *arguments))
    assert [path.name for path in here.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ([], "no pictures in"),
        (["a.png"], "1 picture of the subject is too few: give 2 to 50"),
        (["a.png", "b.png", "broken.png"], "1 of 3 items could not be read"),
    ],
)
def test_so_are_folders_that_will_not_do(model, here, capsys, files, line):
    (here / "few").mkdir()
    for name in files:
        Image.new("RGB", (8, 8)).save(here / "few" / name)
    if "broken.png" in files:
        (here / "few" / "broken.png").write_bytes(b"no picture")
    assert line in fails(capsys, personalize(here / "few", model, "--as", "sks square"))


def test_what_is_no_adapter_is_told(adapter, model, tiny_model, here, capsys):
    assert "nowhere is no adapter" in fails(capsys, main(["generate", "a", "--adapter", "nowhere"]))
    with pytest.raises(UserError, match="strength 'much' of .*mine is not a number: write .*mine:0.8"):
        locate_adapter(f"{adapter}:much")
    with pytest.raises(UserError, match="does not fit the model"):
        diorama.load(tiny_model, adapters=[adapter])
