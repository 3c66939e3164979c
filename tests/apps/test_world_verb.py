import json

import numpy as np
import pytest
import torch
from PIL import Image

from diorama.apps.answers import ASKS, TURN, _flow_colours
from diorama.apps.cli import main
from diorama.scenes.cameras import orbit
from diorama.worlds.clips import clip
from diorama.worlds.film import film
from diorama.worlds.scene import scene
from diorama.worlds.stage import STAGED, staged, tell
from diorama.worlds.views import shoot


def world(out, ask, *flags):
    """The lines of world.jsonl of a run."""
    assert main(["world", "--ask", ask, "--size", "32", "-o", str(out), *flags]) == 0
    return [json.loads(line) for line in (out / "world.jsonl").read_text().splitlines()]


def frames(path):
    with Image.open(path) as moving:
        for k in range(moving.n_frames):
            moving.seek(k)
            yield np.asarray(moving.convert("RGB")).astype(int)


def test_an_orbit_is_the_ring_of_pictures_and_its_cameras(tmp_path):
    world(tmp_path, "orbit", "--n", "1", "--first", "3", "--elevation", "40")
    shown = list(frames(tmp_path / "3-orbit.webp"))
    ring = orbit(TURN, 40, size=32)
    for k in (0, 9, 35):
        seen = shoot([scene(0, 3)], ring.rows(slice(k, k + 1))).image[0, 0, :3].permute(1, 2, 0)
        assert np.abs(shown[k] - (255 * (seen.numpy() + 1) / 2)).max() <= 1
    told = json.loads((tmp_path / "3-orbit-transforms.json").read_text())["frames"]
    assert len(told) == len(shown) == TURN
    assert {frame["file_path"] for frame in told} == {"3-orbit.webp"}
    places = torch.tensor([frame["transform_matrix"] for frame in told])[:, :3, 3]
    torch.testing.assert_close(places, ring.centre, atol=1e-5, rtol=0)


def test_flow_and_tracks_are_those_of_the_clip(tmp_path):
    (line,) = world(tmp_path, "clip,flow,tracks", "--n", "1", "--seed", "3", "--first", "55")
    made = clip(3, 55)
    seen = film(made, 32)
    flow, occluded = (np.load(tmp_path / f"55-{name}.npy", allow_pickle=False) for name in ("flow", "occluded"))
    assert (flow.dtype, flow.shape) == (np.float32, (15, 2, 32, 32))
    assert (occluded.dtype, occluded.shape) == (np.bool_, (15, 32, 32))
    assert np.array_equal(flow, seen.flow()[0].numpy()) and np.array_equal(occluded, seen.flow()[1].numpy())
    tracks = np.load(tmp_path / "55-tracks.npy", allow_pickle=False)
    assert (tracks.dtype, tracks.shape) == (np.float32, (16, 3, 2))
    for k, (thing, named) in enumerate(zip(made.scenes()[0].things, line["tracks"], strict=True)):
        assert named == {"shape": thing.shape, "colour": thing.colour}
        assert tracks[0, k] == pytest.approx((32 * thing.x, 32 * thing.y))
    assert len(list(frames(tmp_path / "55-clip.webp"))) == 16


def test_a_tour_is_a_clip_in_space_with_its_truth(tmp_path):
    (line,) = world(tmp_path, "tour", "--n", "1", "--seed", "3", "--first", "5", "--elevation", "40")
    made, ring = clip(3, 5, STAGED), orbit(64, 40, size=32).rows(slice(16))
    seen = staged(made, ring)
    truth = {name: np.load(tmp_path / f"5-tour-{name}.npy", allow_pickle=False) for name in ("depth", "mask", "tracks", "places")}
    flow, occluded = (np.load(tmp_path / f"5-tour-{name}.npy", allow_pickle=False) for name in ("flow", "occluded"))
    assert (flow.dtype, flow.shape, occluded.dtype) == (np.float32, (15, 2, 32, 32), np.bool_)
    assert np.array_equal(flow, seen.flow()[0].numpy()) and np.array_equal(occluded, seen.flow()[1].numpy())
    assert np.array_equal(truth["depth"], seen.depth.numpy()) and np.array_equal(truth["tracks"], seen.tracks.numpy())
    assert (truth["mask"].dtype, truth["places"].shape) == (np.uint8, (16, 3, 3))
    assert set(np.unique(truth["mask"])) == {0, 1, 2, 3}
    assert line["toured"] == [{"shape": t.shape, "colour": t.colour} for t in made.shots[0].scene.things]
    assert line["tour"] == tell(made)
    shown = list(frames(tmp_path / "5-tour.webp"))
    told = json.loads((tmp_path / "5-tour-transforms.json").read_text())["frames"]
    assert len(shown) == len(told) == 16
    assert np.abs(shown[9] - 255 * (seen.image[9, :3].permute(1, 2, 0).numpy() + 1) / 2).max() <= 1
    places = torch.tensor([frame["transform_matrix"] for frame in told])[:, :3, 3]
    torch.testing.assert_close(places, ring.centre, atol=1e-5, rtol=0)


