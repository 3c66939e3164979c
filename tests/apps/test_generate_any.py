"""`diorama generate` and `replay` with models that are asked by class or for nothing; `train` with several bases."""

from pathlib import Path

import pytest
import tiny_painters
import torch

import diorama.train
from diorama.apps.cli import main
from diorama.recipe import read_recipe, read_recipes


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_painters.save(tmp_path_factory.mktemp("painters"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def names():
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize(
    ("slug", "words"), [("ddpm", []), ("rcg", []), ("guided-diffusion", ["star"]), ("masked-tokens", ["a red square"])]
)
def test_a_picture_and_its_replay_are_the_same_file(folders, slug, words, capsys):
    system = ["--system", str(folders[slug])]
    assert main(["generate", *words, "--n", "2", "--steps", "2", "--seed", "5", "-o", "x.png", *system]) == 0
    assert names() == ["x-1.png", "x-2.png"]
    for i in (1, 2):
        assert read_recipe(f"x-{i}.png").seed == 4 + i
        assert main(["replay", f"x-{i}.png", "-o", "again.png", *system]) == 0
        assert Path("again.png").read_bytes() == Path(f"x-{i}.png").read_bytes()
    assert capsys.readouterr().err == ""


def test_without_a_sentence_any_class_is_made(folders):
    system = ["--system", str(folders["guided-diffusion"])]
    assert main(["generate", "--steps", "1", "--seed", "3", *system]) == 0
    assert names() == ["picture-3.png"]
    assert main(["generate", "star", "circle", "--steps", "1", "--grid", "-o", "sheet.png", *system]) == 0
    assert [recipe.prompt for recipe in read_recipes("sheet.png")] == ["Star", "circle"]


@pytest.mark.parametrize(
    ("slug", "arguments", "words"),
    [
        ("ddpm", ["a cat"], "prompt 'a cat' is not allowed: the model ddpm is asked for nothing, leave it out"),
        ("ddpm", ["--transparent"], "makes RGB"),
        ("rcg", ["--solver", "heun"], "takes none"),
        ("guided-diffusion", ["stair"], "class 'stair' is not known: use Star"),
        ("masked-tokens", [], "nothing to draw"),
    ],
)
def test_what_a_model_does_not_take_is_one_line_and_no_file(folders, slug, arguments, words, capsys):
    assert main(["generate", *arguments, "--system", str(folders[slug])]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert names() == []


# --- train ----------------------------------------------------------------------------------------


def test_several_bases_are_handed_on_in_their_order(folders, monkeypatch):
    seen = {}
    monkeypatch.setattr(diorama.train, "train", lambda *_, **options: seen.update(options))
    rcg = tiny_painters.rcg()
    Path("parts").mkdir()
    rcg.encoder.save_pretrained("parts/encoder")  # a folder of parts will do, whichever they are
    flags = ["--data", "world", "--out", "runs/x"]
    assert main(["train", "rcg", *flags, "--base", "parts", str(folders["rcg"])]) == 0
    assert seen["base"] == [Path("parts"), folders["rcg"]]
    assert main(["train", "rcg", *flags]) == 0
    assert seen["base"] == []


def test_each_base_has_to_be_there(monkeypatch, capsys):
    flags = ["--data", "world", "--out", "runs/x", "--base", "world-vq", "nothing"]
    assert main(["train", "rcg", *flags]) == 2
    assert "model 'nothing' is not known" in capsys.readouterr().err
