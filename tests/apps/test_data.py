"""`diorama data` from the command line."""

import json

import pytest
import tiny
from PIL import Image

from diorama.apps.cli import main
from diorama.networks.towers import TowerConfig
from diorama.systems.understanding.clip import Clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("scorer") / "eye"
    tower = TowerConfig(size=16, patch=2, widths=(16, 16))
    tiny.randomised(Clip.build(tiny.sentence_encoder(), [], tower)).save_pretrained(folder, name="eye")
    return str(folder)


def fails(capsys, *arguments: object) -> str:
    assert main(["data", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_look_says_what_a_folder_is(picture_folder, capsys):
    assert main(["data", "look", str(picture_folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "12 pictures (classes + sidecars)",
        "size 16 x 16 / 16 x 16 / 16 x 16 (smallest / median / largest of 12 looked at)",
    ]
    assert main(["data", "look", str(picture_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == {"flat": 6, "solid": 6}


def test_clean_keeps_one_of_each_and_says_why_the_rest_goes(picture_folder, tmp_path, capsys):
    command = ["data", "clean", str(picture_folder), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "8  duplicate: repeats another picture (duplicate)" in out
    assert f"4  of 12 kept in {tmp_path / 'out'}" in out
    assert "nobody looked whether pictures fit their captions; name a model with --scorer" in err
    assert main([*command, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["kept"], about["reasons"]["duplicate"]["pictures"]) == (4, 8)


def test_a_scorer_drops_what_fits_worst(picture_folder, clip, tmp_path, capsys):
    scored = ["data", "clean", picture_folder, "--scorer", clip, "--filters", "retrieval", "--unlike", "a round thing|a thing"]
    assert main([*map(str, scored), "--fit", "25%", "-o", str(tmp_path / "out"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["reasons"]["unlike"]["pictures"] <= 3 < about["kept"]
    line = about["least score kept"]
    assert main([*map(str, scored), "--fit", str(line), "-o", str(tmp_path / "same"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == about["kept"]


def test_masks_that_disagree_are_told(picture_folder, tmp_path, capsys):
    for path in picture_folder.rglob("*.png"):
        mask = Image.new("L", (8, 8), 0 if path.stem == "03" else 255)
        (tmp_path / "masks" / path.parent.name).mkdir(parents=True, exist_ok=True)
        mask.save(tmp_path / "masks" / path.relative_to(picture_folder))
    command = [
        "data",
        "clean",
        picture_folder,
        "-o",
        tmp_path / "out",
        "--filters",
        "mask",
        "--masks",
        tmp_path / "masks",
        "--area",
        "0..1",
    ]
    assert main([*map(str, command), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert [line["key"] for line in about["reasons"]["disagree"]["examples"]] == ["solid/03.png"]


def test_mistakes_are_one_line(picture_folder, tiny_model, tmp_path, capsys):
    clean = "clean", picture_folder, "-o", tmp_path / "out"
    assert "does not exist" in fails(capsys, "clean", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert "filter 'blur' is not known" in fails(capsys, *clean, "--filters", "blur")
    assert "fit 'some' is no number" in fails(capsys, *clean, "--fit", "some")
    assert "fit 200% is not allowed" in fails(capsys, *clean, "--fit", "200%")
    assert "least-words -2 is not allowed" in fails(capsys, *clean, "--least-words", "-2")
    assert "area '0.5' is not LOW..HIGH" in fails(capsys, *clean, "--area", "0.5")
    assert "alike 7.0 is not allowed: use 0 to 1" in fails(capsys, *clean, "--alike", "7")
    assert "cannot tell what fits a caption: give a saved clip" in fails(capsys, *clean, "--scorer", tiny_model)
    assert "model 'nobody' is not known" in fails(capsys, *clean, "--scorer", "nobody")
    assert "whose pictures are read: name a folder beside it" in fails(
        capsys, "clean", picture_folder, "-o", picture_folder / "new"
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert "holds other files" in fails(capsys, "clean", picture_folder, "-o", tmp_path / "full")
    assert "{look, clean, recaption}" in fails(capsys)
    assert not (tmp_path / "out").exists()