def test_every_series_begins_a_row_of_its_card(tmp_path):
    world(tmp_path, "picture,points,clip,flow", "--n", "1")
    assert Image.open(tmp_path / "sheet.png").size == (4 * 192 + 3 * 4, 3 * 192 + 2 * 4 + 13 * 3)


def test_flow_is_shown_by_direction_and_speed():
    flow = torch.zeros(1, 2, 32, 32)
    flow[0, 0, 0, 0], flow[0, 0, 0, 1], flow[0, 1, 0, 2] = 4.0, -2.0, 4.0  # right, left at half the speed, down
    picture = _flow_colours(flow)[0]
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert picture.getpixel((5, 5)) == (0, 0, 0)
    red, green, blue = picture.getpixel((1, 0))
    assert red == 0 and green == pytest.approx(128, abs=3) and blue == pytest.approx(128, abs=3)
    red, green, blue = picture.getpixel((2, 0))
    assert green == 255 and blue == 0 and red == pytest.approx(128, abs=4)
    assert not np.asarray(_flow_colours(0 * flow)[0]).any()  # nothing moves


def test_a_scan_is_shown_from_above(tmp_path):
    world(tmp_path, "points", "--n", "1", "--seed", "3", "--first", "55")
    points = np.load(tmp_path / "55-points.npy", allow_pickle=False)
    assert {-1, 0, 1} <= set(points["thing"].tolist())
    shown = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))[:192, :192]
    red = np.argwhere((shown == (230, 90, 60)).all(-1)).mean(0)
    first = points[points["thing"] == 0]
    assert red == pytest.approx((96 * (1 - first["y"].mean()), 96 * (1 + first["x"].mean())), abs=4)


def test_cameras_may_stand_under_a_scene_without_a_ground(tmp_path, capsys):
    clear = next(i for i in range(50) if scene(0, i).ground.kind == "clear")
    world(tmp_path, "views", "--n", "1", "--first", str(clear), "--views", "1", "--elevation", "-90")
    assert (np.asarray(Image.open(tmp_path / f"{clear}-view0.png"))[..., 3] > 0).any()
    world(tmp_path, "views", "--n", "4", "--views", "2", "--elevation", "-4")  # as low as --help says
    laid = next(i for i in range(50) if scene(0, i).ground.kind != "clear")
    asked = ["world", "--ask", "views", "--n", "1", "--first", str(laid), "-o", str(tmp_path / "none")]
    assert main([*asked, "--elevation", "-90"]) == 2
    assert "below the ground" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_rare_looks_come_where_they_are_named(tmp_path):
    world(tmp_path, "scene", "--n", "3", "--styles", "neon", "--textures", "spiral, wavy")
    made = [line["scene"] for line in map(json.loads, (tmp_path / "world.jsonl").read_text().splitlines())]
    assert {one["style"] for one in made} == {"neon"}
    assert {thing["texture"] for one in made for thing in one["things"]} == {"spiral", "wavy"}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--form", "foo", "use short, long, relation, negation, alt"),
        ("--elevation", "91", "use -90 to 90 degrees"),
        ("--styles", "noen", "use flat"),
    ],
)
def test_what_is_not_there_is_refused_whatever_is_asked(ask, flag, value, allowed, tmp_path, capsys):
    assert main(["world", "--ask", ask, "--n", "1", "-o", str(tmp_path / "none"), flag, value]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and value in told and allowed in told
    assert not (tmp_path / "none").exists()


def test_everything_can_be_asked_for_at_once(tmp_path):
    (line,) = world(tmp_path, ",".join(ASKS), "--n", "1", "--views", "2")
    assert {"text", "scene", "boxes", "views", "clip", "tracks", "tour", "figure"} <= set(line)
