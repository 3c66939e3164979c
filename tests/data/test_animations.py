"""Animations of every kind are the same clip: numbered squares, one shade a frame."""

import io
import json
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diorama.data.clips import Animations, Clip, ClipBatches, evenly, frames_of
from diorama.data.source import Unreadable
from diorama.errors import UserError

N, SIDE = 10, 16


def shade(k):
    return 20 + 20 * k


def squares(n=N):
    return [Image.new("RGB", (SIDE, SIDE), (shade(k),) * 3) for k in range(n)]


def shades(clip):
    return [int(np.asarray(frame)[SIDE // 2, SIDE // 2, 0]) for frame in clip.frames]


def animation(path, n=N, duration=125):
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    first, *rest = squares(n)
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0, **lossless)


def strip(n=N):
    return Image.fromarray(np.concatenate([np.asarray(square) for square in squares(n)], 1))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_animation_is_read_frame_by_frame(tmp_path, suffix):
    animation(tmp_path / f"grey{suffix}")
    (tmp_path / "grey.txt").write_text("it grows brighter")
    source = Animations(tmp_path, fps=8)
    clip = source.read(0)
    assert shades(clip) == [shade(k) for k in range(N)]
    assert (len(source), clip.text, clip.image) == (1, "it grows brighter", clip.frames[0])


@pytest.mark.parametrize("form", ["strip", "webp"])
def test_shards_hold_strips_and_animations(tmp_path, form):
    data = io.BytesIO()
    if form == "strip":
        strip().save(data, "WEBP", lossless=True)
    else:
        first, *rest = squares()
        first.save(data, "WEBP", save_all=True, append_images=rest, duration=125, lossless=True)
    said = {"caption": "a square", "frames": N, "fps": 8.0}
    with tarfile.open(tmp_path / "clips.tar", "w") as tar:
        for name, content in (("0.webp", data.getvalue()), ("0.json", json.dumps(said).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    clip = Animations(tmp_path, fps=8).read(0)
    assert shades(clip) == [shade(k) for k in range(N)]
    assert clip.text == "a square"


def test_time_is_even_whatever_the_frames_last():
    shown = [(k, duration) for k, duration in enumerate([100, 300, 100, 500])]
    assert list(evenly(shown, 10)) == [0, 1, 1, 1, 2, 3, 3, 3, 3, 3]
    assert list(evenly(shown, 5)) == [0, 1, 2, 3, 3]  # at 0, 200, 400, 600, 800 ms
    assert list(evenly([("still", 1.0)], 8)) == ["still"]


def clips(n, length=N):
    class Source:
        labels = ()

        def __len__(self):
            return n

        def read(self, i):
            frames = tuple(square.convert("RGBA") for square in squares(length))
            return Clip(f"clip {i}", frames[0], "", frames=frames)

    return Source()


def test_a_batch_is_of_frames_in_a_row_and_the_same_again():
    batches = ClipBatches(clips(3), 8, 5, seed=1, frames=4)
    image = batches(2).image
    assert image.shape == (5, 4, 4, 8, 8)
    steps = image[:, 0, :, 0, 0].diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 20 / 127.5), atol=1e-5)
    assert torch.equal(image, ClipBatches(clips(3), 8, 5, seed=1, frames=4)(2).image)
    starts = {round(float(batches(step).image[0, 0, 0, 0, 0]), 3) for step in range(12)}
    assert len(starts) > 3  # not always from the beginning


def test_short_clips_are_left_out_and_named():
    batches = ClipBatches(clips(2, 3), 8, 1, seed=0, frames=4, limit=5)
    with pytest.raises(UserError, match="clip .: 3 frames, 4 are needed"):
        batches(0)


def test_films_need_a_package(tmp_path, monkeypatch):
    (tmp_path / "film.mp4").write_bytes(b"no film")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(Unreadable, match=r"film.mp4: films are read by the package av: pip install diorama\[video\]"):
        Animations(tmp_path).read(0)


def test_films_are_read_where_it_is_there(tmp_path, monkeypatch):
    """By a stand-in for the package, which hands out the frames of a film of 4 a second."""

    class Film:
        streams = SimpleNamespace(video=[SimpleNamespace(average_rate=4)])

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def decode(self, stream):
            return (SimpleNamespace(to_image=lambda k=k: squares()[k]) for k in range(3))

    monkeypatch.setitem(sys.modules, "av", SimpleNamespace(open=lambda path: Film()))
    (tmp_path / "film.mp4").touch()
    assert shades(Animations(tmp_path, fps=8).read(0)) == [shade(0), shade(0), shade(1), shade(1), shade(2), shade(2)]


def test_what_is_no_clip_is_told(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Animations(tmp_path / "gone")
    with pytest.raises(UserError, match="no clips in"):
        Animations(tmp_path)
    (tmp_path / "torn.gif").write_bytes(b"GIF89a")
    with pytest.raises(Unreadable, match="torn.gif"):
        Animations(tmp_path).read(0)
    assert len(frames_of(_png(), "still")) == 1


def _png():
    data = io.BytesIO()
    squares(1)[0].save(data, "PNG")
    return data.getvalue()
