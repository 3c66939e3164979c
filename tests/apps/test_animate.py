"""From a sentence or a picture to an animation, in every format, and its recipe back."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
from PIL import Image

from diorama.adapters.temporal import Temporal
from diorama.apps import films
from diorama.apps.cli import main
from diorama.data.clips import frames_of
from diorama.files import sha256
from diorama.recipe import ClipRecipe, read_recipe
from diorama.systems.video.video_ldm import VideoLDM


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a saved model of 16 pixels and three frames, with weights that let time through."""
    system = VideoLDM.on(tiny.flow())
    for part in (system.temporal, system.decoder):
        tiny.randomised(part)
        assert isinstance(part, Temporal)
    system.frames, system.fps = 3, 10.0
    folder = tmp_path_factory.mktemp("models") / "mover"
    system.save_pretrained(folder, name="mover")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def run(model, *words, seed=5):
    return main(["animate", *words, "--system", str(model), "--steps", "2", "--seed", str(seed), "--device", "cpu"])


def pixels(path):
    return np.stack([np.asarray(frame) for frame, _ in frames_of(path, path.name)])


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_a_sentence_becomes_a_clip_with_its_recipe(model, here, suffix, capsys):
    out = here / f"clip{suffix}"
    assert run(model, "a red square", "-o", str(out)) == 0
    assert capsys.readouterr().out.startswith(f"{out}  seed 5  3 frames")
    frames = frames_of(out, "clip")
    assert [frame.size for frame, _ in frames] == [(16, 16)] * 3
    assert {shown for _, shown in frames} == {100.0}
    recipe = read_recipe(out)
    assert (recipe.prompt, recipe.seed, recipe.model, recipe.size) == ("a red square", 5, "mover", 16)


def test_all_that_it_was_made_with_is_in_the_recipe(model, here):
    run(model, "a red square", "-o", "clip.png", "--frames", "5", "--fps", "4")
    told = ClipRecipe.from_json(Image.open(here / "clip.png").info["diorama"])
    assert (told.frames, told.fps, told.pressed, told.first) == (5, 4.0, 1.0, "")


def test_the_same_seed_is_the_same_clip_and_another_is_not(model, here):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run(model, "a red square", "-o", f"{name}.webp", seed=seed)
    a, b, c = (pixels(here / f"{name}.webp") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_picture_is_where_it_begins(model, here):
    Image.new("RGB", (20, 20), "red").save(here / "red.png")
    Image.new("RGB", (20, 20), "blue").save(here / "blue.png")
    for name in ("red", "blue"):
        assert run(model, f"{name}.png", "a square", "-o", f"{name}.webp") == 0
    assert not np.array_equal(pixels(here / "red.webp"), pixels(here / "blue.webp"))
    told = ClipRecipe.from_dict(json.loads(_told(here / "red.webp")))
    assert (told.first, told.prompt) == (sha256(here / "red.png"), "a square")
    assert run(model, "red.png") == 0
    assert (here / "red-5.webp").is_file()


@pytest.mark.parametrize("name", ["clip.webp", "clip.gif", "clip.png"])
def test_a_clip_is_replayed(model, here, name):
    Image.new("RGB", (20, 20), "red").save(here / "red.png")
    run(model, "red.png", "a square", "-o", name, "--frames", "4")
    assert main(["replay", name, "--system", str(model), "--first", "red.png", "-o", f"again-{name}"]) == 0
    assert np.array_equal(pixels(here / name), pixels(here / f"again-{name}"))


def test_another_clip_is_not_replayed(model, here, capsys):
    Image.new("RGB", (20, 20), "red").save(here / "red.png")
    Image.new("RGB", (20, 20), "blue").save(here / "blue.png")
    run(model, "red.png", "-o", "clip.webp")
    for words, line in (
        ([], "it was made with model 'mover'"),
        (["--system", str(model)], "the clip begins with a picture of SHA-256"),
        (["--system", str(model), "--first", "blue.png"], "name its file with --first"),
        (["--system", "default"], "the clip was made with model 'mover'"),
    ):
        assert main(["replay", "clip.webp", *words]) == 2
        assert line in capsys.readouterr().err


def _told(path):
    from diorama.recipe import _from_xmp

    return _from_xmp(Image.open(path).info["xmp"])


def test_without_a_recipe_nothing_is_told(model, here):
    run(model, "a red square", "-o", "clip.gif", "--no-recipe")
    assert b"diorama" not in (here / "clip.gif").read_bytes()


def test_larger_is_resampled(model, here):
    run(model, "a red square", "-o", "clip.webp", "--size", "40")
    assert pixels(here / "clip.webp").shape == (3, 40, 40, 4)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "say what to animate: a sentence, a picture, or a picture and a sentence"),
        (["gone.png"], "gone.png does not exist: give a picture to begin with, or a sentence"),
        (["a", "-o", "clip.jpg"], "clip.jpg does not end in .webp, .gif, .png, .mp4: choose one of these"),
        (["a", "-o", "no/clip.gif"], "the folder no of no/clip.gif does not exist"),
        (["a", "--frames", "0"], "frames 0 is not allowed: use 1 to 512"),
        (["a", "--fps", "99"], "fps 99.0 is not allowed: use 1 to 60"),
        (["a", "--style", "cubist"], "style 'cubist' is not known: use flat, solid"),
        (["a", "--solver", "guess"], "solver 'guess' is not known"),
    ],
)
def test_mistakes_are_told_in_one_line(model, words, line, capsys):
    assert run(model, *words) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_a_film_needs_a_package(model, monkeypatch, capsys):
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    assert run(model, "a", "-o", "clip.mp4") == 2
    assert (
        "clip.mp4: .mp4 is written by the package av: pip install diorama[video], or use .webp or .gif" in capsys.readouterr().err
    )


def test_a_film_is_read_back_frame_for_frame(model, here):
    pytest.importorskip("av", reason="films need the package av")
    assert run(model, "a red square", "-o", "clip.mp4", "--size", "64") == 0
    frames = frames_of(here / "clip.mp4", "clip")
    assert len(frames) == 3
    run(model, "a red square", "-o", "clip.webp", "--size", "64")
    film, truth = (
        np.stack([np.asarray(f.convert("L"), float) for f, _ in frames_of(here / name, name)])
        for name in ("clip.mp4", "clip.webp")
    )
    assert np.abs(film - truth).mean() < 12


def test_what_is_no_video_model_is_told(tmp_path, capsys):
    tiny.flow().save_pretrained(tmp_path / "still")
    assert run(tmp_path / "still", "a") == 2
    assert "is a saved flow, which makes no clips: give a video-ldm" in capsys.readouterr().err


def test_a_video_model_paints_no_pictures(model, capsys):
    assert main(["generate", "a", "--system", str(model)]) == 2
    assert "is a saved video-ldm, which is not asked by sentence and solver" in capsys.readouterr().err


def test_arguments_are_read_before_torch():
    code = "import sys, diorama.apps.animate; sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=env).returncode == 0
