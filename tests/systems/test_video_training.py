"""From a folder of animations, or the world in motion, to a model of clips: what `diorama train video-ldm` does."""

import json

import pytest
import tiny
import torch
from PIL import Image

from diorama.apps.cli import main
from diorama.apps.plan import Plan as Planned
from diorama.apps.plan import forecast
from diorama.cards import find
from diorama.sources import Clips, Films
from diorama.systems.base import load_system
from diorama.systems.video.video_ldm import VideoLDM
from diorama.train import train
from diorama.training.plan import Plan
from diorama.types import Noise

PLAN = Plan(steps=2, batch=2, log_every=1, sample_every=2, save_minutes=0, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A saved flow of 16 pixels, and one of 32."""
    folder = tmp_path_factory.mktemp("models")
    for size in (16, 32):
        system = tiny.flow()
        system.size = size
        system.save_pretrained(folder / str(size))
    return folder


@pytest.fixture(scope="module")
def animations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("animations")
    for i in range(4):
        first, *rest = (Image.new("RGB", (16, 16), (40 * i, 20 * k, 90)) for k in range(5))
        first.save(folder / f"{i}.webp", save_all=True, append_images=rest, duration=125, lossless=True)
        (folder / f"{i}.txt").write_text("a red square")
    return folder


def quick(out, base, data, plan=PLAN, **told):
    return train("video-ldm", data, out, plan, preset="nano", base=base, say=lambda line: None, **told)


def test_a_folder_of_animations_is_trained_on_and_the_run_goes_on_bit_for_bit(animations, base, tmp_path):
    data = Films(path=animations, size=16, frames=4)
    longer = Plan(**{**PLAN.__dict__, "steps": 3})
    quick(tmp_path / "twice", base / "16", data)
    quick(tmp_path / "twice", base / "16", data, longer)
    quick(tmp_path / "once", base / "16", data, longer)
    once, twice = (load_system(tmp_path / name / "model") for name in ("once", "twice"))
    assert isinstance(once, VideoLDM)
    assert torch.equal(tiny.weights(once.temporal), tiny.weights(twice.temporal))
    assert torch.equal(tiny.weights(once.decoder), tiny.weights(twice.decoder))
    assert torch.equal(tiny.weights(once.network), tiny.weights(load_system(base / "16").network))
    assert (once.frames, once.styles) == (4, tiny.STYLES)
    assert once.sample(["a red square"], steps=2, noise=Noise([0])).shape == (1, 4, 4, 16, 16)
    entries = [json.loads(line) for line in (tmp_path / "twice" / "log.jsonl").read_text().splitlines()]
    assert {"loss", "loss/decoder", "loss/critic"} <= set(entries[0])
    assert (tmp_path / "once" / "samples" / "step-00000003.png").is_file()


def test_the_world_in_motion_is_trained_on(base, tmp_path):
    data = Clips(size=32, rules={"frames": 4, "world": {"most": 1}}, form="still")
    history = quick(tmp_path / "run", base / "32", data)
    assert len(history.losses) == 2
    assert load_system(tmp_path / "run" / "model").frames == 4


def test_the_command_line_does_both(animations, base, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["--preset", "nano", "--frames", "4", "--steps", "1", "--batch", "2", "--device", "cpu", "--dtype", "float32"]

    def run(data, size, out):
        where = ["--data", data, "--size", size, "--base", str(base / size), "-o", str(tmp_path / out)]
        return main(["train", "video-ldm", *where, *options])

    assert run(str(animations), "16", "folder") == 0
    assert run("world", "32", "world") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / name / "model") for name in ("folder", "world")]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--size", "64"], "size 64 is not what the picture model paints: use --size 16"),
        (["--size", "16", "--frames", "9"], "frames, 9 are needed"),
        (["--size", "16", "--compose", "2"], "--on-white, --compose and --often are for pictures of your own: leave them out"),
        (["--size", "16", "--frames", "0"], "frames 0 is not allowed: use 1 or more"),
    ],
)
def test_mistakes_are_told(animations, base, tmp_path, more, line, capsys):
    command = ["train", "video-ldm", "--data", str(animations), "--preset", "nano", "--base", str(base / "16")]
    assert main([*command, "-o", str(tmp_path / "run"), "--steps", "1", *more]) == 2
    assert line in capsys.readouterr().err


def test_a_system_that_is_no_picture_model_is_no_base(base, animations, tmp_path, capsys):
    VideoLDM.on(load_system(base / "16")).save_pretrained(tmp_path / "clips")
    command = ["train", "video-ldm", "--data", str(animations), "--preset", "nano", "--base", str(tmp_path / "clips")]
    assert main([*command, "--size", "16", "-o", str(tmp_path / "run")]) == 2
    assert "is a saved video-ldm, which is no LatentPainter: name another with --base" in capsys.readouterr().err


def test_a_plan_can_be_made_of_it():
    found = forecast(Planned(system="video-ldm", preset="nano", size=32, frames=4), find("video-ldm"))
    assert found["parameters"] == find("video-ldm").presets["nano"]
    assert found["fits"]
